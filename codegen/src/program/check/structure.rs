//! The shape of a program: every value defined once, before its use and in scope; loops that turn;
//! addresses inside their operands for every turn and every index; widths and shift counts.

use super::fault::{Fault, FaultKind};
use crate::program::{
    Addr, Counter, Element, Index, Loop, Op, Operand, Program, Promise, Stmt, Value, Width,
};

/// What is in scope while the program is read from top to bottom.
pub(super) struct Structure<'p> {
    program: &'p Program,
    values: Vec<Seen>,
    indices: Vec<(Seen, IndexFacts)>,
    /// The trip count of each open loop.
    counters: Vec<Option<usize>>,
    counters_used: Vec<bool>,
    /// What the open loops defined, to close it with them.
    scopes: Vec<(Vec<Value>, Vec<Index>)>,
    /// The elements in which each operand is accumulated.
    elements: [Option<Element>; Operand::COUNT],
    reach: [usize; Operand::COUNT],
    touched: [usize; Operand::COUNT],
}

/// What the structure of a program tells the later passes.
pub(super) struct Facts {
    /// Of each table index.
    pub(super) indices: Vec<IndexFacts>,
    /// The elements in which each operand is accumulated.
    pub(super) elements: [Option<Element>; Operand::COUNT],
    /// See [`super::Checked::reach`].
    pub(super) reach: [usize; Operand::COUNT],
    /// The end of the furthest access to each operand, bytes.
    pub(super) touched: [usize; Operand::COUNT],
}

#[derive(Clone, Copy, PartialEq)]
enum Seen {
    Never,
    Open,
    Closed,
}

/// What is known of a table index.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IndexFacts {
    /// The largest value.
    pub(super) max: usize,
    /// The largest value that the bytes it is read from could bring if the promise were broken.
    wild: usize,
    /// Every value is a multiple of `1 << shift`.
    pub(super) shift: u8,
}

/// Largest extent of an operand: keeps all address arithmetic far from overflow.
const MAX_BYTES: usize = 1 << 46;

fn too_far() -> Fault {
    Fault::new(FaultKind::Bounds, "the address overflows")
}

/// Checks the structure of `program`; what it tells comes back.
pub(super) fn check(program: &Program) -> Result<Facts, Fault> {
    for operand in Operand::ALL {
        let Some(extent) = program.extent(operand) else {
            continue;
        };
        if extent.bytes > MAX_BYTES {
            return Err(Fault::new(
                FaultKind::TooLarge,
                format!("{operand:?} has {} bytes", extent.bytes),
            ));
        }
        let empty = match extent.promise {
            Promise::Bits | Promise::Codes2 => false,
            Promise::U8(lo, hi) => lo > hi,
            Promise::I8(lo, hi) => lo > hi,
            Promise::U16(lo, hi) => lo > hi,
            Promise::I16(lo, hi) | Promise::I16Planes(lo, hi) => lo > hi,
            Promise::I32(lo, hi) => lo > hi,
        };
        if empty {
            return Err(Fault::new(
                FaultKind::Promise,
                format!("{operand:?} promises nothing: {:?}", extent.promise),
            ));
        }
        let scratch = matches!(operand, Operand::Scratch0 | Operand::Scratch1);
        if scratch && !extent.promise.holds(&[0; 32]) {
            return Err(Fault::new(
                FaultKind::Promise,
                format!(
                    "{operand:?} is zero at first, which is not {:?}",
                    extent.promise
                ),
            ));
        }
        if operand == Operand::Consts
            && (extent.bytes != program.consts.len() || extent.promise != Promise::Bits)
        {
            return Err(Fault::new(
                FaultKind::Malformed,
                format!(
                    "Consts has {} bytes of {:?}, the program carries {}",
                    extent.bytes,
                    extent.promise,
                    program.consts.len()
                ),
            ));
        }
    }
    let mut this = Structure {
        program,
        values: vec![Seen::Never; program.n_values as usize],
        indices: vec![(Seen::Never, IndexFacts::default()); program.n_indices as usize],
        counters: vec![None; program.n_counters as usize],
        counters_used: vec![false; program.n_counters as usize],
        scopes: vec![Default::default()],
        elements: [None; Operand::COUNT],
        reach: Operand::ALL.map(|o| program.bytes(o)),
        touched: [0; Operand::COUNT],
    };
    this.body(&program.body)?;
    Ok(Facts {
        indices: this.indices.iter().map(|(_, facts)| *facts).collect(),
        elements: this.elements,
        reach: this.reach,
        touched: this.touched,
    })
}

