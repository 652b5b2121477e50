//! The meaning of block-quantised floats: one block of bytes to its values, in the order of operations that ggml
//! has, so that values are its bits.
//!
//! Loops run over elements that share a multiplier, without branches and with constant shifts: the head inlines
//! them into functions that are compiled for wider vectors. (With the multiplier found again for each element, a Q4_K
//! head of 2B-4T gave 1.8 tokens/s on one thread.)

/// IEEE half to single without branches, so that it vectorises on any CPU: each of the three cases is computed.
#[inline(always)]
pub(super) fn half_to_f32(h: u16) -> f32 {
    let (sign, rest) = ((h as u32 & 0x8000) << 16, h as u32 & 0x7fff);
    let normal = (rest << 13) + (112 << 23);
    let subnormal = (rest as i32 as f32 * (1.0 / (1 << 24) as f32)).to_bits();
    let special = (rest << 13) | 0x7f80_0000;
    let bits = if rest < 0x0400 { subnormal } else { normal };
    let bits = if rest >= 0x7c00 { special } else { bits };
    f32::from_bits(bits | sign)
}

#[inline(always)]
fn half(b: &[u8], at: usize) -> f32 {
    half_to_f32(u16::from_le_bytes([b[at], b[at + 1]]))
}

/// Runs a block of code for both halves H and four quarters J of 256 elements, as constants, and both parts of 16.
/// Left as loops, LLVM shifts by running numbers, which takes two to five times as long.
macro_rules! in_quarters {
    (|$h:ident, $j:ident, $part:ident| $body:block) => {
        in_quarters!(@ $h $j $part $body, (0 0) (0 1) (0 2) (0 3) (1 0) (1 1) (1 2) (1 3))
    };
    (@ $h:ident $j:ident $part:ident $body:block, $(($half:literal $quarter:literal))*) => {
        $({
            const $h: usize = $half;
            const $j: usize = $quarter;
            for $part in 0..2 $body
        })*
    };
}

/// Runs a block of code for eight runs of 32 elements, the run's number as a constant.
macro_rules! in_runs {
    (|$run:ident| $body:block) => {
        in_runs!(@ $run $body, 0 1 2 3 4 5 6 7)
    };
    (@ $run:ident $body:block, $($n:literal)*) => {
        $({
            const $run: usize = $n;
            $body
        })*
    };
}

/// The nibbles of 16 bytes, the low ones first.
#[inline(always)]
fn nibbles(b: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for i in 0..16 {
        out[i] = b[i] & 15;
    }
    for i in 0..16 {
        out[16 + i] = b[i] >> 4;
    }
    out
}

/// Five-bit codes: nibbles, and bit `e` of the little-endian word in front of them.
#[inline(always)]
fn fives(b: &[u8]) -> [u8; 32] {
    let high = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    let low = nibbles(&b[4..]);
    std::array::from_fn(|e| low[e] | ((high >> e & 1) << 4) as u8)
}

#[inline(always)]
pub(super) fn q8_0(b: &[u8; 34], out: &mut [f32; 32]) {
    let d = half(b, 0);
    for i in 0..32 {
        out[i] = d * (b[2 + i] as i8) as f32;
    }
}

#[inline(always)]
pub(super) fn q4_0(b: &[u8; 18], out: &mut [f32; 32]) {
    let (d, codes) = (half(b, 0), nibbles(&b[2..]));
    for i in 0..32 {
        out[i] = d * (codes[i] as i8 - 8) as f32;
    }
}

#[inline(always)]
pub(super) fn q4_1(b: &[u8; 20], out: &mut [f32; 32]) {
    let (d, min, codes) = (half(b, 0), half(b, 2), nibbles(&b[4..]));
    for i in 0..32 {
        out[i] = d * codes[i] as f32 + min;
    }
}

#[inline(always)]
pub(super) fn q5_0(b: &[u8; 22], out: &mut [f32; 32]) {
    let (d, codes) = (half(b, 0), fives(&b[2..]));
    for i in 0..32 {
        out[i] = d * (codes[i] as i8 - 16) as f32;
    }
}

#[inline(always)]
pub(super) fn q5_1(b: &[u8; 24], out: &mut [f32; 32]) {
    let (d, min, codes) = (half(b, 0), half(b, 2), fives(&b[4..]));
    for i in 0..32 {
        out[i] = d * codes[i] as f32 + min;
    }
}

/// 16 bytes of multiplier (low nibble) and minimum (high nibble), 64 of bit pairs, then two f16: element
/// `128h + 32j + l` is pair `j` of byte `32h + l`.
#[inline(always)]
pub(super) fn q2_k(b: &[u8; 84], out: &mut [f32; 256]) {
    let (d, dmin) = (half(b, 80), half(b, 82));
    in_quarters!(|H, J, part| {
        let s = b[8 * H + 2 * J + part];
        let (scale, min) = (d * (s & 15) as f32, dmin * (s >> 4) as f32);
        for i in 0..16 {
            let code = b[16 + 32 * H + 16 * part + i] >> (2 * J) & 3;
            out[128 * H + 32 * J + 16 * part + i] = scale * code as f32 - min;
        }
    });
}

