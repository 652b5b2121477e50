//! Whole kernels of every family, every layout and every axis through [`KernelSet`], against the oracle.

use super::{emit, isas, listing, runnable};
use crate::isa::{Feature, Features, Isa};
use crate::kernel::{Kernel, KernelError, KernelSet};
use crate::spec::KernelSpec;
use crate::variant::tests::{Data, check_kernel, specs};
use crate::variant::{Unsupported, VARIANTS, plan};
use std::sync::Arc;

/// The kernel, or why it does not exist.
fn build(spec: &KernelSpec, k: usize, cpu: Features) -> Result<Arc<Kernel>, Unsupported> {
    match KernelSet::build(vec![plan(spec, k)?], cpu) {
        Ok(set) => Ok(Arc::clone(&set.kernels()[0])),
        Err(KernelError::Unsupported(why)) => Err(why),
        Err(bug) => panic!("{spec} k{k}: {bug}"),
    }
}

/// Runs `each` on every family and instruction set of this CPU. Returns how many it ran on.
fn every_family(each: impl Fn(&str, Isa, usize)) {
    for isa in runnable() {
        for (i, family) in VARIANTS.iter().enumerate() {
            if family.axes(isa, 1).is_ok() || family.axes(isa, 64).is_ok() {
                each(family.name(), isa, i);
            }
        }
    }
}

/// All values of all axes, one at a time, on one shape with tails in M, N and K.
/// What the registers do not hold is refused, with a count; the default of each layout must exist.
#[test]
fn axes_equal_the_oracle() {
    every_family(|name, isa, i| {
        for m in [1, 5, 40] {
            let mut ran = 0;
            for spec in specs(VARIANTS[i], isa, m, 100) {
                match build(&spec, 100, Features::detect()) {
                    Ok(kernel) => {
                        let n = spec.nr + spec.nr / 2 + 1;
                        check_kernel(&kernel, m.min(spec.mr + 1), n, Data::Random);
                        ran += 1;
                    }
                    Err(why) => assert!(why.why.to_string().contains("registers"), "{why}"),
                }
            }
            assert!(
                ran > 0 || VARIANTS[i].axes(isa, m).is_err(),
                "{name} on {isa} has no kernel for m{m}"
            );
        }
    });
}

/// The smallest spec of a family: its tails are near.
fn smallest(i: usize, isa: Isa, m: usize) -> Option<KernelSpec> {
    specs(VARIANTS[i], isa, m, 64)
        .into_iter()
        .filter(|s| build(s, 64, Features::detect()).is_ok())
        .min_by_key(|s| s.nr * s.mr)
}

/// Tokens from 1 to MR + 1, rows around the panel, K over every remainder of a step.
#[test]
fn tails_equal_the_oracle() {
    every_family(|_, isa, i| {
        for m in [1, 4, 40] {
            let Some(spec) = smallest(i, isa, m) else {
                continue;
            };
            let (mr, nr, kr) = (spec.mr, spec.nr, spec.kr);
            let some = build(&spec, 2 * kr + 1, Features::detect()).unwrap();
            for m in 1..=mr + 1 {
                check_kernel(&some, m, 3.min(nr), Data::Random);
            }
            for n in [1, nr - 1, nr, nr + 1, 2 * nr - 1, 2 * nr + 1] {
                check_kernel(&some, 1, n, Data::Random);
            }
            for k in (1..=kr + 1)
                .chain(3 * kr - 1..=3 * kr + 1)
                .chain([15 * kr - 1, 16 * kr + 3])
            {
                let kernel = build(&spec, k, Features::detect()).unwrap();
                check_kernel(&kernel, 1, nr + 1, Data::Random);
            }
        }
    });
}

/// The largest sums that K columns can make.
#[test]
fn extremes_equal_the_oracle() {
    every_family(|_, isa, i| {
        for m in [1, 40] {
            let Some(spec) = smallest(i, isa, m) else {
                continue;
            };
            for k in [239, 1031, 6912] {
                let kernel = build(&spec, k, Features::detect()).unwrap();
                for (w, x) in [(1, 127), (-1, 127), (1, -128), (-1, -128)] {
                    check_kernel(&kernel, 1, 1, Data::Extreme(w, x));
                }
            }
        }
    });
}

/// A lesser CPU gets other encodings of the same kernel, or a refusal; never an instruction that it lacks.
#[test]
fn masked_features_choose_other_encodings() {
    let cpu = Features::detect();
    let spec = KernelSpec::new("i2s", "i2s", 2, 16, 16, Isa::AvxVnni).with("f", 1);
    for lesser in [
        cpu,
        cpu.without(Feature::AvxVnni),
        cpu.without(Feature::Avx512Vnni),
        cpu.without(Feature::AvxVnni).without(Feature::Avx512Vnni),
        cpu.without(Feature::Avx2),
    ] {
        match build(&spec, 100, lesser) {
            Ok(kernel) => {
                assert!(spec.isa.runs_on(lesser));
                check_kernel(&kernel, 3, 17, Data::Random);
            }
            Err(why) => assert!(!spec.isa.runs_on(lesser), "{why}"),
        }
    }
}

#[test]
#[ignore = "prints the code of $SPEC for K = $K"]
fn listing_of_a_spec() {
    let spec: KernelSpec = std::env::var("SPEC").unwrap().parse().unwrap();
    assert!(isas().contains(&spec.isa), "{spec} is of another backend");
    let k = std::env::var("K").map_or(2560, |k| k.parse().unwrap());
    let plan = plan(&spec, k).unwrap();
    for p in plan.unpack.iter().chain(plan.main.first().map(|m| &m.1)) {
        println!("{}\n{}", p.name, listing(&emit(p, spec.isa).unwrap()));
    }
}
