//! Storage types whose bytes hold 2-bit codes: I2_S, TQ2_0, Q2_0, IQ2_BN, IQ2_BN_R4, HF packed.
//!
//! Most are *planes*: byte p of a block holds the codes of columns p, p+L, p+2L, p+3L. A plane is
//! turned into consecutive codes eight bytes at a time, which keeps a 2B model's load in seconds.

use half::f16;

use bitnet_codegen::trit::CODE_ZERO;

use super::{RowDecoder, StoredScales};

/// Four codes of the trit 0.
pub(super) const ZERO_BYTE: u8 = 0b01_01_01_01;

/// Packs the codes at `shift` of each byte of `src` four a byte: `out[i]` holds those of `src[4i..]`.
pub(super) fn gather(src: &[u8], shift: u32, out: &mut [u8]) {
    let full = (src.len() / 8).min(out.len() / 2);
    let (src, src_tail) = src.split_at(8 * full);
    let (out, out_tail) = out.split_at_mut(2 * full);
    for (o, &w) in out
        .as_chunks_mut::<2>()
        .0
        .iter_mut()
        .zip(src.as_chunks::<8>().0)
    {
        let x = (u64::from_le_bytes(w) >> shift) & 0x0303_0303_0303_0303;
        // Codes at bits 0 and 8 join in 4 bits, two of those join in 8.
        let x = (x | x >> 6) & 0x000f_000f_000f_000f;
        let x = x | x >> 12;
        *o = [x as u8, (x >> 32) as u8];
    }
    for (o, codes) in out_tail.iter_mut().zip(src_tail.chunks(4)) {
        *o = codes
            .iter()
            .enumerate()
            .fold(0, |b, (i, c)| b | ((c >> shift) & 3) << (2 * i));
    }
}

pub(super) fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

pub(super) fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// I2_S: one stream of N·K codes in blocks of 4·L (L = 32 or 16), the first plane in the high bits;
/// the tensor's scale follows.
///
/// ```text
/// element e: block e/4L, plane g = e%4L / L, byte p = e%L    →  byte L·block + p, bits 7−2g..6−2g
/// ```
pub(super) struct I2s<'a> {
    bytes: &'a [u8],
    n: usize,
    k: usize,
    lanes: usize,
}

impl<'a> I2s<'a> {
    pub(super) fn new(bytes: &'a [u8], n: usize, k: usize, block: usize) -> Self {
        assert!(block == 128 || block == 64, "I2_S blocks of {block}");
        assert_eq!(
            bytes.len(),
            n * k / 4 + 32,
            "bytes of a {n}x{k} I2_S tensor"
        );
        Self {
            bytes,
            n,
            k,
            lanes: block / 4,
        }
    }

    /// The tensor's scale.
    pub(super) fn scale(&self) -> f32 {
        f32_at(self.bytes, self.n * self.k / 4)
    }

    fn code(&self, e: usize) -> u8 {
        let l = self.lanes;
        let (block, plane, p) = (e / (4 * l), e % (4 * l) / l, e % l);
        (self.bytes[block * l + p] >> (6 - 2 * plane)) & 3
    }
}

impl RowDecoder for I2s<'_> {
    fn scales(&self) -> StoredScales {
        StoredScales::tensor(self.scale())
    }

    fn row(&mut self, r: usize, out: &mut [u8]) {
        let l = self.lanes;
        let first = r * self.k;
        if !self.k.is_multiple_of(l) {
            // Blocks cut across rows at any column; no shipped shape is like this.
            for (i, o) in out.iter_mut().enumerate() {
                let codes = (4 * i..self.k.min(4 * i + 4)).map(|c| self.code(first + c));
                *o = codes.enumerate().fold(0, |b, (j, c)| b | c << (2 * j));
            }
            return;
        }
        // A row is a run of planes, even where it starts in the middle of a block (K = 8640).
        for (plane, o) in (first / l..).zip(out.chunks_exact_mut(l / 4)) {
            gather(
                &self.bytes[plane / 4 * l..][..l],
                6 - 2 * (plane % 4) as u32,
                o,
            );
        }
    }
}

