//! [`Attention`]: the rows of a pass against the caches of their sequences, layer by layer: keys and values are
//! stored, then jobs are handed to the pool.
//!
//! A job is a group of rows of one sequence and a KV head. Where a pass has too few of them to occupy the threads, as
//! when one token is decoded, jobs are split ([`Split`]): scores by positions, softmax by queries, sums of values by
//! columns. Either way every number is computed by the same operations in the same order.

use super::Append;
use super::attend::{Queries, attend, mix, rows_at_once, scores, softmax};
use super::rows::Rows;
use crate::graph::ModelConfig;
use crate::lanes;
use crate::network::block::Block;
use crate::pool::{Chunks, Columns, Pool, SliceList};
use crate::sequence::{HeadCache, KEY_BLOCK, PAGE, SLAB};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Jobs that each thread should find at least.
const JOBS_PER_THREAD: usize = 4;

/// Positions past which a job is worth splitting (whole pages), and of each part of its scores.
const SPLIT_POSITIONS: usize = 256;

/// Working memory of attention.
pub struct AttentionScratch {
    /// For each worker rotated queries, sums and weights of the rows that attend together.
    workers: Vec<Mutex<Vec<f32>>>,
    /// Where keys and values are written.
    slots: SliceList<u8>,
    split: Split,
}

impl AttentionScratch {
    /// For passes through a model on the threads of `pool`.
    pub fn new(config: &ModelConfig, pool: &Pool) -> Self {
        let group = config.n_heads / config.n_kv_heads;
        let weights = config.context_len.next_multiple_of(KEY_BLOCK);
        let len = rows_at_once(group) * group * (2 * config.head_dim + weights);
        Self {
            workers: (0..pool.threads())
                .map(|_| Mutex::new(vec![0f32; len]))
                .collect(),
            slots: SliceList::default(),
            split: Split::default(),
        }
    }
}

/// Working memory of split jobs; it grows with the positions, a page at a time.
#[derive(Default)]
struct Split {
    /// Rotated queries, `[jobs, queries of a job, head_dim]`.
    q: Vec<f32>,
    /// Scores, then weights, `[jobs, queries of a job, positions]`.
    weights: Vec<f32>,
    /// Where the rows of each job begin in them, and the end of the last.
    cuts: Vec<usize>,
    /// Sums, `[jobs, slabs, queries of a job, SLAB]`.
    sums: Vec<f32>,
}

/// Attention of one layer in one pass.
pub struct Attention<'a> {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    norm_eps: f32,
    rows: &'a Rows,
    cos_sin: &'a [f32],
    layer: usize,
    /// Norms of each head of the queries and of the keys, `[head_dim]`, if any.
    head_norms: Option<[&'a [f32]; 2]>,
}

