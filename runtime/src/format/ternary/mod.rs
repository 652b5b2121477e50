//! Ternary tensors of every dialect, decoded row by row into the neutral form.
//!
//! A [`TernarySource`] is the recipe; a `RowDecoder` is one storage type's part of it: its
//! scales, and a row of 2-bit codes. Row order, extra factors and the choice between one scale,
//! row scales and group scales are the same for all and live here.

mod base3;
mod floats;
pub mod pack;
mod planes;
mod table;
mod tiles;

use bitnet_codegen::trit::{Scales, TernaryMatrix, TritError};

use super::dtype::{Dtype, TernaryType};
use super::error::{LoadErrorKind, unsupported};
use super::store::TensorStore;
use crate::graph::{ModelConfig, Projection, RotaryRows};
pub(super) use floats::looks_ternary;
pub(super) use tiles::tl2_sections;
pub use tiles::{TileConfig, TileError, Tiles};

/// The order of rows in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// As the forward pass needs them.
    Neutral,
    /// Rotary pairs interleaved within each head of this width (llama GGUF files): stored row
    /// `2i + s` of a head is neutral row `s · head_dim/2 + i`.
    Interleaved {
        /// Rows of one head.
        head_dim: usize,
    },
}

impl RowOrder {
    /// The order of a projection's rows in GGUF files of the architecture.
    pub fn of_gguf(config: &ModelConfig, projection: Projection) -> Self {
        match (config.architecture.gguf_rotary, projection) {
            (RotaryRows::Pairs, Projection::AttnQ | Projection::AttnK) => RowOrder::Interleaved {
                head_dim: config.head_dim,
            },
            _ => RowOrder::Neutral,
        }
    }

    /// The stored row that holds neutral row `r`.
    pub fn stored(self, r: usize) -> usize {
        match self {
            RowOrder::Neutral => r,
            RowOrder::Interleaved { head_dim } => {
                let (head, row) = (r / head_dim, r % head_dim);
                let (s, i) = (row / (head_dim / 2), row % (head_dim / 2));
                head * head_dim + 2 * i + s
            }
        }
    }
}

/// How float values become trits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ternarise {
    /// Master weights: quantise by absmean.
    Absmean,
    /// The values are already `{−a, 0, a}`, with one `a` for the tensor, a row or a group of columns: they are kept
    /// exactly, others are refused.
    AsStored,
}

/// How the bytes of a projection are to be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Packing {
    /// I2_S in blocks of this many codes (128 or 64).
    I2S {
        /// Codes of a block.
        block: usize,
    },
    /// A type that needs nothing else.
    Plain(TernaryType),
    /// TL1 or TL2 with the tile sizes of its shape.
    Tiled(TernaryType, Tiles),
    /// Float values that become trits.
    Floats(Ternarise),
    /// Float values that stay so: not a ternary matrix.
    Kept,
}

/// The recipe for one projection.
#[derive(Clone, Debug, PartialEq)]
pub struct TernarySource {
    /// Index into [`crate::format::Model::tensors`].
    pub tensor: usize,
    /// Rows.
    pub n: usize,
    /// Columns.
    pub k: usize,
    /// How the bytes are read.
    pub packing: Packing,
    /// Multiplier from outside the tensor: a `.scale` or `weight_scale` tensor, inverted where
    /// the file divides.
    pub factor: f32,
    /// The order of rows in the file.
    pub order: RowOrder,
}

/// One storage type: how to get at its scales and rows.
trait RowDecoder {
    /// Scales in stored row order: one, or the same number for each row.
    fn scales(&self) -> StoredScales;
    /// Writes the codes of stored row `r`, four a byte, low bits first.
    fn row(&mut self, r: usize, out: &mut [u8]);
}

/// Scales as stored.
struct StoredScales {
    /// Columns that share a scale; `None` when one scale holds for the tensor.
    group_k: Option<usize>,
    values: Vec<f32>,
}

impl StoredScales {
    fn tensor(value: f32) -> Self {
        Self {
            group_k: None,
            values: vec![value],
        }
    }
}

impl TernarySource {
    /// Decodes the whole tensor.
    pub(crate) fn decode(&self, store: &TensorStore) -> Result<TernaryMatrix, LoadErrorKind> {
        let info = &store.tensors()[self.tensor];
        if self.packing == Packing::Kept {
            return Err(unsupported(
                format!("trits of tensor {}", info.name),
                "it is kept in float",
            ));
        }
        let bytes = store.bytes(self.tensor);
        let error = |reason| self.error(&info.name, info.dtype, reason);
        let mut decoder = self.decoder(bytes, info.dtype).map_err(error)?;
        let mut scales = self.neutral_scales(decoder.scales());
        scales.scale_by(self.factor);
        TernaryMatrix::from_packed_rows(self.n, self.k, scales, |r, out| {
            decoder.row(self.order.stored(r), out)
        })
        .map_err(error)
    }

    /// The scales alone, as [`Self::decode`] gives them.
    pub(crate) fn scales(&self, store: &TensorStore) -> Result<Scales, LoadErrorKind> {
        let info = &store.tensors()[self.tensor];
        let error = |reason| self.error(&info.name, info.dtype, reason);
        let decoder = self
            .decoder(store.bytes(self.tensor), info.dtype)
            .map_err(error)?;
        let mut scales = self.neutral_scales(decoder.scales());
        scales.scale_by(self.factor);
        Ok(scales)
    }

