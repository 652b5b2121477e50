//! Identities that need no oracle: one-hot inputs read the weights back, the product is linear, and signs
//! go through. They would find an oracle that is wrong in the same way as a kernel.

use crate::guarded::Edge;
use crate::product::{Data, Noise, build, product, rerun};
use crate::{Breadth, done, runnable, specs};
use bitnet_codegen::{Activations, Features, Kernel, TernaryMatrix};

const K: usize = 203;

fn matrix(n: usize, trits: &[i8]) -> TernaryMatrix {
    TernaryMatrix::from_trits(n, K, trits, 1.0).expect("trits")
}

fn run(kernel: &Kernel, n: usize, trits: &[i8], m: usize, x: &[i8]) -> Vec<i32> {
    let acts = Activations::from_codes(m, K, x);
    product(kernel, &matrix(n, trits), &acts, Edge::End)
}

/// For each default spec of each instruction set of this CPU: kernel, N, trits.
fn each(mut test: impl FnMut(&Kernel, usize, &[i8])) {
    let mut kernels = 0;
    for isa in runnable() {
        for spec in specs(isa, Breadth::Defaults) {
            let Some(kernel) = build(&spec, K, Features::detect()) else {
                continue;
            };
            let n = (spec.nr + 3).min(70);
            test(&kernel, n, &Data::Random(n as u64).trits(n, K));
            kernels += 1;
        }
    }
    done(kernels, 5 * runnable().len());
}

/// Token t is 1 (or −128) at one column and 0 elsewhere: the result is that column of W.
#[test]
fn one_hot_tokens_read_columns() {
    let mut noise = Noise(5);
    each(|kernel, n, trits| {
        let m = 9;
        let hot: Vec<(usize, i8)> = (0..m)
            .map(|t| (noise.below(K), [1, -128, 127, -1][t % 4]))
            .collect();
        let mut x = vec![0; m * K];
        for (t, &(column, value)) in hot.iter().enumerate() {
            x[t * K + column] = value;
        }
        let y = run(kernel, n, trits, m, &x);
        for (t, &(column, value)) in hot.iter().enumerate() {
            for r in 0..n {
                let want = trits[r * K + column] as i32 * value as i32;
                let got = y[t * n + r];
                assert!(
                    got == want,
                    "{}: column {column} of row {r} times {value}: got {got}, want {want}\n{}",
                    kernel.spec(),
                    rerun(kernel.spec())
                );
            }
        }
    });
}

/// Row r is ±1 at one column and 0 elsewhere: the result is that activation. All columns come round.
#[test]
fn one_hot_rows_read_activations() {
    each(|kernel, n, _| {
        let x = Data::Random(11).codes(2, K);
        for first in (0..K).step_by(n) {
            let column = |r: usize| (first + r) % K;
            let mut trits = vec![0; n * K];
            for r in 0..n {
                trits[r * K + column(r)] = if r % 2 == 0 { 1 } else { -1 };
            }
            let y = run(kernel, n, &trits, 2, &x);
            for (i, &got) in y.iter().enumerate() {
                let (t, r) = (i / n, i % n);
                let want = x[t * K + column(r)] as i32 * if r % 2 == 0 { 1 } else { -1 };
                assert!(
                    got == want,
                    "{}: column {} of token {t}: got {got}, want {want}\n{}",
                    kernel.spec(),
                    column(r),
                    rerun(kernel.spec())
                );
            }
        }
    });
}

/// `W·(a + b) = W·a + W·b`, `(−W)·a = −(W·a)`, `W·(−a) = −(W·a)`.
#[test]
fn products_are_linear() {
    each(|kernel, n, trits| {
        let half = |seed| -> Vec<i8> {
            let codes = Data::Random(seed).codes(3, K);
            codes.iter().map(|c| c / 2).collect()
        };
        let (a, b) = (half(21), half(22));
        let sum: Vec<i8> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        let minus = |v: &[i8]| v.iter().map(|x| -x).collect::<Vec<i8>>();
        let (ya, yb) = (run(kernel, n, trits, 3, &a), run(kernel, n, trits, 3, &b));
        let negative: Vec<i32> = ya.iter().map(|y| -y).collect();
        let both: Vec<i32> = ya.iter().zip(&yb).map(|(a, b)| a + b).collect();
        let spec = kernel.spec();
        assert_eq!(
            run(kernel, n, trits, 3, &sum),
            both,
            "{spec}: sum\n{}",
            rerun(spec)
        );
        assert_eq!(
            run(kernel, n, &minus(trits), 3, &a),
            negative,
            "{spec}: negative weights\n{}",
            rerun(spec)
        );
        assert_eq!(
            run(kernel, n, trits, 3, &minus(&a)),
            negative,
            "{spec}: negative activations\n{}",
            rerun(spec)
        );
    });
}
