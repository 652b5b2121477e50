//! Storage types with five trits a byte: TQ1_0, PTQ1_0 and IQ1_BN.
//!
//! A base-3 number v < 243 is stored as ⌈256v/243⌉, so that multiplying the byte by 3^i modulo 256
//! and then by 3 leaves digit i in the bits above 8: no division, and plain lanes for the compiler.

use super::planes::{ZERO_BYTE, f16_at, gather};
use super::{RowDecoder, StoredScales};
use std::ops::Range;

/// The digit of weight 3^(4−i) of a stored byte, for `power` = 3^i: 0, 1 or 2 whatever the byte.
fn digit(byte: u8, power: u8) -> u8 {
    ((byte.wrapping_mul(power) as u16 * 3) >> 8) as u8
}

const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// A type whose blocks are runs of bytes with digits of elements a run apart, then an f16 scale.
pub(super) struct Base3Type {
    /// Elements of a block.
    block: usize,
    /// Its runs: digits of a byte, the bytes, and the first element. Digit d of byte m of a run of L bytes is
    /// element `first + L·d + m`; the first digit is the highest.
    runs: [(usize, Range<usize>, usize); 3],
}

impl Base3Type {
    fn bytes(&self) -> usize {
        self.runs[2].1.end + 2
    }
}

/// TQ1_0: blocks of 256 in runs of 32, 16 and 4 bytes.
pub(super) const TQ1_0: Base3Type = Base3Type {
    block: 256,
    runs: [(5, 0..32, 0), (5, 32..48, 160), (4, 48..52, 240)],
};

/// PTQ1_0: blocks of 128 in runs of 16, 8 and 2 bytes.
pub(super) const PTQ1_0: Base3Type = Base3Type {
    block: 128,
    runs: [(5, 0..16, 0), (5, 16..24, 80), (4, 24..26, 120)],
};

/// TQ1_0 or PTQ1_0.
pub(super) struct Base3<'a> {
    bytes: &'a [u8],
    row_bytes: usize,
    kind: &'static Base3Type,
}

impl<'a> Base3<'a> {
    pub(super) fn new(bytes: &'a [u8], n: usize, k: usize, kind: &'static Base3Type) -> Self {
        let row_bytes = k / kind.block * kind.bytes();
        assert_eq!(
            bytes.len(),
            n * row_bytes,
            "bytes of a {n}x{k} tensor in blocks of {}",
            kind.block
        );
        Self {
            bytes,
            row_bytes,
            kind,
        }
    }
}

impl RowDecoder for Base3<'_> {
    fn scales(&self) -> StoredScales {
        let size = self.kind.bytes();
        let blocks = self.bytes.chunks_exact(size);
        StoredScales {
            group_k: Some(self.kind.block),
            values: blocks.map(|b| f16_at(b, size - 2)).collect(),
        }
    }

    fn row(&mut self, r: usize, out: &mut [u8]) {
        let row = &self.bytes[r * self.row_bytes..][..self.row_bytes];
        let (size, block) = (self.kind.bytes(), self.kind.block);
        for (b, o) in row.chunks_exact(size).zip(out.chunks_exact_mut(block / 4)) {
            if f16_at(b, size - 2) == 0.0 {
                o.fill(ZERO_BYTE);
                continue;
            }
            let mut codes = [0u8; 256];
            for (digits, bytes, at) in &self.kind.runs {
                let width = bytes.len();
                for (plane, &power) in POWERS[..*digits].iter().enumerate() {
                    let plane = &mut codes[at + plane * width..][..width];
                    for (c, &byte) in plane.iter_mut().zip(&b[bytes.clone()]) {
                        *c = digit(byte, power);
                    }
                }
            }
            gather(&codes[..block], 0, o);
        }
    }
}

/// IQ1_BN: an f16 scale a row, then blocks of 64: for each of four groups of 16 elements three
/// bytes of five digits, the first element in the *lowest* digit; a thirteenth byte holds the
/// sixteenth element of the groups.
pub(super) struct Iq1Bn<'a> {
    bytes: &'a [u8],
    n: usize,
    row_bytes: usize,
    /// The five codes of every byte, first element first.
    table: Vec<[u8; 5]>,
}

impl<'a> Iq1Bn<'a> {
    pub(super) fn new(bytes: &'a [u8], n: usize, k: usize) -> Self {
        let row_bytes = 2 + k / 64 * 13;
        assert_eq!(
            bytes.len(),
            n * row_bytes,
            "bytes of a {n}x{k} IQ1_BN tensor"
        );
        let table = (0..=255u8)
            .map(|b| std::array::from_fn(|j| digit(b, POWERS[4 - j])))
            .collect();
        Self {
            bytes,
            n,
            row_bytes,
            table,
        }
    }
}

impl RowDecoder for Iq1Bn<'_> {
    fn scales(&self) -> StoredScales {
        let values = (0..self.n)
            .map(|r| f16_at(self.bytes, r * self.row_bytes))
            .collect();
        // One group as wide as any row.
        StoredScales {
            group_k: Some(self.row_bytes * 64),
            values,
        }
    }

    fn row(&mut self, r: usize, out: &mut [u8]) {
        let row = &self.bytes[r * self.row_bytes..][..self.row_bytes];
        if f16_at(row, 0) == 0.0 {
            // The writer stores an all-zero row as +1 codes under a zero scale.
            return out.fill(ZERO_BYTE);
        }
        for (b, o) in row[2..].chunks_exact(13).zip(out.chunks_exact_mut(16)) {
            let mut codes = [0u8; 64];
            for g in 0..4 {
                for j in 0..3 {
                    codes[16 * g + 5 * j..][..5]
                        .copy_from_slice(&self.table[b[3 * g + j] as usize]);
                }
                codes[16 * g + 15] = self.table[b[12] as usize][g];
            }
            gather(&codes, 0, o);
        }
    }
}
