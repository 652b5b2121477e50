#![expect(
    unsafe_code,
    reason = "one loop is compiled for CPU features that were detected"
)]
//! Attention of one token over the cached keys and values of a KV head, for the query heads that share it.
//!
//! Keys lie in blocks of [`KEY_BLOCK`] positions, transposed: a score is then one lane of a vector and its sum
//! runs over the columns in order, without horizontal additions (which took two thirds of the time). Outputs
//! are sums over positions in order. Neither depends on the width of registers or on the batch.

use crate::lanes::{LANES, exp, leveled, tree};

/// Positions of a block of keys, `[head_dim, KEY_BLOCK]`.
pub const KEY_BLOCK: usize = 32;

/// Output columns that are summed in registers.
const COLUMNS: usize = 32;

/// Rotates a key by the angles of its position and puts it into its column of `keys`, `[n_ctx / KEY_BLOCK,
/// head_dim, KEY_BLOCK]`. `cos_sin`: as [`crate::layers::RopeTable::fill`] writes it.
pub fn store_key(key: &[f32], cos_sin: &[f32], position: usize, keys: &mut [f32]) {
    let half = key.len() / 2;
    let block = &mut keys[position / KEY_BLOCK * KEY_BLOCK * key.len()..][..KEY_BLOCK * key.len()];
    let lane = position % KEY_BLOCK;
    let (cos, sin) = cos_sin.split_at(half);
    let (a, b) = key.split_at(half);
    for i in 0..half {
        block[i * KEY_BLOCK + lane] = a[i] * cos[i] - b[i] * sin[i];
        block[(half + i) * KEY_BLOCK + lane] = b[i] * cos[i] + a[i] * sin[i];
    }
}

leveled! {
    /// Attends from one token's query heads to the first `positions` positions of their KV head.
    ///
    /// # Shapes
    /// `q`, `out`: `[heads, head_dim]`; `keys`: whole blocks of [`KEY_BLOCK`] positions; `values`:
    /// `[positions, head_dim]`; `scores`: `[heads, positions rounded up to a block]`.
    pub fn attend(
        q: &[f32], keys: &[f32], values: &[f32], head_dim: usize, scale: f32, scores: &mut [f32], out: &mut [f32],
    ) {
        let (heads, positions) = (q.len() / head_dim, values.len() / head_dim);
        let stride = positions.next_multiple_of(KEY_BLOCK);
        assert!(
            out.len() == q.len() && keys.len() == stride * head_dim && scores.len() == heads * stride,
            "shapes of attention: {heads} heads, {positions} positions, {} keys, {} scores",
            keys.len(),
            scores.len()
        );
        // As many heads at once as the registers of the level hold.
        let most = [1, 2, 4][LEVEL as usize];
        let mut h = 0;
        while h < heads {
            let tile = if heads - h >= most { most } else { 1 };
            let q = &q[h * head_dim..][..tile * head_dim];
            let scores = &mut scores[h * stride..][..tile * stride];
            let out = &mut out[h * head_dim..][..tile * head_dim];
            match tile {
                4 => heads_at_once::<4>(q, keys, values, scale, scores, out),
                2 => heads_at_once::<2>(q, keys, values, scale, scores, out),
                _ => heads_at_once::<1>(q, keys, values, scale, scores, out),
            }
            h += tile;
        }
    }
}

