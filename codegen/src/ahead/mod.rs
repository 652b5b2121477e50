//! Kernels compiled ahead of time, also for machines that are not this one.
//!
//! [`emit`] turns a plan into named code and constants; `object` writes those as an object file and a C header.
//! Nothing here is run, so no CPU feature is needed: what a kernel asks of the CPU is its spec's [`Isa`].

#[cfg(feature = "emit")]
pub mod object;

use crate::backend::{self, Code, NoBackend};
use crate::isa::{Features, Isa};
use crate::program::{CheckError, Checked};
use crate::spec::Unsupported;
use crate::variant::Plan;

/// Why kernels cannot be compiled ahead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AheadError {
    /// The spec does not exist for the target: an ordinary answer.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// This build emits nothing for the instruction set.
    #[error(transparent)]
    NoBackend(#[from] NoBackend),
    /// A family built a wrong program: a bug.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The interpreter has no code to compile.
    #[error("{0} is interpreted; choose an instruction set that is emitted")]
    Interpreted(Isa),
    /// Kernels of two processor families cannot share a file.
    #[error("{name} is for {isa}, which the target {target} does not run")]
    OtherArch {
        /// The program.
        name: String,
        /// Its instruction set.
        isa: Isa,
        /// The target platform.
        target: String,
    },
    /// Two kernels have one symbol: give each spec and K once.
    #[error("the symbol {0} stands twice; give each kernel and K once")]
    Duplicate(String),
    /// The object file could not be written.
    #[error("object file for {target}: {why}")]
    Object {
        /// The target platform.
        target: String,
        /// What the writer said.
        why: String,
    },
}

/// One program as code.
#[derive(Clone, Debug)]
pub struct Emitted {
    /// The proven program: extents and constants are here.
    pub program: Checked,
    /// The instruction set.
    pub isa: Isa,
    /// Code without relocations, entry at the first byte.
    pub code: Vec<u8>,
}

impl Emitted {
    /// The program's name as a C identifier.
    pub fn symbol(&self) -> String {
        let name = self.program.name.chars();
        let name = name.map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
        "bitnet_".chars().chain(name).collect()
    }
}

/// Emits every program of `plan` for a CPU with the features `cpu`: the unpacking stage first, if any.
///
/// # Errors
/// [`AheadError`] when a program cannot be emitted.
pub fn emit(plan: Plan, cpu: Features) -> Result<Vec<Emitted>, AheadError> {
    let isa = plan.spec.isa;
    let main = plan.main.into_iter().map(|(_, program)| program);
    plan.unpack
        .into_iter()
        .chain(main)
        .map(|program| {
            let program = Checked::new(program)?;
            match backend::for_isa(isa)?.emit(&program, isa, cpu)? {
                Code::Machine(code) => Ok(Emitted { program, isa, code }),
                Code::Interpreted(_) => Err(AheadError::Interpreted(isa)),
            }
        })
        .collect()
}
