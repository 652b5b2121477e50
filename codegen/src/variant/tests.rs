//! Every family, for every instruction set, run by the interpreter and compared with the oracle.
//!
//! A plan made for a wide instruction set keeps its width when the interpreter runs it, so one machine
//! tests all of them. Shapes go around the tile, the panel, the layout's step and the flush bounds.

use super::{VARIANTS, Variant, plan};
use crate::acts::Activations;
use crate::isa::{Features, Isa};
use crate::kernel::tests::product;
use crate::kernel::{Kernel, KernelSet};
use crate::oracle;
use crate::spec::KernelSpec;
use crate::trit::TernaryMatrix;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The default spec of each layout and all that differ from it in one axis. Specs that the family
/// refuses are left out; a layout without any is a failure of the test.
pub(crate) fn specs(family: &dyn Variant, isa: Isa, m: usize, k: usize) -> Vec<KernelSpec> {
    let Ok(axes) = family.axes(isa, m) else {
        return vec![];
    };
    let mut all = Vec::new();
    for layout in family.layouts() {
        let before = all.len();
        // KR belongs to the layout as much as to the family, so each value starts a group.
        let kr = axes.iter().find(|a| a.name == "kr").expect("an axis kr");
        for &kr in &kr.values {
            let mut spec = KernelSpec::new(family.name(), layout, 1, 1, kr as usize, isa);
            for axis in axes.iter().filter(|a| a.name != "kr") {
                set(&mut spec, axis.name, axis.values[0]);
            }
            all.push(spec.clone());
            for axis in axes.iter().filter(|a| a.name != "kr") {
                for &value in &axis.values[1..] {
                    let mut other = spec.clone();
                    set(&mut other, axis.name, value);
                    all.push(other);
                }
            }
        }
        all.retain(|s| plan(s, k).is_ok());
        assert!(
            all.len() > before,
            "{} {layout} on {isa} has no spec for m{m} k{k}",
            family.name()
        );
    }
    all
}

fn set(spec: &mut KernelSpec, axis: &str, value: u32) {
    match axis {
        "mr" => spec.mr = value as usize,
        "nr" => spec.nr = value as usize,
        knob => {
            spec.knobs.insert(knob.into(), value);
        }
    }
}

/// The kernel of `spec`, run by the interpreter at the width of the spec's instruction set.
fn interpreted(spec: &KernelSpec, k: usize) -> Arc<Kernel> {
    let mut plan = plan(spec, k).unwrap();
    plan.spec.isa = Isa::Interp;
    let set = KernelSet::build(vec![plan], Features::detect()).unwrap();
    Arc::clone(&set.kernels()[0])
}

/// A cheap hash, so that data has no period that a kernel could share.
fn noise(i: usize, seed: u64) -> u64 {
    let x = (i as u64 ^ seed << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (x ^ x >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 33
}

/// What weights and activations are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Data {
    Random,
    /// One trit, one activation: the sums that overflow first.
    Extreme(i8, i8),
}

fn check(spec: &KernelSpec, m: usize, n: usize, k: usize, data: Data) {
    check_kernel(&interpreted(spec, k), m, n, data);
}

/// Compares one product through `kernel` with the oracle.
pub(crate) fn check_kernel(kernel: &Kernel, m: usize, n: usize, data: Data) {
    let (spec, k) = (kernel.spec(), kernel.k());
    let (trits, q): (Vec<i8>, Vec<i8>) = match data {
        Data::Random => (
            (0..n * k).map(|i| (noise(i, 1) % 3) as i8 - 1).collect(),
            (0..m * k).map(|i| noise(i, 2) as i8).collect(),
        ),
        Data::Extreme(w, x) => (vec![w; n * k], vec![x; m * k]),
    };
    let w = TernaryMatrix::from_trits(n, k, &trits, 1.0).unwrap();
    let got = product(kernel, &w, &Activations::from_codes(m, k, &q));
    let want = oracle::matmul(&w, &q);
    if let Some(i) = (0..want.len()).find(|&i| got[i] != want[i]) {
        panic!(
            "{spec} m{m} n{n} k{k} {data:?}: token {} row {}: {} instead of {}",
            i / n,
            i % n,
            got[i],
            want[i]
        );
    }
}

/// Runs `each` for every family on each instruction set that makes programs of its own (width, registers, dot product,
/// byte look-ups): a thread for each family.
fn every_family(each: impl Fn(&dyn Variant, Isa) + Sync) {
    let every_isa = |family: &dyn Variant| {
        let mut seen = BTreeSet::new();
        for &isa in Isa::ALL {
            let kind = (
                isa.width(),
                isa.vector_registers(),
                isa.has_dot(),
                isa.has_wide_lut(),
            );
            if family.axes(isa, 1).is_ok() && seen.insert(kind) {
                each(family, isa);
            }
        }
        let name = family.name();
        assert!(!seen.is_empty(), "{name} runs on no instruction set");
    };
    std::thread::scope(|scope| {
        for &family in VARIANTS {
            scope.spawn(move || every_isa(family));
        }
    });
}

/// All values of all axes, one at a time, on one shape with tails in M, N and K.
#[test]
fn axes_equal_the_oracle() {
    every_family(|family, isa| {
        for m in [1, 5, 40] {
            for spec in specs(family, isa, m, 100) {
                // A tall panel is work for the interpreter even where few rows are filled.
                let n = match spec.nr {
                    nr if nr > 256 => 3,
                    nr => nr + nr / 2 + 1,
                };
                check(&spec, m.min(spec.mr + 1), n, 100, Data::Random);
            }
        }
    });
}

/// Tokens from 1 to MR + 1, rows around the panel, K around the step and its multiples.
#[test]
fn tails_equal_the_oracle() {
    every_family(|family, isa| {
        for m in [1, 4] {
            let Some(spec) = specs(family, isa, m, 64).into_iter().min_by_key(|s| s.nr) else {
                continue;
            };
            let (mr, nr, kr) = (spec.mr, spec.nr, spec.kr);
            for m in (1..=mr + 1).filter(|&m| m < 4 || m >= mr) {
                check(&spec, m, 3.min(nr), 2 * kr + 1, Data::Random);
            }
            for n in [1, nr - 1, nr, nr + 1, 2 * nr + 1] {
                check(&spec, 1, n, kr, Data::Random);
            }
            for k in [1, 2, kr - 1, kr, kr + 1, 3 * kr - 1, 5 * kr, 5 * kr + 3] {
                check(&spec, 1, 2, k, Data::Random);
            }
        }
    });
}

/// The largest sums that K columns can make, over and around every flush.
#[test]
fn extremes_equal_the_oracle() {
    every_family(|family, isa| {
        for m in [1, 4] {
            let Some(spec) = specs(family, isa, m, 64).into_iter().min_by_key(|s| s.nr) else {
                continue;
            };
            for k in [239, 256, 509, 1031] {
                for (w, x) in [(1, 127), (-1, 127), (1, -128), (-1, -128)] {
                    check(&spec, 1, 1, k, Data::Extreme(w, x));
                }
            }
        }
    });
}
