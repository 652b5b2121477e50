//! The circumstances of tuning: how the read bandwidth moved, and what else makes timings doubtful.

use crate::host::{Host, Measured};
use crate::sampler::median;
use crate::surroundings::{Watch, doubts};
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
    watch: &Watch,
    looks: &Looks,
) -> Conditions {
    let load = watch.load();
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
