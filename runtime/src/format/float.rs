//! Float tables: the types that embeddings, heads and norms come in, and how to read them.

use std::fmt;

use half::f16;

/// A type whose rows decode to f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatType {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of an IEEE single.
    BF16,
    /// 32 int8 values and an f16 multiplier.
    Q8_0,
    /// 256 six-bit values, 16 int8 sub-multipliers and an f16 multiplier.
    Q6K,
    /// 32 four-bit values and an f16 multiplier.
    Q4_0,
}

impl FloatType {
    /// Every float type.
    pub const ALL: [FloatType; 6] = [
        FloatType::F32,
        FloatType::F16,
        FloatType::BF16,
        FloatType::Q8_0,
        FloatType::Q6K,
        FloatType::Q4_0,
    ];

    /// The name GGUF tools use.
    pub fn name(self) -> &'static str {
        match self {
            FloatType::F32 => "F32",
            FloatType::F16 => "F16",
            FloatType::BF16 => "BF16",
            FloatType::Q8_0 => "Q8_0",
            FloatType::Q6K => "Q6_K",
            FloatType::Q4_0 => "Q4_0",
        }
    }

    /// The id in GGUF files.
    pub fn ggml_id(self) -> u32 {
        match self {
            FloatType::F32 => 0,
            FloatType::F16 => 1,
            FloatType::BF16 => 30,
            FloatType::Q8_0 => 8,
            FloatType::Q6K => 14,
            FloatType::Q4_0 => 2,
        }
    }

    /// Elements and bytes of one block; a row is a whole number of blocks.
    pub fn block(self) -> (usize, usize) {
        match self {
            FloatType::F32 => (1, 4),
            FloatType::F16 | FloatType::BF16 => (1, 2),
            FloatType::Q8_0 => (32, 34),
            FloatType::Q6K => (256, 210),
            FloatType::Q4_0 => (32, 18),
        }
    }

    /// Bytes of a row of `cols` elements.
    ///
    /// # Panics
    /// When `cols` is not a whole number of blocks; readers refuse such tensors.
    pub fn row_bytes(self, cols: usize) -> usize {
        let (elements, bytes) = self.block();
        assert!(
            cols.is_multiple_of(elements),
            "{cols} columns of {self}: not whole blocks of {elements}"
        );
        cols / elements * bytes
    }

    /// Decodes whole blocks.
    ///
    /// # Panics
    /// When `bytes` is not exactly the storage of `out.len()` elements.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(
            bytes.len(),
            self.row_bytes(out.len()),
            "bytes of {} {self} elements",
            out.len()
        );
        match self {
            FloatType::F32 => each(bytes, out, |b: [u8; 4]| f32::from_le_bytes(b)),
            FloatType::F16 => each(bytes, out, |b: [u8; 2]| f16::from_le_bytes(b).to_f32()),
            FloatType::BF16 => each(bytes, out, |b: [u8; 2]| {
                f32::from_bits((u16::from_le_bytes(b) as u32) << 16)
            }),
            FloatType::Q8_0 => blocks(bytes, out, 34, 32, |b, o| {
                let d = half(b, 0);
                for (o, &q) in o.iter_mut().zip(&b[2..]) {
                    *o = d * (q as i8) as f32;
                }
            }),
            FloatType::Q4_0 => blocks(bytes, out, 18, 32, |b, o| {
                let d = half(b, 0);
                let (low, high) = o.split_at_mut(16);
                for (i, &q) in b[2..].iter().enumerate() {
                    low[i] = d * ((q & 15) as i32 - 8) as f32;
                    high[i] = d * ((q >> 4) as i32 - 8) as f32;
                }
            }),
            FloatType::Q6K => blocks(bytes, out, 210, 256, q6_k),
        }
    }
}

impl fmt::Display for FloatType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn each<const B: usize>(bytes: &[u8], out: &mut [f32], decode: impl Fn([u8; B]) -> f32) {
    let (chunks, _) = bytes.as_chunks::<B>();
    for (o, &b) in out.iter_mut().zip(chunks) {
        *o = decode(b);
    }
}

fn blocks(
    bytes: &[u8],
    out: &mut [f32],
    block_bytes: usize,
    block: usize,
    decode: impl Fn(&[u8], &mut [f32]),
) {
    for (b, o) in bytes
        .chunks_exact(block_bytes)
        .zip(out.chunks_exact_mut(block))
    {
        decode(b, o);
    }
}

fn half(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

/// Low nibbles in 128 bytes, high bit pairs in 64, 16 int8 scales, then the f16 multiplier:
/// element `128h + 32j + l` takes nibble `j / 2` of `low[64h + 32(j & 1) + l]` and pair `j` of `high[32h + l]`.
fn q6_k(b: &[u8], out: &mut [f32]) {
    let (low, high, scales, d) = (&b[..128], &b[128..192], &b[192..208], half(b, 208));
    for (e, o) in out.iter_mut().enumerate() {
        let (h, j, l) = (e / 128, e % 128 / 32, e % 32);
        let lo = (low[64 * h + 32 * (j & 1) + l] >> if j >= 2 { 4 } else { 0 }) & 15;
        let hi = (high[32 * h + l] >> (2 * j)) & 3;
        let scale = scales[8 * h + 2 * j + l / 16] as i8;
        *o = d * scale as f32 * ((lo | hi << 4) as i32 - 32) as f32;
    }
}
