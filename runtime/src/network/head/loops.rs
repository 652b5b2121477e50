#![expect(
    unsafe_code,
    reason = "loops are compiled for CPU features that were detected"
)]
//! The float loops of a screened head. While packing: rows decoded, measured and rounded. For each token, rows side by
//! side: from a kernel's integers to logits with their radii, and which of those may reach a floor. The order of
//! operations is fixed, so bits do not depend on the CPU.

use super::bound::{HOEFFDING, Token};
use super::codes::Lows;
use super::exact::{decode, f16_run};
use crate::format::float::FloatType;
use crate::lanes::leveled;

/// Partial sums of the measures of a row.
const WIDE: usize = 16;

leveled! {
    /// Decodes a stored row.
    pub(super) fn decode_row(dtype: FloatType, bytes: &[u8], out: &mut [f32]) {
        decode::<LEVEL>(dtype, bytes, out);
    }
}

leveled! {
    /// `Σ v²`.
    pub(super) fn squared(values: &[f32]) -> f64 {
        let mut sums = [0f64; WIDE];
        for run in values.chunks(WIDE) {
            for (sum, &v) in sums.iter_mut().zip(run) {
                *sum += f64::from(v) * f64::from(v);
            }
        }
        sums.iter().sum()
    }
}

leveled! {
    /// Codes of `values` rounded to multiples of `scale`, moved up by `zero` and cut to `most`; the sums of squares of
    /// the copy and of its errors.
    pub(super) fn round(values: &[f32], scale: f32, zero: i32, most: f32, codes: &mut [u8]) -> [f64; 2] {
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let (mut copies, mut errors) = ([0f64; WIDE], [0f64; WIDE]);
        for (codes, values) in codes.chunks_mut(WIDE).zip(values.chunks(WIDE)) {
            for (i, (code, &v)) in codes.iter_mut().zip(values).enumerate() {
                let q = (v * inverse).round_ties_even().clamp(-most, most);
                *code = (q as i32 + zero) as u8;
                let copy = f64::from(q) * f64::from(scale);
                copies[i] += copy * copy;
                errors[i] += (f64::from(v) - copy) * (f64::from(v) - copy);
            }
        }
        [copies.iter().sum(), errors.iter().sum()]
    }
}

leveled! {
    /// Codes of a block of `values` rounded to multiples of `step` up or down by `chance`: the code of a value is
    /// `⌊value / step + (chance + ½) / 2¹⁶⌋ + zero`, cut to `most`. The sum of squares of the copy in steps.
    pub(super) fn round_by_chance(
        values: &[f32],
        step: f32,
        chance: &[u16],
        zero: i32,
        most: f32,
        codes: &mut [u8],
    ) -> f32 {
        let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
        let mut sum = 0;
        for ((code, &v), &chance) in codes.iter_mut().zip(values).zip(chance) {
            let up = (f32::from(chance) + 0.5) / 65536.0;
            let q = (v * inverse + up).floor().clamp(-most, most) as i32;
            *code = (q + zero) as u8;
            sum += q * q;
        }
        sum as f32
    }
}

/// Rows that are side by side: panels have a multiple of it.
pub(super) const STRIP: usize = 8;

/// What a kernel wrote for one panel, and the floats that make logits of it.
pub(super) struct Record<'a> {
    pub sums: &'a [i32],
    pub floats: &'a [u8],
    pub blocks: &'a [f32],
    pub nr: usize,
    pub joined: bool,
    pub lows: Lows,
    pub random: bool,
    pub scales: &'a [f32],
}

leveled! {
    /// Scores and radii of one panel's rows, a multiple of [`STRIP`]; `bounds` are their norms and extras.
    pub(super) fn finish(
        record: &Record<'_>,
        bounds: [&[f32]; 2],
        token: &Token,
        scores: &mut [f32],
        radii: &mut [f32],
    ) {
        if record.nr.is_multiple_of(2 * STRIP) {
            strips::<LEVEL, { 2 * STRIP }>(record, bounds, token, scores, radii);
        } else {
            strips::<LEVEL, STRIP>(record, bounds, token, scores, radii);
        }
    }
}

