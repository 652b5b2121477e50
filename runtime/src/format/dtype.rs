//! Tensor types by their GGUF ids: sizes, names, and the ids on which dialects disagree.

use std::fmt;

use super::error::{LoadErrorKind, unsupported};
use super::float::FloatType;

/// How a tensor is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// Values that decode to f32.
    Float(FloatType),
    /// Ternary codes.
    Ternary(TernaryType),
    /// A type that is known by name only; no projection, table or norm may have it.
    Other(&'static str),
}

/// The ternary storage types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TernaryType {
    /// bitnet.cpp: planes of 2-bit codes in blocks of 128 or 64, one f32 scale at the end.
    I2S,
    /// llama.cpp: five trits a byte in blocks of 256 with an f16 scale.
    TQ1_0,
    /// llama.cpp: planes of 2-bit codes in blocks of 256 with an f16 scale.
    TQ2_0,
    /// llama.cpp: consecutive 2-bit codes in blocks of 64 with an f16 scale.
    Q2_0,
    /// Q2_0 in blocks of 128.
    PQ2_0,
    /// Five trits a byte in blocks of 128 with an f16 scale.
    PTQ1_0,
    /// ik_llama.cpp: five trits a byte in blocks of 64, an f16 scale a row.
    IQ1BN,
    /// ik_llama.cpp: planes of 2-bit codes in blocks of 64, an f32 scale a row.
    IQ2BN,
    /// IQ2_BN with four rows interleaved.
    IQ2BNR4,
    /// bitnet.cpp for ARM: pairs of weights as 4-bit table indices, in tiles the file does not name.
    TL1,
    /// bitnet.cpp for x86: triples of weights as 4-bit table indices and signs, in such tiles.
    TL2,
    /// Hugging Face: U8, four rows of codes a byte, a quarter of the rows apart.
    HfPacked,
}

impl TernaryType {
    /// Every ternary type.
    pub const ALL: [TernaryType; 12] = [
        TernaryType::I2S,
        TernaryType::TQ1_0,
        TernaryType::TQ2_0,
        TernaryType::Q2_0,
        TernaryType::PQ2_0,
        TernaryType::PTQ1_0,
        TernaryType::IQ1BN,
        TernaryType::IQ2BN,
        TernaryType::IQ2BNR4,
        TernaryType::TL1,
        TernaryType::TL2,
        TernaryType::HfPacked,
    ];

