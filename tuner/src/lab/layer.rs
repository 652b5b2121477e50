//! One product of either kind, with a scale for each row or with scales for groups of columns, behind one face: what
//! is timed and verified is the runtime's own layer.

use bitnet_codegen::trit::TritError;
use bitnet_codegen::{Activations, GroupedActs, Kernel, TernaryMatrix};
use bitnet_runtime::network::linear::grouped::GroupedLinear;
use bitnet_runtime::network::linear::{ByBucket, Linear, Workspace, same_for_all};
use bitnet_runtime::pool::Pool;
use std::sync::Arc;

/// Quantised tokens of a product.
pub enum Tokens {
    /// A scale a token.
    Plain(Activations),
    /// A scale for each token and group of columns.
    Grouped(GroupedActs),
}

impl Tokens {
    /// How many.
    pub fn m(&self) -> usize {
        match self {
            Tokens::Plain(acts) => acts.m,
            Tokens::Grouped(acts) => acts.m,
        }
    }
}

/// A packed matrix.
pub enum Layer {
    /// For kernels that give integer sums.
    Plain(Linear),
    /// For kernels that scale groups of columns themselves.
    Grouped(GroupedLinear),
}

impl Layer {
    /// `w` for `kernels`, which say by their groups of which kind the product is.
    ///
    /// # Errors
    /// When the kernels have no groups and the scales of `w` cannot be split into columns.
    ///
    /// # Panics
    /// When the groups of the kernels are not those of `w`.
    pub fn new(pool: &Pool, w: &TernaryMatrix, kernels: ByBucket) -> Result<Self, TritError> {
        let w = std::slice::from_ref(w);
        Ok(match kernels[0].groups() {
            None => {
                let pick = |_: usize, _: usize| Ok::<_, TritError>(kernels.clone());
                Layer::Plain(Linear::new(pool, w, pick)?)
            }
            Some(groups) => Layer::Grouped(GroupedLinear::new(pool, w, groups, kernels)),
        })
    }

    /// `w` for one kernel.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_one(pool: &Pool, w: &TernaryMatrix, kernel: &Arc<Kernel>) -> Result<Self, TritError> {
        Self::new(pool, w, same_for_all(kernel))
    }

    /// The same packed weights under another kernel; `None` where it reads other panels.
    pub fn share(&self, kernel: &Arc<Kernel>) -> Option<Self> {
        let kernels = same_for_all(kernel);
        Some(match self {
            Layer::Plain(linear) => Layer::Plain(linear.share(&kernels)?),
            Layer::Grouped(linear) => Layer::Grouped(linear.share(&kernels)?),
        })
    }

    /// The same over its own copy of the packed bytes.
    pub fn duplicate(&self) -> Self {
        match self {
            Layer::Plain(linear) => Layer::Plain(linear.duplicate()),
            Layer::Grouped(linear) => Layer::Grouped(linear.duplicate()),
        }
    }

    /// Output features.
    pub fn n(&self) -> usize {
        match self {
            Layer::Plain(linear) => linear.n(),
            Layer::Grouped(linear) => linear.n(),
        }
    }

    /// Bytes of all packed copies.
    pub fn packed_bytes(&self) -> usize {
        match self {
            Layer::Plain(linear) => linear.packed_bytes(),
            Layer::Grouped(linear) => linear.packed_bytes(),
        }
    }

    /// Bytes of weights that a product of `m` tokens reads.
    pub fn weight_bytes(&self, m: usize) -> usize {
        match self {
            Layer::Plain(linear) => linear.weight_bytes(m),
            Layer::Grouped(linear) => linear.weight_bytes(m),
        }
    }

    /// Sets aside what every worker needs.
    pub fn make_room(&self, work: &mut Workspace) {
        match self {
            Layer::Plain(linear) => work.make_room(linear),
            Layer::Grouped(linear) => work.make_room_grouped(linear),
        }
    }

    /// `y`, `[m, n]`, as the runtime computes it.
    ///
    /// # Panics
    /// When `tokens` are of the other kind.
    pub fn forward(&self, pool: &Pool, work: &mut Workspace, tokens: &Tokens, y: &mut [f32]) {
        match (self, tokens) {
            (Layer::Plain(linear), Tokens::Plain(acts)) => {
                linear.forward(pool, work, acts, y, linear.n(), 0);
            }
            (Layer::Grouped(linear), Tokens::Grouped(acts)) => {
                linear.forward(pool, work, acts, y, linear.n(), 0);
            }
            _ => panic!("tokens of another kind of product"),
        }
    }

    /// What the oracle tells of the product, `[m, n]`: integer sums or, with groups, the result. An f64 holds either.
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn exact(&self, pool: &Pool, work: &mut Workspace, tokens: &Tokens) -> Vec<f64> {
        let len = tokens.m() * self.n();
        match (self, tokens) {
            (Layer::Plain(linear), Tokens::Plain(acts)) => {
                let mut sums = vec![i32::MIN; len];
                linear.accumulate(pool, work, acts, &mut sums);
                sums.into_iter().map(f64::from).collect()
            }
            _ => {
                let mut y = vec![f32::NAN; len];
                self.forward(pool, work, tokens, &mut y);
                y.into_iter().map(f64::from).collect()
            }
        }
    }
}
