//! This machine: what it is, and what it was measured to do.

use crate::bound::Peaks;
use crate::peaks::{self, PeakError};
use crate::space::model::{Costs, Rates};
use bitnet_codegen::program::Width;
use bitnet_codegen::{Features, Isa};
use bitnet_runtime::profile::{HostRecord, Machine};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What the machine is, without measuring.
#[derive(Clone, Debug)]
pub struct Host {
    /// What its system tells.
    pub machine: Machine,
    /// What it can run.
    pub features: Features,
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
    /// Relative spread of one loop timed over and over.
    pub noise: f64,
    /// What vector operations cost, by width.
    #[serde(skip)]
    pub rates: [Rates; 3],
}

/// Bytes read for a bandwidth figure: this many times the last-level cache, within the limits below.
const MEMORY_PER_CACHE: usize = 12;
const MEMORY_MIN_BYTES: usize = 128 << 20;
const MEMORY_MAX_BYTES: usize = 1 << 30;

/// Bytes of memory for each second that measuring may take: touching them for the first time takes time, too.
const MEMORY_BYTES_PER_S: f64 = 500e6;

impl Host {
    /// Looks at the machine, of whose CPU kernels may use `features`; takes milliseconds.
    pub fn probe(features: Features) -> Self {
        Self {
            machine: Machine::probe(),
            features,
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
            isa: peaks::widest(features),
        }
    }

    /// Size of the last-level cache, 32 MiB if the system does not tell.
    pub fn last_level_bytes(&self) -> usize {
        self.machine.last_level_bytes().unwrap_or(32 << 20)
    }

    /// Memory to stream so that no cache helps.
    pub fn cold_bytes(&self) -> usize {
        (self.last_level_bytes() * MEMORY_PER_CACHE).clamp(MEMORY_MIN_BYTES, MEMORY_MAX_BYTES)
    }

    /// Measures bandwidth and dot-product peak for each thread count: about half a second each where `limit` allows, a
    /// fraction of it where it does not; and the costs of vector operations.
    ///
    /// # Errors
    /// [`PeakError`] when the probing loops cannot be emitted, or there are fewer threads.
    pub fn measure(&self, thread_counts: &[usize], limit: Duration) -> Result<Measured, PeakError> {
        let start = Instant::now();
        let affordable = (limit.as_secs_f64() * MEMORY_BYTES_PER_S) as usize;
        let bytes = self.cold_bytes().min(affordable.max(MEMORY_MIN_BYTES));
        let memory = peaks::streaming_memory(bytes);
        let mut measured = Measured {
            rates: peaks::rates(self.features)?,
            noise: peaks::noise(self.isa, self.features)?,
            ..Measured::default()
        };
        for (i, &threads) in thread_counts.iter().enumerate() {
            let until = start + limit.mul_f64((i + 1) as f64 / thread_counts.len() as f64);
            let read = peaks::read_gb_per_s(self.isa, self.features, threads, &memory, until)?;
            let dot = peaks::dot_gmac_per_s(self.isa, self.features, threads)?;
            measured.read_gb_per_s.insert(threads.to_string(), read);
            measured.peak_gmac_per_s.insert(threads.to_string(), dot);
        }
        Ok(measured)
    }

    /// What the cost model needs of the machine.
    pub fn costs(&self, measured: &Measured) -> Costs {
        let read = measured.read_gb_per_s.iter();
        Costs {
            rates: measured.rates,
            read_gb_per_s: read
                .filter_map(|(t, &gb)| Some((t.parse().ok()?, gb)))
                .collect(),
            l1_bytes: self.machine.l1_bytes().unwrap_or(32 << 10),
        }
    }

    /// The machine as a profile records it.
    pub fn record(&self, measured: &Measured) -> HostRecord {
        HostRecord {
            machine: self.machine.clone(),
            features: self.features.iter().map(|f| f.name().to_owned()).collect(),
            read_gb_per_s: measured.read_gb_per_s.clone(),
            peak_gmac_per_s: measured.peak_gmac_per_s.clone(),
        }
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

/// The constants of the cost model by name, as profiles and recordings keep them: `w64.load = 0.27`.
pub fn named_costs(costs: &Costs) -> BTreeMap<String, f64> {
    let mut named = BTreeMap::from([("l1_bytes".to_owned(), costs.l1_bytes as f64)]);
    for (width, rates) in Width::ALL.into_iter().zip(&costs.rates) {
        for (name, value) in Rates::NAMES.into_iter().zip(rates.values()) {
            named.insert(format!("w{}.{name}", width.bytes()), value);
        }
    }
    let read = costs.read_gb_per_s.iter();
    named.extend(read.map(|(threads, &gb)| (format!("read.{threads}"), gb)));
    named
}

/// The inverse of [`named_costs`]; `None` where one is missing.
pub fn costs_of(named: &BTreeMap<String, f64>) -> Option<Costs> {
    let mut costs = Costs {
        l1_bytes: *named.get("l1_bytes")? as usize,
        ..Costs::default()
    };
    for (width, rates) in Width::ALL.into_iter().zip(&mut costs.rates) {
        let mut values = [0.0; Rates::NAMES.len()];
        for (value, name) in values.iter_mut().zip(Rates::NAMES) {
            *value = *named.get(&format!("w{}.{name}", width.bytes()))?;
        }
        *rates = Rates::from_values(values);
    }
    for (name, &gb) in named {
        if let Some(threads) = name.strip_prefix("read.") {
            costs.read_gb_per_s.insert(threads.parse().ok()?, gb);
        }
    }
    Some(costs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_names_an_instruction_set_that_runs_here() {
        let host = Host::probe(Features::detect());
        assert!(host.isa.runs_on(host.features));
        assert!(host.threads >= 1);
    }

    #[test]
    fn costs_have_names() {
        let costs = crate::space::model::tests::machine();
        let mut named = named_costs(&costs);
        assert_eq!(costs_of(&named), Some(costs));
        named.remove("w64.load");
        assert_eq!(costs_of(&named), None);
    }
}