    /// The name its own tools use.
    pub fn name(self) -> &'static str {
        match self {
            TernaryType::I2S => "I2_S",
            TernaryType::TQ1_0 => "TQ1_0",
            TernaryType::TQ2_0 => "TQ2_0",
            TernaryType::Q2_0 => "Q2_0",
            TernaryType::PQ2_0 => "PQ2_0",
            TernaryType::PTQ1_0 => "PTQ1_0",
            TernaryType::IQ1BN => "IQ1_BN",
            TernaryType::IQ2BN => "IQ2_BN",
            TernaryType::IQ2BNR4 => "IQ2_BN_R4",
            TernaryType::TL1 => "TL1",
            TernaryType::TL2 => "TL2",
            TernaryType::HfPacked => "U8",
        }
    }

    /// The id in GGUF files; none for types of other formats.
    pub fn ggml_id(self) -> Option<u32> {
        Some(match self {
            TernaryType::I2S => 36,
            TernaryType::TQ1_0 => 34,
            TernaryType::TQ2_0 => 35,
            TernaryType::Q2_0 => 42,
            TernaryType::PQ2_0 => 142,
            TernaryType::PTQ1_0 => 143,
            TernaryType::IQ1BN => 134,
            TernaryType::IQ2BN => 135,
            TernaryType::IQ2BNR4 => 335,
            TernaryType::TL1 => 38,
            TernaryType::TL2 => 39,
            TernaryType::HfPacked => return None,
        })
    }

    /// K must be a multiple of this.
    pub fn k_multiple(self) -> usize {
        match self {
            TernaryType::TQ1_0 | TernaryType::TQ2_0 => 256,
            TernaryType::PQ2_0 | TernaryType::PTQ1_0 => 128,
            TernaryType::Q2_0 | TernaryType::IQ1BN | TernaryType::IQ2BN | TernaryType::IQ2BNR4 => {
                64
            }
            TernaryType::TL1 | TernaryType::TL2 => 2,
            TernaryType::I2S | TernaryType::HfPacked => 1,
        }
    }

    /// Bytes of an N×K tensor, scales included; `None` on overflow.
    ///
    /// The caller has checked [`Self::k_multiple`].
    pub fn n_bytes(self, n: usize, k: usize) -> Option<usize> {
        let codes = n.checked_mul(k)?;
        let rows_of = |row: usize| n.checked_mul(row);
        match self {
            TernaryType::I2S | TernaryType::TL1 => (codes / 4).checked_add(32),
            TernaryType::TQ1_0 => rows_of(k / 256 * 54),
            TernaryType::TQ2_0 => rows_of(k / 256 * 66),
            TernaryType::Q2_0 => rows_of(k / 64 * 18),
            TernaryType::PQ2_0 => rows_of(k / 128 * 34),
            TernaryType::PTQ1_0 => rows_of(k / 128 * 28),
            TernaryType::IQ1BN => rows_of(2 + k / 64 * 13),
            TernaryType::IQ2BN | TernaryType::IQ2BNR4 => rows_of(4 + k / 4),
            TernaryType::TL2 => tl2_scale_offset(n, k)?.checked_add(32),
            TernaryType::HfPacked => n.div_ceil(4).checked_mul(k),
        }
    }
}

/// Where bitnet.cpp puts the scale of a TL2 tensor: its reserve for the codes, which is computed
/// in integers with a fixed 256 columns of pairs, rounded up to 32 bytes.
pub(crate) fn tl2_scale_offset(n: usize, k: usize) -> Option<usize> {
    let (n, k) = (i64::try_from(n).ok()?, i64::try_from(k).ok()?);
    let triples = (k - 256).checked_mul(n)?.checked_div(3)?.checked_mul(5)? / 8;
    let pairs = n.checked_mul(256)?.checked_div(2)?.checked_mul(4)? / 8;
    let reserve = usize::try_from(triples.checked_add(pairs)?).ok()?;
    reserve.checked_next_multiple_of(32)
}

