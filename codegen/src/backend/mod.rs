//! Emitters: each turns a checked program into position-independent code without relocations, which is called
//! as [`crate::abi`] says. One folder per emitter, and [`BACKENDS`], the only list. Without the feature `emit`
//! only the interpreter is left in it.

#[cfg(feature = "emit")]
pub mod cranelift;
pub mod interp;
#[cfg(feature = "emit")]
pub mod x86_wide;

use crate::abi::Interpreter;

use crate::isa::{Features, Isa};
use crate::program::Checked;
use crate::spec::Unsupported;

/// Every emitter. Everything else iterates this list.
pub const BACKENDS: &[&dyn Backend] = &[
    &interp::Interp,
    #[cfg(feature = "emit")]
    &cranelift::Cranelift,
    #[cfg(feature = "emit")]
    &x86_wide::X86Wide,
];

/// Emitted code.
#[derive(Clone, Debug)]
pub enum Code {
    /// Machine code: no relocations, entry at the first byte.
    Machine(Vec<u8>),
    /// The program itself is run by this.
    Interpreted(Interpreter),
}

/// An emitter.
pub trait Backend: Sync {
    /// The name.
    fn name(&self) -> &'static str;

    /// The instruction sets that it emits. Each instruction set belongs to one backend.
    fn isas(&self) -> &'static [Isa];

    /// Emits `program` for `isa`, choosing encodings that `cpu` has.
    ///
    /// # Errors
    /// [`Unsupported`] when an op does not exist on `isa` or registers run out.
    fn emit(&self, program: &Checked, isa: Isa, cpu: Features) -> Result<Code, Unsupported>;
}

/// No backend of this build emits an instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no backend of this build emits {0}")]
pub struct NoBackend(pub Isa);

/// The emitter of `isa`.
///
/// # Errors
/// [`NoBackend`].
pub fn for_isa(isa: Isa) -> Result<&'static dyn Backend, NoBackend> {
    BACKENDS
        .iter()
        .copied()
        .find(|b| b.isas().contains(&isa))
        .ok_or(NoBackend(isa))
}
