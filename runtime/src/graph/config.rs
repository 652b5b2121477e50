//! One model as data: sizes, norms, activation, rotary embedding, and its weights by what they are for.
//!
//! Nothing here knows a file or a kernel: readers fill a [`ModelConfig`], the network builds from it.

use std::fmt;

use super::architectures::Architecture;
use super::tensors::Part;

/// The activation of the FFN gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `max(x, 0)²`.
    Relu2,
    /// `x / (1 + e^−x)`.
    Silu,
    /// `x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))`.
    GeluTanh,
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Activation::Relu2 => "relu2",
            Activation::Silu => "silu",
            Activation::GeluTanh => "gelu_tanh",
        })
    }
}

/// How finely the inputs of ternary products are quantised: integers of one, two or three bytes a value, by the
/// largest magnitude of each token. Models trained for 8 bits compute with 8; others come close to float.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Acts {
    /// 8 bits, as BitNet b1.58 was trained.
    #[default]
    I8,
    /// 16 bits.
    I16,
    /// 24 bits: as exact as sums of f32.
    I24,
}

impl Acts {
    /// Every width, narrow first.
    pub const ALL: [Acts; 3] = [Acts::I8, Acts::I16, Acts::I24];

    /// Bytes of a value: int8 planes that a product runs over.
    pub fn planes(self) -> usize {
        self as usize + 1
    }

    /// The name to ask for it: `i8`, `i16`, `i24`.
    pub fn name(self) -> &'static str {
        match self {
            Acts::I8 => "i8",
            Acts::I16 => "i16",
            Acts::I24 => "i24",
        }
    }

    /// The width of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name)
    }
}

/// Rotary embedding, always in the NEOX pairing `(x[i], x[i + head_dim/2])`: rows of files that
/// interleave pairs are put back in this order when they are read.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the angles: `angle_i = pos / linear / factor_i · theta^(−2i/head_dim)`.
    pub theta: f32,
    /// Linear position scaling; 1 for none.
    pub linear: f32,
    /// One divisor for each of the `head_dim / 2` frequencies (Llama 3.1 style), if any.
    pub factors: Option<Vec<f32>>,
    /// Stretching of the slow frequencies, if any.
    pub yarn: Option<Yarn>,
}

/// YaRN (arXiv 2309.00071): frequencies that turn often are kept, slow ones are divided by `factor`, those between
/// partly; cosines and sines are multiplied by `attention`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// How much longer contexts became.
    pub factor: f32,
    /// Positions of the model before it was stretched.
    pub original: f32,
    /// Turns over the original positions from which a frequency is kept.
    pub beta_fast: f32,
    /// Turns up to which a frequency is fully stretched.
    pub beta_slow: f32,
    /// Factor of cosines and sines.
    pub attention: f32,
}

impl Yarn {
    /// The usual constants: 32 and 1 turns, and `0.1 · ln(factor) + 1`.
    pub fn new(factor: f32, original: f32) -> Self {
        Self {
            factor,
            original,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention: (0.1 * f64::from(factor.max(1.0)).ln() + 1.0) as f32,
        }
    }
}

/// Constants that models trained under µP (MiniCPM, Granite) or by Gemma multiply with; all 1 elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Multipliers {
    /// Of the embedding of a token.
    pub embedding: f32,
    /// Of what attention and FFN add to the residual stream.
    pub residual: f32,
    /// Of the hidden state before the head, and so of the logits.
    pub logits: f32,
}

impl Multipliers {
    /// None.
    pub const ONE: Self = Self {
        embedding: 1.0,
        residual: 1.0,
        logits: 1.0,
    };
}

/// Layers that look at near positions only, and turn by an angle of their own: all but every `every`-th.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Local {
    /// Positions that they see, their own included.
    pub window: usize,
    /// Of so many layers the last sees all positions.
    pub every: usize,
    /// Their [`Rope::theta`].
    pub theta: f32,
}

impl Local {
    /// Whether layer `layer` is one of them.
    pub fn has(self, layer: usize) -> bool {
        !(layer + 1).is_multiple_of(self.every)
    }
}

