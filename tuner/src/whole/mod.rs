//! The whole token: winners of single products against the untuned choice and the shipped one, where they belong.
//!
//! Products that win alone may lose together: panels are shared between decoding and prompts, caches are shared by
//! all. So the model's own decoding and prefilling are timed in turn under each set of kernels, and in each phase the
//! fastest goes into the profile. Tuned is then never slower than untuned, noise aside.

mod stack;

pub use stack::Stack;

use crate::deadline::Deadline;
use crate::lab::verify;
use crate::sampler::median;
use bitnet_codegen::{Features, TernaryMatrix};
use bitnet_runtime::decoder::{Decoder as _, DecoderError};
use bitnet_runtime::engine::{Engine, EngineError, EngineOptions};
use bitnet_runtime::format::Model;
use bitnet_runtime::graph::Product;
use bitnet_runtime::network::KernelsUsed;
use bitnet_runtime::network::kernels::{Choice, Kernels};
use bitnet_runtime::pool::Pool;
use bitnet_runtime::profile::{Entry, M_BUCKETS, Phase, Profile};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A contestant that is not built yet.
pub type Build<'b, E> = Box<dyn FnOnce() -> Result<Box<dyn Contestant>, E> + 'b>;

/// Contestants by name: `tuned` and those that it is compared with.
pub type Contestants<'n> = Vec<(&'n str, Box<dyn Contestant>)>;

/// The phases of a model's work.
pub const PHASES: [&str; 2] = ["decode", "prefill"];

/// Tokens of the prompt that prefilling is timed with, where the context holds as many.
const PREFILL: usize = 256;

/// Tokens that decoding is timed with.
const DECODE: usize = 48;

/// Another set of kernels takes the place of the tuned ones from this factor on: below it is noise.
const FASTER: f64 = 1.015;

/// Rounds without which nothing is judged.
const FEWEST: usize = 2;

/// The share of the time that building contestants may take; the rest is for running them.
const BUILDING: f64 = 0.6;

/// Seconds that making a random weight takes, about: whether it is begun at all hangs on it.
const WEIGHT_S: f64 = 10e-9;

/// One set of kernels at work.
pub trait Contestant {
    /// Tokens per second of one run of a phase, by its place in [`PHASES`].
    ///
    /// # Errors
    /// When the model cannot run.
    fn tokens_per_s(&mut self, phase: usize) -> Result<f64, DecoderError>;

    /// Its kernels: `(n, k, bucket)` to the spec.
    fn kernels(&self) -> &KernelsUsed;
}

/// A model under a set of kernels.
pub struct Whole(pub Engine);

impl Whole {
    /// `model` under the kernels that `profile` chooses for a CPU of `features`; an empty one leaves it to the estimate.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn new(
        model: &Arc<Model>,
        pool: &Arc<Pool>,
        (profile, features): (&Profile, Features),
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        let kernels = Kernels::new(features, profile.clone());
        let mut kernels = kernels.on_threads(pool.threads());
        let engine = Engine::new(Arc::clone(model), Arc::clone(pool), &mut kernels, options)?;
        Ok(Self(engine))
    }
}

impl Contestant for Whole {
    fn tokens_per_s(&mut self, phase: usize) -> Result<f64, DecoderError> {
        let engine = &mut self.0;
        let n_vocab = engine.n_vocab() as u32;
        let most = PREFILL.min(engine.n_ctx());
        let tokens: Vec<u32> = (0..most as u32).map(|i| i * 31 % n_vocab).collect();
        engine.reset();
        let start = Instant::now();
        let count = if phase == 0 {
            for &token in tokens.iter().take(DECODE) {
                engine.decode(token)?;
            }
            DECODE.min(most)
        } else {
            engine.prefill(&tokens)?;
            most
        };
        Ok(count as f64 / start.elapsed().as_secs_f64())
    }

    fn kernels(&self) -> &KernelsUsed {
        self.0.kernels()
    }
}

/// Random weights for `products`, which all stacks share; none where making them does not fit the time.
pub fn matrices(products: &[Product], deadline: Deadline<'_>) -> Vec<(Product, TernaryMatrix)> {
    let weights: usize = products.iter().map(|p| p.n * p.k).sum();
    if !deadline.allows(Duration::from_secs_f64(weights as f64 * WEIGHT_S)) {
        return Vec::new();
    }
    let all = products.iter();
    all.map(|&p| (p, verify::matrix(p))).collect()
}

/// Builds contestants in their order as long as there is time. Building may take `BUILDING` of it, and the next is
/// expected to take as long as the longest before it.
///
/// # Errors
/// Of the first that cannot be built.
pub fn gather<'n, E>(
    builds: Vec<(&'n str, Build<'_, E>)>,
    deadline: Deadline<'_>,
) -> Result<Contestants<'n>, E> {
    let building = deadline.within(deadline.left().mul_f64(BUILDING));
    let (mut all, mut longest) = (Vec::new(), Duration::ZERO);
    for (name, build) in builds {
        if !building.allows(longest) {
            break;
        }
        let began = building.now();
        all.push((name, build()?));
        longest = longest.max(building.now() - began);
    }
    Ok(all)
}

