#![expect(
    unsafe_code,
    reason = "calls functions compiled for CPU features that were detected"
)]
//! Float arithmetic with one answer: reductions in a fixed order, in plain Rust that LLVM vectorises.
//!
//! Sums run over [`LANES`] partial sums (element i goes to lane i mod `LANES`) that a fixed tree adds up, so the
//! order depends on the length alone: not on threads, batches or the width of registers. Multiplications and
//! additions are never fused, and `exp` is a polynomial of our own, since the system's differs between CPUs.
//!
//! Longer than 500 lines: a list of loops, and the test that runs all of them at every level.

use crate::pool::ColumnBlock;
use std::sync::atomic::{AtomicU8, Ordering};

/// Partial sums of a reduction.
pub const LANES: usize = 32;

/// What the functions here are compiled for. Results are the same bits at every level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// What the target guarantees (SSE2 on x86-64).
    Base = 0,
    /// 256-bit vectors (AVX2 and F16C).
    Avx2 = 1,
    /// 512-bit vectors (AVX-512 F, BW, DQ, VL and F16C).
    Avx512 = 2,
}

/// The best level of this CPU, capped by [`cap`]; 255 before the first use.
static LEVEL: AtomicU8 = AtomicU8::new(255);

fn detect() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if avx2 && avx512 {
            return Level::Avx512;
        }
        if avx2 {
            return Level::Avx2;
        }
    }
    Level::Base
}

/// Uses at most `level` from now on: to show that results do not depend on it.
#[cfg(test)]
pub fn cap(level: Level) {
    LEVEL.store(level.min(detect()) as u8, Ordering::Relaxed);
}

#[inline]
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "one level only")
)]
pub(crate) fn level() -> Level {
    match LEVEL.load(Ordering::Relaxed) {
        0 => Level::Base,
        1 => Level::Avx2,
        2 => Level::Avx512,
        _ => {
            let level = detect();
            LEVEL.store(level as u8, Ordering::Relaxed);
            level
        }
    }
}

/// Compiles a function once for each [`Level`] and calls the one that this CPU runs. The body may read its
/// level as `LEVEL`, a `Level` as `u8`.
macro_rules! leveled {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body<const LEVEL: u8>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { body::<2>($($arg),*) }
                #[target_feature(enable = "avx2,f16c")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { body::<1>($($arg),*) }
                match $crate::lanes::level() {
                    // SAFETY: `detect` found these features on this CPU.
                    $crate::lanes::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::lanes::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::lanes::Level::Base => {}
                }
            }
            body::<0>($($arg),*)
        }
    };
}

mod gates;

pub use gates::{gelu_gate, relu2_gate, silu_gate};

/// Adds up partial sums in a fixed tree.
#[inline(always)]
pub(crate) fn tree(lanes: [f32; LANES]) -> f32 {
    // Through memory: seen from here, LLVM would split the loops that fill the lanes into pairs of floats.
    let mut lanes = std::hint::black_box(lanes);
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Adds the products of `a` and `b` to partial sums; a run that is no multiple of [`LANES`] must be the last.
#[inline(always)]
pub(crate) fn dot_into(lanes: &mut [f32; LANES], a: &[f32], b: &[f32]) {
    let (a_blocks, a_tail) = a.as_chunks::<LANES>();
    let (b_blocks, b_tail) = b[..a.len()].as_chunks::<LANES>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for l in 0..LANES {
            lanes[l] += a[l] * b[l];
        }
    }
    for (l, (a, b)) in a_tail.iter().zip(b_tail).enumerate() {
        lanes[l] += a * b;
    }
}

leveled! {
    /// `Σ a·b`, both of one length: the order that every product of floats keeps.
    #[cfg(test)]
    pub fn dot(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len(), "lengths of a dot product");
        let mut lanes = [0f32; LANES];
        dot_into(&mut lanes, a, b);
        tree(lanes)
    }
}

/// e^x by Cody-Waite reduction and a polynomial of degree 6, within 2 units in the last place;
/// 0 below −87.3, clamped above 88.3. NaN stays NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding it rounds to an integer, as in the activation quantiser.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x > 88.3 { 88.3 } else { x };
    let clamped = if clamped < -87.3 { -87.3 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first with zeros at its end so that n times it is exact.
    let r = clamped - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4_f32;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let e = p * (r * r) + r + 1.0;
    let power = shifted
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .wrapping_add(127)
        << 23;
    let value = e * f32::from_bits(power);
    if x < -87.3 { 0.0 } else { value }
}

