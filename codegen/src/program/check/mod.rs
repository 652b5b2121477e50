//! Proves, without running, that a program stays inside its operands and that no sum overflows.
//!
//! Three passes: `structure` (definitions, scopes, addresses), `flow` (the range of every value and
//! the contract of every op), `regions` (accumulators in memory, and that nothing is read before it is
//! written). Holding a [`Checked`] is the safety argument of the call into generated code.

mod abs;
mod byte_set;
mod bytes;
mod counts;
mod facts;
mod fault;
mod flow;
mod hash;
mod regions;
mod structure;
mod transfer;

pub use abs::Range;
pub use counts::Counts;
pub use facts::Facts;
pub use fault::{CheckError, Fault, FaultKind};
pub use flow::Ranges;

use super::{Operand, Program, Value};
use std::ops::Deref;

/// A program that has been proven; emitters and the call into generated code take nothing else.
#[derive(Clone, Debug)]
pub struct Checked {
    program: Program,
    ranges: Vec<Option<Ranges>>,
    reach: [usize; Operand::COUNT],
    touched: [usize; Operand::COUNT],
}

impl Checked {
    /// Proves `program`.
    ///
    /// # Errors
    /// [`CheckError`] when a bound or a range cannot be proven.
    pub fn new(program: Program) -> Result<Self, CheckError> {
        match prove(&program) {
            Ok(proof) => Ok(Self {
                program,
                ranges: proof.ranges,
                reach: proof.reach,
                touched: proof.touched,
            }),
            Err(fault) => Err(CheckError {
                program: program.name,
                fault,
            }),
        }
    }

    /// Takes `program` as it is: lane tests feed ops bits whose sums no proof covers.
    #[cfg(test)]
    pub(crate) fn unproven(program: Program) -> Self {
        Self {
            reach: Operand::ALL.map(|o| program.bytes(o)),
            touched: Operand::ALL.map(|o| program.bytes(o)),
            program,
            ranges: Vec::new(),
        }
    }

    /// Bytes of `operand` that must be there: its extent, and behind the tables in scratch as much as an index
    /// that breaks its promise would reach, for safe code may hand in weights that no packing made.
    pub fn reach(&self, operand: Operand) -> usize {
        self.reach[operand as usize]
    }

    /// What is proven of `v` in every turn.
    pub fn range(&self, v: Value) -> Ranges {
        let known = self.ranges.get(v.0 as usize).copied().flatten();
        known.unwrap_or(Ranges::ANY)
    }
}

/// What the three passes bring.
struct Proof {
    ranges: Vec<Option<Ranges>>,
    reach: [usize; Operand::COUNT],
    touched: [usize; Operand::COUNT],
}

fn prove(program: &Program) -> Result<Proof, Fault> {
    let facts = structure::check(program)?;
    let mut flow = flow::Flow::new(program, &facts.indices);
    flow.check()?;
    regions::check(&flow, facts.elements)?;
    let ranges = (0..program.n_values).map(|v| flow.ranges(Value(v)));
    Ok(Proof {
        ranges: ranges.collect(),
        reach: facts.reach,
        touched: facts.touched,
    })
}

impl Deref for Checked {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}
