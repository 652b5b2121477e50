//! [`Engine`]: the simple face for one conversation: a network, one sequence and one step.
//!
//! Prompts are processed in batches of [`BATCH`] tokens. Every float is computed in an order that depends on the
//! token's position alone, and the ternary sums are exact, so logits are the same bits for every kernel, tile,
//! thread count and batch.

use crate::decoder::{Decoder, DecoderError};
use crate::format::Model;
use crate::logits::{Logits, Wanted};
use crate::network::Network;
use crate::network::head::Head;
use crate::network::kernels::Kernels;
use crate::network::linear::Linear;
use crate::network::{BuildError, KernelsUsed, Tap};
use crate::pool::Pool;
use crate::sequence::{ContextError, KvType, Sequence, SequenceOptions};
use crate::step::{self, Append, Step, StepError};
use std::sync::Arc;

pub use crate::sequence::DEFAULT_CONTEXT;
pub use crate::step::BATCH;

/// Why the engine cannot answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The weights cannot be packed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The asked context makes no sense for the model.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The tokens cannot be appended.
    #[error(transparent)]
    Step(#[from] StepError),
}

/// How to set an engine up.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// Positions to hold; by default the model's own, at most [`DEFAULT_CONTEXT`].
    pub n_ctx: Option<usize>,
    /// How keys and values are stored, [`KvType::F16`] by default; results depend on it.
    pub kv: KvType,
    /// Tokens of a batch, [`BATCH`] by default; results do not depend on it.
    pub batch: Option<usize>,
}

/// A model that is ready to run, with one conversation.
pub struct Engine {
    sequence: Sequence,
    step: Step,
}

impl Engine {
    /// Packs `model` for the kernels that `kernels` chooses.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn new(
        model: Arc<Model>,
        pool: Arc<Pool>,
        kernels: &mut Kernels,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        let network = Arc::new(Network::new(model, &pool, kernels)?);
        Ok(Self::of(network, pool, options)?)
    }

    /// A conversation with a network that others may share.
    ///
    /// # Errors
    /// [`ContextError`].
    pub fn of(
        network: Arc<Network>,
        pool: Arc<Pool>,
        options: &EngineOptions,
    ) -> Result<Self, ContextError> {
        let sequence = SequenceOptions {
            n_ctx: options.n_ctx,
            kv: options.kv,
        };
        let sequence = Sequence::new(&network, &sequence)?;
        let batch = options.batch.unwrap_or(BATCH).clamp(1, sequence.n_ctx());
        Ok(Self {
            sequence,
            step: Step::new(network, pool, batch),
        })
    }

    /// The weights, to be shared.
    pub fn network(&self) -> &Arc<Network> {
        self.step.network()
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        self.network().model()
    }

    /// The threads.
    pub fn pool(&self) -> &Arc<Pool> {
        self.step.pool()
    }

    /// The conversation.
    pub fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// Goes on with another conversation of the same network; the one so far comes back.
    ///
    /// # Errors
    /// [`StepError::Foreign`] for a sequence of another network.
    pub fn replace(&mut self, sequence: Sequence) -> Result<Sequence, EngineError> {
        if !Arc::ptr_eq(sequence.network(), self.network()) {
            return Err(StepError::Foreign { append: 0 }.into());
        }
        Ok(std::mem::replace(&mut self.sequence, sequence))
    }

    /// The kernels in use, by product and bucket.
    pub fn kernels(&self) -> &KernelsUsed {
        self.network().kernels()
    }

    /// The LM head, where it is of floats.
    pub fn head(&self) -> Option<&Head> {
        self.network().head()
    }

    /// The packed ternary matrices.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.network().linears()
    }

    /// Bytes of weights and cache that decoding one token reads when `held` tokens are held.
    pub fn bytes_per_token(&self, held: usize) -> usize {
        let cache = self.sequence.cache().shape().position_bytes() * held;
        self.network().weight_bytes_per_token() + cache
    }

    /// Multiply-accumulates of decoding one token: ternary layers and LM head.
    pub fn macs_per_token(&self) -> u64 {
        self.prompt_macs(1)
    }

    /// Multiply-accumulates of a prompt of `tokens`, which needs the LM head once, for its last token.
    pub fn prompt_macs(&self, tokens: usize) -> u64 {
        self.network().prompt_macs(tokens)
    }

    /// Calls `tap` for every projection from now on: its quantised input and its integer sums.
    /// For tests: each product is computed a second time.
    pub fn set_tap(&mut self, tap: Option<Tap>) {
        self.step.set_tap(tap);
    }

    /// Whether `tokens` can be appended.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn check(&self, tokens: &[u32]) -> Result<(), EngineError> {
        Ok(step::check(&self.sequence, tokens)?)
    }

    /// Appends `tokens`, calling `each(i, logits)` for i from `first` on.
    ///
    /// # Errors
    /// [`EngineError`]; batches before the failure stay.
    pub fn run(
        &mut self,
        tokens: &[u32],
        first: usize,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        self.check(tokens)?;
        let batch = self.step.max_rows();
        for (i, tokens) in tokens.chunks(batch).enumerate() {
            let done = i * batch;
            let append = Append {
                sequence: &mut self.sequence,
                tokens,
                logits_from: first.saturating_sub(done).min(tokens.len()),
            };
            self.step
                .run(&mut [append], |_, i, logits| each(done + i, logits))?;
        }
        Ok(())
    }
}

