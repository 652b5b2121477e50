//! Attention against the plain formula, and the same bits however the work is shared out.

use super::*;
use crate::lanes::tests::noise;
use crate::lanes::{Level, cap};
use crate::pool::{Columns, Pool};
use crate::sequence::{CacheShape, HeadLayout, KvCache};

/// `[positions, head_dim]` as a cache; what no position fills is NaN, which must not matter.
fn cached(kv: KvType, keys: &[f32], values: &[f32], head_dim: usize) -> KvCache {
    let head = HeadLayout::new(kv, head_dim);
    let mut cache = KvCache::new(CacheShape {
        layers: 1,
        kv_heads: 1,
        head,
    });
    let all = 0..keys.len() / head_dim;
    cache.make_room(all.clone()).expect("memory");
    let rows = keys
        .chunks_exact(head_dim)
        .zip(values.chunks_exact(head_dim));
    let mut rows = rows.enumerate();
    for slot in cache.slots(0, all) {
        slot.fill(0xff);
        for (position, (key, value)) in rows.by_ref().take(PAGE) {
            head.store(slot, position, key, value);
        }
    }
    cache
}

/// Rows, heads, positions of the last row, columns.
const SHAPES: [(usize, usize, usize, usize); 12] = [
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
    (8, 2, 133, 100),
    (4, 4, 300, 64),
];

struct Case {
    queries: Queries,
    q: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Case {
    /// Noise.
    fn new((rows, heads, positions, head_dim): (usize, usize, usize, usize)) -> Self {
        Self {
            queries: Queries {
                heads,
                rows,
                positions,
                head_dim,
                scale: 0.5,
            },
            q: noise(rows * heads * head_dim, 1),
            keys: noise(positions * head_dim, 2),
            values: noise(positions * head_dim, 3),
        }
    }

    fn cache(&self, kv: KvType) -> KvCache {
        cached(kv, &self.keys, &self.values, self.queries.head_dim)
    }

    fn attended(&self, kv: KvType) -> Vec<f32> {
        let mut weights = vec![0f32; self.queries.count() * self.queries.stride()];
        let mut out = vec![0f32; self.q.len()];
        attend(
            self.queries,
            &self.q,
            self.cache(kv).head(0, 0),
            &mut weights,
            &mut out,
        );
        out
    }

    /// The last `count` of `self`'s rows from row `first` on, alone.
    fn rows(&self, first: usize, count: usize) -> Self {
        let (hd, width) = (
            self.queries.head_dim,
            self.queries.heads * self.queries.head_dim,
        );
        let positions = self.queries.positions - self.queries.rows + first + count;
        Self {
            queries: Queries {
                rows: count,
                positions,
                ..self.queries
            },
            q: self.q[first * width..][..count * width].to_vec(),
            keys: self.keys[..positions * hd].to_vec(),
            values: self.values[..positions * hd].to_vec(),
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn attention_equals_the_plain_formula() {
    for (kv, error) in [
        (KvType::F32, 1e-5),
        (KvType::F16, 2e-3),
        (KvType::Q8_0, 2e-2),
    ] {
        for shape in SHAPES {
            let case = Case::new(shape);
            let (out, head_dim) = (case.attended(kv), case.queries.head_dim);
            for r in 0..case.queries.count() {
                let seen = case.queries.seen(r);
                let score = |j: usize| -> f64 {
                    let pair = case.q[r * head_dim..][..head_dim]
                        .iter()
                        .zip(&case.keys[j * head_dim..]);
                    0.5 * pair.map(|(&a, &b)| a as f64 * b as f64).sum::<f64>()
                };
                let max = (0..seen).map(score).fold(f64::MIN, f64::max);
                let p: Vec<f64> = (0..seen).map(|j| (score(j) - max).exp()).collect();
                let total: f64 = p.iter().sum();
                for c in 0..head_dim {
                    let sum = |j: usize| p[j] * case.values[j * head_dim + c] as f64;
                    let want = (0..seen).map(sum).sum::<f64>() / total;
                    let got = out[r * head_dim + c] as f64;
                    assert!(
                        (got - want).abs() < error,
                        "{kv} query {r} column {c}: {got}, not {want}"
                    );
                }
            }
        }
    }
}

/// A later row's key and value, even if they are no numbers, are nothing to an earlier one.
#[test]
fn rows_at_once_give_the_bits_of_rows_one_by_one() {
    for kv in KvType::ALL {
        for shape in SHAPES {
            let mut case = Case::new(shape);
            let last = (case.queries.positions - 1) * case.queries.head_dim;
            case.keys[last] = f32::NAN;
            case.values[last] = f32::INFINITY;
            let rows = 0..case.queries.rows;
            let one_by_one: Vec<u32> = rows
                .flat_map(|t| bits(&case.rows(t, 1).attended(kv)))
                .collect();
            assert!(bits(&case.attended(kv)) == one_by_one, "{kv} {shape:?}");
        }
    }
}

#[test]
fn shared_out_parts_give_the_bits_of_the_whole() {
    let pool = Pool::new(3).expect("threads");
    for kv in KvType::ALL {
        for shape in SHAPES {
            let case = Case::new(shape);
            let (queries, stride, layout) = (
                case.queries,
                case.queries.stride(),
                HeadLayout::new(kv, shape.3),
            );
            let cache = case.cache(kv);
            let mut weights = vec![0f32; queries.count() * stride];
            let parts = Columns::new(
                &mut weights,
                queries.count(),
                stride,
                0,
                stride,
                2 * KEY_BLOCK,
            );
            pool.each(parts, |_, _, mut out| {
                let blocks = out.first() / KEY_BLOCK..(out.first() + out.width()) / KEY_BLOCK;
                scores(queries, &case.q, cache.head(0, 0), blocks, &mut out);
            });
            for (r, row) in weights.chunks_exact_mut(stride).enumerate() {
                softmax(&mut row[..queries.seen(r)], cache.head(0, 0));
            }
            let whole = case.attended(kv);
            for slab in 0..layout.slabs() {
                let mut out = vec![0f32; queries.count() * SLAB];
                mix(
                    queries,
                    (&weights, stride),
                    cache.head(0, 0),
                    slab..slab + 1,
                    &mut out,
                    SLAB,
                );
                for (r, part) in out.chunks_exact(SLAB).enumerate() {
                    let want = &whole[r * shape.3 + slab * SLAB..(r + 1) * shape.3];
                    let columns = want.len().min(SLAB);
                    assert!(
                        bits(&part[..columns]) == bits(&want[..columns]),
                        "{kv} {shape:?} slab {slab}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_level_gives_the_same_bits() {
    let all = [Level::Base, Level::Avx2, Level::Avx512].map(|level| {
        cap(level);
        let mut all: Vec<u32> = Vec::new();
        for kv in KvType::ALL {
            for shape in SHAPES {
                all.extend(bits(&Case::new(shape).attended(kv)));
            }
        }
        all
    });
    cap(Level::Avx512);
    assert!(all[0] == all[1] && all[0] == all[2]);
}
