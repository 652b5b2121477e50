//! Why a candidate is not timed, or its times do not count: each reason typed, each bug with the candidate's name.

use bitnet_codegen::backend::NoBackend;
use bitnet_codegen::program::CheckError;
use bitnet_codegen::{KernelSpec, Problem, Unsupported};

/// Why a candidate is left out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// It does not exist on this machine.
    #[error("unsupported: {0}")]
    Unsupported(#[from] Unsupported),
    /// This build emits nothing for its instruction set.
    #[error("unsupported: {0}")]
    NoBackend(#[from] NoBackend),
    /// It can be built, but not here or not now: no memory for its code, or scales that cannot be split.
    #[error("unsupported: {0}")]
    NotHere(String),
    /// Its program could not be proven: a bug, kept as evidence, never used.
    #[error("WRONG RESULT: {0}")]
    Unproven(#[from] CheckError),
    /// Its result differs from the oracle: a bug, kept as evidence, never used.
    #[error("WRONG RESULT: {0}")]
    Wrong(Mismatch),
    /// It ran faster than the machine can: the clock, the peaks or the kernel lie.
    #[error("IMPOSSIBLE TIME: {ns:.0} ns, the machine needs {floor_ns:.0} ns at least")]
    Impossible {
        /// What the clock said.
        ns: f64,
        /// What bandwidth or arithmetic ask for.
        floor_ns: f64,
    },
}

impl Rejection {
    /// Whether it is a bug, to be told by name, and no ordinary answer.
    pub fn is_suspect(&self) -> bool {
        matches!(
            self,
            Rejection::Unproven(_) | Rejection::Wrong(_) | Rejection::Impossible { .. }
        )
    }
}

/// The first result that differs from the oracle.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "{spec}: y[{token}][{row}] = {got}, the oracle says {want}; rerun: bitnet-tune kernel --m {} --n {} --k {} --spec {spec}",
    problem.m, problem.n, problem.k
)]
pub struct Mismatch {
    /// The kernel.
    pub spec: KernelSpec,
    /// The product that was asked for.
    pub problem: Problem,
    /// Token of the result.
    pub token: usize,
    /// Output feature of the result.
    pub row: usize,
    /// What the kernel says: an i32 or, with group scales, an f32.
    pub got: f64,
    /// What the oracle says.
    pub want: f64,
}
