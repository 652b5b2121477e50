#![expect(unsafe_code, reason = "makes the one call into emitted code")]
//! [`Kernel`]: one spec for one K, ready to run, and the one checked call into its code.
//!
//! The call is sound because of three checked facts: the program was proven to stay inside its extents
//! ([`Checked`]), the CPU has the instructions ([`Isa::runs_on`]), and the slices handed in are at least as long as
//! the extents (asserted at the call). Calling needs no compiler: `build` alone knows the emitters, and an interpreted
//! program is run by the function that `build` hands in. That code is what was made of the program is known of what
//! was just emitted, and vouched for of a [`Library`].

mod build;
pub mod library;
pub mod memory;

pub use crate::aligned::AlignedBytes;
pub use build::{KernelError, KernelSet};
pub use library::Library;
pub use memory::MemoryError;

use crate::abi::{Args, EntryFn, Interpreter, Operands, OutOrder};
use crate::acts::ActsForm;
use crate::isa::Isa;
use crate::layout::Panel;
use crate::program::{Checked, Operand};
use crate::spec::KernelSpec;
use crate::variant::groups::Groups;
use memory::Executable;
use std::sync::Arc;

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
}

/// One program with its constants and its code.
struct Stage {
    program: Checked,
    consts: AlignedBytes,
    entry: Entry,
}

/// What runs a program.
enum Entry {
    Emitted(Emitted),
    Interpreted(Interpreter),
    /// Code that is not to be called.
    Ahead(Vec<u8>),
}

/// Where the code of a kernel comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CodeFrom {
    /// Compiled before, in a [`Library`].
    Library,
    /// Emitted by this process.
    Emitter,
    /// There is none: the program is interpreted.
    Interpreter,
}

impl CodeFrom {
    /// The name in reports; a library is a file that is called a pack.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Library => "pack",
            Self::Emitter => "emitted",
            Self::Interpreter => "interpreted",
        }
    }
}

/// The code of one program, to be written down.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'k> {
    /// What it was made of.
    pub program: &'k Checked,
    /// The instruction set.
    pub isa: Isa,
    /// Code without relocations, entry at the first byte.
    pub code: &'k [u8],
}

/// A function in executable memory that lives as long as this.
struct Emitted {
    entry: EntryFn,
    prefetch: [*const u8; 4],
    function: usize,
    from: CodeFrom,
    memory: Arc<Executable>,
}

// SAFETY: executable memory is never written again, and `memory` outlives the pointers into it.
unsafe impl Send for Emitted {}
// SAFETY: as above; a call takes all mutable state by argument.
unsafe impl Sync for Emitted {}

/// Working memory of one thread for one kernel.
#[derive(Debug, Default)]
pub struct Scratch {
    unpacked: AlignedBytes,
    buffers: [AlignedBytes; 2],
}

