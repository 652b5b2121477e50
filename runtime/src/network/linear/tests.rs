//! The blocked product against the oracle: every family on every instruction set of this CPU, stacked matrices,
//! group scales, shared panels.

use super::*;
use bitnet_codegen::space;
use bitnet_codegen::variant::{OutOrder, VARIANTS};
use bitnet_codegen::{Features, Isa, KernelSet, KernelSpec, oracle, plan};
use std::collections::BTreeSet;

fn kernel(text: &str, k: usize) -> Arc<Kernel> {
    let spec: KernelSpec = text.parse().unwrap();
    let set = KernelSet::build(vec![plan(&spec, k).unwrap()], Features::detect()).unwrap();
    Arc::clone(&set.kernels()[0])
}

fn trits(n: usize, k: usize, seed: usize) -> Vec<i8> {
    (0..n * k)
        .map(|i| ((i * 7 + i / 3 + seed * 5 + i * i) % 3) as i8 - 1)
        .collect()
}

fn codes(m: usize, k: usize) -> Vec<i8> {
    (0..m * k).map(|i| (i * 37 + 11 + i / 7) as i8).collect()
}

const SPECS: [&str; 4] = [
    "i2s-i2s-1x8c16-interp-f0-u2",
    "i2s-i2s-4x16c16-interp-f1-u1",
    "i2s-i2s-3x8c16-interp-f1",
    "vlut-lut4-8x16c32-interp-u1",
];

#[test]
fn parts_of_a_tile_are_token_major() {
    let (nr, mr) = (12, 3);
    let out: Vec<i32> = (0..(nr * mr) as i32).collect();
    let mut turned = Vec::new();
    let orders = [
        OutOrder::TokenMajor,
        OutOrder::RowMajor,
        OutOrder::Split { rows: 5 },
    ];
    for order in orders {
        let mut rows_seen = 0;
        for (rows, values) in by_token(order, (nr, mr), &out, &mut turned) {
            for (t, row) in (0..mr).flat_map(|t| rows.clone().map(move |r| (t, r))) {
                let got = values[t * rows.len() + row - rows.start];
                let want = out[order.index(t, row, mr, nr)];
                assert_eq!(got, want, "{order:?} token {t} row {row}");
            }
            rows_seen += rows.len();
        }
        assert_eq!(rows_seen, nr, "{order:?}");
    }
}

#[test]
fn sums_equal_the_oracle_for_every_kernel_and_thread_count() {
    for threads in [1, 2, 3, 7] {
        let pool = Pool::new(threads).unwrap();
        let mut work = Workspace::new(&pool);
        for (n, k) in [(1, 5), (33, 100), (70, 64)] {
            let w = TernaryMatrix::from_trits(n, k, &trits(n, k, 0), 0.5).unwrap();
            for text in SPECS {
                let kernel = kernel(text, k);
                let linear = Linear::new(&pool, std::slice::from_ref(&w), |_, _| {
                    Ok::<_, TritError>(same_for_all(&kernel))
                })
                .unwrap();
                for m in [1, 2, 3, 5, 9] {
                    let q = codes(m, k);
                    let mut got = vec![-1; m * n];
                    linear.accumulate(
                        &pool,
                        &mut work,
                        &Activations::from_codes(m, k, &q),
                        &mut got,
                    );
                    assert_eq!(
                        got,
                        oracle::matmul(&w, &q),
                        "{text} {threads} threads m{m} n{n} k{k}"
                    );
                }
            }
        }
    }
}

/// For decode and for prefill the default of each layout of each family, for every instruction set of this CPU.
/// Each that a family offers must be there.
fn defaults(k: usize) -> Vec<Arc<Kernel>> {
    let cpu = Features::detect();
    let mut kernels = Vec::new();
    let mut seen = BTreeSet::new();
    for &isa in Isa::ALL.iter().filter(|i| i.runs_on(cpu)) {
        for family in VARIANTS {
            for m in [1, 16] {
                // An error says that the family does not run there.
                let specs = space::specs(*family, isa, m).unwrap_or_default();
                for layout in family.layouts().iter().filter(|_| !specs.is_empty()) {
                    let of_layout = |s: &&KernelSpec| s.layout == *layout;
                    let spec = specs.iter().filter(of_layout).find(|s| plan(s, k).is_ok());
                    let spec = spec.unwrap_or_else(|| {
                        panic!("no {} of {layout} on {isa} for K = {k}", family.name())
                    });
                    if seen.insert(spec.clone()) {
                        let plans = vec![plan(spec, k).unwrap()];
                        let set = KernelSet::build(plans, cpu)
                            .unwrap_or_else(|why| panic!("{spec} k{k}: {why}"));
                        kernels.push(Arc::clone(&set.kernels()[0]));
                    }
                }
            }
        }
    }
    kernels
}

