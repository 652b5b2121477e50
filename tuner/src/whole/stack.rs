//! The products of a model that is not here: as many layers of random weights as no cache holds, run in the order of
//! a token. What is between the products is left out; it is the same under all kernels.

use super::Contestant;
use crate::lab::verify;
use bitnet_codegen::trit::TritError;
use bitnet_codegen::{Activations, Features, TernaryMatrix};
use bitnet_runtime::decoder::DecoderError;
use bitnet_runtime::network::KernelsUsed;
use bitnet_runtime::network::kernels::{ForcedError, Kernels};
use bitnet_runtime::network::linear::{Linear, Workspace};
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
    layers: Vec<Linear>,
    acts: BTreeMap<(usize, usize), Activations>,
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
        matrices: &[TernaryMatrix],
        weights: usize,
        bytes: usize,
        pool: &Arc<Pool>,
        (profile, features): (&Profile, Features),
    ) -> Result<Self, StackError> {
        let kernels = Kernels::new(features, profile.clone());
        let mut kernels = kernels.on_threads(pool.threads());
        let mut first = Vec::new();
        for w in matrices {
            let layer = Linear::new(pool, std::slice::from_ref(w), |n, k| {
                kernels.by_bucket(n, k).map_err(StackError::from)
            })?;
            first.push(layer);
        }
        let one: usize = first.iter().map(|l| l.weight_bytes(1)).sum();
        let copies = bytes.div_ceil(one.max(1)).clamp(1, 64);
        let mut layers: Vec<Linear> = Vec::new();
        for _ in 1..copies {
            layers.extend(first.iter().map(Linear::duplicate));
        }
        layers.extend(first);
        let mut work = Workspace::new(pool);
        layers.iter().for_each(|l| work.make_room(l));
        let ks = matrices.iter().map(TernaryMatrix::k);
        let acts = ks.flat_map(|k| [1, BATCH].map(|m| ((m, k), verify::tokens(0, m, k))));
        let widest = matrices.iter().map(TernaryMatrix::n).max().unwrap_or(0);
        let held: usize = layers.iter().map(|l| l.n() * l.k()).sum();
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
        for layer in layers {
            let (n, acts) = (layer.n(), &acts[&(m, layer.k())]);
            layer.forward(pool, work, acts, &mut y[..m * n], n, 0);
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

    #[test]
    fn a_stack_runs_both_phases_under_the_estimate() {
        let pool = Arc::new(Pool::new(2).expect("a pool"));
        let matrices = [(96, 128), (64, 96)].map(|(n, k)| verify::matrix(n, k));
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
        assert!(stack.kernels().len() >= 2);
    }
}