impl Emitted {
    /// Function `main` of `memory`, whose first functions are the prefetch stubs.
    ///
    /// # Safety
    /// The function was emitted from the very program of its [`Stage`] in the convention of [`crate::abi`], for
    /// an instruction set that this CPU runs, and the first four functions are stubs for this CPU.
    unsafe fn new(memory: Arc<Executable>, function: usize, from: CodeFrom) -> Self {
        let code = memory.code(function).as_ptr();
        // SAFETY: the start of a function of this convention, says the caller.
        let entry = unsafe { std::mem::transmute::<*const u8, EntryFn>(code) };
        Self {
            entry,
            prefetch: std::array::from_fn(|i| memory.code(i).as_ptr()),
            function,
            from,
            memory,
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

    /// Bytes of machine code; 0 where the kernel is interpreted.
    pub fn code_bytes(&self) -> usize {
        self.stages().map(Stage::code_bytes).sum()
    }

    /// Where the code comes from.
    pub fn code_from(&self) -> CodeFrom {
        self.main
            .first()
            .map_or(CodeFrom::Interpreter, |(_, s)| s.code_from())
    }

    /// Whether it can be called: it was not made for another machine.
    pub fn is_callable(&self) -> bool {
        !self.stages().any(|s| matches!(s.entry, Entry::Ahead(_)))
    }

    /// The code of every program, that which loads a panel first; none where the kernel is interpreted.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        self.stages().filter_map(|s| s.piece(self.spec.isa))
    }

    /// A digest of the machine code: kernels of one spec and K with another digest were emitted by another build.
    pub fn code_digest(&self) -> u64 {
        let digests = self.stages().map(|s| s.code().map_or(0, digest));
        let bytes: Vec<u8> = digests.flat_map(u64::to_le_bytes).collect();
        digest(&bytes)
    }

    fn stages(&self) -> impl Iterator<Item = &Stage> {
        self.unpack.iter().chain(self.main.iter().map(|(_, s)| s))
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
        let most = |o| self.stages().map(|s| s.program.reach(o)).max().unwrap_or(0);
        let unpacked = self.unpack.as_ref();
        Scratch {
            unpacked: AlignedBytes::zeroed(unpacked.map_or(0, |s| s.program.bytes(Operand::Out))),
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
            let [scratch0, scratch1] = buffers;
            stage.call(&mut Operands {
                weights: panel,
                acts: &[],
                sums: &[],
                consts: stage.consts.bytes(),
                scratch: [scratch0.bytes_mut(), scratch1.bytes_mut()],
                out: unpacked.bytes_mut(),
                scales: &[],
            });
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
        let sums = (bytes_of(sums), bytes_of(scales));
        self.call(mr, panel, acts, sums, scratch, bytes_of_mut(out));
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
        let stage = self.main.iter().find(|(s, _)| *s == mr);
        let (_, stage) = stage.expect("a tile size of this kernel");
        assert!(
            out.len() >= 4 * self.out_len(mr),
            "{} bytes of results for {}",
            out.len(),
            self.spec
        );
        let Scratch { unpacked, buffers } = scratch;
        let [scratch0, scratch1] = buffers;
        let unpacked = self.unpack.as_ref().map(|_| unpacked.bytes());
        stage.call(&mut Operands {
            weights: unpacked.unwrap_or(panel),
            acts,
            sums,
            consts: stage.consts.bytes(),
            scratch: [scratch0.bytes_mut(), scratch1.bytes_mut()],
            out,
            scales,
        });
    }
}

/// Programs as callable code, for products that are no [`Plan`](crate::Plan).
pub(crate) struct Stages {
    stages: Vec<Stage>,
}

impl Stages {
    /// Runs program `i`, which uses no scratch.
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
        let stage = &self.stages[i];
        stage.call(&mut Operands {
            weights,
            acts,
            sums: bytes_of(sums),
            consts: stage.consts.bytes(),
            scratch: [&mut [], &mut []],
            out: bytes_of_mut(out),
            scales: &[],
        });
    }

    /// Bytes of machine code.
    pub(crate) fn code_bytes(&self) -> usize {
        self.stages.iter().map(Stage::code_bytes).sum()
    }

    /// As [`Kernel::code_from`].
    pub(crate) fn code_from(&self) -> CodeFrom {
        self.stages
            .first()
            .map_or(CodeFrom::Interpreter, Stage::code_from)
    }

    /// As [`Kernel::is_callable`].
    pub(crate) fn are_callable(&self) -> bool {
        !self
            .stages
            .iter()
            .any(|s| matches!(s.entry, Entry::Ahead(_)))
    }

    /// The code of every program for `isa`.
    pub(crate) fn pieces(&self, isa: Isa) -> impl Iterator<Item = Piece<'_>> {
        self.stages.iter().filter_map(move |s| s.piece(isa))
    }
}

/// 64-bit FNV-1a: tells code from other code, not from forgeries.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |h, &b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3)
    })
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
    fn new(program: Checked, entry: Entry) -> Self {
        Self {
            consts: AlignedBytes::of(&program.consts),
            program,
            entry,
        }
    }

    /// The machine code, if there is any.
    fn code(&self) -> Option<&[u8]> {
        match &self.entry {
            Entry::Emitted(code) => Some(code.memory.code(code.function)),
            Entry::Ahead(code) => Some(code),
            Entry::Interpreted(_) => None,
        }
    }

    fn code_bytes(&self) -> usize {
        self.code().map_or(0, <[u8]>::len)
    }

    fn code_from(&self) -> CodeFrom {
        match &self.entry {
            Entry::Emitted(code) => code.from,
            Entry::Ahead(_) => CodeFrom::Emitter,
            Entry::Interpreted(_) => CodeFrom::Interpreter,
        }
    }

    fn piece(&self, isa: Isa) -> Option<Piece<'_>> {
        let program = &self.program;
        self.code().map(|code| Piece { program, isa, code })
    }

    fn call(&self, operands: &mut Operands<'_>) {
        for operand in Operand::ALL {
            let (have, need) = (operands.bytes(operand).len(), self.program.reach(operand));
            assert!(
                have >= need,
                "{}: {operand:?} has {have} bytes, needs {need}",
                self.program.name
            );
        }
        match &self.entry {
            Entry::Interpreted(run) => run(&self.program, operands),
            Entry::Ahead(_) => panic!("{} was compiled for another machine", self.program.name),
            Entry::Emitted(code) => {
                let args = Args {
                    operands: operands.pointers(),
                    prefetch: code.prefetch,
                };
                // SAFETY: the code was made of this program for this CPU (`Emitted::new`). The program is
                // `Checked`, so it reads and writes only inside its extents and writes only writable operands;
                // each slice is at least as long as its extent (asserted above), the writable ones are borrowed
                // exclusively.
                unsafe { (code.entry)(&args) }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
