//! Which ternary products a model runs: projections of one input stacked where their scales allow it.
//!
//! The network packs by this list and the tuner tunes by it, so that what is measured is what runs.

use std::ops::Range;

use bitnet_codegen::Scales;
use bitnet_codegen::variant::groups::{GROUP_STEP, MAX_K, MAX_PLANES};

use super::config::{Acts, ModelConfig, Projection, TensorId};

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

/// How matrices with `scales` run as one product of inputs as fine as `acts`: as one with [`ScaleShape::Rows`] or in
/// groups of columns that kernels have. None where they cannot: kernels with groups sum 16 bits at most.
pub fn common_group(acts: Acts, scales: impl Iterator<Item = ScaleShape>) -> Option<ScaleShape> {
    let mut widths = Vec::new();
    for shape in scales {
        match shape {
            ScaleShape::Rows => {}
            ScaleShape::Groups(width) => widths.push(width),
            ScaleShape::Float => return None,
        }
    }
    if widths.is_empty() {
        return Some(ScaleShape::Rows);
    }
    if acts.planes() > MAX_PLANES {
        return None;
    }
    let fits = |k: &usize| widths.iter().all(|width| width.is_multiple_of(*k));
    let mut every = (1..=MAX_K / GROUP_STEP).rev().map(|i| i * GROUP_STEP);
    every.find(fits).map(ScaleShape::Groups)
}

/// `projections` of one input as the stacks that run as one matrix: all together where the input is theirs
/// unchanged and [`common_group`] has an answer, else each alone.
pub fn stacks<'p>(
    config: &ModelConfig,
    projections: &'p [Projection],
    scales: impl Fn(Projection) -> ScaleShape,
) -> impl Iterator<Item = &'p [Projection]> {
    let one = common_group(config.acts, projections.iter().map(|&p| scales(p))).is_some();
    let together = config.input_norm_eps.is_none() && one;
    projections.chunks(if together { projections.len() } else { 1 })
}

/// One product of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Product {
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Columns that share a scale, where kernels apply it.
    pub group_k: Option<usize>,
}

/// Every product of a model, in the order of the forward pass.
pub fn products(config: &ModelConfig, scales: impl Fn(TensorId) -> ScaleShape) -> Vec<Product> {
    let mut out = Vec::new();
    for layer in 0..config.n_layers {
        let of = |projection| scales(TensorId { layer, projection });
        for stack in BY_INPUT.iter().flat_map(|input| stacks(config, input, of)) {
            let n = stack.iter().map(|&p| config.linear_shape(p).0).sum();
            let (_, k) = config.linear_shape(stack[0]);
            match common_group(config.acts, stack.iter().map(|&p| of(p))) {
                Some(ScaleShape::Groups(width)) => out.push(Product {
                    n,
                    k,
                    group_k: Some(width),
                }),
                _ => out.extend(of(stack[0]).columns(k).map(|cols| Product {
                    n,
                    k: cols.len(),
                    group_k: None,
                })),
            }
        }
    }
    out
}
