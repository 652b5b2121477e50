//! [`ARCHITECTURES`]: the model graphs that can be loaded; one entry says everything about one.
//!
//! Readers of both formats, `convert`, `synth`, `inspect` and the tuner work from these entries alone. A new graph
//! whose arithmetic is known is one more entry; only new arithmetic needs a field here and code in `network`.

use std::fmt;

use super::config::{Activation, Norm, TensorId, Weight};
use super::tensors::{HEAD_NORMED, Names, PLAIN, POST_NORMED, Part, SUB_NORMED, Tensors};

/// A model graph: what it computes, and what files call it and its weights.
pub struct Architecture {
    /// `general.architecture` of GGUF files and the prefix of their keys; the name for people.
    pub name: &'static str,
    /// The class in `architectures` of `config.json`, if there is one.
    pub hf_class: Option<&'static str>,
    /// Classes of other entries whose folders are this graph where `hidden_act` is this activation.
    pub hf_also: &'static [&'static str],
    /// `model_type` of `config.json`, for folders that name no class.
    pub hf_model_type: Option<&'static str>,
    /// Whether the class quantises float weights (by absmean) and activations (to int8) by itself, with no word about
    /// it in `config.json`.
    pub hf_quantises: bool,
    /// What a `config.json` leaves out.
    pub hf_defaults: HfDefaults,
    /// How GGUF files order the rows of queries and keys.
    pub gguf_rotary: RotaryRows,
    /// The gate's activation.
    pub activation: Activation,
    /// Whether ternary models of it were trained with floats as inputs, unless each projection owns an input norm.
    pub weight_only: bool,
    /// What multiplies, and which layers have a window.
    pub family: Family,
    /// The weights, by both formats' names. A norm that is not listed does not exist.
    pub tensors: &'static Tensors,
}

/// Constants of a graph beyond sizes, and where files have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Nothing multiplies, every layer sees every position.
    Plain,
    /// Embeddings are multiplied by √hidden; where files name a window, five of six layers have it.
    Gemma3,
    /// Embeddings, what blocks add, and hidden states before the head are multiplied by what files say (µP).
    Mup,
}

/// Values that hold where `config.json` gives none, as in the class's own code.
#[derive(Clone, Copy, Debug)]
pub struct HfDefaults {
    /// `rope_theta`.
    pub rope_theta: f32,
    /// `rms_norm_eps`.
    pub norm_eps: f32,
}

/// The order of the rows of one head in files; both halves of a rotary pair are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotaryRows {
    /// First halves, then second halves: the order that is computed with.
    Halves,
    /// Pair by pair.
    Pairs,
}

/// Every graph; the only list.
pub const ARCHITECTURES: &[&Architecture] = &[
    BITNET_B158,
    BITNET_25,
    BITNET,
    LLAMA,
    QWEN3,
    GEMMA3,
    MINICPM,
    #[cfg(test)]
    tests::MADE_UP,
];

/// microsoft/bitnet-b1.58-2B-4T: sub-norms, ReLU², tied.
pub const BITNET_B158: &Architecture = &Architecture {
    name: "bitnet-b1.58",
    hf_class: Some("BitNetForCausalLM"),
    hf_also: &["BitnetForCausalLM"],
    hf_model_type: Some("bitnet"),
    hf_quantises: false,
    hf_defaults: HfDefaults {
        rope_theta: 500_000.0,
        norm_eps: 1e-5,
    },
    gguf_rotary: RotaryRows::Halves,
    activation: Activation::Relu2,
    weight_only: false,
    family: Family::Plain,
    tensors: SUB_NORMED,
};

/// The first upload of the same model: the same graph, a separate head.
pub const BITNET_25: &Architecture = &Architecture {
    name: "bitnet-25",
    hf_class: None,
    hf_also: &[],
    hf_model_type: None,
    ..*BITNET_B158
};