/// TQ2_0: blocks of 256 in two halves of four planes of 32, the first plane in the low bits, then an f16 scale.
pub(super) struct Tq2<'a> {
    bytes: &'a [u8],
    row_bytes: usize,
}

const TQ2_BYTES: usize = 66;

impl<'a> Tq2<'a> {
    pub(super) fn new(bytes: &'a [u8], n: usize, k: usize) -> Self {
        let row_bytes = k / 256 * TQ2_BYTES;
        assert_eq!(
            bytes.len(),
            n * row_bytes,
            "bytes of a {n}x{k} TQ2_0 tensor"
        );
        Self { bytes, row_bytes }
    }
}

impl RowDecoder for Tq2<'_> {
    fn scales(&self) -> StoredScales {
        let values = self
            .bytes
            .chunks_exact(TQ2_BYTES)
            .map(|b| f16_at(b, 64))
            .collect();
        StoredScales {
            group_k: Some(256),
            values,
        }
    }

    fn row(&mut self, r: usize, out: &mut [u8]) {
        let row = &self.bytes[r * self.row_bytes..][..self.row_bytes];
        for (b, o) in row.chunks_exact(TQ2_BYTES).zip(out.chunks_exact_mut(64)) {
            if f16_at(b, 64) == 0.0 {
                o.fill(ZERO_BYTE);
                continue;
            }
            for (plane, o) in o.chunks_exact_mut(8).enumerate() {
                gather(&b[plane / 4 * 32..][..32], 2 * (plane % 4) as u32, o);
            }
        }
    }
}

/// Q2_0 and PQ2_0: an f16 scale, then 64 or 128 consecutive codes, low bits first: the neutral order.
pub(super) struct Q2<'a> {
    bytes: &'a [u8],
    row_bytes: usize,
    group_k: usize,
}

impl<'a> Q2<'a> {
    pub(super) fn new(bytes: &'a [u8], n: usize, k: usize, group_k: usize) -> Self {
        let row_bytes = k / group_k * (2 + group_k / 4);
        assert_eq!(bytes.len(), n * row_bytes, "bytes of a {n}x{k} Q2_0 tensor");
        Self {
            bytes,
            row_bytes,
            group_k,
        }
    }

    fn block_bytes(&self) -> usize {
        2 + self.group_k / 4
    }
}

impl RowDecoder for Q2<'_> {
    fn scales(&self) -> StoredScales {
        let values = self
            .bytes
            .chunks_exact(self.block_bytes())
            .map(|b| f16_at(b, 0))
            .collect();
        StoredScales {
            group_k: Some(self.group_k),
            values,
        }
    }

    fn row(&mut self, r: usize, out: &mut [u8]) {
        let row = &self.bytes[r * self.row_bytes..][..self.row_bytes];
        let blocks = row.chunks_exact(self.block_bytes());
        for (b, o) in blocks.zip(out.chunks_exact_mut(self.group_k / 4)) {
            if f16_at(b, 0) == 0.0 {
                o.fill(ZERO_BYTE);
            } else {
                o.copy_from_slice(&b[2..]);
            }
        }
    }
}

/// IQ2_BN: an f32 scale a row, then blocks of 64 in four planes of 16, the first in the low bits.
pub(super) struct Iq2Bn<'a> {
    bytes: &'a [u8],
    n: usize,
    row_bytes: usize,
}

impl<'a> Iq2Bn<'a> {
    pub(super) fn new(bytes: &'a [u8], n: usize, k: usize) -> Self {
        let row_bytes = 4 + k / 4;
        assert_eq!(
            bytes.len(),
            n * row_bytes,
            "bytes of a {n}x{k} IQ2_BN tensor"
        );
        Self {
            bytes,
            n,
            row_bytes,
        }
    }
}

