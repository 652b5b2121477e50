//! The meaning of every kernel: the naive i32 product. Never optimised; everything is compared with it.

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