/// 1bitLLM: sub-norms, SiLU.
pub const BITNET: &Architecture = &Architecture {
    name: "bitnet",
    hf_class: Some("BitnetForCausalLM"),
    hf_also: &["BitNetForCausalLM"],
    hf_model_type: None,
    hf_quantises: true,
    hf_defaults: HfDefaults {
        rope_theta: 10_000.0,
        norm_eps: 1e-5,
    },
    gguf_rotary: RotaryRows::Halves,
    activation: Activation::Silu,
    weight_only: false,
    family: Family::Plain,
    tensors: SUB_NORMED,
};

/// Llama with ternary projections (Llama3-8B-1.58, Falcon3, Falcon-E): no sub-norms, SiLU.
pub const LLAMA: &Architecture = &Architecture {
    name: "llama",
    hf_class: Some("LlamaForCausalLM"),
    hf_also: &[],
    hf_model_type: Some("llama"),
    hf_quantises: false,
    hf_defaults: HfDefaults {
        rope_theta: 10_000.0,
        norm_eps: 1e-6,
    },
    gguf_rotary: RotaryRows::Pairs,
    activation: Activation::Silu,
    weight_only: false,
    family: Family::Plain,
    tensors: PLAIN,
};

/// Qwen3 with everything ternary (Ternary-Bonsai): queries and keys are normed head by head, SiLU.
pub const QWEN3: &Architecture = &Architecture {
    name: "qwen3",
    hf_class: Some("Qwen3ForCausalLM"),
    hf_also: &[],
    hf_model_type: Some("qwen3"),
    hf_quantises: false,
    hf_defaults: HfDefaults {
        rope_theta: 10_000.0,
        norm_eps: 1e-6,
    },
    gguf_rotary: RotaryRows::Halves,
    activation: Activation::Silu,
    weight_only: true,
    family: Family::Plain,
    tensors: HEAD_NORMED,
};

/// Gemma3 as bitnet-embedding-270m has it, in GGUF files: head norms as Qwen3, norms of what a block adds, GELU.
pub const GEMMA3: &Architecture = &Architecture {
    name: "gemma3",
    hf_class: None,
    hf_also: &[],
    hf_model_type: None,
    hf_quantises: false,
    hf_defaults: HfDefaults {
        rope_theta: 1_000_000.0,
        norm_eps: 1e-6,
    },
    gguf_rotary: RotaryRows::Halves,
    activation: Activation::GeluTanh,
    weight_only: true,
    family: Family::Gemma3,
    tensors: POST_NORMED,
};

/// MiniCPM with ternary projections (BitCPM4): the graph of llama under µP.
pub const MINICPM: &Architecture = &Architecture {
    name: "minicpm",
    hf_class: Some("MiniCPMForCausalLM"),
    hf_also: &[],
    hf_model_type: Some("minicpm"),
    hf_quantises: false,
    hf_defaults: HfDefaults {
        rope_theta: 10_000.0,
        norm_eps: 1e-6,
    },
    gguf_rotary: RotaryRows::Pairs,
    activation: Activation::Silu,
    weight_only: true,
    family: Family::Mup,
    tensors: PLAIN,
};