impl Structure<'_> {
    fn body(&mut self, body: &[Stmt]) -> Result<(), Fault> {
        for stmt in body {
            self.stmt(stmt).map_err(|fault| fault.at(stmt))?;
        }
        Ok(())
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<(), Fault> {
        let width = self.program.width.bytes();
        match stmt {
            Stmt::Let(v, op) => self.op(*v, op),
            Stmt::LetIndex8(i, addr) => self.index(&[*i], addr, 1, 0),
            Stmt::LetIndex16(i, addr) => self.index(&[*i], addr, 2, 0),
            Stmt::LetIndices8 {
                indices,
                addr,
                shift,
            } => {
                if !matches!(indices.len(), 4 | 8) || *shift >= 16 {
                    return Err(Fault::new(
                        FaultKind::Malformed,
                        format!(
                            "{} indices shifted by {shift}; 4 or 8 by less than 16 exist",
                            indices.len()
                        ),
                    ));
                }
                self.index(indices, addr, 1, *shift)
            }
            Stmt::Store(addr, v) => {
                self.read(*v)?;
                self.inside(addr, width)?;
                self.writable(addr)
            }
            Stmt::Accumulate(element, addr, v) => {
                self.read(*v)?;
                self.inside(addr, width)?;
                self.writable(addr)?;
                let known = &mut self.elements[addr.operand as usize];
                if known.is_some_and(|e| e != *element) {
                    return Err(Fault::new(
                        FaultKind::Malformed,
                        format!("{:?} is accumulated in i16 and in i32", addr.operand),
                    ));
                }
                *known = Some(*element);
                Ok(())
            }
            // A prefetch never faults; only its names must be known.
            Stmt::Prefetch(addr) => self.span(addr, 0).map(drop),
            Stmt::Loop(l) => self.repeat(l),
        }
    }

    fn repeat(&mut self, l: &Loop) -> Result<(), Fault> {
        if l.trip == 0 {
            return Err(Fault::new(FaultKind::Malformed, "the loop never turns"));
        }
        let c = l.counter.0 as usize;
        if c >= self.counters.len() || std::mem::replace(&mut self.counters_used[c], true) {
            return Err(Fault::new(
                FaultKind::Malformed,
                format!("c{c} is no fresh counter"),
            ));
        }
        for carried in &l.carried {
            self.read(carried.init)?;
        }
        self.counters[c] = Some(l.trip);
        self.scopes.push(Default::default());
        for carried in &l.carried {
            self.define(carried.param)?;
        }
        self.body(&l.body)?;
        for carried in &l.carried {
            self.read(carried.next)?;
        }
        self.counters[c] = None;
        if let Some((values, indices)) = self.scopes.pop() {
            for v in values {
                self.values[v.0 as usize] = Seen::Closed;
            }
            for i in indices {
                self.indices[i.0 as usize].0 = Seen::Closed;
            }
        }
        for carried in &l.carried {
            self.define(carried.result)?;
        }
        Ok(())
    }

    fn op(&mut self, v: Value, op: &Op) -> Result<(), Fault> {
        for input in op.inputs() {
            self.read(input)?;
        }
        match op {
            Op::Load(addr) => self.inside(addr, self.program.width.bytes())?,
            Op::LoadBcast32(addr) => self.inside(addr, 4)?,
            Op::LoadBcast128(addr) => self.inside(addr, 16)?,
            Op::Drain(addr) => {
                self.inside(addr, self.program.width.bytes())?;
                self.writable(addr)?;
            }
            Op::Shr16(_, s) | Op::Shl16(_, s) | Op::Sar16(_, s) if *s >= 16 => {
                return Err(Fault::new(
                    FaultKind::Malformed,
                    format!("an i16 is shifted by {s}"),
                ));
            }
            Op::Shr32(_, s) | Op::Shl32(_, s) | Op::Sar32(_, s) if *s >= 32 => {
                return Err(Fault::new(
                    FaultKind::Malformed,
                    format!("an i32 is shifted by {s}"),
                ));
            }
            Op::Lut64 { .. } | Op::Lut128 { .. } if self.program.width != Width::W64 => {
                return Err(Fault::new(
                    FaultKind::Malformed,
                    "wide look-ups exist at width 64 only",
                ));
            }
            _ => {}
        }
        self.define(v)
    }

    fn index(
        &mut self,
        indices: &[Index],
        addr: &Addr,
        size: usize,
        shift: u8,
    ) -> Result<(), Fault> {
        self.inside(addr, size * indices.len())?;
        let facts = IndexFacts {
            max: self.index_max(addr, size == 2) << shift,
            wild: (if size == 2 { 65535 } else { 255 }) << shift,
            shift,
        };
        for i in indices {
            match self.indices.get_mut(i.0 as usize) {
                Some(slot) if slot.0 == Seen::Never => *slot = (Seen::Open, facts),
                _ => {
                    return Err(Fault::new(
                        FaultKind::Malformed,
                        format!("i{} is no fresh index", i.0),
                    ));
                }
            }
            if let Some((_, scope)) = self.scopes.last_mut() {
                scope.push(*i);
            }
        }
        Ok(())
    }

    /// The largest index that may be read at `addr`.
    fn index_max(&self, addr: &Addr, word: bool) -> usize {
        let all = if word { 65535 } else { 255 };
        let even = addr.index.is_none()
            && addr.offset.is_multiple_of(2)
            && addr.terms.iter().all(|(_, s)| s.is_multiple_of(2));
        let byte = match self.program.extent(addr.operand).map(|e| e.promise) {
            // What a program writes itself may be older than its promise: an index is not trusted to it.
            _ if addr.operand.is_writable() => return all,
            _ if addr.operand == Operand::Consts => {
                self.program.consts.iter().copied().max().unwrap_or(0) as usize
            }
            Some(Promise::Codes2) => 0xAA,
            Some(Promise::U8(_, hi)) => hi as usize,
            Some(Promise::U16(_, hi)) if word && even => return hi as usize,
            Some(Promise::I16(0.., hi)) if word && even => return hi as usize,
            _ => return all,
        };
        if word { byte * 257 } else { byte }
    }

    fn read(&self, v: Value) -> Result<(), Fault> {
        match self.values.get(v.0 as usize) {
            Some(Seen::Open) => Ok(()),
            Some(Seen::Closed) => Err(Fault::new(
                FaultKind::Malformed,
                format!("v{} is used outside the loop that defines it", v.0),
            )),
            _ => Err(Fault::new(
                FaultKind::Malformed,
                format!("v{} is used before its definition", v.0),
            )),
        }
    }

    fn define(&mut self, v: Value) -> Result<(), Fault> {
        match self.values.get_mut(v.0 as usize) {
            Some(seen) if *seen == Seen::Never => *seen = Seen::Open,
            _ => {
                return Err(Fault::new(
                    FaultKind::Malformed,
                    format!("v{} is defined twice, or has no number", v.0),
                ));
            }
        }
        if let Some((scope, _)) = self.scopes.last_mut() {
            scope.push(v);
        }
        Ok(())
    }

    fn writable(&self, addr: &Addr) -> Result<(), Fault> {
        if addr.operand.is_writable() {
            return Ok(());
        }
        Err(Fault::new(
            FaultKind::Malformed,
            format!("{:?} is read only", addr.operand),
        ))
    }

    fn inside(&mut self, addr: &Addr, size: usize) -> Result<(), Fault> {
        let have = self.program.bytes(addr.operand);
        let need = self.span(addr, size)?;
        if need > have as u128 {
            return Err(Fault::new(
                FaultKind::Bounds,
                format!("bytes up to {need} of {:?}, which has {have}", addr.operand),
            ));
        }
        let touched = &mut self.touched[addr.operand as usize];
        *touched = (need as usize).max(*touched);
        let Some((i, scale)) = addr.index else {
            return Ok(());
        };
        // Safe code may hand in bytes that no packing made. Scratch belongs to the kernel, which makes room
        // for what any byte reaches; the caller's buffers must be long enough as they are.
        let facts = self.indices[i.0 as usize].1;
        let wild = (facts.wild - facts.max)
            .saturating_mul(scale)
            .saturating_add(need as usize);
        if wild > MAX_BYTES {
            return Err(Fault::new(
                FaultKind::TooLarge,
                format!("{:?} would have {wild} bytes", addr.operand),
            ));
        }
        if matches!(addr.operand, Operand::Scratch0 | Operand::Scratch1) {
            let reach = &mut self.reach[addr.operand as usize];
            *reach = wild.max(*reach);
        } else if wild > have {
            return Err(Fault::new(
                FaultKind::Bounds,
                format!(
                    "with an index that breaks its promise, bytes up to {wild} of {:?}, which has {have}",
                    addr.operand
                ),
            ));
        }
        Ok(())
    }

    /// The end of the furthest access at `addr`.
    fn span(&self, addr: &Addr, size: usize) -> Result<u128, Fault> {
        let mut end = addr.offset as u128 + size as u128;
        for (Counter(c), stride) in &addr.terms {
            let Some(Some(trip)) = self.counters.get(*c as usize) else {
                return Err(Fault::new(
                    FaultKind::Malformed,
                    format!("c{c} is not the counter of an open loop"),
                ));
            };
            end = (*trip as u128 - 1)
                .checked_mul(*stride as u128)
                .and_then(|far| end.checked_add(far))
                .ok_or_else(too_far)?;
        }
        if let Some((Index(i), scale)) = addr.index {
            match self.indices.get(i as usize) {
                Some((Seen::Open, facts)) => {
                    let far = facts.max as u128 * scale as u128;
                    end = end.checked_add(far).ok_or_else(too_far)?;
                }
                Some((Seen::Closed, _)) => {
                    return Err(Fault::new(
                        FaultKind::Malformed,
                        format!("i{i} is used outside the loop that reads it"),
                    ));
                }
                _ => {
                    return Err(Fault::new(
                        FaultKind::Malformed,
                        format!("i{i} is used before it is read"),
                    ));
                }
            }
        }
        Ok(end)
    }
}
