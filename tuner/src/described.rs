//! A machine that is not here, described in a file well enough for the cost model: what it can run, how fast it reads
//! memory, and how many cycles a vector operation takes of one core when many follow one another.

use crate::bound::Peaks;
use crate::host::named_costs;
use crate::space::model::{Costs, Rates};
use bitnet_codegen::program::Width;
use bitnet_codegen::{Feature, Features, Isa};
use bitnet_runtime::profile::{Cache, HostRecord, Machine};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A described machine.
#[derive(Clone, Debug)]
pub struct Described {
    /// Its name; a kind of machine more than a single one.
    pub name: String,
    /// Who made its CPU, if that matters.
    pub vendor: String,
    /// What it can run.
    pub features: Features,
    /// Numbers of threads to choose kernels for.
    pub threads: Vec<usize>,
    /// Cache sizes of one core, nearest first.
    pub caches_bytes: Vec<usize>,
    /// What the cost model needs.
    pub costs: Costs,
}

/// Why a description cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DescribedError {
    /// It is not TOML of this form.
    #[error("not a description of a machine: {0}")]
    Syntax(String),
    /// A field holds what it cannot.
    #[error("field {field}: {why}")]
    Field {
        /// Where.
        field: String,
        /// What is wrong.
        why: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    #[serde(default)]
    vendor: String,
    features: Vec<String>,
    threads: Vec<usize>,
    ghz: f64,
    caches_bytes: Vec<usize>,
    read_gb_per_s: BTreeMap<String, f64>,
    cycles: BTreeMap<String, BTreeMap<String, f64>>,
}

/// A machine has fewer threads, and nobody asks for more numbers of them.
const MAX_THREADS: usize = 4096;
const MAX_COUNTS: usize = 16;

/// Figures of any machine lie between these, whatever their unit.
const LEAST: f64 = 1e-3;
const MOST: f64 = 1e6;

fn bad(field: impl Into<String>, why: impl Into<String>) -> DescribedError {
    DescribedError::Field {
        field: field.into(),
        why: why.into(),
    }
}

/// A figure that a machine can have.
fn positive(field: &str, v: f64) -> Result<f64, DescribedError> {
    match (LEAST..=MOST).contains(&v) {
        true => Ok(v),
        false => {
            let why = format!("{v}, expected a number from {LEAST} to {MOST}");
            Err(bad(field, why))
        }
    }
}

/// What may cost nothing where other work hides it.
const HIDDEN: [&str; 2] = ["index", "turn"];

impl Described {
    /// Reads a description.
    ///
    /// # Errors
    /// [`DescribedError`].
    pub fn parse(text: &str) -> Result<Self, DescribedError> {
        let file: File = toml::from_str(text)
            .map_err(|e| DescribedError::Syntax(e.to_string().trim_end().replace('\n', " ")))?;
        let features = features(&file.features)?;
        if !Isa::ALL
            .iter()
            .any(|&isa| isa != Isa::Interp && isa.runs_on(features))
        {
            return Err(bad("features", "no instruction set runs with these alone"));
        }
        let ghz = positive("ghz", file.ghz)?;
        let mut threads = file.threads;
        threads.sort_unstable();
        threads.dedup();
        let sound = |&t: &usize| (1..=MAX_THREADS).contains(&t);
        if !(1..=MAX_COUNTS).contains(&threads.len()) || !threads.iter().all(sound) {
            let why = format!("expected 1 to {MAX_COUNTS} numbers from 1 to {MAX_THREADS}");
            return Err(bad("threads", why));
        }
        let Some(&l1_bytes) = file.caches_bytes.first().filter(|&&bytes| bytes > 0) else {
            return Err(bad("caches_bytes", "expected sizes, nearest cache first"));
        };
        let mut read_gb_per_s = BTreeMap::new();
        for (key, gb) in &file.read_gb_per_s {
            let field = format!("read_gb_per_s.{key}");
            let count = key.parse::<usize>().ok().filter(|&t| t > 0);
            let count = count.ok_or_else(|| bad(&field, "expected a number of threads"))?;
            read_gb_per_s.insert(count, positive(&field, *gb)?);
        }
        if read_gb_per_s.is_empty() {
            return Err(bad("read_gb_per_s", "expected GB/s by number of threads"));
        }
        Ok(Self {
            name: file.name,
            vendor: file.vendor,
            features,
            threads,
            caches_bytes: file.caches_bytes,
            costs: Costs {
                rates: rates(&file.cycles, features, ghz)?,
                read_gb_per_s,
                l1_bytes,
            },
        })
    }

