//! `tl2`: triples of trits as a 4-bit magnitude and a sign bit, 1.67 bits a weight.
//!
//! ```text
//! step of KR = 24 columns = 8 triples: for each strip of 64 rows (see `strip`) 320 bytes
//!   bytes 64·i..+64, i = 0..4   low nibble = |v| of triple 2i, high nibble = |v| of triple 2i + 1
//!   bytes 256..320              16-bit words: bit t = sign of triple t of the row at byte 16·L + e,
//!                               bit 8 + t = of the row at byte 16·L + 8 + e    (word 8·L + e; L = 0..4, e = 0..8)
//! v = 9·w0 + 3·w1 + w2, from −13 to 13
//! ```
//! Words follow the order that interleaving two byte planes gives. All of K is triples: the at most 23 zero
//! columns of the last step cost less than a second kernel for pairs. Source of the triple code: bitnet.cpp,
//! arXiv 2502.11880.

use super::{Layout, PanelShape, strip};
use crate::program::Promise;

/// Columns of one step.
pub const STEP_K: usize = 24;

/// Triples of one step.
pub const TRIPLES: usize = 8;

/// Bytes of a strip's step.
pub const STEP_BYTES: usize = 320;

/// Where a strip's signs start.
pub const SIGNS_AT: usize = 256;

/// The layout.
pub struct Tl2;

/// The start of (`step`, strip of `row`), and the row's place in the strip.
fn at(shape: PanelShape, step: usize, row: usize) -> (usize, usize) {
    let strips = shape.nr / strip::STRIP;
    let start = (step * strips + row / strip::STRIP) * STEP_BYTES;
    (start, strip::place(row % strip::STRIP))
}

/// Byte and bit of the sign of triple `t` for the row at `place`.
fn sign(place: usize, t: usize) -> (usize, u32) {
    let (lane, e) = (place / 16, place % 16);
    (SIGNS_AT + 2 * (8 * lane + e % 8) + e / 8, t as u32)
}

impl Layout for Tl2 {
    fn name(&self) -> &'static str {
        "tl2"
    }

    fn unsupported(&self, shape: PanelShape) -> Option<String> {
        strip::unsupported(self.name(), shape, STEP_K)
    }

    fn panel_bytes(&self, shape: PanelShape) -> usize {
        shape.nr / strip::STRIP * (self.k_padded(shape) / STEP_K) * STEP_BYTES
    }

    fn promise(&self) -> Promise {
        // Signs may be any bits.
        Promise::Bits
    }

    fn pack_panel(&self, shape: PanelShape, codes: &[u8], out: &mut [u8]) {
        out.fill(0);
        let kp = self.k_padded(shape);
        for (r, row) in codes.chunks_exact(kp).enumerate() {
            for (s, c) in row.chunks_exact(STEP_K).enumerate() {
                let (start, place) = at(shape, s, r);
                let out = &mut out[start..][..STEP_BYTES];
                for (t, c) in c.chunks_exact(3).enumerate() {
                    let v = (9 * c[0] + 3 * c[1] + c[2]) as i8 - 13;
                    out[t / 2 * strip::STRIP + place] |= v.unsigned_abs() << (4 * (t % 2));
                    let (byte, bit) = sign(place, t);
                    out[byte] |= u8::from(v < 0) << bit;
                }
            }
        }
    }

    fn unpack_panel(&self, shape: PanelShape, packed: &[u8], codes: &mut [u8]) {
        let kp = self.k_padded(shape);
        for (r, row) in codes.chunks_exact_mut(kp).enumerate() {
            for (s, c) in row.chunks_exact_mut(STEP_K).enumerate() {
                let (start, place) = at(shape, s, r);
                let packed = &packed[start..][..STEP_BYTES];
                for (t, c) in c.chunks_exact_mut(3).enumerate() {
                    let size = packed[t / 2 * strip::STRIP + place] >> (4 * (t % 2)) & 15;
                    let (byte, bit) = sign(place, t);
                    let v = match packed[byte] >> bit & 1 {
                        0 => 13 + size,
                        _ => 13 - size,
                    };
                    c.copy_from_slice(&[v / 9, v / 3 % 3, v % 3]);
                }
            }
        }
    }
}
