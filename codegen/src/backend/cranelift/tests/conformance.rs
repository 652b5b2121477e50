//! i2s through [`KernelSet`] against the oracle: tails of M, N and K, every form, every instruction set here.

use super::{Noise, runnable};
use crate::acts::Activations;
use crate::isa::{Features, Isa};
use crate::kernel::KernelSet;
use crate::kernel::tests::product;
use crate::oracle;
use crate::spec::KernelSpec;
use crate::trit::TernaryMatrix;
use crate::variant::plan;

/// Specs that differ in every axis; those that need more registers than there are say so and drop out.
fn specs(isa: Isa) -> Vec<KernelSpec> {
    let mut list = Vec::new();
    for (mr, nr) in [(1, 4), (1, 8), (1, 16), (2, 8), (3, 4), (4, 8), (8, 4)] {
        for f in 0..3 {
            for (u, pf) in [(1, 0), (2, 8), (4, 64)] {
                let spec = KernelSpec::new("i2s", "i2s", mr, nr, 16, isa);
                list.push(spec.with("f", f).with("u", u).with("pf", pf));
            }
        }
    }
    list.retain(|s| plan(s, 64).is_ok());
    list
}

#[test]
fn i2s_equals_the_oracle() {
    let mut noise = Noise(4242);
    for isa in runnable() {
        let specs = specs(isa);
        assert!(specs.len() > 8, "{isa} has {} specs", specs.len());
        for k in [1, 16, 17, 47, 64, 65, 240, 241, 256, 300, 1000] {
            let plans = specs
                .iter()
                .map(|s| plan(s, k).expect("planned before"))
                .collect();
            let set = KernelSet::build(plans, Features::detect())
                .unwrap_or_else(|e| panic!("{isa} k{k}: {e}"));
            for kernel in set.kernels() {
                let spec = kernel.spec();
                let m = 1 + (noise.next() as usize >> 9) % (spec.mr + 1);
                let n = 1 + (noise.next() as usize >> 9) % (2 * spec.nr + 1);
                let extreme = noise.next() >> 20 & 1 == 0;
                let trits: Vec<i8> = (0..n * k)
                    .map(|_| match extreme {
                        true => 1,
                        false => noise.between(-1, 1) as i8,
                    })
                    .collect();
                let q: Vec<i8> = (0..m * k)
                    .map(|_| match extreme {
                        true => -128,
                        false => noise.between(-128, 127) as i8,
                    })
                    .collect();
                let w = TernaryMatrix::from_trits(n, k, &trits, 1.0).expect("trits");
                let got = product(kernel, &w, &Activations::from_codes(m, k, &q));
                assert_eq!(got, oracle::matmul(&w, &q), "{spec} m{m} n{n} k{k}");
            }
        }
    }
}

#[test]
fn every_tail_of_m_and_n_equals_the_oracle() {
    let mut noise = Noise(99);
    for isa in runnable() {
        for (mr, nr, f) in [(1, 8, 0), (4, 4, 1)] {
            let spec = KernelSpec::new("i2s", "i2s", mr, nr, 16, isa)
                .with("f", f)
                .with("u", 2);
            let k = 50;
            let set = KernelSet::build(
                vec![plan(&spec, k).expect("a shipped shape")],
                Features::detect(),
            )
            .unwrap_or_else(|e| panic!("{spec}: {e}"));
            for m in 1..=mr + 1 {
                for n in 1..=2 * nr + 1 {
                    let trits: Vec<i8> = (0..n * k).map(|_| noise.between(-1, 1) as i8).collect();
                    let q: Vec<i8> = (0..m * k).map(|_| noise.between(-128, 127) as i8).collect();
                    let w = TernaryMatrix::from_trits(n, k, &trits, 1.0).expect("trits");
                    let got = product(&set.kernels()[0], &w, &Activations::from_codes(m, k, &q));
                    assert_eq!(got, oracle::matmul(&w, &q), "{spec} m{m} n{n} k{k}");
                }
            }
        }
    }
}
