//! The lab on this machine: what it rejects, and what it times.

use super::*;
use crate::space::Atlas;
use crate::space::model::tests::machine;
use bitnet_codegen::program::{Op, Program, Stmt};
use bitnet_codegen::{Isa, Plan, Problem, Unsupported, plan};

fn space(m: usize, n: usize, k: usize) -> Space {
    let cpu = Features::detect();
    let mut atlas = Atlas::new(Box::new(move |s| {
        s.isa.runs_on(cpu) && s.isa != Isa::Interp
    }));
    let case = Case {
        problem: Problem::new(m, n, k),
        threads: 1,
        cold: false,
    };
    atlas.space(case, &machine())
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
fn the_best_guess_of_every_family_is_exact_and_takes_time() {
    for m in [1, 33] {
        let space = space(m, 200, 320);
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
        assert!(seen.len() >= 5, "{seen:?}");
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
