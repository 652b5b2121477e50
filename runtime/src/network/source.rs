//! [`Sources`]: where the code of kernels comes from, in the order asked: a pack, then the emitter, which also knows what
//! is interpreted. A kernel is compared with the oracle before anybody has it; one that answers otherwise is dropped.

use super::exact;
use bitnet_codegen::coded::{CodedKernel, CodedPlan};
use bitnet_codegen::kernel::{CodeFrom, MemoryError};
use bitnet_codegen::{
    Features, Isa, Kernel, KernelError, KernelSet, KernelSpec, Library, Unsupported, plan,
};
use std::sync::Arc;

/// Why kernels are interpreted on a CPU that could run code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoCode {
    /// The system gives no memory for it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Nothing in this build emits any.
    #[error("this build has no compiler")]
    NoCompiler,
}

/// A kernel, where its code comes from, and whether it is exact on this machine.
type Built<K> = (K, CodeFrom, Result<(), Unsupported>);

/// Where code comes from.
pub(super) struct Sources {
    /// Who is asked first at first; the last emits.
    sets: Vec<KernelSet>,
    /// Why the last gives no code, if it was found to give none.
    pub no_code: Option<NoCode>,
    /// What had to be emitted because the pack has not got it.
    missing: Vec<String>,
    /// What was dropped.
    dropped: Vec<String>,
}

impl Sources {
    /// The emitter `set` alone.
    pub fn new(set: KernelSet) -> Self {
        Self {
            sets: vec![set],
            no_code: None,
            missing: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// Asks `library` before anybody else, for a CPU with the features `cpu`.
    pub fn ask_first(&mut self, cpu: Features, library: &Arc<Library>) {
        let set = KernelSet::of_library(cpu, Arc::clone(library));
        self.sets.insert(0, set);
    }

    /// The kernel `spec` for `k` columns.
    pub fn kernel(&mut self, spec: &KernelSpec, k: usize) -> Result<Arc<Kernel>, KernelError> {
        let plan = plan(spec, k)?;
        let name = || format!("{spec} with K = {k}");
        self.first_exact(spec.isa, name, |set| {
            let kernel = set.add(vec![plan.clone()])?.remove(0);
            let exact = match kernel.is_callable() {
                true => exact::check(&kernel),
                false => Ok(()),
            };
            let from = kernel.code_from();
            Ok((kernel, from, exact))
        })
    }

    /// The coded product of `plan`.
    pub fn coded(&mut self, plan: CodedPlan) -> Result<CodedKernel, KernelError> {
        let name = || format!("{} with K = {}", plan.spec, plan.packing.k);
        self.first_exact(plan.spec.isa, name, |set| {
            let kernel = CodedKernel::build(plan.clone(), set)?;
            let exact = match kernel.is_callable() {
                true => exact::check_coded(&kernel),
                false => Ok(()),
            };
            let from = kernel.code_from();
            Ok((kernel, from, exact))
        })
    }

    /// The first kernel that `build` makes of a source's code and finds exact.
    fn first_exact<K>(
        &mut self,
        isa: Isa,
        name: impl Fn() -> String,
        mut build: impl FnMut(&mut KernelSet) -> Result<Built<K>, KernelError>,
    ) -> Result<K, KernelError> {
        let last = self.sets.len() - 1;
        let mut refused = None;
        for i in 0..=last {
            // Who was refused memory for code once does not ask for each kernel again.
            if i == last && self.no_code.is_some() && isa != Isa::Interp {
                break;
            }
            match build(&mut self.sets[i]) {
                Ok((kernel, from, Ok(()))) => {
                    if i > 0 && from == CodeFrom::Emitter {
                        self.missing.push(name());
                    }
                    return Ok(kernel);
                }
                Ok((_, CodeFrom::Library, Err(wrong))) => {
                    let told = format!("{wrong}: that code of the pack is not used");
                    self.dropped.push(told);
                    refused = Some(wrong.into());
                }
                Ok((_, _, Err(wrong))) => {
                    self.dropped.push(wrong.to_string());
                    return Err(wrong.into());
                }
                Err(why @ KernelError::NotCompiled(_)) => refused = Some(why),
                Err(why) => return Err(why),
            }
        }
        Err(refused.unwrap_or_else(|| KernelError::NotCompiled(name())))
    }

    /// Keeps why no code can be had here, if that is the reason `why` a kernel cannot be.
    pub fn remember(&mut self, why: KernelError) {
        let no_code = match why {
            KernelError::Memory(why) => NoCode::Memory(why),
            KernelError::NoBackend(_) => NoCode::NoCompiler,
            _ => return,
        };
        self.no_code.get_or_insert(no_code);
    }

    /// What was dropped, and what the pack has not got.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        /// More names say no more.
        const NAMED: usize = 3;
        let named = self.missing.iter().take(NAMED).cloned();
        let mut names = named.collect::<Vec<_>>().join(", ");
        if self.missing.len() > NAMED {
            names += &format!(" and {} more", self.missing.len() - NAMED);
        }
        let missing = (!names.is_empty())
            .then(|| format!("the pack has no code for {names}: it is emitted here"));
        self.dropped.iter().cloned().chain(missing)
    }
}