#[inline(always)]
fn heads_at_once<const H: usize>(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    scale: f32,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let (head_dim, stride) = (q.len() / H, scores.len() / H);
    let positions = values.len() / head_dim;
    for (b, block) in keys.chunks_exact(head_dim * KEY_BLOCK).enumerate() {
        let mut sums = [[0f32; KEY_BLOCK]; H];
        for (d, k) in block.as_chunks::<KEY_BLOCK>().0.iter().enumerate() {
            for h in 0..H {
                add_scaled(&mut sums[h], q[h * head_dim + d], k);
            }
        }
        for (h, sums) in sums.iter().enumerate() {
            let slot = &mut scores[h * stride + b * KEY_BLOCK..][..KEY_BLOCK];
            for (s, sum) in slot.iter_mut().zip(sums) {
                *s = sum * scale;
            }
        }
    }
    for row in scores.chunks_exact_mut(stride) {
        softmax(&mut row[..positions]);
    }
    let full = head_dim - head_dim % COLUMNS;
    for c in (0..full).step_by(COLUMNS) {
        let mut sums = [[0f32; COLUMNS]; H];
        for (j, v) in values.chunks_exact(head_dim).enumerate() {
            let v = v[c..].first_chunk().expect("whole columns");
            for h in 0..H {
                add_scaled(&mut sums[h], scores[h * stride + j], v);
            }
        }
        for (h, sums) in sums.iter().enumerate() {
            out[h * head_dim + c..][..COLUMNS].copy_from_slice(sums);
        }
    }
    for h in 0..H {
        let out = &mut out[h * head_dim + full..(h + 1) * head_dim];
        out.fill(0.0);
        for (j, v) in values.chunks_exact(head_dim).enumerate() {
            let p = scores[h * stride + j];
            for (o, v) in out.iter_mut().zip(&v[full..]) {
                *o += p * v;
            }
        }
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
    use crate::layers::rotate;

    /// `[positions, head_dim]` in blocks; what no position fills is NaN, which must not matter.
    fn blocks(keys: &[f32], head_dim: usize) -> Vec<f32> {
        let positions = keys.len() / head_dim;
        let mut out = vec![f32::NAN; positions.next_multiple_of(KEY_BLOCK) * head_dim];
        let angles: Vec<f32> = [vec![1.0; head_dim / 2], vec![0.0; head_dim / 2]].concat();
        for (p, key) in keys.chunks_exact(head_dim).enumerate() {
            store_key(key, &angles, p, &mut out);
        }
        out
    }

    const SHAPES: [(usize, usize, usize); 7] = [
        (1, 1, 32),
        (4, 7, 100),
        (3, 200, 96),
        (2, 65, 128),
        (5, 32, 256),
        (8, 33, 64),
        (4, 31, 36),
    ];

    struct Case {
        q: Vec<f32>,
        keys: Vec<f32>,
        values: Vec<f32>,
        out: Vec<f32>,
    }

    /// Attention over noise.
    fn attended((heads, positions, head_dim): (usize, usize, usize), scale: f32) -> Case {
        let q = noise(heads * head_dim, 1);
        let (keys, values) = (
            noise(positions * head_dim, 2),
            noise(positions * head_dim, 3),
        );
        let mut scores = vec![0f32; heads * positions.next_multiple_of(KEY_BLOCK)];
        let mut out = vec![0f32; heads * head_dim];
        let blocked = blocks(&keys, head_dim);
        attend(
            &q,
            &blocked,
            &values,
            head_dim,
            scale,
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
        for (heads, positions, head_dim) in SHAPES {
            let Case {
                q,
                keys,
                values,
                out,
            } = attended((heads, positions, head_dim), 0.5);
            for h in 0..heads {
                let score = |j: usize| -> f64 {
                    let pair = q[h * head_dim..][..head_dim]
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
                    let got = out[h * head_dim + c] as f64;
                    assert!(
                        (got - want).abs() < 1e-5,
                        "head {h} column {c}: {got}, not {want}"
                    );
                }
            }
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

    #[test]
    fn keys_are_stored_as_queries_are_rotated() {
        let (head_dim, position) = (96, 37);
        let (key, angles) = (noise(head_dim, 1), noise(head_dim, 2));
        let mut keys = vec![0f32; 2 * KEY_BLOCK * head_dim];
        store_key(&key, &angles, position, &mut keys);
        let mut want = vec![0f32; head_dim];
        rotate(&key, &angles, &mut want);
        for (d, want) in want.iter().enumerate() {
            let got = keys[KEY_BLOCK * head_dim + d * KEY_BLOCK + position % KEY_BLOCK];
            assert_eq!(got.to_bits(), want.to_bits());
        }
    }
}
