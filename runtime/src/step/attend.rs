#![expect(
    unsafe_code,
    reason = "one loop is compiled for CPU features that were detected"
)]
//! Attention of consecutive tokens over the cached keys and values of a KV head, for the query heads that share it.
//!
//! Keys lie in blocks of [`KEY_BLOCK`] positions, transposed: a score is then one lane of a vector and its sum
//! runs over the columns in order, without horizontal additions (which took two thirds of the time). Outputs
//! are sums over positions in order. Neither depends on the width of registers or on the batch.
//!
//! The queries of some tokens and heads are rows that go over a block together, as many as registers hold: a key is
//! then loaded once for all of them, and enough sums are under way to hide the time that an addition takes.

use crate::lanes::{LANES, exp, leveled, tree};
use crate::sequence::{HeadCache, KEY_BLOCK, PAGE};

/// Output columns that are summed in registers.
const COLUMNS: usize = 32;

/// Positions whose values stay in the first cache while all rows and columns go over them; none crosses a page.
const VALUE_BLOCK: usize = 32;
const _: () = assert!(PAGE.is_multiple_of(VALUE_BLOCK));

/// Queries that attend together: two tiles of the widest level. More would take more scores than the second cache holds.
const QUERIES: usize = 16;

/// How many rows of one sequence attend together where `heads` query heads share a KV head.
pub fn rows_at_once(heads: usize) -> usize {
    (QUERIES / heads).max(1)
}

/// What the rows of one call have in common.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Query heads that share the KV head: rows of one token.
    pub heads: usize,
    /// Columns.
    pub head_dim: usize,
    /// What scores are multiplied with before the softmax.
    pub scale: f32,
}

/// Runs `$tile::<R>` over all of `$rows`, with R the largest power of two that the rows and the registers of the
/// level allow. A macro, since a closure is not compiled for the caller's level.
macro_rules! in_tiles {
    ($level:expr, $rows:expr, |$r:ident| $tile:ident($($arg:expr),*)) => {
        let most = [1, 2, 8][$level as usize];
        let mut $r = 0;
        while $r < $rows {
            let tile = most.min(1 << ($rows - $r).ilog2());
            match tile {
                8 => $tile::<8>($($arg),*),
                4 => $tile::<4>($($arg),*),
                2 => $tile::<2>($($arg),*),
                _ => $tile::<1>($($arg),*),
            }
            $r += tile;
        }
    };
}

leveled! {
    /// Attends from the query heads of each of some consecutive tokens to the positions of their KV head up to
    /// and with the token's own.
    ///
    /// # Shapes
    /// `q`, `out`: `[tokens · heads, head_dim]`; `cache`: at least `positions`, those of the last token;
    /// `scores`: `[tokens · heads, positions rounded up to a block]`.
    pub fn attend(
        shape: Shape, q: &[f32], cache: HeadCache<'_>, positions: usize, scores: &mut [f32], out: &mut [f32],
    ) {
        let Shape { heads, head_dim, scale } = shape;
        let (rows, stride) = (q.len() / head_dim, positions.next_multiple_of(KEY_BLOCK));
        let tokens = rows / heads;
        assert!(
            rows == tokens * heads && tokens <= positions && out.len() == q.len() && scores.len() == rows * stride,
            "shapes of attention: {tokens} tokens of {heads} heads, {positions} positions, {} scores",
            scores.len()
        );
        for b in 0..stride / KEY_BLOCK {
            let block = cache.keys(b);
            in_tiles!(LEVEL, rows, |r| score(&q[r * head_dim..], block, scale, &mut scores[r * stride..], stride, b));
        }
        let first = positions - tokens + 1;
        for (r, row) in scores.chunks_exact_mut(stride).enumerate() {
            softmax(&mut row[..first + r / heads]);
        }
        out.fill(0.0);
        for from in (0..first).step_by(VALUE_BLOCK) {
            let block = cache.values(from..first.min(from + VALUE_BLOCK));
            in_tiles!(LEVEL, rows, |r| add_values(&scores[r * stride + from..], stride, block, head_dim, &mut out[r * head_dim..]));
        }
        // What only the later tokens see.
        for (r, out) in out.chunks_exact_mut(head_dim).enumerate() {
            for j in first..first + r / heads {
                add_row(out, scores[r * stride + j], cache.values(j..j + 1));
            }
        }
    }
}