/// What the weights and activations of a product are.
#[derive(Clone, Copy, Debug)]
enum Data {
    Mixed,
    /// All weights and all activations the same: the sums that overflow first.
    Constant(i8, i8),
}

const EXTREMES: [Data; 4] = [
    Data::Constant(1, -128),
    Data::Constant(-1, -128),
    Data::Constant(1, 127),
    Data::Constant(-1, 127),
];

impl Data {
    fn weights(self, n: usize, k: usize) -> TernaryMatrix {
        let trits = match self {
            Data::Mixed => trits(n, k, 0),
            Data::Constant(w, _) => vec![w; n * k],
        };
        TernaryMatrix::from_trits(n, k, &trits, 0.5).unwrap()
    }

    fn codes(self, m: usize, k: usize) -> Vec<i8> {
        match self {
            Data::Mixed => codes(m, k),
            Data::Constant(_, x) => vec![x; m * k],
        }
    }
}

/// One layer through `kernel` for each number of tokens, compared with the oracle. Returns how many.
fn check(pool: &Pool, kernel: &Arc<Kernel>, n: usize, data: Data, ms: &[usize]) -> usize {
    let (spec, k) = (kernel.spec(), kernel.k());
    let w = data.weights(n, k);
    let mut work = Workspace::new(pool);
    let linear = Linear::new(pool, std::slice::from_ref(&w), |_, _| {
        Ok::<_, TritError>(same_for_all(kernel))
    })
    .unwrap();
    for &m in ms {
        let q = data.codes(m, k);
        let mut got = vec![i32::MIN; m * n];
        linear.accumulate(
            pool,
            &mut work,
            &Activations::from_codes(m, k, &q),
            &mut got,
        );
        let want = oracle::matmul(&w, &q);
        let wrong = (0..got.len()).find(|&i| got[i] != want[i]);
        if let Some(at) = wrong {
            panic!(
                "{spec} {data:?} m{m} n{n} k{k}, {} threads: token {} row {}: got {}, the oracle says {}\n\
                 rerun: bitnet-tune kernel --m {m} --n {n} --k {k} --spec {spec}",
                pool.threads(),
                at / n,
                at % n,
                got[at],
                want[at]
            );
        }
    }
    ms.len()
}

/// Tails in M, N and K: panels that are mostly padding, and a full one with one row behind it, for two threads.
#[test]
fn every_family_on_every_instruction_set_equals_the_oracle() {
    let pool = Pool::new(2).unwrap();
    let (mut layers, mut products) = (0, 0);
    for k in [1, 100, 257] {
        for kernel in defaults(k) {
            let ms: &[usize] = match kernel.spec().isa {
                Isa::Interp => &[1, 3],
                _ => &[1, 2, 5, 17, 33],
            };
            for n in [1, 33, kernel.panel().shape.nr + 1] {
                products += check(&pool, &kernel, n, Data::Mixed, ms);
                layers += 1;
            }
            for data in EXTREMES {
                products += check(&pool, &kernel, 33, data, &ms[..2]);
                layers += 1;
            }
        }
    }
    println!("{products} products of {layers} layers equal the oracle");
    // On the interpreter alone each family but `hybrid` has a spec for each K, and seven layers of it.
    let least = 3 * 7 * (VARIANTS.len() - 1);
    assert!(layers >= least, "{layers} layers, at least {least}");
}

