//! Trits and their quantisers: weights in {−1, 0, +1} as 2-bit codes, activations as int8.
//!
//! [`TernaryMatrix`] is the neutral form between every file format and every packed layout:
//! nothing but a loader knows file dialects, nothing but a layout knows panels.
//! Arithmetic follows BitNet b1.58 (arXiv 2402.17764) in the order that the reference fixes,
//! so that equal inputs give equal bits.

use thiserror::Error;

/// The 2-bit code of the trit 0; `code = trit + 1`, so codes are 0, 1 and 2, never 3.
pub const CODE_ZERO: u8 = 1;

/// Rows of codes are padded to this many bytes (256 codes) with [`CODE_ZERO`].
pub const ROW_ALIGN_BYTES: usize = 64;

/// What the integer accumulators of a matrix are multiplied by.
#[derive(Clone, Debug, PartialEq)]
pub enum Scales {
    /// One multiplier for the whole tensor (BitNet b1.58).
    Tensor(f32),
    /// One multiplier for each of the N rows (IQ1_BN, IQ2_BN).
    Row(Vec<f32>),
    /// One multiplier for each run of `group_k` columns of each row,
    /// row-major `[n, k.div_ceil(group_k)]` (mainline Q2_0).
    Group {
        /// Columns that share a multiplier.
        group_k: usize,
        /// `n · k.div_ceil(group_k)` multipliers.
        scales: Vec<f32>,
    },
}

impl Scales {
    /// Multiplies every scale by `factor` (a separate `.scale` tensor in the file).
    pub fn scale_by(&mut self, factor: f32) {
        match self {
            Scales::Tensor(s) => *s *= factor,
            Scales::Row(v) | Scales::Group { scales: v, .. } => {
                v.iter_mut().for_each(|s| *s *= factor);
            }
        }
    }

    /// Every scale.
    pub fn all(&self) -> &[f32] {
        match self {
            Scales::Tensor(s) => std::slice::from_ref(s),
            Scales::Row(v) | Scales::Group { scales: v, .. } => v,
        }
    }
}

/// The four codes of a byte, one a byte, as arithmetic that vectorises: loading goes through it for every weight.
fn spread(byte: u8) -> [u8; 4] {
    let x = u32::from(byte);
    let x = (x | x << 12) & 0x000f_000f;
    ((x | x << 6) & 0x0303_0303).to_le_bytes()
}

/// Why a ternary matrix cannot be built.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum TritError {
    /// A 2-bit code was 3; the file is not ternary, or was read with the wrong layout.
    #[error("code 3 at row {row}, column {col}: expected 2-bit codes 0, 1, 2 (weights -1, 0, +1)")]
    CodeThree {
        /// Row of the code.
        row: usize,
        /// Column of the code.
        col: usize,
    },
    /// A scale was NaN, infinite, negative, or zero while the weights are not all zero.
    #[error("weight scale {index} is {value}: expected a finite number above zero")]
    Scale {
        /// Position in the list of scales.
        index: usize,
        /// The offending value.
        value: f32,
    },
    /// The number of scales does not match the shape.
    #[error("{got} weight scales for a {n}x{k} matrix: expected {expected}")]
    ScaleCount {
        /// Rows.
        n: usize,
        /// Columns.
        k: usize,
        /// How many were expected.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// The values are not `{−a, 0, a}` with one `a`.
    #[error("the weights have more than one magnitude: expected -a, 0 and a with one a")]
    Magnitudes,
    /// N or K is zero, or K is beyond what an `i32` accumulator carries.
    #[error(
        "a {n}x{k} ternary matrix is not supported: N and K must be above 0, K at most {max_k}"
    )]
    Shape {
        /// Rows.
        n: usize,
        /// Columns.
        k: usize,
        /// The largest K.
        max_k: usize,
    },
}

/// An N×K ternary matrix in the neutral form: four codes a byte, low bits first, rows padded to 64 bytes.
///
/// ```text
/// byte b of a row:  bits 7..6   5..4    3..2    1..0
///                   k=4b+3      4b+2    4b+1    4b
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TernaryMatrix {
    n: usize,
    k: usize,
    row_bytes: usize,
    codes: Vec<u8>,
    scales: Scales,
}