leveled! {
    /// Root-mean-square normalisation: `out = x / √(mean(x²) + eps) · weight`. Squares are summed in f64.
    pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        const WIDE: usize = 16;
        assert!(x.len() == weight.len() && x.len() == out.len(), "one weight and one slot a value");
        let mut sums = [0f64; WIDE];
        let (blocks, tail) = x.as_chunks::<WIDE>();
        for block in blocks {
            for l in 0..WIDE {
                sums[l] += block[l] as f64 * block[l] as f64;
            }
        }
        for (l, &v) in tail.iter().enumerate() {
            sums[l] += v as f64 * v as f64;
        }
        let mut half = WIDE / 2;
        while half > 0 {
            for i in 0..half {
                sums[i] += sums[i + half];
            }
            half /= 2;
        }
        let inverse = (1.0 / (sums[0] / x.len() as f64 + eps as f64).sqrt()) as f32;
        for ((o, &v), &w) in out.iter_mut().zip(x).zip(weight) {
            *o = v * inverse * w;
        }
    }
}

leveled! {
    /// `x += y`.
    pub fn add(x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "lengths of a sum");
        for (x, &y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }
}

leveled! {
    /// `x *= factor`.
    pub fn scale(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }
}

leveled! {
    /// Rotates the pairs `(x[i], x[i + head_dim/2])` of one head into `out`, all `[head_dim]`; `cos_sin`: the cosines of
    /// the pairs' angles, then the sines.
    pub fn rotate(x: &[f32], cos_sin: &[f32], out: &mut [f32]) {
        let half = x.len() / 2;
        let (cos, sin) = cos_sin.split_at(half);
        let (a, b) = x.split_at(half);
        let (out_a, out_b) = out.split_at_mut(half);
        let (sin, b, out_a, out_b) = (&sin[..half], &b[..half], &mut out_a[..half], &mut out_b[..half]);
        for i in 0..half {
            out_a[i] = a[i] * cos[i] - b[i] * sin[i];
            out_b[i] = b[i] * cos[i] + a[i] * sin[i];
        }
    }
}

leveled! {
    /// As [`rotate`], in place.
    pub fn rotate_in_place(x: &mut [f32], cos_sin: &[f32]) {
        let half = x.len() / 2;
        let (cos, sin) = cos_sin.split_at(half);
        let (a, b) = x.split_at_mut(half);
        let (sin, b) = (&sin[..half], &mut b[..half]);
        for i in 0..half {
            (a[i], b[i]) = (a[i] * cos[i] - b[i] * sin[i], b[i] * cos[i] + a[i] * sin[i]);
        }
    }
}

leveled! {
    /// From the accumulators of a tile to outputs: `y = (acc / s) · ws`, one division and one multiplication in this
    /// order; added to what `y` holds where `add` says so.
    ///
    /// # Shapes
    /// `acc`: `[tokens, stride]` with the stride, of which the first columns are taken, as many as `ws` has;
    /// `s`: `[tokens]`. They go to the rows and the columns of `y` from those of `at` on.
    pub fn rescale(
        acc: (&[i32], usize), s: &[f32], ws: &[f32], y: &mut ColumnBlock<'_, f32>, at: (usize, usize), add: bool,
    ) {
        let ((acc, stride), (row, column)) = (acc, at);
        for ((t, acc), &s) in acc.chunks_exact(stride).enumerate().zip(s) {
            let y = &mut y.row(row + t)[column..][..ws.len()];
            let acc = &acc[..ws.len()];
            match add {
                false => for i in 0..ws.len() { y[i] = acc[i] as f32 / s * ws[i]; },
                true => for i in 0..ws.len() { y[i] += acc[i] as f32 / s * ws[i]; },
            }
        }
    }
}

leveled! {
    /// From the accumulators of int8 planes to outputs: `y = (Σ_p 256^p · acc_p) / s · ws`, the sum exact, the rest in
    /// f64 and rounded once; added to what `y` holds where `add` says so.
    pub fn rescale_planes(planes: &[&[i32]], s: f32, ws: &[f32], y: &mut [f32], add: bool) {
        assert!(planes.iter().all(|p| p.len() == y.len()), "a sum an output in every plane");
        for (i, (y, &ws)) in y.iter_mut().zip(ws).enumerate() {
            // Sums of integers below 2^53, as long as there are at most three planes of 32 bits.
            let (mut total, mut unit) = (0f64, 1f64);
            for plane in planes {
                total += f64::from(plane[i]) * unit;
                unit *= 256.0;
            }
            let value = (total / f64::from(s) * f64::from(ws)) as f32;
            *y = if add { *y + value } else { value };
        }
    }
}

