//! The meaning of block-quantised floats: one block of bytes to its values, element by element, in the order of
//! operations that ggml has, so that values are its bits.

use half::f16;

fn half(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

/// Nibble `e` of 16 bytes: the low ones come first.
fn nibble(b: &[u8], e: usize) -> u8 {
    if e < 16 { b[e] & 15 } else { b[e - 16] >> 4 }
}

pub(super) fn q8_0(b: &[u8], out: &mut [f32]) {
    let d = half(b, 0);
    for (o, &q) in out.iter_mut().zip(&b[2..]) {
        *o = d * (q as i8) as f32;
    }
}

pub(super) fn q4_0(b: &[u8], out: &mut [f32]) {
    let d = half(b, 0);
    for (e, o) in out.iter_mut().enumerate() {
        *o = d * (nibble(&b[2..], e) as i32 - 8) as f32;
    }
}

pub(super) fn q4_1(b: &[u8], out: &mut [f32]) {
    let (d, min) = (half(b, 0), half(b, 2));
    for (e, o) in out.iter_mut().enumerate() {
        *o = d * nibble(&b[4..], e) as f32 + min;
    }
}

/// Five bits: a nibble, and bit `e` of the little-endian word in front of the nibbles.
fn five(high: &[u8], low: &[u8], e: usize) -> u8 {
    nibble(low, e) | (high[e / 8] >> (e % 8) & 1) << 4
}

pub(super) fn q5_0(b: &[u8], out: &mut [f32]) {
    let d = half(b, 0);
    for (e, o) in out.iter_mut().enumerate() {
        *o = d * (five(&b[2..6], &b[6..], e) as i32 - 16) as f32;
    }
}

pub(super) fn q5_1(b: &[u8], out: &mut [f32]) {
    let (d, min) = (half(b, 0), half(b, 2));
    for (e, o) in out.iter_mut().enumerate() {
        *o = d * five(&b[4..8], &b[8..], e) as f32 + min;
    }
}

/// 16 bytes of multiplier (low nibble) and minimum (high nibble), 64 of bit pairs, then two f16: element
/// `128h + 32j + l` is pair `j` of byte `32h + l`.
pub(super) fn q2_k(b: &[u8], out: &mut [f32]) {
    let (scales, codes, d, dmin) = (&b[..16], &b[16..80], half(b, 80), half(b, 82));
    for (e, o) in out.iter_mut().enumerate() {
        let (h, j, l) = (e / 128, e % 128 / 32, e % 32);
        let scale = scales[e / 16];
        let code = codes[32 * h + l] >> (2 * j) & 3;
        *o = d * (scale & 15) as f32 * code as f32 - dmin * (scale >> 4) as f32;
    }
}

/// 32 bytes of third bits (a set bit adds 4), 64 of bit pairs as in [`q2_k`], 12 of six-bit scales, an f16.
/// Scale `s` has its low nibble in the nibbles of the first eight bytes and its upper bits in the last four.
pub(super) fn q3_k(b: &[u8], out: &mut [f32]) {
    let (thirds, codes, scales, d) = (&b[..32], &b[32..96], &b[96..108], half(b, 108));
    for (e, o) in out.iter_mut().enumerate() {
        let (h, j, l) = (e / 128, e % 128 / 32, e % 32);
        let s = e / 16;
        let low = scales[s % 8] >> (4 * (s / 8)) & 15;
        let high = scales[8 + s % 4] >> (2 * (s / 4)) & 3;
        let scale = (low | high << 4) as i32 - 32;
        let third = thirds[l] >> (4 * h + j) & 1;
        let code = (codes[32 * h + l] >> (2 * j) & 3 | third << 2) as i32 - 4;
        *o = d * scale as f32 * code as f32;
    }
}

/// Multiplier and minimum `s` of eight, six bits each, in 12 bytes: four whole ones of each kind, whose upper
/// two bits complete the nibbles of the other four.
fn six_bit_pair(b: &[u8], s: usize) -> (u8, u8) {
    if s < 4 {
        (b[s] & 63, b[s + 4] & 63)
    } else {
        let (scale, min) = (b[s + 4] & 15, b[s + 4] >> 4);
        (scale | b[s - 4] >> 6 << 4, min | b[s] >> 6 << 4)
    }
}

/// Two f16, 12 bytes of [`six_bit_pair`]s, 128 of nibbles: element `64g + l` is a low, `64g + 32 + l` a high nibble
/// of byte `32g + l`.
pub(super) fn q4_k(b: &[u8], out: &mut [f32]) {
    k_pairs(b, out, |e| {
        b[16 + e / 64 * 32 + e % 32] >> (4 * (e / 32 % 2)) & 15
    });
}

/// As [`q4_k`], with 32 bytes in front of the nibbles whose bit `e / 32` is the fifth of element `e`.
pub(super) fn q5_k(b: &[u8], out: &mut [f32]) {
    k_pairs(b, out, |e| {
        let low = b[48 + e / 64 * 32 + e % 32] >> (4 * (e / 32 % 2)) & 15;
        low | (b[16 + e % 32] >> (e / 32) & 1) << 4
    });
}

fn k_pairs(b: &[u8], out: &mut [f32], code: impl Fn(usize) -> u8) {
    let (d, dmin) = (half(b, 0), half(b, 2));
    for (e, o) in out.iter_mut().enumerate() {
        let (scale, min) = six_bit_pair(&b[4..16], e / 32);
        *o = d * scale as f32 * code(e) as f32 - dmin * min as f32;
    }
}

/// Low nibbles in 128 bytes, high bit pairs in 64, 16 int8 scales, then the f16 multiplier:
/// element `128h + 32j + l` takes nibble `j / 2` of `low[64h + 32(j & 1) + l]` and pair `j` of `high[32h + l]`.
pub(super) fn q6_k(b: &[u8], out: &mut [f32]) {
    let (low, high, scales, d) = (&b[..128], &b[128..192], &b[192..208], half(b, 208));
    for (e, o) in out.iter_mut().enumerate() {
        let (h, j, l) = (e / 128, e % 128 / 32, e % 32);
        let lo = (low[64 * h + 32 * (j & 1) + l] >> if j >= 2 { 4 } else { 0 }) & 15;
        let hi = (high[32 * h + l] >> (2 * j)) & 3;
        let scale = scales[8 * h + 2 * j + l / 16] as i8;
        *o = d * scale as f32 * ((lo | hi << 4) as i32 - 32) as f32;
    }
}

/// What the codes of IQ4_NL and IQ4_XS stand for.
const NON_LINEAR: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

pub(super) fn iq4_nl(b: &[u8], out: &mut [f32]) {
    let d = half(b, 0);
    for (e, o) in out.iter_mut().enumerate() {
        *o = d * NON_LINEAR[nibble(&b[2..], e) as usize] as f32;
    }
}

/// An f16, the upper bit pairs of eight scales, their low nibbles in four bytes, then 16 bytes of nibbles
/// for each 32 elements.
pub(super) fn iq4_xs(b: &[u8], out: &mut [f32]) {
    let (d, high) = (half(b, 0), u16::from_le_bytes([b[2], b[3]]));
    for (e, o) in out.iter_mut().enumerate() {
        let s = e / 32;
        let low = b[4 + s / 2] >> (4 * (s % 2)) & 15;
        let scale = (low as u16 | (high >> (2 * s) & 3) << 4) as i32 - 32;
        let code = nibble(&b[8 + 16 * s..], e % 32);
        *o = d * scale as f32 * NON_LINEAR[code as usize] as f32;
    }
}
