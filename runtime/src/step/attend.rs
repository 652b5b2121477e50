#![expect(
    unsafe_code,
    reason = "loops are compiled for CPU features that were detected"
)]
//! Attention of the queries of one KV head over its cached keys and values, in three parts that can be shared out:
//! scores by positions ([`scores`]), softmax by queries ([`softmax`]), sums of values by columns ([`mix`]).
//!
//! Keys lie in blocks of [`KEY_BLOCK`] positions, transposed: a score is then one element of a vector and its sum
//! runs over the columns in order, without horizontal additions (which took two thirds of the time). Outputs
//! are sums over positions in order. Neither depends on the width of registers, on the batch, or on who does which
//! part.
//!
//! A query is one head of one row. Some go over a block together, as many as registers hold: a key is then loaded and
//! decoded once for all of them, and enough sums are under way to hide the time that an addition takes.

use super::vector::Vector;
#[cfg(target_arch = "x86_64")]
use super::vector::{Wide256, Wide512};
use crate::lanes::{LANES, exp, leveled, tree};
use crate::pool::ColumnBlock;
use crate::sequence::{HeadCache, KEY_BLOCK, KvType, PAGE, SLAB};
use bytemuck::AnyBitPattern;
use half::f16;
use std::ops::Range;

/// Queries that attend together: some tiles of the widest level. More would take more scores than the second cache holds.
const QUERIES: usize = 16;

/// How many rows of one sequence attend together where `heads` query heads share a KV head.
pub fn rows_at_once(heads: usize) -> usize {
    (QUERIES / heads).max(1)
}

/// The queries of one call: those of some consecutive rows of a sequence and all heads that share the KV head.
#[derive(Clone, Copy, Debug)]
pub struct Queries {
    /// Query heads of one row.
    pub heads: usize,
    /// Rows.
    pub rows: usize,
    /// Positions that the last row sees; the one before sees one less.
    pub positions: usize,
    /// Columns.
    pub head_dim: usize,
    /// What scores are multiplied with before the softmax.
    pub scale: f32,
}

impl Queries {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.rows * self.heads
    }

    /// Positions that query `q` sees.
    pub fn seen(&self, q: usize) -> usize {
        self.positions + 1 - self.rows + q / self.heads
    }

    /// Blocks of keys that hold the positions.
    pub fn blocks(&self) -> usize {
        self.positions.div_ceil(KEY_BLOCK)
    }

    /// Positions rounded up to a block: the length of a row of scores.
    pub fn stride(&self) -> usize {
        self.positions.next_multiple_of(KEY_BLOCK)
    }
}

/// A number of the cache.
trait Code: AnyBitPattern {
    /// Columns of one scale of a key of `head_dim`; `None` without scales.
    fn group(head_dim: usize) -> Option<usize>;

    /// Decodes a run.
    fn load<V: Vector>(codes: &[Self; SLAB]) -> V;
}

impl Code for f32 {
    fn group(_: usize) -> Option<usize> {
        None
    }

    #[inline(always)]
    fn load<V: Vector>(codes: &[f32; SLAB]) -> V {
        V::floats(codes)
    }
}

impl Code for i8 {
    fn group(_: usize) -> Option<usize> {
        Some(SLAB)
    }

    #[inline(always)]
    fn load<V: Vector>(codes: &[i8; SLAB]) -> V {
        V::bytes(codes)
    }
}

impl Code for f16 {
    fn group(head_dim: usize) -> Option<usize> {
        Some(head_dim)
    }

    #[inline(always)]
    fn load<V: Vector>(codes: &[f16; SLAB]) -> V {
        V::halves(codes)
    }
}

/// Calls `$f::<code, vector>` with the code of `$kv` and the vector of the level. A macro, since a closure is not
/// compiled for the caller's level.
macro_rules! by_type {
    ($kv:expr, $f:ident($($arg:expr),* $(,)?)) => {
        match $kv {
            KvType::F32 => by_level!($f::<f32>($($arg),*)),
            KvType::F16 => by_level!($f::<f16>($($arg),*)),
            KvType::Q8_0 => by_level!($f::<i8>($($arg),*)),
        }
    };
}

macro_rules! by_level {
    ($f:ident::<$code:ty>($($arg:expr),*)) => {
        match LEVEL {
            #[cfg(target_arch = "x86_64")]
            2 => $f::<$code, Wide512, 8>($($arg),*),
            #[cfg(target_arch = "x86_64")]
            1 => $f::<$code, Wide256, 2>($($arg),*),
            _ => $f::<$code, [f32; SLAB], 1>($($arg),*),
        }
    };
}

/// Runs `$tile::<C, V, R>` over all of `$count` queries, with R the largest power of two that the queries and the
/// registers of the level (`MOST`) allow.
macro_rules! in_tiles {
    ($count:expr, |$q:ident| $tile:ident($($arg:expr),*)) => {
        let mut $q = 0;
        while $q < $count {
            let tile = MOST.min(1 << ($count - $q).ilog2());
            match tile {
                8 => $tile::<C, V, 8>($($arg),*),
                4 => $tile::<C, V, 4>($($arg),*),
                2 => $tile::<C, V, 2>($($arg),*),
                _ => $tile::<C, V, 1>($($arg),*),
            }
            $q += tile;
        }
    };
}

