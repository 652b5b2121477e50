//! Projections stored as floats: master weights, or trits times one magnitude.

use bitnet_codegen::trit::{Absmean, TritError};

use super::{RowDecoder, StoredScales, Ternarise};
use crate::format::float::FloatType;

/// Rows of floats, ternarised as they are read, so that no f32 copy of the tensor exists.
pub(super) struct Floats<'a> {
    bytes: &'a [u8],
    row_bytes: usize,
    dtype: FloatType,
    row: Vec<f32>,
    rule: Rule,
}

enum Rule {
    Absmean(Absmean),
    /// Every value is 0 or this, up to sign.
    Magnitude(f32),
}

impl<'a> Floats<'a> {
    pub(super) fn new(
        bytes: &'a [u8],
        n: usize,
        k: usize,
        dtype: FloatType,
        how: Ternarise,
    ) -> Result<Self, TritError> {
        let row_bytes = dtype.row_bytes(k);
        assert_eq!(
            bytes.len(),
            n * row_bytes,
            "bytes of a {n}x{k} {dtype} tensor"
        );
        let mut row = vec![0f32; k];
        let mut sum = 0f64;
        let mut magnitude = Some(0f32);
        for b in bytes.chunks_exact(row_bytes) {
            dtype.decode(b, &mut row);
            // One chain of additions, as over the whole matrix at once.
            sum = row.iter().fold(sum, |s, w| s + w.abs() as f64);
            magnitude = magnitude.and_then(|m| one_magnitude(m, &row));
        }
        let rule = match (how, magnitude) {
            (Ternarise::Absmean, _) | (Ternarise::Detect, None) => {
                Rule::Absmean(Absmean::from_abs_sum(sum, n * k))
            }
            (_, Some(m)) => Rule::Magnitude(m),
            (Ternarise::OneMagnitude, None) => return Err(TritError::Magnitudes),
        };
        Ok(Self {
            bytes,
            row_bytes,
            dtype,
            row,
            rule,
        })
    }
}

/// The magnitude of all values that are not zero, given that of the rows before (0 for none yet).
fn one_magnitude(mut m: f32, row: &[f32]) -> Option<f32> {
    for w in row.iter().map(|w| w.abs()).filter(|&w| w != 0.0) {
        if m == 0.0 {
            m = w;
        }
        // NaN is equal to nothing.
        if w != m {
            return None;
        }
    }
    Some(m)
}

/// Whether a row can belong to a ternary matrix; a cheap look at a file before it is loaded.
pub(in crate::format) fn looks_ternary(dtype: FloatType, row_bytes: &[u8], k: usize) -> bool {
    let mut row = vec![0f32; k];
    dtype.decode(row_bytes, &mut row);
    one_magnitude(0.0, &row).is_some()
}

impl RowDecoder for Floats<'_> {
    fn scales(&self) -> StoredScales {
        StoredScales::tensor(match &self.rule {
            Rule::Absmean(a) => a.scale(),
            Rule::Magnitude(m) => *m,
        })
    }

    fn row(&mut self, r: usize, out: &mut [u8]) {
        self.dtype.decode(
            &self.bytes[r * self.row_bytes..][..self.row_bytes],
            &mut self.row,
        );
        match self.rule {
            Rule::Absmean(a) => pack(&self.row, out, |w| a.code(w)),
            Rule::Magnitude(_) => pack(&self.row, out, |w| 1 + (w > 0.0) as u8 - (w < 0.0) as u8),
        }
    }
}

fn pack(row: &[f32], out: &mut [u8], code: impl Fn(f32) -> u8) {
    for (o, ws) in out.iter_mut().zip(row.chunks(4)) {
        *o = ws
            .iter()
            .enumerate()
            .fold(0, |b, (i, &w)| b | code(w) << (2 * i));
    }
}
