//! Kernels ahead of time: exactly those that the runtime would choose for a model under a profile, as a pack.
//!
//! The runtime's own [`Kernels`] chooses, over the products that the network packs by. On the machine that the pack is
//! for, every kernel is compared with the oracle before it is written; for another, nothing can be run here, and the
//! runtime there compares before it uses.

use bitnet_codegen::isa::{Arch, Feature};
use bitnet_codegen::{Features, Isa};
use bitnet_runtime::format::{LoadError, Model};
use bitnet_runtime::graph::Product;
use bitnet_runtime::network::head::{Head, HeadForm};
use bitnet_runtime::network::kernels::{ForcedError, Kernels};
use bitnet_runtime::pack::{Builder, Empty, Manifest};
use bitnet_runtime::profile::Profile;
use std::collections::BTreeSet;

/// The CPU that code is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its family.
    pub arch: Arch,
    /// What code may use of it.
    pub features: Features,
}

impl Cpu {
    /// What every CPU of `arch` that is worth code has.
    pub fn least(arch: Arch) -> Self {
        use Feature::{Avx, Avx2, Neon, Sse41, Ssse3, V};
        let features = match arch {
            Arch::X86_64 => [Ssse3, Sse41, Avx, Avx2].into(),
            Arch::Aarch64 => [Neon].into(),
            Arch::Riscv64 => [V].into(),
            Arch::Any => Features::NONE,
        };
        Self { arch, features }
    }

    /// Whether its code runs on this machine.
    pub fn is_here(self) -> bool {
        self.arch == Arch::HOST && Features::detect().contains(self.features)
    }
}

/// What to compile.
pub struct Request<'a> {
    /// The model whose products are to run.
    pub model: &'a Model,
    /// What chooses the kernels; without entries they are estimated.
    pub profile: &'a Profile,
    /// Numbers of threads to choose for.
    pub threads: &'a [usize],
    /// For which CPU.
    pub cpu: Cpu,
    /// The form of the head; as suits its table where absent.
    pub head: Option<HeadForm>,
}

/// A pack, and what is to be said of it.
pub struct Compiled {
    /// The file.
    pub bytes: Vec<u8>,
    /// What is in it.
    pub manifest: Manifest,
    /// Bytes of code.
    pub code_bytes: usize,
    /// Choices that are interpreted, and so not in it.
    pub interpreted: usize,
    /// Whether every kernel was compared with the oracle here.
    pub verified: bool,
    /// Kernels of the profile that cannot be compiled, and the like.
    pub notes: Vec<String>,
}

/// Why there is no pack.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The model's scales cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A kernel that was asked for.
    #[error(transparent)]
    Kernel(#[from] ForcedError),
    /// Nothing in it would be code.
    #[error(transparent)]
    Empty(#[from] Empty),
}

impl Request<'_> {
    /// Compiles.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn compile(&self) -> Result<Compiled, CompileError> {
        if self.cpu.is_here() {
            match self.build(true) {
                Ok(built) if built.interpreted == 0 => return Ok(built),
                // Where nobody may make code, what cannot be tried is still written.
                Ok(_) | Err(CompileError::Empty(_)) => {}
                Err(other) => return Err(other),
            }
        }
        self.build(false)
    }

    fn build(&self, verified: bool) -> Result<Compiled, CompileError> {
        let Cpu { arch, features } = self.cpu;
        let products: BTreeSet<Product> = self.model.products()?.into_iter().collect();
        let mut pack = Builder::new(arch, features, self.profile.clone(), self.threads);
        let (mut interpreted, mut notes) = (0, Vec::new());
        let kernels = || match verified {
            true => Kernels::new(features, self.profile.clone()),
            false => Kernels::ahead(features, self.profile.clone()),
        };
        for &threads in self.threads {
            let mut kernels = kernels().on_threads(threads);
            for &product in &products {
                let chosen = kernels.by_bucket(product)?;
                for (bucket, kernel) in chosen.iter().enumerate() {
                    let choice = &kernels.used()[&(product, bucket)];
                    let origin = choice.origin.name();
                    let is_code = pack.add((product, bucket), threads, origin, kernel);
                    interpreted += usize::from(!is_code && kernel.spec().isa == Isa::Interp);
                }
            }
            // What the runtime builds and then finds no room for must not be missing while it chooses.
            for kernel in kernels.built() {
                pack.add_spare(kernel);
            }
            notes.extend(kernels.notes());
        }
        if self.model.ternary_head_shape().is_none() {
            let table = self.model.head();
            if let Some(kernel) = Head::kernel_for(&mut kernels(), &table, self.head) {
                pack.add_head(table.rows, &kernel);
            }
        }
        notes.sort();
        notes.dedup();
        let code_bytes = pack.code_bytes();
        let (bytes, manifest) = pack.finish()?;
        Ok(Compiled {
            bytes,
            manifest,
            code_bytes,
            interpreted,
            verified,
            notes,
        })
    }
}
