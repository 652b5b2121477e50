//! [`KvType`]: how keys and values are stored, and where the parts of one head lie in a page.
//!
//! A head of a page is `[keys | values | scales of keys | scales of values]`: keys in blocks of [`KEY_BLOCK`] positions,
//! transposed (`[blocks, head_dim, KEY_BLOCK]`), so that a score is one element of a vector; values in slabs of [`SLAB`]
//! columns (`[slabs, PAGE, SLAB]`, the last filled up), each a stream of its own; scales, where the type has them, as
//! f32 `[groups, PAGE]`.
//!
//! Keys and values are rounded when they are stored, and attention reads the rounded ones alone, within a prompt, too:
//! so nothing depends on how a prompt was cut. A row that f16 cannot hold (squared ReLU makes values of 1e6) is stored
//! divided by a power of two, which is its scale; all others have the scale 1. Each row decides for itself: a sequence
//! that went over to f32 as a whole would answer otherwise when the same tokens come in other batches.

use super::cache::{KEY_BLOCK, PAGE};
use bitnet_codegen::trit::absmax;
use bytemuck::Pod;
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::fmt;
use std::str::FromStr;

/// Columns of values that lie together, and of a scale of [`KvType::Q8_0`].
pub const SLAB: usize = 32;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvType {
    /// As they are computed: 4 bytes.
    F32,
    /// Rounded to half precision, with a power of two for each position and head: 2 bytes.
    #[default]
    F16,
    /// Rounded to 8 bits, with an f32 scale for each 32 columns: 1⅛ bytes.
    Q8_0,
}

impl KvType {
    /// All types.
    pub const ALL: [KvType; 3] = [KvType::F32, KvType::F16, KvType::Q8_0];

