//! Rows of ternary tables: an embedding is read row by row, straight from the file.

use super::base3::{Base3, PTQ1_0, TQ1_0};
use super::planes::{I2s, Q2, Tq2, f16_at};
use super::{Packing, RowDecoder, TernarySource};
use crate::format::dtype::TernaryType;
use crate::format::store::TensorStore;

/// Codes of the longest row that is read at once.
const MAX_K: usize = 1 << 16;

/// The types whose rows can be read one at a time.
pub const TABLE_TYPES: [TernaryType; 6] = [
    TernaryType::I2S,
    TernaryType::Q2_0,
    TernaryType::PQ2_0,
    TernaryType::PTQ1_0,
    TernaryType::TQ1_0,
    TernaryType::TQ2_0,
];

impl TernarySource {
    /// Why this cannot be a table of rows, if so.
    pub(crate) fn no_table(&self) -> Option<String> {
        let kind = match self.packing {
            Packing::I2S { .. } => TernaryType::I2S,
            Packing::Plain(kind) => kind,
            _ => return Some("its rows cannot be read one at a time".into()),
        };
        if kind == TernaryType::I2S && self.k > MAX_K {
            return Some(format!("rows of I2_S tables have at most {MAX_K} weights"));
        }
        let known: Vec<_> = TABLE_TYPES.iter().map(|t| t.name()).collect();
        (!TABLE_TYPES.contains(&kind)).then(|| format!("known are {}", known.join(" ")))
    }

    /// The values of row `r`, without an allocation.
    ///
    /// # Panics
    /// When [`Self::no_table`] has a reason, or `out` is not K long.
    pub(crate) fn row_to_f32(&self, store: &TensorStore, r: usize, out: &mut [f32]) {
        assert!(
            out.len() == self.k && r < self.n,
            "row {r} of {}x{}",
            self.n,
            self.k
        );
        let (bytes, factor) = (store.bytes(self.tensor), self.factor);
        let kind = match self.packing {
            Packing::I2S { block } => {
                let mut decoder = I2s::new(bytes, self.n, self.k, block);
                let scale = decoder.scale() * factor;
                let mut codes = [0u8; MAX_K / 4];
                let codes = &mut codes[..self.k.div_ceil(4)];
                decoder.row(r, codes);
                return values(codes, scale, out);
            }
            Packing::Plain(kind) => kind,
            _ => unreachable!("the reader asked whether this is a table"),
        };
        let row = bytes.len() / self.n;
        let bytes = &bytes[r * row..][..row];
        let blocks = self.k / kind.k_multiple();
        let (size, width) = (row / blocks, kind.k_multiple());
        for (block, out) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(width)) {
            let mut codes = [0u8; 64];
            let codes = &mut codes[..width / 4];
            let at = match kind {
                TernaryType::Q2_0 | TernaryType::PQ2_0 => {
                    Q2::new(block, 1, width, width).row(0, codes);
                    0
                }
                TernaryType::TQ2_0 => {
                    Tq2::new(block, 1, width).row(0, codes);
                    size - 2
                }
                TernaryType::TQ1_0 => {
                    Base3::new(block, 1, width, &TQ1_0).row(0, codes);
                    size - 2
                }
                _ => {
                    Base3::new(block, 1, width, &PTQ1_0).row(0, codes);
                    size - 2
                }
            };
            values(codes, f16_at(block, at) * factor, out);
        }
    }
}

/// Codes, four a byte, times a scale.
fn values(codes: &[u8], scale: f32, out: &mut [f32]) {
    for (out, byte) in out.chunks_mut(4).zip(codes) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = ((byte >> (2 * i) & 3) as f32 - 1.0) * scale;
        }
    }
}