leveled! {
    /// Scores of all queries for the positions of the blocks `blocks`.
    ///
    /// # Shapes
    /// `q`: `[queries, head_dim]`; `out`: `[queries, positions of the blocks]`.
    pub fn scores(
        queries: Queries, q: &[f32], cache: HeadCache<'_>, blocks: Range<usize>, out: &mut ColumnBlock<'_, f32>,
    ) {
        by_type!(cache.layout().kv(), scores_of(queries, q, cache, blocks, out));
    }
}

leveled! {
    /// Turns the scores of one query into weights: `x = e^(x − max) / Σ e^(x − max)`, times the scales of the
    /// values where one holds for all columns. `x`: `[seen]`.
    pub fn softmax(x: &mut [f32], cache: HeadCache<'_>) {
        weigh(x, cache);
    }
}

leveled! {
    /// Sums of values, each times the query's weight of its position, in order of positions.
    ///
    /// # Shapes
    /// `weights`: `[queries, positions]`, rows as far apart as said; `out`: `[queries, columns of the slabs]`, rows
    /// `width` apart.
    pub fn mix(
        queries: Queries, weights: (&[f32], usize), cache: HeadCache<'_>, slabs: Range<usize>, out: &mut [f32], width: usize,
    ) {
        by_type!(cache.layout().kv(), mix_of(queries, weights, cache, slabs, out, width));
    }
}

leveled! {
    /// All three parts at once.
    ///
    /// # Shapes
    /// `q`, `out`: `[queries, head_dim]`; `weights`: `[queries, stride of them]`.
    pub fn attend(queries: Queries, q: &[f32], cache: HeadCache<'_>, weights: &mut [f32], out: &mut [f32]) {
        let stride = queries.stride();
        let (blocks, kv) = (0..queries.blocks(), cache.layout().kv());
        let mut whole = ColumnBlock::whole(&mut *weights, stride);
        by_type!(kv, scores_of(queries, q, cache, blocks, &mut whole));
        for (r, row) in weights.chunks_exact_mut(stride).enumerate() {
            weigh(&mut row[..queries.seen(r)], cache);
        }
        by_type!(kv, mix_of(queries, (&*weights, stride), cache, 0..cache.layout().slabs(), out, queries.head_dim));
    }
}

#[inline(always)]
fn scores_of<C: Code, V: Vector, const MOST: usize>(
    queries: Queries,
    q: &[f32],
    cache: HeadCache<'_>,
    blocks: Range<usize>,
    out: &mut ColumnBlock<'_, f32>,
) {
    let (count, hd) = (queries.count(), queries.head_dim);
    assert!(
        q.len() == count * hd && out.rows() == count && out.width() >= blocks.len() * KEY_BLOCK,
        "shapes of scores: {count} queries, {} values, {} blocks in {}",
        q.len(),
        blocks.len(),
        out.width()
    );
    for b in blocks.clone() {
        let at = (b - blocks.start) * KEY_BLOCK;
        in_tiles!(count, |r| score(
            queries,
            &q[r * hd..],
            cache,
            b,
            out,
            r,
            at
        ));
    }
}

/// Scores of the queries `first..first + R`, the first of `q`, for the positions of block `b`, into the columns from `at` on.
#[inline(always)]
fn score<C: Code, V: Vector, const R: usize>(
    queries: Queries,
    q: &[f32],
    cache: HeadCache<'_>,
    b: usize,
    out: &mut ColumnBlock<'_, f32>,
    first: usize,
    at: usize,
) {
    let hd = queries.head_dim;
    let block = cache.keys::<C>(b);
    let q: [&[f32]; R] = std::array::from_fn(|r| &q[r * hd..][..hd]);
    let group = C::group(hd).unwrap_or(hd);
    let mut totals = [[0f32; KEY_BLOCK]; R];
    for (g, columns) in block.chunks(group).enumerate() {
        let q: [&[f32]; R] = std::array::from_fn(|r| &q[r][g * group..][..columns.len()]);
        let mut sums = [[0f32; KEY_BLOCK]; R];
        accumulate::<C, V, R>(&mut sums, q, columns, None);
        if C::group(hd).is_none() {
            totals = sums;
        } else {
            let scales = cache.key_scales(g, b);
            for (total, sums) in totals.iter_mut().zip(&sums) {
                for l in 0..KEY_BLOCK {
                    total[l] += sums[l] * scales[l];
                }
            }
        }
    }
    for (r, totals) in totals.iter().enumerate() {
        let slot = &mut out.row(first + r)[at..][..KEY_BLOCK];
        for (s, total) in slot.iter_mut().zip(totals) {
            *s = total * queries.scale;
        }
    }
}

