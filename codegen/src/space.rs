//! The space: every spec that the families offer for a problem, with the reason of each that does not exist.
//!
//! One place multiplies [`Variant::axes`] out; the search, the listing and the conformance suite read it here,
//! so that what is listed is what is searched is what is tested.

use crate::isa::Isa;
use crate::problem::Problem;
use crate::spec::Unsupported;
use crate::spec::{Axis, KernelSpec};
use crate::variant::groups::Groups;
use crate::variant::{self, VARIANTS, Variant};

/// One spec of the space.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The spec.
    pub spec: KernelSpec,
    /// Why it does not exist for the problem, if so: its values do not fit together.
    pub refused: Option<Unsupported>,
}

/// The space of one problem.
#[derive(Clone, Debug, Default)]
pub struct Space {
    /// Every combination of axis values, a family's defaults first.
    pub candidates: Vec<Candidate>,
    /// Families that do not run on an instruction set at all.
    pub absent: Vec<Unsupported>,
}

/// Everything that the families offer for `problem`, with `groups` of columns that have scales or without, on the
/// instruction sets that `wanted` keeps. Each candidate is planned, not emitted: a backend may still refuse it.
pub fn candidates(problem: Problem, groups: Option<Groups>, wanted: impl Fn(Isa) -> bool) -> Space {
    let mut space = Space::default();
    for &family in VARIANTS {
        for isa in Isa::ALL.iter().copied().filter(|&i| wanted(i)) {
            match of_product(family, isa, problem.m, groups) {
                Ok(specs) => space.candidates.extend(specs.into_iter().map(|spec| {
                    let refused = variant::plan(&spec, problem.k).err();
                    Candidate { spec, refused }
                })),
                Err(why) => space.absent.push(why),
            }
        }
    }
    space
}

/// Every combination of a family's axis values on `isa` for `m` tokens, the defaults first.
///
/// # Errors
/// Why the family does not run on `isa`.
pub fn specs(family: &dyn Variant, isa: Isa, m: usize) -> Result<Vec<KernelSpec>, Unsupported> {
    let axes = family.axes(isa, m)?;
    Ok(combinations(family, isa, &axes))
}

fn combinations(family: &dyn Variant, isa: Isa, axes: &[Axis]) -> Vec<KernelSpec> {
    let mut specs: Vec<KernelSpec> = family
        .layouts()
        .iter()
        .map(|layout| KernelSpec::new(family.name(), layout, 1, 1, 1, isa))
        .collect();
    for axis in axes {
        specs = specs
            .iter()
            .flat_map(|spec| axis.values.iter().map(|&v| set(spec, axis, v)))
            .collect();
    }
    specs
}

/// As [`specs`] for kernels that scale `groups` of columns themselves: a token is as many rows of activations as it
/// has planes, so a tile has that many fewer tokens.
///
/// # Errors
/// Why the family does not run on `isa`, or that it has no groups.
pub fn grouped_specs(
    family: &dyn Variant,
    isa: Isa,
    m: usize,
    groups: Groups,
) -> Result<Vec<KernelSpec>, Unsupported> {
    if !family.has_groups() {
        return Err(Unsupported::new(family.name(), "it has no group scales"));
    }
    let axes = family.grouped_axes(isa, m, groups.planes)?;
    let specs = combinations(family, isa, &axes).into_iter();
    Ok(specs.map(|spec| groups.name(spec)).collect())
}

/// [`grouped_specs`] where a product has groups, else [`specs`].
///
/// # Errors
/// As these.
pub fn of_product(
    family: &dyn Variant,
    isa: Isa,
    m: usize,
    groups: Option<Groups>,
) -> Result<Vec<KernelSpec>, Unsupported> {
    match groups {
        None => specs(family, isa, m),
        Some(groups) => grouped_specs(family, isa, m, groups),
    }
}

/// The spec with the axis set to `value`.
pub fn set(spec: &KernelSpec, axis: &Axis, value: u32) -> KernelSpec {
    let mut spec = spec.clone();
    match axis.name {
        "mr" => spec.mr = value as usize,
        "nr" => spec.nr = value as usize,
        "kr" => spec.kr = value as usize,
        knob => spec = spec.with(knob, value),
    }
    spec
}

