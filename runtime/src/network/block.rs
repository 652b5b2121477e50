//! [`Block`]: the weights of one transformer block, and the gate between its products.

use super::linear::Linear;
use super::product::{BuildError, Packer, Projections};
use crate::graph::{Activation, ModelConfig, Norm, Projection, products};
use crate::lanes;

/// One transformer block: weights only.
pub struct Block {
    /// Norm before the attention.
    pub attn_norm: Vec<f32>,
    /// Norms of each head of the queries and of the keys, if any.
    pub head_norms: Option<[Vec<f32>; 2]>,
    /// Norm of the concatenated heads, if any.
    pub attn_sub_norm: Option<Vec<f32>>,
    /// Norm before the FFN.
    pub ffn_norm: Vec<f32>,
    /// Norms of what attention and FFN add to the residual stream, if any.
    pub post_norms: Option<[Vec<f32>; 2]>,
    /// Norm of the gated product, if any.
    pub ffn_sub_norm: Option<Vec<f32>>,
    /// Queries, keys, values.
    pub qkv: Projections,
    /// Attention output.
    pub out: Projections,
    /// Gate and up.
    pub gate_up: Projections,
    /// Down.
    pub down: Projections,
}

impl Block {
    /// Packs block `layer`.
    ///
    /// # Errors
    /// [`BuildError`].
    pub(super) fn new(packer: &mut Packer<'_>, layer: usize) -> Result<Self, BuildError> {
        let model = packer.model;
        let sub_norms = model.config().sub_norms();
        let sub = |norm| sub_norms.then(|| model.norm(norm)).transpose();
        let mut project = |projections: &[Projection]| Projections::new(packer, layer, projections);
        Ok(Self {
            attn_norm: model.norm(Norm::Attn(layer))?,
            head_norms: match model.config().architecture.head_norms() {
                true => Some([
                    model.norm(Norm::Query(layer))?,
                    model.norm(Norm::Key(layer))?,
                ]),
                false => None,
            },
            attn_sub_norm: sub(Norm::AttnSub(layer))?,
            post_norms: match model.config().architecture.post_norms() {
                true => Some([
                    model.norm(Norm::AttnPost(layer))?,
                    model.norm(Norm::FfnPost(layer))?,
                ]),
                false => None,
            },
            ffn_norm: model.norm(Norm::Ffn(layer))?,
            ffn_sub_norm: sub(Norm::FfnSub(layer))?,
            qkv: project(products::QKV)?,
            out: project(products::OUT)?,
            gate_up: project(products::GATE_UP)?,
            down: project(products::DOWN)?,
        })
    }

    /// Packed layers without group scales.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.products().into_iter().flat_map(Projections::linears)
    }

    /// Its four products.
    pub fn products(&self) -> [&Projections; 4] {
        [&self.qkv, &self.out, &self.gate_up, &self.down]
    }
}

/// `out = activation(gate) ⊙ up` for one token, `gate_up` being `[2 · ffn]`, then the sub-norm if there is one.
pub fn gated(
    config: &ModelConfig,
    gate_up: &[f32],
    sub_norm: Option<&[f32]>,
    out: &mut [f32],
    spare: &mut [f32],
) {
    let (gate, up) = gate_up.split_at(gate_up.len() / 2);
    let product = if sub_norm.is_some() {
        &mut *spare
    } else {
        &mut *out
    };
    match config.activation {
        Activation::Relu2 => lanes::relu2_gate(gate, up, product),
        Activation::Silu => lanes::silu_gate(gate, up, product),
        Activation::GeluTanh => lanes::gelu_gate(gate, up, product),
    }
    if let Some(weight) = sub_norm {
        lanes::rms_norm(spare, weight, config.norm_eps, out);
    }
}
