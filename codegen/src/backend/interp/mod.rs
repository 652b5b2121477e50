//! The interpreter: runs a program in checked Rust, lane by lane. The oracle of every emitter, and the
//! last resort on a CPU that no emitter knows. Every memory access is a slice access; overflow panics.

mod strict;

use super::{Backend, Code};
use crate::isa::{Features, Isa};
use crate::program::{Addr, Checked, Lanes, Loop, Op, Operand, Program, Stmt, Value};
use crate::variant::Unsupported;

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
        Ok(Code::Interpreted)
    }
}

/// The memory that one call sees.
pub struct Memory<'a> {
    /// Read-only operands, in [`Operand::ALL`] order; empty where unused.
    pub weights: &'a [u8],
    /// Prepared activations.
    pub acts: &'a [u8],
    /// Sums of activations, as bytes.
    pub sums: &'a [u8],
    /// The program's constants.
    pub consts: &'a [u8],
    /// Working memory.
    pub scratch: [&'a mut [u8]; 2],
    /// The result, as bytes.
    pub out: &'a mut [u8],
}

impl Memory<'_> {
    fn read(&self, operand: Operand) -> &[u8] {
        match operand {
            Operand::Weights => self.weights,
            Operand::Acts => self.acts,
            Operand::Sums => self.sums,
            Operand::Consts => self.consts,
            Operand::Scratch0 => self.scratch[0],
            Operand::Scratch1 => self.scratch[1],
            Operand::Out => self.out,
        }
    }

    fn write(&mut self, operand: Operand) -> &mut [u8] {
        match operand {
            Operand::Scratch0 => self.scratch[0],
            Operand::Scratch1 => self.scratch[1],
            Operand::Out => self.out,
            other => panic!("store to read-only {other:?}"),
        }
    }
}

/// A vector; only the first `width` bytes count.
pub type Vector = [u8; 64];

struct Machine<'a, 'm> {
    memory: &'a mut Memory<'m>,
    width: usize,
    values: Vec<Vector>,
    indices: Vec<usize>,
    counters: Vec<usize>,
    /// The program, where the contracts of its ops and its promises are checked, too.
    strict: Option<&'a Program>,
}

/// Runs `program` once and checks on the way what [`Checked`] proves beyond bounds: the contract of every
/// op and the promise of every operand that is stored to. For tests of the proof.
///
/// # Panics
/// When a contract or a promise is broken, or an access leaves an operand.
pub fn run_strict(program: &Program, memory: &mut Memory<'_>) {
    machine(program, memory, Some(program)).stmts(&program.body);
}

/// Runs `program` once.
///
/// # Panics
/// When an access leaves an operand or a sum overflows: both are bugs that [`Checked`] rules out.
pub fn run(program: &Program, memory: &mut Memory<'_>) {
    machine(program, memory, None).stmts(&program.body);
}

fn machine<'a, 'm>(
    program: &Program,
    memory: &'a mut Memory<'m>,
    strict: Option<&'a Program>,
) -> Machine<'a, 'm> {
    Machine {
        memory,
        width: program.width.bytes(),
        values: vec![[0; 64]; program.n_values as usize],
        indices: vec![0; program.n_indices as usize],
        counters: vec![0; program.n_counters as usize],
        strict,
    }
}

impl Machine<'_, '_> {
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
                Stmt::Accumulate(lanes, a, v) => {
                    let old = self.vector(a);
                    let add = self.values[v.0 as usize];
                    let new = match lanes {
                        Lanes::I16 => zip16(old, add, |x, y| {
                            x.checked_add(y).expect("i16 accumulator overflows")
                        }),
                        Lanes::I32 => zip32(old, add, |x, y| {
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
            let next: Vec<Vector> = l.carried.iter().map(|c| self.get(c.next)).collect();
            for (c, v) in l.carried.iter().zip(next) {
                self.values[c.param.0 as usize] = v;
                self.values[c.result.0 as usize] = v;
            }
        }
    }

    fn get(&self, v: Value) -> Vector {
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
        &self.memory.read(a.operand)[self.at(a)..][..len]
    }

    fn vector(&self, a: &Addr) -> Vector {
        let mut v = [0; 64];
        v[..self.width].copy_from_slice(self.bytes(a, self.width));
        v
    }

    fn put(&mut self, a: &Addr, v: &Vector) {
        let (at, w) = (self.at(a), self.width);
        if let Some(extent) = self.strict.and_then(|p| p.extent(a.operand)) {
            assert!(
                extent.promise.holds(&v[..w]),
                "{:?} promises {:?}, stored {:?}",
                a.operand,
                extent.promise,
                &v[..w]
            );
        }
        self.memory.write(a.operand)[at..][..w].copy_from_slice(&v[..w]);
    }

    fn op(&mut self, op: &Op) -> Vector {
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
                self.put(a, &[0; 64]);
                v
            }
            _ => {
                let inputs: Vec<Vector> = op.inputs().into_iter().map(|v| self.get(v)).collect();
                if self.strict.is_some()
                    && let Err(why) = strict::contract(op, &inputs, self.width)
                {
                    panic!("{why}");
                }
                eval(op, &inputs)
            }
        }
    }
}

fn words16(v: Vector) -> [i16; 32] {
    std::array::from_fn(|i| i16::from_le_bytes([v[2 * i], v[2 * i + 1]]))
}

