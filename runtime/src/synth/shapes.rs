//! The shapes of the published ternary models.

use crate::graph::architectures::{BITNET, BITNET_B158, LLAMA, QWEN3};
use crate::graph::{Acts, Architecture, ModelConfig, Multipliers, Rope};

/// A model that can be made up: its name to ask for it by, and its configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// The name to ask for it.
    pub name: &'static str,
    /// Sizes and constants; the name in it is empty.
    pub config: ModelConfig,
}

/// A row of the table below: architecture, then hidden, ffn, layers, heads, kv heads, head width,
/// vocabulary, context.
pub(crate) const fn shape(
    name: &'static str,
    architecture: &'static Architecture,
    sizes: [usize; 8],
    theta: f32,
    tied: bool,
) -> Shape {
    let [
        hidden,
        ffn,
        n_layers,
        n_heads,
        n_kv_heads,
        head_dim,
        vocab,
        context_len,
    ] = sizes;
    Shape {
        name,
        config: ModelConfig {
            architecture,
            name: String::new(),
            n_layers,
            hidden,
            n_heads,
            n_kv_heads,
            head_dim,
            ffn,
            vocab,
            context_len,
            norm_eps: if theta >= 1e6 { 1e-6 } else { 1e-5 },
            input_norm_eps: None,
            activation: architecture.activation,
            rope: Rope {
                theta,
                linear: 1.0,
                factors: None,
                yarn: None,
            },
            local: None,
            multipliers: Multipliers::ONE,
            tied,
            acts: if architecture.weight_only {
                Acts::I16
            } else {
                Acts::I8
            },
            weight_only: architecture.weight_only,
        },
    }
}

/// Every shape; the only list.
///
/// `tiny` is for tests. `100b` is the dummy model of bitnet.cpp's benchmarks.
pub static SHAPES: &[Shape] = &[
    shape(
        "tiny",
        BITNET_B158,
        [256, 640, 2, 4, 2, 64, 512, 256],
        10_000.0,
        true,
    ),
    shape(
        "2b-4t",
        BITNET_B158,
        [2560, 6912, 30, 20, 5, 128, 128_256, 4096],
        500_000.0,
        true,
    ),
    shape(
        "large",
        BITNET,
        [1536, 4096, 24, 16, 16, 96, 32_002, 2048],
        10_000.0,
        true,
    ),
    shape(
        "3b",
        BITNET,
        [3200, 8640, 26, 32, 32, 100, 32_002, 2048],
        10_000.0,
        true,
    ),
    shape(
        "llama3-8b",
        LLAMA,
        [4096, 14_336, 32, 32, 8, 128, 128_256, 8192],
        500_000.0,
        false,
    ),
    shape(
        "falcon3-1b",
        LLAMA,
        [2048, 8192, 18, 8, 4, 256, 131_072, 8192],
        1_000_042.0,
        false,
    ),
    shape(
        "falcon3-3b",
        LLAMA,
        [3072, 9216, 22, 12, 4, 256, 131_072, 32_768],
        1_000_042.0,
        false,
    ),
    shape(
        "falcon3-7b",
        LLAMA,
        [3072, 23_040, 28, 12, 4, 256, 131_072, 32_768],
        1_000_042.0,
        false,
    ),
    shape(
        "falcon3-10b",
        LLAMA,
        [3072, 23_040, 40, 12, 4, 256, 131_072, 32_768],
        1_000_042.0,
        false,
    ),
    shape(
        "falcon-e-1b",
        LLAMA,
        [2048, 9216, 24, 16, 2, 128, 32_768, 32_768],
        1_000_042.0,
        false,
    ),
    shape(
        "falcon-e-3b",
        LLAMA,
        [2048, 13_312, 32, 16, 2, 128, 32_768, 32_768],
        1_000_042.0,
        false,
    ),
    shape(
        "bonsai-1.7b",
        QWEN3,
        [2048, 6144, 28, 16, 8, 128, 151_936, 32_768],
        1_000_000.0,
        true,
    ),
    shape(
        "bonsai-4b",
        QWEN3,
        [2560, 9728, 36, 32, 8, 128, 151_936, 32_768],
        1_000_000.0,
        true,
    ),
    shape(
        "bonsai-8b",
        QWEN3,
        [4096, 12_288, 36, 32, 8, 128, 151_936, 32_768],
        1_000_000.0,
        false,
    ),
    shape(
        "100b",
        BITNET,
        [8192, 45_568, 72, 64, 64, 128, 32_002, 2048],
        10_000.0,
        true,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Projection;
    use bitnet_codegen::space::MODEL_SHAPES;

    #[test]
    fn kernels_are_proven_on_the_shapes_of_these_models() {
        for Shape { name, config } in SHAPES
            .iter()
            .filter(|s| s.name != "tiny" && s.name != "100b")
            // Kernels that scale groups are proven by groups, whatever K.
            .filter(|s| !s.config.weight_only)
        {
            for projection in Projection::ALL {
                let shape = config.linear_shape(projection);
                assert!(
                    MODEL_SHAPES.contains(&shape),
                    "{name} {projection:?}: {shape:?}"
                );
            }
        }
    }
}
