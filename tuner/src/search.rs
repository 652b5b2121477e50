//! The search: which of many exact candidates is fastest, for the least time on the clock.
//!
//! Candidates are verified before they are timed, timed in turn so that drift of the machine meets all alike,
//! and thinned out in rounds; the last few are timed longest, and the winner is chosen among those alone,
//! because the others hold less evidence. It ends early when the winner stands at the roofline.
//! The machine is behind the [`Bench`] trait, so the search is tested against a scripted clock.

use crate::sampler::{Samples, Summary};
use bitnet_codegen::backend::NoBackend;
use bitnet_codegen::program::CheckError;
use bitnet_codegen::{KernelSpec, Problem, Unsupported};
use std::time::Duration;

/// A machine that can verify and time candidates.
pub trait Bench {
    /// What is compared.
    type Candidate: Clone;

    /// Builds a candidate and compares it with the oracle. An error is its reason to be left out.
    ///
    /// # Errors
    /// [`Rejection`].
    fn prepare(&mut self, candidate: &Self::Candidate) -> Result<(), Rejection>;

    /// Times one run of a prepared candidate, in nanoseconds.
    fn time(&mut self, candidate: &Self::Candidate) -> f64;

    /// The time that no candidate should undercut, if known.
    fn floor_ns(&self, candidate: &Self::Candidate) -> Option<f64>;

    /// Time spent so far.
    fn elapsed(&self) -> Duration;

    /// Whether the user asked to stop.
    fn stopped(&self) -> bool;
}

/// Why a candidate is not timed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// It does not exist on this machine.
    #[error("unsupported: {0}")]
    Unsupported(#[from] Unsupported),
    /// This build emits nothing for its instruction set.
    #[error("unsupported: {0}")]
    NoBackend(#[from] NoBackend),
    /// There is no memory for its code.
    #[error("unsupported: {0}")]
    Memory(String),
    /// Its program could not be proven: a bug, kept as evidence, never used.
    #[error("WRONG RESULT: {0}")]
    Unproven(#[from] CheckError),
    /// Its result differs from the oracle: a bug, kept as evidence, never used.
    #[error("WRONG RESULT: {0}")]
    Wrong(Mismatch),
}

/// The first result that differs from the oracle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{spec}: y[{token}][{row}] = {got}, the oracle says {want}; rerun: bitnet-tune kernel --m {} --n {} --k {} --spec {spec}",
    problem.m, problem.n, problem.k
)]
pub struct Mismatch {
    /// The kernel.
    pub spec: KernelSpec,
    /// The product that was asked for.
    pub problem: Problem,
    /// Token of the result.
    pub token: usize,
    /// Output feature of the result.
    pub row: usize,
    /// What the kernel says.
    pub got: i32,
    /// What the oracle says.
    pub want: i32,
}

/// How long and how carefully to look.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Wall-clock limit of the whole search.
    pub budget: Duration,
    /// Timings of each candidate in the first round; doubled in each later one.
    pub first_samples: usize,
    /// Candidates that reach the last round.
    pub finalists: usize,
    /// A finalist whose median is this near the floor ends the search.
    pub near_floor: f64,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            budget: Duration::from_secs(10),
            first_samples: 3,
            finalists: 3,
            near_floor: 0.98,
        }
    }
}

/// One candidate after the search.
#[derive(Clone, Debug)]
pub struct Trial<C> {
    /// The candidate.
    pub candidate: C,
    /// Its timings; none if it was rejected.
    pub summary: Option<Summary>,
    /// Why it was not timed.
    pub rejection: Option<Rejection>,
    /// Rounds that it survived.
    pub rounds: usize,
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Outcome<C> {
    /// Every candidate with its evidence, best first.
    pub trials: Vec<Trial<C>>,
    /// Why the search ended.
    pub end: End,
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every round was played.
    Complete,
    /// The winner stands at the roofline.
    Roofline,
    /// Time was up: the evidence is thinner than asked for.
    Budget,
    /// The user stopped it.
    Stopped,
}

impl<C> Outcome<C> {
    /// The winner: the fastest finalist.
    pub fn winner(&self) -> Option<&Trial<C>> {
        self.trials.first().filter(|t| t.summary.is_some())
    }

