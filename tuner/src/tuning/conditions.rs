//! The circumstances of tuning: how the read bandwidth moved, and what else makes timings doubtful.

use crate::host::{Host, Measured};
use crate::peaks::Probe;
use crate::sampler::median;
use crate::surroundings::{Load, doubts};
use bitnet_runtime::profile::Conditions;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often the read bandwidth is looked at.
pub const PROBE_EVERY: Duration = Duration::from_millis(1500);

/// The last looks that a peak is the middle of.
const PROBE_LOOKS: usize = 5;

/// Bytes of one look.
pub const PROBE_BYTES: usize = 64 << 20;

/// The read bandwidth as it was looked at, by number of threads.
#[derive(Default)]
pub struct Looks {
    /// What each look found.
    pub by_threads: BTreeMap<usize, Vec<f64>>,
    /// When the last was.
    pub last: Option<Duration>,
}

impl Looks {
    /// Looks at what `threads` read now; who cannot look keeps what was found before.
    pub fn look(&mut self, probe: &Probe, threads: usize) {
        if let Ok(gb) = probe.read_gb_per_s(threads) {
            self.by_threads.entry(threads).or_default().push(gb);
        }
    }

    /// The middle of the last looks.
    pub fn recent(&self, threads: usize) -> Option<f64> {
        let all = self.by_threads.get(&threads)?;
        Some(median(
            all[all.len().saturating_sub(PROBE_LOOKS)..].to_vec(),
        ))
    }

    /// Least and most.
    pub fn range(&self, threads: usize) -> Option<(f64, f64)> {
        let all = self.by_threads.get(&threads)?;
        let least = all.iter().copied().fold(f64::INFINITY, f64::min);
        Some((least, all.iter().copied().fold(0.0, f64::max)))
    }
}

/// The circumstances, in figures and words.
pub fn conditions(
    host: &Host,
    measured: &Measured,
    threads: &[usize],
    budget: Duration,
    load: Load,
    looks: &Looks,
) -> Conditions {
    let most = threads.iter().copied().max().unwrap_or(1);
    let mut notes = doubts(&host.machine, load, measured.noise, most);
    for &t in threads {
        if let Some((least, best)) = looks.range(t)
            && best > 1.1 * least
        {
            notes.push(format!(
                "{t} threads read between {least:.1} and {best:.1} GB/s while tuning: fractions of the roofline are of the minute that they were measured in"
            ));
        }
    }
    Conditions {
        budget_s: budget.as_secs_f64(),
        noise: measured.noise,
        other_load: load.others + load.stolen,
        notes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_codegen::Features;
    use bitnet_runtime::profile::{Profile, parse, render};

    #[test]
    fn a_burnt_core_is_said_and_recorded() {
        let host = Host::probe(Features::NONE);
        let measured = Measured {
            noise: 0.01,
            ..Measured::default()
        };
        let made = |others: f64| {
            let load = Load {
                others,
                stolen: 0.0,
            };
            let (looks, budget) = (Looks::default(), Duration::from_secs(10));
            let conditions = conditions(&host, &measured, &[1, 2], budget, load, &looks);
            let profile = Profile {
                conditions,
                ..Profile::default()
            };
            parse(&render(&profile)).expect("own output").conditions
        };
        let busy = made(0.5);
        let says = |c: &Conditions| c.notes.iter().any(|n| n.contains("other processes took"));
        assert_eq!(busy.other_load, 0.5);
        assert!(says(&busy) && busy.notes[0].contains("50 %"), "{busy:?}");
        assert!(!says(&made(0.01)));
    }
}
