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
    let (n, k) = (w.n(), w.k());
    assert_eq!(x.len() % k, 0, "x holds whole rows of K = {k}");
    let mut codes = vec![0u8; k];
    let m = x.len() / k;
    let mut y = vec![0i32; m * n];
    for row in 0..n {
        w.unpack_row(row, &mut codes);
        for token in 0..m {
            let mut acc = 0i32;
            for (c, q) in codes.iter().zip(&x[token * k..][..k]) {
                acc += (*c as i32 - 1) * *q as i32;
            }
            y[token * n + row] = acc;
        }
    }
    y
}