    /// The second best of those that got as far as the winner.
    pub fn runner_up(&self) -> Option<&Trial<C>> {
        let won = self.winner()?;
        self.trials
            .get(1)
            .filter(|t| t.summary.is_some() && t.rounds == won.rounds)
    }
}

struct Entrant<C> {
    candidate: C,
    samples: Samples,
    rounds: usize,
}

impl<C> Entrant<C> {
    fn min_ns(&self) -> f64 {
        self.samples.summary().map_or(f64::INFINITY, |s| s.min_ns)
    }
}

/// Part of the budget that the first look at all candidates may take; the rest is for telling the best apart.
const FIRST_LOOK: f64 = 0.6;

/// Plays the rounds. Candidates are given best guess first: if time is short, the guesses were looked at.
pub fn search<B: Bench>(
    bench: &mut B,
    candidates: impl IntoIterator<Item = B::Candidate>,
    effort: Effort,
) -> Outcome<B::Candidate> {
    let mut rejected = Vec::new();
    let mut field: Vec<Entrant<B::Candidate>> = Vec::new();
    let mut end = End::Complete;
    let mut candidates = candidates.into_iter();
    loop {
        let first_look = Effort {
            budget: effort.budget.mul_f64(FIRST_LOOK),
            ..effort
        };
        if let Some(reason) = out_of_time(bench, first_look) {
            end = reason;
            if !field.is_empty() || reason == End::Stopped {
                break;
            }
        }
        // Only now: making the next one may cost as much as looking at it.
        let Some(candidate) = candidates.next() else {
            break;
        };
        match bench.prepare(&candidate) {
            Ok(()) => {
                let mut samples = Samples::default();
                samples.push(bench.time(&candidate));
                field.push(Entrant {
                    candidate,
                    samples,
                    rounds: 0,
                });
            }
            Err(rejection) => rejected.push(Trial {
                candidate,
                summary: None,
                rejection: Some(rejection),
                rounds: 0,
            }),
        }
    }
    let (out, played) = rounds(bench, field, effort);
    if end == End::Complete {
        end = played;
    }
    let mut trials: Vec<_> = out
        .into_iter()
        .map(|e| Trial {
            summary: e.samples.summary(),
            candidate: e.candidate,
            rejection: None,
            rounds: e.rounds,
        })
        .collect();
    trials.extend(rejected);
    Outcome { trials, end }
}

fn out_of_time<B: Bench>(bench: &B, effort: Effort) -> Option<End> {
    if bench.stopped() {
        Some(End::Stopped)
    } else if bench.elapsed() >= effort.budget {
        Some(End::Budget)
    } else {
        None
    }
}

/// Rounds of round-robin timing; each keeps the better third, never fewer than the finalists.
/// Returns all entrants: survivors of more rounds first, faster first among equals.
fn rounds<B: Bench>(
    bench: &mut B,
    mut field: Vec<Entrant<B::Candidate>>,
    effort: Effort,
) -> (Vec<Entrant<B::Candidate>>, End) {
    let mut done: Vec<Entrant<B::Candidate>> = Vec::new();
    let mut samples = effort.first_samples;
    let mut end = End::Complete;
    'rounds: while !field.is_empty() {
        for _ in 0..samples {
            for e in &mut field {
                if let Some(reason) = out_of_time(bench, effort) {
                    end = reason;
                    break 'rounds;
                }
                e.samples.push(bench.time(&e.candidate));
            }
        }
        for e in &mut field {
            e.rounds += 1;
        }
        field.sort_by(|a, b| a.min_ns().total_cmp(&b.min_ns()));
        if field.len() <= effort.finalists {
            break;
        }
        if at_floor(bench, &field[0], effort) {
            end = End::Roofline;
            break;
        }
        let keep = (field.len() / 3).max(effort.finalists);
        done.splice(0..0, field.split_off(keep));
        samples *= 2;
    }
    field.sort_by(|a, b| {
        b.rounds
            .cmp(&a.rounds)
            .then(a.min_ns().total_cmp(&b.min_ns()))
    });
    field.extend(done);
    (field, end)
}

