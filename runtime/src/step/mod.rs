//! [`Step`]: one pass of rows of any sequences through a network.
//!
//! A row is a token at a position of a sequence. A pass takes the rows of prompts, of prompts cut into pieces and of
//! single tokens side by side; `Step::forward` is the whole of what a model computes. Attention looks at a row's own
//! sequence and everything else at the row alone, so which rows share a pass never changes a bit of any of them.
//!
//! Longer than 500 lines: a pass, its memory and its errors are one contract.

mod attend;
mod attention;
mod rows;
mod vector;

use crate::graph::ModelConfig;
use crate::lanes;
use crate::logits::{Logits, Wanted};
use crate::network::Network;
use crate::network::block::{Block, gated};
use crate::network::head::HeadWork;
use crate::network::product::{ProjectionScratch, Tap};
use crate::pool::{Chunks, Pool};
use crate::sequence::Sequence;
use attention::{Attention, AttentionScratch};
use rows::Rows;
use std::sync::Arc;

/// Rows that go through the layers together where nobody says how many.
pub const BATCH: usize = 128;

/// Rows whose logits are computed together.
const LOGIT_ROWS: usize = 16;

/// What a pass adds to one sequence.
pub struct Append<'a> {
    /// The conversation.
    pub sequence: &'a mut Sequence,
    /// Its next tokens, `[m]`, m ≥ 1.
    pub tokens: &'a [u32],
    /// Logits are wanted of the tokens from this index on; of none where it is `tokens.len()`.
    pub logits_from: usize,
}

/// Why a pass cannot be made. No sequence has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// No token was given.
    #[error("no tokens: expected at least one")]
    Empty,
    /// More rows than the step was made for.
    #[error("{got} rows in one pass: expected at most {most}, what the step was made for")]
    Rows {
        /// Tokens of all appends.
        got: usize,
        /// Room.
        most: usize,
    },
    /// A sequence of another network.
    #[error("sequence {append} of the pass belongs to another network than the step")]
    Foreign {
        /// Which append.
        append: usize,
    },
    /// Too many tokens for a sequence.
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
    /// No memory for keys and values.
    #[error("no memory for the keys and values of position {position}: {bytes} bytes more")]
    Memory {
        /// The position.
        position: usize,
        /// What the next page needs.
        bytes: usize,
    },
    /// Logits that are no numbers.
    #[error(
        "the logits after position {position} are not finite: the weights are damaged, or the model overflows f32"
    )]
    NotFinite {
        /// Which append.
        append: usize,
        /// The position in its sequence.
        position: usize,
    },
}

/// Whether `tokens` can be appended to `sequence`.
///
/// # Errors
/// [`StepError::Empty`], [`StepError::Full`] and [`StepError::Token`].
pub fn check(sequence: &Sequence, tokens: &[u32]) -> Result<(), StepError> {
    let n_vocab = sequence.network().config().vocab;
    let (held, n_ctx) = (sequence.position(), sequence.n_ctx());
    if tokens.is_empty() {
        return Err(StepError::Empty);
    }
    if tokens.len() > n_ctx - held {
        return Err(StepError::Full {
            held,
            more: tokens.len(),
            n_ctx,
        });
    }
    match tokens.iter().position(|&t| t as usize >= n_vocab) {
        Some(index) => Err(StepError::Token {
            id: tokens[index],
            index,
            n_vocab,
        }),
        None => Ok(()),
    }
}

/// Activations on their way through the layers, allocated once. `rows` is the most that one pass takes.
struct Scratch {
    /// The residual stream, `[rows, hidden]`.
    x: Vec<f32>,
    /// Queries, keys and values, `[rows, heads + 2 · kv_heads, head_dim]`.
    qkv: Vec<f32>,
    /// Outputs of the attention heads, `[rows, heads · head_dim]`.
    attended: Vec<f32>,
    /// Gate and up, `[rows, 2 · ffn]`.
    gate_up: Vec<f32>,
    /// What is added to the residual stream, where a product cannot do so itself, `[rows, hidden]`.
    delta: Vec<f32>,
    /// Cosines and sines of each row's position by each of the network's ropes, `[ropes, rows, head_dim]`.
    cos_sin: Vec<f32>,
    /// What a block adds, before its norm, where there is one: `[rows, hidden]`.
    before: Vec<f32>,
    /// What attention needs.
    attention: AttentionScratch,
    /// What the ternary products need.
    projection: ProjectionScratch,
    /// Normalised hidden states whose logits are wanted, `[up to LOGIT_ROWS, hidden]`.
    last: Vec<f32>,
    /// Their logits, `[up to LOGIT_ROWS, vocab]`.
    logits: Vec<f32>,
    /// What the LM head needs to find the likeliest tokens.
    head: HeadWork,
}

