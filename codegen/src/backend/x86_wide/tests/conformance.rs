//! Whole kernels of every family through [`KernelSet`], against the oracle.

use super::{isas, listing, machine_code, runnable};
use crate::acts::Activations;
use crate::isa::{Features, Isa};
use crate::kernel::KernelSet;
use crate::kernel::tests::product;
use crate::oracle;
use crate::spec::KernelSpec;
use crate::trit::TernaryMatrix;
use crate::variant::plan;

fn noise(i: usize, seed: u64) -> u64 {
    let x = (i as u64 ^ seed << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (x ^ x >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 33
}

fn check(spec: &KernelSpec, m: usize, n: usize, k: usize) {
    let trits: Vec<i8> = (0..n * k).map(|i| (noise(i, 1) % 3) as i8 - 1).collect();
    let q: Vec<i8> = (0..m * k).map(|i| noise(i, 2) as i8).collect();
    let w = TernaryMatrix::from_trits(n, k, &trits, 1.0).unwrap();
    let plan = plan(spec, k).unwrap_or_else(|e| panic!("{spec}: {e}"));
    let set = KernelSet::build(vec![plan], Features::detect()).unwrap_or_else(|e| panic!("{e}"));
    let got = product(&set.kernels()[0], &w, &Activations::from_codes(m, k, &q));
    let want = oracle::matmul(&w, &q);
    if let Some(i) = (0..want.len()).find(|&i| got[i] != want[i]) {
        panic!(
            "{spec} m{m} n{n} k{k}: element {i}: {} instead of {}",
            got[i], want[i]
        );
    }
}

#[test]
fn i2s_equals_the_oracle_over_every_tail() {
    for isa in runnable() {
        let rows = isa.width().bytes() / 4;
        for (mr, nr, f, u) in [
            (1, rows, 0, 2),
            (1, 2 * rows, 1, 1),
            (3, rows, 1, 4),
            (4, 2 * rows, 1, 1),
        ] {
            let spec = KernelSpec::new("i2s", "i2s", mr, nr, 16, isa)
                .with("f", f)
                .with("u", u)
                .with("pf", 32);
            if plan(&spec, 64).is_err() {
                continue;
            }
            for k in [1, 15, 16, 17, 31, 33, 64, 239, 240, 241, 300, 513] {
                for n in [1, nr - 1, nr, nr + 1] {
                    for m in [1, mr, mr + 1] {
                        check(&spec, m, n, k);
                    }
                }
            }
        }
    }
}

#[test]
#[ignore = "prints a listing: SPEC=… K=… cargo test --release -p bitnet-codegen listing -- --ignored --nocapture"]
fn listing_of_a_spec() {
    let spec: KernelSpec = std::env::var("SPEC").unwrap().parse().unwrap();
    let k = std::env::var("K").map_or(2560, |k| k.parse().unwrap());
    let plan = plan(&spec, k).unwrap();
    for p in plan.unpack.iter().chain(plan.main.first().map(|m| &m.1)) {
        println!(
            "{}\n{}",
            p.name,
            listing(&machine_code(p, spec.isa, Features::detect()))
        );
    }
    let _ = (isas(), Isa::ALL);
}