/// Runs all contestants in turn until `deadline`, or until `rounds` were run, and judges: `tuned` keeps a phase unless
/// another is faster by more than the noise. No judgement of fewer than two contestants, or of fewer than `FEWEST`
/// rounds.
///
/// # Errors
/// When a model cannot run.
///
/// # Panics
/// When none is called `tuned`.
pub fn judge(
    contestants: &mut [(&str, Box<dyn Contestant>)],
    threads: usize,
    rounds: usize,
    deadline: Deadline<'_>,
) -> Result<Vec<Phase>, DecoderError> {
    let mut speeds = vec![[const { Vec::new() }; 2]; contestants.len()];
    let (mut whole, mut longest) = (0, Duration::ZERO);
    'rounds: while whole < rounds && contestants.len() > 1 && deadline.allows(longest) {
        let began = deadline.now();
        // In turn, so that a machine that slows down or speeds up meets all alike.
        for ((_, contestant), speeds) in contestants.iter_mut().zip(&mut speeds) {
            for (phase, speeds) in speeds.iter_mut().enumerate() {
                if deadline.left().is_zero() {
                    break 'rounds;
                }
                speeds.push(contestant.tokens_per_s(phase)?);
            }
        }
        whole += 1;
        longest = longest.max(deadline.now() - began);
    }
    if whole < FEWEST {
        return Ok(Vec::new());
    }
    let phases = PHASES.iter().enumerate().map(|(phase, name)| {
        let middle = |speeds: &[Vec<f64>; 2]| median(speeds[phase][..whole].to_vec());
        let by_name: BTreeMap<String, f64> = contestants
            .iter()
            .zip(&speeds)
            .map(|((name, _), s)| ((*name).to_owned(), middle(s)))
            .collect();
        Phase {
            name: (*name).to_owned(),
            threads,
            batch: if phase == 0 { 1 } else { PREFILL },
            chosen: chosen(&by_name).to_owned(),
            tokens_per_s: by_name,
        }
    });
    Ok(phases.collect())
}

/// Whose kernels go in.
fn chosen(speeds: &BTreeMap<String, f64>) -> &str {
    let tuned = speeds["tuned"];
    let best = speeds.iter().max_by(|a, b| a.1.total_cmp(b.1));
    match best {
        Some((name, &speed)) if speed > FASTER * tuned => name,
        _ => "tuned",
    }
}

/// Puts the kernels of whoever won each phase into `profile`; what they were measured to do is taken from `evidence`,
/// and products that it does not know keep their entry.
pub fn apply(
    profile: &mut Profile,
    phases: &[Phase],
    contestants: &[(&str, Box<dyn Contestant>)],
    mut evidence: impl FnMut(&Entry, &bitnet_codegen::KernelSpec) -> Option<Entry>,
) {
    for phase in phases.iter().filter(|p| p.chosen != "tuned") {
        let Some((_, winner)) = contestants.iter().find(|(name, _)| *name == phase.chosen) else {
            continue;
        };
        for entry in &mut profile.entries {
            let bucket = entry.bucket.index();
            let decodes = M_BUCKETS[bucket].first == 1;
            if entry.evidence.threads != phase.threads || decodes != (phase.name == PHASES[0]) {
                continue;
            }
            let product = entry.product();
            let same = |p: &Product, b: usize| (*p, b) == (product, bucket);
            let mut theirs = winner.kernels().iter().filter(|((p, b), _)| same(p, *b));
            if let Some((_, Choice { spec, .. })) = theirs.next()
                && *spec != entry.spec
                && let Some(mut better) = evidence(entry, spec)
            {
                better.evidence.end = format!("whole token: {}", phase.chosen);
                *entry = better;
            }
        }
    }
    profile.phases.extend(phases.iter().cloned());
}

