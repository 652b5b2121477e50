//! Programs as text that a person can read: one step a line, loops indented, names instead of constructors.
//!
//! ```text
//! program i2s-i2s-1x4c16-ssse3, vectors of 16 bytes
//!   weights   640 bytes of 2-bit codes 0..=2
//!   acts      160 bytes of any bits
//!   out       16 bytes of any bits
//! v0 = splat32 0
//! loop c0 in 0..40 (v1 = v0 -> v9)
//!   v2 = load weights[16*c0]
//!   …
//!   next v1 = v8
//! store out[0] = v9
//! ```
//! A loop names what it carries: `v1 = v0 -> v9` starts as v0 and is called v9 after the last turn; `next` says
//! what the turn hands on. Indices are i0, i1, …; addresses are bytes.

use super::{
    Addr, Carried, Counter, Element, Index, Loop, Op, Operand, Program, Promise, Stmt, Value,
};
use std::fmt::{self, Display, Formatter};

/// Carried values on a line.
const CARRIED_PER_LINE: usize = 6;

/// Constants on a line.
const BYTES_PER_LINE: usize = 32;

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl Display for Index {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "i{}", self.0)
    }
}

impl Display for Counter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

impl Display for Operand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Operand::Weights => "weights",
            Operand::Acts => "acts",
            Operand::Sums => "sums",
            Operand::Consts => "consts",
            Operand::Scratch0 => "scratch0",
            Operand::Scratch1 => "scratch1",
            Operand::Out => "out",
            Operand::Scales => "scales",
        })
    }
}

impl Display for Promise {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Promise::Bits => f.write_str("any bits"),
            Promise::Codes2 => f.write_str("2-bit codes 0..=2"),
            Promise::U8(lo, hi) => write!(f, "u8 {lo}..={hi}"),
            Promise::I8(lo, hi) => write!(f, "i8 {lo}..={hi}"),
            Promise::U16(lo, hi) => write!(f, "u16 {lo}..={hi}"),
            Promise::I16(lo, hi) => write!(f, "i16 {lo}..={hi}"),
            Promise::I16Planes(lo, hi) => write!(f, "i16 {lo}..={hi}, low bytes then high bytes"),
            Promise::I32(lo, hi) => write!(f, "i32 {lo}..={hi}"),
        }
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Element::I16 => "i16",
            Element::I32 => "i32",
        })
    }
}

