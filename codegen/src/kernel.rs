#![expect(
    unsafe_code,
    reason = "owns executable memory and makes the one call into it"
)]
//! [`KernelSet`]: emitted kernels in executable memory, and the one checked call into it.
//!
//! The call is sound because of three checked facts: the program was proven to stay inside its extents
//! ([`Checked`]), the CPU has the instructions ([`Isa::runs_on`]), and the slices handed in are at least
//! as long as the extents (asserted at the call). Memory is writable or executable, never both; it is
//! freed when the last kernel of the set is dropped.

use crate::acts::ActsForm;
use crate::backend::{self, Code, interp};
use crate::isa::{Arch, Features, Isa};
use crate::layout::Panel;
use crate::program::{CheckError, Checked, Operand, Program};
use crate::spec::KernelSpec;
use crate::variant::groups::Groups;
use crate::variant::{OutOrder, Plan, Unsupported};
use cranelift_codegen::ir::{AbiParam, Signature, types};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_jit::{ArenaMemoryProvider, JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module};
use std::sync::{Arc, Mutex};

/// The argument of emitted code, passed by pointer.
#[repr(C)]
#[derive(Debug)]
pub struct Args {
    /// Operand pointers in [`Operand::ALL`] order.
    pub operands: [*mut u8; Operand::COUNT],
    /// Prefetch stubs for 1, 2, 4 and 8 consecutive cache lines; see [`PREFETCH_LINES`].
    pub prefetch: [*const u8; 4],
}

/// How many lines each stub of [`Args::prefetch`] touches. A stub takes the first line's address as its
/// only argument, returns nothing and preserves every register but the argument (Cranelift's `preserve_all`).
pub const PREFETCH_LINES: [usize; 4] = [1, 2, 4, 8];

const _: () = assert!(
    std::mem::offset_of!(Args, operands) == 0
        && std::mem::offset_of!(Args, prefetch) == 8 * Operand::COUNT
);

/// Why a set of kernels cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The spec does not exist here: an ordinary answer.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// A family built a wrong program: a bug.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// Executable memory could not be had.
    #[error("no executable memory: {0}")]
    Memory(String),
}

/// Reserved address space of one set; only what is used is committed.
const ARENA_BYTES: usize = 64 << 20;

/// Executable memory of one set.
struct Memory(Mutex<Option<JITModule>>);

impl Drop for Memory {
    fn drop(&mut self) {
        let module = match self.0.get_mut() {
            Ok(m) => m.take(),
            Err(poisoned) => poisoned.into_inner().take(),
        };
        if let Some(module) = module {
            // SAFETY: every `Kernel` holds an `Arc<Memory>`, so no entry pointer of this module survives it.
            unsafe { module.free_memory() };
        }
    }
}

/// The convention of emitted code: System V on x86-64 whatever the system, the C convention elsewhere.
#[cfg(target_arch = "x86_64")]
type EntryFn = unsafe extern "sysv64" fn(*const Args);
#[cfg(not(target_arch = "x86_64"))]
type EntryFn = unsafe extern "C" fn(*const Args);

/// Where a program's code is.
enum Entry {
    Machine(EntryFn),
    Interpreted,
}

struct Stage {
    program: Checked,
    consts: AlignedBytes,
    entry: Entry,
    code_bytes: usize,
}

/// Zeroed bytes that start on a cache line.
#[derive(Debug, Default)]
pub struct AlignedBytes {
    store: Vec<u8>,
    offset: usize,
    len: usize,
}

impl AlignedBytes {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let store = vec![0u8; len + 63];
        // The store is never moved or grown, so the offset stays right.
        let offset = store.as_ptr().align_offset(64);
        Self { store, offset, len }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.store[self.offset..][..self.len]
    }

    /// The bytes, writable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.store[self.offset..][..self.len]
    }
}

/// One spec for one K, ready to run.
pub struct Kernel {
    spec: KernelSpec,
    k: usize,
    groups: Option<Groups>,
    panel: Panel,
    acts: ActsForm,
    out: OutOrder,
    unpack: Option<Stage>,
    main: Vec<(usize, Stage)>,
    prefetch: [*const u8; 4],
    _memory: Arc<Memory>,
}

// SAFETY: after building, code and constants are immutable, and `Memory` outlives the pointers into it.
unsafe impl Send for Kernel {}
// SAFETY: as above; `run` takes all mutable state by argument.
unsafe impl Sync for Kernel {}

