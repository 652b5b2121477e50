//! [`Attention`]: the rows of a pass against the caches of their sequences, layer by layer: keys and values are
//! stored, then jobs of some rows and one KV head are handed to the pool.

use super::attend::{Shape, attend, rows_at_once};
use super::rows::Rows;
use super::{Append, PerWorker};
use crate::graph::ModelConfig;
use crate::network::rope::rotate;
use crate::pool::{Columns, Pool, SliceList};
use crate::sequence::{KEY_BLOCK, store};
use std::ops::Range;
use std::sync::PoisonError;

/// Floats of working memory that a worker needs: rotated queries, outputs and scores of the rows that attend together.
pub fn scratch_len(config: &ModelConfig) -> usize {
    let group = config.n_heads / config.n_kv_heads;
    let scores = config.context_len.next_multiple_of(KEY_BLOCK);
    rows_at_once(group) * group * (2 * config.head_dim + scores)
}

/// The shapes of attention in one pass.
pub struct Attention<'a> {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    rows: &'a Rows,
    cos_sin: &'a [f32],
}

impl<'a> Attention<'a> {
    /// Attention of a model over `rows`. `cos_sin`: the angles of each row's position, `[rows, head_dim]`.
    pub fn new(config: &ModelConfig, rows: &'a Rows, cos_sin: &'a [f32]) -> Self {
        Self {
            heads: config.n_heads,
            kv_heads: config.n_kv_heads,
            head_dim: config.head_dim,
            rows,
            cos_sin,
        }
    }

    /// Width of a row of queries, keys and values.
    fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Stores the rotated key and the value of every row in its sequence. `qkv`: `[rows, heads + 2 · kv_heads, head_dim]`.
    pub fn store(
        &self,
        pool: &Pool,
        layer: usize,
        qkv: &[f32],
        appends: &mut [Append<'_>],
        slots: &mut SliceList<u8>,
        spares: &PerWorker,
    ) {
        let slots = slots.fill(appends.iter_mut().flat_map(|append| {
            let start = append.sequence.position();
            let new = start..start + append.tokens.len();
            append.sequence.cache_mut().slots(layer, new)
        }));
        let hd = self.head_dim;
        pool.each(slots, |worker, i, slot| {
            let (write, kv) = (&self.rows.writes()[i / self.kv_heads], i % self.kv_heads);
            let mut spare = spares[worker]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let rotated = &mut spare[..hd];
            for r in write.clone() {
                let row = &qkv[r * self.qkv_width()..][..self.qkv_width()];
                let key = &row[(self.heads + kv) * hd..][..hd];
                let value = &row[(self.heads + self.kv_heads + kv) * hd..][..hd];
                rotate(key, &self.cos_sin[r * hd..][..hd], rotated);
                store(slot, self.rows.all()[r].position, rotated, value);
            }
        });
    }

    /// Attends from every row to the positions of its sequence up to its own. `out`: `[rows, heads · head_dim]`.
    pub fn attend(
        &self,
        pool: &Pool,
        layer: usize,
        qkv: &[f32],
        appends: &[Append<'_>],
        spares: &PerWorker,
        out: &mut [f32],
    ) {
        let width = self.heads * self.head_dim;
        let group = self.heads / self.kv_heads * self.head_dim;
        let parts =
            Columns::new(out, self.rows.len(), width, 0, width, group).cut_at(self.rows.cuts());
        pool.each(parts, |worker, _, mut out| {
            let kv = out.first() / group;
            let rows = out.first_row()..out.first_row() + out.rows();
            let mut spare = spares[worker]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let attended = self.attend_together(rows, layer, kv, qkv, appends, &mut spare);
            for (r, row) in attended.chunks_exact(group).enumerate() {
                out.row(r).copy_from_slice(row);
            }
        });
    }

    /// Attends from the query heads of `rows`, which are of one sequence, that share KV head `kv`: the outputs,
    /// `[rows, heads that share it, head_dim]`, lie in `spare`.
    fn attend_together<'s>(
        &self,
        rows: Range<usize>,
        layer: usize,
        kv: usize,
        qkv: &[f32],
        appends: &[Append<'_>],
        spare: &'s mut [f32],
    ) -> &'s [f32] {
        let (hd, heads) = (self.head_dim, self.heads / self.kv_heads);
        let queries = rows.len() * heads;
        let (q, rest) = spare.split_at_mut(queries * hd);
        let (out, scores) = rest.split_at_mut(queries * hd);
        for (r, q) in rows.clone().zip(q.chunks_exact_mut(heads * hd)) {
            let first = r * self.qkv_width() + kv * heads * hd;
            for (head, q) in qkv[first..].chunks_exact(hd).zip(q.chunks_exact_mut(hd)) {
                rotate(head, &self.cos_sin[r * hd..][..hd], q);
            }
        }
        let last = &self.rows.all()[rows.end - 1];
        let cache = appends[last.append].sequence.cache().head(layer, kv);
        let positions = last.position + 1;
        let scores = &mut scores[..queries * positions.next_multiple_of(KEY_BLOCK)];
        let shape = Shape {
            heads,
            head_dim: hd,
            scale: (1.0 / (hd as f64).sqrt()) as f32,
        };
        attend(shape, q, cache, positions, scores, out);
        out
    }
}
