//! Emitters: each turns a checked program into position-independent code without relocations.
//! One folder per emitter, and [`BACKENDS`], the only list.
//!
//! # Calling convention of emitted code
//! One argument: a pointer to [`crate::kernel::Args`] (System V on x86-64, the C convention elsewhere).
//! Nothing is returned; every operand pointer may be unaligned; wide x86 code ends with `vzeroupper`.

pub mod cranelift;
pub mod interp;
pub mod x86_wide;

use crate::isa::{Features, Isa};
use crate::program::Checked;
use crate::variant::Unsupported;

/// Every emitter. Everything else iterates this list.
pub const BACKENDS: &[&dyn Backend] = &[&interp::Interp, &cranelift::Cranelift, &x86_wide::X86Wide];

/// Emitted code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Code {
    /// Machine code: no relocations, entry at the first byte.
    Machine(Vec<u8>),
    /// The program itself is run by [`interp`].
    Interpreted,
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

/// The emitter of `isa`.
pub fn for_isa(isa: Isa) -> Result<&'static dyn Backend, Unsupported> {
    BACKENDS
        .iter()
        .copied()
        .find(|b| b.isas().contains(&isa))
        .ok_or_else(|| Unsupported::new(isa, "no backend of this build emits it"))
}
