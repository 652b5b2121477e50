//! [`Heads`]: attention of one batch: the cache grows by its keys and values, and jobs of some tokens and one KV head
//! are handed to the pool.

use super::attend::{KEY_BLOCK, Shape, attend, store_key, tokens_at_once};
use crate::graph::ModelConfig;
use crate::network::rope::rotate;
use crate::pool::{Columns, Pool, Rows};
use crate::sequence::KvCache;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Floats of working memory that a worker needs where contexts have `n_ctx` tokens: rotated queries, outputs and
/// scores of the tokens and heads that attend together.
pub fn scratch_len(config: &ModelConfig, n_ctx: usize) -> usize {
    let group = config.n_heads / config.n_kv_heads;
    tokens_at_once(group) * group * (2 * config.head_dim + n_ctx.next_multiple_of(KEY_BLOCK))
}

/// The shapes of attention over one batch.
pub struct Heads<'a> {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    position: usize,
    n_ctx: usize,
    cos_sin: &'a [f32],
}

impl<'a> Heads<'a> {
    /// Attention of a model over the tokens from `position` on. `cos_sin`: the angles of each token's position.
    pub fn new(config: &ModelConfig, position: usize, n_ctx: usize, cos_sin: &'a [f32]) -> Self {
        Self {
            heads: config.n_heads,
            kv_heads: config.n_kv_heads,
            head_dim: config.head_dim,
            position,
            n_ctx,
            cos_sin,
        }
    }

    /// Width of a row of queries, keys and values.
    fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Appends the keys and values of `m` tokens to the cache and attends from every token to the positions
    /// up to its own. `out`: `[m, heads · head_dim]`.
    pub fn run(
        &self,
        pool: &Pool,
        m: usize,
        qkv: &[f32],
        cache: &mut KvCache,
        scores: &[Mutex<Vec<f32>>],
        out: &mut [f32],
    ) {
        let (room, out_width) = (
            self.n_ctx.next_multiple_of(KEY_BLOCK) * self.head_dim,
            self.heads / self.kv_heads * self.head_dim,
        );
        let (keys, values) = cache.get_mut();
        let heads = (Rows::new(keys, room), Rows::new(values, room));
        if m == 1 {
            // One job for both: the head that a worker stores is the one that it reads.
            pool.each(
                (heads, Rows::new(out, out_width)),
                |worker, kv, ((keys, values), out)| {
                    self.store(0, kv, qkv, keys, values);
                    let write = |_, row: &[f32]| out.copy_from_slice(row);
                    self.attend(0..1, kv, qkv, (keys, values), &scores[worker], write);
                },
            );
            return;
        }
        pool.each(heads, |_, kv, (keys, values)| {
            (0..m).for_each(|t| self.store(t, kv, qkv, keys, values));
        });
        let (keys, values) = cache.get();
        let width = self.heads * self.head_dim;
        let run = tokens_at_once(self.heads / self.kv_heads);
        let parts = Columns::new(out, m, width, 0, width, out_width).in_runs(run);
        pool.each(parts, |worker, _, mut out| {
            let kv = out.first() / out_width;
            let head = (&keys[kv * room..][..room], &values[kv * room..][..room]);
            let tokens = out.first_row()..out.first_row() + out.rows();
            let write = |t: usize, row: &[f32]| out.row(t).copy_from_slice(row);
            self.attend(tokens, kv, qkv, head, &scores[worker], write);
        });
    }

    /// Appends the key and value of token `t` to the cache of KV head `kv`.
    fn store(&self, t: usize, kv: usize, qkv: &[f32], keys: &mut [f32], values: &mut [f32]) {
        let hd = self.head_dim;
        let row = &qkv[t * self.qkv_width()..][..self.qkv_width()];
        let key = &row[(self.heads + kv) * hd..][..hd];
        let value = &row[(self.heads + self.kv_heads + kv) * hd..][..hd];
        let position = self.position + t;
        store_key(key, &self.cos_sin[t * hd..][..hd], position, keys);
        values[position * hd..][..hd].copy_from_slice(value);
    }

    /// Attends from the query heads of `tokens` that share KV head `kv`; `write` gets each token's outputs,
    /// `[heads that share it, head_dim]`, with its place among `tokens`.
    fn attend(
        &self,
        tokens: Range<usize>,
        kv: usize,
        qkv: &[f32],
        (keys, values): (&[f32], &[f32]),
        spare: &Mutex<Vec<f32>>,
        mut write: impl FnMut(usize, &[f32]),
    ) {
        let (hd, group) = (self.head_dim, self.heads / self.kv_heads);
        let (width, rows) = (group * hd, tokens.len() * group);
        let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
        let (q, rest) = spare.split_at_mut(rows * hd);
        let (out, scores) = rest.split_at_mut(rows * hd);
        for (t, q) in tokens.clone().zip(q.chunks_exact_mut(width)) {
            let first = t * self.qkv_width() + kv * width;
            for (head, q) in qkv[first..].chunks_exact(hd).zip(q.chunks_exact_mut(hd)) {
                rotate(head, &self.cos_sin[t * hd..][..hd], q);
            }
        }
        let positions = self.position + tokens.end;
        let stride = positions.next_multiple_of(KEY_BLOCK);
        let shape = Shape {
            heads: group,
            head_dim: hd,
            scale: (1.0 / (hd as f64).sqrt()) as f32,
        };
        attend(
            shape,
            q,
            &keys[..stride * hd],
            &values[..positions * hd],
            &mut scores[..rows * stride],
            out,
        );
        for (t, row) in out.chunks_exact(width).enumerate() {
            write(t, row);
        }
    }
}
