//! Conformance: families × emitters × layouts × axes × shapes equal the oracle, bit for bit, on buffers that
//! end (or start) at a page without access. `BITNET_SPEC=<spec>` runs one spec alone, with every case.
//!
//! Longer than 500 lines: one list of what is compared, over one set of cases.
#![doc = include_str!("NOTES.md")]

mod algebra;
mod bare;
mod grid;
mod grouped;
mod guarded;
mod product;
mod rerun;

use bitnet_codegen::program::Checked;
use bitnet_codegen::space::{self, MODEL_SHAPES};
use bitnet_codegen::variant::VARIANTS;
use bitnet_codegen::{Feature, Features, Isa, KernelSpec, backend, plan};
use guarded::Edge;
use product::{Case, Data, Noise, build, check};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

fn paranoid() -> bool {
    std::env::var_os("BITNET_PARANOID").is_some()
}

/// The spec of `BITNET_SPEC`, if one is asked for. One that no kernel exists for fails: it would test nothing.
fn only() -> Option<KernelSpec> {
    let text = std::env::var("BITNET_SPEC").ok()?;
    let spec: KernelSpec = text.parse().unwrap_or_else(|e| panic!("BITNET_SPEC: {e}"));
    if let Err(why) = plan(&spec, spec.kr) {
        panic!("BITNET_SPEC: {why}");
    }
    Some(spec)
}

/// Says how many products were right, and fails if fewer than `least` were tried; a single spec that this
/// CPU cannot run is skipped aloud instead.
fn done(cases: usize, least: usize) {
    match only() {
        Some(spec) if !spec.isa.runs_on(Features::detect()) => {
            println!("SKIPPED: {spec} does not run on this CPU; it is emitted and proven");
        }
        Some(spec) => println!("{cases} products of {spec} equal the oracle"),
        None => {
            println!("{cases} products equal the oracle");
            assert!(
                cases >= least,
                "{cases} products, at least {least} expected"
            );
        }
    }
}

/// Runs `test` on every item, on all cores; returns the results in order.
fn on_all_cores<T: Sync, R: Send>(items: &[T], test: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let worker = || {
        let mut mine = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(i) else {
                return mine;
            };
            mine.push((i, test(item)));
        }
    };
    let mut results: Vec<(usize, R)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
            .collect()
    });
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, r)| r).collect()
}

/// Instruction sets that run on this CPU.
fn runnable() -> Vec<Isa> {
    let cpu = Features::detect();
    Isa::ALL
        .iter()
        .copied()
        .filter(|i| i.runs_on(cpu))
        .collect()
}

/// The smallest sets of features on which `isa` runs: two where it has two encodings.
fn least_features(isa: Isa, from: Features) -> Vec<Features> {
    let strip = |order: &mut dyn Iterator<Item = Feature>| {
        order.fold(from, |cpu, f| {
            let less = cpu.without(f);
            if isa.runs_on(less) { less } else { cpu }
        })
    };
    let mut all: Vec<Feature> = from.iter().collect();
    let forward = strip(&mut all.clone().into_iter());
    all.reverse();
    let backward = strip(&mut all.into_iter());
    let mut sets = vec![forward];
    if backward != forward {
        sets.push(backward);
    }
    sets
}

/// How much of the space a list of specs covers.
#[derive(Clone, Copy, PartialEq)]
enum Breadth {
    /// The default of each family and layout.
    Defaults,
    /// Each value of each axis at least once, the other axes at their defaults.
    EachValue,
    /// Every combination of axis values.
    Every,
}

/// Specs of `isa`: those that a search of 1, 2, 16 or 128 tokens meets.
fn specs(isa: Isa, breadth: Breadth) -> Vec<KernelSpec> {
    if let Some(spec) = only() {
        return if spec.isa == isa { vec![spec] } else { vec![] };
    }
    let mut seen = BTreeSet::new();
    for &family in VARIANTS {
        for m in [1, 2, 16, 128] {
            let Ok(axes) = family.axes(isa, m) else {
                continue;
            };
            let all = space::specs(family, isa, m).unwrap_or_default();
            if breadth == Breadth::Every {
                // Combinations that the family itself refuses do not exist.
                seen.extend(all.into_iter().filter(|s| plan(s, 640).is_ok()));
                continue;
            }
            for layout in family.layouts() {
                // The first that exists: a default may not fit a layout.
                let of_layout = || all.iter().filter(|s| s.layout == *layout);
                let Some(default) = of_layout().find(|s| plan(s, 640).is_ok()) else {
                    continue;
                };
                seen.insert(default.clone());
                if breadth == Breadth::Defaults {
                    continue;
                }
                for axis in &axes {
                    for &v in &axis.values {
                        let one = space::set(default, axis, v);
                        // Where the value does not fit the other defaults, any spec that has it.
                        if plan(&one, 640).is_ok() {
                            seen.insert(one);
                        } else {
                            let same = |s: &&KernelSpec| space::set(s, axis, v) == **s;
                            seen.extend(
                                of_layout()
                                    .filter(same)
                                    .find(|s| plan(s, 640).is_ok())
                                    .cloned(),
                            );
                        }
                    }
                }
            }
        }
    }
    seen.into_iter().collect()
}

