//! Builds programs: hands out ids, nests loops, and says nothing about any instruction set.

use super::{
    Addr, Carried, Counter, Element, Extent, Index, Loop, Op, Operand, Program, Promise, Stmt,
    Value, Width,
};

/// Appends steps to a program under construction.
pub struct Builder {
    program: Program,
    open: Vec<Vec<Stmt>>,
}

impl Builder {
    /// An empty program.
    pub fn new(name: impl Into<String>, width: Width) -> Self {
        Self {
            program: Program {
                name: name.into(),
                width,
                extents: [None; Operand::COUNT],
                consts: Vec::new(),
                body: Vec::new(),
                n_values: 0,
                n_indices: 0,
                n_counters: 0,
            },
            open: vec![Vec::new()],
        }
    }

    /// Bytes of a vector.
    pub fn width_bytes(&self) -> usize {
        self.program.width.bytes()
    }

    /// Declares an operand.
    pub fn operand(&mut self, operand: Operand, bytes: usize, promise: Promise) {
        self.program.extents[operand as usize] = Some(Extent { bytes, promise });
    }

    /// Adds constant bytes, aligned to 64, and returns their offset in [`Operand::Consts`].
    pub fn consts(&mut self, bytes: &[u8]) -> usize {
        let at = self.program.consts.len().next_multiple_of(64);
        self.program.consts.resize(at, 0);
        self.program.consts.extend_from_slice(bytes);
        let len = self.program.consts.len();
        self.operand(Operand::Consts, len, Promise::Bits);
        at
    }

    fn push(&mut self, stmt: Stmt) {
        self.open
            .last_mut()
            .expect("the builder has an open body")
            .push(stmt);
    }

    fn fresh(&mut self) -> Value {
        self.program.n_values += 1;
        Value(self.program.n_values - 1)
    }

    /// `let v = op`.
    pub fn op(&mut self, op: Op) -> Value {
        let v = self.fresh();
        self.push(Stmt::Let(v, op));
        v
    }

    /// The i32 zero vector.
    pub fn zero(&mut self) -> Value {
        self.op(Op::Splat32(0))
    }

    /// Reads a table index of one byte.
    pub fn index8(&mut self, addr: Addr) -> Index {
        self.program.n_indices += 1;
        let i = Index(self.program.n_indices - 1);
        self.push(Stmt::LetIndex8(i, addr));
        i
    }

    /// Reads a table index of two bytes.
    pub fn index16(&mut self, addr: Addr) -> Index {
        self.program.n_indices += 1;
        let i = Index(self.program.n_indices - 1);
        self.push(Stmt::LetIndex16(i, addr));
        i
    }

    /// Reads `count` (4 or 8) table indices of one byte by one load, each shifted left by `shift`.
    pub fn indices8(&mut self, count: usize, addr: Addr, shift: u8) -> Vec<Index> {
        assert!(count == 4 || count == 8, "{count} indices by one load");
        let first = self.program.n_indices;
        self.program.n_indices += count as u32;
        let indices: Vec<Index> = (first..self.program.n_indices).map(Index).collect();
        self.push(Stmt::LetIndices8 {
            indices: indices.clone(),
            addr,
            shift,
        });
        indices
    }

    /// Stores a vector.
    pub fn store(&mut self, addr: Addr, v: Value) {
        self.push(Stmt::Store(addr, v));
    }

    /// Adds a vector to memory.
    pub fn accumulate(&mut self, element: Element, addr: Addr, v: Value) {
        self.push(Stmt::Accumulate(element, addr, v));
    }

    /// Hints at a line that will be read soon.
    pub fn prefetch(&mut self, addr: Addr) {
        self.push(Stmt::Prefetch(addr));
    }

    /// A loop of `trip` turns that carries `init`; the body returns the next values. Returns the last ones.
    /// A trip of 0 emits nothing and returns `init`.
    pub fn repeat(
        &mut self,
        trip: usize,
        init: &[Value],
        body: impl FnOnce(&mut Self, Counter, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        if trip == 0 {
            return init.to_vec();
        }
        let counter = Counter(self.program.n_counters);
        self.program.n_counters += 1;
        let params: Vec<Value> = init.iter().map(|_| self.fresh()).collect();
        self.open.push(Vec::new());
        let next = body(self, counter, &params);
        assert_eq!(
            next.len(),
            init.len(),
            "a loop returns as many values as it carries"
        );
        let stmts = self.open.pop().expect("the loop's body is open");
        let carried: Vec<Carried> = init
            .iter()
            .zip(params)
            .zip(next)
            .map(|((&init, param), next)| Carried {
                init,
                param,
                next,
                result: self.fresh(),
            })
            .collect();
        let results = carried.iter().map(|c| c.result).collect();
        self.push(Stmt::Loop(Loop {
            counter,
            trip,
            carried,
            body: stmts,
        }));
        results
    }

    /// The finished program.
    pub fn finish(mut self) -> Program {
        assert_eq!(self.open.len(), 1, "every loop is closed");
        self.program.body = self.open.pop().expect("the outer body is open");
        self.program
    }
}
