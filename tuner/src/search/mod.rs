//! The search of one product: which of thousands of exact candidates is fastest, for few timings.
//!
//! ```text
//! look   seeds, then whatever model and experience expect most of, whatever they know too little of to expect less,
//!        and neighbours of the best; until nothing has improved for a while
//! race   those near the best, timed in turn, thinned out by confidence; ten samples each
//! climb  neighbours of the winner that nobody looked at; if one is better, race again
//! ```
//! A candidate is verified before its first timing; a wrong one, or a time that the machine cannot do, is named
//! and never wins. Within the noise it is a tie, and the name decides, so that two searches agree. A search is
//! played step by step, so that many share one budget. The machine is behind [`Bench`]: recordings and scripts
//! play it without a clock.
//!
//! Longer than 500 lines: the phases of one search, which share their field.

mod outcome;
mod rejection;
#[cfg(test)]
mod tests;

pub use outcome::{End, Outcome, Trial};
pub use rejection::{Mismatch, Rejection};

use crate::sampler::Samples;
use crate::space::learn::{Features, Learner};
use crate::space::{Candidate, Space};
use std::collections::VecDeque;

/// A machine that can verify and time the candidates of a product, by their numbers in its [`Space`].
pub trait Bench {
    /// These are likely to come next: a bench may build them while it times others.
    fn foresee(&mut self, _: &[usize]) {}

    /// Builds a candidate and compares it with the oracle. An error is its reason to be left out.
    ///
    /// # Errors
    /// [`Rejection`].
    fn prepare(&mut self, id: usize) -> Result<(), Rejection>;

    /// Times one run of a prepared candidate, in nanoseconds.
    fn time(&mut self, id: usize) -> f64;

    /// The time that `candidate`, number `id`, cannot undercut: asked for once it seems to have, so that a bench may
    /// look again at what the machine can do.
    fn floor_ns(&mut self, _id: usize, candidate: &Candidate) -> f64 {
        candidate.estimate.floor_ns
    }

    /// A candidate that will not be timed again.
    fn release(&mut self, _: usize) {}
}

/// A time below this share of the floor is impossible. Peaks move from minute to minute on a shared machine,
/// and a share of the weights may stay in a cache.
const IMPOSSIBLE: f64 = 0.5;

/// Structures that are looked at before anything else, by the model's choice.
const MODEL_SEEDS: usize = 12;

/// Candidates looked at without improvement before looking ends: so many, and one more for so many in the space.
const PATIENCE: usize = 32;
const PATIENCE_PER: usize = 80;

/// How much of the doubt about a candidate speaks for it.
const HOPE: f64 = 0.7;

/// A candidate this near the best earns two more samples at once.
const PROMISING: f64 = 1.15;

/// A first sample this far above what was expected is taken again: something else may have been running.
const SURPRISING: f64 = 1.5;

/// Timings of a candidate that is looked at, in the mean.
const LOOK_TIMINGS: usize = 2;

/// The best so far, whose neighbours are looked at.
const SURVIVORS: usize = 3;

/// Candidates this near the best enter the race, at most so many, and fewer after a climb.
const RACE_WITHIN: f64 = 1.1;
const RACE_MAX: usize = 10;
const CLIMBED_MAX: usize = 5;

/// Samples of each finalist, at least.
pub const ENOUGH: usize = 10;

/// Samples of all finalists together, at most: what has not been told apart by then is left undecided.
const RACE_SAMPLES: usize = 160;

/// A median is known well enough when half its interval is this share of it.
const SHARP: f64 = 0.01;

/// Rounds before any finalist is left behind.
const ROUNDS_FIRST: usize = 6;

/// Medians this near are a tie whatever the interval says.
pub const TIE: f64 = 1.02;

/// How often the winner's neighbours are climbed to.
const CLIMBS: usize = 4;

/// What is known of one candidate.
#[derive(Clone, Debug, Default)]
struct Known {
    samples: Samples,
    rejection: Option<Rejection>,
    racing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Look,
    Race,
    Done(End),
}

/// One search, played step by step.
pub struct Search {
    space: Space,
    product: usize,
    features: Vec<Features>,
    known: Vec<Option<Known>>,
    queue: VecDeque<usize>,
    stage: Stage,
    best: Option<usize>,
    idle: usize,
    rounds: usize,
    raced: usize,
    climbs: usize,
    hurried: bool,
    timings: usize,
}

