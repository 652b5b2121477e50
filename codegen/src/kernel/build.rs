#![expect(
    unsafe_code,
    reason = "vouches that code was emitted from the program that it is called for"
)]
//! [`KernelSet`]: from plans to kernels. Proves the programs, finds or emits their code and loads it; the only
//! file in this room that knows an emitter.

use super::memory::{Executable, MemoryError};
use super::{CodeFrom, Emitted, Entry, Kernel, Library, Stage, Stages};
use crate::abi::{Interpreter, PREFETCH_LINES, prefetch_stub};
use crate::backend::{self, Code, NoBackend};
use crate::isa::{Arch, Features, Isa};
use crate::key::Key;
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
    /// A library has no code of the kernel for this CPU: another source may.
    #[error("nothing compiled before is of {0}")]
    NotCompiled(String),
}

/// Where the code of a set comes from.
#[derive(Clone)]
enum Source {
    /// Emitted, and loaded into memory of this process.
    Emitters,
    /// Emitted for a CPU that need not be this one, and never called.
    Ahead,
    /// Compiled before.
    Library(Arc<Library>),
}

/// The kernels of one CPU: all that a process uses, added as they are needed.
pub struct KernelSet {
    cpu: Features,
    source: Source,
    kernels: Vec<Arc<Kernel>>,
}

impl KernelSet {
    /// An empty set for `cpu` whose code is emitted. Nothing is mapped before emitted code is added.
    ///
    /// # Panics
    /// When `cpu` is not a subset of what this CPU has.
    pub fn new(cpu: Features) -> Self {
        assert_here(cpu);
        Self::of(cpu, Source::Emitters)
    }

    /// An empty set for `cpu`, be it another than this one: its kernels are there to be written down
    /// ([`Kernel::pieces`]). Whoever calls one is answered by a panic.
    pub fn ahead(cpu: Features) -> Self {
        Self::of(cpu, Source::Ahead)
    }

    /// An empty set for `cpu` of what is in `library`, and of nothing else.
    ///
    /// # Panics
    /// When `cpu` is not a subset of what this CPU has.
    pub fn of_library(cpu: Features, library: Arc<Library>) -> Self {
        assert_here(cpu);
        Self::of(cpu, Source::Library(library))
    }

    fn of(cpu: Features, source: Source) -> Self {
        Self {
            cpu,
            source,
            kernels: Vec::new(),
        }
    }

    /// A set of the kernels of `plans`, emitted.
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

    /// Proves `plans` and finds or emits their code; their kernels come back in order, and are kept.
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
            .map(|plan| Draft::new(plan, self, &prove))
            .collect::<Result<Vec<_>, _>>()?;
        let mut loader = Loader::new(&self.source, drafts.iter().flat_map(Draft::stages))?;
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

    /// The proven `program` with its code for `isa`.
    fn code(&self, program: Checked, isa: Isa) -> Result<Coded, KernelError> {
        let body = match &self.source {
            Source::Library(library) => {
                let place = library.find(&Key::of(isa, &program), self.cpu);
                let place = place.ok_or_else(|| KernelError::NotCompiled(program.name.clone()));
                Body::Compiled(place?)
            }
            Source::Emitters | Source::Ahead => {
                match backend::for_isa(isa)?.emit(&program, isa, self.cpu)? {
                    Code::Machine(bytes) => Body::Machine(bytes),
                    Code::Interpreted(run) => Body::Interpreted(run),
                }
            }
        };
        Ok((program, body))
    }
}