    fn error(&self, tensor: &str, dtype: Dtype, reason: TritError) -> LoadErrorKind {
        let code_three = matches!(reason, TritError::CodeThree { .. });
        let hint = match &self.packing {
            Packing::I2S { block: 128 } if code_three => {
                "the file is damaged, or was written by an ARM build of bitnet.cpp: try --i2s-block 64"
            }
            Packing::I2S { .. } if code_three => {
                "the file is damaged, or has blocks of 128: leave --i2s-block out"
            }
            Packing::Plain(TernaryType::Q2_0 | TernaryType::PQ2_0) if code_three => {
                "code 3 is the weight +2, which is not ternary"
            }
            Packing::Floats(_) => {
                "only ternary weights are supported; --absmean quantises master weights"
            }
            Packing::Tiled(..) => {
                "the file is damaged, or the tile config is not the one it was written with"
            }
            _ => "the file is damaged, fetch or convert it again",
        };
        LoadErrorKind::NotTernary {
            tensor: tensor.to_string(),
            dtype: dtype.name(),
            reason,
            hint,
        }
    }

    fn decoder<'a>(
        &self,
        bytes: &'a [u8],
        dtype: Dtype,
    ) -> Result<Box<dyn RowDecoder + 'a>, TritError> {
        let (n, k) = (self.n, self.k);
        Ok(match (&self.packing, dtype) {
            (Packing::I2S { block }, _) => Box::new(planes::I2s::new(bytes, n, k, *block)),
            (Packing::Plain(TernaryType::TQ2_0), _) => Box::new(planes::Tq2::new(bytes, n, k)),
            (Packing::Plain(TernaryType::IQ2BN), _) => Box::new(planes::Iq2Bn::new(bytes, n, k)),
            (Packing::Plain(TernaryType::IQ2BNR4), _) => {
                Box::new(planes::Iq2BnR4::new(bytes, n, k))
            }
            (Packing::Plain(TernaryType::HfPacked), _) => {
                Box::new(planes::HfPacked::new(bytes, n, k))
            }
            (Packing::Plain(TernaryType::Q2_0), _) => Box::new(planes::Q2::new(bytes, n, k, 64)),
            (Packing::Plain(TernaryType::PQ2_0), _) => Box::new(planes::Q2::new(bytes, n, k, 128)),
            (Packing::Plain(TernaryType::PTQ1_0), _) => {
                Box::new(base3::Base3::new(bytes, n, k, &base3::PTQ1_0))
            }
            (Packing::Plain(TernaryType::TQ1_0), _) => {
                Box::new(base3::Base3::new(bytes, n, k, &base3::TQ1_0))
            }
            (Packing::Plain(TernaryType::IQ1BN), _) => Box::new(base3::Iq1Bn::new(bytes, n, k)),
            (Packing::Tiled(TernaryType::TL1, tiles), _) => {
                Box::new(tiles::Tl1::new(bytes, n, k, *tiles))
            }
            (Packing::Tiled(_, tiles), _) => Box::new(tiles::Tl2::new(bytes, n, k, *tiles)),
            (Packing::Floats(how), Dtype::Float(f)) => {
                Box::new(floats::Floats::new(bytes, n, k, f, *how)?)
            }
            (Packing::Kept, _) => panic!("a matrix that is kept in float has no trits"),
            (packing, dtype) => {
                unreachable!("{packing:?} for a {dtype} tensor: the reader chose both")
            }
        })
    }

    /// The fewest scales that say the same: one, one a row, or one a group. Zero scales stand for
    /// zero weights (decoders see to that), so they agree with any other.
    /// Whether the type is for scales of groups of columns.
    fn is_grouped(&self) -> bool {
        use TernaryType::{PQ2_0, PTQ1_0, Q2_0};
        matches!(self.packing, Packing::Plain(Q2_0 | PQ2_0 | PTQ1_0))
    }

    fn neutral_scales(&self, stored: StoredScales) -> Scales {
        let Some(group_k) = stored.group_k else {
            return Scales::Tensor(stored.values[0]);
        };
        let groups = stored.values.len() / self.n;
        if let Some(one) = agree(&stored.values) {
            return Scales::Tensor(one);
        }
        let row = |r: usize| &stored.values[self.order.stored(r) * groups..][..groups];
        let by_row: Option<Vec<f32>> = (0..self.n).map(|r| agree(row(r))).collect();
        match by_row {
            // The one block of a row of a type for groups is a group.
            Some(scales) if groups > 1 || !self.is_grouped() => Scales::Row(scales),
            _ => Scales::Group {
                group_k,
                scales: (0..self.n).flat_map(|r| row(r).to_vec()).collect(),
            },
        }
    }
}

/// The one value of all that are not zero (0 when all are); NaN agrees with nothing.
fn agree(values: &[f32]) -> Option<f32> {
    let mut nonzero = values.iter().copied().filter(|&v| v != 0.0);
    let first = nonzero.next().unwrap_or(0.0);
    (!first.is_nan() && nonzero.all(|v| v == first)).then_some(first)
}

#[cfg(test)]
mod tests;
