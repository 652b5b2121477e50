//! Tuning a model: one search for each product, range of token counts and number of threads, and the profile that
//! they make.

mod conditions;
mod date;
mod evidence;
mod timed;

pub use date::today;

use crate::bound::Peaks;
use crate::campaign::{self, Stake, Told};
use crate::host::{Host, Measured, named_costs};
use crate::lab::Lab;
use crate::peaks::{PeakError, Probe};
use crate::search::{Outcome, Search};
use crate::space::learn::Learner;
use crate::space::model::Case;
use crate::space::{Atlas, Space};
use crate::surroundings::Watch;
use bitnet_codegen::{Features, KernelSpec};
use bitnet_runtime::graph::Product;
use bitnet_runtime::network::estimates::estimates;
use bitnet_runtime::pool::PoolError;
use bitnet_runtime::profile::{Entry, GENERATOR, M_BUCKETS, MBucket, Profile, SHIPPED, parse};
use conditions::{Looks, PROBE_BYTES, conditions};
use evidence::entry;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use timed::Timed;

/// What to tune.
#[derive(Clone, Debug)]
pub struct Task {
    /// The model's distinct products.
    pub products: Vec<Product>,
    /// Token counts: indices into [`M_BUCKETS`].
    pub buckets: Vec<usize>,
    /// Whether the model is larger than the caches, so that decoding streams it from memory.
    pub cold: bool,
    /// Numbers of threads.
    pub threads: Vec<usize>,
    /// Wall-clock limit of everything.
    pub budget: Duration,
    /// Entries to keep: products that they answer are not searched.
    pub done: Vec<Entry>,
    /// Profiles whose winners are looked at first, besides the shipped ones.
    pub seeds: Vec<Profile>,
}

/// Why nothing can be tuned.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// The threads cannot be had.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The peaks cannot be looked at.
    #[error(transparent)]
    Peak(#[from] PeakError),
}

/// The share of the budget in which products are opened: counting what all candidates ask for takes some of it.
const OPENING: f64 = 0.4;

/// Told while tuning.
pub enum Event<'e> {
    /// A search has gone on for a while.
    Step {
        /// Its product.
        case: Case,
        /// The best so far and its time.
        best: Option<(&'e KernelSpec, f64)>,
        /// Time spent so far.
        elapsed: Duration,
    },
    /// A search has ended.
    Ended {
        /// Its product.
        case: Case,
        /// What it found.
        outcome: &'e Outcome,
        /// Searches that have not ended.
        open: usize,
    },
}

/// One search that was played.
pub struct Searched {
    /// Its product.
    pub case: Case,
    /// What it found.
    pub outcome: Outcome,
    /// The candidates that specs are twins of.
    pub names: HashMap<KernelSpec, KernelSpec>,
}

/// What tuning made.
pub struct Tuned {
    /// The profile.
    pub profile: Profile,
    /// Every search with its product, for pictures and reports.
    pub outcomes: Vec<Searched>,
    /// Candidates that are wrong or impossibly fast, by name.
    pub suspects: Vec<String>,
}

/// One product to be searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    bucket: usize,
    product: Product,
    threads: usize,
}

impl Open {
    fn case(&self, cold: bool) -> Case {
        let m = M_BUCKETS[self.bucket].first;
        Case::new(self.product, m, self.threads, cold)
    }

    /// Decoding and long prompts: the other ranges are answered by their neighbours, if need be.
    fn comes_first(&self) -> bool {
        self.bucket == 0 || self.bucket + 1 == M_BUCKETS.len()
    }

    /// How much a nanosecond of the product matters: tokens share it, and a prompt has many tokens for each that
    /// is generated.
    fn importance(&self) -> f64 {
        match M_BUCKETS[self.bucket].first {
            1 => 1.0,
            m if self.bucket + 1 == M_BUCKETS.len() => 6.0 / m as f64,
            m => 0.5 / m as f64,
        }
    }
}

impl Task {
    /// What is not answered yet, the most important first: decoding, then long prompts.
    fn open(&self) -> Vec<Open> {
        let mut open = Vec::new();
        for &threads in &self.threads {
            for &bucket in &self.buckets {
                for &product in &self.products {
                    let question = (product, M_BUCKETS[bucket], threads);
                    if !self.done.iter().any(|e| e.question() == question) {
                        open.push(Open {
                            bucket,
                            product,
                            threads,
                        });
                    }
                }
            }
        }
        let time = |o: &Open| o.importance() * o.case(self.cold).macs() as f64;
        let prompt = |o: &Open| M_BUCKETS[o.bucket].first > 1;
        open.sort_by(|a, b| {
            let by_time = time(b).total_cmp(&time(a));
            prompt(a).cmp(&prompt(b)).then(by_time)
        });
        open
    }