/// `weights[64 + 256*c0 + 2*i3]`.
impl Display for Addr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.operand)?;
        let mut plus = "";
        if self.offset != 0 || (self.terms.is_empty() && self.index.is_none()) {
            write!(f, "{}", self.offset)?;
            plus = " + ";
        }
        for (counter, stride) in &self.terms {
            write!(f, "{plus}{stride}*{counter}")?;
            plus = " + ";
        }
        if let Some((index, scale)) = self.index {
            match scale {
                1 => write!(f, "{plus}{index}")?,
                _ => write!(f, "{plus}{scale}*{index}")?,
            }
        }
        f.write_str("]")
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        use Op::*;
        match self {
            Splat8(x) => write!(f, "splat8 0x{x:02x}"),
            Splat16(x) => write!(f, "splat16 {x}"),
            Splat32(x) => write!(f, "splat32 {x}"),
            Load(a) => write!(f, "load {a}"),
            LoadBcast32(a) => write!(f, "load_bcast32 {a}"),
            LoadBcast128(a) => write!(f, "load_bcast128 {a}"),
            Drain(a) => write!(f, "drain {a}"),
            Shr16(v, by)
            | Shl16(v, by)
            | Sar16(v, by)
            | Shr32(v, by)
            | Shl32(v, by)
            | Sar32(v, by) => write!(f, "{} {v}, {by}", self.name()),
            _ => {
                f.write_str(self.name())?;
                for (i, v) in self.inputs().iter().enumerate() {
                    write!(f, "{} {v}", if i == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

/// Each op with its name in a listing.
macro_rules! names {
    ($($op:ident $name:literal;)*) => {
        impl Op {
            /// The op's name in a listing.
            pub fn name(&self) -> &'static str {
                match self { $(Op::$op { .. } => $name,)* }
            }

            /// The name of every op.
            #[cfg(test)]
            pub(crate) const NAMES: &[&str] = &[$($name,)*];
        }
    };
}

names! {
    Splat8 "splat8";
    Splat16 "splat16";
    Splat32 "splat32";
    Load "load";
    LoadBcast32 "load_bcast32";
    LoadBcast128 "load_bcast128";
    Drain "drain";
    And "and";
    Or "or";
    Xor "xor";
    Add8 "add8";
    Sub8 "sub8";
    SubSatU8 "sub_sat_u8";
    MinU8 "min_u8";
    Add16 "add16";
    Sub16 "sub16";
    Add32 "add32";
    Sub32 "sub32";
    MulLo32 "mul_lo32";
    Shr16 "shr16";
    Shl16 "shl16";
    Sar16 "sar16";
    Shr32 "shr32";
    Shl32 "shl32";
    Sar32 "sar32";
    F32 "f32";
    AddF32 "add_f32";
    MulF32 "mul_f32";
    DotU8I8 "dot_u8i8";
    MaddU8I8 "madd_u8i8";
    MaddI16 "madd_i16";
    Shuffle16 "shuffle16";
    Lut64 "lut64";
    Lut128 "lut128";
    InterleaveLo8 "interleave_lo8";
    InterleaveHi8 "interleave_hi8";
    InterleaveLo16 "interleave_lo16";
    InterleaveHi16 "interleave_hi16";
}

/// One line; of a loop its head.
impl Display for Stmt {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Stmt::Let(v, op) => write!(f, "{v} = {op}"),
            Stmt::LetIndex8(i, a) => write!(f, "{i} = u8 {a}"),
            Stmt::LetIndex16(i, a) => write!(f, "{i} = u16 {a}"),
            Stmt::LetIndices8 {
                indices,
                addr,
                shift,
            } => {
                for (n, i) in indices.iter().enumerate() {
                    write!(f, "{}{i}", if n == 0 { "" } else { ", " })?;
                }
                write!(f, " = u8x{} {addr} << {shift}", indices.len())
            }
            Stmt::Store(a, v) => write!(f, "store {a} = {v}"),
            Stmt::Accumulate(element, a, v) => write!(f, "accumulate_{element} {a} += {v}"),
            Stmt::Prefetch(a) => write!(f, "prefetch {a}"),
            Stmt::Loop(l) => write!(f, "loop {} in 0..{}", l.counter, l.trip),
        }
    }
}

/// Writes a program, with a note behind each step that has one.
struct Listing<'f, 'a> {
    f: &'f mut Formatter<'a>,
    note: &'f dyn Fn(&Stmt) -> Option<String>,
}

/// Where notes begin.
const NOTE_COLUMN: usize = 56;

impl Listing<'_, '_> {
    fn body(&mut self, body: &[Stmt], depth: usize) -> fmt::Result {
        for stmt in body {
            let line = format!("{:1$}{stmt}", "", 2 * depth);
            match stmt {
                Stmt::Loop(l) => self.repeat(line, l, depth)?,
                _ => match (self.note)(stmt) {
                    Some(note) => writeln!(self.f, "{line:NOTE_COLUMN$} ; {note}")?,
                    None => writeln!(self.f, "{line}")?,
                },
            }
        }
        Ok(())
    }

    fn repeat(&mut self, head: String, l: &Loop, depth: usize) -> fmt::Result {
        let start = |c: &Carried| format!("{} = {} -> {}", c.param, c.init, c.result);
        let next = |c: &Carried| format!("{} = {}", c.param, c.next);
        let lines = |of: &dyn Fn(&Carried) -> String| {
            let rows = l.carried.chunks(CARRIED_PER_LINE);
            let rows = rows.map(|row| row.iter().map(of).collect::<Vec<_>>().join(", "));
            rows.collect::<Vec<_>>()
                .join(&format!(",\n{:1$}", "", 2 * depth + 6))
        };
        match l.carried.is_empty() {
            true => writeln!(self.f, "{head}")?,
            false => writeln!(self.f, "{head} ({})", lines(&start))?,
        }
        self.body(&l.body, depth + 1)?;
        if !l.carried.is_empty() {
            writeln!(self.f, "{:1$}next {2}", "", 2 * depth + 2, lines(&next))?;
        }
        Ok(())
    }
}

impl Program {
    /// Writes the listing with `note` behind the steps.
    pub(super) fn list(
        &self,
        f: &mut Formatter<'_>,
        note: &dyn Fn(&Stmt) -> Option<String>,
    ) -> fmt::Result {
        writeln!(
            f,
            "program {}, vectors of {} bytes",
            self.name,
            self.width.bytes()
        )?;
        for operand in Operand::ALL {
            if let Some(e) = self.extent(operand) {
                writeln!(f, "  {operand:9} {} bytes of {}", e.bytes, e.promise)?;
            }
        }
        for (i, line) in self.consts.chunks(BYTES_PER_LINE).enumerate() {
            write!(f, "  consts[{}] =", i * BYTES_PER_LINE)?;
            for byte in line {
                write!(f, " {byte:02x}")?;
            }
            writeln!(f)?;
        }
        Listing { f, note }.body(&self.body, 0)
    }
}

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.list(f, &|_| None)
    }
}
