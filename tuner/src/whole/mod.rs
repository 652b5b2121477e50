//! The whole token: winners of single products against the untuned choice and the shipped one, where they belong.
//!
//! Products that win alone may lose together: panels are shared between decoding and prompts, caches are shared by
//! all. So the model's own decoding and prefilling are timed in turn under each set of kernels, and in each phase the
//! fastest goes into the profile. Tuned is then never slower than untuned, noise aside.

mod stack;

pub use stack::Stack;

use crate::sampler::median;
use bitnet_codegen::Features;
use bitnet_runtime::decoder::{Decoder as _, DecoderError};
use bitnet_runtime::engine::{Engine, EngineError, EngineOptions};
use bitnet_runtime::format::Model;
use bitnet_runtime::graph::Product;
use bitnet_runtime::network::KernelsUsed;
use bitnet_runtime::network::kernels::Kernels;
use bitnet_runtime::pool::Pool;
use bitnet_runtime::profile::{Entry, M_BUCKETS, Phase, Profile};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The phases of a model's work.
pub const PHASES: [&str; 2] = ["decode", "prefill"];

/// Tokens of the prompt that prefilling is timed with.
const PREFILL: usize = 256;

/// Tokens that decoding is timed with.
const DECODE: usize = 48;

/// Another set of kernels takes the place of the tuned ones from this factor on: below it is noise.
const FASTER: f64 = 1.015;

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
        let tokens: Vec<u32> = (0..PREFILL as u32).map(|i| i * 31 % n_vocab).collect();
        engine.reset();
        let start = Instant::now();
        let count = if phase == 0 {
            for &token in &tokens[..DECODE] {
                engine.decode(token)?;
            }
            DECODE
        } else {
            engine.prefill(&tokens)?;
            PREFILL
        };
        Ok(count as f64 / start.elapsed().as_secs_f64())
    }

    fn kernels(&self) -> &KernelsUsed {
        self.0.kernels()
    }
}

/// Runs all contestants in turn, at least twice and then until `budget` is spent or `rounds` were, and judges: `tuned`
/// keeps a phase unless another is faster by more than the noise.
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
    budget: Duration,
) -> Result<Vec<Phase>, DecoderError> {
    let start = Instant::now();
    let mut speeds = vec![[const { Vec::new() }; 2]; contestants.len()];
    for round in 0..rounds {
        if round >= 2 && start.elapsed() >= budget {
            break;
        }
        // In turn, so that a machine that slows down or speeds up meets all alike.
        for ((_, contestant), speeds) in contestants.iter_mut().zip(&mut speeds) {
            for (phase, speeds) in speeds.iter_mut().enumerate() {
                speeds.push(contestant.tokens_per_s(phase)?);
            }
        }
    }
    let phases = PHASES.iter().enumerate().map(|(phase, name)| {
        let middle = |speeds: &[Vec<f64>; 2]| median(speeds[phase].clone());
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
            let same = |p: &Product, b: usize| (p.n, p.k, b) == (entry.n, entry.k, bucket);
            let mut theirs = winner.kernels().iter().filter(|((p, b), _)| same(p, *b));
            if let Some((_, (spec, _))) = theirs.next()
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
    use bitnet_codegen::KernelSpec;
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
        let used = (0..M_BUCKETS.len()).map(|b| ((product, b), (spec(nr), Origin::Estimate)));
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
        let phases = judge(&mut all, 2, 3, Duration::ZERO).expect("runs");
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
}
