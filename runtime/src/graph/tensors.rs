//! What the weights of a graph are, and what files call them.

use super::config::Projection;

/// What a tensor of a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `Norm::Attn`.
    AttnNorm,
    /// `Norm::Query`.
    QueryNorm,
    /// `Norm::Key`.
    KeyNorm,
    /// `Norm::AttnSub`.
    AttnSubNorm,
    /// `Norm::AttnPost`.
    AttnPostNorm,
    /// `Norm::Ffn`.
    FfnNorm,
    /// `Norm::FfnPost`.
    FfnPostNorm,
    /// `Norm::FfnSub`.
    FfnSubNorm,
    /// One of the seven projections.
    Projection(Projection),
}

/// What files call one weight, without `.weight` at the end; where several names are known, the first is the usual.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// In GGUF files.
    pub gguf: &'static str,
    /// In Hugging Face folders.
    pub hf: &'static [&'static str],
}

/// A tensor of a block; its names follow the block's prefix and number.
#[derive(Debug)]
pub struct BlockTensor {
    /// What it is.
    pub part: Part,
    /// What it is called.
    pub names: Names,
}

/// All weights of a graph.
#[derive(Debug)]
pub struct Tensors {
    /// The embedding table.
    pub embedding: Names,
    /// The norm before the head.
    pub output_norm: Names,
    /// The head.
    pub head: Names,
    /// What comes before a block's number.
    pub block_prefix: Names,
    /// The tensors of a block; the order in which files are written.
    pub block: &'static [BlockTensor],
}

pub(super) const fn tensor(
    part: Part,
    gguf: &'static str,
    hf: &'static [&'static str],
) -> BlockTensor {
    BlockTensor {
        part,
        names: Names { gguf, hf },
    }
}

const ATTN_NORM: BlockTensor = tensor(Part::AttnNorm, "attn_norm", &["input_layernorm"]);
const FFN_NORM: BlockTensor = tensor(Part::FfnNorm, "ffn_norm", &["post_attention_layernorm"]);
const Q: BlockTensor = tensor(
    Part::Projection(Projection::AttnQ),
    "attn_q",
    &["self_attn.q_proj"],
);
const K: BlockTensor = tensor(
    Part::Projection(Projection::AttnK),
    "attn_k",
    &["self_attn.k_proj"],
);
const V: BlockTensor = tensor(
    Part::Projection(Projection::AttnV),
    "attn_v",
    &["self_attn.v_proj"],
);
const O: BlockTensor = tensor(
    Part::Projection(Projection::AttnOut),
    "attn_output",
    &["self_attn.o_proj"],
);
const GATE: BlockTensor = tensor(
    Part::Projection(Projection::FfnGate),
    "ffn_gate",
    &["mlp.gate_proj"],
);
const UP: BlockTensor = tensor(
    Part::Projection(Projection::FfnUp),
    "ffn_up",
    &["mlp.up_proj"],
);
const DOWN: BlockTensor = tensor(
    Part::Projection(Projection::FfnDown),
    "ffn_down",
    &["mlp.down_proj"],
);

/// The names that llama gave and others took over.
pub(super) const PLAIN: &Tensors = &Tensors {
    embedding: Names {
        gguf: "token_embd",
        hf: &["model.embed_tokens"],
    },
    output_norm: Names {
        gguf: "output_norm",
        hf: &["model.norm"],
    },
    head: Names {
        gguf: "output",
        hf: &["lm_head"],
    },
    block_prefix: Names {
        gguf: "blk",
        hf: &["model.layers"],
    },
    block: &[ATTN_NORM, FFN_NORM, Q, K, V, O, GATE, UP, DOWN],
};

/// With a norm of each head of queries and keys.
pub(super) const HEAD_NORMED: &Tensors = &Tensors {
    block: &[
        ATTN_NORM,
        FFN_NORM,
        tensor(Part::QueryNorm, "attn_q_norm", &["self_attn.q_norm"]),
        tensor(Part::KeyNorm, "attn_k_norm", &["self_attn.k_norm"]),
        Q,
        K,
        V,
        O,
        GATE,
        UP,
        DOWN,
    ],
    ..*PLAIN
};

/// With norms of heads, and of what attention and FFN add.
pub(super) const POST_NORMED: &Tensors = &Tensors {
    block: &[
        ATTN_NORM,
        tensor(Part::FfnNorm, "ffn_norm", &["pre_feedforward_layernorm"]),
        tensor(
            Part::AttnPostNorm,
            "post_attention_norm",
            &["post_attention_layernorm"],
        ),
        tensor(
            Part::FfnPostNorm,
            "post_ffw_norm",
            &["post_feedforward_layernorm"],
        ),
        tensor(Part::QueryNorm, "attn_q_norm", &["self_attn.q_norm"]),
        tensor(Part::KeyNorm, "attn_k_norm", &["self_attn.k_norm"]),
        Q,
        K,
        V,
        O,
        GATE,
        UP,
        DOWN,
    ],
    ..*PLAIN
};

/// With a norm before the attention output and one before the down projection; the second names are 1bitLLM's.
pub(super) const SUB_NORMED: &Tensors = &Tensors {
    block: &[
        ATTN_NORM,
        FFN_NORM,
        tensor(
            Part::AttnSubNorm,
            "attn_sub_norm",
            &["self_attn.attn_sub_norm", "self_attn.inner_attn_ln"],
        ),
        tensor(
            Part::FfnSubNorm,
            "ffn_sub_norm",
            &["mlp.ffn_sub_norm", "mlp.ffn_layernorm"],
        ),
        Q,
        K,
        V,
        O,
        GATE,
        UP,
        DOWN,
    ],
    ..*PLAIN
};
