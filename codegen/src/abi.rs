//! The convention between a kernel and its code: the arguments, the entry, the prefetch stubs that code may
//! call, and the order in which results are stored. Who emits code and who calls it meet here and nowhere else.
//!
//! One argument is passed: a pointer to [`Args`] (System V on x86-64, the C convention elsewhere). Nothing is
//! returned; every operand pointer may be unaligned; wide x86 code ends with `vzeroupper`.

use crate::isa::Arch;
use crate::program::{Operand, Program};

/// The name of this convention: code with another name is never called. It changes with [`Args`], with the order of
/// operands, and with what stubs may touch.
pub const ABI: &str = "bitnet-kernel-1";

/// The argument of emitted code, passed by pointer.
#[repr(C)]
#[derive(Debug)]
pub struct Args {
    /// Operand pointers in [`Operand::ALL`] order.
    pub operands: [*mut u8; Operand::COUNT],
    /// Prefetch stubs for 1, 2, 4 and 8 consecutive cache lines; see [`PREFETCH_LINES`].
    pub prefetch: [*const u8; 4],
}

const _: () = assert!(
    std::mem::offset_of!(Args, operands) == 0
        && std::mem::offset_of!(Args, prefetch) == 8 * Operand::COUNT
);

/// The convention of emitted code: System V on x86-64 whatever the system, the C convention elsewhere.
#[cfg(target_arch = "x86_64")]
pub type EntryFn = unsafe extern "sysv64" fn(*const Args);
/// The convention of emitted code: System V on x86-64 whatever the system, the C convention elsewhere.
#[cfg(not(target_arch = "x86_64"))]
pub type EntryFn = unsafe extern "C" fn(*const Args);

/// What runs a program that has no code: an interpreter, handed in by whoever builds the kernel.
pub type Interpreter = fn(&Program, &mut Operands<'_>);

/// How many lines each stub of [`Args::prefetch`] touches. A stub takes the first line's address as its
/// only argument, returns nothing and preserves every register but the argument (Cranelift's `preserve_all`).
pub const PREFETCH_LINES: [usize; 4] = [1, 2, 4, 8];

/// Code for `arch` that prefetches `lines` cache lines from the address in the first argument on, and
/// touches nothing else.
pub fn prefetch_stub(arch: Arch, lines: usize) -> Vec<u8> {
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

/// The operands of one call, as bytes; empty where unused.
#[derive(Debug)]
pub struct Operands<'a> {
    /// One panel of packed weights.
    pub weights: &'a [u8],
    /// One tile of prepared activations.
    pub acts: &'a [u8],
    /// Sums of activations, i32.
    pub sums: &'a [u8],
    /// The program's constants.
    pub consts: &'a [u8],
    /// Working memory.
    pub scratch: [&'a mut [u8]; 2],
    /// The result, i32 or f32.
    pub out: &'a mut [u8],
    /// Scales of tokens and groups of columns, f32.
    pub scales: &'a [u8],
}

impl Operands<'_> {
    /// The bytes of `operand`.
    pub fn bytes(&self, operand: Operand) -> &[u8] {
        match operand {
            Operand::Weights => self.weights,
            Operand::Acts => self.acts,
            Operand::Sums => self.sums,
            Operand::Consts => self.consts,
            Operand::Scratch0 => self.scratch[0],
            Operand::Scratch1 => self.scratch[1],
            Operand::Out => self.out,
            Operand::Scales => self.scales,
        }
    }

    /// The bytes of `operand`, writable.
    ///
    /// # Panics
    /// When it is read only.
    pub fn bytes_mut(&mut self, operand: Operand) -> &mut [u8] {
        match operand {
            Operand::Scratch0 => self.scratch[0],
            Operand::Scratch1 => self.scratch[1],
            Operand::Out => self.out,
            other => panic!("store to read-only {other:?}"),
        }
    }

    /// What emitted code is handed: a pointer to each operand.
    pub fn pointers(&mut self) -> [*mut u8; Operand::COUNT] {
        let [scratch0, scratch1] = &mut self.scratch;
        [
            self.weights.as_ptr().cast_mut(),
            self.acts.as_ptr().cast_mut(),
            self.sums.as_ptr().cast_mut(),
            self.consts.as_ptr().cast_mut(),
            scratch0.as_mut_ptr(),
            scratch1.as_mut_ptr(),
            self.out.as_mut_ptr(),
            self.scales.as_ptr().cast_mut(),
        ]
    }
}

/// How a result tile is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutOrder {
    /// `[mr, nr]`.
    TokenMajor,
    /// `[nr, mr]`.
    RowMajor,
    /// The first `rows` rows as [`Self::RowMajor`], then the others as [`Self::TokenMajor`].
    Split {
        /// Rows of the first part.
        rows: usize,
    },
}

impl OutOrder {
    /// Position of (`token`, `row`) in a tile of `mr` tokens and `nr` rows.
    pub fn index(self, token: usize, row: usize, mr: usize, nr: usize) -> usize {
        match self {
            OutOrder::TokenMajor => token * nr + row,
            OutOrder::RowMajor => row * mr + token,
            OutOrder::Split { rows } if row < rows => row * mr + token,
            OutOrder::Split { rows } => rows * mr + token * (nr - rows) + (row - rows),
        }
    }
}
