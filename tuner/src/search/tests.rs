//! The search against scripted machines: drift, outliers, wrong kernels, impossible times, a budget that ends.

use super::*;
use crate::space::Candidate;
use crate::space::model::{Case, Estimate};
use bitnet_codegen::{KernelSpec, Problem, Unsupported};
use bitnet_runtime::graph::Product;

/// A scripted machine: candidate `i` takes `ns[i]`, times a drift that grows with every timing.
struct Script {
    ns: Vec<f64>,
    drift: f64,
    outlier_every: usize,
    wrong: Option<usize>,
    missing: Option<usize>,
    /// What a second look at the machine says of the floor.
    floor_ns: Option<f64>,
    timed: Vec<usize>,
    foreseen: Vec<usize>,
}

impl Script {
    fn new(ns: &[f64]) -> Self {
        Self {
            ns: ns.to_vec(),
            drift: 0.0,
            outlier_every: usize::MAX,
            wrong: None,
            missing: None,
            floor_ns: None,
            timed: Vec::new(),
            foreseen: Vec::new(),
        }
    }
}

impl Bench for Script {
    fn foresee(&mut self, ids: &[usize]) {
        self.foreseen.extend(ids);
    }

    fn prepare(&mut self, id: usize) -> Result<(), Rejection> {
        if self.wrong == Some(id) {
            return Err(Rejection::Wrong(Mismatch {
                spec: spec(id),
                problem: Problem::new(1, 1, 1),
                token: 0,
                row: 0,
                got: 1.0,
                want: 2.0,
            }));
        }
        if self.missing == Some(id) {
            return Err(Unsupported::new(id, "no such instruction").into());
        }
        Ok(())
    }

    fn floor_ns(&mut self, _: usize, candidate: &Candidate) -> f64 {
        self.floor_ns.unwrap_or(candidate.estimate.floor_ns)
    }

    fn time(&mut self, id: usize) -> f64 {
        let turn = self.timed.len();
        self.timed.push(id);
        let outlier = if (turn + 1).is_multiple_of(self.outlier_every) {
            30.0
        } else {
            1.0
        };
        self.ns[id] * (1.0 + self.drift * turn as f64) * outlier
    }
}

/// Candidate `i` is panel height `i` in steps of 8, predicted `predicted[i]`, impossible below `floor`.
fn space(predicted: &[f64], floor_ns: f64) -> Space {
    let candidates = predicted.iter().enumerate().map(|(i, &ns)| Candidate {
        spec: spec(i),
        estimate: Estimate { ns, floor_ns },
        weight_bytes: 1,
    });
    let (n, k, groups) = (64, 64, None);
    let case = Case::new(Product { n, k, groups }, 1, 1, false);
    Space::of(case, candidates.collect())
}

fn spec(i: usize) -> KernelSpec {
    let (nr, u) = (8 * (1 + i % 40), i / 40);
    let text = format!("i2s-i2s-1x{nr}c16-avx2-u{u}");
    text.parse().expect("a spec")
}

fn play(script: &mut Script, space: Space, seeds: &[usize]) -> Outcome {
    let mut learner = Learner::default();
    let mut search = Search::new(space, 0, seeds, &mut learner);
    while search.end().is_none() {
        search.step(script, &mut learner);
    }
    search.outcome()
}

fn run(script: &mut Script, floor_ns: f64) -> Outcome {
    let flat = vec![20.0; script.ns.len()];
    play(script, space(&flat, floor_ns), &[])
}

#[test]
fn the_fastest_wins_despite_drift_and_outliers() {
    let mut s = Script::new(&[
        30.0, 20.0, 10.0, 11.0, 40.0, 25.0, 12.0, 50.0, 60.0, 35.0, 45.0,
    ]);
    s.drift = 0.0002;
    s.outlier_every = 9;
    let out = run(&mut s, 0.0);
    assert_eq!(out.winner().unwrap().spec, spec(2));
    assert_eq!(out.end, End::Complete);
    assert_eq!(out.trials.len(), 11, "every candidate keeps its evidence");
    assert!(out.winner().unwrap().summary.unwrap().samples >= ENOUGH);
}

#[test]
fn a_wrong_or_missing_candidate_is_never_timed() {
    // The wrong one would be the fastest: if it were timed it would win.
    let mut s = Script::new(&[30.0, 1.0, 2.0, 20.0]);
    s.wrong = Some(1);
    s.missing = Some(2);
    let out = run(&mut s, 0.0);
    assert_eq!(out.winner().unwrap().spec, spec(3));
    assert!(!s.timed.contains(&1) && !s.timed.contains(&2));
    let named: Vec<_> = out.suspects().collect();
    assert!(matches!(&named[..], [(s, Rejection::Wrong(_))] if **s == spec(1)));
}

