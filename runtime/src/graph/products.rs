//! Which ternary products a model runs: projections of one input stacked where their scales allow it.
//!
//! The network packs by this list and the tuner tunes by it, so that what is measured is what runs.

use std::ops::Range;

use bitnet_codegen::Scales;

use super::config::{ModelConfig, Projection, TensorId};

/// How far one scale of a matrix reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleShape {
    /// Over whole rows, whether they share it or not.
    Rows,
    /// Over this many columns of a row.
    Groups(usize),
    /// There is none: the matrix is kept in float and is no ternary product.
    Float,
}

impl From<&Scales> for ScaleShape {
    fn from(scales: &Scales) -> Self {
        match scales {
            Scales::Tensor(_) | Scales::Row(_) => ScaleShape::Rows,
            Scales::Group { group_k, .. } => ScaleShape::Groups(*group_k),
        }
    }
}

impl ScaleShape {
    /// The columns of `k` that run as products of their own.
    pub fn columns(self, k: usize) -> impl Iterator<Item = Range<usize>> {
        let width = match self {
            ScaleShape::Rows => k,
            ScaleShape::Groups(width) => width.min(k),
            ScaleShape::Float => 0,
        };
        (0..if width == 0 { 0 } else { k })
            .step_by(width.max(1))
            .map(move |from| from..(from + width).min(k))
    }
}

/// The inputs of a block, each with the projections that read it, in the order of the forward pass.
pub const BY_INPUT: [&[Projection]; 4] = [QKV, OUT, GATE_UP, DOWN];
/// What reads the normed hidden state before the attention.
pub const QKV: &[Projection] = &[Projection::AttnQ, Projection::AttnK, Projection::AttnV];
/// What reads the attention's result.
pub const OUT: &[Projection] = &[Projection::AttnOut];
/// What reads the normed hidden state before the FFN.
pub const GATE_UP: &[Projection] = &[Projection::FfnGate, Projection::FfnUp];
/// What reads the gated product.
pub const DOWN: &[Projection] = &[Projection::FfnDown];

/// `projections` of one input as the stacks that run as one matrix: all together where the input is theirs
/// unchanged and scales reach over whole rows, else each alone.
pub fn stacks<'p>(
    config: &ModelConfig,
    projections: &'p [Projection],
    scales: impl Fn(Projection) -> ScaleShape,
) -> impl Iterator<Item = &'p [Projection]> {
    let rows = projections.iter().all(|&p| scales(p) == ScaleShape::Rows);
    let together = config.input_norm_eps.is_none() && rows;
    projections.chunks(if together { projections.len() } else { 1 })
}

/// One product of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Product {
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
}

/// Every product of a model, in the order of the forward pass.
pub fn products(config: &ModelConfig, scales: impl Fn(TensorId) -> ScaleShape) -> Vec<Product> {
    let mut out = Vec::new();
    for layer in 0..config.n_layers {
        let of = |projection| scales(TensorId { layer, projection });
        for stack in BY_INPUT.iter().flat_map(|input| stacks(config, input, of)) {
            let n = stack.iter().map(|&p| config.linear_shape(p).0).sum();
            let (_, k) = config.linear_shape(stack[0]);
            out.extend(
                of(stack[0])
                    .columns(k)
                    .map(|cols| Product { n, k: cols.len() }),
            );
        }
    }
    out
}
