//! [`Engine`]: a loaded model with its threads, kernels and key-value cache; tokens in, logits out.
//!
//! Prompts are processed in batches of [`BATCH`] tokens. Every float is computed in an order that depends on the
//! token's position alone, and the ternary sums are exact, so logits are the same bits for every kernel, tile,
//! thread count and batch.

use crate::format::Model;
use crate::generate::{Decoder, DecoderError};
use crate::graph::{ModelConfig, Norm};
use crate::lanes;
use crate::network::block::{Block, gated};
use crate::network::head::Head;
use crate::network::kernels::{Kernels, Origin};
use crate::network::linear::{Linear, Workspace};
use crate::network::product::{BuildError, Products, Tap};
use crate::network::rope::RopeTable;
use crate::pool::{Pool, Rows};
use crate::sequence::KvCache;
use crate::step::attend::KEY_BLOCK;
use crate::step::attention::{self, Heads};
use bitnet_codegen::{Activations, KernelSpec};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Tokens of a prompt that go through the layers together.
pub const BATCH: usize = 128;

/// Tokens whose logits are computed together.
const LOGIT_ROWS: usize = 16;

/// Positions that are reserved where nobody says how many.
pub const DEFAULT_CONTEXT: usize = 4096;

/// Why the engine cannot answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The weights cannot be packed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The asked context makes no sense for the model.
    #[error("a context of {asked} tokens: expected 1 to {trained}, what the model was trained for")]
    Context {
        /// What was asked for.
        asked: usize,
        /// The model's own length.
        trained: usize,
    },
    /// The cache does not fit the memory.
    #[error(
        "no memory for a context of {n_ctx} tokens ({bytes} bytes of keys and values); ask for a shorter one with --ctx"
    )]
    Memory {
        /// Positions.
        n_ctx: usize,
        /// What they need.
        bytes: usize,
    },
    /// No token was given.
    #[error("no tokens: expected at least one")]
    Empty,
    /// Too many tokens.
    #[error("the context is full: {held} tokens held and {more} more, of {n_ctx}")]
    Full {
        /// Tokens held.
        held: usize,
        /// Tokens that were to be added.
        more: usize,
        /// Room.
        n_ctx: usize,
    },
    /// A token id beyond the vocabulary.
    #[error("token id {id} at index {index} is out of range: the vocabulary has {n_vocab}")]
    Token {
        /// The id.
        id: u32,
        /// Its place among the tokens given.
        index: usize,
        /// Ids there are.
        n_vocab: usize,
    },
    /// Logits that are no numbers.
    #[error(
        "the logits after position {position} are not finite: the weights are damaged, or the model overflows f32"
    )]
    NotFinite {
        /// The position.
        position: usize,
    },
}

/// How to set an engine up.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// Positions to hold; by default the model's own, at most [`DEFAULT_CONTEXT`].
    pub n_ctx: Option<usize>,
    /// Tokens of a batch, [`BATCH`] by default; results do not depend on it.
    pub batch: Option<usize>,
}

/// Activations on their way through the layers; allocated once.
struct Buffers {
    x: Vec<f32>,
    y: Vec<f32>,
    down: Vec<f32>,
    normed: Vec<f32>,
    attention: Vec<f32>,
    cos_sin: Vec<f32>,
    acts: Activations,
    work: Workspace,
    /// For each worker a row as wide as the widest layer.
    spares: Vec<Mutex<Vec<f32>>>,
    /// What attention needs of each worker.
    scores: Vec<Mutex<Vec<f32>>>,
    last: Vec<f32>,
    logits: Vec<f32>,
}