impl TernaryMatrix {
    /// Builds a matrix row by row: `fill(row, codes)` writes the K codes (0, 1, 2), one a byte, of each row.
    ///
    /// # Errors
    /// [`TritError`] when the shape, a code or a scale is not one of a ternary matrix.
    pub fn from_rows<E: From<TritError>>(
        n: usize,
        k: usize,
        scales: Scales,
        mut fill: impl FnMut(usize, &mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut this = Self::zeros(n, k, scales)?;
        let mut row = vec![CODE_ZERO; this.row_bytes * 4];
        for r in 0..n {
            fill(r, &mut row[..k])?;
            if let Some(col) = row[..k].iter().position(|&c| c > 2) {
                return Err(TritError::CodeThree { row: r, col }.into());
            }
            let packed = &mut this.codes[r * this.row_bytes..][..this.row_bytes];
            for (b, c) in packed.iter_mut().zip(row.chunks_exact(4)) {
                *b = c[0] | c[1] << 2 | c[2] << 4 | c[3] << 6;
            }
        }
        this.check_scales()?;
        Ok(this)
    }

    /// Builds a matrix row by row from packed codes: `fill(row, bytes)` writes `k.div_ceil(4)` bytes,
    /// four codes each, low bits first. Surplus codes of the last byte are ignored.
    ///
    /// # Errors
    /// As [`Self::from_rows`].
    pub fn from_packed_rows(
        n: usize,
        k: usize,
        scales: Scales,
        mut fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<Self, TritError> {
        let mut this = Self::zeros(n, k, scales)?;
        let used = k.div_ceil(4);
        let mut bad_row = None;
        for r in 0..n {
            let row = &mut this.codes[r * this.row_bytes..][..used];
            fill(r, row);
            if !k.is_multiple_of(4) {
                let bits = 2 * (k % 4) as u32;
                row[used - 1] = row[used - 1] & ((1 << bits) - 1) | 0b01_01_01_01 << bits;
            }
            if row.iter().any(|&b| b & (b >> 1) & 0b01_01_01_01 != 0) {
                bad_row = Some(r);
                break;
            }
        }
        if let Some(row) = bad_row {
            let mut codes = vec![0; k];
            this.unpack_row(row, &mut codes);
            let col = codes
                .iter()
                .position(|&c| c == 3)
                .unwrap_or_else(|| panic!("row {row} has a code 3"));
            return Err(TritError::CodeThree { row, col });
        }
        this.check_scales()?;
        Ok(this)
    }

    /// Builds a matrix from trits in row-major order, with one scale for all.
    ///
    /// # Errors
    /// As [`Self::from_rows`].
    pub fn from_trits(n: usize, k: usize, trits: &[i8], scale: f32) -> Result<Self, TritError> {
        assert_eq!(trits.len(), n * k, "trits of a {n}x{k} matrix");
        Self::from_rows(n, k, Scales::Tensor(scale), |r, row| {
            for (c, &t) in row.iter_mut().zip(&trits[r * k..]) {
                *c = (t + 1) as u8;
            }
            Ok(())
        })
    }

    fn zeros(n: usize, k: usize, scales: Scales) -> Result<Self, TritError> {
        let max_k = crate::problem::MAX_K;
        if n == 0 || k == 0 || k > max_k {
            return Err(TritError::Shape { n, k, max_k });
        }
        let expected = match &scales {
            Scales::Tensor(_) => 1,
            Scales::Row(_) => n,
            Scales::Group { group_k, .. } => n * k.div_ceil((*group_k).max(1)),
        };
        let got = scales.all().len();
        if got != expected {
            return Err(TritError::ScaleCount {
                n,
                k,
                expected,
                got,
            });
        }
        let row_bytes = k.div_ceil(4).next_multiple_of(ROW_ALIGN_BYTES);
        let codes = vec![0b01_01_01_01; n * row_bytes];
        Ok(Self {
            n,
            k,
            row_bytes,
            codes,
            scales,
        })
    }

    fn check_scales(&self) -> Result<(), TritError> {
        for (index, &value) in self.scales.all().iter().enumerate() {
            let ok = value.is_finite() && value >= 0.0;
            // Zero is legal only where nothing is scaled: an all-zero tensor (or row, or group)
            // quantised by absmean or absmax.
            if !ok || (value == 0.0 && !self.is_zero_under(index)) {
                return Err(TritError::Scale { index, value });
            }
        }
        Ok(())
    }

    fn is_zero_under(&self, index: usize) -> bool {
        let mut row = vec![0u8; self.k];
        let (rows, cols) = match &self.scales {
            Scales::Tensor(_) => (0..self.n, 0..self.k),
            Scales::Row(_) => (index..index + 1, 0..self.k),
            Scales::Group { group_k, .. } => {
                let groups = self.k.div_ceil(*group_k);
                let (r, g) = (index / groups, index % groups);
                (r..r + 1, g * group_k..((g + 1) * group_k).min(self.k))
            }
        };
        rows.into_iter().all(|r| {
            self.unpack_row(r, &mut row);
            row[cols.clone()].iter().all(|&c| c == CODE_ZERO)
        })
    }

    /// Rows: output features.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns: input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The multipliers of the accumulators.
    pub fn scales(&self) -> &Scales {
        &self.scales
    }

    /// The multiplier of row `r` for the `group_k` columns from `col` on.
    ///
    /// # Panics
    /// When the matrix has groups that these columns are no part of.
    pub fn scale_at(&self, r: usize, col: usize, group_k: usize) -> f32 {
        match &self.scales {
            Scales::Tensor(s) => *s,
            Scales::Row(rows) => rows[r],
            Scales::Group {
                group_k: own,
                scales,
            } => {
                assert!(
                    own.is_multiple_of(group_k) && col.is_multiple_of(group_k),
                    "columns {col} to {} in groups of {own}",
                    col + group_k
                );
                scales[r * self.k.div_ceil(*own) + col / own]
            }
        }
    }

    /// The multipliers, to fold another factor in.
    pub fn scales_mut(&mut self) -> &mut Scales {
        &mut self.scales
    }

    /// The packed codes of row `r`, padded with [`CODE_ZERO`] to a multiple of 64 bytes.
    pub fn row(&self, r: usize) -> &[u8] {
        &self.codes[r * self.row_bytes..][..self.row_bytes]
    }

    /// The trit at (`r`, `c`).
    pub fn trit(&self, r: usize, c: usize) -> i8 {
        assert!(c < self.k, "column {c} of {}", self.k);
        ((self.row(r)[c / 4] >> (2 * (c % 4))) & 3) as i8 - 1
    }

    /// Writes the codes of row `r`, one a byte; `out` may be longer than K and is then
    /// filled with [`CODE_ZERO`].
    pub fn unpack_row(&self, r: usize, out: &mut [u8]) {
        let whole = self.row_bytes.min(out.len() / 4);
        let (packed, rest) = self.row(r).split_at(whole);
        let (codes, tail) = out.split_at_mut(4 * whole);
        for (four, &b) in codes.as_chunks_mut::<4>().0.iter_mut().zip(packed) {
            *four = spread(b);
        }
        match rest.first() {
            Some(&b) => tail.copy_from_slice(&spread(b)[..tail.len()]),
            None => tail.fill(CODE_ZERO),
        }
    }

    /// The same matrix with its rows in another order: row `i` of the result is row `order[i]`.
    pub fn permute_rows(&self, order: &[usize]) -> Self {
        assert_eq!(order.len(), self.n, "a permutation of {} rows", self.n);
        let mut out = self.clone();
        for (i, &r) in order.iter().enumerate() {
            out.codes[i * self.row_bytes..][..self.row_bytes].copy_from_slice(self.row(r));
        }
        match (&self.scales, &mut out.scales) {
            (Scales::Row(a), Scales::Row(b)) => {
                for (i, &r) in order.iter().enumerate() {
                    b[i] = a[r];
                }
            }
            (Scales::Group { scales: a, .. }, Scales::Group { scales: b, .. }) => {
                let groups = a.len() / self.n;
                for (i, &r) in order.iter().enumerate() {
                    b[i * groups..][..groups].copy_from_slice(&a[r * groups..][..groups]);
                }
            }
            _ => {}
        }
        out
    }

    /// The columns `cols` as a matrix of their own, with one group's scales as row scales where
    /// the groups match; used to run a group-scaled matrix as one product for each group.
    pub fn columns(&self, cols: std::ops::Range<usize>, scales: Scales) -> Result<Self, TritError> {
        let mut full = vec![0u8; self.k];
        Self::from_rows(self.n, cols.len(), scales, |r, row| {
            self.unpack_row(r, &mut full);
            row.copy_from_slice(&full[cols.clone()]);
            Ok(())
        })
    }
}

/// Quantises an f32 weight matrix by absmean: `m = max(mean|w|, 1e-5)`, `t = clamp(rhe(w/m), ±1)`.
///
/// The mean is summed in f64 over the whole matrix; the multiplier is `f32(1 / f32(1/m))`.
/// Source: arXiv 2402.17764 §2; the stored multiplier as in Hugging Face's online quantiser.
///
/// # Errors
/// A weight that is not finite makes the scale not finite: [`TritError::Scale`].
pub fn absmean(n: usize, k: usize, weights: &[f32]) -> Result<TernaryMatrix, TritError> {
    assert_eq!(weights.len(), n * k, "weights of a {n}x{k} matrix");
    let rule = Absmean::from_abs_sum(weights.iter().map(|w| w.abs() as f64).sum(), n * k);
    TernaryMatrix::from_rows(n, k, Scales::Tensor(rule.scale()), |r, row| {
        for (c, &w) in row.iter_mut().zip(&weights[r * k..]) {
            *c = rule.code(w);
        }
        Ok(())
    })
}

/// The absmean quantiser of one matrix, for weights that are read row by row; see [`absmean`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Absmean {
    inverse: f32,
    scale: f32,
}

impl Absmean {
    /// From Σ|w| over `count` weights.
    pub fn from_abs_sum(sum: f64, count: usize) -> Self {
        let mean = sum / count.max(1) as f64;
        let inverse = 1.0f32 / (mean as f32).max(1e-5);
        // `max` drops a NaN: test the mean itself.
        let scale = if mean.is_finite() {
            1.0 / inverse
        } else {
            f32::NAN
        };
        Self { inverse, scale }
    }