    /// The machine as a profile records it.
    pub fn record(&self) -> HostRecord {
        let caches = self.caches_bytes.iter().enumerate();
        let caches = caches.map(|(i, &bytes)| Cache {
            level: i as u32 + 1,
            kind: if i == 0 { "Data" } else { "Unified" }.into(),
            bytes,
            shared_by: String::new(),
        });
        let by_threads = |of: fn(Peaks) -> f64| {
            let all = self.threads.iter();
            all.map(|&t| (t.to_string(), of(self.peaks(t)))).collect()
        };
        HostRecord {
            machine: Machine {
                cpu: self.name.clone(),
                vendor: self.vendor.clone(),
                caches: caches.collect(),
                ..Machine::default()
            },
            features: self.features.iter().map(|f| f.name().into()).collect(),
            read_gb_per_s: by_threads(|p| p.read_gb_per_s),
            peak_gmac_per_s: by_threads(|p| p.dot_gmac_per_s),
        }
    }

    /// What `threads` are expected to do at best; cores multiply alike.
    pub fn peaks(&self, threads: usize) -> Peaks {
        let of = |isa: Isa| {
            let r = self.costs.of(isa.width());
            let ns = match isa.has_dot() {
                true => r.dot,
                // Pairs to i16, pairs to i32, a sum.
                false => 2.0 * r.madd + r.add,
            };
            isa.width().bytes() as f64 / ns
        };
        let all = Isa::ALL.iter().copied();
        let runs = all.filter(|&isa| isa != Isa::Interp && isa.runs_on(self.features));
        Peaks {
            read_gb_per_s: self.costs.read(threads),
            dot_gmac_per_s: runs.map(of).fold(0.0, f64::max) * threads as f64,
        }
    }

    /// The constants of the cost model by name.
    pub fn named_costs(&self) -> BTreeMap<String, f64> {
        let mut named = named_costs(&self.costs);
        // Of widths that do not run here nothing was said.
        named.retain(|_, v| v.is_finite());
        named
    }
}

fn features(names: &[String]) -> Result<Features, DescribedError> {
    let known = |name: &String| Feature::ALL.iter().find(|f| f.name() == name).copied();
    let all = names.iter().map(|name| {
        known(name).ok_or_else(|| {
            let all: Vec<&str> = Feature::ALL.iter().map(|f| f.name()).collect();
            bad(
                "features",
                format!("{name:?} is none of {}", all.join(", ")),
            )
        })
    });
    all.collect()
}