fn at_floor<B: Bench>(bench: &B, best: &Entrant<B::Candidate>, effort: Effort) -> bool {
    let floor = bench.floor_ns(&best.candidate);
    match (floor, best.samples.summary()) {
        (Some(floor), Some(s)) => s.samples >= 3 && floor / s.median_ns >= effort.near_floor,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mismatch() -> Mismatch {
        Mismatch {
            spec: KernelSpec::new("i2s", "i2s", 1, 4, 16, bitnet_codegen::Isa::Interp),
            problem: Problem::new(1, 1, 1),
            token: 0,
            row: 0,
            got: 1,
            want: 2,
        }
    }

    /// A scripted machine: candidate `i` takes `ns[i]`, times a drift that grows with every timing.
    struct Script {
        ns: Vec<f64>,
        drift: f64,
        outlier_at: Option<usize>,
        wrong: Option<usize>,
        missing: Option<usize>,
        floor: Option<f64>,
        timed: Vec<usize>,
        stop_after: usize,
    }

    impl Script {
        fn new(ns: &[f64]) -> Self {
            Self {
                ns: ns.to_vec(),
                drift: 0.0,
                outlier_at: None,
                wrong: None,
                missing: None,
                floor: None,
                timed: Vec::new(),
                stop_after: usize::MAX,
            }
        }

        fn run(&mut self) -> Outcome<usize> {
            let all: Vec<usize> = (0..self.ns.len()).collect();
            search(self, all, Effort::default())
        }
    }

    impl Bench for Script {
        type Candidate = usize;

        fn prepare(&mut self, c: &usize) -> Result<(), Rejection> {
            if self.wrong == Some(*c) {
                return Err(Rejection::Wrong(mismatch()));
            }
            if self.missing == Some(*c) {
                return Err(Unsupported::new(c, "no such instruction").into());
            }
            Ok(())
        }

        fn time(&mut self, c: &usize) -> f64 {
            let turn = self.timed.len();
            self.timed.push(*c);
            let outlier = if self.outlier_at == Some(turn) {
                100.0
            } else {
                1.0
            };
            self.ns[*c] * (1.0 + self.drift * turn as f64) * outlier
        }

        fn floor_ns(&self, _: &usize) -> Option<f64> {
            self.floor
        }

        fn elapsed(&self) -> Duration {
            Duration::from_millis(10 * self.timed.len() as u64)
        }

        fn stopped(&self) -> bool {
            self.timed.len() >= self.stop_after
        }
    }

    #[test]
    fn the_fastest_wins_despite_drift_and_an_outlier() {
        let mut s = Script::new(&[
            30.0, 20.0, 10.0, 11.0, 40.0, 25.0, 12.0, 50.0, 60.0, 35.0, 45.0,
        ]);
        s.drift = 0.0005;
        s.outlier_at = Some(13);
        let out = s.run();
        assert_eq!(out.winner().unwrap().candidate, 2);
        assert_eq!(out.runner_up().unwrap().candidate, 3);
        assert_eq!(out.end, End::Complete);
        assert_eq!(out.trials.len(), 11, "every candidate keeps its evidence");
    }

    #[test]
    fn a_wrong_or_missing_candidate_is_never_timed() {
        // The wrong one would be the fastest: if it were timed it would win.
        let mut s = Script::new(&[30.0, 1.0, 2.0, 20.0]);
        s.wrong = Some(1);
        s.missing = Some(2);
        let out = s.run();
        assert_eq!(out.winner().unwrap().candidate, 3);
        assert!(!s.timed.contains(&1) && !s.timed.contains(&2));
        let reasons: Vec<_> = out
            .trials
            .iter()
            .filter_map(|t| t.rejection.clone())
            .collect();
        assert!(matches!(
            &reasons[..],
            [Rejection::Wrong(_), Rejection::Unsupported(_)]
        ));
    }

    #[test]
    fn the_search_stops_at_the_roofline() {
        let ns: Vec<f64> = (0..30).map(|i| 100.0 - i as f64).collect();
        let mut s = Script::new(&ns);
        s.floor = Some(70.9);
        let out = s.run();
        assert_eq!(out.end, End::Roofline);
        assert_eq!(out.winner().unwrap().candidate, 29);
        assert_eq!(s.timed.len(), 30 * 4, "one round");
    }

    #[test]
    fn budget_and_stop_end_the_search_with_what_is_known() {
        let ns: Vec<f64> = (0..400).map(|i| 400.0 - i as f64).collect();
        let mut s = Script::new(&ns);
        s.drift = 0.0;
        let out = search(
            &mut s,
            0..400,
            Effort {
                budget: Duration::from_secs(5),
                ..Effort::default()
            },
        );
        assert_eq!(out.end, End::Budget);
        assert!(out.winner().is_some());
        let mut s = Script::new(&ns);
        s.stop_after = 7;
        let out = s.run();
        assert_eq!(out.end, End::Stopped);
        assert_eq!(out.trials.len(), 7);
    }

    #[test]
    fn a_tie_keeps_both_as_evidence() {
        let out = Script::new(&[10.0, 10.0]).run();
        assert_eq!(
            out.winner().unwrap().summary,
            out.runner_up().unwrap().summary
        );
        assert!(Script::new(&[]).run().winner().is_none());
    }
}
