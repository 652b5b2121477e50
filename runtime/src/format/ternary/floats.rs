//! Projections stored as floats: master weights, or trits times a magnitude.

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
    /// Every value is 0 or, up to sign, the scale of its row and group of columns.
    Magnitudes {
        group_k: usize,
        scales: Vec<f32>,
    },
}

/// Groups of columns are at least this wide.
const MIN_GROUP: usize = 16;

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
        let rows = bytes.chunks_exact(row_bytes);
        let rule = match how {
            Ternarise::Absmean => {
                let mut sum = 0f64;
                for b in rows {
                    dtype.decode(b, &mut row);
                    // One chain of additions, as over the whole matrix at once.
                    sum = row.iter().fold(sum, |s, w| s + w.abs() as f64);
                }
                Rule::Absmean(Absmean::from_abs_sum(sum, n * k))
            }
            Ternarise::AsStored => {
                let mut widths = Widths::new(k);
                for b in rows.clone() {
                    dtype.decode(b, &mut row);
                    widths.keep_those_of(&row);
                }
                let group_k = widths.widest().ok_or(TritError::Magnitudes)?;
                let mut scales = Vec::with_capacity(n * k.div_ceil(group_k));
                for b in rows {
                    dtype.decode(b, &mut row);
                    scales.extend(row.chunks(group_k).map(magnitude));
                }
                Rule::Magnitudes { group_k, scales }
            }
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

/// The magnitude of values that have one, 0 where all are 0.
fn magnitude(values: &[f32]) -> f32 {
    values
        .iter()
        .map(|w| w.abs())
        .find(|&w| w != 0.0)
        .unwrap_or(0.0)
}

/// The widths of groups under which every group seen so far has one magnitude.
struct Widths {
    /// Widest first.
    left: Vec<usize>,
}

impl Widths {
    /// The whole row and its equal parts.
    fn new(k: usize) -> Self {
        let parts = 2..=k / MIN_GROUP;
        let equal = parts.filter(|p| k.is_multiple_of(*p)).map(|p| k / p);
        Self {
            left: std::iter::once(k).chain(equal).collect(),
        }
    }

    fn keep_those_of(&mut self, row: &[f32]) {
        let mut last = (0, 0f32);
        for (at, w) in row.iter().map(|w| w.abs()).enumerate() {
            if w == 0.0 {
                continue;
            }
            // A NaN has no magnitude, whatever is next to it.
            if !w.is_finite() {
                self.left.clear();
            }
            if last.1 != 0.0 && last.1 != w {
                let from = last.0;
                // A group must begin behind the last value of the old magnitude.
                self.left.retain(|&width| at / width > from / width);
                if self.left.is_empty() {
                    return;
                }
            }
            last = (at, w);
        }
    }

    fn widest(&self) -> Option<usize> {
        self.left.first().copied()
    }
}

/// Whether a row can belong to a ternary matrix; a cheap look at a file before it is loaded.
pub(in crate::format) fn looks_ternary(dtype: FloatType, row_bytes: &[u8], k: usize) -> bool {
    let mut row = vec![0f32; k];
    dtype.decode(row_bytes, &mut row);
    let mut widths = Widths::new(k);
    widths.keep_those_of(&row);
    widths.widest().is_some()
}

impl RowDecoder for Floats<'_> {
    fn scales(&self) -> StoredScales {
        match &self.rule {
            Rule::Absmean(a) => StoredScales::tensor(a.scale()),
            Rule::Magnitudes { group_k, scales } => StoredScales {
                group_k: Some(*group_k),
                values: scales.clone(),
            },
        }
    }

    fn row(&mut self, r: usize, out: &mut [u8]) {
        self.dtype.decode(
            &self.bytes[r * self.row_bytes..][..self.row_bytes],
            &mut self.row,
        );
        match &self.rule {
            Rule::Absmean(a) => pack(&self.row, out, |w| a.code(w)),
            Rule::Magnitudes { .. } => {
                pack(&self.row, out, |w| 1 + (w > 0.0) as u8 - (w < 0.0) as u8)
            }
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