/// Nanoseconds from cycles, for every width that runs; infinite for others, and for a dot product that is left out.
fn rates(
    cycles: &BTreeMap<String, BTreeMap<String, f64>>,
    features: Features,
    ghz: f64,
) -> Result<[Rates; 3], DescribedError> {
    let names = Width::ALL.map(|w| format!("w{}", w.bytes()));
    if let Some(other) = cycles.keys().find(|key| !names.contains(key)) {
        let why = format!("is none of {}", names.join(", "));
        return Err(bad(format!("cycles.{other}"), why));
    }
    let mut all = [Rates::from_values([f64::INFINITY; Rates::NAMES.len()]); 3];
    for ((width, name), slot) in Width::ALL.into_iter().zip(&names).zip(&mut all) {
        let isas = Isa::ALL.iter().filter(|i| i.width() == width);
        let runs: Vec<&Isa> = isas
            .filter(|i| **i != Isa::Interp && i.runs_on(features))
            .collect();
        if runs.is_empty() {
            continue;
        }
        let given = cycles.get(name);
        let given = given.ok_or_else(|| bad(format!("cycles.{name}"), "it is missing"))?;
        if let Some(other) = given.keys().find(|k| !Rates::NAMES.contains(&k.as_str())) {
            let why = format!("is none of {}", Rates::NAMES.join(", "));
            return Err(bad(format!("cycles.{name}.{other}"), why));
        }
        let mut values = [f64::INFINITY; Rates::NAMES.len()];
        for (value, rate) in values.iter_mut().zip(Rates::NAMES) {
            let field = format!("cycles.{name}.{rate}");
            match given.get(rate) {
                Some(&c) if c == 0.0 && HIDDEN.contains(&rate) => *value = 0.0,
                Some(&c) => *value = positive(&field, c)? / ghz,
                None if rate == "dot" && !runs.iter().any(|i| i.has_dot()) => {}
                None => return Err(bad(field, "it is missing")),
            }
        }
        *slot = Rates::from_values(values);
    }
    Ok(all)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const LAPTOP: &str = r#"
name = "a laptop"
features = ["ssse3", "sse4.1", "avx", "avx2"]
threads = [4, 1]
ghz = 2.0
caches_bytes = [32768, 262144]
read_gb_per_s = { 1 = 12.0, 4 = 20.0 }
[cycles.w16]
load = 0.5
load_l2 = 1.0
bcast = 0.5
store = 1.0
madd = 0.5
shuffle = 1.0
add = 0.34
index = 0.5
turn = 1.0
[cycles.w32]
load = 0.5
load_l2 = 1.0
bcast = 0.5
store = 1.0
madd = 0.5
shuffle = 1.0
add = 0.34
index = 0.5
turn = 1.0
"#;

    #[test]
    fn cycles_become_nanoseconds_and_peaks() {
        let d = Described::parse(LAPTOP).expect("a description");
        assert_eq!(d.threads, [1, 4]);
        let r = d.costs.of(Width::W32);
        assert_eq!((r.load, r.dot), (0.25, f64::INFINITY));
        assert_eq!(d.costs.read(2), 12.0);
        // 32 products for two multiply-adds and an addition.
        let one = 32.0 / (0.5 + 0.17);
        assert!((d.peaks(1).dot_gmac_per_s - one).abs() < 1e-9);
        assert!((d.peaks(4).dot_gmac_per_s - 4.0 * one).abs() < 1e-9);
        assert!(d.named_costs().contains_key("w32.load"));
        assert!(!d.named_costs().contains_key("w64.load"));
        assert_eq!(d.record().machine.l1_bytes(), Some(32768));
    }

    #[test]
    fn wrong_fields_are_named() {
        for (from, to, want) in [
            ("ghz = 2.0", "ghz = -1.0", "ghz"),
            ("ghz = 2.0", "ghz = nan", "ghz"),
            ("ghz = 2.0", "ghz = 1e-300", "ghz"),
            ("store = 1.0", "store = 0.0", "cycles.w16.store"),
            ("[4, 1]", "[]", "threads"),
            ("[4, 1]", "[0]", "threads"),
            ("[32768, 262144]", "[]", "caches_bytes"),
            ("\"avx2\"", "\"avx3\"", "avx3"),
            ("\"ssse3\", \"sse4.1\", \"avx\", \"avx2\"", "", "features"),
            ("{ 1 = 12.0, 4 = 20.0 }", "{}", "read_gb_per_s"),
            ("{ 1 = 12.0", "{ x = 12.0", "read_gb_per_s.x"),
            ("[cycles.w32]", "[cycles.w48]", "cycles.w48"),
            ("madd = 0.5\n", "mad = 0.5\n", "cycles.w16.mad"),
            ("madd = 0.5\n", "", "cycles.w16.madd"),
            ("\"avx2\"]", "\"avx2\", \"avx_vnni\"]", "cycles.w16.dot"),
            ("name = \"a laptop\"", "", "name"),
        ] {
            let text = LAPTOP.replacen(from, to, 1);
            let e = Described::parse(&text).expect_err(to).to_string();
            assert!(e.contains(want) && !e.contains('\n'), "{to:?}: {e}");
        }
    }
}