/// Everything about a model that is not a weight.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The graph it is one of.
    pub architecture: &'static Architecture,
    /// The model's own name, for display.
    pub name: String,
    /// Transformer blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one head; even, and not always `hidden / n_heads`.
    pub head_dim: usize,
    /// Width of the FFN.
    pub ffn: usize,
    /// Rows of the embedding table and of the head.
    pub vocab: usize,
    /// Positions the model was trained for.
    pub context_len: usize,
    /// Epsilon of every RMSNorm but the input norms.
    pub norm_eps: f32,
    /// `Some(eps)` when every projection owns an RMSNorm of its input ([`Norm::Input`]), which
    /// runs before the activations are quantised.
    pub input_norm_eps: Option<f32>,
    /// Activation of the FFN gate.
    pub activation: Activation,
    /// Rotary embedding.
    pub rope: Rope,
    /// Layers with a window, if any. None is shorter than [`Self::context_len`], so that windows are never left.
    pub local: Option<Local>,
    /// Constants that multiply.
    pub multipliers: Multipliers,
    /// Whether the head is the embedding table.
    pub tied: bool,
    /// How finely the inputs of ternary products are quantised.
    pub acts: Acts,
    /// Whether the model was trained with floats as inputs, so that quantising them is ours alone to do well.
    pub weight_only: bool,
}

impl ModelConfig {
    /// Whether [`Norm::AttnSub`] and [`Norm::FfnSub`] exist.
    pub fn sub_norms(&self) -> bool {
        self.architecture.sub_norms()
    }

    /// Rows and columns (N, K) of a projection.
    pub fn linear_shape(&self, projection: Projection) -> (usize, usize) {
        let (h, q, kv) = (
            self.hidden,
            self.n_heads * self.head_dim,
            self.n_kv_heads * self.head_dim,
        );
        match projection {
            Projection::AttnQ => (q, h),
            Projection::AttnK | Projection::AttnV => (kv, h),
            Projection::AttnOut => (h, q),
            Projection::FfnGate | Projection::FfnUp => (self.ffn, h),
            Projection::FfnDown => (h, self.ffn),
        }
    }

    /// Every weight of the model: the tables, then block by block.
    pub fn weights(&self) -> impl Iterator<Item = Weight> + '_ {
        let head = (!self.tied).then_some(Weight::Head);
        let block = self.architecture.tensors.block.iter();
        let layers = (0..self.n_layers).flat_map(move |layer| {
            let parts = block.clone();
            parts.flat_map(move |tensor| self.part(layer, tensor.part))
        });
        [Weight::Embedding, Weight::Norm(Norm::Output)]
            .into_iter()
            .chain(head)
            .chain(layers)
    }

    /// A part of block `layer`: its weight, after the norm that a projection owns.
    fn part(&self, layer: usize, part: Part) -> impl Iterator<Item = Weight> {
        let (norm, weight) = match part {
            Part::AttnNorm => (None, Weight::Norm(Norm::Attn(layer))),
            Part::AttnPostNorm => (None, Weight::Norm(Norm::AttnPost(layer))),
            Part::FfnPostNorm => (None, Weight::Norm(Norm::FfnPost(layer))),
            Part::QueryNorm => (None, Weight::Norm(Norm::Query(layer))),
            Part::KeyNorm => (None, Weight::Norm(Norm::Key(layer))),
            Part::AttnSubNorm => (None, Weight::Norm(Norm::AttnSub(layer))),
            Part::FfnNorm => (None, Weight::Norm(Norm::Ffn(layer))),
            Part::FfnSubNorm => (None, Weight::Norm(Norm::FfnSub(layer))),
            Part::Projection(projection) => {
                let id = TensorId { layer, projection };
                let own = self.input_norm_eps.map(|_| Weight::Norm(Norm::Input(id)));
                (own, Weight::Projection(id))
            }
        };
        norm.into_iter().chain([weight])
    }

    /// The dimensions of a weight, outermost first.
    pub fn dims(&self, weight: Weight) -> Vec<usize> {
        match weight {
            Weight::Embedding | Weight::Head => vec![self.vocab, self.hidden],
            Weight::Norm(norm) => vec![self.norm_len(norm)],
            Weight::Projection(id) => {
                let (n, k) = self.linear_shape(id.projection);
                vec![n, k]
            }
        }
    }

    /// Length of a norm's weight.
    pub fn norm_len(&self, norm: Norm) -> usize {
        match norm {
            Norm::Attn(_) | Norm::AttnPost(_) | Norm::Ffn(_) | Norm::FfnPost(_) | Norm::Output => {
                self.hidden
            }
            Norm::Query(_) | Norm::Key(_) => self.head_dim,
            Norm::AttnSub(_) => self.n_heads * self.head_dim,
            Norm::FfnSub(_) => self.ffn,
            Norm::Input(id) => self.linear_shape(id.projection).1,
        }
    }
}

