//! The interpreter: runs a program in checked Rust, element by element. The oracle of every emitter, and the
//! last resort on a CPU that no emitter knows. Every memory access is a slice access; overflow panics.
//!
//! Vectors are arrays whose length the compiler knows, and an op reads its inputs where they lie. Every vector
//! as 64 bytes and the inputs of each op gathered in a `Vec` took 4 to 6 times as long (64 tokens of the demo
//! model on one thread, four specs of `i2s` and `vlut`, AMD Zen 5, 2026-11-20).

mod eval;
mod strict;

pub use eval::eval;

use super::{Backend, Code};
use crate::abi::Operands;
use crate::isa::{Features, Isa};
use crate::program::{Addr, Checked, Element, Loop, Op, Program, Stmt, Value, Width};
use crate::spec::Unsupported;

/// The backend.
pub struct Interp;

impl Backend for Interp {
    fn name(&self) -> &'static str {
        "interp"
    }

    fn isas(&self) -> &'static [Isa] {
        &[Isa::Interp]
    }

    fn emit(&self, _: &Checked, _: Isa, _: Features) -> Result<Code, Unsupported> {
        Ok(Code::Interpreted(run))
    }
}

struct Machine<'a, 'm, const W: usize> {
    memory: &'a mut Operands<'m>,
    values: Vec<[u8; W]>,
    indices: Vec<usize>,
    counters: Vec<usize>,
    /// What a turn's end gives the carried values; kept, so that no turn allocates.
    next: Vec<[u8; W]>,
    /// The program, where the contracts of its ops and its promises are checked, too.
    strict: Option<&'a Program>,
}

/// Runs `program` once and checks on the way what [`Checked`] proves beyond bounds: the contract of every
/// op and the promise of every operand that is stored to. For tests of the proof.
///
/// # Panics
/// When a contract or a promise is broken, or an access leaves an operand.
pub fn run_strict(program: &Program, memory: &mut Operands<'_>) {
    start(program, memory, Some(program));
}

/// Runs `program` once.
///
/// # Panics
/// When an access leaves an operand or a sum overflows: both are bugs that [`Checked`] rules out.
pub fn run(program: &Program, memory: &mut Operands<'_>) {
    start(program, memory, None);
}

fn start(program: &Program, memory: &mut Operands<'_>, strict: Option<&Program>) {
    match program.width {
        Width::W16 => Machine::<16>::new(program, memory, strict).stmts(&program.body),
        Width::W32 => Machine::<32>::new(program, memory, strict).stmts(&program.body),
        Width::W64 => Machine::<64>::new(program, memory, strict).stmts(&program.body),
    }
}

impl<'a, 'm, const W: usize> Machine<'a, 'm, W> {
    fn new(program: &Program, memory: &'a mut Operands<'m>, strict: Option<&'a Program>) -> Self {
        Self {
            memory,
            values: vec![[0; W]; program.n_values as usize],
            indices: vec![0; program.n_indices as usize],
            counters: vec![0; program.n_counters as usize],
            next: Vec::new(),
            strict,
        }
    }

    fn stmts(&mut self, body: &[Stmt]) {
        for stmt in body {
            match stmt {
                Stmt::Let(v, op) => self.values[v.0 as usize] = self.op(op),
                Stmt::LetIndex8(i, a) => self.indices[i.0 as usize] = self.bytes(a, 1)[0] as usize,
                Stmt::LetIndex16(i, a) => {
                    let b = self.bytes(a, 2);
                    self.indices[i.0 as usize] = u16::from_le_bytes([b[0], b[1]]) as usize;
                }
                Stmt::LetIndices8 {
                    indices,
                    addr,
                    shift,
                } => {
                    let mut bytes = [0u8; 8];
                    bytes[..indices.len()].copy_from_slice(self.bytes(addr, indices.len()));
                    for (i, byte) in indices.iter().zip(bytes) {
                        self.indices[i.0 as usize] = (byte as usize) << shift;
                    }
                }
                Stmt::Store(a, v) => {
                    let value = self.values[v.0 as usize];
                    self.put(a, &value);
                }
                Stmt::Accumulate(element, a, v) => {
                    let (old, add) = (self.vector(a), &self.values[v.0 as usize]);
                    let new = match element {
                        Element::I16 => eval::zip16(&old, add, |x, y| {
                            x.checked_add(y).expect("i16 accumulator overflows")
                        }),
                        Element::I32 => eval::zip32(&old, add, |x, y| {
                            x.checked_add(y).expect("i32 accumulator overflows")
                        }),
                    };
                    self.put(a, &new);
                }
                Stmt::Prefetch(_) => {}
                Stmt::Loop(l) => self.repeat(l),
            }
        }
    }

    fn repeat(&mut self, l: &Loop) {
        for c in &l.carried {
            self.values[c.param.0 as usize] = self.get(c.init);
        }
        for turn in 0..l.trip {
            self.counters[l.counter.0 as usize] = turn;
            self.stmts(&l.body);
            // All `next` are read before any param changes: they may name each other.
            self.next.clear();
            self.next
                .extend(l.carried.iter().map(|c| self.values[c.next.0 as usize]));
            for (c, v) in l.carried.iter().zip(&self.next) {
                self.values[c.param.0 as usize] = *v;
                self.values[c.result.0 as usize] = *v;
            }
        }
    }

    fn get(&self, v: Value) -> [u8; W] {
        self.values[v.0 as usize]
    }

    fn at(&self, a: &Addr) -> usize {
        let affine: usize = a
            .terms
            .iter()
            .map(|(c, s)| self.counters[c.0 as usize] * s)
            .sum();
        a.offset
            + affine
            + a.index
                .map_or(0, |(i, scale)| self.indices[i.0 as usize] * scale)
    }

    fn bytes(&self, a: &Addr, len: usize) -> &[u8] {
        &self.memory.bytes(a.operand)[self.at(a)..][..len]
    }

    fn vector(&self, a: &Addr) -> [u8; W] {
        *self.bytes(a, W).first_chunk().expect("W bytes")
    }

    fn put(&mut self, a: &Addr, v: &[u8; W]) {
        let at = self.at(a);
        if let Some(extent) = self.strict.and_then(|p| p.extent(a.operand)) {
            assert!(
                extent.promise.holds(v),
                "{:?} promises {:?}, stored {:?}",
                a.operand,
                extent.promise,
                v
            );
        }
        self.memory.bytes_mut(a.operand)[at..][..W].copy_from_slice(v);
    }

    fn op(&mut self, op: &Op) -> [u8; W] {
        match op {
            Op::Load(a) => self.vector(a),
            Op::LoadBcast32(a) => {
                let b = self.bytes(a, 4);
                std::array::from_fn(|i| b[i % 4])
            }
            Op::LoadBcast128(a) => {
                let b = self.bytes(a, 16);
                std::array::from_fn(|i| b[i % 16])
            }
            Op::Drain(a) => {
                let v = self.vector(a);
                self.put(a, &[0; W]);
                v
            }
            _ => {
                if self.strict.is_some()
                    && let Err(why) = strict::contract(op, &self.values)
                {
                    panic!("{why}");
                }
                eval(op, &self.values)
            }
        }
    }
}
