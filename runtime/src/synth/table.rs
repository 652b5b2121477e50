//! The embedding and the head of a synthetic model: how they are stored, and how much their logits stand out.

use super::{Noise, SynthError, chunks, normal_table};
use crate::format::float::FloatType;
use half::f16;
use std::io::{self, Write};

/// How embedding and head are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// How rows are stored: [`FloatType::F16`], or [`FloatType::Q6K`] where rows are whole blocks of 256.
    pub dtype: FloatType,
    /// Rows of low ids are longer, so that logits stand out as a trained model's do. Otherwise all rows are alike,
    /// and the likeliest token of a large vocabulary is hardly likelier than the hundredth: the worst case.
    pub peaked: bool,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            dtype: FloatType::F16,
            peaked: false,
        }
    }
}

impl TableOptions {
    /// Whether rows of `hidden` values can be stored so.
    pub(super) fn check(self, hidden: usize) -> Result<(), SynthError> {
        let known = matches!(self.dtype, FloatType::F16 | FloatType::Q6K);
        if known && hidden.is_multiple_of(self.dtype.block().0) {
            return Ok(());
        }
        Err(SynthError::Table {
            dtype: self.dtype.name(),
            hidden,
        })
    }

    /// How many times as long a row is as the others.
    fn length(self, row: usize) -> f32 {
        match self.peaked {
            // Frequent tokens have low ids: 4 for the first, 2 for the 64th, 1 from the 4096th on.
            true => (4.0 * ((row + 1) as f32).powf(-1.0 / 6.0)).max(1.0),
            false => 1.0,
        }
    }

    /// Writes a table of `[rows, hidden]` values of the deviation `deviation`.
    pub(super) fn fill(
        self,
        (rows, hidden): (usize, usize),
        deviation: f32,
        noise: Noise,
        sink: &mut dyn Write,
    ) -> io::Result<()> {
        let lengths: Vec<f32> = (0..rows).map(|row| self.length(row)).collect();
        let bytes = rows * self.dtype.row_bytes(hidden);
        if self.dtype == FloatType::Q6K {
            let blocks = hidden / 256;
            return chunks(bytes, sink, |i| {
                q6_k(noise, i, deviation * lengths[i as usize / blocks])
            });
        }
        let table = normal_table(deviation);
        chunks(bytes, sink, |i| {
            let x = noise.at(i);
            let value = |half: u32, at: u64| {
                let value = table[half.to_le_bytes().map(usize::from).iter().sum::<usize>()];
                match self.peaked {
                    true => f16::from_f32(value.to_f32() * lengths[at as usize / hidden]),
                    false => value,
                }
            };
            let pair = [value(x as u32, 2 * i), value((x >> 32) as u32, 2 * i + 1)];
            let [a, b] = pair.map(f16::to_le_bytes);
            [a[0], a[1], b[0], b[1]]
        })
    }
}

/// Block `i` of 256 values: random codes and scales.
fn q6_k(noise: Noise, i: u64, deviation: f32) -> [u8; 210] {
    let mut block = [0; 210];
    let (words, rest) = block.as_chunks_mut::<8>();
    for (w, word) in (0..).zip(&mut *words) {
        *word = noise.at(26 * i + w).to_le_bytes();
    }
    debug_assert_eq!((words.len(), rest.len()), (26, 2));
    // Scales of 24 to 39, of mean square 1014; codes of variance (64² − 1) / 12.
    for scale in &mut block[192..208] {
        *scale = 24 + *scale % 16;
    }
    let unit = deviation / (1013.5f32 * 341.25).sqrt();
    block[208..].copy_from_slice(&f16::from_f32(unit).to_le_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(options: TableOptions, rows: usize, hidden: usize) -> Vec<Vec<f32>> {
        let mut bytes = Vec::new();
        let noise = Noise { key: 5 };
        options
            .fill((rows, hidden), 0.04, noise, &mut bytes)
            .unwrap();
        let row_bytes = options.dtype.row_bytes(hidden);
        let decoded = bytes.chunks_exact(row_bytes).map(|row| {
            let mut values = vec![0f32; hidden];
            options.dtype.decode(row, &mut values);
            values
        });
        decoded.collect()
    }

    #[test]
    fn rows_have_the_length_that_is_asked_for() {
        for dtype in [FloatType::F16, FloatType::Q6K] {
            for peaked in [false, true] {
                let options = TableOptions { dtype, peaked };
                let all = rows(options, 100, 2560);
                assert_eq!(all.len(), 100);
                for (r, row) in all.iter().enumerate() {
                    let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
                    let want = 0.04 * 2560f32.sqrt() * options.length(r);
                    assert!(
                        (length / want - 1.0).abs() < 0.1,
                        "{dtype} row {r}: {length}, not {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn tables_that_cannot_be_made_are_refused() {
        let check = |dtype, hidden| {
            let peaked = false;
            TableOptions { dtype, peaked }.check(hidden)
        };
        assert!(check(FloatType::F16, 100).is_ok() && check(FloatType::Q6K, 2560).is_ok());
        let e = check(FloatType::Q6K, 3200).unwrap_err().to_string();
        assert!(e.contains("Q6_K") && e.contains("3200"), "{e}");
        assert!(check(FloatType::Q4K, 2560).is_err());
    }
}