impl Search {
    /// The search of product number `product`. `seeds` are looked at first.
    pub fn new(space: Space, product: usize, seeds: &[usize], learner: &mut Learner) -> Self {
        let n = space.candidates().len();
        let m = space.case.problem.m;
        let features = space.candidates().iter();
        let features = features.map(|c| learner.features(product, m, &c.spec));
        let features = features.collect();
        let mut search = Self {
            known: vec![None; n],
            features,
            space,
            product,
            queue: seeds.iter().copied().filter(|&s| s < n).collect(),
            stage: Stage::Look,
            best: None,
            idle: 0,
            rounds: 0,
            raced: 0,
            climbs: 0,
            hurried: false,
            timings: 0,
        };
        search.queue_model_seeds(learner);
        search
    }

    /// The best guesses, one of each structure, and the best guess of every family, in case the model misjudges one.
    fn queue_model_seeds(&mut self, learner: &Learner) {
        let (mut structures, mut families) = (Vec::new(), Vec::new());
        for id in self.by_expectation(learner, 0.0) {
            let s = &self.space.candidates()[id].spec;
            let structure = (&s.variant, &s.layout, s.isa, s.mr, s.nr);
            let is_new = structures.len() < MODEL_SEEDS && !structures.contains(&structure);
            if is_new {
                structures.push(structure);
            }
            // Narrow vectors where wide ones run are for completeness: the first of a family speaks for it.
            let is_first = !families.contains(&&s.variant);
            if is_first {
                families.push(&s.variant);
            }
            if is_new || is_first {
                self.queue.push_back(id);
            }
        }
    }

    /// The product's candidates.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// Timings so far.
    pub fn timings(&self) -> usize {
        self.timings
    }

    /// Timings that the next step makes, about.
    pub fn next_timings(&self) -> usize {
        match self.stage {
            Stage::Look => LOOK_TIMINGS,
            Stage::Race => self.racing().len().max(1),
            Stage::Done(_) => 1,
        }
    }

    /// The best so far and its time.
    pub fn best(&self) -> Option<(usize, f64)> {
        self.best.map(|id| (id, self.ns(id)))
    }

    /// Whether it has ended, and why.
    pub fn end(&self) -> Option<End> {
        match self.stage {
            Stage::Done(end) => Some(end),
            _ => None,
        }
    }

    /// How much of its time the product may still lose if the search goes on: a guess from the distance to the floor
    /// and from how long nothing was found. 0 when it has ended.
    pub fn promise(&self) -> f64 {
        let Some((id, ns)) = self.best() else {
            return if self.end().is_none() { 1.0 } else { 0.0 };
        };
        let floor = self.space.candidates()[id].estimate.floor_ns;
        let headroom = (1.0 - floor / ns).clamp(0.02, 0.5);
        match self.stage {
            Stage::Look => headroom / (1.0 + self.idle as f64 / 3.0),
            Stage::Race => 0.1 / (1 + self.rounds) as f64,
            Stage::Done(_) => 0.0,
        }
    }

    /// Ends looking: what time is left goes to telling the best apart.
    pub fn hurry(&mut self, bench: &mut impl Bench) {
        if self.stage == Stage::Look {
            self.hurried = true;
            self.start_race(bench);
        }
    }

    /// Ends the search with what is known.
    pub fn stop(&mut self, end: End) {
        if self.end().is_none() {
            self.stage = Stage::Done(end);
        }
    }

    /// The next step: a look at one candidate, or one round of the race.
    pub fn step(&mut self, bench: &mut impl Bench, learner: &mut Learner) {
        match self.stage {
            Stage::Look => match self.next(bench, learner) {
                Some(id) => self.look(id, bench, learner),
                None => self.start_race(bench),
            },
            Stage::Race => self.round(bench, learner),
            Stage::Done(_) => {}
        }
    }

    fn ns(&self, id: usize) -> f64 {
        let known = self.known[id].as_ref();
        known
            .and_then(|k| k.samples.summary())
            .map_or(f64::INFINITY, |s| s.low_ns)
    }

    fn is_open(&self, id: usize) -> bool {
        self.known[id].is_none()
    }