impl Scratch {
    fn new(network: &Network, pool: &Pool, rows: usize) -> Self {
        let c = network.config();
        let (q, kv) = (c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim);
        Self {
            x: vec![0.0; rows * c.hidden],
            qkv: vec![0.0; rows * (q + 2 * kv)],
            attended: vec![0.0; rows * q],
            gate_up: vec![0.0; rows * 2 * c.ffn],
            delta: vec![0.0; rows * c.hidden],
            cos_sin: vec![0.0; network.ropes().count() * rows * c.head_dim],
            before: match c.architecture.post_norms() {
                true => vec![0.0; rows * c.hidden],
                false => Vec::new(),
            },
            attention: AttentionScratch::new(c, pool),
            projection: ProjectionScratch::new(pool, rows, c, network.products()),
            last: Vec::new(),
            logits: Vec::new(),
            head: network
                .head()
                .map_or_else(HeadWork::default, |head| head.work(pool)),
        }
    }
}

/// Threads and working memory for passes through one network.
pub struct Step {
    network: Arc<Network>,
    pool: Arc<Pool>,
    max_rows: usize,
    rows: Rows,
    scratch: Scratch,
    tap: Option<Tap>,
}

impl Step {
    /// Passes of up to `max_rows` rows (at least one) through `network` on the threads of `pool`.
    pub fn new(network: Arc<Network>, pool: Arc<Pool>, max_rows: usize) -> Self {
        let max_rows = max_rows.max(1);
        Self {
            rows: Rows::new(max_rows),
            scratch: Scratch::new(&network, &pool, max_rows),
            network,
            pool,
            max_rows,
            tap: None,
        }
    }

    /// The network.
    pub fn network(&self) -> &Arc<Network> {
        &self.network
    }

    /// The threads.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Rows that a pass may have.
    pub fn max_rows(&self) -> usize {
        self.max_rows
    }

    /// Calls `tap` for every projection from now on: its quantised input and its integer sums.
    /// For tests: each product is computed a second time.
    pub fn set_tap(&mut self, tap: Option<Tap>) {
        self.tap = tap;
    }

    /// Takes all tokens of `appends` through the network in one pass and adds them to their sequences. Calls
    /// `each(append, index, logits)` for every token whose logits are wanted, in order.
    ///
    /// # Errors
    /// [`StepError`]; then no sequence has taken a token.
    pub fn run(
        &mut self,
        appends: &mut [Append<'_>],
        mut each: impl FnMut(usize, usize, &[f32]),
    ) -> Result<(), StepError> {
        self.admit(appends)?;
        let c = self.network.config();
        let (vocab, together) = (c.vocab, attend::rows_at_once(c.n_heads / c.n_kv_heads));
        self.rows.fill(appends, together);
        self.forward(appends);
        for from in (0..self.rows.wanted().len()).step_by(LOGIT_ROWS) {
            let to = self.rows.wanted().len().min(from + LOGIT_ROWS);
            let wanted = &self.rows.wanted()[from..to];
            normalise(&self.network, wanted, &mut self.scratch);
            self.logits();
            let wanted = self.rows.wanted()[from..to].iter();
            for (logits, &r) in self.scratch.logits.chunks_exact(vocab).zip(wanted) {
                let row = self.rows.all()[r];
                if !all_finite(logits) {
                    return Err(StepError::NotFinite {
                        append: row.append,
                        position: row.position,
                    });
                }
                each(row.append, row.index, logits);
            }
        }
        for append in appends {
            append.sequence.append(append.tokens);
        }
        Ok(())
    }

    /// Takes the tokens of one append through the network; of the logits that follow its last token what is
    /// `wanted` comes back, or all.
    ///
    /// # Errors
    /// [`StepError`]; then the sequence has taken no token.
    pub fn run_wanted(
        &mut self,
        append: Append<'_>,
        wanted: &Wanted<'_>,
    ) -> Result<Logits<'_>, StepError> {
        let mut appends = [append];
        self.admit(&mut appends)?;
        let c = self.network.config();
        let together = attend::rows_at_once(c.n_heads / c.n_kv_heads);
        self.rows.fill(&appends, together);
        self.forward(&mut appends);
        let [append] = appends;
        let last = append.tokens.len() - 1;
        let s = &mut self.scratch;
        normalise(&self.network, &[last], s);
        let screened = match wanted {
            Wanted::All => false,
            Wanted::Top(top) => {
                let head = self.network.head();
                head.is_some_and(|head| head.top(&self.pool, &s.last, top, &mut s.head))
            }
        };
        if !screened {
            self.logits();
        }
        let s = &self.scratch;
        let finite = match screened {
            true => s.head.found().iter().all(|c| c.logit.is_finite()),
            false => all_finite(&s.logits),
        };
        if !finite {
            return Err(StepError::NotFinite {
                append: 0,
                position: append.sequence.position() + last,
            });
        }
        append.sequence.append(append.tokens);
        Ok(match screened {
            true => Logits::Some(self.scratch.head.found()),
            false => Logits::All(&self.scratch.logits),
        })
    }