    /// The name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::Q8_0 => "q8_0",
        }
    }

    /// The number in files.
    pub(super) fn id(self) -> u32 {
        match self {
            KvType::F32 => 0,
            KvType::F16 => 1,
            KvType::Q8_0 => 2,
        }
    }

    fn code_bytes(self) -> usize {
        match self {
            KvType::F32 => 4,
            KvType::F16 => 2,
            KvType::Q8_0 => 1,
        }
    }

    /// Scales of a row of `head_dim` columns.
    fn groups(self, head_dim: usize) -> usize {
        match self {
            KvType::F32 => 0,
            KvType::F16 => 1,
            KvType::Q8_0 => head_dim.div_ceil(SLAB),
        }
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no [`KvType`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown type of keys and values '{0}': expected f32, f16 or q8_0")]
pub struct UnknownKvType(String);

impl FromStr for KvType {
    type Err = UnknownKvType;

    fn from_str(name: &str) -> Result<Self, UnknownKvType> {
        let known = KvType::ALL.into_iter().find(|kv| kv.name() == name);
        known.ok_or_else(|| UnknownKvType(name.to_owned()))
    }
}

/// Where the parts of one head lie in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLayout {
    kv: KvType,
    head_dim: usize,
}

impl HeadLayout {
    /// Of heads of `head_dim` columns.
    pub fn new(kv: KvType, head_dim: usize) -> Self {
        Self { kv, head_dim }
    }

    /// The type.
    pub fn kv(&self) -> KvType {
        self.kv
    }

    /// Columns.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    fn groups(&self) -> usize {
        self.kv.groups(self.head_dim)
    }

    /// Slabs of values.
    pub fn slabs(&self) -> usize {
        self.head_dim.div_ceil(SLAB)
    }

    /// Bytes before the values.
    pub(super) fn values_at(&self) -> usize {
        PAGE * self.head_dim * self.kv.code_bytes()
    }

    /// Bytes before the scales of keys; those of values follow them.
    pub(super) fn scales_at(&self) -> usize {
        self.values_at() + PAGE * self.slabs() * SLAB * self.kv.code_bytes()
    }

    /// Bytes before the scales of values.
    pub(super) fn value_scales_at(&self) -> usize {
        self.scales_at() + self.groups() * PAGE * size_of::<f32>()
    }

    /// Bytes of one head in a page.
    pub fn bytes(&self) -> usize {
        self.value_scales_at() + self.groups() * PAGE * size_of::<f32>()
    }

    /// Bytes of the key and the value of one position.
    pub fn row_bytes(&self) -> usize {
        2 * (self.head_dim * self.kv.code_bytes() + self.groups() * size_of::<f32>())
    }

    /// Rounds a rotated key and a value, `[head_dim]` each, and writes them as `position` into its page's slot.
    pub fn store(&self, slot: &mut [u8], position: usize, key: &[f32], value: &[f32]) {
        let at = position % PAGE;
        match self.kv {
            KvType::F32 => {
                let copy = |x: &[f32], codes: &mut [f32]| {
                    codes.copy_from_slice(x);
                    1.0
                };
                self.put_key(slot, at, key, copy);
                self.put_value(slot, at, value, copy);
            }
            KvType::F16 => {
                let scale = f16_scale(key);
                self.put_key(slot, at, key, |x, codes| f16_codes(x, scale, codes));
                let scale = f16_scale(value);
                self.put_value(slot, at, value, |x, codes| f16_codes(x, scale, codes));
            }
            KvType::Q8_0 => {
                self.put_key(slot, at, key, |x, codes| 1.0 / absmax(x, codes));
                self.put_value(slot, at, value, |x, codes| 1.0 / absmax(x, codes));
            }
        }
    }

    /// Writes a key that `encode` turns into codes and a scale, [`SLAB`] columns at a time.
    fn put_key<C: Pod>(
        &self,
        slot: &mut [u8],
        at: usize,
        key: &[f32],
        encode: impl Fn(&[f32], &mut [C]) -> f32,
    ) {
        let mut codes = [C::zeroed(); SLAB];
        for (s, x) in key.chunks(SLAB).enumerate() {
            let scale = encode(x, &mut codes[..x.len()]);
            let keys: &mut [C] = bytemuck::cast_slice_mut(&mut slot[..self.values_at()]);
            let first = (at / KEY_BLOCK * self.head_dim + s * SLAB) * KEY_BLOCK;
            let columns = keys[first..].chunks_exact_mut(KEY_BLOCK);
            for (column, code) in columns.zip(&codes[..x.len()]) {
                column[at % KEY_BLOCK] = *code;
            }
            self.put_scale(&mut slot[self.scales_at()..], s, at, scale);
        }
    }

    /// As [`Self::put_key`].
    fn put_value<C: Pod>(
        &self,
        slot: &mut [u8],
        at: usize,
        value: &[f32],
        encode: impl Fn(&[f32], &mut [C]) -> f32,
    ) {
        for (s, x) in value.chunks(SLAB).enumerate() {
            let values = &mut slot[self.values_at()..self.scales_at()];
            let values: &mut [C] = bytemuck::cast_slice_mut(values);
            let scale = encode(x, &mut values[(s * PAGE + at) * SLAB..][..x.len()]);
            self.put_scale(&mut slot[self.value_scales_at()..], s, at, scale);
        }
    }

    fn put_scale(&self, scales: &mut [u8], slab: usize, at: usize, scale: f32) {
        if let Some(last) = self.groups().checked_sub(1) {
            let place = (slab.min(last) * PAGE + at) * size_of::<f32>();
            scales[place..][..size_of::<f32>()].copy_from_slice(&scale.to_ne_bytes());
        }
    }

    /// The bytes of one position in a slot, in the order in which they are saved: `[from, to)` pairs.
    fn pieces(&self, position: usize) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let (this, at, code) = (*self, position % PAGE, self.kv.code_bytes());
        let first = at / KEY_BLOCK * this.head_dim;
        let key =
            (0..this.head_dim).map(move |d| ((first + d) * KEY_BLOCK + at % KEY_BLOCK) * code);
        let key = key.map(move |from| from..from + code);
        let value = (0..this.slabs()).map(move |s| {
            let from = this.values_at() + (s * PAGE + at) * SLAB * code;
            from..from + SLAB.min(this.head_dim - s * SLAB) * code
        });
        let scales = (0..2 * this.groups()).map(move |g| {
            let from = this.scales_at() + (g * PAGE + at) * size_of::<f32>();
            from..from + size_of::<f32>()
        });
        key.chain(value).chain(scales)
    }

    /// Copies what [`Self::store`] wrote of `position` to `row`, [`Self::row_bytes`] long.
    pub fn save(&self, slot: &[u8], position: usize, row: &mut [u8]) {
        let mut at = 0;
        for piece in self.pieces(position) {
            row[at..at + piece.len()].copy_from_slice(&slot[piece.clone()]);
            at += piece.len();
        }
    }

    /// Writes what [`Self::save`] copied.
    pub fn restore(&self, slot: &mut [u8], position: usize, row: &[u8]) {
        let mut at = 0;
        for piece in self.pieces(position) {
            let len = piece.len();
            slot[piece].copy_from_slice(&row[at..at + len]);
            at += len;
        }
    }
}