/// Scores of `R` rows for the positions of one block of keys.
#[inline(always)]
fn score<const R: usize>(
    q: &[f32],
    block: &[f32],
    scale: f32,
    scores: &mut [f32],
    stride: usize,
    b: usize,
) {
    let head_dim = block.len() / KEY_BLOCK;
    let q: [&[f32]; R] = std::array::from_fn(|r| &q[r * head_dim..][..head_dim]);
    let mut sums = [[0f32; KEY_BLOCK]; R];
    for (d, k) in block.as_chunks::<KEY_BLOCK>().0.iter().enumerate() {
        for r in 0..R {
            add_scaled(&mut sums[r], q[r][d], k);
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        let slot = &mut scores[r * stride + b * KEY_BLOCK..][..KEY_BLOCK];
        for (s, sum) in slot.iter_mut().zip(sums) {
            *s = sum * scale;
        }
    }
}

/// Adds a block of values to `R` rows of `out`, each value times the row's weight of its position. `weights`: of
/// the block's first position on, rows `stride` apart.
#[inline(always)]
fn add_values<const R: usize>(
    weights: &[f32],
    stride: usize,
    block: &[f32],
    head_dim: usize,
    out: &mut [f32],
) {
    let n = block.len() / head_dim;
    let weights: [&[f32]; R] = std::array::from_fn(|r| &weights[r * stride..][..n]);
    let full = head_dim - head_dim % COLUMNS;
    for c in (0..full).step_by(COLUMNS) {
        let mut sums = [[0f32; COLUMNS]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            sums.copy_from_slice(&out[r * head_dim + c..][..COLUMNS]);
        }
        for (j, v) in block.chunks_exact(head_dim).enumerate() {
            let v = v[c..].first_chunk().expect("whole columns");
            for r in 0..R {
                add_scaled(&mut sums[r], weights[r][j], v);
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            out[r * head_dim + c..][..COLUMNS].copy_from_slice(sums);
        }
    }
    for (r, weights) in weights.iter().enumerate() {
        let out = &mut out[r * head_dim + full..(r + 1) * head_dim];
        for (&p, v) in weights.iter().zip(block.chunks_exact(head_dim)) {
            add_row(out, p, &v[full..]);
        }
    }
}

/// `out += p · v`.
#[inline(always)]
fn add_row(out: &mut [f32], p: f32, v: &[f32]) {
    for (o, v) in out.iter_mut().zip(v) {
        *o += p * v;
    }
}

/// `sums += x · v`.
#[inline(always)]
fn add_scaled<const N: usize>(sums: &mut [f32; N], x: f32, v: &[f32; N]) {
    for l in 0..N {
        sums[l] += x * v[l];
    }
}

/// `x = e^(x − max) / Σ e^(x − max)`.
#[inline(always)]
fn softmax(x: &mut [f32]) {
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
    for v in x {
        *v *= inverse;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::tests::noise;
    use crate::lanes::{Level, cap};
    use crate::sequence::{CacheShape, KvCache, store};

    /// `[positions, head_dim]` as a cache; what no position fills is NaN, which must not matter.
    fn cached(keys: &[f32], values: &[f32], head_dim: usize) -> KvCache {
        let mut cache = KvCache::new(CacheShape {
            layers: 1,
            kv_heads: 1,
            head_dim,
        });
        let all = 0..keys.len() / head_dim;
        cache.make_room(all.clone()).expect("memory");
        let rows = keys
            .chunks_exact(head_dim)
            .zip(values.chunks_exact(head_dim));
        let mut rows = rows.enumerate();
        for slot in cache.slots(0, all) {
            bytemuck::cast_slice_mut(slot).fill(f32::NAN);
            for (position, (key, value)) in rows.by_ref().take(PAGE) {
                store(slot, position, key, value);
            }
        }
        cache
    }

    /// Tokens, heads, positions of the last token, columns.
    const SHAPES: [(usize, usize, usize, usize); 11] = [
        (1, 1, 1, 32),
        (1, 4, 7, 100),
        (1, 3, 200, 96),
        (1, 2, 65, 128),
        (1, 5, 32, 256),
        (1, 8, 33, 64),
        (1, 4, 31, 36),
        (4, 4, 70, 128),
        (16, 1, 16, 64),
        (5, 3, 100, 36),
        (8, 2, 33, 100),
    ];

    struct Case {
        q: Vec<f32>,
        keys: Vec<f32>,
        values: Vec<f32>,
        out: Vec<f32>,
    }

    /// Attention over noise.
    fn attended(
        (tokens, heads, positions, head_dim): (usize, usize, usize, usize),
        scale: f32,
    ) -> Case {
        let rows = tokens * heads;
        let q = noise(rows * head_dim, 1);
        let (keys, values) = (
            noise(positions * head_dim, 2),
            noise(positions * head_dim, 3),
        );
        let mut scores = vec![0f32; rows * positions.next_multiple_of(KEY_BLOCK)];
        let mut out = vec![0f32; rows * head_dim];
        let cache = cached(&keys, &values, head_dim);
        let shape = Shape {
            heads,
            head_dim,
            scale,
        };
        attend(
            shape,
            &q,
            cache.head(0, 0),
            positions,
            &mut scores,
            &mut out,
        );
        Case {
            q,
            keys,
            values,
            out,
        }
    }

    #[test]
    fn attention_equals_the_plain_formula() {
        for (tokens, heads, positions, head_dim) in SHAPES {
            let Case {
                q,
                keys,
                values,
                out,
            } = attended((tokens, heads, positions, head_dim), 0.5);
            for r in 0..tokens * heads {
                let positions = positions - tokens + 1 + r / heads;
                let score = |j: usize| -> f64 {
                    let pair = q[r * head_dim..][..head_dim]
                        .iter()
                        .zip(&keys[j * head_dim..]);
                    0.5 * pair.map(|(&a, &b)| a as f64 * b as f64).sum::<f64>()
                };
                let max = (0..positions).map(score).fold(f64::MIN, f64::max);
                let p: Vec<f64> = (0..positions).map(|j| (score(j) - max).exp()).collect();
                let total: f64 = p.iter().sum();
                for c in 0..head_dim {
                    let sum = |j: usize| p[j] * values[j * head_dim + c] as f64;
                    let want = (0..positions).map(sum).sum::<f64>() / total;
                    let got = out[r * head_dim + c] as f64;
                    assert!(
                        (got - want).abs() < 1e-5,
                        "row {r} column {c}: {got}, not {want}"
                    );
                }
            }
        }
    }

    /// A later token's key and value, even if they are no numbers, are nothing to an earlier one.
    #[test]
    fn tokens_at_once_give_the_bits_of_tokens_one_by_one() {
        for (tokens, heads, positions, head_dim) in SHAPES {
            let mut case = attended((tokens, heads, positions, head_dim), 0.5);
            let last = (positions - 1) * head_dim;
            case.keys[last] = f32::NAN;
            case.values[last] = f32::INFINITY;
            let width = heads * head_dim;
            let shape = Shape {
                heads,
                head_dim,
                scale: 0.5,
            };
            let at = |t: usize, n: usize| {
                let positions = positions - tokens + t + n;
                let stride = positions.next_multiple_of(KEY_BLOCK);
                let mut out = vec![0f32; n * width];
                attend(
                    shape,
                    &case.q[t * width..][..n * width],
                    cached(
                        &case.keys[..positions * head_dim],
                        &case.values[..positions * head_dim],
                        head_dim,
                    )
                    .head(0, 0),
                    positions,
                    &mut vec![0f32; n * heads * stride],
                    &mut out,
                );
                out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let one_by_one: Vec<u32> = (0..tokens).flat_map(|t| at(t, 1)).collect();
            assert!(
                at(0, tokens) == one_by_one,
                "{tokens} tokens, {heads} heads"
            );
        }
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        let all = [Level::Base, Level::Avx2, Level::Avx512].map(|level| {
            cap(level);
            let mut bits: Vec<u32> = Vec::new();
            for shape in SHAPES {
                let out = attended(shape, 0.3).out;
                bits.extend(out.iter().map(|v| v.to_bits()));
            }
            bits
        });
        cap(Level::Avx512);
        assert!(all[0] == all[1] && all[0] == all[2]);
    }
}
