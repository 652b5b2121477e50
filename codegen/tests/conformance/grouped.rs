//! Kernels with group scales: families × emitters × axes × groups × planes × shapes equal the f32 oracle in every
//! bit, on guarded buffers.

use crate::guarded::{Edge, Guarded, name_faults};
use crate::product::{Noise, build, rerun};
use crate::{edge, on_all_cores, runnable};
use bitnet_codegen::layout::scales::{GroupScales, Stored};
use bitnet_codegen::program::Checked;
use bitnet_codegen::space;
use bitnet_codegen::trit::{Scales, TritError};
use bitnet_codegen::variant::VARIANTS;
use bitnet_codegen::{
    Feature, Features, GroupedActs, Groups, Isa, Kernel, KernelSpec, TernaryMatrix, backend,
    oracle, plan,
};
use std::collections::BTreeSet;

/// A matrix whose groups have random scales, halves or not.
fn matrix(
    noise: &mut Noise,
    (n, k): (usize, usize),
    groups: Groups,
    extreme: bool,
) -> TernaryMatrix {
    let count = n * groups.count(k);
    let scales = (0..count).map(|_| match groups.scales.stored {
        Stored::F16 => (1 + noise.below(2000)) as f32 / 4096.0,
        Stored::F32 => (1 + noise.below(1 << 24)) as f32 * 1e-7,
    });
    let scales = Scales::Group {
        group_k: groups.scales.k,
        scales: scales.collect(),
    };
    TernaryMatrix::from_rows(n, k, scales, |_, row| {
        row.fill_with(|| if extreme { 2 } else { noise.below(3) as u8 });
        Ok::<_, TritError>(())
    })
    .expect("codes and scales")
}

/// Tokens whose codes are random or the least that bytes hold.
fn tokens(noise: &mut Noise, (m, k): (usize, usize), groups: Groups, extreme: bool) -> GroupedActs {
    let mut acts = GroupedActs::default();
    acts.reshape(m, k, groups.scales.k, groups.planes);
    for row in acts.q.chunks_exact_mut(acts.k_padded) {
        // What pads a row is anybody's: it must not matter.
        row.fill_with(|| if extreme { -128 } else { noise.next() as i8 });
    }
    let count = acts.groups();
    for t in 0..m {
        for g in 0..count {
            let from = g * acts.group_k;
            let columns = from..(from + acts.group_k).min(k);
            acts.sums[t * count + g] = columns.map(|c| acts.code(t, c)).sum();
            acts.scales[t * count + g] = (1 + noise.below(1 << 20)) as f32 * 1e-5;
        }
    }
    acts
}

/// The product through `kernel`, every buffer at `edge` of its mapping.
fn product(kernel: &Kernel, w: &TernaryMatrix, acts: &GroupedActs, edge: Edge) -> Vec<f32> {
    let (panel, n, count) = (kernel.panel(), w.n(), acts.groups());
    let nr = panel.shape.nr;
    let mut scratch = kernel.scratch();
    let mut packed = Guarded::zeroed(panel.bytes(), edge);
    let mut y = vec![f32::NAN; acts.m * n];
    for p in 0..panel.count(n) {
        panel.pack(w, p, packed.bytes_mut());
        kernel.load_panel(packed.bytes(), &mut scratch);
        for (first, mr) in kernel.tiles(acts.m) {
            let here = mr.min(acts.m - first);
            let mut x = Guarded::zeroed(mr * acts.planes * acts.k_padded, edge);
            for (to, &from) in x.bytes_mut().iter_mut().zip(acts.rows(first, here)) {
                *to = from as u8;
            }
            let mut sums = vec![0; mr * count];
            let mut scales = vec![0.0; mr * count];
            sums[..here * count].copy_from_slice(&acts.sums[first * count..][..here * count]);
            scales[..here * count].copy_from_slice(&acts.scales[first * count..][..here * count]);
            let mut out = vec![f32::NAN; kernel.out_len(mr)];
            kernel.run_grouped(
                mr,
                packed.bytes(),
                x.bytes(),
                (&sums, &scales),
                &mut scratch,
                &mut out,
            );
            for t in 0..here {
                for r in 0..nr.min(n - p * nr) {
                    y[(first + t) * n + p * nr + r] = out[kernel.out_order().index(t, r, mr, nr)];
                }
            }
        }
    }
    y
}