/// One line about a phase.
pub fn line(phase: &Phase) -> String {
    let speed = |name: &str| phase.tokens_per_s.get(name).copied();
    let tuned = speed("tuned").unwrap_or(f64::NAN);
    let others = phase
        .tokens_per_s
        .iter()
        .filter(|(name, _)| *name != "tuned");
    let others: Vec<String> = others
        .map(|(name, s)| format!("{name} {s:.1} ({:+.1} %)", (s / tuned - 1.0) * 100.0))
        .collect();
    format!(
        "{} on {} threads: tuned {tuned:.1} tokens/s, {}; the {} kernels go in",
        phase.name,
        phase.threads,
        others.join(", "),
        phase.chosen
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadline::Hand;
    use bitnet_codegen::KernelSpec;
    use bitnet_codegen::kernel::CodeFrom;
    use bitnet_runtime::network::kernels::Origin;
    use bitnet_runtime::profile::Evidence;

    struct Script {
        speeds: [f64; 2],
        used: KernelsUsed,
    }

    impl Contestant for Script {
        fn tokens_per_s(&mut self, phase: usize) -> Result<f64, DecoderError> {
            Ok(self.speeds[phase])
        }

        fn kernels(&self) -> &KernelsUsed {
            &self.used
        }
    }

    fn spec(nr: usize) -> KernelSpec {
        format!("i2s-i2s-1x{nr}c16-avx2").parse().expect("a spec")
    }

    fn script(speeds: [f64; 2], nr: usize) -> Box<dyn Contestant> {
        let product = Product {
            n: 64,
            k: 64,
            groups: None,
        };
        let choice = Choice {
            spec: spec(nr),
            origin: Origin::Estimate,
            code: CodeFrom::Emitter,
        };
        let used = (0..M_BUCKETS.len()).map(|b| ((product, b), choice.clone()));
        Box::new(Script {
            speeds,
            used: used.collect(),
        })
    }

    fn entry(bucket: usize, threads: usize) -> Entry {
        Entry {
            n: 64,
            k: 64,
            bucket: M_BUCKETS[bucket],
            spec: spec(8),
            evidence: Evidence {
                threads,
                median_ns: 1.0,
                ..Evidence::default()
            },
        }
    }

    #[test]
    fn the_fastest_of_each_phase_goes_in() {
        // Tuned is as good as untuned at decoding, and slower at prefilling.
        let mut all = [
            ("tuned", script([100.0, 90.0], 8)),
            ("untuned", script([100.5, 100.0], 16)),
            ("shipped", script([50.0, 95.0], 32)),
        ];
        let clock = Hand::default();
        let deadline = Deadline::new(&clock, Duration::from_secs(1));
        let phases = judge(&mut all, 2, 3, deadline).expect("runs");
        let chosen: Vec<&str> = phases.iter().map(|p| p.chosen.as_str()).collect();
        assert_eq!(chosen, ["tuned", "untuned"]);
        let mut profile = Profile {
            entries: vec![entry(0, 2), entry(7, 2), entry(7, 1), entry(3, 2)],
            ..Profile::default()
        };
        let known = |e: &Entry, s: &KernelSpec| {
            // Of one product nothing is known.
            let better = Entry {
                spec: s.clone(),
                ..e.clone()
            };
            (e.bucket.index() != 3).then_some(better)
        };
        apply(&mut profile, &phases, &all, known);
        let nr: Vec<usize> = profile.entries.iter().map(|e| e.spec.nr).collect();
        assert_eq!(nr, [8, 16, 8, 8]);
        assert_eq!(profile.entries[1].evidence.end, "whole token: untuned");
        assert_eq!(profile.phases, phases);
        let told = line(&phases[1]);
        assert!(
            told.contains("untuned 100.0 (+11.1 %)") && told.ends_with("the untuned kernels go in"),
            "{told}"
        );
    }

    /// Takes its time on a clock that only it turns.
    struct Slow<'c>(&'c Hand, Duration, KernelsUsed);

    impl Contestant for Slow<'_> {
        fn tokens_per_s(&mut self, _: usize) -> Result<f64, DecoderError> {
            self.0.pass(self.1);
            Ok(1.0)
        }

        fn kernels(&self) -> &KernelsUsed {
            &self.2
        }
    }

    /// Three contestants that take `build` to build and `run` to run, within `time`: how many are built, how many
    /// phases are judged, and how long it takes.
    fn within(time: u64, build: u64, run: u64) -> (usize, usize, u64) {
        let ms = Duration::from_millis;
        // Boxed contestants outlive the borrow checker's patience with locals.
        let clock: &'static Hand = Box::leak(Box::default());
        let deadline = Deadline::new(clock, ms(time));
        let builds = ["tuned", "untuned", "shipped"].map(|name| {
            let build: Build<'_, ()> = Box::new(move || {
                clock.pass(ms(build));
                Ok(Box::new(Slow(clock, ms(run), KernelsUsed::new())))
            });
            (name, build)
        });
        let mut all = gather(builds.into(), deadline).expect("built");
        let phases = judge(&mut all, 1, 9, deadline).expect("runs");
        (all.len(), phases.len(), deadline.now().as_millis() as u64)
    }

    #[test]
    fn judging_keeps_to_its_time() {
        assert_eq!(within(10_000, 100, 10), (3, 2, 300 + 9 * 60));
        // Time for some rounds, for none, for two contestants, for one, for nobody.
        assert_eq!(within(1000, 100, 50), (3, 2, 300 + 2 * 300));
        assert_eq!(within(1000, 100, 200).1, 0);
        assert_eq!(within(1000, 280, 10), (2, 2, 560 + 9 * 40));
        assert_eq!(within(1000, 700, 10), (1, 0, 700));
        assert_eq!(within(0, 100, 10), (0, 0, 0));
        for (build, run) in [(100, 200), (150, 70), (400, 10)] {
            let (.., took) = within(1000, build, run);
            assert!(took <= 1000 + run.max(build), "{build} {run}: {took}");
        }
    }
}
