//! Object files (ELF, Mach-O, COFF) of kernels, and the C header to call them.
//!
//! A kernel is a function `void f(const bitnet_args *)`, its constants are `f_consts`. Code is position
//! independent and refers to nothing, so files link into anything, also where mapping executable memory
//! at run time is forbidden. The prefetch stubs that `bitnet_args` wants are in the file, too.

use super::{AheadError, Emitted};
use crate::abi::{PREFETCH_LINES, prefetch_stub};
use crate::isa::Arch;
use crate::program::Operand;
use cranelift_codegen::ir::{AbiParam, Signature, types};
use cranelift_codegen::isa;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_module::{DataDescription, Linkage, Module, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use std::collections::BTreeSet;
use std::fmt::{Display, Write};
use target_lexicon::{Architecture, Triple};

/// An object file for `target` with `kernels` in it.
///
/// # Errors
/// [`AheadError`] when a kernel is for another processor family, two share a symbol, or this build
/// cannot write the target's format.
pub fn write(kernels: &[Emitted], target: &Triple) -> Result<Vec<u8>, AheadError> {
    let arch = match target.architecture {
        Architecture::X86_64 => Arch::X86_64,
        Architecture::Aarch64(_) => Arch::Aarch64,
        Architecture::Riscv64(_) => Arch::Riscv64,
        _ => Arch::Any,
    };
    let mut file = File::new(target)?;
    let mut symbols = BTreeSet::new();
    for kernel in kernels {
        let symbol = kernel.symbol();
        if kernel.isa.arch() != arch {
            return Err(AheadError::OtherArch {
                name: kernel.program.name.clone(),
                isa: kernel.isa,
                target: target.to_string(),
            });
        }
        if !symbols.insert(symbol.clone()) {
            return Err(AheadError::Duplicate(symbol));
        }
        file.code(&symbol, &kernel.code)?;
        if !kernel.program.consts.is_empty() {
            file.data(&format!("{symbol}_consts"), &kernel.program.consts)?;
        }
    }
    for lines in PREFETCH_LINES {
        file.code(&stub_symbol(lines), &prefetch_stub(arch, lines))?;
    }
    file.finish()
}

fn stub_symbol(lines: usize) -> String {
    format!("bitnet_prefetch{lines}")
}

struct File<'a> {
    module: ObjectModule,
    target: &'a Triple,
}

impl<'a> File<'a> {
    fn new(target: &'a Triple) -> Result<Self, AheadError> {
        let failed = |e: &dyn Display| failed(target, e);
        let mut flags = settings::builder();
        flags.set("is_pic", "true").map_err(|e| failed(&e))?;
        flags.set("unwind_info", "false").map_err(|e| failed(&e))?;
        let isa = isa::lookup(target.clone())
            .map_err(|e| failed(&e))?
            .finish(settings::Flags::new(flags))
            .map_err(|e| failed(&e))?;
        let builder = ObjectBuilder::new(isa, "bitnet_kernels", default_libcall_names())
            .map_err(|e| failed(&e))?;
        Ok(Self {
            module: ObjectModule::new(builder),
            target,
        })
    }

    fn code(&mut self, symbol: &str, bytes: &[u8]) -> Result<(), AheadError> {
        let mut signature = Signature::new(self.module.isa().default_call_conv());
        signature.params.push(AbiParam::new(types::I64));
        let id = self
            .module
            .declare_function(symbol, Linkage::Export, &signature)
            .map_err(|e| failed(self.target, &e))?;
        self.module
            .define_function_bytes(id, 64, bytes, &[])
            .map_err(|e| failed(self.target, &e))
    }

    fn data(&mut self, symbol: &str, bytes: &[u8]) -> Result<(), AheadError> {
        let mut data = DataDescription::new();
        data.define(bytes.into());
        data.set_align(64);
        let id = self
            .module
            .declare_data(symbol, Linkage::Export, false, false)
            .map_err(|e| failed(self.target, &e))?;
        self.module
            .define_data(id, &data)
            .map_err(|e| failed(self.target, &e))
    }

    fn finish(self) -> Result<Vec<u8>, AheadError> {
        let target = self.target;
        self.module.finish().emit().map_err(|e| failed(target, &e))
    }
}

fn failed(target: &Triple, why: &dyn Display) -> AheadError {
    AheadError::Object {
        target: target.to_string(),
        why: why.to_string(),
    }
}

/// The C header of an object file: the arguments, the kernels, and how many bytes each operand takes.
pub fn header(kernels: &[Emitted]) -> String {
    let mut text = String::from(PREAMBLE);
    for lines in PREFETCH_LINES {
        let _ = writeln!(text, "extern const unsigned char {}[];", stub_symbol(lines));
    }
    for kernel in kernels {
        let (symbol, name) = (kernel.symbol(), &kernel.program.name);
        let _ = writeln!(text, "\n/* {name}: needs {} */", kernel.isa);
        let _ = writeln!(text, "BITNET_ABI void {symbol}(const bitnet_args *args);");
        if !kernel.program.consts.is_empty() {
            let _ = writeln!(text, "extern const unsigned char {symbol}_consts[];");
        }
        for operand in Operand::ALL {
            let bytes = kernel.program.bytes(operand);
            if bytes > 0 {
                let _ = writeln!(text, "#define {symbol}_{operand:?}_bytes {bytes}");
            }
        }
    }
    text += "\n#ifdef __cplusplus\n}\n#endif\n#endif\n";
    text
}

const PREAMBLE: &str = "\
/* Ternary matmul kernels, written by bitnet-tune. An operand that a kernel has no `_bytes` for may be null;
 * scratch is all zero before the first call and belongs to one thread. */
#ifndef BITNET_KERNELS_H
#define BITNET_KERNELS_H
#ifdef __cplusplus
extern \"C\" {
#endif

#if defined(__x86_64__) && defined(_WIN32)
#define BITNET_ABI __attribute__((sysv_abi))
#else
#define BITNET_ABI
#endif

typedef struct bitnet_args {
  /* weights, acts, sums, consts, scratch0, scratch1, out, scales */
  void *operands[8];
  /* bitnet_prefetch1, 2, 4, 8 */
  const void *prefetch[4];
} bitnet_args;

";