/// M, N for one build: all sizes come round as `turn` counts up; the product stays affordable.
fn sizes(spec: &KernelSpec, k: usize, turn: usize) -> (usize, usize) {
    let (mr, nr) = (spec.mr, spec.nr);
    let ns = [1, nr - 1, nr, nr + 1, 2 * nr + 1, 1 + turn * 7 % (2 * nr)];
    let budget = if spec.isa == Isa::Interp {
        60_000
    } else {
        3 << 20
    };
    let m = 1 + turn % (mr + 1);
    let n = ns[turn % ns.len()].max(1);
    // Padded work is what a call costs.
    let cost = |m: usize, n: usize| m.next_multiple_of(mr.min(m)) * n.next_multiple_of(nr) * k;
    match (cost(m, n) <= budget, cost(m, nr) <= budget) {
        (true, _) => (m, n),
        (_, true) => (m, n.min(nr)),
        _ => (m.min(1 + turn % 3), n.min(nr)),
    }
}

fn edge(turn: usize) -> Edge {
    if turn.is_multiple_of(4) {
        Edge::Start
    } else {
        Edge::End
    }
}

/// The specs whose grids are run for `isa`: each value of each axis (`BITNET_PARANOID`: every combination), with
/// as many rows a panel as is affordable. The interpreter, an oracle itself and slow, runs one spec of each
/// family and layout (`BITNET_PARANOID`: each value).
fn grid_specs(isa: Isa) -> Vec<KernelSpec> {
    let breadth = match (isa, paranoid()) {
        (Isa::Interp, false) => Breadth::Defaults,
        (Isa::Interp, true) | (_, false) => Breadth::EachValue,
        (_, true) => Breadth::Every,
    };
    let mut all = specs(isa, breadth);
    if breadth == Breadth::Defaults {
        all.sort_by_key(|s| (s.variant.clone(), s.layout.clone(), s.mr));
        all.dedup_by_key(|s| (s.variant.clone(), s.layout.clone()));
    }
    let affordable: BTreeSet<KernelSpec> = all.iter().map(grid::affordable).collect();
    affordable.into_iter().collect()
}

/// M 1…MR+1 × N 1…2NR+1 × K over every remainder of one and several blocks, multiplied out, for each family,
/// layout and instruction set.
#[test]
fn every_shape_equals_the_oracle() {
    let mut work: Vec<KernelSpec> = runnable().into_iter().flat_map(grid_specs).collect();
    // The longest first, so that no core waits for another at the end.
    work.sort_by_cached_key(|s| Reverse(grid::cost(s)));
    let results = on_all_cores(&work, grid::run);
    let mut grids: BTreeMap<(&str, &str, Isa), usize> = BTreeMap::new();
    let (mut products, mut refused) = (0, 0);
    for (spec, result) in work.iter().zip(results) {
        match result {
            Ok(count) => {
                assert_eq!(count, grid::count(spec), "{spec}: the whole grid");
                products += count;
                *grids
                    .entry((&spec.variant, &spec.layout, spec.isa))
                    .or_default() += count;
            }
            Err(why) if only().is_some() => panic!("BITNET_SPEC: {why}"),
            Err(_) => refused += 1,
        }
    }
    if only().is_none() {
        for isa in runnable() {
            for family in VARIANTS {
                let exists = [1, 128].iter().any(|&m| family.axes(isa, m).is_ok());
                for layout in family.layouts().iter().filter(|_| exists) {
                    let products = grids.get(&(family.name(), *layout, isa)).copied();
                    assert!(
                        products >= Some(1000),
                        "{} of {layout} on {isa}: {products:?} products",
                        family.name()
                    );
                }
            }
        }
    }
    println!(
        "{} specs, {refused} of them refused by their emitter",
        work.len()
    );
    assert!(
        refused <= work.len() / 8,
        "{refused} of {} specs refused",
        work.len()
    );
    done(products, 10_000 * grids.len().max(1));
}

