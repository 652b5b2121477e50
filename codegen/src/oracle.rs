//! The meaning of every kernel: the naive product, in i32 or, with group scales, in f32 in a fixed order. Never
//! optimised; everything is compared with it.

use crate::acts::GroupedActs;
use crate::trit::TernaryMatrix;

/// `Y[M,N] = X[M,K] · W[N,K]ᵀ` in i32.
///
/// # Shapes
/// `x: [m, k]` i8, row-major with `k = w.k()`; the result is `[m, n]` row-major.
///
/// # Panics
/// When `x` is not a whole number of rows of K.
pub fn matmul(w: &TernaryMatrix, x: &[i8]) -> Vec<i32> {
    let n = w.n();
    let m = x.len() / w.k();
    let mut y = vec![0i32; m * n];
    let mut row = vec![0i32; m];
    for r in 0..n {
        output(w, r, x, &mut row);
        for (token, &acc) in row.iter().enumerate() {
            y[token * n + r] = acc;
        }
    }
    y
}

/// One output feature for every token: `y[t] = Σ_k x[t][k] · w[row][k]`.
///
/// # Panics
/// When `x` is not one row of K for each of `y`.
pub fn output(w: &TernaryMatrix, row: usize, x: &[i8], y: &mut [i32]) {
    let k = w.k();
    assert_eq!(x.len(), y.len() * k, "x holds whole rows of K = {k}");
    let mut codes = vec![0u8; k];
    w.unpack_row(row, &mut codes);
    for (token, acc) in y.iter_mut().enumerate() {
        *acc = 0;
        for (c, q) in codes.iter().zip(&x[token * k..][..k]) {
            *acc += (*c as i32 - 1) * *q as i32;
        }
    }
}

/// `Y[M,N]` in f32 where groups of columns have scales: `y += f32(acc) · (w_scale · x_scale)` for each group,
/// ascending, every operation rounded by itself.
///
/// # Shapes
/// `x`: M tokens in groups of G columns; the scales of `w` are the same for each of them. The result is `[m, n]`.
///
/// # Panics
/// When `x` has another K, or its groups are not within those of `w`.
pub fn matmul_grouped(w: &TernaryMatrix, x: &GroupedActs) -> Vec<f32> {
    let n = w.n();
    let mut y = vec![0f32; x.m * n];
    let mut row = vec![0f32; x.m];
    for r in 0..n {
        output_grouped(w, r, x, &mut row);
        for (token, &value) in row.iter().enumerate() {
            y[token * n + r] = value;
        }
    }
    y
}

/// One output feature of [`matmul_grouped`] for every token.
///
/// # Panics
/// As [`matmul_grouped`], or when `y` is not one value for each token.
pub fn output_grouped(w: &TernaryMatrix, row: usize, x: &GroupedActs, y: &mut [f32]) {
    let k = w.k();
    assert_eq!((x.k, x.m), (k, y.len()), "K and tokens");
    let mut codes = vec![0u8; k];
    w.unpack_row(row, &mut codes);
    for (t, y) in y.iter_mut().enumerate() {
        *y = 0.0;
        for g in 0..x.groups() {
            let from = g * x.group_k;
            let to = (from + x.group_k).min(k);
            let acc: i32 = (from..to)
                .map(|c| (codes[c] as i32 - 1) * x.code(t, c))
                .sum();
            let scale = w.scale_at(row, from, x.group_k) * x.scales[t * x.groups() + g];
            *y += acc as f32 * scale;
        }
    }
}
