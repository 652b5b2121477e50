//! Many searches, one budget: time goes where seconds of a real token are to be won.
//!
//! ```text
//! first     searches that cannot wait find something, and go on for some time among themselves
//! next      every other finds something, the most important ones first, as long as there is any time
//! then      the search with most to win a second: share of a token · promise / cost of a step
//! at 70 %   looking ends; the rest of the time tells the best apart
//! ```
//! A search that ends leaves its time to the others. Time is behind [`Benches`], so that tests need no clock.

use crate::search::{Bench, End, Search};
use crate::space::learn::Learner;
use std::time::Duration;

/// The benches of several products, and how long it has taken so far.
pub trait Benches {
    /// The bench of one product.
    type Bench<'b>: Bench
    where
        Self: 'b;

    /// The bench of product `job`.
    fn bench(&mut self, job: usize) -> Self::Bench<'_>;

    /// Time spent so far.
    fn elapsed(&self) -> Duration;

    /// Whether the user asked to stop.
    fn stopped(&self) -> bool;

    /// Product `job` is done.
    fn close(&mut self, _job: usize) {}
}

/// One search and what it is worth.
pub struct Stake {
    /// The search; its product's number is its place in the list.
    pub search: Search,
    /// How often a token needs the product, and how much such tokens matter: what a nanosecond saved is worth.
    pub importance: f64,
    /// Whether it goes before others: where there is little time, most of it is its.
    pub comes_first: bool,
    /// Seconds that a timing takes, with what comes before the first; `None` before the first step.
    timing_s: Option<f64>,
}

/// Seconds that a timing is expected to take where none was made yet.
const GUESS_S: f64 = 0.005;

impl Stake {
    /// A search of `importance`.
    pub fn new(search: Search, importance: f64) -> Self {
        Self {
            search,
            importance,
            comes_first: false,
            timing_s: None,
        }
    }

    /// The same, going before others.
    pub fn first(self) -> Self {
        Self {
            comes_first: true,
            ..self
        }
    }

    /// What a second of searching may win.
    fn worth(&self) -> f64 {
        let guess = self.search.space().candidates().first();
        let guess = guess.map_or(1.0, |c| c.estimate.ns);
        let ns = self.search.best().map_or(guess, |(_, ns)| ns);
        self.importance * ns * self.search.promise() / self.step_s(GUESS_S)
    }

    /// Seconds that the next step should take, if a timing takes `unknown` where that is not known.
    fn step_s(&self, unknown: f64) -> f64 {
        let timing_s = self.timing_s.unwrap_or(unknown).max(1e-6);
        timing_s * self.search.next_timings() as f64
    }
}

/// The share of the budget that searches which come first have for themselves.
const FIRST: f64 = 0.35;

/// The share of the budget after which nobody new is looked at.
const LOOKING: f64 = 0.7;

/// Steps of one search before another has its turn; a race keeps its turn for longer, for its weights are at hand.
const SLICE: Duration = Duration::from_millis(60);
const RACE_SLICE: Duration = Duration::from_millis(400);

/// What the listener is told, after every slice.
pub struct Told<'t> {
    /// Which search.
    pub job: usize,
    /// The search.
    pub search: &'t Search,
    /// Searches that have not ended.
    pub open: usize,
    /// Time spent so far.
    pub elapsed: Duration,
}

/// Plays all searches until they end, or the budget does, or the user stops them.
pub fn play<B: Benches>(
    benches: &mut B,
    stakes: &mut [Stake],
    learner: &mut Learner,
    budget: Duration,
    told: &mut dyn FnMut(Told<'_>),
) {
    let mut game = Game {
        benches,
        stakes,
        learner,
        told,
        dearest_s: 0.0,
    };
    let looking = budget.mul_f64(LOOKING);
    let mut order: Vec<usize> = (0..game.stakes.len()).collect();
    order.sort_by(|&a, &b| game.stakes[b].worth().total_cmp(&game.stakes[a].worth()));
    let nothing = |s: &Search| s.best().is_none();
    for comes_first in [true, false] {
        for &job in &order {
            if game.stakes[job].comes_first == comes_first {
                game.slice(job, budget, Duration::ZERO, nothing);
            }
        }
        if comes_first {
            game.by_worth(budget.mul_f64(FIRST), SLICE, |s| s.comes_first);
        }
    }
    game.by_worth(looking, SLICE, |_| true);
    for &job in &order {
        let Stake { search, .. } = &mut game.stakes[job];
        if search.end().is_none() {
            search.hurry(&mut game.benches.bench(job));
            game.tell(job);
        }
    }
    game.by_worth(budget, RACE_SLICE, |_| true);
    let end = if game.benches.stopped() {
        End::Stopped
    } else {
        End::Budget
    };
    for job in order {
        if game.stakes[job].search.end().is_none() {
            game.stakes[job].search.stop(end);
            game.tell(job);
        }
    }
}

struct Game<'g, B> {
    benches: &'g mut B,
    stakes: &'g mut [Stake],
    learner: &'g mut Learner,
    told: &'g mut dyn FnMut(Told<'_>),
    /// Seconds of the dearest timing that was the first of its search.
    dearest_s: f64,
}