    /// The expected time of a candidate: the model's, corrected by experience. `hope` is how much of the doubt is taken
    /// off.
    fn expected_ns(&self, id: usize, learner: &Learner, hope: f64) -> f64 {
        let features = &self.features[id];
        let doubt = if hope > 0.0 {
            hope * learner.doubt(features)
        } else {
            0.0
        };
        self.space.candidates()[id].estimate.ns * learner.factor(features) * (-doubt).exp()
    }

    /// Everything not looked at, best expectation first.
    fn by_expectation(&self, learner: &Learner, hope: f64) -> Vec<usize> {
        let mut open: Vec<(f64, usize)> = (0..self.known.len())
            .filter(|&id| self.is_open(id))
            .map(|id| (self.expected_ns(id, learner, hope), id))
            .collect();
        open.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        open.into_iter().map(|(_, id)| id).collect()
    }

    /// Whom to look at next; `None` when looking has ended.
    fn next(&mut self, bench: &mut impl Bench, learner: &Learner) -> Option<usize> {
        while let Some(id) = self.queue.pop_front() {
            if self.is_open(id) {
                return Some(id);
            }
        }
        if self.climbs > 0 || self.idle >= PATIENCE + self.known.len() / PATIENCE_PER {
            return None;
        }
        let (expected, hoped) = (
            self.by_expectation(learner, 0.0),
            self.by_expectation(learner, HOPE),
        );
        let near: Vec<usize> = self
            .fastest(f64::INFINITY, SURVIVORS)
            .into_iter()
            .flat_map(|id| self.space.neighbours(id))
            .collect();
        let neighbours = hoped.iter().copied().filter(|id| near.contains(id));
        let mut batch: Vec<usize> = neighbours.take(2).collect();
        for of in [&expected, &hoped] {
            batch.extend(of.iter().copied().find(|id| !batch.contains(id)));
        }
        bench.foresee(&batch);
        self.queue.extend(&batch);
        self.queue.pop_front()
    }

    fn look(&mut self, id: usize, bench: &mut impl Bench, learner: &mut Learner) {
        let mut known = Known::default();
        if let Err(rejection) = bench.prepare(id) {
            known.rejection = Some(rejection);
            self.known[id] = Some(known);
            return;
        }
        self.known[id] = Some(known);
        let best_ns = self.best().map_or(f64::INFINITY, |(_, ns)| ns);
        let surprising = SURPRISING * self.expected_ns(id, learner, 0.0);
        self.sample(id, bench, learner);
        if self.ns(id) > surprising {
            self.sample(id, bench, learner);
        }
        for _ in 0..2 {
            if self.ns(id) < best_ns * PROMISING {
                self.sample(id, bench, learner);
            }
        }
        let ns = self.ns(id);
        if ns >= best_ns * PROMISING {
            bench.release(id);
        }
        if ns < best_ns * 0.99 {
            self.idle = 0;
        } else {
            self.idle += 1;
        }
        if ns < best_ns {
            self.best = Some(id);
        }
    }

    /// One timing of a candidate that is still in the game.
    fn sample(&mut self, id: usize, bench: &mut impl Bench, learner: &mut Learner) {
        let Some(known) = self.known[id].as_mut().filter(|k| k.rejection.is_none()) else {
            return;
        };
        let ns = bench.time(id);
        self.timings += 1;
        let candidate = &self.space.candidates()[id];
        let estimate = candidate.estimate;
        let mut floor_ns = estimate.floor_ns;
        if ns < floor_ns * IMPOSSIBLE {
            floor_ns = bench.floor_ns(id, candidate);
        }
        if ns.is_nan() || ns < floor_ns * IMPOSSIBLE {
            *known = Known {
                rejection: Some(Rejection::Impossible { ns, floor_ns }),
                ..Known::default()
            };
            bench.release(id);
            return;
        }
        known.samples.push(ns);
        let measured = self.ns(id);
        learner.observe(
            (self.product, id),
            &self.features[id],
            estimate.ns,
            measured,
        );
        learner.refit();
    }

    /// Those that take at most `ns`, and at most `count` of them, the fastest first.
    fn fastest(&self, ns: f64, count: usize) -> Vec<usize> {
        let timed = self.known.iter().enumerate();
        let timed = timed.filter(|(_, k)| k.as_ref().is_some_and(|k| !k.samples.is_empty()));
        let timed = timed.map(|(id, _)| (self.ns(id), id));
        let mut near: Vec<(f64, usize)> = timed.filter(|t| t.0 <= ns).collect();
        near.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        near.truncate(count);
        near.into_iter().map(|(_, id)| id).collect()
    }