/// Compares one product with the oracle.
fn check(kernel: &Kernel, (m, n): (usize, usize), seed: u64, edge: Edge) {
    let (spec, k) = (kernel.spec(), kernel.k());
    let groups = kernel.groups().expect("a kernel with groups");
    let mut noise = Noise(seed);
    let extreme = seed.is_multiple_of(5);
    let w = matrix(&mut noise, (n, k), groups, extreme);
    let acts = tokens(&mut noise, (m, k), groups, extreme);
    let text = format!(
        "\n{spec} leaves its operands: m{m} n{n} k{k}\n{}\n",
        rerun(spec)
    );
    let got = name_faults(&text, || product(kernel, &w, &acts, edge));
    let want = oracle::matmul_grouped(&w, &acts);
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        assert!(
            got.to_bits() == want.to_bits(),
            "{spec} m{m} n{n} k{k}: token {} row {}: got {got:e}, the oracle says {want:e}\n{}",
            i / n,
            i % n,
            rerun(spec)
        );
    }
}

/// Groups that are tried: the sizes of the formats, both ways to store scales, one plane and two.
fn every_groups() -> Vec<Groups> {
    [
        (64, Stored::F16, 1),
        (64, Stored::F32, 2),
        (128, Stored::F16, 2),
        (128, Stored::F32, 1),
        (32, Stored::F16, 2),
        (256, Stored::F16, 2),
    ]
    .map(|(k, stored, planes)| Groups {
        scales: GroupScales { k, stored },
        planes,
    })
    .into()
}

/// Every value of every axis, the others at their defaults, and the defaults of 1, 2, 16 and 128 tokens.
fn specs(isa: Isa, groups: Groups) -> Vec<KernelSpec> {
    if let Some(spec) = crate::only() {
        let mine = spec.isa == isa && Groups::of(&spec).ok().flatten() == Some(groups);
        return if mine { vec![spec] } else { vec![] };
    }
    let mut seen = BTreeSet::new();
    for &family in VARIANTS.iter().filter(|v| v.has_groups()) {
        for m in [1, 2, 16, 128] {
            let Ok(all) = space::grouped_specs(family, isa, m, groups) else {
                continue;
            };
            let exists = |s: &&KernelSpec| plan(s, groups.scales.k).is_ok();
            let Some(default) = all.iter().find(exists) else {
                continue;
            };
            let off = |s: &KernelSpec| {
                let knobs = s
                    .knobs
                    .iter()
                    .filter(|(k, v)| default.knobs.get(*k) != Some(v));
                usize::from(s.mr != default.mr) + usize::from(s.nr != default.nr) + knobs.count()
            };
            seen.extend(all.iter().filter(|s| off(s) <= 1).filter(exists).cloned());
        }
    }
    seen.into_iter().collect()
}

#[test]
fn every_grouped_kernel_equals_the_f32_oracle() {
    let mut work = Vec::new();
    for isa in runnable() {
        for groups in every_groups() {
            work.extend(specs(isa, groups));
        }
    }
    let counts = on_all_cores(&work, |spec| {
        let g = Groups::of(spec).expect("knobs").expect("groups").scales.k;
        let slow = spec.isa == Isa::Interp;
        let ks = [
            1,
            15,
            g - 1,
            g,
            g + 1,
            2 * g,
            2 * g + 17,
            3 * g + g / 2,
            5 * g,
        ];
        let mut count = 0;
        for (i, k) in ks
            .into_iter()
            .enumerate()
            .filter(|(i, _)| !slow || i % 3 == 1)
        {
            let Some(kernel) = build(spec, k, Features::detect()) else {
                continue;
            };
            let (mr, nr) = (spec.mr, spec.nr);
            let shapes = [
                (1, 1),
                (mr, nr),
                (mr + 1, nr + 1),
                (2, nr - 1),
                (1 + i % mr, 2 * nr + 1),
            ];
            let take = if slow { 2 } else { shapes.len() };
            for (j, shape) in shapes.into_iter().enumerate().take(take) {
                check(&kernel, shape, (k * 7 + j) as u64, edge(i + j));
                count += 1;
            }
        }
        count
    });
    let built = counts.iter().filter(|&&c| c > 0).count();
    println!(
        "{} specs, {} of them refused",
        work.len(),
        work.len() - built
    );
    if crate::only().is_none() {
        for isa in runnable() {
            for family in VARIANTS.iter().filter(|v| v.has_groups()) {
                for groups in every_groups() {
                    let ran = work.iter().zip(&counts).any(|(s, &count)| {
                        let same = Groups::of(s).ok().flatten() == Some(groups);
                        same && s.isa == isa && s.variant == family.name() && count > 0
                    });
                    // Without a dot product, pairs of 256 columns do not fit their i16.
                    let wide = groups.scales.k == 256 && !isa.has_dot();
                    assert!(
                        ran || wide,
                        "{} on {isa} with {groups:?} never ran",
                        family.name()
                    );
                }
            }
        }
    }
    crate::done(counts.iter().sum(), 1000);
}