impl Engine {
    /// Appends `tokens`; the normed hidden state of the last one, `[hidden]`.
    ///
    /// # Errors
    /// [`EngineError`]; batches before the failure stay.
    pub fn run_hidden(&mut self, tokens: &[u32]) -> Result<&[f32], EngineError> {
        let batch = self.step.max_rows();
        self.check(tokens)?;
        let last = (tokens.len() - 1) / batch * batch;
        if last > 0 {
            self.run(&tokens[..last], last, |_, _| ())?;
        }
        let append = Append {
            sequence: &mut self.sequence,
            tokens: &tokens[last..],
            logits_from: tokens.len() - last,
        };
        Ok(self.step.run_hidden(append)?)
    }

    /// Appends `tokens`; of the logits that follow what is `wanted`, or all.
    fn run_wanted(
        &mut self,
        tokens: &[u32],
        wanted: &Wanted<'_>,
    ) -> Result<Logits<'_>, EngineError> {
        let batch = self.step.max_rows();
        let last = tokens.len() - tokens.len().min((tokens.len().max(1) - 1) % batch + 1);
        self.check(tokens)?;
        if last > 0 {
            self.run(&tokens[..last], last, |_, _| ())?;
        }
        let tokens = &tokens[last..];
        let append = Append {
            sequence: &mut self.sequence,
            tokens,
            logits_from: tokens.len() - 1,
        };
        Ok(self.step.run_wanted(append, wanted)?)
    }
}

impl Decoder for Engine {
    fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32], DecoderError> {
        self.run(tokens, tokens.len().saturating_sub(1), |_, _| ())?;
        Ok(self.step.last_logits())
    }

    fn prefill_wanted(
        &mut self,
        tokens: &[u32],
        wanted: &Wanted<'_>,
    ) -> Result<Logits<'_>, DecoderError> {
        Ok(self.run_wanted(tokens, wanted)?)
    }

    fn prefill_each(
        &mut self,
        tokens: &[u32],
        first: usize,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), DecoderError> {
        Ok(self.run(tokens, first, each)?)
    }

    fn truncate(&mut self, len: usize) {
        self.sequence.truncate(len);
    }

    fn position(&self) -> usize {
        self.sequence.position()
    }

    fn n_ctx(&self) -> usize {
        self.sequence.n_ctx()
    }

    fn n_vocab(&self) -> usize {
        self.network().config().vocab
    }
}

#[cfg(test)]
mod tests;