    /// The multiplier to store; NaN when a weight was not finite.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The code of a weight.
    ///
    /// Rounding half to even and clamping to ±1 is the same as two comparisons, as ±0.5 rounds to 0;
    /// without SSE4.1 the rounding is a call for every weight.
    pub fn code(&self, w: f32) -> u8 {
        let x = w * self.inverse;
        1 + (x > 0.5) as u8 - (x < -0.5) as u8
    }
}

/// Added to a float below 2^22 in magnitude, leaves its value rounded half to even in the low bits.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// Quantises one token's activations to int8 by absmax and returns the scale `s = f32(127 / max(amax, 1e-5))`.
///
/// `q = clamp(rhe(f32(x·s)), −128, 127)`; `q` may be longer than `x` and is then zero-filled.
/// A NaN or infinite input makes the returned scale NaN, so that it reaches the output
/// instead of being swallowed.
#[inline]
pub fn absmax(x: &[f32], q: &mut [i8]) -> f32 {
    assert!(
        q.len() >= x.len(),
        "{} int8 slots for {} activations",
        q.len(),
        x.len()
    );
    // Bits of |v| order as integers, NaN above infinity above every number: one integer maximum, which
    // vectorises on any CPU, finds the largest magnitude and whatever is not finite.
    let bits = x.iter().fold(0u32, |m, v| m.max(v.to_bits() & 0x7fff_ffff));
    let finite = bits < f32::INFINITY.to_bits();
    let s = 127.0 / f32::from_bits(bits).max(1e-5);
    for (q, &v) in q.iter_mut().zip(x) {
        // |v·s| is far below 2^22, so adding 1.5·2^23 rounds half to even and leaves the integer in the low bits.
        let rounded = (v * s + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
        *q = rounded.clamp(-128, 127) as i8;
    }
    q[x.len()..].fill(0);
    if finite { s } else { f32::NAN }
}

#[cfg(test)]
mod tests;
