//! [`FloatRows`]: a projection that is kept in float, multiplied as the head is.
//!
//! Each output is one dot product of the decoded row in the fixed order of [`crate::lanes`], whatever the type, the
//! threads and the number of rows of the input.

use super::head::{CHUNK_BYTES, ROWS, TOKENS, logits_of};
use crate::format::FloatTensor;
use crate::format::float::FloatType;
use crate::memory::HugeBytes;
use crate::pool::{Columns, Pool};

/// A float matrix `[n, k]`.
pub struct FloatRows {
    dtype: FloatType,
    n: usize,
    k: usize,
    bytes: HugeBytes,
}

impl FloatRows {
    /// A copy of `source`.
    pub fn new(source: &FloatTensor<'_>) -> Self {
        let mut bytes = HugeBytes::zeroed(source.bytes.len());
        bytes.copy_from_slice(source.bytes);
        Self {
            dtype: source.dtype,
            n: source.rows,
            k: source.cols,
            bytes,
        }
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes that a product reads.
    pub fn table_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// `y[t][first + n] = Σ_k w[n][k] · x[t][k]` for every row of `x`.
    ///
    /// # Shapes
    /// `x`: `[m, k]`; `y`: `[m, stride]`, of which the columns `first..first + n` are written.
    pub fn forward(&self, pool: &Pool, x: &[f32], y: &mut [f32], stride: usize, first: usize) {
        let m = x.len() / self.k;
        assert_eq!(x.len(), m * self.k, "whole rows of {}", self.k);
        let row_bytes = self.dtype.row_bytes(self.k);
        let chunk = (CHUNK_BYTES / row_bytes)
            .clamp(1, 4096)
            .next_multiple_of(ROWS);
        let out = Columns::new(y, m, stride, first, self.n, chunk);
        pool.each(out, |_, _, mut columns| {
            for from in (0..columns.width()).step_by(ROWS) {
                let rows = ROWS.min(columns.width() - from);
                let run = &self.bytes[(columns.first() + from) * row_bytes..][..rows * row_bytes];
                for t0 in (0..m).step_by(TOKENS) {
                    let tokens = TOKENS.min(m - t0);
                    let mut out = [0f32; ROWS * TOKENS];
                    let x = &x[t0 * self.k..][..tokens * self.k];
                    logits_of(self.dtype, run, self.k, x, &mut out);
                    for t in 0..tokens {
                        let slot = &mut columns.row(t0 + t)[from..][..rows];
                        for (r, slot) in slot.iter_mut().enumerate() {
                            *slot = out[r * TOKENS + t];
                        }
                    }
                }
            }
        });
    }
}