/// The rows of a panel, `N` at a time, so that what is added up stays in registers.
#[inline(always)]
fn strips<const LEVEL: u8, const N: usize>(
    record: &Record<'_>,
    [norms, extras]: [&[f32]; 2],
    token: &Token,
    scores: &mut [f32],
    radii: &mut [f32],
) {
    let rows = norms
        .as_chunks::<N>()
        .0
        .iter()
        .zip(extras.as_chunks::<N>().0);
    let out = scores
        .as_chunks_mut::<N>()
        .0
        .iter_mut()
        .zip(radii.as_chunks_mut::<N>().0);
    for (s, ((norms, extras), (scores, radii))) in rows.zip(out).enumerate() {
        let [y, spread] = if record.scales.is_empty() {
            blocks::<LEVEL, N>(record, N * s)
        } else {
            [row::<N>(record, N * s), [0.0; N]]
        };
        for i in 0..N {
            scores[i] = y[i] * token.step;
            let known = norms[i] * token.a + extras[i] * token.b + token.c;
            radii[i] = known + HOEFFDING * spread[i].sqrt() * 1.001;
        }
    }
}

/// `N` elements from `at` on.
#[inline(always)]
fn strip<T, const N: usize>(from: &[T], at: usize) -> &[T; N] {
    from[at..].first_chunk().expect("a whole strip of rows")
}

/// Rows with one unit each.
#[inline(always)]
fn row<const N: usize>(record: &Record<'_>, first: usize) -> [f32; N] {
    let high = strip::<i32, N>(record.sums, first);
    let scale = strip::<f32, N>(record.scales, first);
    if record.joined {
        return std::array::from_fn(|i| high[i] as f32 * scale[i]);
    }
    let low = strip::<i32, N>(record.sums, record.nr + first);
    std::array::from_fn(|i| (256.0 * high[i] as f32 + low[i] as f32) * scale[i])
}

/// Adds up blocks: `unit · Σ + low · Σ`, and of random roundings the squares of their steps.
#[inline(always)]
fn blocks<const LEVEL: u8, const N: usize>(record: &Record<'_>, first: usize) -> [[f32; N]; 2] {
    let (nr, n) = (record.nr, record.blocks.len());
    let rows = if record.joined { 1 } else { 2 } + usize::from(record.lows == Lows::Subs);
    let (units, lows) = record.floats.split_at(2 * nr * n);
    let (mut y, mut spread) = ([0f32; N], [0f32; N]);
    for (b, &block) in record.blocks.iter().enumerate() {
        let sums = &record.sums[b * rows * nr..][..rows * nr];
        let mut unit = [0f32; N];
        f16_run::<LEVEL>(&units[2 * (nr * b + first)..][..2 * N], &mut unit);
        let high = strip::<i32, N>(sums, first);
        if record.joined {
            for i in 0..N {
                y[i] += unit[i] * high[i] as f32;
            }
        } else {
            let low = strip::<i32, N>(sums, nr + first);
            for i in 0..N {
                y[i] += unit[i] * (256.0 * high[i] as f32 + low[i] as f32);
            }
        }
        if record.lows != Lows::None {
            let mut low = [0f32; N];
            f16_run::<LEVEL>(&lows[2 * (nr * b + first)..][..2 * N], &mut low);
            if record.lows == Lows::Subs {
                let sums = strip::<i32, N>(sums, (rows - 1) * nr + first);
                for i in 0..N {
                    y[i] += low[i] * sums[i] as f32;
                }
            } else {
                for i in 0..N {
                    y[i] += low[i] * block;
                }
            }
        }
        if record.random {
            for i in 0..N {
                spread[i] += unit[i] * unit[i] * block;
            }
        }
    }
    [y, spread]
}

leveled! {
    /// How many of `scores` may reach `floor` within their radii.
    pub(super) fn reaching(scores: &[f32], radii: &[f32], floor: f32) -> u32 {
        let reach = |(score, radius): (&f32, &f32)| u32::from(score + radius >= floor);
        scores.iter().zip(radii).map(reach).sum()
    }
}

leveled! {
    /// How many of `scores` are above `floor`.
    pub(super) fn above(scores: &[f32], floor: f32) -> u32 {
        scores.iter().map(|&score| u32::from(score > floor)).sum()
    }
}