/// Working memory of one thread for one kernel.
#[derive(Debug, Default)]
pub struct Scratch {
    unpacked: AlignedBytes,
    buffers: [AlignedBytes; 2],
}

/// Kernels that share executable memory.
pub struct KernelSet {
    kernels: Vec<Arc<Kernel>>,
}

impl KernelSet {
    /// Checks and emits `plans` for `cpu`, which must be a subset of what this CPU has.
    ///
    /// # Errors
    /// [`KernelError`]; nothing is kept of a set that fails.
    pub fn build(plans: Vec<Plan>, cpu: Features) -> Result<Self, KernelError> {
        Self::build_with(plans, cpu, Checked::new)
    }

    /// Builds without the proof: lane tests feed ops bits whose sums no proof covers.
    #[cfg(test)]
    pub(crate) fn build_unproven(plans: Vec<Plan>, cpu: Features) -> Result<Self, KernelError> {
        Self::build_with(plans, cpu, |p| Ok(Checked::unproven(p)))
    }

    fn build_with(
        plans: Vec<Plan>,
        cpu: Features,
        prove: impl Fn(Program) -> Result<Checked, CheckError>,
    ) -> Result<Self, KernelError> {
        assert!(
            Features::detect().contains(cpu),
            "features {cpu:?} are not all on this CPU"
        );
        let mut emitted = Vec::new();
        for plan in plans {
            let isa = plan.spec.isa;
            if !isa.runs_on(cpu) {
                return Err(Unsupported::new(&plan.spec, format!("this CPU has no {isa}")).into());
            }
            let unpack = plan.unpack.map(|p| emit(prove(p)?, isa, cpu)).transpose()?;
            let main = plan
                .main
                .into_iter()
                .map(|(mr, p)| Ok((mr, emit(prove(p)?, isa, cpu)?)))
                .collect::<Result<Vec<_>, KernelError>>()?;
            emitted.push((
                plan.spec,
                plan.k,
                plan.groups,
                plan.panel,
                plan.acts,
                plan.out,
                unpack,
                main,
            ));
        }
        let mut jit = Jit::new()?;
        for (.., unpack, main) in &emitted {
            for (program, code) in unpack.iter().chain(main.iter().map(|(_, e)| e)) {
                jit.define(&program.name, code)?;
            }
        }
        let mut loaded = jit.finish()?;
        let kernels = emitted
            .into_iter()
            .map(|(spec, k, groups, panel, acts, out, unpack, main)| {
                let unpack = unpack.map(|e| loaded.stage(e));
                let main = main
                    .into_iter()
                    .map(|(mr, e)| (mr, loaded.stage(e)))
                    .collect();
                let (prefetch, memory) = (loaded.prefetch, Arc::clone(&loaded.memory));
                Arc::new(Kernel {
                    spec,
                    k,
                    groups,
                    panel,
                    acts,
                    out,
                    unpack,
                    main,
                    prefetch,
                    _memory: memory,
                })
            })
            .collect();
        Ok(Self { kernels })
    }

    /// The kernels, in the order of the plans.
    pub fn kernels(&self) -> &[Arc<Kernel>] {
        &self.kernels
    }
}

fn emit(checked: Checked, isa: Isa, cpu: Features) -> Result<(Checked, Code), KernelError> {
    let code = backend::for_isa(isa)?.emit(&checked, isa, cpu)?;
    Ok((checked, code))
}

/// A module being filled.
struct Jit {
    module: JITModule,
    stubs: Vec<FuncId>,
    functions: Vec<FuncId>,
}