    /// Those that are near the best so far enter.
    fn start_race(&mut self, bench: &mut impl Bench) {
        let Some((_, best_ns)) = self.best() else {
            let end = if self.hurried {
                End::Budget
            } else {
                End::Complete
            };
            self.stage = Stage::Done(end);
            return;
        };
        let most = if self.climbs == 0 {
            RACE_MAX
        } else {
            CLIMBED_MAX
        };
        let near = self.fastest(best_ns * RACE_WITHIN, most);
        if self.climbs > 0 && near.iter().all(|&id| self.count(id) > ENOUGH) {
            // The climb found nobody.
            self.stage = Stage::Done(End::Complete);
            return;
        }
        for (id, known) in self.known.iter_mut().enumerate() {
            let Some(known) = known else { continue };
            known.racing = near.contains(&id);
            if !known.racing && known.rejection.is_none() {
                bench.release(id);
            }
        }
        self.rounds = 0;
        self.stage = Stage::Race;
    }

    fn racing(&self) -> Vec<usize> {
        let racing = |id: &usize| self.known[*id].as_ref().is_some_and(|k| k.racing);
        (0..self.known.len()).filter(racing).collect()
    }

    fn count(&self, id: usize) -> usize {
        self.known[id].as_ref().map_or(0, |k| k.samples.len())
    }

    fn round(&mut self, bench: &mut impl Bench, learner: &mut Learner) {
        let racing = self.racing();
        self.raced += racing.len();
        for &id in &racing {
            match bench.prepare(id) {
                Ok(()) => self.sample(id, bench, learner),
                Err(rejection) => {
                    self.known[id] = Some(Known {
                        rejection: Some(rejection),
                        ..Known::default()
                    });
                }
            }
        }
        self.rounds += 1;
        let outcome = self.outcome();
        let Some(won) = outcome.winner().and_then(|t| t.summary) else {
            self.best = None;
            self.stage = Stage::Done(End::Complete);
            return;
        };
        self.best = self.space.find(&outcome.trials[0].spec);
        if self.rounds < ROUNDS_FIRST {
            return;
        }
        let width = (won.interval_ns.1 - won.interval_ns.0) / 2.0;
        let mut undecided = racing.len() > 1 && width > won.median_ns * SHARP;
        for &id in &racing {
            let Some(s) = self.known[id].as_ref().and_then(|k| k.samples.summary()) else {
                continue;
            };
            let (apart, chance) = outcome::apart(won, s);
            let slower = s.median_ns > won.median_ns * TIE;
            if slower && apart > chance {
                if let Some(known) = self.known[id].as_mut() {
                    known.racing = false;
                }
                bench.release(id);
            } else {
                undecided |= slower;
            }
        }
        let fewest = self.racing().iter().map(|&id| self.count(id)).min();
        let enough = fewest.is_none_or(|fewest| fewest > ENOUGH);
        if enough && (!undecided || self.raced >= RACE_SAMPLES) {
            self.climb();
        }
    }

    /// The winner's neighbours that nobody has looked at are looked at; with none left, the search is complete.
    fn climb(&mut self) {
        let open = self.best.map(|id| self.space.neighbours(id));
        let mut open = open.unwrap_or_default();
        open.retain(|&id| self.is_open(id));
        if self.hurried {
            self.stage = Stage::Done(End::Budget);
            return;
        }
        if open.is_empty() || self.climbs >= CLIMBS {
            self.stage = Stage::Done(End::Complete);
            return;
        }
        self.climbs += 1;
        self.queue = open.into();
        self.stage = Stage::Look;
    }

    /// Everything that is known, best first.
    pub fn outcome(&self) -> Outcome {
        let trials = self.known.iter().enumerate().filter_map(|(id, known)| {
            let known = known.as_ref()?;
            Some(Trial {
                spec: self.space.candidates()[id].spec.clone(),
                predicted_ns: self.space.candidates()[id].estimate.ns,
                weight_bytes: self.space.candidates()[id].weight_bytes,
                summary: known.samples.summary(),
                rejection: known.rejection.clone(),
            })
        });
        Outcome::new(trials.collect(), self.end().unwrap_or(End::Budget))
    }
}
