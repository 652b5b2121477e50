//! What a search found: every candidate with its evidence, the winner, and who ties with it.

use super::{ENOUGH, Rejection, TIE};
use crate::sampler::Summary;
use bitnet_codegen::KernelSpec;

/// One candidate after the search.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The candidate.
    pub spec: KernelSpec,
    /// What the cost model said.
    pub predicted_ns: f64,
    /// Bytes of packed weights that a product reads.
    pub weight_bytes: usize,
    /// Its timings; none if it was rejected.
    pub summary: Option<Summary>,
    /// Why it was not timed.
    pub rejection: Option<Rejection>,
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing improved any more, and the best were told apart.
    Complete,
    /// Time was up: the evidence is thinner than asked for.
    Budget,
    /// The user stopped it.
    Stopped,
}

impl End {
    /// The word in profiles.
    pub fn name(self) -> &'static str {
        match self {
            End::Complete => "complete",
            End::Budget => "budget",
            End::Stopped => "stopped",
        }
    }
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Every candidate that was looked at: the winner first, then its ties, then by time, rejected ones last.
    pub trials: Vec<Trial>,
    /// How many of `trials` tie for the first place, the winner included.
    pub tied: usize,
    /// Why the search ended.
    pub end: End,
}

/// By how much the median of `other` lies above that of `best`, and how much of that may be chance: the combined 95 %
/// interval.
pub fn apart(best: Summary, other: Summary) -> (f64, f64) {
    let half = |s: Summary| (s.interval_ns.1 - s.interval_ns.0) / 2.0;
    let combined = half(best).hypot(half(other));
    (other.median_ns - best.median_ns, combined)
}

/// The most that a tie may cost, as a share of the best: an interval wider than that says that nothing is known.
const DEAR: f64 = 0.05;

/// Whether `other` cannot be told from `best`: within the combined interval, or within [`TIE`].
fn is_tie(best: Summary, other: Summary) -> bool {
    let (apart, chance) = apart(best, other);
    apart <= chance.min(best.median_ns * DEAR) || other.median_ns <= best.median_ns * TIE
}

impl Outcome {
    /// Orders what was found. Candidates with enough samples go before those with fewer: the others hold less
    /// evidence. Of those within [`TIE`] of the fastest, the one with the least name wins.
    pub fn new(trials: Vec<Trial>, end: End) -> Self {
        let (mut timed, rejected): (Vec<Trial>, Vec<Trial>) =
            trials.into_iter().partition(|t| t.summary.is_some());
        let samples = |t: &Trial| t.summary.map_or(0, |s| s.samples);
        let most = timed.iter().map(samples).max().unwrap_or(0);
        // In a race all have about as many samples as the one with most.
        let enough = ENOUGH.min(most.div_ceil(2));
        let median = |t: &Trial| t.summary.map_or(f64::INFINITY, |s| s.median_ns);
        timed.sort_by(|a, b| {
            let thin = |t: &Trial| samples(t) < enough;
            let by_time = median(a).total_cmp(&median(b));
            thin(a)
                .cmp(&thin(b))
                .then(by_time)
                .then_with(|| a.spec.cmp(&b.spec))
        });
        let tied = match timed.first().and_then(|t| t.summary) {
            None => 0,
            Some(best) => {
                let ties =
                    |t: &&Trial| samples(t) >= enough && t.summary.is_some_and(|s| is_tie(best, s));
                timed.iter().take_while(ties).count()
            }
        };
        let best = timed.first().map_or(0.0, median);
        let near = timed[..tied].iter().enumerate();
        let near = near.filter(|(_, t)| median(t) <= best * TIE);
        if let Some((place, _)) = near.min_by(|a, b| a.1.spec.cmp(&b.1.spec)) {
            timed[..=place].rotate_right(1);
        }
        timed.extend(rejected);
        Self {
            trials: timed,
            tied,
            end,
        }
    }

    /// The winner.
    pub fn winner(&self) -> Option<&Trial> {
        self.trials.first().filter(|t| t.summary.is_some())
    }

    /// The best candidate that does not tie with the winner; where all do, the next of the tied.
    pub fn runner_up(&self) -> Option<&Trial> {
        let other = self.trials.get(self.tied).filter(|t| t.summary.is_some());
        other.or_else(|| self.trials.get(1).filter(|t| t.summary.is_some()))
    }

    /// Candidates that were timed.
    pub fn timed(&self) -> usize {
        self.trials.iter().filter(|t| t.summary.is_some()).count()
    }

    /// Candidates that are wrong or impossibly fast: to be told by name.
    pub fn suspects(&self) -> impl Iterator<Item = (&KernelSpec, &Rejection)> {
        let rejected = self.trials.iter();
        rejected.filter_map(|t| match &t.rejection {
            Some(r) if r.is_suspect() => Some((&t.spec, r)),
            _ => None,
        })
    }

    /// How much slower than the best the fastest of the model's `top` first guesses is, of those that were timed:
    /// 0 when the model knew it.
    pub fn regret(&self, top: usize) -> Option<f64> {
        let median = |t: &Trial| t.summary.map(|s| s.median_ns);
        let best = self
            .trials
            .iter()
            .filter_map(median)
            .fold(f64::INFINITY, f64::min);
        let mut guessed: Vec<&Trial> = self.trials.iter().filter(|t| t.summary.is_some()).collect();
        guessed.sort_by(|a, b| a.predicted_ns.total_cmp(&b.predicted_ns));
        let of_top = guessed.into_iter().take(top).filter_map(median);
        let of_top = of_top.fold(f64::INFINITY, f64::min);
        of_top.is_finite().then(|| of_top / best - 1.0)
    }
}