impl Jit {
    fn new() -> Result<Self, KernelError> {
        let memory_error = |e: &dyn std::fmt::Display| KernelError::Memory(e.to_string());
        let mut flags = settings::builder();
        flags.set("is_pic", "false").map_err(|e| memory_error(&e))?;
        let isa = cranelift_codegen::isa::lookup(target_lexicon::HOST)
            .map_err(|e| memory_error(&e))?
            .finish(settings::Flags::new(flags))
            .map_err(|e| memory_error(&e))?;
        let mut builder = JITBuilder::with_isa(isa, cranelift_module::default_libcall_names());
        let arena =
            ArenaMemoryProvider::new_with_size(ARENA_BYTES).map_err(|e| memory_error(&e))?;
        builder.memory_provider(Box::new(arena));
        let mut jit = Self {
            module: JITModule::new(builder),
            stubs: Vec::new(),
            functions: Vec::new(),
        };
        for lines in PREFETCH_LINES {
            let id = jit.bytes(
                &format!("prefetch{lines}"),
                &prefetch_stub(Arch::HOST, lines),
            )?;
            jit.stubs.push(id);
        }
        Ok(jit)
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<FuncId, KernelError> {
        let mut signature = Signature::new(self.module.isa().default_call_conv());
        signature.params.push(AbiParam::new(types::I64));
        // Names repeat when two plans share a spec and K; the running number keeps them apart.
        let unique = format!("{name}.{}", self.functions.len());
        let failed = |e: &dyn std::fmt::Display| KernelError::Memory(format!("{unique}: {e}"));
        let id = self
            .module
            .declare_function(&unique, Linkage::Local, &signature)
            .map_err(|e| failed(&e))?;
        self.module
            .define_function_bytes(id, 64, bytes, &[])
            .map_err(|e| failed(&e))?;
        Ok(id)
    }

    fn define(&mut self, name: &str, code: &Code) -> Result<(), KernelError> {
        if let Code::Machine(bytes) = code {
            let id = self.bytes(name, bytes)?;
            self.functions.push(id);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Loaded, KernelError> {
        self.module
            .finalize_definitions()
            .map_err(|e| KernelError::Memory(e.to_string()))?;
        let prefetch = std::array::from_fn(|i| self.module.get_finalized_function(self.stubs[i]));
        let entries = self
            .functions
            .iter()
            .map(|&f| self.module.get_finalized_function(f))
            .collect::<Vec<_>>();
        let memory = Arc::new(Memory(Mutex::new(Some(self.module))));
        Ok(Loaded {
            entries: entries.into_iter(),
            prefetch,
            memory,
        })
    }
}

/// Code for `arch` that prefetches `lines` cache lines from the address in the first argument on, and
/// touches nothing else.
pub(crate) fn prefetch_stub(arch: Arch, lines: usize) -> Vec<u8> {
    match arch {
        Arch::X86_64 => {
            let mut code = Vec::new();
            for line in 0..lines {
                // prefetcht0 [rdi + 64·line]
                code.extend([0x0F, 0x18, 0x8F]);
                code.extend((64 * line as u32).to_le_bytes());
            }
            code.push(0xC3);
            code
        }
        // `ret`: the portable backend leaves prefetching on these to the hardware.
        Arch::Aarch64 => 0xD65F_03C0u32.to_le_bytes().to_vec(),
        Arch::Riscv64 => 0x0000_8067u32.to_le_bytes().to_vec(),
        Arch::Any => unreachable!("code is for some processor"),
    }
}

/// A finalised module, giving out its entries in order of definition.
struct Loaded {
    entries: std::vec::IntoIter<*const u8>,
    prefetch: [*const u8; 4],
    memory: Arc<Memory>,
}

impl Loaded {
    fn stage(&mut self, (program, code): (Checked, Code)) -> Stage {
        let mut consts = AlignedBytes::zeroed(program.consts.len());
        consts.bytes_mut().copy_from_slice(&program.consts);
        let (entry, code_bytes) = match code {
            Code::Interpreted => (Entry::Interpreted, 0),
            Code::Machine(bytes) => {
                let pointer = self
                    .entries
                    .next()
                    .expect("one entry for each machine program");
                // SAFETY: the pointer is the finalised start of a function that a backend emitted with
                // exactly this convention, and its memory is kept by the `Arc` in the kernel.
                let f = unsafe { std::mem::transmute::<*const u8, EntryFn>(pointer) };
                (Entry::Machine(f), bytes.len())
            }
        };
        Stage {
            program,
            consts,
            entry,
            code_bytes,
        }
    }
}

impl Kernel {
    /// The spec.
    pub fn spec(&self) -> &KernelSpec {
        &self.spec
    }

    /// Input features that the code was emitted for.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The groups of columns that the kernel scales itself; then [`Self::run_grouped`] runs it.
    pub fn groups(&self) -> Option<Groups> {
        self.groups
    }

    /// How weights are packed for this kernel.
    pub fn panel(&self) -> Panel {
        self.panel
    }

    /// How activations are prepared for this kernel.
    pub fn acts_form(&self) -> ActsForm {
        self.acts
    }

    /// How the result tile is ordered.
    pub fn out_order(&self) -> OutOrder {
        self.out
    }

    /// Tile sizes in tokens, largest first.
    pub fn tile_sizes(&self) -> impl Iterator<Item = usize> {
        self.main.iter().map(|(mr, _)| *mr)
    }

    /// Bytes of machine code.
    pub fn code_bytes(&self) -> usize {
        self.unpack
            .iter()
            .chain(self.main.iter().map(|(_, s)| s))
            .map(|s| s.code_bytes)
            .sum()
    }

    /// Splits `m` tokens into tiles `(first, mr)`: the largest that fits; where even the smallest does not,
    /// the smallest, reading past the end as zero tokens.
    pub fn tiles(&self, m: usize) -> Vec<(usize, usize)> {
        let mut tiles = Vec::new();
        let mut first = 0;
        while first < m {
            let left = m - first;
            let smallest = self.main.last().expect("a plan has a main program").0;
            let mr = self.tile_sizes().find(|&s| s <= left).unwrap_or(smallest);
            tiles.push((first, mr));
            first += mr;
        }
        tiles
    }

    /// Working memory for one thread.
    pub fn scratch(&self) -> Scratch {
        let stages = || self.unpack.iter().chain(self.main.iter().map(|(_, s)| s));
        let most = |o| stages().map(|s| s.program.reach(o)).max().unwrap_or(0);
        Scratch {
            unpacked: AlignedBytes::zeroed(
                self.unpack
                    .as_ref()
                    .map_or(0, |s| s.program.bytes(Operand::Out)),
            ),
            buffers: [
                AlignedBytes::zeroed(most(Operand::Scratch0)),
                AlignedBytes::zeroed(most(Operand::Scratch1)),
            ],
        }
    }

    /// i32 elements of the result tile of `mr` tokens.
    pub fn out_len(&self, mr: usize) -> usize {
        mr * self.panel.shape.nr
    }

    /// Prepares one panel: call once before the tiles of the panel. Does nothing for most families.
    pub fn load_panel(&self, panel: &[u8], scratch: &mut Scratch) {
        if let Some(stage) = &self.unpack {
            let Scratch { unpacked, buffers } = scratch;
            stage.call(
                panel,
                &[],
                [&[], &[]],
                buffers,
                unpacked.bytes_mut(),
                &self.prefetch,
            );
        }
    }

    /// Computes one tile of a kernel that scales groups of columns itself.
    ///
    /// # Shapes
    /// `panel`: [`Panel::bytes`]; `acts`: `mr` times the planes rows; `sums` and `scales`: `[mr, groups]`;
    /// `out`: [`Self::out_len`].
    ///
    /// # Panics
    /// When a slice is shorter than the kernel's extents, no tile of `mr` exists, or the kernel has no groups.
    pub fn run_grouped(
        &self,
        mr: usize,
        panel: &[u8],
        acts: &[u8],
        (sums, scales): (&[i32], &[f32]),
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        assert!(self.groups.is_some(), "{} has no group scales", self.spec);
        self.call(
            mr,
            panel,
            acts,
            (bytes_of(sums), bytes_of(scales)),
            scratch,
            bytes_of_mut(out),
        );
    }

    /// Computes one tile: `mr` (one of [`Self::tile_sizes`]) tokens times the NR rows of `panel`.
    ///
    /// # Shapes
    /// `panel`: [`Panel::bytes`]; `acts`: [`ActsForm::tile_bytes`]; `sums`: `mr`; `out`: [`Self::out_len`].
    ///
    /// # Panics
    /// When a slice is shorter than the kernel's extents, or no tile of `mr` exists.
    pub fn run(
        &self,
        mr: usize,
        panel: &[u8],
        acts: &[u8],
        sums: &[i32],
        scratch: &mut Scratch,
        out: &mut [i32],
    ) {
        assert!(self.groups.is_none(), "{} has group scales", self.spec);
        let sums = (bytes_of(sums), &[][..]);
        self.call(mr, panel, acts, sums, scratch, bytes_of_mut(out));
    }

    fn call(
        &self,
        mr: usize,
        panel: &[u8],
        acts: &[u8],
        (sums, scales): (&[u8], &[u8]),
        scratch: &mut Scratch,
        out: &mut [u8],
    ) {
        let (_, stage) = self
            .main
            .iter()
            .find(|(s, _)| *s == mr)
            .expect("a tile size of this kernel");
        let Scratch { unpacked, buffers } = scratch;
        let weights = if self.unpack.is_some() {
            unpacked.bytes()
        } else {
            panel
        };
        assert!(
            out.len() >= 4 * self.out_len(mr),
            "{} bytes of results for {}",
            out.len(),
            self.spec
        );
        stage.call(weights, acts, [sums, scales], buffers, out, &self.prefetch);
    }
}

/// Programs as callable code in memory of their own, for products that are no [`Plan`].
pub(crate) struct Stages {
    stages: Vec<Stage>,
    prefetch: [*const u8; 4],
    _memory: Arc<Memory>,
}

// SAFETY: as for `Kernel`.
unsafe impl Send for Stages {}
// SAFETY: as for `Kernel`; `call` takes all mutable state by argument.
unsafe impl Sync for Stages {}

impl Stages {
    /// Proves and emits `programs`, which use no scratch, for `isa` on `cpu`, a subset of what this CPU has.
    ///
    /// # Errors
    /// [`KernelError`].
    pub(crate) fn build(
        programs: Vec<Program>,
        isa: Isa,
        cpu: Features,
    ) -> Result<Self, KernelError> {
        assert!(
            Features::detect().contains(cpu),
            "features {cpu:?} are not all on this CPU"
        );
        if !isa.runs_on(cpu) {
            return Err(Unsupported::new(isa, "this CPU has no such instructions").into());
        }
        let emitted = programs
            .into_iter()
            .map(|p| emit(Checked::new(p)?, isa, cpu))
            .collect::<Result<Vec<_>, _>>()?;
        let mut jit = Jit::new()?;
        for (program, code) in &emitted {
            jit.define(&program.name, code)?;
        }
        let mut loaded = jit.finish()?;
        Ok(Self {
            stages: emitted.into_iter().map(|e| loaded.stage(e)).collect(),
            prefetch: loaded.prefetch,
            _memory: loaded.memory,
        })
    }

    /// Runs program `i`.
    ///
    /// # Panics
    /// When a slice is shorter than the program's extents.
    pub(crate) fn call(
        &self,
        i: usize,
        weights: &[u8],
        acts: &[u8],
        sums: &[i32],
        out: &mut [i32],
    ) {
        let mut scratch = [AlignedBytes::default(), AlignedBytes::default()];
        self.stages[i].call(
            weights,
            acts,
            [bytes_of(sums), &[]],
            &mut scratch,
            bytes_of_mut(out),
            &self.prefetch,
        );
    }

    /// Bytes of machine code.
    pub(crate) fn code_bytes(&self) -> usize {
        self.stages.iter().map(|s| s.code_bytes).sum()
    }
}

/// Numbers of four bytes.
trait Word {}
impl Word for i32 {}
impl Word for f32 {}

fn bytes_of<T: Word>(v: &[T]) -> &[u8] {
    // SAFETY: any word is four initialised bytes, and the length in bytes is that of the slice.
    unsafe { std::slice::from_raw_parts(v.as_ptr().cast(), std::mem::size_of_val(v)) }
}

fn bytes_of_mut<T: Word>(v: &mut [T]) -> &mut [u8] {
    // SAFETY: as `bytes_of`; any four bytes are a valid word, and the borrow is exclusive.
    unsafe { std::slice::from_raw_parts_mut(v.as_mut_ptr().cast(), std::mem::size_of_val(v)) }
}

impl Stage {
    fn call(
        &self,
        weights: &[u8],
        acts: &[u8],
        [sums, scales]: [&[u8]; 2],
        [scratch0, scratch1]: &mut [AlignedBytes; 2],
        out: &mut [u8],
        prefetch: &[*const u8; 4],
    ) {
        let consts = self.consts.bytes();
        let lengths = [
            weights.len(),
            acts.len(),
            sums.len(),
            consts.len(),
            scratch0.len,
            scratch1.len,
            out.len(),
            scales.len(),
        ];
        for (operand, have) in Operand::ALL.into_iter().zip(lengths) {
            let need = self.program.reach(operand);
            assert!(
                have >= need,
                "{}: {operand:?} has {have} bytes, needs {need}",
                self.program.name
            );
        }
        match self.entry {
            Entry::Machine(f) => {
                let args = Args {
                    operands: [
                        weights.as_ptr().cast_mut(),
                        acts.as_ptr().cast_mut(),
                        sums.as_ptr().cast_mut(),
                        consts.as_ptr().cast_mut(),
                        scratch0.bytes_mut().as_mut_ptr(),
                        scratch1.bytes_mut().as_mut_ptr(),
                        out.as_mut_ptr(),
                        scales.as_ptr().cast_mut(),
                    ],
                    prefetch: *prefetch,
                };
                // SAFETY: the program is `Checked`, so it reads and writes only inside its extents and writes only
                // writable operands; each slice is at least as long as its extent (asserted above), the
                // writable ones are borrowed exclusively; `KernelSet::build` asserted that the CPU runs the ISA.
                unsafe { f(&args) }
            }
            Entry::Interpreted => {
                let mut memory = interp::Memory {
                    weights,
                    acts,
                    sums,
                    consts,
                    scratch: [scratch0.bytes_mut(), scratch1.bytes_mut()],
                    out,
                    scales,
                };
                interp::run(&self.program, &mut memory);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::acts::Activations;
    use crate::oracle;
    use crate::trit::TernaryMatrix;
    use crate::variant::plan;

    /// A whole product through a kernel, for one thread and without a runtime.
    pub(crate) fn product(kernel: &Kernel, w: &TernaryMatrix, acts: &Activations) -> Vec<i32> {
        let packed = kernel.panel().pack_all(w);
        let (nr, form) = (kernel.panel().shape.nr, kernel.acts_form());
        let mut scratch = kernel.scratch();
        let mut y = vec![0; acts.m * w.n()];
        for (p, panel) in packed.chunks_exact(kernel.panel().bytes()).enumerate() {
            kernel.load_panel(panel, &mut scratch);
            for (first, mr) in kernel.tiles(acts.m) {
                let mut out = vec![0; kernel.out_len(mr)];
                let mut tile = vec![0; form.tile_bytes(mr, w.k())];
                let sums: Vec<i32> = (0..mr)
                    .map(|t| acts.sums.get(first + t).copied().unwrap_or(0))
                    .collect();
                if form.needs_preparing() {
                    form.prepare(acts, first, mr, &mut tile);
                } else {
                    tile.copy_from_slice(
                        &acts
                            .rows(first, mr)
                            .iter()
                            .map(|&q| q as u8)
                            .collect::<Vec<_>>(),
                    );
                }
                kernel.run(mr, panel, &tile, &sums, &mut scratch, &mut out);
                for t in 0..mr.min(acts.m - first) {
                    for r in 0..nr.min(w.n() - p * nr) {
                        y[(first + t) * w.n() + p * nr + r] =
                            out[kernel.out_order().index(t, r, mr, nr)];
                    }
                }
            }
        }
        y
    }

    #[test]
    fn interpreted_i2s_equals_the_oracle() {
        for k in [1, 15, 16, 17, 240, 241, 300] {
            for n in [1, 7, 8, 9] {
                for m in [1, 2, 3, 5] {
                    let trits: Vec<i8> = (0..n * k)
                        .map(|i| ((i * 7 + i / 3) % 3) as i8 - 1)
                        .collect();
                    let q: Vec<i8> = (0..m * k).map(|i| (i * 37 + 11) as i8).collect();
                    let w = TernaryMatrix::from_trits(n, k, &trits, 1.0).unwrap();
                    for f in [0, 1] {
                        let spec = KernelSpec::new("i2s", "i2s", 2, 8, 16, Isa::Interp)
                            .with("f", f)
                            .with("u", 2);
                        let set =
                            KernelSet::build(vec![plan(&spec, k).unwrap()], Features::detect())
                                .unwrap();
                        let got =
                            product(&set.kernels()[0], &w, &Activations::from_codes(m, k, &q));
                        assert_eq!(got, oracle::matmul(&w, &q), "{spec} m{m} n{n} k{k}");
                    }
                }
            }
        }
    }

    #[test]
    fn memory_is_freed_when_the_last_kernel_goes() {
        let spec = KernelSpec::new("i2s", "i2s", 1, 8, 16, Isa::Interp);
        let set = KernelSet::build(vec![plan(&spec, 64).unwrap()], Features::detect()).unwrap();
        let memory = Arc::downgrade(&set.kernels()[0]._memory);
        let kernel = Arc::clone(&set.kernels()[0]);
        drop(set);
        assert!(memory.upgrade().is_some());
        drop(kernel);
        assert!(memory.upgrade().is_none());
    }
}