/// 1, or the power of two that brings a row which f16 cannot hold to at most 2^15. What rounds past the end of f32, the
/// last 2⁻¹² of its range, becomes infinite, as any score of it would.
fn f16_scale(x: &[f32]) -> f32 {
    let largest = x.iter().fold(0, |m, v| m.max(v.to_bits() & 0x7fff_ffff));
    let exponent = (largest >> 23) as i32 - 127;
    // 65504 is the largest half; whatever is not finite stays so.
    if (65504f32.to_bits()..f32::INFINITY.to_bits()).contains(&largest) {
        f32::from_bits(((exponent - 14 + 127) as u32) << 23)
    } else {
        1.0
    }
}

/// `x / scale` as halves; the scale comes back.
fn f16_codes(x: &[f32], scale: f32, codes: &mut [f16]) -> f32 {
    let mut scaled = [0f32; SLAB];
    // The inverse of a power of two is exact.
    let inverse = 1.0 / scale;
    for (s, x) in scaled.iter_mut().zip(x) {
        *s = x * inverse;
    }
    codes.convert_from_f32_slice(&scaled[..x.len()]);
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for kv in KvType::ALL {
            assert_eq!(kv.name().parse(), Ok(kv));
        }
        let e = "f8".parse::<KvType>().unwrap_err();
        assert!(e.to_string().contains("'f8'"), "{e}");
    }

    #[test]
    fn a_row_beyond_f16_is_scaled_by_a_power_of_two_and_others_are_not() {
        for (largest, want) in [
            (0.0, 1.0),
            (1.0, 1.0),
            (65503.9, 1.0),
            (65504.0, 2.0),
            (65520.0, 2.0),
            (1e6, 32.0),
            (3e38, 2f32.powi(113)),
        ] {
            let scale = f16_scale(&[0.5, -largest]);
            assert_eq!(scale, want, "{largest}");
            let mut codes = [f16::ZERO; 2];
            f16_codes(&[0.5, -largest], scale, &mut codes);
            let back = codes[1].to_f32() * scale;
            assert!(
                (back + largest).abs() <= largest * 2f32.powi(-11),
                "{largest}: {back}"
            );
        }
        assert_eq!(f16_scale(&[f32::INFINITY, 1e6]), 1.0);
        assert_eq!(f16_scale(&[f32::NAN]), 1.0);
    }

    #[test]
    fn what_is_saved_of_a_position_is_all_of_it() {
        for kv in KvType::ALL {
            for head_dim in [4, 32, 36, 128] {
                let layout = HeadLayout::new(kv, head_dim);
                let row = |seed: usize| -> Vec<f32> {
                    (0..head_dim)
                        .map(|d| ((d * 37 + seed) % 91) as f32 - 45.0)
                        .collect()
                };
                let (mut slot, mut other) = (
                    vec![0f32; layout.bytes() / 4],
                    vec![0f32; layout.bytes() / 4],
                );
                let slot: &mut [u8] = bytemuck::cast_slice_mut(&mut slot);
                let other: &mut [u8] = bytemuck::cast_slice_mut(&mut other);
                let mut saved = vec![0u8; layout.row_bytes()];
                for position in [0, 1, 33, PAGE - 1, PAGE + 40] {
                    layout.store(slot, position, &row(position), &row(position + 7));
                    layout.save(slot, position, &mut saved);
                    layout.restore(other, position, &saved);
                }
                assert!(slot == other, "{kv} {head_dim}");
            }
        }
    }
}
