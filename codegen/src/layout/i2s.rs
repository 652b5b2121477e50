//! `i2s`: 2-bit codes, four columns of four rows to a 16-byte vector, so that each i32 element of a dot
//! product belongs to one row and no horizontal sum is needed.
//!
//! ```text
//! step of KR = 16 columns, row r of the panel: bytes 4r..4r+4
//!   byte j of the four, bits 2f..2f+2  =  code of column 4f + j       (f, j = 0..4)
//!
//!   row 0             row 1             …  row NR−1
//!   0123  columns 0–3 in bits 1..0, 4–7 in 3..2, 8–11 in 5..4, 12–15 in 7..6
//! ```
//! Field f of a vector, masked in place, meets the four activations 4f..4f+4 as one broadcast dword.
//! Panels hold all steps of their NR rows one after another: a kernel reads one linear stream.

use super::{Layout, PanelShape};
use crate::program::Promise;

/// Columns of one step.
pub const STEP_K: usize = 16;

/// The layout.
pub struct I2s;

impl Layout for I2s {
    fn name(&self) -> &'static str {
        "i2s"
    }

    fn unsupported(&self, shape: PanelShape) -> Option<String> {
        if shape.kr != STEP_K {
            return Some(format!(
                "i2s steps cover {STEP_K} columns, not {}",
                shape.kr
            ));
        }
        (!shape.nr.is_multiple_of(4) || shape.nr == 0)
            .then(|| format!("NR = {} is not a multiple of 4", shape.nr))
    }

    fn panel_bytes(&self, shape: PanelShape) -> usize {
        shape.nr * self.k_padded(shape) / 4
    }

    fn promise(&self) -> Promise {
        Promise::Codes2
    }

    fn pack_panel(&self, shape: PanelShape, codes: &[u8], out: &mut [u8]) {
        let kp = self.k_padded(shape);
        for (r, row) in codes.chunks_exact(kp).enumerate() {
            for (s, c) in row.chunks_exact(STEP_K).enumerate() {
                let at = (s * shape.nr + r) * 4;
                // Four bytes at once: codes are 0 to 3.
                let fields = c.as_chunks::<4>().0.iter().zip([0, 2, 4, 6]);
                let word = fields.fold(0, |word, (&codes, bit)| {
                    word | u32::from_le_bytes(codes) << bit
                });
                out[at..at + 4].copy_from_slice(&word.to_le_bytes());
            }
        }
    }

    fn unpack_panel(&self, shape: PanelShape, packed: &[u8], codes: &mut [u8]) {
        let kp = self.k_padded(shape);
        for (r, row) in codes.chunks_exact_mut(kp).enumerate() {
            for (s, c) in row.chunks_exact_mut(STEP_K).enumerate() {
                let at = (s * shape.nr + r) * 4;
                for (i, c) in c.iter_mut().enumerate() {
                    *c = packed[at + i % 4] >> (2 * (i / 4)) & 3;
                }
            }
        }
    }
}