#[inline(always)]
fn mix_of<C: Code, V: Vector, const MOST: usize>(
    queries: Queries,
    (weights, stride): (&[f32], usize),
    cache: HeadCache<'_>,
    slabs: Range<usize>,
    out: &mut [f32],
    width: usize,
) {
    let count = queries.count();
    assert!(
        weights.len() == count * stride
            && stride >= queries.positions
            && out.len() == count * width
            && slabs.end <= cache.layout().slabs(),
        "shapes of values: {count} queries, {} weights, {} sums",
        weights.len(),
        out.len()
    );
    // Positions that all queries see.
    let common = queries.seen(0);
    let first_column = slabs.start * SLAB;
    for slab in slabs {
        let (at, columns) = (
            slab * SLAB - first_column,
            SLAB.min(queries.head_dim - slab * SLAB),
        );
        for r in 0..count {
            out[r * width + at..][..columns].fill(0.0);
        }
        for from in (0..common).step_by(PAGE) {
            let positions = from..common.min(from + PAGE);
            let part = (slab, at, columns);
            in_tiles!(count, |r| add_values(
                &weights[r * stride..],
                stride,
                cache,
                positions.clone(),
                part,
                &mut out[r * width..],
                width
            ));
        }
        // What only the later rows see.
        for r in 0..count {
            for j in common..queries.seen(r) {
                let part = (slab, at, columns);
                let (weights, out) = (&weights[r * stride..], &mut out[r * width..]);
                add_values::<C, V, 1>(weights, stride, cache, j..j + 1, part, out, width);
            }
        }
    }
}

/// Adds the values of `positions` in one slab to the sums of `R` queries: `columns` of them from column `at` of `out`
/// on. `weights` are of all positions, rows `stride` apart; rows of `out` are `width` apart.
#[inline(always)]
fn add_values<C: Code, V: Vector, const R: usize>(
    weights: &[f32],
    stride: usize,
    cache: HeadCache<'_>,
    positions: Range<usize>,
    (slab, at, columns): (usize, usize, usize),
    out: &mut [f32],
    width: usize,
) {
    let n = positions.len();
    let weights: [&[f32]; R] =
        std::array::from_fn(|r| &weights[r * stride + positions.start..][..n]);
    let mut sums = [[0f32; SLAB]; R];
    for (r, sums) in sums.iter_mut().enumerate() {
        sums[..columns].copy_from_slice(&out[r * width + at..][..columns]);
    }
    let values = cache.values::<C>(slab, positions.clone());
    // Scales of this slab; one of all columns is in the weights.
    let own = C::group(usize::MAX) == Some(SLAB);
    let scales = own.then(|| cache.value_scales(slab, positions));
    accumulate::<C, V, R>(&mut sums, weights, values, scales);
    for (r, sums) in sums.iter().enumerate() {
        out[r * width + at..][..columns].copy_from_slice(&sums[..columns]);
    }
}

/// Adds rows to the sums of `R` queries, each times the query's factor of it (and its scale), in order.
#[inline(always)]
fn accumulate<C: Code, V: Vector, const R: usize>(
    sums: &mut [[f32; SLAB]; R],
    factors: [&[f32]; R],
    rows: &[[C; SLAB]],
    scales: Option<&[f32]>,
) {
    assert!(
        factors.iter().all(|f| f.len() == rows.len()),
        "a factor a row"
    );
    let mut vectors: [V; R] = std::array::from_fn(|r| V::floats(&sums[r]));
    for (j, row) in rows.iter().enumerate() {
        let row = C::load::<V>(row);
        for r in 0..R {
            // SAFETY: every query has a factor for every row, as was asserted; the check would cost a tenth of the time.
            let factor = unsafe { *factors[r].get_unchecked(j) };
            let factor = scales.map_or(factor, |scales| factor * scales[j]);
            vectors[r].add_scaled(factor, row);
        }
    }
    for (sums, vector) in sums.iter_mut().zip(vectors) {
        vector.write(sums);
    }
}

/// See [`softmax`].
#[inline(always)]
fn weigh(x: &mut [f32], cache: HeadCache<'_>) {
    // Comparisons skip a NaN here; it comes back through `exp`.
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let (blocks, tail) = x.as_chunks::<LANES>();
    for block in blocks {
        for l in 0..LANES {
            maxima[l] = larger(maxima[l], block[l]);
        }
    }
    for (m, &v) in maxima.iter_mut().zip(tail) {
        *m = larger(*m, v);
    }
    let max = maxima.into_iter().fold(f32::NEG_INFINITY, larger);
    let mut sums = [0f32; LANES];
    let (blocks, tail) = x.as_chunks_mut::<LANES>();
    for block in blocks {
        for l in 0..LANES {
            block[l] = exp(block[l] - max);
            sums[l] += block[l];
        }
    }
    for (s, v) in sums.iter_mut().zip(tail) {
        *v = exp(*v - max);
        *s += *v;
    }
    let inverse = 1.0 / tree(sums);
    for v in &mut *x {
        *v *= inverse;
    }
    if cache.layout().kv() == KvType::F16 {
        for from in (0..x.len()).step_by(PAGE) {
            let to = x.len().min(from + PAGE);
            for (v, scale) in x[from..to].iter_mut().zip(cache.value_scales(0, from..to)) {
                *v *= scale;
            }
        }
    }
}

#[cfg(test)]
mod tests;