/// 32 bytes of third bits (a set bit adds 4), 64 of bit pairs as in [`q2_k`], 12 of six-bit scales, an f16.
/// Scale `s` has its low nibble in the nibbles of the first eight bytes and its upper bits in the last four.
#[inline(always)]
pub(super) fn q3_k(b: &[u8; 110], out: &mut [f32; 256]) {
    let (scales, d) = (&b[96..108], half(b, 108));
    in_quarters!(|H, J, part| {
        let s = 2 * J + part;
        let low = scales[s] >> (4 * H) & 15;
        let high = scales[8 + s % 4] >> (4 * H + 2 * (s / 4)) & 3;
        let scale = d * ((low | high << 4) as i32 - 32) as f32;
        for i in 0..16 {
            let l = 16 * part + i;
            let third = b[l] >> (4 * H + J) & 1;
            let code = b[32 + 32 * H + l] >> (2 * J) & 3 | third << 2;
            out[128 * H + 32 * J + l] = scale * (code as i32 - 4) as f32;
        }
    });
}

/// Multiplier and minimum `s` of eight, six bits each, in 12 bytes: four whole ones of each kind, whose upper
/// two bits complete the nibbles of the other four.
#[inline(always)]
pub(crate) fn six_bit_pair(b: &[u8], s: usize) -> (u8, u8) {
    if s < 4 {
        (b[s] & 63, b[s + 4] & 63)
    } else {
        let (scale, min) = (b[s + 4] & 15, b[s + 4] >> 4);
        (scale | b[s - 4] >> 6 << 4, min | b[s] >> 6 << 4)
    }
}

/// Two f16, 12 bytes of [`six_bit_pair`]s, 128 of nibbles: element `64g + l` is a low, `64g + 32 + l` a high nibble
/// of byte `32g + l`.
#[inline(always)]
pub(super) fn q4_k(b: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (half(b, 0), half(b, 2));
    in_runs!(|RUN| {
        let (scale, min) = six_bit_pair(&b[4..16], RUN);
        let (scale, min) = (d * scale as f32, dmin * min as f32);
        for i in 0..32 {
            let code = b[16 + 32 * (RUN / 2) + i] >> (4 * (RUN % 2)) & 15;
            out[32 * RUN + i] = scale * code as f32 - min;
        }
    });
}

/// As [`q4_k`], with 32 bytes in front of the nibbles whose bit `e / 32` is the fifth of element `e`.
#[inline(always)]
pub(super) fn q5_k(b: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (half(b, 0), half(b, 2));
    in_runs!(|RUN| {
        let (scale, min) = six_bit_pair(&b[4..16], RUN);
        let (scale, min) = (d * scale as f32, dmin * min as f32);
        for i in 0..32 {
            let low = b[48 + 32 * (RUN / 2) + i] >> (4 * (RUN % 2)) & 15;
            let code = low | (b[16 + i] >> RUN & 1) << 4;
            out[32 * RUN + i] = scale * code as f32 - min;
        }
    });
}

/// Low nibbles in 128 bytes, high bit pairs in 64, 16 int8 scales, then the f16 multiplier:
/// element `128h + 32j + l` takes nibble `j / 2` of `low[64h + 32(j & 1) + l]` and pair `j` of `high[32h + l]`.
#[inline(always)]
pub(super) fn q6_k(b: &[u8; 210], out: &mut [f32; 256]) {
    let d = half(b, 208);
    in_quarters!(|H, J, part| {
        let scale = d * (b[192 + 8 * H + 2 * J + part] as i8) as f32;
        for i in 0..16 {
            let l = 16 * part + i;
            let low = b[64 * H + 32 * (J & 1) + l] >> (4 * (J >> 1));
            let high = b[128 + 32 * H + l] >> (2 * J);
            let code = (low & 15) | (high & 3) << 4;
            out[128 * H + 32 * J + l] = scale * (code as i32 - 32) as f32;
        }
    });
}

/// What the codes of IQ4_NL and IQ4_XS stand for.
const NON_LINEAR: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

#[inline(always)]
fn non_linear(d: f32, b: &[u8], out: &mut [f32; 32]) {
    let codes = nibbles(b);
    for i in 0..32 {
        out[i] = d * NON_LINEAR[codes[i] as usize & 15] as f32;
    }
}

#[inline(always)]
pub(super) fn iq4_nl(b: &[u8; 18], out: &mut [f32; 32]) {
    non_linear(half(b, 0), &b[2..], out);
}

/// An f16, the upper bit pairs of eight scales, their low nibbles in four bytes, then 16 bytes of nibbles
/// for each 32 elements.
#[inline(always)]
pub(super) fn iq4_xs(b: &[u8; 136], out: &mut [f32; 256]) {
    let (d, high) = (half(b, 0), u16::from_le_bytes([b[2], b[3]]));
    for (s, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let low = b[4 + s / 2] >> (4 * (s % 2)) & 15;
        let scale = (low as u16 | (high >> (2 * s) & 3) << 4) as i32 - 32;
        non_linear(d * scale as f32, &b[8 + 16 * s..][..16], out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_converted_exactly() {
        for h in 0..=u16::MAX {
            let (got, want) = (half_to_f32(h), half::f16::from_bits(h).to_f32());
            assert!(
                got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                "{h:#06x}: {got}, not {want}"
            );
        }
    }
}