/// Another process had a core while the peaks were measured: the machine can do more than it seemed.
#[test]
fn a_floor_that_was_too_high_is_looked_at_again() {
    let mut s = Script::new(&[30.0, 8.0, 12.0, 20.0]);
    s.floor_ns = Some(5.0);
    let out = run(&mut s, 25.0);
    assert_eq!(out.winner().unwrap().spec, spec(1));
    assert_eq!(out.suspects().count(), 0);
    s.floor_ns = Some(20.0);
    let out = run(&mut s, 25.0);
    assert_eq!(out.winner().unwrap().spec, spec(2));
    assert_eq!(out.suspects().count(), 1, "8 is still below half of 20");
}

#[test]
fn an_impossible_time_is_named_and_never_wins() {
    let mut s = Script::new(&[30.0, 1.0, 12.0, 20.0]);
    let out = run(&mut s, 10.0);
    assert_eq!(out.winner().unwrap().spec, spec(2));
    let named: Vec<_> = out.suspects().collect();
    assert!(matches!(&named[..], [(s, Rejection::Impossible { .. })] if **s == spec(1)));
    let text = named[0].1.to_string();
    assert!(
        text.contains("IMPOSSIBLE") && text.contains("5 ns") || text.contains("10 ns"),
        "{text}"
    );
}

#[test]
fn ties_are_decided_by_name_and_marked() {
    let ns = [10.05, 10.0, 10.1, 13.0];
    for seeds in [[0, 1, 2, 3], [3, 2, 1, 0]] {
        let mut s = Script::new(&ns);
        let out = play(&mut s, space(&[20.0; 4], 0.0), &seeds);
        assert_eq!(out.tied, 3);
        let least = (0..3).map(spec).min().unwrap();
        assert_eq!(out.winner().unwrap().spec, least);
        assert_eq!(out.runner_up().unwrap().spec, spec(3));
    }
}

#[test]
fn good_guesses_spare_looking_at_the_rest() {
    let ns: Vec<f64> = (0..400).map(|i| 100.0 + i as f64).collect();
    let mut s = Script::new(&ns);
    let out = play(&mut s, space(&ns, 0.0), &[]);
    assert!(out.winner().unwrap().summary.unwrap().median_ns <= 102.0);
    let mut looked: Vec<_> = s.timed.clone();
    looked.sort_unstable();
    looked.dedup();
    assert!(looked.len() < 80, "{} looked at", looked.len());
    assert!(!s.foreseen.is_empty());
}

#[test]
fn a_misled_model_is_put_right_by_what_is_timed() {
    // The model is wrong about u: it expects u0 to be fastest, and u9 is.
    let ns: Vec<f64> = (0..400)
        .map(|i| 500.0 - 30.0 * (i / 40) as f64 + (i % 40) as f64)
        .collect();
    let predicted: Vec<f64> = (0..400).map(|i| 200.0 + (i / 40) as f64).collect();
    let mut s = Script::new(&ns);
    let out = play(&mut s, space(&predicted, 0.0), &[]);
    let best = ns.iter().copied().fold(f64::INFINITY, f64::min);
    let won = out.winner().unwrap().summary.unwrap().median_ns;
    assert!(won <= 1.03 * best, "{won} of {best}");
}

#[test]
fn a_seed_that_is_best_is_found_at_once() {
    let mut ns = vec![100.0; 400];
    ns[333] = 50.0;
    let mut s = Script::new(&ns);
    let out = play(&mut s, space(&vec![20.0; 400], 0.0), &[333]);
    assert_eq!(s.timed[0], 333);
    assert_eq!(out.winner().unwrap().spec, spec(333));
}

#[test]
fn a_search_that_is_hurried_or_stopped_ends_with_what_is_known() {
    let ns: Vec<f64> = (0..400).map(|i| 400.0 - i as f64).collect();
    let mut s = Script::new(&ns);
    let mut learner = Learner::default();
    let mut search = Search::new(space(&vec![20.0; 400], 0.0), 0, &[], &mut learner);
    assert_eq!(search.promise(), 1.0);
    for _ in 0..5 {
        search.step(&mut s, &mut learner);
    }
    let promise = search.promise();
    assert!(promise > 0.0 && promise < 1.0);
    search.hurry(&mut s);
    while search.end().is_none() {
        search.step(&mut s, &mut learner);
    }
    assert!(search.outcome().winner().is_some());
    assert_eq!(
        search.outcome().trials.len(),
        5,
        "nobody else was looked at"
    );
    assert_eq!(search.promise(), 0.0);
    let mut early = Search::new(space(&vec![20.0; 400], 0.0), 1, &[], &mut learner);
    early.stop(End::Stopped);
    assert!(early.outcome().winner().is_none());
    assert_eq!(early.outcome().end, End::Stopped);
    let mut nobody = Script::new(&[]);
    assert!(run(&mut nobody, 0.0).winner().is_none());
}

#[test]
fn regret_is_what_trusting_the_model_would_cost() {
    let mut s = Script::new(&[12.0, 10.0, 15.0]);
    let out = play(&mut s, space(&[1.0, 2.0, 3.0], 0.0), &[]);
    let regret = out.regret(1).unwrap();
    assert!((regret - 0.2).abs() < 0.01, "{regret}");
    assert_eq!(out.regret(8), Some(0.0));
}