/// Every remainder of K, tails of M and N in turn, for the specs whose own grid is too large.
#[test]
fn large_panels_equal_the_oracle() {
    let mut work = Vec::new();
    for isa in runnable() {
        let breadth = match paranoid() && isa != Isa::Interp {
            true => Breadth::EachValue,
            false => Breadth::Defaults,
        };
        let large = |s: &KernelSpec| grid::affordable(s) != *s;
        work.extend(specs(isa, breadth).into_iter().filter(large).enumerate());
    }
    let cases = on_all_cores(&work, |(s, spec)| {
        let mut cases = 0;
        for (i, k) in grid::every_k(spec).into_iter().enumerate() {
            // The interpreter is slow: a third of the remainders.
            if spec.isa == Isa::Interp && i % 3 != s % 3 {
                continue;
            }
            let Some(kernel) = build(spec, k, Features::detect()) else {
                continue;
            };
            let (m, n) = sizes(spec, k, i + s);
            let data = Data::Random((k * 31 + s) as u64);
            let edge = edge(i);
            check(
                &kernel,
                &Case {
                    m,
                    n,
                    k,
                    data,
                    edge,
                },
            );
            cases += 1;
        }
        cases
    });
    done(cases.iter().sum(), 100);
}

/// Each value of each axis (`BITNET_PARANOID`: every combination), on a few K with awkward remainders.
#[test]
fn every_axis_value_equals_the_oracle() {
    let breadth = match paranoid() {
        true => Breadth::Every,
        false => Breadth::EachValue,
    };
    let mut work = Vec::new();
    for isa in runnable() {
        work.extend(specs(isa, breadth).into_iter().enumerate());
    }
    let cases = on_all_cores(&work, |(s, spec)| {
        let kr = spec.kr;
        let ks = [1, kr + 1 + s % kr, 640 + s % 7, 5 * kr - 1];
        let take = if spec.isa == Isa::Interp { 2 } else { 4 };
        let mut cases = 0;
        for (i, k) in ks.into_iter().enumerate().take(take) {
            let Some(kernel) = build(spec, k, Features::detect()) else {
                continue;
            };
            for turn in [s + i, spec.mr - 1 + 6 * s] {
                let (m, n) = sizes(spec, k, turn);
                let data = Data::Random((k * 17 + turn) as u64);
                let edge = edge(turn);
                check(
                    &kernel,
                    &Case {
                        m,
                        n,
                        k,
                        data,
                        edge,
                    },
                );
                cases += 1;
            }
        }
        cases
    });
    println!("{} specs", work.len());
    done(cases.iter().sum(), 500);
}

/// The same spec for a lesser CPU of the same instruction set: other encodings, same numbers.
#[test]
fn lesser_cpus_equal_the_oracle() {
    let mut cases = 0;
    for isa in runnable() {
        for cpu in least_features(isa, Features::detect()) {
            for (s, spec) in specs(isa, Breadth::Defaults).into_iter().enumerate() {
                for k in [spec.kr * 3 + 1 + s, 385] {
                    let Some(kernel) = build(&spec, k, cpu) else {
                        continue;
                    };
                    let (m, n) = sizes(&spec, k, s + k);
                    let data = Data::Random(k as u64);
                    check(
                        &kernel,
                        &Case {
                            m,
                            n,
                            k,
                            data,
                            edge: Edge::End,
                        },
                    );
                    cases += 1;
                }
            }
        }
    }
    done(cases, 10 * runnable().len());
}

/// All +1 and all −1 with the largest activations, −128 (which quantisation never makes) among them, zeros
/// and alternating signs, on the longest K of the models and around it.
#[test]
fn extremes_equal_the_oracle() {
    let longest = MODEL_SHAPES.iter().map(|(_, k)| *k).max().unwrap_or(1);
    let mut cases = 0;
    for isa in runnable() {
        for (s, spec) in specs(isa, Breadth::Defaults).into_iter().enumerate() {
            let ks = if isa == Isa::Interp {
                vec![2 * spec.kr + 1]
            } else {
                vec![longest, 2048 + spec.kr + 1]
            };
            for k in ks {
                let Some(kernel) = build(&spec, k, Features::detect()) else {
                    continue;
                };
                for (i, data) in extremes().into_iter().enumerate() {
                    // The two that overflow first on all; the others on one K only.
                    if k == longest && i >= 4 && !paranoid() {
                        continue;
                    }
                    let (m, n) = (1 + (i + s) % 2, 1 + (i % 2) * (spec.nr - 1));
                    check(
                        &kernel,
                        &Case {
                            m,
                            n,
                            k,
                            data,
                            edge: edge(i),
                        },
                    );
                    cases += 1;
                }
            }
        }
    }
    done(cases, 10 * runnable().len());
}

