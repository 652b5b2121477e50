//! What the proof knows, for people: the program with the range of each value behind its step, and the few
//! figures that say how close it is to its limits.

use super::{Checked, Range, Ranges};
use crate::program::{Op, Operand, Stmt, Value};
use std::fmt::{self, Display, Formatter};

/// Figures of one proven program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The most vector values alive at once.
    pub peak_live: usize,
    /// Of each operand that is used: the end of the furthest access, and the extent, bytes.
    pub touched: Vec<(Operand, usize, usize)>,
    /// The i16 sum that comes closest to wrapping.
    pub widest_i16: Option<(Value, Range)>,
    /// The i32 sum that comes closest to wrapping.
    pub widest_i32: Option<(Value, Range)>,
}

/// The elements that an op computes in.
enum Reading {
    Bytes,
    I16,
    I32,
    /// Of which nothing is proven.
    F32,
}

fn reading(op: &Op) -> Reading {
    use Op::*;
    match op {
        Splat16(_)
        | Add16(..)
        | Sub16(..)
        | Shr16(..)
        | Shl16(..)
        | Sar16(..)
        | MaddU8I8 { .. }
        | InterleaveLo8(..)
        | InterleaveHi8(..)
        | InterleaveLo16(..)
        | InterleaveHi16(..) => Reading::I16,
        Splat32(_)
        | Add32(..)
        | Sub32(..)
        | MulLo32(..)
        | Shr32(..)
        | Shl32(..)
        | Sar32(..)
        | DotU8I8 { .. }
        | MaddI16(..) => Reading::I32,
        F32(_) | AddF32(..) | MulF32(..) => Reading::F32,
        Splat8(_)
        | Load(_)
        | LoadBcast32(_)
        | LoadBcast128(_)
        | Drain(_)
        | And(..)
        | Or(..)
        | Xor(..)
        | Add8(..)
        | Sub8(..)
        | SubSatU8(..)
        | MinU8(..)
        | Shuffle16 { .. }
        | Lut64 { .. }
        | Lut128 { .. } => Reading::Bytes,
    }
}

/// A range in the reading of `op`; nothing where it is all that there is, or plain to see.
fn note(op: &Op, r: Ranges) -> Option<String> {
    let any = Ranges::ANY;
    match reading(op) {
        _ if matches!(op, Op::Splat8(_) | Op::Splat16(_) | Op::Splat32(_)) => None,
        Reading::Bytes if r.u8 != any.u8 => Some(format!("u8 {}", r.u8)),
        Reading::Bytes if r.i8 != any.i8 => Some(format!("i8 {}", r.i8)),
        Reading::I16 if r.i16 != any.i16 => Some(format!("i16 {}", r.i16)),
        Reading::I32 if r.i32 != any.i32 => Some(format!("i32 {}", r.i32)),
        _ => None,
    }
}

/// A proven program as text, with what is known of each value behind its step.
struct Annotated<'p>(&'p Checked);

impl Display for Annotated<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.program.list(f, &|stmt| match stmt {
            Stmt::Let(v, op) => note(op, self.0.range(*v)),
            _ => None,
        })
    }
}

impl Checked {
    /// The listing, with the proven range of each value behind its step.
    pub fn annotated(&self) -> impl Display + '_ {
        Annotated(self)
    }

    /// How close the program is to its limits.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts {
            peak_live: self.peak_live(),
            touched: Operand::ALL
                .into_iter()
                .filter_map(|o| Some((o, self.touched[o as usize], self.extent(o)?.bytes)))
                .collect(),
            widest_i16: None,
            widest_i32: None,
        };
        self.widest(&self.body, &mut facts);
        facts
    }

    fn widest(&self, body: &[Stmt], facts: &mut Facts) {
        for stmt in body {
            match stmt {
                Stmt::Let(v, Op::Add16(..) | Op::Sub16(..) | Op::MaddU8I8 { .. }) => {
                    wider(&mut facts.widest_i16, *v, self.range(*v).i16);
                }
                Stmt::Let(
                    v,
                    Op::Add32(..) | Op::Sub32(..) | Op::DotU8I8 { .. } | Op::MaddI16(..),
                ) => wider(&mut facts.widest_i32, *v, self.range(*v).i32),
                Stmt::Loop(l) => self.widest(&l.body, facts),
                _ => {}
            }
        }
    }
}

fn wider(widest: &mut Option<(Value, Range)>, v: Value, range: Range) {
    let reach = |r: &Range| r.hi.max(-1 - r.lo);
    if widest
        .as_ref()
        .is_none_or(|(_, w)| reach(&range) > reach(w))
    {
        *widest = Some((v, range));
    }
}

impl Display for Facts {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "vector values alive at once: {}", self.peak_live)?;
        for (operand, touched, bytes) in &self.touched {
            writeln!(f, "{operand}: bytes below {touched} touched, of {bytes}")?;
        }
        for (name, widest) in [("i16", &self.widest_i16), ("i32", &self.widest_i32)] {
            if let Some((v, range)) = widest {
                writeln!(f, "widest {name} sum: {v} in {range}")?;
            }
        }
        Ok(())
    }
}
