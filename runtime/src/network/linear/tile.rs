//! The results of one tile on their way to the outputs: as kernels order them, then token by token.

use super::grow;
use crate::lanes;
use crate::pool::ColumnBlock;
use bitnet_codegen::variant::OutOrder;
use std::ops::Range;

/// Sums of a tile, on their way to the outputs.
pub(super) struct TileSums<'v> {
    /// Tokens, of the product's.
    pub tokens: Range<usize>,
    /// Rows of the weights: as many sums a token as count.
    pub rows: Range<usize>,
    /// Where the first of the rows lies in the block of columns.
    pub column: usize,
    /// `[tokens, stride]`, and what the tile holds beyond.
    pub sums: &'v [i32],
    /// Sums from one token to the next.
    pub stride: usize,
}

impl TileSums<'_> {
    /// Calls `f` with the sums of each token and with where they go.
    pub fn each<T>(&self, y: &mut ColumnBlock<'_, T>, f: impl Fn(&[i32], &mut [T])) {
        let n = self.rows.len();
        for (t, sums) in self.tokens.clone().zip(self.sums.chunks_exact(self.stride)) {
            f(&sums[..n], &mut y.row(t)[self.column..][..n]);
        }
    }
}

/// A result tile as two token-major parts with the rows of each: what had to be turned, and what lies so already.
pub(super) fn by_token<'o>(
    order: OutOrder,
    (nr, mr): (usize, usize),
    out: &'o [i32],
    turned: &'o mut Vec<i32>,
) -> [(Range<usize>, &'o [i32]); 2] {
    let split = match order {
        OutOrder::TokenMajor => 0,
        OutOrder::RowMajor => nr,
        OutOrder::Split { rows } => rows,
    };
    let (by_row, rest) = out.split_at(split * mr);
    grow(turned, by_row.len());
    let turned = &mut turned[..by_row.len()];
    lanes::transpose(by_row, split, mr, turned);
    [(0..split, turned), (split..nr, rest)]
}
