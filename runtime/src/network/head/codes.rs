//! The integer codes of block-quantised rows: a stored row taken apart into codes, sub-scales and block floats, which
//! together are its values exactly (but for the last rounding of types with minimums).

use super::CodedRow;
use crate::format::float::{FloatType, six_bit_pair};
use bitnet_codegen::coded::{self, Form, LOOK_UP_ZERO};

/// What multiplies the second float of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lows {
    /// There is none.
    None,
    /// Each sub-block's minimum: `value = unit · scale · code + low · min`.
    Subs,
    /// Nothing: `value = unit · code + low`.
    Blocks,
}

/// How a stored type's codes are packed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Native {
    pub dtype: FloatType,
    pub form: &'static Form,
    /// The code that stands for 0.
    pub zero: i32,
    pub lows: Lows,
}

impl Native {
    /// The codes of `dtype`, if it has any that a kernel multiplies.
    pub fn of(dtype: FloatType) -> Option<Self> {
        use FloatType::*;
        let (form, zero, lows) = match dtype {
            Q8_0 => ("b8x32", 128, Lows::None),
            Q6K => ("b6s16", 32, Lows::None),
            Q4_0 => ("b4x32", 8, Lows::None),
            Q4_1 => ("b4x32", 0, Lows::Blocks),
            Q5_0 => ("b5x32", 16, Lows::None),
            Q5_1 => ("b5x32", 0, Lows::Blocks),
            Q4K => ("b4s32m", 0, Lows::Subs),
            Q5K => ("b5s32m", 0, Lows::Subs),
            IQ4NL => ("n4x32", LOOK_UP_ZERO, Lows::None),
            IQ4XS => ("n4s32", LOOK_UP_ZERO, Lows::None),
            F32 | F16 | BF16 | Q2K | Q3K => return None,
        };
        let form = coded::by_name(form).expect("a form of the list");
        Some(Self {
            dtype,
            form,
            zero,
            lows,
        })
    }

    /// Takes the row stored in `bytes` apart.
    pub fn code_row(&self, bytes: &[u8], row: &mut CodedRow) {
        let (elements, size) = self.dtype.block();
        let subs = self.form.sub.map_or(0, |s| elements / s.cols);
        let mins = if self.form.has_mins() { subs } else { 0 };
        for (b, block) in bytes.chunks_exact(size).enumerate() {
            let codes = &mut row.codes[b * elements..][..elements];
            let scales = &mut row.scales[b * subs..][..subs];
            let mins = &mut row.mins[b * mins..][..mins];
            (row.units[b], row.lows[b]) = self.code_block(block, codes, scales, mins);
        }
    }

    /// Codes, sub-scales and minimums of one block; its unit and low as bits of halves come back.
    fn code_block(
        &self,
        b: &[u8],
        codes: &mut [u8],
        scales: &mut [i8],
        mins: &mut [i8],
    ) -> (u16, u16) {
        use FloatType::*;
        let half = |at: usize| u16::from_le_bytes([b[at], b[at + 1]]);
        match self.dtype {
            Q8_0 => {
                for (code, &v) in codes.iter_mut().zip(&b[2..]) {
                    *code = v ^ 0x80;
                }
                (half(0), 0)
            }
            Q4_0 | IQ4NL => {
                nibbles(&b[2..18], codes);
                (half(0), 0)
            }
            Q4_1 => {
                nibbles(&b[4..20], codes);
                (half(0), half(2))
            }
            Q5_0 | Q5_1 => {
                let at = if self.dtype == Q5_0 { 2 } else { 4 };
                nibbles(&b[at + 4..], codes);
                let fifths = u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
                for (e, code) in codes.iter_mut().enumerate() {
                    *code |= ((fifths >> e & 1) << 4) as u8;
                }
                (half(0), if at == 2 { 0 } else { half(2) })
            }
            Q6K => {
                six_bits(b, codes);
                for (scale, &s) in scales.iter_mut().zip(&b[192..208]) {
                    *scale = s as i8;
                }
                (half(208), 0)
            }
            Q4K | Q5K => {
                let low = if self.dtype == Q4K { 16 } else { 48 };
                for (g, codes) in codes.chunks_exact_mut(64).enumerate() {
                    nibbles_of_32(&b[low + 32 * g..][..32], codes);
                }
                if self.dtype == Q5K {
                    for (e, code) in codes.iter_mut().enumerate() {
                        *code |= (b[16 + e % 32] >> (e / 32) & 1) << 4;
                    }
                }
                for s in 0..8 {
                    let (scale, min) = six_bit_pair(&b[4..16], s);
                    (scales[s], mins[s]) = (scale as i8, min as i8);
                }
                // The minimum is subtracted: the sign goes into the float.
                (half(0), half(2) ^ 0x8000)
            }
            IQ4XS => {
                let high = half(2);
                for (s, codes) in codes.chunks_exact_mut(32).enumerate() {
                    let low = b[4 + s / 2] >> (4 * (s % 2)) & 15;
                    scales[s] = (low | ((high >> (2 * s) & 3) << 4) as u8) as i8 - 32;
                    nibbles(&b[8 + 16 * s..][..16], codes);
                }
                (half(0), 0)
            }
            F32 | F16 | BF16 | Q2K | Q3K => unreachable!("{} has no codes", self.dtype),
        }
    }
}