/// Every M, N and K around a tile, a panel and three groups, for the default of each family and emitter.
#[test]
fn every_small_shape_with_groups_equals_the_f32_oracle() {
    let mut work = Vec::new();
    for isa in runnable().into_iter().filter(|&i| i != Isa::Interp) {
        for groups in every_groups().into_iter().take(4) {
            let mut all = specs(isa, groups);
            all.sort_by_key(|s| (s.variant.clone(), s.mr * s.nr));
            all.dedup_by_key(|s| s.variant.clone());
            work.extend(all);
        }
    }
    let counts = on_all_cores(&work, |spec| {
        let g = Groups::of(spec).expect("knobs").expect("groups").scales.k;
        let mut count = 0;
        for k in (1..=g + 1)
            .step_by(3)
            .chain(2 * g - 20..=2 * g + 20)
            .chain([3 * g])
        {
            let Some(kernel) = build(spec, k, Features::detect()) else {
                continue;
            };
            for m in 1..=spec.mr + 1 {
                for n in [1, spec.nr - 1, spec.nr, spec.nr + 1] {
                    check(
                        &kernel,
                        (m, n),
                        (k * 31 + m * 7 + n) as u64,
                        edge(k + m + n),
                    );
                    count += 1;
                }
            }
        }
        count
    });
    crate::done(counts.iter().sum(), 1000);
}

/// What this CPU cannot run is proven and emitted for every group, too; the longest K of the models among others.
#[test]
fn foreign_grouped_kernels_are_emitted_and_proven() {
    let cpu = Features::detect();
    let every: Features = Feature::ALL.iter().copied().collect();
    let mut programs = 0;
    for isa in Isa::ALL.iter().copied().filter(|i| !i.runs_on(cpu)) {
        let needs = crate::least_features(isa, every)[0];
        let emitter = backend::for_isa(isa).unwrap_or_else(|e| panic!("{e}"));
        let mut emitted = BTreeSet::new();
        for groups in every_groups() {
            for (i, spec) in specs(isa, groups).into_iter().enumerate() {
                let k = [640, 12_288, 77, 2048][i % 4];
                let Ok(plan) = plan(&spec, k) else { continue };
                let main = plan.main.into_iter().map(|(_, program)| program);
                for program in plan.unpack.into_iter().chain(main) {
                    let proven = Checked::new(program);
                    let proven = proven.unwrap_or_else(|e| panic!("{e}\n{}", rerun(&spec)));
                    // Out of registers is an answer.
                    if emitter.emit(&proven, isa, needs).is_ok() {
                        emitted.insert((spec.variant.clone(), groups.scales.k, groups.planes));
                        programs += 1;
                    }
                }
            }
        }
        let families = VARIANTS.iter().filter(|v| v.has_groups()).count();
        let least = if isa.has_dot() { 6 } else { 5 };
        assert!(
            crate::only().is_some() || emitted.len() >= families * least - families,
            "{isa}: {emitted:?}"
        );
    }
    println!("{programs} programs of foreign instruction sets");
}

#[test]
fn knobs_that_make_no_sense_are_refused_with_a_reason() {
    for (text, want) in [
        ("i2s-i2s-1x16c16-interp-g100", "groups of 100"),
        ("i2s-i2s-1x16c16-interp-g512", "groups of 512"),
        ("i2s-i2s-1x16c16-interp-g64-s8", "scales of 8 bits"),
        ("i2s-i2s-1x16c16-interp-g64-p3", "3 planes"),
        ("i2s-i2s-1x16c16-interp-p2", "there is no g"),
        ("tl1-tl1-1x64c8-ssse3-g64", "no group scales"),
    ] {
        let spec: KernelSpec = text.parse().expect("a name");
        let Err(why) = plan(&spec, 256) else {
            panic!("{text} exists");
        };
        assert!(why.to_string().contains(want), "{text}: {why}");
    }
}
