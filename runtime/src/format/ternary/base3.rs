//! Storage types with five trits a byte: TQ1_0 and IQ1_BN.
//!
//! A base-3 number v < 243 is stored as ⌈256v/243⌉, so that multiplying the byte by 3^i modulo 256
//! and then by 3 leaves digit i in the bits above 8: no division, and plain lanes for the compiler.

use super::planes::{ZERO_BYTE, f16_at, gather};
use super::{RowDecoder, StoredScales};

/// The digit of weight 3^(4−i) of a stored byte, for `power` = 3^i: 0, 1 or 2 whatever the byte.
fn digit(byte: u8, power: u8) -> u8 {
    ((byte.wrapping_mul(power) as u16 * 3) >> 8) as u8
}

const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// TQ1_0: blocks of 256: 32 bytes hold elements m + 32n, 16 bytes 160 + m + 16n, 4 bytes 240 + m + 4n
/// (four digits only), the first element in the highest digit; then an f16 scale.
pub(super) struct Tq1<'a> {
    bytes: &'a [u8],
    row_bytes: usize,
}

const TQ1_BYTES: usize = 54;

impl<'a> Tq1<'a> {
    pub(super) fn new(bytes: &'a [u8], n: usize, k: usize) -> Self {
        let row_bytes = k / 256 * TQ1_BYTES;
        assert_eq!(
            bytes.len(),
            n * row_bytes,
            "bytes of a {n}x{k} TQ1_0 tensor"
        );
        Self { bytes, row_bytes }
    }
}

impl RowDecoder for Tq1<'_> {
    fn scales(&self) -> StoredScales {
        let values = self
            .bytes
            .chunks_exact(TQ1_BYTES)
            .map(|b| f16_at(b, 52))
            .collect();
        StoredScales {
            group_k: Some(256),
            values,
        }
    }

    fn row(&mut self, r: usize, out: &mut [u8]) {
        let row = &self.bytes[r * self.row_bytes..][..self.row_bytes];
        for (b, o) in row.chunks_exact(TQ1_BYTES).zip(out.chunks_exact_mut(64)) {
            if f16_at(b, 52) == 0.0 {
                o.fill(ZERO_BYTE);
                continue;
            }
            let mut codes = [0u8; 256];
            for (digits, bytes, at) in [(5, 0..32, 0), (5, 32..48, 160), (4, 48..52, 240)] {
                let width = bytes.len();
                for (plane, &power) in POWERS[..digits].iter().enumerate() {
                    let plane = &mut codes[at + plane * width..][..width];
                    for (c, &byte) in plane.iter_mut().zip(&b[bytes.clone()]) {
                        *c = digit(byte, power);
                    }
                }
            }
            gather(&codes, 0, o);
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