    /// How many entries a complete profile has.
    pub fn wanted(&self) -> usize {
        self.threads.len() * self.buckets.len() * self.products.len()
    }
}

/// Candidates to look at first: what runs where nobody has tuned, and what profiles chose for the product or for
/// those nearest to it.
fn seeds(space: &Space, profiles: &[Profile], features: Features) -> Vec<usize> {
    let (p, threads) = (space.case.problem, space.case.threads);
    let mut untuned = estimates(features, space.case.product(), p.m);
    let untuned = untuned.find_map(|spec| space.find(&spec));
    let mut seeds: Vec<usize> = untuned.into_iter().collect();
    for profile in profiles {
        let bucket = MBucket::of(p.m);
        let mut near: Vec<&Entry> = profile
            .entries
            .iter()
            .filter(|e| e.bucket == bucket)
            .collect();
        let far = |a: usize, b: usize| (a as f64 / b as f64).ln().abs();
        let distance = |e: &Entry| {
            // A kernel without groups has the tile of one with, not its arithmetic.
            let groups = f64::from(u8::from(e.product().groups != space.case.groups));
            let shape = far(e.n, p.n) + far(e.k, p.k);
            10.0 * groups + shape + 0.1 * far(e.evidence.threads.max(1), threads)
        };
        near.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
        seeds.extend(near.iter().take(3).filter_map(|e| space.nearest(&e.spec)));
    }
    let mut seen = Vec::new();
    seeds.retain(|id| {
        let new = !seen.contains(id);
        seen.push(*id);
        new
    });
    seeds
}

/// The shipped profiles that were measured: what was only estimated, the model here estimates as well.
pub fn shipped() -> Vec<Profile> {
    let all = SHIPPED.iter().filter_map(|s| parse(s.text).ok());
    all.filter(|p| !p.is_estimate).collect()
}