fn extremes() -> Vec<Data> {
    let mut all = Vec::new();
    for x in [-128, 127, -127, 0] {
        for w in [1, -1, 0] {
            if w != 0 || x == 127 {
                all.push(Data::Constant(w, x));
            }
        }
    }
    all.push(Data::Alternating);
    all
}

/// Every matrix shape of the published models, a sample of rows, on the best instruction sets of this CPU.
#[test]
fn model_shapes_equal_the_oracle() {
    let mut cases = 0;
    let isas: Vec<Isa> = runnable()
        .into_iter()
        .filter(|&i| i != Isa::Interp)
        .collect();
    let ks: BTreeSet<usize> = MODEL_SHAPES.iter().map(|(_, k)| *k).collect();
    for (a, &isa) in isas.iter().enumerate() {
        for (s, spec) in specs(isa, Breadth::Defaults).into_iter().enumerate() {
            for (i, &k) in ks.iter().enumerate() {
                // Each K meets each family, and each instruction set; not each pair in each run.
                if !paranoid() && only().is_none() && (a + s + i) % isas.len() > 1 {
                    continue;
                }
                let Some(kernel) = build(&spec, k, Features::detect()) else {
                    continue;
                };
                let m = if (s + i) % 2 == 0 { 1 } else { spec.mr.min(33) };
                let n = spec.nr.min(64 + i);
                let data = Data::Random((k + s) as u64);
                check(
                    &kernel,
                    &Case {
                        m,
                        n,
                        k,
                        data,
                        edge: Edge::End,
                    },
                );
                cases += 1;
            }
        }
    }
    done(cases, 10 * isas.len());
}

/// What this CPU cannot run is proven and emitted; the skip is counted aloud.
#[test]
fn foreign_instruction_sets_are_emitted_and_proven() {
    let cpu = Features::detect();
    let foreign = |i: &Isa| !i.runs_on(cpu);
    let every: Features = Feature::ALL.iter().copied().collect();
    let (mut programs, mut refused) = (0, 0);
    let mut names = Vec::new();
    for isa in Isa::ALL.iter().copied().filter(foreign) {
        let needs = least_features(isa, every)[0];
        let specs = specs(isa, Breadth::EachValue);
        if !specs.is_empty() {
            names.push(isa.name());
        }
        for (i, spec) in specs.into_iter().enumerate() {
            let k = [640, 2560, 77, 1][i % 4];
            // A spec asked for alone was found to exist for its own KR.
            let k = if only().is_some() { spec.kr } else { k };
            let Ok(plan) = plan(&spec, k) else { continue };
            for program in plan
                .unpack
                .into_iter()
                .chain(plan.main.into_iter().map(|p| p.1))
            {
                let proven = Checked::new(program)
                    .unwrap_or_else(|e| panic!("{e}\n{}", product::rerun(&spec)));
                let emitter = backend::for_isa(isa).unwrap_or_else(|e| panic!("{e}"));
                match emitter.emit(&proven, isa, needs) {
                    Ok(backend::Code::Machine(code)) => {
                        assert!(!code.is_empty(), "{spec} k{k} has no code");
                        programs += 1;
                    }
                    Ok(backend::Code::Interpreted(_)) => panic!("{spec}: interpreted on {isa}"),
                    Err(_) => refused += 1,
                }
            }
        }
    }
    if let Some(spec) = only().filter(|s| s.isa.runs_on(cpu)) {
        println!("{spec} runs on this CPU: nothing is foreign");
        return;
    }
    println!(
        "SKIPPED on this CPU: {programs} programs of {} are emitted and proven, not run; {refused} are refused",
        names.join(", ")
    );
    assert!(
        programs > refused,
        "{programs} programs emitted, {refused} refused"
    );
}

/// The generator of cases reaches what it says it does.
#[test]
fn sizes_come_round() {
    let spec = KernelSpec::new("i2s", "i2s", 4, 32, 16, Isa::Interp);
    let all: BTreeSet<_> = (0..200).map(|turn| sizes(&spec, 16, turn)).collect();
    for m in 1..=5 {
        assert!(all.iter().any(|c| c.0 == m), "M = {m}");
    }
    for n in [1, 31, 32, 33, 65] {
        assert!(all.iter().any(|c| c.1 == n), "N = {n}");
    }
    let mut noise = Noise(1);
    assert_ne!(noise.next(), noise.next());
}