leveled! {
    /// `[rows, tokens]` to `[tokens, rows]`.
    pub fn transpose(rows_major: &[i32], rows: usize, tokens: usize, out: &mut [i32]) {
        const B: usize = 8;
        assert!(rows_major.len() >= rows * tokens && out.len() >= rows * tokens, "elements of a tile");
        let (full_rows, full_tokens) = (rows - rows % B, tokens - tokens % B);
        for r0 in (0..full_rows).step_by(B) {
            for t0 in (0..full_tokens).step_by(B) {
                let mut block = [[0i32; B]; B];
                for (r, line) in block.iter_mut().enumerate() {
                    line.copy_from_slice(&rows_major[(r0 + r) * tokens + t0..][..B]);
                }
                for t in 0..B {
                    let line: [i32; B] = std::array::from_fn(|r| block[r][t]);
                    out[(t0 + t) * rows + r0..][..B].copy_from_slice(&line);
                }
            }
        }
        for r in 0..rows {
            for t in if r < full_rows { full_tokens } else { 0 }..tokens {
                out[t * rows + r] = rows_major[r * tokens + t];
            }
        }
    }
}

leveled! {
    /// Quantises one token to int8; the sum of the codes and the scale come back. See
    /// [`bitnet_codegen::trit::absmax`].
    pub fn quantise(x: &[f32], q: &mut [i8]) -> (i32, f32) {
        let scale = bitnet_codegen::trit::absmax(x, q);
        (q.iter().map(|&q| q as i32).sum(), scale)
    }
}

leveled! {
    /// Quantises one token by groups of columns; see [`bitnet_codegen::acts::quantise_groups`].
    pub fn quantise_groups(x: &[f32], group_k: usize, q: &mut [i8], sums: &mut [i32], scales: &mut [f32]) {
        bitnet_codegen::acts::quantise_groups(x, group_k, q, sums, scales);
    }
}

leveled! {
    /// Quantises one token to int8 with one scale, as [`quantise`], for products by groups of columns: each gets its
    /// own sum and the token's scale, by which sums are multiplied.
    pub fn quantise_token(x: &[f32], group_k: usize, q: &mut [i8], sums: &mut [i32], scales: &mut [f32]) {
        let scale = bitnet_codegen::trit::absmax(x, q);
        scales.fill(1.0 / scale);
        for (sum, q) in sums.iter_mut().zip(q[..x.len()].chunks(group_k)) {
            *sum = q.iter().map(|&q| q as i32).sum();
        }
    }
}

leveled! {
    /// Quantises one token to int8 planes of `k_padded` codes each, lowest first, and returns the scale: value `i` is
    /// `Σ_p 256^p · q[p · k_padded + i] = rhe(x[i] · s)`. A value that is not finite makes the scale NaN.
    pub fn quantise_planes(x: &[f32], k_padded: usize, q: &mut [i8]) -> f32 {
        /// Added to a float below 2^51 in magnitude, leaves its value rounded half to even in the low bits.
        const ROUND: f64 = 6_755_399_441_055_744.0;
        let planes = q.len() / k_padded;
        let largest = (0..planes).fold(0, |v, _| v * 256 + 127);
        let bits = x.iter().fold(0u32, |m, v| m.max(v.to_bits() & 0x7fff_ffff));
        // Below the floor the scale would overflow.
        let s = largest as f32 / f32::from_bits(bits).max(1e-30);
        for (i, &v) in x.iter().enumerate() {
            let rounded = (f64::from(v) * f64::from(s) + ROUND).to_bits() as u32 as i32;
            let mut rest = rounded.clamp(-largest, largest);
            for plane in q.chunks_exact_mut(k_padded) {
                let digit = rest as i8;
                plane[i] = digit;
                rest = (rest - i32::from(digit)) >> 8;
            }
        }
        for plane in q.chunks_exact_mut(k_padded) {
            plane[x.len()..].fill(0);
        }
        if bits < f32::INFINITY.to_bits() { s } else { f32::NAN }
    }
}

