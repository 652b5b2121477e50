#![expect(
    unsafe_code,
    reason = "vouches that code was emitted from the program that it is called for"
)]
//! [`KernelSet`]: from plans to kernels. Proves the programs, has them emitted and loads the code; the only
//! file in this room that knows an emitter.

use super::memory::{Executable, MemoryError};
use super::{Emitted, Entry, Kernel, Stage, Stages};
use crate::abi::{PREFETCH_LINES, prefetch_stub};
use crate::backend::{self, Code, NoBackend};
use crate::isa::{Arch, Features, Isa};
use crate::program::{CheckError, Checked, Program};
use crate::spec::{Reason, Unsupported};
use crate::variant::Plan;
use std::sync::Arc;

/// Why kernels cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The spec does not exist here: an ordinary answer.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// This build emits nothing for the instruction set.
    #[error(transparent)]
    NoBackend(#[from] NoBackend),
    /// A family built a wrong program: a bug.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// There is no memory for the code, or it must not be executed: interpreted kernels still run.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// The kernels of one CPU: all that a process uses, added as they are needed.
pub struct KernelSet {
    cpu: Features,
    kernels: Vec<Arc<Kernel>>,
}

impl KernelSet {
    /// An empty set for `cpu`. Nothing is mapped before emitted code is added.
    ///
    /// # Panics
    /// When `cpu` is not a subset of what this CPU has.
    pub fn new(cpu: Features) -> Self {
        assert_here(cpu);
        Self {
            cpu,
            kernels: Vec::new(),
        }
    }

    /// A set of the kernels of `plans`.
    ///
    /// # Errors
    /// [`KernelError`]; nothing is kept of a set that fails.
    pub fn build(plans: Vec<Plan>, cpu: Features) -> Result<Self, KernelError> {
        let mut set = Self::new(cpu);
        set.add(plans)?;
        Ok(set)
    }

    /// Builds without the proof: lane tests feed ops bits whose sums no proof covers.
    #[cfg(test)]
    pub(crate) fn build_unproven(plans: Vec<Plan>, cpu: Features) -> Result<Self, KernelError> {
        let mut set = Self::new(cpu);
        set.add_with(plans, |p| Ok(Checked::unproven(p)))?;
        Ok(set)
    }

    /// Checks and emits `plans`; their kernels come back in order, and are kept.
    ///
    /// # Errors
    /// [`KernelError`]; the set is then what it was.
    pub fn add(&mut self, plans: Vec<Plan>) -> Result<Vec<Arc<Kernel>>, KernelError> {
        self.add_with(plans, Checked::new)
    }

    fn add_with(
        &mut self,
        plans: Vec<Plan>,
        prove: impl Fn(Program) -> Result<Checked, CheckError>,
    ) -> Result<Vec<Arc<Kernel>>, KernelError> {
        let drafts = plans
            .into_iter()
            .map(|plan| Draft::new(plan, self.cpu, &prove))
            .collect::<Result<Vec<_>, _>>()?;
        let mut loader = Loader::new(drafts.iter().flat_map(Draft::code))?;
        let added: Vec<_> = drafts
            .into_iter()
            .map(|draft| Arc::new(draft.load(&mut loader)))
            .collect();
        self.kernels.extend(added.iter().cloned());
        Ok(added)
    }

    /// The kernels, in the order in which they were added.
    pub fn kernels(&self) -> &[Arc<Kernel>] {
        &self.kernels
    }
}

impl Stages {
    /// Proves and emits `programs` for `isa` on `cpu`, a subset of what this CPU has.
    ///
    /// # Errors
    /// [`KernelError`].
    pub(crate) fn build(
        programs: Vec<Program>,
        isa: Isa,
        cpu: Features,
    ) -> Result<Self, KernelError> {
        assert_here(cpu);
        if !isa.runs_on(cpu) {
            return Err(Unsupported::new(isa, Reason::Cpu(isa)).into());
        }
        let coded = programs
            .into_iter()
            .map(|program| emit(Checked::new(program)?, isa, cpu))
            .collect::<Result<Vec<_>, KernelError>>()?;
        let mut loader = Loader::new(coded.iter().filter_map(machine))?;
        let stages = coded.into_iter().map(|coded| loader.stage(coded));
        Ok(Self {
            stages: stages.collect(),
        })
    }
}

/// Code runs here, so what it is emitted for must be here.
fn assert_here(cpu: Features) {
    assert!(
        Features::detect().contains(cpu),
        "features {cpu:?} are not all on this CPU"
    );
}

/// A proven program and its code.
type Coded = (Checked, Code);

/// The machine code, if there is any.
fn machine((_, code): &Coded) -> Option<&[u8]> {
    match code {
        Code::Machine(bytes) => Some(bytes),
        Code::Interpreted(_) => None,
    }
}

/// A plan whose programs have been proven and emitted.
struct Draft {
    /// What is left of the plan.
    plan: Plan,
    unpack: Option<Coded>,
    main: Vec<(usize, Coded)>,
}

impl Draft {
    fn new(
        mut plan: Plan,
        cpu: Features,
        prove: impl Fn(Program) -> Result<Checked, CheckError>,
    ) -> Result<Self, KernelError> {
        let isa = plan.spec.isa;
        if !isa.runs_on(cpu) {
            return Err(Unsupported::new(&plan.spec, Reason::Cpu(isa)).into());
        }
        let coded = |program| emit(prove(program)?, isa, cpu);
        Ok(Self {
            unpack: plan.unpack.take().map(coded).transpose()?,
            main: std::mem::take(&mut plan.main)
                .into_iter()
                .map(|(mr, program)| Ok((mr, coded(program)?)))
                .collect::<Result<_, KernelError>>()?,
            plan,
        })
    }

    /// The machine code of every program, in the order in which [`Self::load`] takes it.
    fn code(&self) -> impl Iterator<Item = &[u8]> {
        let main = self.main.iter().map(|(_, coded)| coded);
        self.unpack.iter().chain(main).filter_map(machine)
    }

    fn load(self, loader: &mut Loader) -> Kernel {
        let unpack = self.unpack.map(|coded| loader.stage(coded));
        let main = self.main.into_iter();
        Kernel {
            unpack,
            main: main.map(|(mr, coded)| (mr, loader.stage(coded))).collect(),
            spec: self.plan.spec,
            k: self.plan.k,
            groups: self.plan.groups,
            panel: self.plan.panel,
            acts: self.plan.acts,
            out: self.plan.out,
        }
    }
}

fn emit(checked: Checked, isa: Isa, cpu: Features) -> Result<Coded, KernelError> {
    let code = backend::for_isa(isa)?.emit(&checked, isa, cpu)?;
    Ok((checked, code))
}

/// Executable memory, giving out its functions in order.
struct Loader {
    /// `None` where everything is interpreted: then nothing may be mapped.
    memory: Option<Arc<Executable>>,
    next: usize,
}

impl Loader {
    fn new<'c>(code: impl Iterator<Item = &'c [u8]>) -> Result<Self, MemoryError> {
        let mut functions: Vec<&[u8]> = code.collect();
        let mut memory = None;
        if !functions.is_empty() {
            let stubs = PREFETCH_LINES.map(|lines| prefetch_stub(Arch::HOST, lines));
            functions.splice(0..0, stubs.iter().map(|stub| &stub[..]));
            memory = Some(Arc::new(Executable::new(&functions)?));
        }
        Ok(Self {
            memory,
            next: PREFETCH_LINES.len(),
        })
    }

    fn stage(&mut self, (program, code): Coded) -> Stage {
        let entry = match code {
            Code::Interpreted(run) => Entry::Interpreted(run),
            Code::Machine(_) => {
                let memory = self.memory.as_ref().expect("mapped for this very code");
                let function = self.next;
                self.next += 1;
                // SAFETY: stages are asked for in the order of the code, so this is what a backend emitted from
                // `program`, for an instruction set that this CPU was found to run, and stubs for this CPU come
                // first.
                Entry::Emitted(unsafe { Emitted::new(Arc::clone(memory), function) })
            }
        };
        Stage::new(program, entry)
    }
}
