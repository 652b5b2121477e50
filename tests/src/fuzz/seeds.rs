//! The documents that targets begin with: models of a few kilobytes in every storage type, built once.

use bitnet_codegen::TernaryMatrix;
use bitnet_runtime::format::dtype::TernaryType;
use bitnet_runtime::format::ternary::pack::pack;

/// Sizes of a model of one block.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Residual stream.
    pub hidden: usize,
    /// FFN.
    pub ffn: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Of one head.
    pub head_dim: usize,
    /// Tokens.
    pub vocab: usize,
}

impl Sizes {
    /// Four kilobytes of weights.
    pub const SMALL: Sizes = Sizes {
        hidden: 32,
        ffn: 64,
        heads: 2,
        kv_heads: 1,
        head_dim: 16,
        vocab: 24,
    };
    /// Rows of whole blocks of 64.
    pub const WIDE: Sizes = Sizes {
        hidden: 64,
        ffn: 128,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        vocab: 24,
    };

    /// Projections of a block: name, rows, columns.
    pub fn projections(self) -> [(&'static str, usize, usize); 7] {
        let (h, f) = (self.hidden, self.ffn);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        [
            ("attn_q", q, h),
            ("attn_k", kv, h),
            ("attn_v", kv, h),
            ("attn_output", h, q),
            ("ffn_gate", f, h),
            ("ffn_up", f, h),
            ("ffn_down", h, f),
        ]
    }
}

/// A matrix of all three weights in no order.
pub fn matrix(n: usize, k: usize) -> TernaryMatrix {
    let trits: Vec<i8> = (0..n * k)
        .map(|i| ((i * 7 + i / 5) % 3) as i8 - 1)
        .collect();
    TernaryMatrix::from_trits(n, k, &trits, 0.75).expect("a matrix of trits")
}

/// The bytes of a projection in a ternary type.
pub fn packed(kind: TernaryType, n: usize, k: usize) -> Vec<u8> {
    pack(kind, &matrix(n, k), 128, None)
}

/// Float values as a master tensor holds them.
pub fn floats(n: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i * 37 % 101) as f32 - 50.0) / 40.0)
        .collect()
}
