//! The lab on this machine: what it rejects, and what it times.

use super::*;
use crate::space::Atlas;
use crate::space::model::tests::machine;
use bitnet_codegen::layout::scales::{GroupScales, Stored};
use bitnet_codegen::program::{Op, Program, Stmt};
use bitnet_codegen::{Isa, Plan, Unsupported, plan};
use bitnet_runtime::graph::Product;

fn space(m: usize, n: usize, k: usize) -> Space {
    space_of(Product { n, k, groups: None }, m)
}

fn space_of(product: Product, m: usize) -> Space {
    let cpu = Features::detect();
    let mut atlas = Atlas::new(Box::new(move |s| {
        s.isa.runs_on(cpu) && s.isa != Isa::Interp
    }));
    atlas.space(Case::new(product, m, 1, false), &machine())
}

/// Adds Σx where it should be subtracted.
fn planted(spec: &KernelSpec, k: usize) -> Result<Plan, Unsupported> {
    fn turn(program: &mut Program) {
        for stmt in &mut program.body {
            if let Stmt::Let(_, op) = stmt
                && let Op::Sub32(a, b) = *op
            {
                *op = Op::Add32(a, b);
            }
        }
    }
    let mut plan = plan(spec, k)?;
    if spec.variant == "i2s" {
        plan.main.iter_mut().for_each(|(_, p)| turn(p));
    }
    Ok(plan)
}

#[test]
fn a_planted_wrong_kernel_is_rejected_by_name() {
    let space = space(1, 70, 256);
    let mut lab = Lab::new(Features::detect(), planted, 1, 1 << 20);
    let job = lab.open(&space).expect("a thread");
    let of = |family: &str| {
        let all = space.candidates().iter();
        all.enumerate().find(|(_, c)| c.spec.variant == family)
    };
    let (bad, candidate) = of("i2s").expect("i2s runs everywhere");
    let rejection = lab.bench(job).prepare(bad).expect_err("it is wrong");
    let text = rejection.to_string();
    assert!(matches!(rejection, Rejection::Wrong(_)), "{text}");
    assert!(text.contains(&candidate.spec.to_string()), "{text}");
    let (good, _) = of("tl1").expect("tl1 runs everywhere");
    lab.bench(job).prepare(good).expect("the others are exact");
}

#[test]
fn a_planted_wrong_kernel_with_groups_is_rejected_by_name() {
    let (k, stored, planes) = (64, Stored::F16, 2);
    let scales = GroupScales { k, stored };
    let groups = Some(Groups { scales, planes });
    // The last group is shorter, so that it stands outside of the loop.
    let (n, k) = (70, 220);
    let space = space_of(Product { n, k, groups }, 1);
    let mut lab = Lab::new(Features::detect(), planted, 1, 1 << 20);
    let job = lab.open(&space).expect("a thread");
    let of = |family: &str| {
        let all = space.candidates().iter();
        all.enumerate().find(|(_, c)| c.spec.variant == family)
    };
    let (bad, candidate) = of("i2s").expect("i2s has groups");
    let text = lab
        .bench(job)
        .prepare(bad)
        .expect_err("it is wrong")
        .to_string();
    let name = candidate.spec.to_string();
    assert!(
        text.contains("WRONG RESULT") && text.contains(&name),
        "{text}"
    );
    let (good, _) = of("dense").expect("dense has groups");
    lab.bench(job).prepare(good).expect("the others are exact");
}

/// Without groups, and with groups of one plane and of two.
fn kinds() -> [Option<Groups>; 3] {
    let of = |k, stored, planes| {
        let scales = GroupScales { k, stored };
        Some(Groups { scales, planes })
    };
    [None, of(128, Stored::F16, 2), of(64, Stored::F32, 1)]
}

#[test]
fn the_best_guess_of_every_family_is_exact_and_takes_time() {
    for (groups, m) in kinds().into_iter().flat_map(|g| [(g, 1), (g, 33)]) {
        let (n, k) = (200, 320);
        let space = space_of(Product { n, k, groups }, m);
        let mut lab = Lab::new(Features::detect(), plan, 2, 1 << 20);
        let job = lab.open(&space).expect("a thread");
        let mut seen: Vec<&str> = Vec::new();
        for (id, c) in space.candidates().iter().enumerate() {
            if seen.contains(&c.spec.variant.as_str()) {
                continue;
            }
            let mut bench = lab.bench(job);
            match bench.prepare(id) {
                Ok(()) => {
                    let ns = bench.time(id);
                    assert!(ns > 0.0 && ns.is_finite());
                    bench.release(id);
                    bench.prepare(id).expect("again");
                    seen.push(&c.spec.variant);
                }
                Err(e) if !e.is_suspect() => {}
                Err(e) => panic!("{}: {e}", c.spec),
            }
        }
        let known = if groups.is_some() { 3 } else { 5 };
        assert!(seen.len() >= known, "{seen:?} with {groups:?}");
    }
}

#[test]
fn verdicts_need_no_timing() {
    let mut lab = Lab::new(Features::NONE, planted, 1, 1 << 20);
    lab.open(&space(1, 64, 64)).expect("a thread");
    let spec = |text: &str| text.parse::<KernelSpec>().expect("a spec");
    let wrong = lab.verify(&spec("i2s-i2s-1x8c16-interp-f1-u1"), 100);
    assert!(matches!(wrong, Err(Rejection::Wrong(_))), "{wrong:?}");
    assert_eq!(lab.verify(&spec("tl1-tl1-1x64c4-interp-u1"), 100), Ok(()));
}