/// A model that is ready to run.
pub struct Engine {
    model: Arc<Model>,
    pool: Arc<Pool>,
    blocks: Vec<Block>,
    output_norm: Vec<f32>,
    head: Head,
    rope: RopeTable,
    caches: Vec<KvCache>,
    used: BTreeMap<(usize, usize, usize), (KernelSpec, Origin)>,
    n_ctx: usize,
    batch: usize,
    position: usize,
    buffers: Buffers,
    tap: Option<Tap>,
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
        let config = model.config();
        let n_ctx = options
            .n_ctx
            .unwrap_or(config.context_len.min(DEFAULT_CONTEXT));
        if n_ctx == 0 || n_ctx > config.context_len {
            return Err(EngineError::Context {
                asked: n_ctx,
                trained: config.context_len,
            });
        }
        let room = n_ctx.checked_next_multiple_of(KEY_BLOCK).unwrap_or(n_ctx);
        let elements = [config.n_kv_heads, room, config.head_dim]
            .into_iter()
            .try_fold(1usize, usize::checked_mul);
        let memory = || EngineError::Memory {
            n_ctx,
            bytes: elements
                .unwrap_or(usize::MAX)
                .saturating_mul(8 * config.n_layers),
        };
        let elements = elements.ok_or_else(memory)?;
        let caches = (0..config.n_layers)
            .map(|_| KvCache::new(elements).ok_or_else(memory))
            .collect::<Result<Vec<_>, _>>()?;
        let blocks = (0..config.n_layers)
            .map(|layer| Block::new(&pool, &model, kernels, layer))
            .collect::<Result<Vec<_>, _>>()?;
        let output_norm = model.norm(Norm::Output).map_err(BuildError::from)?;
        let batch = options.batch.unwrap_or(BATCH).clamp(1, n_ctx);
        Ok(Self {
            rope: RopeTable::new(&config.rope, config.head_dim),
            head: Head::new(&pool, &model),
            buffers: Buffers::new(config, &pool, batch, n_ctx),
            used: kernels.used().clone(),
            model,
            pool,
            blocks,
            output_norm,
            caches,
            n_ctx,
            batch,
            position: 0,
            tap: None,
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The threads.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The kernels in use: `(n, k, bucket)` to the spec and where the choice came from.
    pub fn kernels(&self) -> &BTreeMap<(usize, usize, usize), (KernelSpec, Origin)> {
        &self.used
    }

    /// The output projection.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The packed layers.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.blocks.iter().flat_map(Block::linears)
    }

    /// Bytes of weights and cache that decoding one token reads when `held` tokens are held.
    pub fn bytes_per_token(&self, held: usize) -> usize {
        let c = self.model.config();
        let cache = 8 * c.n_layers * c.n_kv_heads * c.head_dim * held;
        self.linears().map(|l| l.weight_bytes(1)).sum::<usize>() + self.head.table_bytes() + cache
    }

    /// Multiply-accumulates of decoding one token: ternary layers and head.
    pub fn macs_per_token(&self) -> u64 {
        self.prompt_macs(1)
    }

    /// Multiply-accumulates of a prompt of `tokens`, which needs the head once, for its last token.
    pub fn prompt_macs(&self, tokens: usize) -> u64 {
        let c = self.model.config();
        let layers: u64 = self.linears().map(|l| l.n() as u64 * l.k() as u64).sum();
        layers * tokens as u64 + c.vocab as u64 * c.hidden as u64
    }

    /// Calls `tap` for every projection from now on: its quantised input and its integer sums.
    /// For tests: each product is computed a second time.
    pub fn set_tap(&mut self, tap: Option<Tap>) {
        self.tap = tap;
    }

    /// Whether `tokens` can be appended.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn check(&self, tokens: &[u32]) -> Result<(), EngineError> {
        let n_vocab = self.model.config().vocab;
        if tokens.is_empty() {
            return Err(EngineError::Empty);
        }
        if tokens.len() > self.n_ctx - self.position {
            return Err(EngineError::Full {
                held: self.position,
                more: tokens.len(),
                n_ctx: self.n_ctx,
            });
        }
        match tokens.iter().position(|&t| t as usize >= n_vocab) {
            Some(index) => Err(EngineError::Token {
                id: tokens[index],
                index,
                n_vocab,
            }),
            None => Ok(()),
        }
    }

