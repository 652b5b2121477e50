//! The portable emitter: 128-bit code for x86-64, aarch64 and riscv64 through Cranelift.
//!
//! Cranelift's optimiser stays off (`opt_level=none`): it re-orders pure ops and spilled up to 31 registers in
//! kernels that need none, at 2.4 times the run time. What an optimiser would do is done while emitting:
//! addresses become induction pointers, constants move to the entry block, and code keeps the program's order.

mod address;
mod function;
mod peephole;
mod prefetch;
mod reads;
mod select;
mod target;

#[cfg(test)]
mod tests;

use super::{Backend, Code};
use crate::isa::{Arch, Features, Isa};
use crate::program::{Checked, Width};
use crate::spec::{Reason, Unsupported};
use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::isa::OwnedTargetIsa;
pub use target::Target;

/// The backend.
pub struct Cranelift;

impl Backend for Cranelift {
    fn name(&self) -> &'static str {
        "cranelift"
    }

    fn isas(&self) -> &'static [Isa] {
        &[
            Isa::Ssse3,
            Isa::Avx128,
            Isa::Vnni128,
            Isa::Neon,
            Isa::Sdot,
            Isa::Usdot,
            Isa::Rvv,
        ]
    }

    fn emit(&self, program: &Checked, isa: Isa, cpu: Features) -> Result<Code, Unsupported> {
        let target = Target::new(isa, cpu)?;
        Ok(Code::Machine(compile(program, &target, false)?.bytes))
    }
}

/// Machine code of one program.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Position-independent code without relocations; constants included. Entry at the first byte.
    pub bytes: Vec<u8>,
    /// Alignment that the code asks for, in bytes.
    pub align: u32,
    /// Cranelift's listing, if asked for.
    pub listing: Option<String>,
}

/// Compiles `program`; `listing` asks for a readable listing as well.
///
/// # Errors
/// [`Unsupported`] when an op does not exist on the target, with the reason.
pub fn compile(program: &Checked, target: &Target, listing: bool) -> Result<Compiled, Unsupported> {
    if program.width != Width::W16 {
        return Err(Unsupported::new(
            &program.name,
            Reason::Instructions(format!(
                "{} bytes a vector; this backend emits 16",
                program.width.bytes()
            )),
        ));
    }
    let isa: OwnedTargetIsa = target.machine()?;
    let mut context = Context::for_function(function::emit(program, target, &*isa)?);
    context.want_disasm = listing;
    let compiled = context
        .compile(&*isa, &mut ControlPlane::default())
        .map_err(|e| Unsupported::new(&program.name, Reason::Compiler(format!("{:?}", e.inner))))?;
    // A kernel calls nothing by name, so its bytes run wherever they are put.
    assert!(
        compiled.buffer.relocs().is_empty(),
        "{}: relocations {:?}",
        program.name,
        compiled.buffer.relocs()
    );
    let mut bytes = compiled.code_buffer().to_vec();
    if target.isa().arch() == Arch::X86_64 {
        peephole::merge_broadcasts(&mut bytes);
    }
    Ok(Compiled {
        bytes,
        align: compiled.buffer.alignment,
        listing: compiled.vcode.clone(),
    })
}
