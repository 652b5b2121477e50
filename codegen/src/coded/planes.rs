//! Activations of a coded product: 16-bit codes as two planes of int8, and the sums that offsets need.

use super::{Form, Packing};
use crate::acts::row_bytes;

/// The largest magnitude of a 16-bit code: its planes are then at most 127.
pub const PLANE_MAX: i32 = 127 * 256;

/// A tile of tokens as a kernel reads it.
#[derive(Clone, Debug)]
pub struct Planes {
    form: &'static Form,
    k: usize,
    zero: i32,
    codes: Vec<u8>,
    sums: Vec<i32>,
}

impl Planes {
    /// Room for `tokens` tokens of `k` features; `zero` is the code that stands for 0.
    ///
    /// # Panics
    /// When the form's codes cannot have such a zero.
    pub fn new(form: &'static Form, k: usize, tokens: usize, zero: i32) -> Self {
        assert!(
            (0..=form.max_zero()).contains(&i64::from(zero)),
            "zero {zero} of {}",
            form.name
        );
        let n_sums = form.k_padded(k) / form.sum_cols(k);
        let per_token = 2 + usize::from(form.has_mins());
        Self {
            form,
            k,
            zero,
            codes: vec![0; 2 * tokens * row_bytes(k)],
            sums: vec![0; n_sums * per_token * tokens],
        }
    }

    /// Tokens of the tile.
    pub fn tokens(&self) -> usize {
        self.codes.len() / (2 * row_bytes(self.k))
    }

    /// Whether a kernel for `packing` reads these.
    pub(super) fn fits(&self, packing: Packing) -> bool {
        self.form == packing.form && self.k == packing.k
    }

    /// Sets token `token` to the 16-bit codes `q`.
    ///
    /// # Panics
    /// When `q` is not K long. A code beyond [`PLANE_MAX`] is a bug of the caller's; it is cut to that.
    pub fn set(&mut self, token: usize, q: &[i16]) {
        assert_eq!(q.len(), self.k, "features of a token");
        let (stride, tokens) = (row_bytes(self.k), self.tokens());
        let (high, low) = self.codes[2 * token * stride..][..2 * stride].split_at_mut(stride);
        for ((high, low), &q) in high.iter_mut().zip(&mut *low).zip(q) {
            let q = i32::from(q).clamp(-PLANE_MAX, PLANE_MAX);
            *low = q as u8;
            *high = ((q - i32::from(*low as i8)) >> 8) as u8;
        }
        let cols = self.form.sum_cols(self.k);
        let n_sums = self.form.k_padded(self.k) / cols;
        let sum = |row: &[u8], s: usize| -> i32 {
            let end = ((s + 1) * cols).min(row.len());
            row[s * cols..end].iter().map(|&q| i32::from(q as i8)).sum()
        };
        let (offsets, mins) = self.sums.split_at_mut(n_sums * 2 * tokens);
        let (high, low) = (&*high, &*low);
        for s in 0..n_sums {
            let (high, low) = (sum(high, s), sum(low, s));
            let at = 2 * (s * tokens + token);
            offsets[at] = -self.zero * high;
            offsets[at + 1] = -self.zero * low;
            if let Some(both) = mins.get_mut(s * tokens + token) {
                *both = 256 * high + low;
            }
        }
    }

    /// The planes, `[2·tokens, stride]`, high before low: int8 as bytes.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// `−zero · Σx` of each plane over each sub-block, `[sums, 2·tokens]`; where there are minimums, followed by
    /// the sums of the 16-bit codes, `[sums, tokens]`.
    pub fn sums(&self) -> &[i32] {
        &self.sums
    }
}
