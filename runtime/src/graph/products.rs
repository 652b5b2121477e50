//! Which ternary products a model runs: projections of one input stacked where their scales allow it.
//!
//! The network packs by this list and the tuner tunes by it, so that what is measured is what runs.

use std::fmt;
use std::ops::Range;

use bitnet_codegen::layout::scales::{GroupScales, Stored};
use bitnet_codegen::variant::groups::{GROUP_STEP, MAX_K, MAX_PLANES};
use bitnet_codegen::{Groups, Scales};

use super::config::{Acts, ModelConfig, Projection, TensorId};

/// How far one scale of a matrix reaches, and what holds all of them exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleShape {
    /// Over whole rows, whether they share it or not.
    Rows(Stored),
    /// Over groups of the columns of a row.
    Groups(GroupScales),
    /// There is none: the matrix is kept in float and is no ternary product.
    Float,
}

impl From<&Scales> for ScaleShape {
    fn from(scales: &Scales) -> Self {
        let stored = Stored::of(scales.all().iter().copied());
        match scales {
            Scales::Tensor(_) | Scales::Row(_) => ScaleShape::Rows(stored),
            Scales::Group { group_k: k, .. } => ScaleShape::Groups(GroupScales { k: *k, stored }),
        }
    }
}

impl ScaleShape {
    /// The columns of `k` that run as products of their own.
    pub fn columns(self, k: usize) -> impl Iterator<Item = Range<usize>> {
        let width = match self {
            ScaleShape::Rows(_) => k,
            ScaleShape::Groups(groups) => groups.k.min(k),
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
    let (mut widths, mut stored) = (Vec::new(), Stored::F16);
    for shape in scales {
        let own = match shape {
            ScaleShape::Rows(own) => own,
            ScaleShape::Groups(groups) => {
                widths.push(groups.k);
                groups.stored
            }
            ScaleShape::Float => return None,
        };
        if own == Stored::F32 {
            stored = own;
        }
    }
    if widths.is_empty() {
        return Some(ScaleShape::Rows(stored));
    }
    if acts.planes() > MAX_PLANES {
        return None;
    }
    let fits = |k: &usize| widths.iter().all(|width| width.is_multiple_of(*k));
    let mut every = (1..=MAX_K / GROUP_STEP).rev().map(|i| i * GROUP_STEP);
    let k = every.find(fits)?;
    Some(ScaleShape::Groups(GroupScales { k, stored }))
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Product {
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// The groups of its columns, where kernels apply their scales.
    pub groups: Option<Groups>,
}

impl fmt::Display for Product {
    /// `2560x6912`, with `-g128` where groups of 128 columns have scales.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.n, self.k)?;
        match self.groups {
            Some(groups) => write!(f, "-g{}", groups.scales.k),
            None => Ok(()),
        }
    }
}

/// The products that stacked matrices with `scales`, of `n` rows and `k` columns together, run as: one, but where groups
/// of columns run alone.
fn of_stack(acts: Acts, scales: &[ScaleShape], (n, k): (usize, usize)) -> Vec<Product> {
    match common_group(acts, scales.iter().copied()) {
        Some(ScaleShape::Groups(scales)) => {
            let planes = acts.planes();
            let groups = Some(Groups { scales, planes });
            vec![Product { n, k, groups }]
        }
        _ => {
            let of_columns = |cols: Range<usize>| Product {
                n,
                k: cols.len(),
                groups: None,
            };
            scales[0].columns(k).map(of_columns).collect()
        }
    }
}

/// Every product of a model's blocks, in the order of the forward pass.
pub fn products(config: &ModelConfig, scales: impl Fn(TensorId) -> ScaleShape) -> Vec<Product> {
    let mut out = Vec::new();
    for layer in 0..config.n_layers {
        let of = |projection| scales(TensorId { layer, projection });
        for stack in BY_INPUT.iter().flat_map(|input| stacks(config, input, of)) {
            let n = stack.iter().map(|&p| config.linear_shape(p).0).sum();
            let (_, k) = config.linear_shape(stack[0]);
            let scales: Vec<ScaleShape> = stack.iter().map(|&p| of(p)).collect();
            out.extend(of_stack(config.acts, &scales, (n, k)));
        }
    }
    out
}

/// The products of a ternary head.
pub fn of_head(config: &ModelConfig, scales: ScaleShape) -> Vec<Product> {
    of_stack(config.acts, &[scales], (config.vocab, config.hidden))
}