/// The seven ternary projections of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Projection {
    /// Queries: `[n_heads · head_dim, hidden]`.
    AttnQ,
    /// Keys: `[n_kv_heads · head_dim, hidden]`.
    AttnK,
    /// Values: `[n_kv_heads · head_dim, hidden]`.
    AttnV,
    /// Attention output: `[hidden, n_heads · head_dim]`.
    AttnOut,
    /// FFN gate: `[ffn, hidden]`.
    FfnGate,
    /// FFN up: `[ffn, hidden]`.
    FfnUp,
    /// FFN down: `[hidden, ffn]`.
    FfnDown,
}

impl Projection {
    /// All roles, in the order of the forward pass.
    pub const ALL: [Projection; 7] = [
        Projection::AttnQ,
        Projection::AttnK,
        Projection::AttnV,
        Projection::AttnOut,
        Projection::FfnGate,
        Projection::FfnUp,
        Projection::FfnDown,
    ];

    /// The name for people, which most GGUF files use, too.
    pub fn name(self) -> &'static str {
        match self {
            Projection::AttnQ => "attn_q",
            Projection::AttnK => "attn_k",
            Projection::AttnV => "attn_v",
            Projection::AttnOut => "attn_output",
            Projection::FfnGate => "ffn_gate",
            Projection::FfnUp => "ffn_up",
            Projection::FfnDown => "ffn_down",
        }
    }
}

/// One projection of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId {
    /// Block, from 0.
    pub layer: usize,
    /// Which projection.
    pub projection: Projection,
}

impl fmt::Display for TensorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blk.{}.{}", self.layer, self.projection.name())
    }
}

/// One RMSNorm weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Norm {
    /// Before the attention of a block.
    Attn(usize),
    /// Over each head of the queries, before the rotary embedding.
    Query(usize),
    /// Over each head of the keys, before the rotary embedding.
    Key(usize),
    /// Over the concatenated heads, before the attention output projection.
    AttnSub(usize),
    /// Over what the attention of a block adds to the residual stream.
    AttnPost(usize),
    /// Before the FFN of a block.
    Ffn(usize),
    /// Over what the FFN of a block adds to the residual stream.
    FfnPost(usize),
    /// Over the FFN product, before the down projection.
    FfnSub(usize),
    /// Before one projection (see [`ModelConfig::input_norm_eps`]).
    Input(TensorId),
    /// Before the head.
    Output,
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Norm::Attn(l) => write!(f, "blk.{l}.attn_norm"),
            Norm::Query(l) => write!(f, "blk.{l}.attn_q_norm"),
            Norm::Key(l) => write!(f, "blk.{l}.attn_k_norm"),
            Norm::AttnSub(l) => write!(f, "blk.{l}.attn_sub_norm"),
            Norm::AttnPost(l) => write!(f, "blk.{l}.post_attention_norm"),
            Norm::Ffn(l) => write!(f, "blk.{l}.ffn_norm"),
            Norm::FfnPost(l) => write!(f, "blk.{l}.post_ffw_norm"),
            Norm::FfnSub(l) => write!(f, "blk.{l}.ffn_sub_norm"),
            Norm::Input(id) => write!(f, "{id}_norm_in"),
            Norm::Output => f.write_str("output_norm"),
        }
    }
}

/// One weight of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Weight {
    /// The embedding table: `[vocab, hidden]`.
    Embedding,
    /// The head, where it is not the embedding table: `[vocab, hidden]`.
    Head,
    /// An RMSNorm.
    Norm(Norm),
    /// A projection of a block.
    Projection(TensorId),
}
