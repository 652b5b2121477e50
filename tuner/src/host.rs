//! This machine: what it is, and what it was measured to do.

use crate::bound::Peaks;
use crate::peaks::{self, PeakError};
use bitnet_codegen::{Features, Isa};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// One cache of the first core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cache {
    /// 1, 2, 3, …
    pub level: u32,
    /// `Data`, `Instruction` or `Unified`.
    pub kind: String,
    /// Size.
    pub bytes: usize,
    /// Logical CPUs that share it, as the system writes it (`0-1`).
    pub shared_by: String,
}

/// What the machine is, without measuring.
#[derive(Clone, Debug)]
pub struct Host {
    /// The CPU's own name.
    pub cpu: String,
    /// What it can run.
    pub features: Features,
    /// Caches of the first core; empty where the system does not tell.
    pub caches: Vec<Cache>,
    /// Threads that this process may run at once.
    pub threads: usize,
    /// The fastest instruction set with an emitter here.
    pub isa: Isa,
}

/// What the machine was measured to do; keys are thread counts, as text (JSON has no other keys).
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measured {
    /// Read bandwidth by thread count.
    pub read_gb_per_s: BTreeMap<String, f64>,
    /// Dot-product peak by thread count.
    pub peak_gmac_per_s: BTreeMap<String, f64>,
}

/// Bytes read for a bandwidth figure: this many times the last-level cache, within the limits below.
const MEMORY_PER_CACHE: usize = 12;
const MEMORY_MIN_BYTES: usize = 128 << 20;
const MEMORY_MAX_BYTES: usize = 1 << 30;

impl Host {
    /// Looks at the machine, of whose CPU kernels may use `features`; takes milliseconds.
    pub fn probe(features: Features) -> Self {
        let root = Path::new("/sys/devices/system/cpu/cpu0/cache");
        Self {
            cpu: bitnet_runtime::profile::cpu_name(),
            features,
            caches: caches(root),
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
            isa: peaks::widest(features),
        }
    }

    /// Size of the last-level cache, 32 MiB if the system does not tell.
    pub fn last_level_bytes(&self) -> usize {
        self.caches
            .iter()
            .map(|c| c.bytes)
            .max()
            .unwrap_or(32 << 20)
    }

    /// Memory to stream so that no cache helps.
    pub fn cold_bytes(&self) -> usize {
        (self.last_level_bytes() * MEMORY_PER_CACHE).clamp(MEMORY_MIN_BYTES, MEMORY_MAX_BYTES)
    }

    /// Measures bandwidth and dot-product peak for each thread count: about two seconds each where `limit` allows,
    /// a fraction of one where it does not.
    ///
    /// # Errors
    /// [`PeakError`] when the probing loops cannot be emitted, or there are fewer threads.
    pub fn measure(&self, thread_counts: &[usize], limit: Duration) -> Result<Measured, PeakError> {
        let start = Instant::now();
        let memory = peaks::streaming_memory(self.cold_bytes());
        let mut measured = Measured::default();
        for (i, &threads) in thread_counts.iter().enumerate() {
            let until = start + limit.mul_f64((i + 1) as f64 / thread_counts.len() as f64);
            let read = peaks::read_gb_per_s(self.isa, self.features, threads, &memory, until)?;
            let dot = peaks::dot_gmac_per_s(self.isa, self.features, threads)?;
            measured.read_gb_per_s.insert(threads.to_string(), read);
            measured.peak_gmac_per_s.insert(threads.to_string(), dot);
        }
        Ok(measured)
    }
}

impl Measured {
    /// The peaks for `threads`, if measured.
    pub fn peaks(&self, threads: usize) -> Option<Peaks> {
        let key = threads.to_string();
        Some(Peaks {
            read_gb_per_s: *self.read_gb_per_s.get(&key)?,
            dot_gmac_per_s: *self.peak_gmac_per_s.get(&key)?,
        })
    }
}

fn caches(root: &Path) -> Vec<Cache> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let mut caches: Vec<Cache> = entries
        .flatten()
        .filter_map(|e| {
            let read = |name: &str| {
                Some(
                    fs::read_to_string(e.path().join(name))
                        .ok()?
                        .trim()
                        .to_owned(),
                )
            };
            Some(Cache {
                level: read("level")?.parse().ok()?,
                kind: read("type")?,
                bytes: size_bytes(&read("size")?)?,
                shared_by: read("shared_cpu_list").unwrap_or_default(),
            })
        })
        .collect();
    caches.sort_by(|a, b| (a.level, &a.kind).cmp(&(b.level, &b.kind)));
    caches
}

/// `48K`, `1M`, `512` in bytes.
fn size_bytes(text: &str) -> Option<usize> {
    let (number, unit) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(number) => (number, text.as_bytes()[text.len() - 1]),
        None => (text, b' '),
    };
    let shift = match unit {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        _ => 0,
    };
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_the_system_writes_them() {
        assert_eq!(size_bytes("48K"), Some(49152));
        assert_eq!(size_bytes("32M"), Some(33_554_432));
        assert_eq!(size_bytes("512"), Some(512));
        assert_eq!(size_bytes("x"), None);
        assert_eq!(size_bytes(&format!("{}G", usize::MAX)), None);
    }

    #[test]
    fn the_probe_names_an_instruction_set_that_runs_here() {
        let host = Host::probe(Features::detect());
        assert!(host.isa.runs_on(host.features));
        assert!(host.threads >= 1);
    }
}