impl Dtype {
    /// The name its own tools use.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Float(f) => f.name(),
            Dtype::Ternary(t) => t.name(),
            Dtype::Other(name) => name,
        }
    }

    /// The float type, if it is one.
    pub fn as_float(self) -> Option<FloatType> {
        match self {
            Dtype::Float(f) => Some(f),
            _ => None,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// GGUF types that are known by name but not read: id, name, elements and bytes of a block.
const NAMED: &[(u32, &str, usize, usize)] = &[
    (9, "Q8_1", 32, 36),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (31, "Q4_0_4_4", 32, 18),
    (32, "Q4_0_4_8", 32, 18),
    (33, "Q4_0_8_8", 32, 18),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
    (133, "Q6_0", 32, 26),
];

/// The type behind a GGUF id. Id 39 is answered as MXFP4; whether it is TL2 only the size tells.
///
/// # Errors
/// [`LoadErrorKind::Unsupported`], naming the tensor and the known types.
pub(crate) fn from_ggml_id(id: u32, tensor: &str) -> Result<Dtype, LoadErrorKind> {
    if let Some(f) = FloatType::ALL.into_iter().find(|f| f.ggml_id() == id) {
        return Ok(Dtype::Float(f));
    }
    if let Some(&(_, name, ..)) = NAMED.iter().find(|t| t.0 == id) {
        return Ok(Dtype::Other(name));
    }
    match TernaryType::ALL
        .into_iter()
        .find(|t| t.ggml_id() == Some(id))
    {
        Some(t) => Ok(Dtype::Ternary(t)),
        None => Err(unsupported(
            format!("type id {id} of tensor {tensor}"),
            known_types("GGUF"),
        )),
    }
}

/// The readable types of projections and of other tensors in a file format, for messages.
pub(crate) fn known_types(format: &str) -> String {
    if format == "safetensors" {
        return "known are U8 (packed) F32 F16 BF16".into();
    }
    let floats: Vec<_> = FloatType::ALL.iter().map(|f| f.name()).collect();
    let ternary: Vec<_> = TernaryType::ALL
        .iter()
        .filter(|t| t.ggml_id().is_some())
        .map(|t| t.name())
        .collect();
    format!(
        "known are {} for projections, and {} for other tensors",
        ternary.join(" "),
        floats.join(" ")
    )
}

/// Bytes of a tensor of `dims` (outermost first); `None` on overflow or a partial block.
pub(crate) fn n_bytes(dtype: Dtype, dims: &[usize]) -> Option<usize> {
    let k = *dims.last()?;
    let n = dims[..dims.len() - 1]
        .iter()
        .try_fold(1usize, |a, &d| a.checked_mul(d))?;
    let (elements, bytes) = match dtype {
        Dtype::Ternary(t) => {
            return if k.is_multiple_of(t.k_multiple()) {
                t.n_bytes(n, k)
            } else {
                None
            };
        }
        Dtype::Float(f) => f.block(),
        Dtype::Other(name) => {
            let &(_, _, elements, bytes) = NAMED.iter().find(|t| t.1 == name)?;
            (elements, bytes)
        }
    };
    if k.is_multiple_of(elements) {
        n.checked_mul((k / elements).checked_mul(bytes)?)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The enumerations of the writers, number by number: `enum ggml_type` of llama.cpp (0 to 35, 42),
    /// of bitnet.cpp (36 to 39) and of ik_llama.cpp (133 and more). Files made by our own packers agree with
    /// any other numbers, too.
    #[test]
    fn ids_are_those_that_other_tools_write() {
        let ids = [
            (0, "F32"),
            (1, "F16"),
            (2, "Q4_0"),
            (3, "Q4_1"),
            (6, "Q5_0"),
            (7, "Q5_1"),
            (8, "Q8_0"),
            (10, "Q2_K"),
            (11, "Q3_K"),
            (12, "Q4_K"),
            (13, "Q5_K"),
            (14, "Q6_K"),
            (20, "IQ4_NL"),
            (23, "IQ4_XS"),
            (30, "BF16"),
            (34, "TQ1_0"),
            (35, "TQ2_0"),
            (36, "I2_S"),
            (38, "TL1"),
            (39, "MXFP4"),
            (42, "Q2_0"),
            (133, "Q6_0"),
            (142, "PQ2_0"),
            (143, "PTQ1_0"),
            (134, "IQ1_BN"),
            (135, "IQ2_BN"),
            (335, "IQ2_BN_R4"),
        ];
        for (id, name) in ids {
            assert_eq!(from_ggml_id(id, "x").expect(name).name(), name, "id {id}");
        }
        assert_eq!(TernaryType::TL2.ggml_id(), Some(39));
        let pinned = |id: u32| ids.iter().any(|&(i, _)| i == id);
        for id in FloatType::ALL.iter().map(|f| f.ggml_id()) {
            assert!(pinned(id), "id {id} is not in the list");
        }
        for id in TernaryType::ALL.iter().filter_map(|t| t.ggml_id()) {
            assert!(pinned(id), "id {id} is not in the list");
        }
        let error = from_ggml_id(136, "x").expect_err("Q8_K64 is not for files");
        assert!(
            error.to_string().contains("type id 136 of tensor x"),
            "{error}"
        );
    }
}