    /// Takes the tokens of one append through the network; the normed hidden state of its last token comes back,
    /// `[hidden]`.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_hidden(&mut self, append: Append<'_>) -> Result<&[f32], StepError> {
        let mut appends = [append];
        self.admit(&mut appends)?;
        let c = self.network.config();
        let together = attend::rows_at_once(c.n_heads / c.n_kv_heads);
        self.rows.fill(&appends, together);
        self.forward(&mut appends);
        let [append] = appends;
        let last = append.tokens.len() - 1;
        normalise(&self.network, &[last], &mut self.scratch);
        if !all_finite(&self.scratch.last) {
            return Err(StepError::NotFinite {
                append: 0,
                position: append.sequence.position() + last,
            });
        }
        append.sequence.append(append.tokens);
        Ok(&self.scratch.last)
    }

    /// The logits of the last token that they were wanted of, `[vocab]`.
    pub fn last_logits(&self) -> &[f32] {
        let start = self
            .scratch
            .logits
            .len()
            .saturating_sub(self.network.config().vocab);
        &self.scratch.logits[start..]
    }

    /// Checks `appends` and makes room for their keys and values.
    fn admit(&self, appends: &mut [Append<'_>]) -> Result<(), StepError> {
        let got = appends.iter().map(|append| append.tokens.len()).sum();
        if got > self.max_rows {
            let most = self.max_rows;
            return Err(StepError::Rows { got, most });
        }
        for (append, a) in appends.iter().enumerate() {
            if !Arc::ptr_eq(a.sequence.network(), &self.network) {
                return Err(StepError::Foreign { append });
            }
            check(a.sequence, a.tokens)?;
        }
        for append in appends {
            let position = append.sequence.position();
            let room = append.sequence.make_room(append.tokens.len());
            room.map_err(|e| StepError::Memory {
                position,
                bytes: e.bytes,
            })?;
        }
        Ok(())
    }

    /// Takes the rows through all layers, from their tokens to the hidden states that are left in `x`.
    fn forward(&mut self, appends: &mut [Append<'_>]) {
        let (network, pool, rows) = (&*self.network, &*self.pool, &self.rows);
        let (s, tap, c, m) = (
            &mut self.scratch,
            &mut self.tap,
            network.config(),
            rows.len(),
        );
        let (h, ffn, heads, eps) = (c.hidden, c.ffn, c.n_heads * c.head_dim, c.norm_eps);
        let (x, delta) = (&mut s.x[..m * h], &mut s.delta[..m * h]);
        let attended = &mut s.attended[..m * heads];

        pool.each(Chunks::new(x, h), |_, r, x| {
            network.embed(rows.all()[r].token, x)
        });
        for (i, rope) in network.ropes().enumerate() {
            let cos_sin = &mut s.cos_sin[i * m * c.head_dim..][..m * c.head_dim];
            pool.each(Chunks::new(cos_sin, c.head_dim), |_, r, angles| {
                rope.fill(rows.all()[r].position, angles)
            });
        }

        for (layer, block) in network.blocks().iter().enumerate() {
            // q, k, v = Wqkv · norm(x)
            let qkv = &mut s.qkv[..m * block.qkv.n()];
            let norm = |r: usize, out: &mut [f32], _: &mut [f32]| {
                lanes::rms_norm(&x[r * h..][..h], &block.attn_norm, eps, out)
            };
            block
                .qkv
                .forward(pool, &mut s.projection, tap, m, norm, qkv);
            // attended = softmax(rotated q · rotated Kᵀ / √head_dim) · V
            let cos_sin = network.rope_of(layer) * m * c.head_dim;
            let cos_sin = &s.cos_sin[cos_sin..][..m * c.head_dim];
            let attention = Attention::new(c, rows, cos_sin, (layer, block));
            attention.store(pool, qkv, appends, &mut s.attention);
            attention.attend(pool, qkv, appends, &mut s.attention, attended);
            // x += Wout · sub_norm(attended)
            let sub_norm = |r: usize, out: &mut [f32], _: &mut [f32]| {
                let row = &attended[r * heads..][..heads];
                match &block.attn_sub_norm {
                    Some(weight) => lanes::rms_norm(row, weight, eps, out),
                    None => out.copy_from_slice(row),
                }
            };
            match post_norm(c, block, |[attn, _]| attn) {
                None => block.out.forward_add(
                    pool,
                    &mut s.projection,
                    tap,
                    m,
                    sub_norm,
                    (&mut *x, &mut *delta),
                ),
                Some(weight) => {
                    block
                        .out
                        .forward(pool, &mut s.projection, tap, m, sub_norm, delta);
                    add(pool, c, weight, x, (&mut *delta, &mut s.before[..]));
                }
            }
            // gate, up = W · norm(x)
            let gate_up = &mut s.gate_up[..m * 2 * ffn];
            let norm = |r: usize, out: &mut [f32], _: &mut [f32]| {
                lanes::rms_norm(&x[r * h..][..h], &block.ffn_norm, eps, out)
            };
            block
                .gate_up
                .forward(pool, &mut s.projection, tap, m, norm, gate_up);
            // x += Wdown · sub_norm(activation(gate) ⊙ up)
            let product = |r: usize, out: &mut [f32], spare: &mut [f32]| {
                let row = &gate_up[r * 2 * ffn..][..2 * ffn];
                gated(c, row, block.ffn_sub_norm.as_deref(), out, spare)
            };
            match post_norm(c, block, |[_, ffn]| ffn) {
                None => block.down.forward_add(
                    pool,
                    &mut s.projection,
                    tap,
                    m,
                    product,
                    (&mut *x, &mut *delta),
                ),
                Some(weight) => {
                    block
                        .down
                        .forward(pool, &mut s.projection, tap, m, product, delta);
                    add(pool, c, weight, x, (&mut *delta, &mut s.before[..]));
                }
            }
        }
    }

    /// All logits of the hidden states in `last`: the LM head.
    fn logits(&mut self) {
        let (network, s) = (&*self.network, &mut self.scratch);
        let (h, vocab) = (network.config().hidden, network.config().vocab);
        let m = s.last.len() / h;
        s.logits.resize(m * vocab, 0.0);
        match network.ternary_head() {
            None => {
                let head = network.head().expect("a head of floats or of trits");
                head.forward(&self.pool, &s.last, &mut s.logits);
            }
            Some(head) => {
                let last = &s.last;
                let row = |r: usize, out: &mut [f32], _: &mut [f32]| {
                    out.copy_from_slice(&last[r * h..][..h]);
                };
                let scratch = &mut s.projection;
                head.forward(&self.pool, scratch, &mut None, m, row, &mut s.logits);
            }
        }
    }
}

/// Normalises the hidden states of `rows` into `last`.
fn normalise(network: &Network, rows: &[usize], s: &mut Scratch) {
    let (h, eps) = (network.config().hidden, network.config().norm_eps);
    s.last.resize(rows.len() * h, 0.0);
    let factor = network.config().multipliers.logits;
    for (&r, out) in rows.iter().zip(s.last.chunks_exact_mut(h)) {
        lanes::rms_norm(&s.x[r * h..][..h], network.output_norm(), eps, out);
        if factor != 1.0 {
            lanes::scale(out, factor);
        }
    }
}

/// What becomes of what a product adds to the residual stream: nothing, a multiplication alone, or a norm before it.
fn post_norm<'b>(
    c: &ModelConfig,
    block: &'b Block,
    of: impl Fn(&'b [Vec<f32>; 2]) -> &'b Vec<f32>,
) -> Option<Option<&'b [f32]>> {
    let norm = block.post_norms.as_ref().map(|norms| &of(norms)[..]);
    (norm.is_some() || c.multipliers.residual != 1.0).then_some(norm)
}

/// `x += multiplier · post_norm(delta)`, row by row, with a norm or without. With one, `before` is as large as `delta`.
fn add(
    pool: &Pool,
    c: &ModelConfig,
    post_norm: Option<&[f32]>,
    x: &mut [f32],
    (delta, before): (&mut [f32], &mut [f32]),
) {
    let (h, factor, len) = (c.hidden, c.multipliers.residual, delta.len());
    if let Some(weight) = post_norm {
        let rows = (Chunks::new(delta, h), Chunks::new(&mut before[..len], h));
        pool.each(rows, |_, _, (delta, before)| {
            before.copy_from_slice(delta);
            lanes::rms_norm(before, weight, c.norm_eps, delta);
        });
    }
    let rows = (Chunks::new(x, h), Chunks::new(delta, h));
    pool.each(rows, |_, _, (x, delta)| {
        lanes::scale(delta, factor);
        lanes::add(x, delta);
    });
}

fn all_finite(values: &[f32]) -> bool {
    // One integer maximum, as in the quantiser: it vectorises.
    let worst = values
        .iter()
        .fold(0, |m: u32, v| m.max(v.to_bits() & 0x7fff_ffff));
    worst < f32::INFINITY.to_bits()
}

#[cfg(test)]
mod tests;
