//! The products of a model that is not here: as many layers of random weights as no cache holds, run in the order of
//! a token. What is between the products is left out; it is the same under all kernels.

use super::Contestant;
use crate::lab::layer::{Layer, Tokens};
use crate::lab::verify;
use bitnet_codegen::trit::TritError;
use bitnet_codegen::{Features, TernaryMatrix};
use bitnet_runtime::decoder::DecoderError;
use bitnet_runtime::graph::Product;
use bitnet_runtime::network::KernelsUsed;
use bitnet_runtime::network::kernels::{ForcedError, Kernels};
use bitnet_runtime::network::linear::Workspace;
use bitnet_runtime::pool::Pool;
use bitnet_runtime::profile::Profile;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Tokens of a prompt that are prefilled at once.
const BATCH: usize = 128;

/// A run of decoding takes this many tokens.
const TOKENS: usize = 8;

/// Products under a set of kernels.
pub struct Stack {
    pool: Arc<Pool>,
    work: Workspace,
    layers: Vec<(Product, Layer)>,
    acts: BTreeMap<(usize, Product), Tokens>,
    y: Vec<f32>,
    used: KernelsUsed,
    /// How many tokens of the model the products of one token here are.
    share: f64,
}

/// Why there is no stack.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A kernel.
    #[error(transparent)]
    Kernel(#[from] ForcedError),
    /// A matrix.
    #[error(transparent)]
    Matrix(#[from] TritError),
}

impl Stack {
    /// The products of `matrices`, of a model of `weights` ternary weights, under the kernels that `profile` chooses for a
    /// CPU of `features`, copied until they hold `bytes`.
    ///
    /// # Errors
    /// `StackError`.
    pub fn new(
        matrices: &[(Product, TernaryMatrix)],
        weights: usize,
        bytes: usize,
        pool: &Arc<Pool>,
        (profile, features): (&Profile, Features),
    ) -> Result<Self, StackError> {
        let kernels = Kernels::new(features, profile.clone());
        let mut kernels = kernels.on_threads(pool.threads());
        let mut first = Vec::new();
        for (product, w) in matrices {
            let by_bucket = kernels.by_bucket(*product)?;
            first.push((*product, Layer::new(pool, w, by_bucket)?));
        }
        let one: usize = first.iter().map(|(_, l)| l.weight_bytes(1)).sum();
        let copies = bytes.div_ceil(one.max(1)).clamp(1, 64);
        let mut layers: Vec<(Product, Layer)> = Vec::new();
        for _ in 1..copies {
            layers.extend(first.iter().map(|(p, l)| (*p, l.duplicate())));
        }
        layers.extend(first);
        let mut work = Workspace::new(pool);
        layers.iter().for_each(|(_, l)| l.make_room(&mut work));
        let products = || matrices.iter().map(|(product, _)| *product);
        let acts = products().flat_map(|p| {
            let of = |m| verify::tokens(0, m, p.k, p.groups);
            [1, BATCH].map(|m| ((m, p), of(m)))
        });
        let widest = products().map(|p| p.n).max().unwrap_or(0);
        let held: usize = layers.iter().map(|(p, _)| p.n * p.k).sum();
        Ok(Self {
            share: held as f64 / weights.max(1) as f64,
            acts: acts.collect(),
            y: vec![0.0; widest * BATCH],
            pool: Arc::clone(pool),
            used: kernels.used().clone(),
            work,
            layers,
        })
    }

    fn pass(&mut self, m: usize) {
        let Self {
            pool,
            work,
            layers,
            acts,
            y,
            ..
        } = self;
        for (product, layer) in layers {
            let y = &mut y[..m * product.n];
            layer.forward(pool, work, &acts[&(m, *product)], y);
        }
    }
}

impl Contestant for Stack {
    fn tokens_per_s(&mut self, phase: usize) -> Result<f64, DecoderError> {
        let start = Instant::now();
        let count = if phase == 0 {
            (0..TOKENS).for_each(|_| self.pass(1));
            TOKENS
        } else {
            self.pass(BATCH);
            BATCH
        };
        Ok(count as f64 * self.share / start.elapsed().as_secs_f64())
    }

    fn kernels(&self) -> &KernelsUsed {
        &self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_codegen::Groups;
    use bitnet_codegen::layout::scales::{GroupScales, Stored};
    use std::collections::BTreeSet;

    #[test]
    fn a_stack_runs_both_phases_under_the_estimate() {
        let pool = Arc::new(Pool::new(2).expect("a pool"));
        let scales = GroupScales {
            k: 64,
            stored: Stored::F16,
        };
        let groups = [None, Some(Groups { scales, planes: 2 })];
        let of = |(n, k), groups| Product { n, k, groups };
        let products = [of((96, 128), groups[0]), of((64, 96), groups[1])];
        let matrices = products.map(|p| (p, verify::matrix(p)));
        let mut stack = Stack::new(
            &matrices,
            100_000,
            20_000,
            &pool,
            (&Profile::default(), Features::detect()),
        )
        .expect("built");
        assert!(stack.layers.len() > 2);
        for phase in [0, 1] {
            assert!(stack.tokens_per_s(phase).expect("runs") > 0.0);
        }
        let used: BTreeSet<Product> = stack.kernels().keys().map(|(p, _)| *p).collect();
        assert_eq!(used, products.into());
    }
}
