//! Products of coded tables: rows of 4- to 8-bit codes with block scales times 16-bit activations, in exact integers.
//!
//! The head of a language model is such a table. It is no ternary matrix, so its product is no
//! [`crate::variant::Variant`]; it shares programs, proofs, emitters and specs with those, and has its own list of
//! forms, [`FORMS`]:
//!
//! ```text
//! codes, scales ─▶ Packing::pack_row ─────▶ panel ──┐
//! x ─▶ q16 = 256·hi + lo ─▶ Planes::set ─▶ planes ──┼─▶ CodedKernel::run ─▶ i32 records
//!                                          sums  ───┘
//! ```
//! A value of the table is `unit · scale · (code − zero) − low · min`: `unit` (and `low`) is a float of a block,
//! `scale` (and `min`) an int8 of a sub-block, where the form has them. The kernel returns, for each block and row,
//! the sums over `scale · (code − zero) · x` (and over `min · x`); the floats are the caller's business. The
//! activations are two int8 planes, which a kernel takes as two tokens: the weights are read once.
#![doc = include_str!("NOTES.md")]

mod kernel;
pub mod oracle;
mod packing;
mod plan;
mod planes;
mod program;

#[cfg(test)]
mod tests;

pub use kernel::CodedKernel;
pub use packing::Packing;
pub use plan::{CodedPlan, FAMILY, axes, default_spec, plan};
pub use planes::{PLANE_MAX, Planes};

/// How the rows of a table are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// The name in specs, where a packed layout has its own: `b` bits (`n`: of a table of values), `x` columns of a
    /// block without sub-blocks, `s` columns of a sub-block, `m` for minimums.
    pub name: &'static str,
    /// Bits of a code: 4, 5, 6 or 8.
    pub bits: usize,
    /// What the 16 codes of a form with look-up stand for; their `zero` is [`LOOK_UP_ZERO`].
    pub values: Option<[i8; 16]>,
    /// Columns that share a unit; the whole row where absent.
    pub block: Option<usize>,
    /// The sub-blocks of a block.
    pub sub: Option<Sub>,
}

/// Sub-blocks with integer scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sub {
    /// Columns of a sub-block; a block is a multiple of four of them.
    pub cols: usize,
    /// Whether each also has a minimum, that `low` multiplies.
    pub mins: bool,
}

/// The `zero` of forms with a table of values: looked up as bytes, they are moved up by this.
pub const LOOK_UP_ZERO: i32 = 128;

/// What the codes of ggml's non-linear 4-bit types stand for.
const NON_LINEAR: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

const fn form(name: &'static str, bits: usize, block: Option<usize>, sub: Option<Sub>) -> Form {
    Form {
        name,
        bits,
        values: None,
        block,
        sub,
    }
}

const fn sub(cols: usize, mins: bool) -> Option<Sub> {
    Some(Sub { cols, mins })
}

const fn looked_up(form: Form) -> Form {
    Form {
        values: Some(NON_LINEAR),
        ..form
    }
}

/// Every form. Everything else iterates this list.
pub const FORMS: &[Form] = &[
    form("b8", 8, None, None),
    form("b8x32", 8, Some(32), None),
    form("b4x32", 4, Some(32), None),
    form("b5x32", 5, Some(32), None),
    looked_up(form("n4x32", 4, Some(32), None)),
    form("b6s16", 6, Some(256), sub(16, false)),
    form("b4s32m", 4, Some(256), sub(32, true)),
    form("b5s32m", 5, Some(256), sub(32, true)),
    looked_up(form("n4s32", 4, Some(256), sub(32, false))),
];

/// The form called `name`.
pub fn by_name(name: &str) -> Option<&'static Form> {
    FORMS.iter().find(|f| f.name == name)
}

/// Columns that rows without blocks are padded to a multiple of.
const ROW_QUANTUM: usize = 16;

impl Form {
    /// Columns and words (of four bytes for each row) of a step, the least that codes are packed by.
    pub(crate) const fn step(&self) -> (usize, usize) {
        match self.bits {
            8 => (4, 1),
            6 => (16, 3),
            5 => (32, 5),
            4 => (8, 1),
            _ => panic!("forms have 4, 5, 6 or 8 bits"),
        }
    }

    /// Columns of a row of `k` after padding: whole blocks.
    pub fn k_padded(&self, k: usize) -> usize {
        k.next_multiple_of(self.block.unwrap_or(ROW_QUANTUM))
    }

    /// Columns that share a unit in rows of `k`.
    pub fn block_cols(&self, k: usize) -> usize {
        self.block.unwrap_or(self.k_padded(k))
    }

    /// Blocks of a row of `k`.
    pub fn blocks(&self, k: usize) -> usize {
        self.k_padded(k) / self.block_cols(k)
    }

    /// Columns that share a sum of activations in rows of `k`: a sub-block, or a block without any.
    pub fn sum_cols(&self, k: usize) -> usize {
        self.sub.map_or(self.block_cols(k), |s| s.cols)
    }

    /// Columns between which words of scales stand: four sub-blocks, or a block without any.
    fn group_cols(&self, k: usize) -> usize {
        match self.sub {
            Some(s) => 4 * s.cols,
            None => self.block_cols(k),
        }
    }

    /// Whether sub-blocks have minimums.
    pub fn has_mins(&self) -> bool {
        self.sub.is_some_and(|s| s.mins)
    }

    /// The largest code, or looked-up value, as an unsigned byte.
    pub(crate) fn max_code(&self) -> i64 {
        match self.values {
            Some(_) => 255,
            None => (1 << self.bits) - 1,
        }
    }

    /// The largest `zero` that codes may have.
    pub(crate) fn max_zero(&self) -> i64 {
        (self.max_code() + 1) / 2
    }

    /// Whether the sums of both planes come as one, `256·hi + lo`: where that surely fits an i32.
    pub fn is_joined(&self, k: usize) -> bool {
        let product = 128 * (self.max_code() + self.max_zero());
        let most = self.block_cols(k) as i64 * product;
        self.sub.is_none() && most * 257 <= i32::MAX as i64
    }

    /// Rows of NR i32 that a kernel writes for each block and `tokens` tokens: the sums of each plane (high first;
    /// one joined sum where [`Self::is_joined`]) token by token, then for each token the sum of minimums, if any.
    pub fn record_rows(&self, k: usize, tokens: usize) -> usize {
        let sums = if self.is_joined(k) { 1 } else { 2 };
        tokens * (sums + usize::from(self.has_mins()))
    }
}