impl Architecture {
    /// The graph that a GGUF file names.
    pub fn of_gguf(name: &str) -> Option<&'static Architecture> {
        ARCHITECTURES.iter().find(|a| a.name == name).copied()
    }

    /// The graph of a class in `config.json` or, where there is none, of a model type.
    pub fn of_hf(class: Option<&str>, model_type: Option<&str>) -> Option<&'static Architecture> {
        let mut all = ARCHITECTURES.iter().copied();
        match class {
            Some(class) => all.find(|a| a.hf_class == Some(class)),
            None => all.find(|a| model_type.is_some() && a.hf_model_type == model_type),
        }
    }

    /// The graph of this one's folders where `hidden_act` is `activation`, if any computes that.
    pub fn with_activation(&'static self, activation: Activation) -> Option<&'static Architecture> {
        if self.activation == activation {
            return Some(self);
        }
        let class = self.hf_class?;
        let also = |a: &&Architecture| a.activation == activation && a.hf_also.contains(&class);
        ARCHITECTURES.iter().copied().find(also)
    }

    /// Whether the attention output and the FFN product are normalised before their projection.
    pub fn sub_norms(&self) -> bool {
        self.tensors
            .block
            .iter()
            .any(|t| t.part == Part::AttnSubNorm)
    }

    /// Whether each head of queries and keys is normalised.
    pub fn head_norms(&self) -> bool {
        let mut block = self.tensors.block.iter();
        block.any(|t| t.part == Part::QueryNorm)
    }

    /// Whether what attention and FFN add is normalised.
    pub fn post_norms(&self) -> bool {
        let mut block = self.tensors.block.iter();
        block.any(|t| t.part == Part::AttnPostNorm)
    }

    /// What GGUF files call a weight, without `.weight`.
    pub fn gguf(&self, weight: Weight) -> String {
        let names = self.names(weight);
        let stem = match layer(weight) {
            Some(l) => format!("{}.{l}.{}", self.tensors.block_prefix.gguf, names.gguf),
            None => names.gguf.to_owned(),
        };
        match weight {
            Weight::Norm(Norm::Input(_)) => stem + "_norm_in",
            _ => stem,
        }
    }

    /// What Hugging Face folders call a weight, without `.weight`: the usual name first.
    pub fn hf(&self, weight: Weight) -> impl Iterator<Item = String> {
        let prefix = self.tensors.block_prefix.hf;
        let names = self.names(weight).hf;
        prefix.iter().flat_map(move |prefix| {
            names.iter().map(move |name| {
                let stem = match layer(weight) {
                    Some(l) => format!("{prefix}.{l}.{name}"),
                    None => (*name).to_owned(),
                };
                match weight {
                    Weight::Norm(Norm::Input(_)) => stem + ".rms_norm",
                    _ => stem,
                }
            })
        })
    }

    fn names(&self, weight: Weight) -> &'static Names {
        let part = match weight {
            Weight::Embedding => return &self.tensors.embedding,
            Weight::Head => return &self.tensors.head,
            Weight::Norm(Norm::Output) => return &self.tensors.output_norm,
            Weight::Norm(Norm::Attn(_)) => Part::AttnNorm,
            Weight::Norm(Norm::Query(_)) => Part::QueryNorm,
            Weight::Norm(Norm::Key(_)) => Part::KeyNorm,
            Weight::Norm(Norm::AttnSub(_)) => Part::AttnSubNorm,
            Weight::Norm(Norm::AttnPost(_)) => Part::AttnPostNorm,
            Weight::Norm(Norm::Ffn(_)) => Part::FfnNorm,
            Weight::Norm(Norm::FfnPost(_)) => Part::FfnPostNorm,
            Weight::Norm(Norm::FfnSub(_)) => Part::FfnSubNorm,
            Weight::Norm(Norm::Input(id)) | Weight::Projection(id) => {
                Part::Projection(id.projection)
            }
        };
        let block = self.tensors.block.iter();
        let tensor = block.clone().find(|t| t.part == part);
        &tensor
            .unwrap_or_else(|| panic!("{part:?} is not part of {self}"))
            .names
    }
}

/// The block that a weight is in.
fn layer(weight: Weight) -> Option<usize> {
    match weight {
        Weight::Embedding | Weight::Head | Weight::Norm(Norm::Output) => None,
        Weight::Norm(
            Norm::Attn(l)
            | Norm::Query(l)
            | Norm::Key(l)
            | Norm::AttnSub(l)
            | Norm::AttnPost(l)
            | Norm::Ffn(l)
            | Norm::FfnSub(l)
            | Norm::FfnPost(l),
        ) => Some(l),
        Weight::Norm(Norm::Input(TensorId { layer, .. }))
        | Weight::Projection(TensorId { layer, .. }) => Some(layer),
    }
}

impl PartialEq for Architecture {
    /// Names tell entries apart.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl fmt::Debug for Architecture {
    /// The name: entries are long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::config::Projection;
    use super::super::tensors::tensor;
    use super::*;
    use std::collections::HashSet;

