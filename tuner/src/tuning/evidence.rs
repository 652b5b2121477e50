//! From what a search found to the entry of a profile.

use super::Tuned;
use crate::bound::{self, Peaks};
use crate::host::Measured;
use crate::search::{Outcome, Trial};
use crate::space::model::Case;
use bitnet_codegen::{KernelSpec, Problem};
use bitnet_runtime::profile::{Entry, Evidence, M_BUCKETS, MBucket};

impl Tuned {
    /// The entry that `like` would be if `spec` had won, with what the search measured of it.
    pub fn entry_of(&self, like: &Entry, spec: &KernelSpec, measured: &Measured) -> Option<Entry> {
        let question = |c: &Case| (c.product(), MBucket::of(c.problem.m), c.threads);
        let same = |case: &Case| question(case) == like.question();
        let searched = self.outcomes.iter().find(|o| same(&o.case))?;
        let (case, outcome) = (searched.case, &searched.outcome);
        let name = searched.names.get(spec).unwrap_or(spec);
        let trial = outcome
            .trials
            .iter()
            .find(|t| t.spec == *name && t.summary.is_some())?;
        let mut entry = entry(
            &case,
            like.bucket.index(),
            trial,
            outcome,
            measured.peaks(case.threads),
        )?;
        entry.evidence.runner_up = Some((like.spec.clone(), like.evidence.median_ns));
        Some(entry)
    }
}

/// The entry of `winner`, one of the candidates of a search, if it was timed.
pub fn entry(
    case: &Case,
    bucket: usize,
    winner: &Trial,
    outcome: &Outcome,
    peaks: Option<Peaks>,
) -> Option<Entry> {
    let s = winner.summary?;
    let Problem { m, n, k } = case.problem;
    let fraction = peaks.map_or(0.0, |p| {
        bound::fraction(
            bound::floor(case.macs(), winner.weight_bytes, case.cold, p),
            s.median_ns,
        )
    });
    let regret = outcome.regret(1).zip(outcome.regret(8));
    Some(Entry {
        n,
        k,
        bucket: M_BUCKETS[bucket],
        spec: winner.spec.clone(),
        evidence: Evidence {
            m,
            threads: case.threads,
            cold: case.cold,
            median_ns: s.median_ns,
            mad_ns: s.mad_ns,
            interval_ns: s.interval_ns,
            samples: s.samples,
            gb_per_s: winner.weight_bytes as f64 / s.median_ns,
            gmac_per_s: case.macs() as f64 / s.median_ns,
            roofline_fraction: fraction,
            predicted_ns: winner.predicted_ns,
            regret,
            timed: outcome.timed(),
            unsupported: outcome.trials.len() - outcome.timed(),
            runner_up: outcome
                .runner_up()
                .and_then(|t| Some((t.spec.clone(), t.summary?.median_ns))),
            tied: outcome.trials[1..outcome.tied.max(1)]
                .iter()
                .map(|t| t.spec.clone())
                .collect(),
            code: None,
            end: outcome.end.name().into(),
        },
    })
}
