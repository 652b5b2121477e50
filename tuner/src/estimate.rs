//! Profiles that nobody measured: what the cost model expects most of on a described machine.
//!
//! Of each product the best guess goes in that can be had: its programs proven, its code emitted for that machine's
//! instruction set. Times are expected ones, and the profile says so. Another machine's kernel cannot run here, but its
//! programs can, by the interpreter ([`crate::lab::interpreted`]).

use crate::bound;
use crate::described::Described;
use crate::space::model::Case;
use crate::space::{Atlas, Candidate, LOOSE_KNOBS, Space};
use crate::tuning::today;
use bitnet_codegen::program::Checked;
use bitnet_codegen::{Features, Isa, KernelSpec, backend, plan, variant};
use bitnet_runtime::graph::Product;
use bitnet_runtime::profile::{Entry, Evidence, GENERATOR, M_BUCKETS, MBucket, Profile};

/// Candidates that are tried before a product is left without an entry.
const TRIED: usize = 200;

/// The profile of `machine` for `products` and `buckets` (indices into [`M_BUCKETS`]); `cold` says whether
/// decoding streams the weights from memory. `told` hears of every entry.
pub fn profile(
    machine: &Described,
    products: &[Product],
    buckets: &[usize],
    cold: bool,
    told: &mut dyn FnMut(&Entry),
) -> Profile {
    let features = machine.features;
    let keep = move |s: &KernelSpec| s.isa != Isa::Interp && s.isa.runs_on(features);
    let mut atlas = Atlas::new(Box::new(keep));
    let mut profile = Profile {
        generator: GENERATOR.into(),
        date: today(),
        is_estimate: true,
        host: machine.record(),
        costs: machine.named_costs(),
        ..Profile::default()
    };
    for &threads in &machine.threads {
        for &bucket in buckets {
            for &product in products {
                let case = Case::new(product, M_BUCKETS[bucket].first, threads, cold);
                let space = atlas.space(case, &machine.costs);
                if let Some(best) = best(&space, features) {
                    let entry = entry(machine, case, M_BUCKETS[bucket], best);
                    told(&entry);
                    profile.entries.push(entry);
                }
            }
        }
    }
    profile
}

/// The best guess that can be had on a CPU of `features`, which need not be this one.
pub fn best(space: &Space, features: Features) -> Option<&Candidate> {
    let k = space.case.problem.k;
    let first = space.candidates().iter().take(TRIED);
    first
        .map(|c| with_defaults(space, c))
        .find(|c| can_be_had(&c.spec, k, features))
}

/// The candidate that has the family's default for every knob that the cost model does not see.
fn with_defaults<'s>(space: &'s Space, candidate: &'s Candidate) -> &'s Candidate {
    let (spec, m) = (&candidate.spec, space.case.problem.m);
    let axes = variant::by_name(&spec.variant).and_then(|v| match space.case.groups {
        None => v.axes(spec.isa, m),
        Some(groups) => v.grouped_axes(spec.isa, m, groups.planes),
    });
    let mut usual = spec.clone();
    for axis in axes.into_iter().flatten() {
        if LOOSE_KNOBS.contains(&axis.name)
            && let Some(&value) = axis.values.first()
        {
            usual = usual.with(axis.name, value);
        }
    }
    let id = space.find(&usual);
    id.map_or(candidate, |id| &space.candidates()[id])
}

/// Whether the kernel's programs are proven and code is emitted for a CPU of `features`, which need not be this one.
fn can_be_had(spec: &KernelSpec, k: usize, features: Features) -> bool {
    let (Ok(plan), Ok(backend)) = (plan(spec, k), backend::for_isa(spec.isa)) else {
        return false;
    };
    let mut programs = plan
        .unpack
        .into_iter()
        .chain(plan.main.into_iter().map(|(_, p)| p));
    programs.all(|program| {
        let checked = Checked::new(program);
        checked.is_ok_and(|checked| backend.emit(&checked, spec.isa, features).is_ok())
    })
}

fn entry(machine: &Described, case: Case, bucket: MBucket, best: &Candidate) -> Entry {
    let (ns, problem) = (best.estimate.ns, case.problem);
    let peaks = machine.peaks(case.threads);
    let floor = bound::floor(case.macs(), best.weight_bytes, case.cold, peaks);
    Entry {
        n: problem.n,
        k: problem.k,
        bucket,
        spec: best.spec.clone(),
        evidence: Evidence {
            m: problem.m,
            threads: case.threads,
            cold: case.cold,
            median_ns: ns,
            predicted_ns: ns,
            gb_per_s: best.weight_bytes as f64 / ns,
            gmac_per_s: case.macs() as f64 / ns,
            roofline_fraction: bound::fraction(floor, ns),
            end: "estimate".into(),
            ..Evidence::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::described::tests::LAPTOP;
    use bitnet_codegen::Groups;
    use bitnet_codegen::layout::scales::{GroupScales, Stored};
    use bitnet_runtime::profile::{parse, render};

    #[test]
    fn a_described_machine_gets_kernels_that_it_can_run() {
        let machine = Described::parse(LAPTOP).expect("a description");
        let mut told = 0;
        let scales = GroupScales {
            k: 128,
            stored: Stored::F16,
        };
        let kinds = [None, Some(Groups { scales, planes: 2 })];
        let (n, k) = (256, 256);
        let products = kinds.map(|groups| Product { n, k, groups });
        let made = profile(&machine, &products, &[0, 7], true, &mut |_| told += 1);
        assert_eq!((made.entries.len(), told), (8, 8));
        for e in &made.entries {
            assert!(e.spec.isa.runs_on(machine.features), "{}", e.spec);
            let v = &e.evidence;
            assert!(v.samples == 0 && v.timed == 0 && v.median_ns > 0.0, "{v:?}");
        }
        let read = parse(&render(&made)).expect("own output");
        assert!(read.is_estimate);
        assert_eq!(read.entries, made.entries);
        assert!(render(&made).contains("nothing here was measured"));
    }
}
