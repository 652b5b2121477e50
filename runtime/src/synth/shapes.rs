//! The shapes of the published ternary models.

use crate::graph::Architecture;

/// Everything that decides the size of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are those of `ModelConfig`")]
pub struct Shape {
    /// The name to ask for it.
    pub name: &'static str,
    pub architecture: Architecture,
    pub hidden: usize,
    pub ffn: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    pub context_len: usize,
    pub rope_theta: f32,
    pub norm_eps: f32,
    pub tied: bool,
}

/// A row of the table below: architecture, then hidden, ffn, layers, heads, kv heads, head width,
/// vocabulary, context.
const fn shape(
    name: &'static str,
    architecture: Architecture,
    sizes: [usize; 8],
    rope_theta: f32,
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
    let norm_eps = if rope_theta > 1e6 { 1e-6 } else { 1e-5 };
    Shape {
        name,
        architecture,
        hidden,
        ffn,
        n_layers,
        n_heads,
        n_kv_heads,
        head_dim,
        vocab,
        context_len,
        rope_theta,
        norm_eps,
        tied,
    }
}

use Architecture::{Bitnet, BitnetB158, Llama};

/// Every shape; the only list.
///
/// `tiny` is for tests. `100b` is the dummy model of bitnet.cpp's benchmarks.
pub const SHAPES: &[Shape] = &[
    shape(
        "tiny",
        BitnetB158,
        [256, 640, 2, 4, 2, 64, 512, 256],
        10_000.0,
        true,
    ),
    shape(
        "2b-4t",
        BitnetB158,
        [2560, 6912, 30, 20, 5, 128, 128_256, 4096],
        500_000.0,
        true,
    ),
    shape(
        "large",
        Bitnet,
        [1536, 4096, 24, 16, 16, 96, 32_002, 2048],
        10_000.0,
        true,
    ),
    shape(
        "3b",
        Bitnet,
        [3200, 8640, 26, 32, 32, 100, 32_002, 2048],
        10_000.0,
        true,
    ),
    shape(
        "llama3-8b",
        Llama,
        [4096, 14_336, 32, 32, 8, 128, 128_256, 8192],
        500_000.0,
        false,
    ),
    shape(
        "falcon3-1b",
        Llama,
        [2048, 8192, 18, 8, 4, 256, 131_072, 8192],
        1_000_042.0,
        false,
    ),
    shape(
        "falcon3-3b",
        Llama,
        [3072, 9216, 22, 12, 4, 256, 131_072, 32_768],
        1_000_042.0,
        false,
    ),
    shape(
        "falcon3-7b",
        Llama,
        [3072, 23_040, 28, 12, 4, 256, 131_072, 32_768],
        1_000_042.0,
        false,
    ),
    shape(
        "falcon3-10b",
        Llama,
        [3072, 23_040, 40, 12, 4, 256, 131_072, 32_768],
        1_000_042.0,
        false,
    ),
    shape(
        "falcon-e-1b",
        Llama,
        [2048, 9216, 24, 16, 2, 128, 32_768, 32_768],
        1_000_042.0,
        false,
    ),
    shape(
        "falcon-e-3b",
        Llama,
        [2048, 13_312, 32, 16, 2, 128, 32_768, 32_768],
        1_000_042.0,
        false,
    ),
    shape(
        "100b",
        Bitnet,
        [8192, 45_568, 72, 64, 64, 128, 32_002, 2048],
        10_000.0,
        true,
    ),
];