impl<B: Benches> Game<'_, B> {
    /// Whether the next step of a search ends by `until`, as far as is known. As long as nothing has been found
    /// anywhere, there is time: no answer at all is worth nothing.
    fn has_time(&self, job: usize, until: Duration) -> bool {
        let left = until.saturating_sub(self.benches.elapsed()).as_secs_f64();
        let found = self.stakes.iter().any(|s| s.search.best().is_some());
        let needed = self.stakes[job].step_s(self.dearest_s);
        !self.benches.stopped() && (!found || left > needed)
    }

    /// Slices for whoever of `those` may win most, until `until`.
    fn by_worth(&mut self, until: Duration, slice: Duration, those: impl Fn(&Stake) -> bool) {
        loop {
            let open = (0..self.stakes.len()).filter(|&j| {
                let stake = &self.stakes[j];
                those(stake) && stake.search.end().is_none() && self.has_time(j, until)
            });
            let next = open.max_by(|&a, &b| {
                let by_worth = self.stakes[a].worth().total_cmp(&self.stakes[b].worth());
                by_worth.then(b.cmp(&a))
            });
            let Some(job) = next else { return };
            self.slice(job, until, slice, |_| false);
        }
    }

    /// Steps of one search: at least one, for `slice`, and on while `more` wants.
    fn slice(
        &mut self,
        job: usize,
        until: Duration,
        slice: Duration,
        more: impl Fn(&Search) -> bool,
    ) {
        let start = self.benches.elapsed();
        let mut steps = 0usize;
        loop {
            if self.stakes[job].search.end().is_some() || !self.has_time(job, until) {
                break;
            }
            self.step(job);
            steps += 1;
            let enough = self.benches.elapsed() - start >= slice;
            if enough && !more(&self.stakes[job].search) {
                break;
            }
        }
        if steps > 0 {
            self.tell(job);
        }
    }

    /// One step of a search, and what it says about the next.
    fn step(&mut self, job: usize) {
        let start = self.benches.elapsed();
        let Stake {
            search, timing_s, ..
        } = &mut self.stakes[job];
        let timings = search.next_timings() as f64;
        search.step(&mut self.benches.bench(job), self.learner);
        let each = (self.benches.elapsed() - start).as_secs_f64() / timings;
        if timing_s.is_none() {
            self.dearest_s = self.dearest_s.max(each);
        }
        *timing_s = Some(timing_s.map_or(each, |before| 0.5 * (before + each)));
    }

    fn tell(&mut self, job: usize) {
        let search = &self.stakes[job].search;
        if search.end().is_some() {
            self.benches.close(job);
        }
        (self.told)(Told {
            job,
            search,
            open: self
                .stakes
                .iter()
                .filter(|s| s.search.end().is_none())
                .count(),
            elapsed: self.benches.elapsed(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Rejection;
    use crate::space::model::{Case, Estimate};
    use crate::space::{Candidate, Space};
    use bitnet_runtime::graph::Product;
    use std::collections::HashSet;

    /// Products whose candidate `i` takes `ns[job] · (1 + i/100)`; a timing takes a millisecond of scripted time.
    struct Script {
        ns: Vec<f64>,
        timings: Vec<usize>,
        /// What preparing a candidate of each product takes, and who is prepared.
        prepare_ms: Vec<u64>,
        prepared: HashSet<(usize, usize)>,
        closed: Vec<usize>,
        stop_after: usize,
    }

    struct One<'s>(&'s mut Script, usize);

    impl Bench for One<'_> {
        fn prepare(&mut self, id: usize) -> Result<(), Rejection> {
            self.0.prepared.insert((self.1, id));
            Ok(())
        }

        fn time(&mut self, id: usize) -> f64 {
            self.0.timings[self.1] += 1;
            self.0.ns[self.1] * (1.0 + id as f64 / 100.0)
        }
    }

    impl Benches for Script {
        type Bench<'b> = One<'b>;

        fn bench(&mut self, job: usize) -> One<'_> {
            One(self, job)
        }

        fn elapsed(&self) -> Duration {
            let prepared = self.prepared.iter();
            let prepared: u64 = prepared.map(|&(job, _)| self.prepare_ms[job]).sum();
            Duration::from_millis(prepared + self.timings.iter().sum::<usize>() as u64)
        }

        fn stopped(&self) -> bool {
            self.timings.iter().sum::<usize>() >= self.stop_after
        }

        fn close(&mut self, job: usize) {
            self.closed.push(job);
        }
    }

    fn play_all(
        importance: &[f64],
        budget_ms: u64,
        stop_after: usize,
    ) -> (Script, Vec<Stake>, usize) {
        play_slowly(
            importance,
            &vec![0; importance.len()],
            budget_ms,
            stop_after,
        )
    }

    fn script(prepare_ms: &[u64], stop_after: usize) -> Script {
        Script {
            ns: vec![100.0; prepare_ms.len()],
            timings: vec![0; prepare_ms.len()],
            prepare_ms: prepare_ms.to_vec(),
            prepared: HashSet::new(),
            closed: Vec::new(),
            stop_after,
        }
    }

    fn stakes(importance: &[f64], learner: &mut Learner) -> Vec<Stake> {
        let of = |(job, &importance): (usize, &f64)| {
            let candidates = (0..200).map(|i| Candidate {
                spec: format!("i2s-i2s-1x{}c16-avx2", 8 * (i + 1))
                    .parse()
                    .expect("a spec"),
                // The model has it the wrong way round.
                estimate: Estimate {
                    ns: 300.0 - i as f64,
                    floor_ns: 10.0,
                },
                weight_bytes: 1,
            });
            let (n, k, groups) = (64, 64, None);
            let case = Case::new(Product { n, k, groups }, 1, 1, false);
            let space = Space::of(case, candidates.collect());
            Stake::new(Search::new(space, job, &[], learner), importance)
        };
        importance.iter().enumerate().map(of).collect()
    }

    fn play_slowly(
        importance: &[f64],
        prepare_ms: &[u64],
        budget_ms: u64,
        stop_after: usize,
    ) -> (Script, Vec<Stake>, usize) {
        let mut script = script(prepare_ms, stop_after);
        let mut learner = Learner::default();
        let mut stakes = stakes(importance, &mut learner);
        let mut told = 0;
        play(
            &mut script,
            &mut stakes,
            &mut learner,
            Duration::from_millis(budget_ms),
            &mut |_| told += 1,
        );
        (script, stakes, told)
    }

    #[test]
    fn all_searches_end_and_are_told_and_closed() {
        let (script, stakes, told) = play_all(&[1.0, 1.0, 1.0], 60_000, usize::MAX);
        assert!(stakes.iter().all(|s| s.search.end() == Some(End::Complete)));
        assert!(stakes.iter().all(|s| s.search.outcome().winner().is_some()));
        let mut closed = script.closed.clone();
        closed.sort_unstable();
        assert_eq!(closed, [0, 1, 2]);
        assert!(told >= 3);
    }

    #[test]
    fn a_short_budget_goes_where_most_is_to_be_won_and_leaves_nobody_out() {
        let (script, stakes, _) = play_all(&[1.0, 20.0, 1.0], 150, usize::MAX);
        assert!(stakes.iter().all(|s| s.search.outcome().winner().is_some()));
        assert!(
            script.timings[1] > 2 * script.timings[0].max(script.timings[2]),
            "{:?}",
            script.timings
        );
        let spent = script.elapsed();
        assert!(spent <= Duration::from_millis(190), "{spent:?}");
    }

    #[test]
    fn no_step_begins_that_would_not_end_in_time() {
        for slow_ms in [30, 200, 900] {
            for budget_ms in [1000, 3000] {
                let prepare = [2, slow_ms, 5, slow_ms];
                let (script, stakes, _) =
                    play_slowly(&[5.0, 1.0, 1.0, 1.0], &prepare, budget_ms, usize::MAX);
                // What a step takes is known from those before it, more or less.
                let spent = script.elapsed().as_millis() as u64;
                let late = spent.saturating_sub(budget_ms);
                assert!(late <= slow_ms / 2, "{spent} ms of {budget_ms}, {slow_ms}");
                assert!(stakes[0].search.outcome().winner().is_some());
            }
        }
        // Where a single step is all there is time for, it is made.
        for budget_ms in [0, 100] {
            let (_, stakes, _) = play_slowly(&[1.0, 1.0], &[500, 500], budget_ms, usize::MAX);
            let won = |s: &&Stake| s.search.outcome().winner().is_some();
            assert_eq!(stakes.iter().filter(won).count(), 1);
        }
    }

    #[test]
    fn those_that_come_first_have_most_of_a_short_budget() {
        let mut script = script(&[4, 4, 4, 4], usize::MAX);
        let mut learner = Learner::default();
        let mut stakes = stakes(&[1.0; 4], &mut learner);
        stakes[2].comes_first = true;
        let budget = Duration::from_millis(300);
        play(&mut script, &mut stakes, &mut learner, budget, &mut |_| ());
        let prepared = script.prepared.iter().filter(|(job, _)| *job == 2);
        let spent_ms = script.timings[2] + 4 * prepared.count();
        assert!(spent_ms as f64 >= 0.9 * FIRST * 300.0, "{spent_ms} ms");
        assert!(stakes.iter().all(|s| s.search.outcome().winner().is_some()));
    }

    #[test]
    fn the_user_may_stop_it_and_keeps_what_is_known() {
        let (script, stakes, _) = play_all(&[1.0, 1.0], 60_000, 12);
        assert!(stakes.iter().all(|s| s.search.end() == Some(End::Stopped)));
        assert!(stakes.iter().any(|s| s.search.outcome().winner().is_some()));
        assert_eq!(script.closed.len(), 2);
    }
}