/// The nibbles of 16 bytes, the low ones first.
fn nibbles(b: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(16);
    for ((low, high), &b) in low.iter_mut().zip(high).zip(b) {
        (*low, *high) = (b & 15, b >> 4);
    }
}

/// The nibbles of 32 bytes, the low ones first.
fn nibbles_of_32(b: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(32);
    for ((low, high), &b) in low.iter_mut().zip(high).zip(b) {
        (*low, *high) = (b & 15, b >> 4);
    }
}

/// The codes of a Q6_K block: see [`crate::format::float`].
fn six_bits(b: &[u8], codes: &mut [u8]) {
    for (h, codes) in codes.chunks_exact_mut(128).enumerate() {
        for (j, codes) in codes.chunks_exact_mut(32).enumerate() {
            let low = &b[64 * h + 32 * (j & 1)..][..32];
            let high = &b[128 + 32 * h..][..32];
            for ((code, &low), &high) in codes.iter_mut().zip(low).zip(high) {
                *code = (low >> (4 * (j >> 1)) & 15) | (high >> (2 * j) & 3) << 4;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::head::exact::tests::stored;
    use half::f16;

    /// Codes, scales and floats of a row give its decoded values.
    #[test]
    fn codes_are_the_stored_values() {
        let mut types = 0;
        for dtype in FloatType::ALL {
            let Some(native) = Native::of(dtype) else {
                continue;
            };
            types += 1;
            let k = 512;
            for seed in 0..20 {
                let bytes = stored(dtype, k, seed);
                let mut values = vec![0f32; k];
                dtype.decode(&bytes, &mut values);
                let mut row = CodedRow::new(native.form, k);
                native.code_row(&bytes, &mut row);
                let (block, sub) = (native.form.block_cols(k), native.form.sum_cols(k));
                for (c, &want) in values.iter().enumerate() {
                    let code = match native.form.values {
                        Some(values) => f64::from(values[row.codes[c] as usize]),
                        None => f64::from(i32::from(row.codes[c]) - native.zero),
                    };
                    let of = |v: &[i8]| v.get(c / sub).map_or(1.0, |&s| f64::from(s));
                    let float = |v: &[u16]| f16::from_bits(v[c / block]).to_f64();
                    let low = match native.lows {
                        Lows::None => 0.0,
                        Lows::Subs => float(&row.lows) * of(&row.mins),
                        Lows::Blocks => float(&row.lows),
                    };
                    let got = float(&row.units) * of(&row.scales) * code + low;
                    assert_eq!(got as f32, want, "{dtype} column {c}");
                    assert!(
                        native.lows != Lows::None || got == f64::from(want),
                        "{dtype}"
                    );
                }
            }
        }
        assert_eq!(types, 10);
    }
}
