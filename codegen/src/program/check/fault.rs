//! [`Fault`]: what could not be proven of a program, and where.

use crate::program::{Counter, Loop, Operand, Stmt};
use std::fmt;

/// Why a program is not accepted: a bug in the family that built it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("program {program} is wrong: {fault}")]
pub struct CheckError {
    /// The program's name.
    pub program: String,
    /// What was found.
    pub fault: Fault,
}

/// An obligation that could not be proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which obligation.
    pub kind: FaultKind,
    /// The innermost loop that it is in, and how often that turns.
    pub within: Option<(Counter, usize)>,
    /// The step.
    pub step: Option<String>,
    /// What was found.
    pub why: String,
}

/// Kinds of obligations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// A name is used where it does not exist, or an op in a form that does not.
    Malformed,
    /// An access leaves its operand.
    Bounds,
    /// A sum wraps, or an index leaves its table.
    Overflow,
    /// What is stored does not keep the operand's promise.
    Promise,
    /// Memory is read before it is written, never written, or not left at zero.
    Memory,
    /// There is more to follow than any kernel has.
    TooLarge,
}

impl Fault {
    pub(super) fn new(kind: FaultKind, why: impl Into<String>) -> Self {
        Self {
            kind,
            within: None,
            step: None,
            why: why.into(),
        }
    }

    /// Names the operand that it is about.
    pub(super) fn of(mut self, operand: Operand) -> Self {
        self.why = format!("{operand:?}: {}", self.why);
        self
    }

    /// Names the step: the innermost that is told stays.
    pub(super) fn at(mut self, stmt: &Stmt) -> Self {
        match stmt {
            Stmt::Loop(Loop { counter, trip, .. }) => {
                self.within = self.within.or(Some((*counter, *trip)));
            }
            _ if self.within.is_some() || self.step.is_some() => {}
            other => self.step = Some(other.to_string()),
        }
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.within, &self.step) {
            (Some((c, trip)), Some(step)) => {
                write!(f, "in loop {c} of {trip}, at {step}: ")
            }
            (Some((c, trip)), None) => write!(f, "in loop {c} of {trip}: "),
            (None, Some(step)) => write!(f, "at {step}: "),
            (None, None) => Ok(()),
        }?;
        f.write_str(&self.why)
    }
}