    /// An architecture that nobody made: known arithmetic under names of its own. It is part of [`ARCHITECTURES`] in
    /// tests, and nothing else in the project knows it; `format::tests::made_up` takes it through every tool.
    pub(crate) const MADE_UP: &Architecture = &Architecture {
        name: "made-up",
        hf_class: Some("MadeUpForCausalLM"),
        hf_also: &[],
        hf_model_type: Some("made_up"),
        hf_quantises: false,
        hf_defaults: HfDefaults {
            rope_theta: 20_000.0,
            norm_eps: 1e-6,
        },
        gguf_rotary: RotaryRows::Pairs,
        activation: Activation::Relu2,
        weight_only: false,
        family: Family::Plain,
        tensors: &Tensors {
            embedding: Names {
                gguf: "words",
                hf: &["core.words"],
            },
            output_norm: Names {
                gguf: "last_norm",
                hf: &["core.last"],
            },
            head: Names {
                gguf: "speak",
                hf: &["speak"],
            },
            block_prefix: Names {
                gguf: "stage",
                hf: &["core.stages"],
            },
            block: &[
                tensor(Part::AttnNorm, "n1", &["one.norm"]),
                tensor(Part::FfnNorm, "n2", &["two.norm"]),
                tensor(Part::AttnSubNorm, "n3", &["one.inner"]),
                tensor(Part::FfnSubNorm, "n4", &["two.inner"]),
                tensor(Part::Projection(Projection::AttnQ), "wq", &["one.wq"]),
                tensor(Part::Projection(Projection::AttnK), "wk", &["one.wk"]),
                tensor(Part::Projection(Projection::AttnV), "wv", &["one.wv"]),
                tensor(Part::Projection(Projection::AttnOut), "wo", &["one.wo"]),
                tensor(Part::Projection(Projection::FfnGate), "w1", &["two.w1"]),
                tensor(Part::Projection(Projection::FfnUp), "w3", &["two.w3"]),
                tensor(Part::Projection(Projection::FfnDown), "w2", &["two.w2"]),
            ],
        },
    };

    #[test]
    fn entries_are_complete_and_told_apart() {
        let mut names = HashSet::new();
        let mut classes = HashSet::new();
        for a in ARCHITECTURES {
            assert!(names.insert(a.name), "{a} is there twice");
            assert!(
                a.hf_class.is_none_or(|c| classes.insert(c)),
                "{a}: a class of two entries"
            );
            let parts: Vec<Part> = a.tensors.block.iter().map(|t| t.part).collect();
            let has = |part| parts.iter().filter(|p| **p == part).count();
            for projection in Projection::ALL {
                assert_eq!(has(Part::Projection(projection)), 1, "{a} {projection:?}");
            }
            assert_eq!((has(Part::AttnNorm), has(Part::FfnNorm)), (1, 1), "{a}");
            assert_eq!(
                has(Part::AttnPostNorm),
                has(Part::FfnPostNorm),
                "{a}: both post-norms or none"
            );
            assert_eq!(
                has(Part::AttnSubNorm),
                has(Part::FfnSubNorm),
                "{a}: both sub-norms or none"
            );
            let block: HashSet<_> = a.tensors.block.iter().map(|t| t.names.gguf).collect();
            assert_eq!(
                block.len(),
                parts.len(),
                "{a}: names of a block are distinct"
            );
        }
    }

    #[test]
    fn a_class_and_an_activation_name_a_graph() {
        let graph = |class, act| {
            Architecture::of_hf(Some(class), None).and_then(|a| a.with_activation(act))
        };
        use Activation::{Relu2, Silu};
        assert_eq!(graph("BitNetForCausalLM", Relu2), Some(BITNET_B158));
        assert_eq!(graph("BitNetForCausalLM", Silu), Some(BITNET));
        assert_eq!(graph("BitnetForCausalLM", Silu), Some(BITNET));
        assert_eq!(graph("BitnetForCausalLM", Relu2), Some(BITNET_B158));
        assert_eq!(graph("LlamaForCausalLM", Silu), Some(LLAMA));
        assert_eq!(graph("LlamaForCausalLM", Relu2), None);
        assert_eq!(Architecture::of_hf(None, Some("bitnet")), Some(BITNET_B158));
        assert_eq!(Architecture::of_hf(None, None), None);
    }
}