    /// Appends `tokens`, calling `each(i, logits)` for i from `first` on.
    ///
    /// # Errors
    /// [`EngineError`]; tokens before the failure stay.
    pub fn run(
        &mut self,
        tokens: &[u32],
        first: usize,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        self.check(tokens)?;
        let mut done = 0;
        while done < tokens.len() {
            let m = self.batch.min(tokens.len() - done);
            self.layers(&tokens[done..done + m]);
            let from = first.saturating_sub(done).min(m);
            for row in (from..m).step_by(LOGIT_ROWS) {
                let rows = row..(row + LOGIT_ROWS).min(m);
                let vocab = self.model.config().vocab;
                self.logits(rows.clone());
                for (logits, i) in self.buffers.logits.chunks_exact(vocab).zip(rows) {
                    if !all_finite(logits) {
                        return Err(EngineError::NotFinite {
                            position: self.position + i,
                        });
                    }
                    each(done + i, logits);
                }
            }
            self.position += m;
            done += m;
        }
        Ok(())
    }

    /// Takes `tokens`, at most a batch, through all layers; their hidden states are left in `x`.
    fn layers(&mut self, tokens: &[u32]) {
        let Self {
            model,
            pool,
            blocks,
            rope,
            caches,
            buffers,
            tap,
            ..
        } = self;
        let config = model.config();
        let (m, h, position) = (tokens.len(), config.hidden, self.position);
        let table = model.embedding();
        pool.each(Rows::new(&mut buffers.x[..m * h], h), |_, t, x| {
            table.row_to_f32(tokens[t] as usize, x);
        });
        let angles = Rows::new(&mut buffers.cos_sin[..m * config.head_dim], config.head_dim);
        pool.each(angles, |_, t, out| rope.fill(position + t, out));
        for (block, cache) in blocks.iter().zip(caches) {
            let mut layer = Layer {
                config,
                pool,
                block,
                position,
                m,
                n_ctx: self.n_ctx,
                buffers,
                tap,
            };
            layer.attention(cache);
            layer.ffn();
        }
    }

    /// Logits of the rows `rows` of the last batch.
    fn logits(&mut self, rows: std::ops::Range<usize>) {
        let Self {
            model,
            pool,
            output_norm,
            head,
            buffers,
            ..
        } = self;
        let (h, vocab, eps) = (
            model.config().hidden,
            model.config().vocab,
            model.config().norm_eps,
        );
        let n = rows.len();
        buffers.last.resize(n * h, 0.0);
        buffers.logits.resize(n * vocab, 0.0);
        let x = &buffers.x[rows.start * h..rows.end * h];
        for (x, out) in x.chunks_exact(h).zip(buffers.last.chunks_exact_mut(h)) {
            lanes::rms_norm(x, output_norm, eps, out);
        }
        head.forward(pool, &buffers.last, &mut buffers.logits);
    }

    fn last_logits(&self) -> &[f32] {
        let vocab = self.model.config().vocab;
        &self.buffers.logits[self.buffers.logits.len() - vocab..]
    }
}

fn all_finite(values: &[f32]) -> bool {
    // One integer maximum, as in the quantiser: it vectorises.
    let worst = values
        .iter()
        .fold(0, |m: u32, v| m.max(v.to_bits() & 0x7fff_ffff));
    worst < f32::INFINITY.to_bits()
}

impl Buffers {
    fn new(config: &ModelConfig, pool: &Pool, batch: usize, n_ctx: usize) -> Self {
        let (h, hd) = (config.hidden, config.head_dim);
        let q = config.n_heads * hd;
        let qkv = q + 2 * config.n_kv_heads * hd;
        let widest = h.max(q).max(config.ffn);
        let per_worker = |len: usize| {
            (0..pool.threads())
                .map(|_| Mutex::new(vec![0f32; len]))
                .collect()
        };
        Self {
            x: vec![0.0; batch * h],
            y: vec![0.0; batch * h.max(qkv).max(2 * config.ffn)],
            down: vec![0.0; batch * h],
            normed: vec![0.0; batch * widest],
            attention: vec![0.0; batch * q],
            cos_sin: vec![0.0; batch * hd],
            acts: Activations::default(),
            work: Workspace::new(pool),
            spares: per_worker(widest),
            scores: per_worker(attention::scratch_len(config, n_ctx)),
            last: Vec::new(),
            logits: Vec::new(),
        }
    }
}

