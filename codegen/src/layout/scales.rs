//! Scales inside a panel: behind the codes of each run of columns stands one scale for each row, so that codes and
//! scales are one linear stream.
//!
//! ```text
//! panel:  codes of columns 0..G | NR scales | codes of columns G..2G | NR scales | …
//!
//! f32:    row r in bytes 4r..4r+4
//! f16:    dword i holds row i in its low half and row D + i in its high half, i < D
//! ```
//! D is half of NR, rounded up to the largest of 4, 8, 16 that divides NR: whatever the width of a vector, one
//! load brings the scales of whole vectors of rows in its low halves and of others in its high halves. Columns
//! that pad a run have code 0, which adds nothing to `Σ code·x`, whatever activation they meet.

use std::fmt;

/// How scales are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stored {
    /// Halves, where each scale is one.
    F16,
    /// Singles.
    F32,
}

/// A scale for each row and each run of `k` columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupScales {
    /// Columns that share a scale; the last run may be shorter.
    pub k: usize,
    /// How scales are stored.
    pub stored: Stored,
}

impl fmt::Display for GroupScales {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = if self.stored == Stored::F16 { 16 } else { 32 };
        write!(f, "a scale of {bits} bits for each {} columns", self.k)
    }
}

impl Stored {
    /// What stores all of `scales`: halves if each is one exactly, singles otherwise.
    pub fn of(scales: impl IntoIterator<Item = f32>) -> Self {
        let exact = |s: f32| half(s).is_some();
        match scales.into_iter().all(exact) {
            true => Stored::F16,
            false => Stored::F32,
        }
    }

    /// Dwords that the scales of `nr` rows take.
    pub fn dwords(self, nr: usize) -> usize {
        match self {
            Stored::F32 => nr,
            Stored::F16 => {
                let unit = 1 << nr.trailing_zeros().min(4);
                nr.div_ceil(2).next_multiple_of(unit)
            }
        }
    }

    /// Writes the scales of `rows` to `out`, [`Self::dwords`] dwords.
    ///
    /// # Panics
    /// When a scale is no half where halves are stored: [`Self::of`] chooses.
    pub fn write(self, scales: &[f32], out: &mut [u8]) {
        match self {
            Stored::F32 => {
                for (out, s) in out.chunks_exact_mut(4).zip(scales) {
                    out.copy_from_slice(&s.to_le_bytes());
                }
            }
            Stored::F16 => {
                out.fill(0);
                let dwords = self.dwords(scales.len());
                for (r, &s) in scales.iter().enumerate() {
                    let at = 4 * (r % dwords) + 2 * (r / dwords);
                    let bits = half(s).unwrap_or_else(|| panic!("scale {s} is no half"));
                    out[at..at + 2].copy_from_slice(&bits.to_le_bytes());
                }
            }
        }
    }
}

/// The bits of the half that is exactly `s`, if one is: `s` is not below zero.
fn half(s: f32) -> Option<u16> {
    // Halves are the f32 whose bits, scaled down by 2^112, end in 13 zeros: what a kernel does backwards.
    let bits = (s * DOWN).to_bits();
    let exact = bits & 0x1FFF == 0 && bits >> 13 < 0x7C00 && f32::from_bits(bits) * UP == s;
    exact.then_some((bits >> 13) as u16)
}

/// 2^−112, the difference of the exponents' biases.
const DOWN: f32 = f32::from_bits(15 << 23);

/// 2^112: the f32 of a half with bits `h` is `f32(h << 13) · UP`, exactly.
pub const UP: f32 = f32::from_bits(239 << 23);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_stored_exactly_and_nothing_else_is() {
        for h in 0..0x7C00u16 {
            let s = f32::from_bits((h as u32) << 13) * UP;
            assert_eq!(half(s), Some(h), "{s}");
            let next = f32::from_bits(s.to_bits() + 1);
            assert_eq!(half(next), None, "{next}");
        }
        for s in [65_536.0, 1e-9, f32::INFINITY, f32::NAN, -1.0] {
            assert_eq!(half(s), None, "{s}");
        }
        assert_eq!(Stored::of([0.5, 0.0]), Stored::F16);
        assert_eq!(Stored::of([0.5, 0.1]), Stored::F32);
    }

    #[test]
    fn rows_stand_where_vectors_of_every_width_find_them() {
        for (nr, dwords) in [
            (4, 4),
            (8, 8),
            (16, 16),
            (32, 16),
            (48, 32),
            (64, 32),
            (12, 8),
        ] {
            assert_eq!(Stored::F16.dwords(nr), dwords, "NR = {nr}");
            let scales: Vec<f32> = (0..nr).map(|r| r as f32).collect();
            let mut out = vec![0xFF; 4 * dwords];
            Stored::F16.write(&scales, &mut out);
            for (r, s) in scales.iter().enumerate() {
                let at = 4 * (r % dwords) + 2 * (r / dwords);
                let bits = u16::from_le_bytes([out[at], out[at + 1]]);
                assert_eq!(half(*s), Some(bits), "NR = {nr}, row {r}");
            }
        }
    }
}