impl RowDecoder for Iq2Bn<'_> {
    fn scales(&self) -> StoredScales {
        let values = (0..self.n)
            .map(|r| f32_at(self.bytes, r * self.row_bytes))
            .collect();
        StoredScales {
            group_k: Some(self.row_bytes * 4),
            values,
        }
    }

    fn row(&mut self, r: usize, out: &mut [u8]) {
        let row = &self.bytes[r * self.row_bytes..][..self.row_bytes];
        if f32_at(row, 0) == 0.0 {
            // The writer stores an all-zero row as +1 codes under a zero scale.
            return out.fill(ZERO_BYTE);
        }
        for (plane, o) in out.chunks_exact_mut(4).enumerate() {
            gather(&row[4 + plane / 4 * 16..][..16], 2 * (plane % 4) as u32, o);
        }
    }
}

/// IQ2_BN_R4: four rows share four f32 scales and then blocks of 64 bytes for 64 columns: byte
/// `4·row + i + 16l` holds columns 16l+i, +4, +8, +12 from the low bits up.
pub(super) struct Iq2BnR4<'a> {
    bytes: &'a [u8],
    n: usize,
    quad_bytes: usize,
}

impl<'a> Iq2BnR4<'a> {
    pub(super) fn new(bytes: &'a [u8], n: usize, k: usize) -> Self {
        assert!(
            n.is_multiple_of(4),
            "{n} rows of IQ2_BN_R4: the reader checked for quads"
        );
        let quad_bytes = 16 + k;
        assert_eq!(
            bytes.len(),
            n / 4 * quad_bytes,
            "bytes of a {n}x{k} IQ2_BN_R4 tensor"
        );
        Self {
            bytes,
            n,
            quad_bytes,
        }
    }
}

impl RowDecoder for Iq2BnR4<'_> {
    fn scales(&self) -> StoredScales {
        let values = (0..self.n)
            .map(|r| f32_at(self.bytes, r / 4 * self.quad_bytes + r % 4 * 4))
            .collect();
        StoredScales {
            group_k: Some(self.quad_bytes * 4),
            values,
        }
    }

    fn row(&mut self, r: usize, out: &mut [u8]) {
        let quad = &self.bytes[r / 4 * self.quad_bytes..][..self.quad_bytes];
        if f32_at(quad, r % 4 * 4) == 0.0 {
            return out.fill(ZERO_BYTE);
        }
        // 16 columns lie in four bytes; plane s of them is columns 4s..4s+3.
        for (l, o) in out.chunks_exact_mut(4).enumerate() {
            let four = &quad[16 + l * 16 + r % 4 * 4..][..4];
            for (s, o) in o.chunks_exact_mut(1).enumerate() {
                gather(four, 2 * s as u32, o);
            }
        }
    }
}

/// Hugging Face: byte `(r, c)` holds column c of rows r, r+R, r+2R, r+3R from the low bits up, R = ⌈N/4⌉.
pub(super) struct HfPacked<'a> {
    bytes: &'a [u8],
    quarter: usize,
    k: usize,
}

impl<'a> HfPacked<'a> {
    pub(super) fn new(bytes: &'a [u8], n: usize, k: usize) -> Self {
        let quarter = n.div_ceil(4);
        assert_eq!(
            bytes.len(),
            quarter * k,
            "bytes of a {n}x{k} packed U8 tensor"
        );
        Self { bytes, quarter, k }
    }
}

impl RowDecoder for HfPacked<'_> {
    fn scales(&self) -> StoredScales {
        StoredScales::tensor(1.0)
    }

    fn row(&mut self, r: usize, out: &mut [u8]) {
        let row = &self.bytes[r % self.quarter * self.k..][..self.k];
        gather(row, 2 * (r / self.quarter) as u32, out);
    }
}

const _: () = assert!(ZERO_BYTE & 3 == CODE_ZERO);