/// One block at work on a batch.
struct Layer<'a> {
    config: &'a ModelConfig,
    pool: &'a Pool,
    block: &'a Block,
    position: usize,
    m: usize,
    n_ctx: usize,
    buffers: &'a mut Buffers,
    tap: &'a mut Option<Tap>,
}

impl Layer<'_> {
    fn attention(&mut self, cache: &mut KvCache) {
        let (config, block, pool, m) = (self.config, self.block, self.pool, self.m);
        let (h, eps) = (config.hidden, config.norm_eps);
        let Buffers {
            x,
            y,
            normed,
            attention,
            cos_sin,
            acts,
            work,
            spares,
            scores,
            ..
        } = &mut *self.buffers;
        let mut products = Products {
            pool,
            work,
            acts,
            normed,
            spares,
            tap: self.tap,
        };
        let norm = |t: usize, out: &mut [f32], _: &mut [f32]| {
            lanes::rms_norm(&x[t * h..][..h], &block.attn_norm, eps, out);
        };
        let qkv = &mut y[..m * block.qkv.n()];
        block.qkv.forward(&mut products, m, norm, qkv);
        let shape = Heads::new(config, self.position, self.n_ctx, cos_sin);
        let width = config.n_heads * config.head_dim;
        shape.run(pool, m, qkv, cache, scores, &mut attention[..m * width]);
        let sub_norm = |t: usize, out: &mut [f32], _: &mut [f32]| {
            let heads = &attention[t * width..][..width];
            match &block.attn_sub_norm {
                Some(weight) => lanes::rms_norm(heads, weight, eps, out),
                None => out.copy_from_slice(heads),
            }
        };
        let out = &mut y[..m * h];
        block.out.forward(&mut products, m, sub_norm, out);
        pool.each(Rows::new(&mut x[..m * h], h), |_, t, x| {
            lanes::add(x, &out[t * h..][..h])
        });
    }

    fn ffn(&mut self) {
        let (config, block, pool, m) = (self.config, self.block, self.pool, self.m);
        let (h, ffn, eps) = (config.hidden, config.ffn, config.norm_eps);
        let Buffers {
            x,
            y,
            down,
            normed,
            acts,
            work,
            spares,
            ..
        } = &mut *self.buffers;
        let mut products = Products {
            pool,
            work,
            acts,
            normed,
            spares,
            tap: self.tap,
        };
        let norm = |t: usize, out: &mut [f32], _: &mut [f32]| {
            lanes::rms_norm(&x[t * h..][..h], &block.ffn_norm, eps, out);
        };
        let gate_up = &mut y[..m * 2 * ffn];
        block.gate_up.forward(&mut products, m, norm, gate_up);
        let product = |t: usize, out: &mut [f32], spare: &mut [f32]| {
            let sub_norm = block.ffn_sub_norm.as_deref();
            gated(
                config,
                &gate_up[t * 2 * ffn..][..2 * ffn],
                sub_norm,
                out,
                spare,
            );
        };
        let down = &mut down[..m * h];
        block.down.forward(&mut products, m, product, down);
        pool.each(Rows::new(&mut x[..m * h], h), |_, t, x| {
            lanes::add(x, &down[t * h..][..h])
        });
    }
}

impl Decoder for Engine {
    fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32], DecoderError> {
        self.run(tokens, tokens.len().saturating_sub(1), |_, _| ())?;
        Ok(self.last_logits())
    }

    fn decode(&mut self, token: u32) -> Result<&[f32], DecoderError> {
        self.prefill(&[token])
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
        self.position = self.position.min(len);
    }

    fn position(&self) -> usize {
        self.position
    }

    fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    fn n_vocab(&self) -> usize {
        self.model.config().vocab
    }
}

#[cfg(test)]
mod tests;