fn from16(w: [i16; 32]) -> Vector {
    std::array::from_fn(|i| w[i / 2].to_le_bytes()[i % 2])
}

fn words32(v: Vector) -> [i32; 16] {
    std::array::from_fn(|i| {
        i32::from_le_bytes([v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]])
    })
}

fn from32(w: [i32; 16]) -> Vector {
    std::array::from_fn(|i| w[i / 4].to_le_bytes()[i % 4])
}

fn zip8(a: Vector, b: Vector, f: impl Fn(u8, u8) -> u8) -> Vector {
    std::array::from_fn(|i| f(a[i], b[i]))
}

fn zip16(a: Vector, b: Vector, f: impl Fn(i16, i16) -> i16) -> Vector {
    let (a, b) = (words16(a), words16(b));
    from16(std::array::from_fn(|i| f(a[i], b[i])))
}

fn zip32(a: Vector, b: Vector, f: impl Fn(i32, i32) -> i32) -> Vector {
    let (a, b) = (words32(a), words32(b));
    from32(std::array::from_fn(|i| f(a[i], b[i])))
}

/// The meaning of every op that does not touch memory. Wrapping where the contract says "proven not to wrap":
/// the proof is [`crate::program::check`]'s, and lane tests compare wrapped results, too.
pub fn eval(op: &Op, v: &[Vector]) -> Vector {
    match *op {
        Op::Splat8(x) => [x; 64],
        Op::Splat16(x) => from16([x; 32]),
        Op::Splat32(x) => from32([x; 16]),
        Op::And(..) => zip8(v[0], v[1], |a, b| a & b),
        Op::Or(..) => zip8(v[0], v[1], |a, b| a | b),
        Op::Xor(..) => zip8(v[0], v[1], |a, b| a ^ b),
        Op::Add8(..) => zip8(v[0], v[1], u8::wrapping_add),
        Op::Sub8(..) => zip8(v[0], v[1], u8::wrapping_sub),
        Op::SubSatU8(..) => zip8(v[0], v[1], u8::saturating_sub),
        Op::MinU8(..) => zip8(v[0], v[1], u8::min),
        Op::Add16(..) => zip16(v[0], v[1], i16::wrapping_add),
        Op::Sub16(..) => zip16(v[0], v[1], i16::wrapping_sub),
        Op::Add32(..) => zip32(v[0], v[1], i32::wrapping_add),
        Op::Sub32(..) => zip32(v[0], v[1], i32::wrapping_sub),
        Op::MulLo32(..) => zip32(v[0], v[1], i32::wrapping_mul),
        Op::Shr16(_, s) => from16(words16(v[0]).map(|x| (x as u16 >> s) as i16)),
        Op::Shl16(_, s) => from16(words16(v[0]).map(|x| x << s)),
        Op::Sar16(_, s) => from16(words16(v[0]).map(|x| x >> s)),
        Op::Shr32(_, s) => from32(words32(v[0]).map(|x| (x as u32 >> s) as i32)),
        Op::Shl32(_, s) => from32(words32(v[0]).map(|x| x << s)),
        Op::Sar32(_, s) => from32(words32(v[0]).map(|x| x >> s)),
        Op::DotU8I8 { .. } => {
            let acc = words32(v[0]);
            from32(std::array::from_fn(|i| {
                (4 * i..4 * i + 4).fold(acc[i], |s, j| {
                    s.wrapping_add(v[1][j] as i32 * v[2][j] as i8 as i32)
                })
            }))
        }
        Op::MaddU8I8 { .. } => from16(std::array::from_fn(|i| {
            let p = |j: usize| v[0][j] as i32 * v[1][j] as i8 as i32;
            (p(2 * i) + p(2 * i + 1)).clamp(i16::MIN as i32, i16::MAX as i32) as i16
        })),
        Op::MaddI16(..) => {
            let (a, b) = (words16(v[0]), words16(v[1]));
            let p = |j: usize| a[j] as i32 * b[j] as i32;
            from32(std::array::from_fn(|i| p(2 * i).wrapping_add(p(2 * i + 1))))
        }
        Op::Shuffle16 { .. } => std::array::from_fn(|i| {
            assert!(v[1][i] < 16, "shuffle index {} of 16", v[1][i]);
            v[0][i / 16 * 16 + v[1][i] as usize]
        }),
        Op::Lut64 { .. } => std::array::from_fn(|i| v[0][v[1][i] as usize % 64]),
        Op::Lut128 { .. } => std::array::from_fn(|i| match v[2][i] as usize % 128 {
            j if j < 64 => v[0][j],
            j => v[1][j - 64],
        }),
        Op::InterleaveLo8(..) => std::array::from_fn(|i| v[i % 2][i / 16 * 16 + i % 16 / 2]),
        Op::InterleaveHi8(..) => std::array::from_fn(|i| v[i % 2][i / 16 * 16 + 8 + i % 16 / 2]),
        Op::InterleaveLo16(..) => {
            std::array::from_fn(|i| v[i / 2 % 2][i / 16 * 16 + i % 16 / 4 * 2 + i % 2])
        }
        Op::InterleaveHi16(..) => {
            std::array::from_fn(|i| v[i / 2 % 2][i / 16 * 16 + 8 + i % 16 / 4 * 2 + i % 2])
        }
        Op::Load(_) | Op::LoadBcast32(_) | Op::LoadBcast128(_) | Op::Drain(_) => {
            unreachable!("reads memory")
        }
    }
}