/// The matrices (N, K) of the published ternary models: 2B-4T, large, 3B, Llama3-8B, Falcon3 (1B, 3B, 7B/10B),
/// Falcon-E (1B, 3B) and the embedding models. Every kernel is proven and tested on each.
pub const MODEL_SHAPES: &[(usize, usize)] = &[
    (2560, 2560),
    (640, 2560),
    (6912, 2560),
    (2560, 6912),
    (1536, 1536),
    (4096, 1536),
    (1536, 4096),
    (3200, 3200),
    (8640, 3200),
    (3200, 8640),
    (4096, 4096),
    (1024, 4096),
    (14336, 4096),
    (4096, 14336),
    (2048, 2048),
    (1024, 2048),
    (8192, 2048),
    (2048, 8192),
    (3072, 3072),
    (1024, 3072),
    (9216, 3072),
    (3072, 9216),
    (23040, 3072),
    (3072, 23040),
    (256, 2048),
    (9216, 2048),
    (2048, 9216),
    (13312, 2048),
    (2048, 13312),
    (2048, 1024),
    (1024, 1024),
    (3072, 1024),
    (1024, 640),
    (256, 640),
    (640, 1024),
    (2048, 640),
    (640, 2048),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{Checked, Operand};
    use std::collections::BTreeSet;

    /// K of every model, the longest first.
    fn model_ks() -> Vec<usize> {
        let ks: BTreeSet<usize> = MODEL_SHAPES.iter().map(|(_, k)| *k).collect();
        ks.into_iter().rev().collect()
    }

    /// Whether at most one axis is off its default.
    fn is_near(spec: &KernelSpec, axes: &[Axis], default: &KernelSpec) -> bool {
        let off = |a: &&Axis| match a.name {
            "mr" => spec.mr != default.mr,
            "nr" => spec.nr != default.nr,
            "kr" => spec.kr != default.kr,
            knob => spec.knobs.get(knob) != default.knobs.get(knob),
        };
        axes.iter().filter(off).count() <= 1
    }

    /// The programs of the space are proven: every spec on every instruction set for the longest K, and
    /// those next to a default for every K of the models. `BITNET_PARANOID=1` proves every spec for every K.
    #[test]
    fn every_program_of_the_space_is_proven() {
        let paranoid = std::env::var_os("BITNET_PARANOID").is_some();
        let ks = model_ks();
        let (mut plans, mut programs, mut failures) = (0, 0, Vec::new());
        let mut seen = BTreeSet::new();
        for m in [1, 2, 16, 128] {
            for &family in VARIANTS {
                for &isa in Isa::ALL {
                    let Ok(axes) = family.axes(isa, m) else {
                        continue;
                    };
                    let specs = specs(family, isa, m).unwrap_or_default();
                    for spec in &specs {
                        if !seen.insert(spec.clone()) {
                            continue;
                        }
                        let all = paranoid || is_near(spec, &axes, &specs[0]);
                        let ks = if all { &ks[..] } else { &ks[..1] };
                        for &k in ks {
                            let Ok(plan) = variant::plan(spec, k) else {
                                break;
                            };
                            plans += 1;
                            for o in [Operand::Scratch0, Operand::Scratch1] {
                                let mut keeps = plan.main.iter().map(|(_, p)| p.keeps_zero(o));
                                let first = keeps.next();
                                // They share the memory: what one leaves, another must not take for zeros.
                                assert!(keeps.all(|k| Some(k) == first), "{spec}: {o:?}");
                            }
                            let main = plan.main.into_iter().map(|(_, p)| p);
                            for program in plan.unpack.into_iter().chain(main) {
                                programs += 1;
                                failures.extend(Checked::new(program).err());
                            }
                        }
                    }
                }
            }
        }
        println!("{programs} programs of {plans} plans proven");
        assert!(
            failures.is_empty(),
            "{} of {programs} programs fail; first: {}",
            failures.len(),
            failures[0]
        );
    }
}