impl<'a> Attention<'a> {
    /// Attention of a layer over `rows`. `cos_sin`: the angles of each row's position, `[rows, head_dim]`.
    pub fn new(
        config: &ModelConfig,
        rows: &'a Rows,
        cos_sin: &'a [f32],
        (layer, block): (usize, &'a Block),
    ) -> Self {
        let norms = block.head_norms.as_ref();
        Self {
            heads: config.n_heads,
            kv_heads: config.n_kv_heads,
            head_dim: config.head_dim,
            norm_eps: config.norm_eps,
            rows,
            cos_sin,
            layer,
            head_norms: norms.map(|[query, key]| [&query[..], &key[..]]),
        }
    }

    /// Width of a row of queries, keys and values.
    fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Query heads that share a KV head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Puts a query or key of row `r` in place for attention: normalised where the layer has a norm, and rotated.
    fn turn(&self, norm: Option<&[f32]>, head: &[f32], r: usize, out: &mut [f32]) {
        let cos_sin = &self.cos_sin[r * self.head_dim..][..self.head_dim];
        match norm {
            Some(weight) => {
                lanes::rms_norm(head, weight, self.norm_eps, out);
                lanes::rotate_in_place(out, cos_sin);
            }
            None => lanes::rotate(head, cos_sin, out),
        }
    }

    /// Stores the rotated key and the value of every row in its sequence. `qkv`: `[rows, heads + 2 · kv_heads, head_dim]`.
    pub fn store(
        &self,
        pool: &Pool,
        qkv: &[f32],
        appends: &mut [Append<'_>],
        scratch: &mut AttentionScratch,
    ) {
        let AttentionScratch { workers, slots, .. } = scratch;
        let slots = slots.fill(appends.iter_mut().flat_map(|append| {
            let start = append.sequence.position();
            let new = start..start + append.tokens.len();
            append.sequence.cache_mut().slots(self.layer, new)
        }));
        let hd = self.head_dim;
        let (workers, rows, layouts) = (&*workers, self.rows, self.rows.layouts());
        pool.each(slots, |worker, i, slot| {
            let (write, kv) = (&rows.writes()[i / self.kv_heads], i % self.kv_heads);
            let mut spare = workers[worker]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let rotated = &mut spare[..hd];
            for r in write.clone() {
                let row = &qkv[r * self.qkv_width()..][..self.qkv_width()];
                let key = &row[(self.heads + kv) * hd..][..hd];
                let value = &row[(self.heads + self.kv_heads + kv) * hd..][..hd];
                self.turn(self.head_norms.map(|[_, norm]| norm), key, r, rotated);
                let row = rows.all()[r];
                layouts[row.append].store(slot, row.position, rotated, value);
            }
        });
    }

    /// Attends from every row to the positions of its sequence up to its own. `out`: `[rows, heads · head_dim]`.
    pub fn attend(
        &self,
        pool: &Pool,
        qkv: &[f32],
        appends: &[Append<'_>],
        scratch: &mut AttentionScratch,
        out: &mut [f32],
    ) {
        let AttentionScratch { workers, split, .. } = scratch;
        let jobs = (self.rows.cuts().len() - 1) * self.kv_heads;
        let most = self
            .rows
            .all()
            .iter()
            .map(|row| row.position + 1)
            .max()
            .unwrap_or(0);
        let few = pool.threads() > 1 && jobs < JOBS_PER_THREAD * pool.threads();
        if few && most > SPLIT_POSITIONS {
            return self.attend_split(pool, qkv, appends, (split, most), out);
        }
        let (width, group) = (self.heads * self.head_dim, self.group() * self.head_dim);
        let parts =
            Columns::new(out, self.rows.len(), width, 0, width, group).cut_at(self.rows.cuts());
        pool.each(parts, |worker, _, mut out| {
            let (cut, kv) = (
                out.first_row()..out.first_row() + out.rows(),
                out.first() / group,
            );
            let (queries, cache) = self.queries(cut.clone(), kv, appends);
            let len = queries.count() * self.head_dim;
            let mut spare = workers[worker]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let (q, rest) = spare.split_at_mut(len);
            let (sums, weights) = rest.split_at_mut(len);
            self.rotated(cut, kv, qkv, q);
            let weights = &mut weights[..queries.count() * queries.stride()];
            attend(queries, q, cache, weights, sums);
            for (r, row) in sums.chunks_exact(group).enumerate() {
                out.row(r).copy_from_slice(row);
            }
        });
    }

    /// The same in three steps that fall into more jobs each. `most`: the positions of the longest sequence.
    fn attend_split(
        &self,
        pool: &Pool,
        qkv: &[f32],
        appends: &[Append<'_>],
        (split, most): (&mut Split, usize),
        out: &mut [f32],
    ) {
        let (cuts, hd, kv_heads) = (self.rows.cuts(), self.head_dim, self.kv_heads);
        let job = |j: usize| (cuts[j / kv_heads]..cuts[j / kv_heads + 1], j % kv_heads);
        let jobs = (cuts.len() - 1) * kv_heads;
        // Of any job; those of fewer rows leave some unused.
        let per_job = rows_at_once(self.group()) * self.group();
        let (stride, slabs) = (most.next_multiple_of(PAGE), hd.div_ceil(SLAB));
        split.q.resize(jobs * per_job * hd, 0.0);
        split.weights.resize(jobs * per_job * stride, 0.0);
        split.sums.resize(jobs * slabs * per_job * SLAB, 0.0);
        split.cuts.clear();
        split.cuts.extend((0..=jobs).map(|j| j * per_job));

        pool.each(Chunks::new(&mut split.q, per_job * hd), |_, j, q| {
            let (cut, kv) = job(j);
            let len = cut.len() * self.group() * hd;
            self.rotated(cut, kv, qkv, &mut q[..len]);
        });
        let parts = Columns::new(
            &mut split.weights,
            jobs * per_job,
            stride,
            0,
            stride,
            SPLIT_POSITIONS,
        );
        pool.each(parts.cut_at(&split.cuts), |_, i, mut out| {
            let j = i / stride.div_ceil(SPLIT_POSITIONS);
            let (cut, kv) = job(j);
            let (queries, cache) = self.queries(cut, kv, appends);
            let first = out.first() / KEY_BLOCK;
            let blocks = first..queries.blocks().min(first + SPLIT_POSITIONS / KEY_BLOCK);
            if !blocks.is_empty() {
                let q = &split.q[j * per_job * hd..][..queries.count() * hd];
                out.keep_rows(queries.count());
                scores(queries, q, cache, blocks, &mut out);
            }
        });
        pool.each(Chunks::new(&mut split.weights, stride), |_, i, weights| {
            let (cut, kv) = job(i / per_job);
            let (queries, cache) = self.queries(cut, kv, appends);
            if i % per_job < queries.count() {
                softmax(&mut weights[..queries.seen(i % per_job)], cache);
            }
        });
        pool.each(
            Chunks::new(&mut split.sums, per_job * SLAB),
            |_, i, sums| {
                let (j, slab) = (i / slabs, i % slabs);
                let (cut, kv) = job(j);
                let (queries, cache) = self.queries(cut, kv, appends);
                let weights = &split.weights[j * per_job * stride..][..queries.count() * stride];
                mix(
                    queries,
                    (weights, stride),
                    cache,
                    slab..slab + 1,
                    &mut sums[..queries.count() * SLAB],
                    SLAB,
                );
            },
        );
        for (j, sums) in split.sums.chunks_exact(slabs * per_job * SLAB).enumerate() {
            let (cut, kv) = job(j);
            for (r, h) in cut
                .clone()
                .flat_map(|r| (0..self.group()).map(move |h| (r, h)))
            {
                let out = &mut out[(r * self.heads + kv * self.group() + h) * hd..][..hd];
                for (slab, out) in out.chunks_mut(SLAB).enumerate() {
                    let from = (slab * per_job + (r - cut.start) * self.group() + h) * SLAB;
                    out.copy_from_slice(&sums[from..][..out.len()]);
                }
            }
        }
    }

    /// The queries of the rows `cut`, which are of one sequence, that share KV head `kv`, and what they look at.
    fn queries<'c>(
        &self,
        cut: Range<usize>,
        kv: usize,
        appends: &'c [Append<'_>],
    ) -> (Queries, HeadCache<'c>) {
        let last = &self.rows.all()[cut.end - 1];
        let queries = Queries {
            heads: self.group(),
            rows: cut.len(),
            positions: last.position + 1,
            head_dim: self.head_dim,
            scale: (1.0 / (self.head_dim as f64).sqrt()) as f32,
        };
        (
            queries,
            appends[last.append].sequence.cache().head(self.layer, kv),
        )
    }

    /// Rotates the queries of the rows `cut` that share KV head `kv`: `q` is `[rows, heads that share it, head_dim]`.
    fn rotated(&self, cut: Range<usize>, kv: usize, qkv: &[f32], q: &mut [f32]) {
        let (hd, heads) = (self.head_dim, self.group());
        for (r, q) in cut.zip(q.chunks_exact_mut(heads * hd)) {
            let first = r * self.qkv_width() + kv * heads * hd;
            for (head, q) in qkv[first..].chunks_exact(hd).zip(q.chunks_exact_mut(hd)) {
                self.turn(self.head_norms.map(|[norm, _]| norm), head, r, q);
            }
        }
    }
}