#[test]
fn stacked_matrices_keep_their_rows_and_scales() {
    let pool = Pool::new(2).unwrap();
    let mut work = Workspace::new(&pool);
    let (k, m) = (48, 3);
    let a = TernaryMatrix::from_trits(5, k, &trits(5, k, 1), 0.25).unwrap();
    let b = TernaryMatrix::from_rows::<TritError>(
        11,
        k,
        Scales::Row((0..11).map(|i| 1.0 + i as f32).collect()),
        |r, row| {
            row.iter_mut()
                .zip(&trits(11, k, 2)[r * k..])
                .for_each(|(c, t)| *c = (t + 1) as u8);
            Ok(())
        },
    )
    .unwrap();
    let kernel = kernel(SPECS[0], k);
    let both = [a.clone(), b.clone()];
    let linear = Linear::new(&pool, &both, |_, _| {
        Ok::<_, TritError>(same_for_all(&kernel))
    })
    .unwrap();
    assert_eq!(linear.stacked(), [0..5, 5..16]);
    let q = codes(m, k);
    let mut acts = Activations::from_codes(m, k, &q);
    acts.scales = vec![3.0, 0.7, 11.0];
    let stride = 20;
    let mut y = vec![f32::NAN; m * stride];
    linear.forward(&pool, &mut work, &acts, &mut y, stride, 2);
    let (sa, sb) = (oracle::matmul(&a, &q), oracle::matmul(&b, &q));
    for t in 0..m {
        let row = &y[t * stride..][..stride];
        for r in 0..5 {
            assert_eq!(row[2 + r], sa[t * 5 + r] as f32 / acts.scales[t] * 0.25);
        }
        for r in 0..11 {
            assert_eq!(
                row[7 + r],
                sb[t * 11 + r] as f32 / acts.scales[t] * (1.0 + r as f32)
            );
        }
        assert!(
            row[..2].iter().chain(&row[18..]).all(|v| v.is_nan()),
            "other columns are left alone"
        );
    }
}

#[test]
fn group_scales_add_up_in_column_order() {
    let pool = Pool::new(3).unwrap();
    let mut work = Workspace::new(&pool);
    let (n, k, m, group_k) = (9, 150, 5, 64);
    let t = trits(n, k, 3);
    let scales: Vec<f32> = (0..n * 3).map(|i| 0.1 + i as f32 * 0.013).collect();
    let w = TernaryMatrix::from_rows::<TritError>(
        n,
        k,
        Scales::Group {
            group_k,
            scales: scales.clone(),
        },
        |r, row| {
            row.iter_mut()
                .zip(&t[r * k..])
                .for_each(|(c, t)| *c = (t + 1) as u8);
            Ok(())
        },
    )
    .unwrap();
    let linear = Linear::new(&pool, std::slice::from_ref(&w), |_, k| {
        Ok::<_, TritError>(same_for_all(&kernel(SPECS[1], k)))
    })
    .unwrap();
    let q = codes(m, k);
    let mut acts = Activations::from_codes(m, k, &q);
    acts.scales = (0..m).map(|i| 1.5 + i as f32).collect();
    let mut y = vec![0f32; m * n];
    linear.forward(&pool, &mut work, &acts, &mut y, n, 0);
    for tok in 0..m {
        for r in 0..n {
            let mut want = 0f32;
            for g in 0..3 {
                let cols = g * group_k..((g + 1) * group_k).min(k);
                let acc: i32 = cols
                    .map(|c| t[r * k + c] as i32 * q[tok * k + c] as i32)
                    .sum();
                let term = acc as f32 / acts.scales[tok] * scales[r * 3 + g];
                want = if g == 0 { term } else { want + term };
            }
            assert_eq!(
                y[tok * n + r].to_bits(),
                want.to_bits(),
                "token {tok} row {r}"
            );
        }
    }
    let mut sums = vec![0; m * n];
    linear.accumulate(&pool, &mut work, &acts, &mut sums);
    assert_eq!(sums, oracle::matmul(&w, &q));
}

#[test]
fn kernels_with_the_same_panels_share_the_packed_weights() {
    let pool = Pool::new(1).unwrap();
    let (n, k) = (40, 64);
    let w = TernaryMatrix::from_trits(n, k, &trits(n, k, 0), 1.0).unwrap();
    let decode = kernel("i2s-i2s-1x8c16-interp-f0-u2", k);
    let prefill = kernel("i2s-i2s-3x8c16-interp-f1", k);
    let linear = Linear::new(&pool, &[w], |_, _| {
        Ok::<_, TritError>(std::array::from_fn(|b| {
            Arc::clone(if b == 0 { &decode } else { &prefill })
        }))
    })
    .unwrap();
    assert_eq!(linear.packed_bytes(), linear.weight_bytes(1));
    assert_eq!(linear.weight_bytes(1), n * k / 4);
    assert_eq!(linear.kernel(1).spec(), decode.spec());
    assert_eq!(linear.kernel(2).spec(), prefill.spec());
    assert_eq!(Isa::Interp, decode.spec().isa);
}