impl Stages {
    /// Proves `programs` for `isa` and finds or emits their code as `set` does.
    ///
    /// # Errors
    /// [`KernelError`].
    pub(crate) fn build(
        programs: Vec<Program>,
        isa: Isa,
        set: &KernelSet,
    ) -> Result<Self, KernelError> {
        if !isa.runs_on(set.cpu) {
            return Err(Unsupported::new(isa, Reason::Cpu(isa)).into());
        }
        let coded = programs
            .into_iter()
            .map(|program| set.code(Checked::new(program)?, isa))
            .collect::<Result<Vec<_>, KernelError>>()?;
        let mut loader = Loader::new(&set.source, coded.iter())?;
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
type Coded = (Checked, Body);

/// The code of a program before it is loaded.
enum Body {
    /// Just emitted.
    Machine(Vec<u8>),
    /// In the library, at this place.
    Compiled(usize),
    /// There is none.
    Interpreted(Interpreter),
}

/// A plan whose programs have been proven and have code.
struct Draft {
    /// What is left of the plan.
    plan: Plan,
    unpack: Option<Coded>,
    main: Vec<(usize, Coded)>,
}

impl Draft {
    fn new(
        mut plan: Plan,
        set: &KernelSet,
        prove: impl Fn(Program) -> Result<Checked, CheckError>,
    ) -> Result<Self, KernelError> {
        let isa = plan.spec.isa;
        if !isa.runs_on(set.cpu) {
            return Err(Unsupported::new(&plan.spec, Reason::Cpu(isa)).into());
        }
        let coded = |program| set.code(prove(program)?, isa);
        Ok(Self {
            unpack: plan.unpack.take().map(coded).transpose()?,
            main: std::mem::take(&mut plan.main)
                .into_iter()
                .map(|(mr, program)| Ok((mr, coded(program)?)))
                .collect::<Result<_, KernelError>>()?,
            plan,
        })
    }

    /// Every program with its code, in the order in which [`Self::load`] takes them.
    fn stages(&self) -> impl Iterator<Item = &Coded> {
        self.unpack.iter().chain(self.main.iter().map(|(_, c)| c))
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

/// Gives programs the entries of their code.
enum Loader {
    /// Code was put into executable memory, and its functions are given out in order; there is no memory where
    /// everything is interpreted, since then nothing may be mapped.
    Here {
        memory: Option<Arc<Executable>>,
        next: usize,
    },
    /// Code is kept as bytes.
    Ahead,
    /// Code lies in a library.
    Library(Arc<Library>),
}

impl Loader {
    fn new<'c>(
        source: &Source,
        stages: impl Iterator<Item = &'c Coded>,
    ) -> Result<Self, MemoryError> {
        match source {
            Source::Ahead => return Ok(Self::Ahead),
            Source::Library(library) => return Ok(Self::Library(Arc::clone(library))),
            Source::Emitters => {}
        }
        let machine = |(_, body): &'c Coded| match body {
            Body::Machine(bytes) => Some(&bytes[..]),
            Body::Compiled(_) | Body::Interpreted(_) => None,
        };
        let mut functions: Vec<&[u8]> = stages.filter_map(machine).collect();
        let mut memory = None;
        if !functions.is_empty() {
            let stubs = PREFETCH_LINES.map(|lines| prefetch_stub(Arch::HOST, lines));
            functions.splice(0..0, stubs.iter().map(|stub| &stub[..]));
            memory = Some(Arc::new(Executable::new(&functions)?));
        }
        let next = PREFETCH_LINES.len();
        Ok(Self::Here { memory, next })
    }

    fn stage(&mut self, (program, body): Coded) -> Stage {
        let entry = match (body, self) {
            (Body::Interpreted(run), _) => Entry::Interpreted(run),
            (Body::Machine(bytes), Self::Ahead) => Entry::Ahead(bytes),
            (Body::Machine(_), Self::Here { memory, next }) => {
                let memory = memory.as_ref().expect("mapped for this very code");
                let function = *next;
                *next += 1;
                // SAFETY: stages are asked for in the order of the code, so this is what a backend emitted from
                // `program`, for an instruction set that this CPU was found to run, and stubs for this CPU come
                // first.
                Entry::Emitted(unsafe {
                    Emitted::new(Arc::clone(memory), function, CodeFrom::Emitter)
                })
            }
            (Body::Compiled(place), Self::Library(library)) => {
                let memory = Arc::clone(library.memory());
                // SAFETY: the place is that of the key of `program` and its instruction set, and whoever made the
                // library vouches that such code is what an emitter makes of them; this CPU has what it needs
                // (`Library::find`, asked for features of this CPU), and stubs for this CPU come first.
                Entry::Emitted(unsafe { Emitted::new(memory, place, CodeFrom::Library) })
            }
            (Body::Machine(_), Self::Library(_)) | (Body::Compiled(_), _) => {
                unreachable!("code of {} from another source", program.name)
            }
        };
        Stage::new(program, entry)
    }
}
