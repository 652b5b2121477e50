//! `tl1`: pairs of trits as 4-bit indices, one byte for two pairs of a row.
//!
//! ```text
//! step of KR = 4 columns: NR bytes, in strips of 64 rows (see `strip`)
//!   byte of row r:  low nibble  = 3·c0 + c1,  high nibble = 3·c2 + c3,   cj = code of column j of the step
//! ```
//! The zero pair is 4. Source of the pair code: bitnet.cpp, arXiv 2410.16144.

use super::{Layout, PanelShape, strip};
use crate::program::Promise;

/// Columns of one step.
pub const STEP_K: usize = 4;

/// The layout.
pub struct Tl1;

/// Where the byte of (`step`, `row`) is.
fn at(shape: PanelShape, step: usize, row: usize) -> usize {
    step * shape.nr + row / strip::STRIP * strip::STRIP + strip::place(row % strip::STRIP)
}

impl Layout for Tl1 {
    fn name(&self) -> &'static str {
        "tl1"
    }

    fn unsupported(&self, shape: PanelShape) -> Option<String> {
        strip::unsupported(self.name(), shape, STEP_K)
    }

    fn panel_bytes(&self, shape: PanelShape) -> usize {
        shape.nr * self.k_padded(shape) / STEP_K
    }

    fn promise(&self) -> Promise {
        Promise::U8(0, 0x88)
    }

    fn pack_panel(&self, shape: PanelShape, codes: &[u8], out: &mut [u8]) {
        let kp = self.k_padded(shape);
        for (r, row) in codes.chunks_exact(kp).enumerate() {
            for (s, c) in row.chunks_exact(STEP_K).enumerate() {
                out[at(shape, s, r)] = (3 * c[0] + c[1]) | ((3 * c[2] + c[3]) << 4);
            }
        }
    }

    fn unpack_panel(&self, shape: PanelShape, packed: &[u8], codes: &mut [u8]) {
        let kp = self.k_padded(shape);
        for (r, row) in codes.chunks_exact_mut(kp).enumerate() {
            for (s, c) in row.chunks_exact_mut(STEP_K).enumerate() {
                let byte = packed[at(shape, s, r)];
                let (low, high) = (byte & 15, byte >> 4);
                c.copy_from_slice(&[low / 3, low % 3, high / 3, high % 3]);
            }
        }
    }
}
