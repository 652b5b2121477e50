//! Float tables: the types that embeddings, heads and norms come in, and how to read them.

mod blocks;

pub(crate) use blocks::six_bit_pair;

use std::fmt;

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
    /// 32 four-bit values, an f16 multiplier and an f16 minimum.
    Q4_1,
    /// 32 five-bit values and an f16 multiplier.
    Q5_0,
    /// 32 five-bit values, an f16 multiplier and an f16 minimum.
    Q5_1,
    /// 256 two-bit values, 16 four-bit multipliers and minimums, and an f16 multiplier of each.
    Q2K,
    /// 256 three-bit values, 16 six-bit sub-multipliers and an f16 multiplier.
    Q3K,
    /// 256 four-bit values, 8 six-bit multipliers and minimums, and an f16 multiplier of each.
    Q4K,
    /// 256 five-bit values, with multipliers and minimums as in [`FloatType::Q4K`].
    Q5K,
    /// 32 places in a table of 16 int8 values and an f16 multiplier.
    IQ4NL,
    /// 256 places in that table, 8 six-bit sub-multipliers and an f16 multiplier.
    IQ4XS,
}

impl FloatType {
    /// Every float type. The first three are those of master weights and norms; llama.cpp and ik_llama.cpp store
    /// the embeddings and heads of the ternary files that they write in the others (Q4_K, IQ4_NL and Q6_K unless
    /// told otherwise, Q5_0 and Q8_0 where rows are no multiple of 256).
    pub const ALL: [FloatType; 15] = [
        FloatType::F32,
        FloatType::F16,
        FloatType::BF16,
        FloatType::Q8_0,
        FloatType::Q6K,
        FloatType::Q4_0,
        FloatType::Q4_1,
        FloatType::Q5_0,
        FloatType::Q5_1,
        FloatType::Q2K,
        FloatType::Q3K,
        FloatType::Q4K,
        FloatType::Q5K,
        FloatType::IQ4NL,
        FloatType::IQ4XS,
    ];

    /// Name, id, elements and bytes of a block.
    const fn facts(self) -> (&'static str, u32, usize, usize) {
        match self {
            FloatType::F32 => ("F32", 0, 1, 4),
            FloatType::F16 => ("F16", 1, 1, 2),
            FloatType::BF16 => ("BF16", 30, 1, 2),
            FloatType::Q8_0 => ("Q8_0", 8, 32, 34),
            FloatType::Q6K => ("Q6_K", 14, 256, 210),
            FloatType::Q4_0 => ("Q4_0", 2, 32, 18),
            FloatType::Q4_1 => ("Q4_1", 3, 32, 20),
            FloatType::Q5_0 => ("Q5_0", 6, 32, 22),
            FloatType::Q5_1 => ("Q5_1", 7, 32, 24),
            FloatType::Q2K => ("Q2_K", 10, 256, 84),
            FloatType::Q3K => ("Q3_K", 11, 256, 110),
            FloatType::Q4K => ("Q4_K", 12, 256, 144),
            FloatType::Q5K => ("Q5_K", 13, 256, 176),
            FloatType::IQ4NL => ("IQ4_NL", 20, 32, 18),
            FloatType::IQ4XS => ("IQ4_XS", 23, 256, 136),
        }
    }

    /// The name GGUF tools use.
    pub const fn name(self) -> &'static str {
        self.facts().0
    }

    /// The id in GGUF files.
    pub const fn ggml_id(self) -> u32 {
        self.facts().1
    }

    /// Elements and bytes of one block; a row is a whole number of blocks.
    pub const fn block(self) -> (usize, usize) {
        let (_, _, elements, bytes) = self.facts();
        (elements, bytes)
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
        self.decode_runs(bytes, out);
    }

    /// [`Self::decode`] without its check, for callers that are compiled for the CPU's wider vectors.
    #[inline(always)]
    pub(crate) fn decode_runs(self, bytes: &[u8], out: &mut [f32]) {
        /// A loop over blocks. A macro: a function handed to a function would be compiled for the narrow vectors
        /// that every CPU has before it is inlined (a tenth of the speed).
        macro_rules! each {
            ($decode:expr) => {
                for (b, o) in bytes
                    .as_chunks()
                    .0
                    .iter()
                    .zip(out.as_chunks_mut().0)
                {
                    // Without this, LLVM runs 16 small blocks at once with gathers, which is five times slower.
                    $decode(std::hint::black_box(b), o);
                }
            };
        }
        match self {
            FloatType::F32 => {
                for (o, b) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *o = f32::from_le_bytes(*b);
                }
            }
            FloatType::F16 => {
                for (o, b) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *o = blocks::half_to_f32(u16::from_le_bytes(*b));
                }
            }
            FloatType::BF16 => {
                for (o, b) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *o = f32::from_bits((u16::from_le_bytes(*b) as u32) << 16);
                }
            }
            FloatType::Q8_0 => each!(blocks::q8_0),
            FloatType::Q6K => each!(blocks::q6_k),
            FloatType::Q4_0 => each!(blocks::q4_0),
            FloatType::Q4_1 => each!(blocks::q4_1),
            FloatType::Q5_0 => each!(blocks::q5_0),
            FloatType::Q5_1 => each!(blocks::q5_1),
            FloatType::Q2K => each!(blocks::q2_k),
            FloatType::Q3K => each!(blocks::q3_k),
            FloatType::Q4K => each!(blocks::q4_k),
            FloatType::Q5K => each!(blocks::q5_k),
            FloatType::IQ4NL => each!(blocks::iq4_nl),
            FloatType::IQ4XS => each!(blocks::iq4_xs),
        }
    }
}

impl fmt::Display for FloatType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
