//! `lut3`, `lut4`, `lut5`: g trits an index of one byte, the indices of a row's step together, so that one
//! load brings several.
//!
//! ```text
//! step of KR = g·G columns, row r of the panel: bytes G·r..G·r+G
//!   byte i of the G = Σ_j 3^j · code of column g·i + j        (i = 0..G, j = 0..g)
//! ```
//! An index selects one of 3^g sums of g activations; the zero trits of padding select a sum of zeros.

use super::{Layout, PanelShape};
use crate::acts::ACTS_K_ALIGN;
use crate::program::Promise;

/// The layouts with indices of `trits` trits.
pub struct Lut {
    /// The name.
    pub name: &'static str,
    /// Trits an index, g.
    pub trits: usize,
}

/// Three trits an index.
pub static LUT3: Lut = Lut {
    name: "lut3",
    trits: 3,
};
/// Four trits an index.
pub static LUT4: Lut = Lut {
    name: "lut4",
    trits: 4,
};
/// Five trits an index.
pub static LUT5: Lut = Lut {
    name: "lut5",
    trits: 5,
};

impl Lut {
    /// Values of an index.
    pub const fn entries(&self) -> usize {
        3usize.pow(self.trits as u32)
    }
}

fn pack<const G: usize>(shape: PanelShape, kp: usize, codes: &[u8], out: &mut [u8]) {
    let groups = shape.kr / G;
    for (r, row) in codes.chunks_exact(kp).enumerate() {
        for (s, c) in row.chunks_exact(shape.kr).enumerate() {
            let at = (s * shape.nr + r) * groups;
            for (index, c) in out[at..at + groups].iter_mut().zip(c.as_chunks::<G>().0) {
                *index = c.iter().rev().fold(0, |index, c| 3 * index + c);
            }
        }
    }
}

impl Layout for Lut {
    fn name(&self) -> &'static str {
        self.name
    }

    fn unsupported(&self, shape: PanelShape) -> Option<String> {
        if shape.kr == 0 || !shape.kr.is_multiple_of(self.trits) || shape.kr > ACTS_K_ALIGN {
            return Some(format!(
                "{} steps cover a multiple of {} columns up to {ACTS_K_ALIGN}, not {}",
                self.name, self.trits, shape.kr
            ));
        }
        (shape.nr == 0).then(|| "NR is 0".into())
    }

    fn panel_bytes(&self, shape: PanelShape) -> usize {
        shape.nr * self.k_padded(shape) / self.trits
    }

    fn promise(&self) -> Promise {
        Promise::U8(0, (self.entries() - 1) as u8)
    }

    fn pack_panel(&self, shape: PanelShape, codes: &[u8], out: &mut [u8]) {
        let kp = self.k_padded(shape);
        // The number of trits as a constant: the loop over them is most of the time of loading such panels.
        match self.trits {
            3 => pack::<3>(shape, kp, codes, out),
            4 => pack::<4>(shape, kp, codes, out),
            5 => pack::<5>(shape, kp, codes, out),
            g => unreachable!("no layout has {g} trits an index"),
        }
    }

    fn unpack_panel(&self, shape: PanelShape, packed: &[u8], codes: &mut [u8]) {
        let (kp, groups) = (self.k_padded(shape), shape.kr / self.trits);
        for (r, row) in codes.chunks_exact_mut(kp).enumerate() {
            for (s, c) in row.chunks_exact_mut(shape.kr).enumerate() {
                let at = (s * shape.nr + r) * groups;
                for (i, c) in c.chunks_exact_mut(self.trits).enumerate() {
                    let mut index = packed[at + i];
                    for c in c {
                        *c = index % 3;
                        index /= 3;
                    }
                }
            }
        }
    }
}