pub(crate) use leveled;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Numbers in −1…1, always the same for a seed.
    pub(crate) fn noise(n: usize, seed: u32) -> Vec<f32> {
        bitnet_codegen::noise::Noise::new(seed)
            .take(n)
            .map(|x| (x >> 8) as f32 / (1 << 23) as f32 - 1.0)
            .collect()
    }

    /// Every function on odd lengths, as one list of bits.
    fn everything() -> Vec<u32> {
        let mut bits = Vec::new();
        for n in [1, 5, 31, 32, 33, 96, 100, 128, 256, 1000] {
            let (a, b) = (noise(n, 1), noise(n, 2));
            let mut out = vec![0f32; n];
            bits.push(dot(&a, &b).to_bits());
            let mut take = |v: &[f32]| bits.extend(v.iter().map(|f| f.to_bits()));
            rms_norm(&a, &b, 1e-5, &mut out);
            take(&out);
            relu2_gate(&a, &b, &mut out);
            take(&out);
            let wide: Vec<f32> = a.iter().map(|v| v * 100.0).collect();
            silu_gate(&wide, &b, &mut out);
            take(&out);
            gelu_gate(&wide, &b, &mut out);
            take(&out);
            scale(&mut out, 1.7);
            take(&out);
            add(&mut out, &a);
            take(&out);
            let acc: Vec<i32> = (0..n as i32).map(|i| i * 977 - 40_000).collect();
            rescale(
                (&acc, n),
                &[0.37],
                &b,
                &mut ColumnBlock::whole(&mut out, n),
                (0, 0),
                false,
            );
            rescale(
                (&acc, n),
                &[1.7],
                &a,
                &mut ColumnBlock::whole(&mut out, n),
                (0, 0),
                true,
            );
            take(&out);
            let mut q = vec![0i8; n];
            let (sum, scale) = quantise(&a, &mut q);
            take(&[sum as f32, scale]);
            let mut planes = vec![0i8; 3 * n];
            let scale = quantise_planes(&a, n, &mut planes);
            let sums: Vec<i32> = (0..3 * n as i32).map(|i| i * 977_777 - 40_000).collect();
            let sums: Vec<&[i32]> = sums.chunks_exact(n).collect();
            rescale_planes(&sums, scale, &b, &mut out, false);
            rescale_planes(&sums[..2], 0.1, &a, &mut out, true);
            take(&out);
            let half = n / 2 * 2;
            let mut turned = vec![0f32; half];
            rotate(&a[..half], &b[..half], &mut turned);
            take(&turned);
            rotate_in_place(&mut turned, &b[..half]);
            take(&turned);
            take(&planes.iter().map(|&q| f32::from(q)).collect::<Vec<_>>());
        }
        bits
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        let mut all = [Level::Base, Level::Avx2, Level::Avx512].map(|level| {
            cap(level);
            everything()
        });
        cap(Level::Avx512);
        let first = std::mem::take(&mut all[0]);
        assert!(all[1..].iter().all(|other| *other == first));
    }

    #[test]
    fn planes_say_every_value_to_their_last_bit() {
        for (planes, largest) in [(1, 127), (2, 32_639), (3, 8_355_711)] {
            for x in [
                noise(100, 3),
                vec![0.0; 5],
                vec![-1e-38, 1e-39],
                vec![3e38, -3e38, 1.0],
            ] {
                let k_padded = x.len() + 7;
                let mut q = vec![99i8; planes * k_padded];
                let s = quantise_planes(&x, k_padded, &mut q);
                assert!(s.is_finite() && s > 0.0);
                let value = |i: usize| {
                    let digits = q.chunks_exact(k_padded).rev();
                    digits.fold(0i64, |v, plane| v * 256 + i64::from(plane[i]))
                };
                for (i, &v) in x.iter().enumerate() {
                    let want = (f64::from(v) * f64::from(s)).round_ties_even() as i64;
                    assert_eq!(
                        value(i),
                        want.clamp(-largest, largest),
                        "{planes} planes, {v}"
                    );
                }
                assert!((x.len()..k_padded).all(|i| value(i) == 0));
            }
            let mut q = vec![0i8; 2 * planes];
            assert!(quantise_planes(&[1.0, f32::NAN], 2, &mut q).is_nan());
            assert!(quantise_planes(&[f32::INFINITY, 1.0], 2, &mut q).is_nan());
        }
    }

    #[test]
    fn exp_is_close_to_the_exact_one() {
        for i in -8700..=8800 {
            let x = i as f32 / 100.0 + 0.003;
            let (got, want) = (exp(x) as f64, (x as f64).exp());
            assert!(
                ((got - want) / want).abs() < 2.5e-7 || x < -87.3,
                "exp({x}) = {got}, not {want}"
            );
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e9), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn transpose_moves_every_element() {
        for (rows, tokens) in [(1, 1), (8, 8), (32, 16), (7, 9), (33, 17), (16, 3)] {
            let tile: Vec<i32> = (0..(rows * tokens) as i32).collect();
            let mut out = vec![0; rows * tokens];
            transpose(&tile, rows, tokens, &mut out);
            for r in 0..rows {
                for t in 0..tokens {
                    assert_eq!(out[t * rows + r], tile[r * tokens + t], "{rows}x{tokens}");
                }
            }
        }
    }
}
