//! The problem every kernel solves: `Y[M,N] = X[M,K] · W[N,K]ᵀ`, M tokens, N outputs, K inputs.
//!
//! Defined once, here; file formats and peers that name the letters otherwise
//! (bitnet.cpp and T-MAC use m for outputs, n for tokens) are converted at the boundary.
//!
//! ```text
//!            K                    N                      N
//!       ┌─────────┐         ┌─────────┐            ┌─────────┐
//!     M │ X  int8 │    ·  K │ Wᵀ trit │      =   M │ Y int32 │
//!       └─────────┘         └─────────┘            └─────────┘
//! ```

use std::fmt;

/// The longest reduction for which every partial sum fits an `i32` whatever the data:
/// `K · 2 · 128 < 2^31` with 2-bit codes up to 2 and activations down to −128.
pub const MAX_K: usize = (1 << 31) / (2 * 128) - 1;

/// The shape of one matrix product. M tokens, N output features, K input features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Problem {
    /// Tokens: rows of X and Y.
    pub m: usize,
    /// Output features: rows of W, columns of Y.
    pub n: usize,
    /// Input features: columns of X and W.
    pub k: usize,
}

impl Problem {
    /// A problem of `m` tokens, `n` outputs and `k` inputs.
    pub const fn new(m: usize, n: usize, k: usize) -> Self {
        Self { m, n, k }
    }

    /// Multiply-accumulates: `m · n · k`.
    pub fn macs(&self) -> u64 {
        self.m as u64 * self.n as u64 * self.k as u64
    }
}

/// Printed as `MxNxK`, the form the command line takes.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.m, self.n, self.k)
    }
}