/// Searches what is not answered yet and returns the profile with all entries. Stops early, keeping what is known,
/// when `stop` is set.
///
/// # Errors
/// [`TuneError`].
pub fn tune(
    host: &Host,
    measured: &Measured,
    task: Task,
    lab: &mut Lab,
    stop: &AtomicBool,
    told: &mut dyn FnMut(Event<'_>),
) -> Result<Tuned, TuneError> {
    let (start, watch) = (Instant::now(), Watch::start());
    let features = host.features;
    let mut atlas = Atlas::new(Box::new(move |s| s.isa.runs_on(features)));
    let costs = host.costs(measured);
    let mut profiles = task.seeds.clone();
    profiles.extend(shipped());
    let mut learner = Learner::default();
    let mut open = task.open();
    let (mut stakes, mut jobs) = (Vec::new(), Vec::new());
    let opening = task.budget.mul_f64(OPENING);
    let mut longest = Duration::ZERO;
    for (product, o) in open.iter().enumerate() {
        let began = start.elapsed();
        if product > 0 && began + longest >= opening {
            break;
        }
        let space = atlas.space(o.case(task.cold), &costs);
        jobs.push(lab.open(&space)?);
        let seeds = seeds(&space, &profiles, features);
        let search = Search::new(space, product, &seeds, &mut learner);
        let stake = Stake::new(search, o.importance());
        stakes.push(match o.comes_first() {
            true => stake.first(),
            false => stake,
        });
        longest = longest.max(start.elapsed() - began);
    }
    // What there was no time to open stays without an answer.
    open.truncate(stakes.len());
    let (looks, probe) = (
        RefCell::new(Looks::default()),
        Probe::new(host.isa, features, PROBE_BYTES.min(host.cold_bytes()))?,
    );
    let mut peaks: Vec<Option<f64>> = vec![None; open.len()];
    // Searches and the lab's products go by the same numbers.
    assert!(
        jobs.iter().copied().eq(0..jobs.len()),
        "a lab of its own for each tuning"
    );
    let mut timed = Timed {
        lab: &mut *lab,
        start,
        stop,
        probe: &probe,
        threads: &task.threads,
        looks: &looks,
        read_gb_per_s: &costs.read_gb_per_s,
    };
    let mut listen = |t: Told<'_>| {
        let case = t.search.space().case;
        if t.search.end().is_some() {
            peaks[t.job] = looks.borrow().recent(case.threads);
            let (outcome, open) = (&t.search.outcome(), t.open);
            told(Event::Ended {
                case,
                outcome,
                open,
            });
        } else {
            let of = |id: usize| &t.search.space().candidates()[id].spec;
            let best = t.search.best().map(|(id, ns)| (of(id), ns));
            let elapsed = t.elapsed;
            told(Event::Step {
                case,
                best,
                elapsed,
            });
        }
    };
    campaign::play(
        &mut timed,
        &mut stakes,
        &mut learner,
        task.budget,
        &mut listen,
    );
    let mut made = Tuned {
        profile: Profile {
            generator: GENERATOR.into(),
            date: today(),
            host: host.record(measured),
            costs: named_costs(&costs),
            entries: task.done,
            ..Profile::default()
        },
        outcomes: Vec::new(),
        suspects: Vec::new(),
    };
    for ((o, stake), peak) in open.iter().zip(&stakes).zip(peaks) {
        let outcome = stake.search.outcome();
        let case = o.case(task.cold);
        let here = measured.peaks(o.threads);
        let here = here.map(|p| Peaks {
            read_gb_per_s: peak.unwrap_or(p.read_gb_per_s),
            ..p
        });
        let won = outcome.winner();
        let mut won = won.and_then(|won| entry(&case, o.bucket, won, &outcome, here));
        if let Some(won) = &mut won {
            won.evidence.code = lab.code_digest(&won.spec, o.product.k);
        }
        made.profile.entries.extend(won);
        let named = outcome
            .suspects()
            .map(|(spec, why)| format!("{spec}: {why}"));
        made.suspects.extend(named);
        made.outcomes.push(Searched {
            case,
            outcome,
            names: stake.search.space().twins(),
        });
    }
    made.suspects.sort();
    made.suspects.dedup();
    made.profile.conditions = conditions(
        host,
        measured,
        &task.threads,
        task.budget,
        watch.load(),
        &looks.borrow(),
    );
    made.profile
        .conditions
        .notes
        .extend(made.suspects.iter().cloned());
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_codegen::layout::scales::{GroupScales, Stored};
    use bitnet_codegen::{Groups, plan};

    /// One of each kind.
    fn products() -> Vec<Product> {
        let (k, stored) = (64, Stored::F16);
        let scales = GroupScales { k, stored };
        let groups = |planes| Some(Groups { scales, planes });
        let of = |n, k, groups| Product { n, k, groups };
        vec![
            of(256, 256, None),
            of(320, 128, groups(1)),
            of(256, 256, groups(2)),
        ]
    }

    fn task(threads: Vec<usize>, done: Vec<Entry>) -> Task {
        Task {
            products: products(),
            buckets: vec![0, 7],
            cold: false,
            threads,
            budget: Duration::from_secs(30),
            done,
            seeds: Vec::new(),
        }
    }

    #[test]
    fn a_short_tuning_answers_every_product_with_evidence() {
        let host = Host::probe(Features::detect());
        let measured = host
            .measure(&[1, 2], Duration::from_secs(5))
            .expect("measured");
        let mut lab = Lab::new(host.features, plan, host.threads, 1 << 20);
        let (stop, mut ended) = (AtomicBool::new(false), 0);
        let mut told = |e: Event<'_>| ended += usize::from(matches!(e, Event::Ended { .. }));
        let todo = task(vec![1, 2], Vec::new());
        let made = tune(&host, &measured, todo.clone(), &mut lab, &stop, &mut told).expect("tuned");
        assert_eq!(ended, todo.wanted());
        assert_eq!(made.profile.entries.len(), todo.wanted());
        assert!(made.suspects.is_empty(), "{:?}", made.suspects);
        for e in &made.profile.entries {
            let v = &e.evidence;
            assert!(
                v.median_ns > 0.0 && v.predicted_ns > 0.0 && v.timed > 0,
                "{e:?}"
            );
            assert!(v.code.is_some() && v.regret.is_some());
            assert!(products().contains(&e.product()), "{}", e.product());
        }
        // With everything answered there is nothing left to do.
        let again = task(vec![1, 2], made.profile.entries.clone());
        let mut lab = Lab::new(host.features, plan, host.threads, 1 << 20);
        let same = tune(&host, &measured, again, &mut lab, &stop, &mut |_| ()).expect("tuned");
        assert_eq!(same.profile.entries, made.profile.entries);
    }

    #[test]
    fn shipped_winners_are_looked_at_first() {
        let cpu = Features::detect();
        let mut atlas = Atlas::new(Box::new(move |s| s.isa.runs_on(cpu)));
        let (n, k, groups) = (2560, 2560, None);
        let case = Case::new(Product { n, k, groups }, 1, 1, true);
        let space = atlas.space(case, &crate::space::model::tests::machine());
        let seeds = seeds(&space, &shipped(), cpu);
        assert!(!seeds.is_empty() && seeds.len() <= 1 + 3 * SHIPPED.len());
    }
}
