//! `base3`: five trits a byte (1.6 bits a weight), weighted so that every way of decoding is cheap.
//!
//! ```text
//! step of KR = 20 columns, row r of the panel: bytes 4r..4r+4
//!   byte j of the four = c0 + 3·c1 + 9·c2 + 28·c3 + 84·c4,   cf = code of column 4f + j      (f = 0..5, j = 0..4)
//! ```
//! Each weight exceeds all that the smaller ones can make (2, 8, 26, 82), so digits are unique. 28 and 84
//! instead of 27 and 81 put the thresholds of the upper digits on multiples of 4: `byte >> 2` decides them,
//! which fits a look-up of 64 (or 16) entries. `9 & 3 = 1` and `18 & 3 = 2` spare a division.

use super::{Layout, PanelShape};
use crate::program::Promise;

/// Columns of one step.
pub const STEP_K: usize = 20;

/// What a code of 1 in field f adds to a byte.
pub const FIELD_WEIGHTS: [u8; 5] = [1, 3, 9, 28, 84];

/// The largest byte: all five codes are 2.
pub const MAX_BYTE: u8 = 250;

/// The layout.
pub struct Base3;

/// The five codes in a byte.
pub const fn digits(byte: u8) -> [u8; 5] {
    let mut digits = [0; 5];
    let (mut rest, mut f) = (byte, 5);
    while f > 0 {
        f -= 1;
        digits[f] = rest / FIELD_WEIGHTS[f];
        rest %= FIELD_WEIGHTS[f];
    }
    digits
}

impl Layout for Base3 {
    fn name(&self) -> &'static str {
        "base3"
    }

    fn unsupported(&self, shape: PanelShape) -> Option<String> {
        if shape.kr != STEP_K {
            return Some(format!(
                "base3 steps cover {STEP_K} columns, not {}",
                shape.kr
            ));
        }
        (!shape.nr.is_multiple_of(4) || shape.nr == 0)
            .then(|| format!("NR = {} is not a multiple of 4", shape.nr))
    }

    fn panel_bytes(&self, shape: PanelShape) -> usize {
        shape.nr * self.k_padded(shape) / 5
    }

    fn promise(&self) -> Promise {
        Promise::U8(0, MAX_BYTE)
    }

    fn pack_panel(&self, shape: PanelShape, codes: &[u8], out: &mut [u8]) {
        let kp = self.k_padded(shape);
        for (r, row) in codes.chunks_exact(kp).enumerate() {
            for (s, c) in row.chunks_exact(STEP_K).enumerate() {
                let at = (s * shape.nr + r) * 4;
                // Four bytes at once: none of the sums carries into the next.
                let words = c.as_chunks::<4>().0.iter().zip(FIELD_WEIGHTS);
                let word = words.fold(0, |sum, (&codes, weight)| {
                    sum + u32::from_le_bytes(codes) * u32::from(weight)
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
                    *c = digits(packed[at + i % 4])[i / 4];
                }
            }
        }
    }
}
