//! What code is emitted for: an instruction set, the encodings that the CPU has, and a platform.
//! Flags are set one by one, since Cranelift's presets are wrong for us: `x86-64-v3` and `znver*` lack `has_avx`.

use crate::isa::{Arch, Feature, Features, Isa};
use crate::spec::{Reason, Unsupported};
use cranelift_codegen::isa::{self, CallConv, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable, SetError};
use target_lexicon::{Architecture, HOST, Triple};

/// What code is emitted for.
#[derive(Clone, Debug)]
pub struct Target {
    isa: Isa,
    cpu: Features,
    triple: Triple,
    convention: CallConv,
}

impl Target {
    /// `isa` with the encodings of `cpu`, on this machine's platform where the processor family is the
    /// same, else on Linux.
    ///
    /// # Errors
    /// [`Unsupported`] when no backend of this kind emits `isa`.
    pub fn new(isa: Isa, cpu: Features) -> Result<Self, Unsupported> {
        let host = match (isa.arch(), HOST.architecture) {
            (Arch::X86_64, Architecture::X86_64)
            | (Arch::Aarch64, Architecture::Aarch64(_))
            | (Arch::Riscv64, Architecture::Riscv64(_)) => Some(HOST),
            _ => None,
        };
        let triple = match (host, isa.arch()) {
            (Some(host), _) => host,
            (None, arch) => linux(arch).ok_or_else(|| {
                Unsupported::new(
                    isa,
                    "the portable backend does not emit this instruction set",
                )
            })?,
        };
        Self::on(isa, cpu, triple)
    }

    /// `isa` with the encodings of `cpu`, on the platform `triple`.
    ///
    /// # Errors
    /// [`Unsupported`] when no backend of this kind emits `isa`.
    pub fn on(isa: Isa, cpu: Features, triple: Triple) -> Result<Self, Unsupported> {
        if isa.width().bytes() != 16 || isa.arch() == Arch::Any {
            return Err(Unsupported::new(
                isa,
                "the portable backend does not emit this instruction set",
            ));
        }
        let convention = match isa.arch() {
            Arch::X86_64 => CallConv::SystemV,
            _ => CallConv::triple_default(&triple),
        };
        Ok(Self {
            isa,
            cpu,
            triple,
            convention,
        })
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The convention of emitted code: System V on x86-64 whatever the system, the C convention elsewhere.
    pub fn convention(&self) -> CallConv {
        self.convention
    }

    /// The compiler for this target.
    ///
    /// # Errors
    /// [`Unsupported`] when this build has no compiler for it.
    pub fn machine(&self) -> Result<OwnedTargetIsa, Unsupported> {
        let failed =
            |e: &dyn std::fmt::Display| Unsupported::new(self.isa, Reason::Compiler(e.to_string()));
        let shared = shared_flags().map_err(|e| failed(&e))?;
        let mut builder = isa::lookup(self.triple.clone()).map_err(|e| failed(&e))?;
        for flag in self.flags() {
            builder.enable(flag).map_err(|e| failed(&e))?;
        }
        builder.finish(shared).map_err(|e| failed(&e))
    }

    fn flags(&self) -> Vec<&'static str> {
        const SSE: [&str; 3] = ["has_sse3", "has_ssse3", "has_sse41"];
        const AVX: [&str; 3] = ["has_sse42", "has_avx", "has_avx2"];
        match self.isa {
            Isa::Ssse3 => SSE.to_vec(),
            Isa::Avx128 => [SSE, AVX].concat(),
            Isa::Vnni128 => {
                let mut flags = [SSE, AVX].concat();
                // The VEX form is shorter; a CPU may have either.
                if self.cpu.has(Feature::AvxVnni) {
                    flags.push("has_avx_vnni");
                } else {
                    flags.extend(["has_avx512f", "has_avx512vl", "has_avx512vnni"]);
                }
                flags
            }
            Isa::Sdot => vec!["has_dotprod"],
            Isa::Usdot => vec!["has_dotprod", "has_i8mm"],
            Isa::Rvv => vec!["has_v", "has_zvl128b"],
            _ => vec![],
        }
    }
}

fn linux(arch: Arch) -> Option<Triple> {
    let name = match arch {
        Arch::X86_64 => "x86_64-unknown-linux-gnu",
        Arch::Aarch64 => "aarch64-unknown-linux-gnu",
        Arch::Riscv64 => "riscv64gc-unknown-linux-gnu",
        Arch::Any => return None,
    };
    name.parse().ok()
}

fn shared_flags() -> Result<settings::Flags, SetError> {
    let mut flags = settings::builder();
    flags.set("opt_level", "none")?;
    flags.set("regalloc_algorithm", "backtracking")?;
    flags.set("is_pic", "true")?;
    flags.set("unwind_info", "false")?;
    let verify = cfg!(any(test, debug_assertions));
    flags.set("enable_verifier", if verify { "true" } else { "false" })?;
    flags.set("log2_min_function_alignment", "6")?;
    Ok(settings::Flags::new(flags))
}
