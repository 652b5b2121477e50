//! Hardware profiles: which kernel won for which shape on which machine, and the evidence.
//!
//! A profile is advice. A missing, broken, stale or foreign one costs speed and is said aloud once;
//! it never changes a result and never stops a load. Kernels are named by their text, never by number.

mod find;
mod machine;
mod schema;

pub use find::{Found, SHIPPED, ShippedProfile, Source, find, read, user_path};
pub use machine::cpu_name;
pub use schema::{ProfileError, parse, render, save};

use bitnet_codegen::{Features, Groups, KernelSpec};
use std::collections::BTreeMap;
use std::fmt;

/// Token counts that share a kernel choice: from `first` up to the next bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MBucket {
    /// The smallest M of the bucket.
    pub first: usize,
}

/// The buckets: decode, then powers of two up to full prefill tiles.
pub const M_BUCKETS: &[MBucket] = &[
    MBucket { first: 1 },
    MBucket { first: 2 },
    MBucket { first: 4 },
    MBucket { first: 8 },
    MBucket { first: 16 },
    MBucket { first: 32 },
    MBucket { first: 64 },
    MBucket { first: 128 },
];

impl MBucket {
    /// The bucket of `m` tokens.
    ///
    /// # Panics
    /// When `m` is 0.
    pub fn of(m: usize) -> Self {
        assert!(m > 0, "a product has tokens");
        *M_BUCKETS
            .iter()
            .rev()
            .find(|b| b.first <= m)
            .expect("the first bucket starts at 1")
    }

    /// Its place in [`M_BUCKETS`].
    pub fn index(self) -> usize {
        M_BUCKETS
            .iter()
            .position(|b| *b == self)
            .expect("a bucket of the list")
    }
}

impl fmt::Display for MBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match M_BUCKETS.get(self.index() + 1) {
            Some(next) if next.first == self.first + 1 => write!(f, "{}", self.first),
            Some(next) => write!(f, "{}-{}", self.first, next.first - 1),
            None => write!(f, "{}+", self.first),
        }
    }
}

/// The machine that a profile was measured on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostRecord {
    /// The CPU's own name.
    pub cpu: String,
    /// Names of the features that kernels may use.
    pub features: Vec<String>,
    /// Sizes of the caches in bytes, nearest first.
    pub caches_bytes: Vec<usize>,
    /// Read bandwidth by thread count.
    pub read_gb_per_s: BTreeMap<String, f64>,
    /// Dot-product peak by thread count.
    pub peak_gmac_per_s: BTreeMap<String, f64>,
}

/// Why a kernel was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Tokens that it was timed with.
    pub m: usize,
    /// Threads.
    pub threads: usize,
    /// Whether weights were streamed from memory.
    pub cold: bool,
    /// Median time of the product.
    pub median_ns: f64,
    /// Median absolute deviation.
    pub mad_ns: f64,
    /// Timings behind the median.
    pub samples: usize,
    /// Packed weights read per second.
    pub gb_per_s: f64,
    /// Multiply-accumulates per second.
    pub gmac_per_s: f64,
    /// Fraction of the measured roofline.
    pub roofline_fraction: f64,
    /// Candidates that were verified and timed.
    pub timed: usize,
    /// Candidates that do not exist on the machine.
    pub unsupported: usize,
    /// The best other candidate and its median time.
    pub runner_up: Option<(KernelSpec, f64)>,
    /// Why the search ended.
    pub end: String,
}

/// One choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Token counts.
    pub bucket: MBucket,
    /// The winner.
    pub spec: KernelSpec,
    /// Why.
    pub evidence: Evidence,
}

/// A machine's choices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Version of the generator that made the kernels.
    pub generator: String,
    /// When it was made, as text (`2026-11-20`).
    pub date: String,
    /// The machine.
    pub host: HostRecord,
    /// The choices.
    pub entries: Vec<Entry>,
    /// Kernel names that this build does not know (a newer generator's); kept to be told.
    pub unknown: Vec<String>,
}

/// The generator of this build.
pub const GENERATOR: &str = env!("CARGO_PKG_VERSION");

/// How a profile fits this machine and build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// This CPU, these features, this generator.
    Exact,
    /// Another machine, but every kernel runs here.
    Compatible,
    /// This machine, but made by another version of the generator, or naming kernels that are gone.
    Stale,
    /// Kernels that this CPU cannot run.
    Foreign,
}

impl State {
    /// The word that the tools print.
    pub fn name(self) -> &'static str {
        match self {
            State::Exact => "exact",
            State::Compatible => "compatible",
            State::Stale => "stale",
            State::Foreign => "foreign",
        }
    }
}

/// How an entry answers a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The very shape and bucket.
    Exact,
    /// The nearest shape or bucket.
    Nearest,
}

impl Profile {
    /// How the profile fits a machine called `cpu` with `features`, and why.
    pub fn state(&self, cpu: &str, features: Features) -> (State, String) {
        if let Some(e) = self.entries.iter().find(|e| !e.spec.isa.runs_on(features)) {
            return (
                State::Foreign,
                format!("{} needs {}, which this CPU lacks", e.spec, e.spec.isa),
            );
        }
        if let Some(name) = self.unknown.first() {
            return (
                State::Stale,
                format!("kernel {name} is not known to generator {GENERATOR}"),
            );
        }
        if self.generator != GENERATOR {
            return (
                State::Stale,
                format!("made by generator {}, this is {GENERATOR}", self.generator),
            );
        }
        let here: Vec<String> = features.iter().map(|f| f.name().to_owned()).collect();
        if self.host.cpu != cpu {
            return (
                State::Compatible,
                format!("measured on {:?}, this is {cpu:?}", self.host.cpu),
            );
        }
        if self.host.features != here {
            return (
                State::Compatible,
                "the same CPU with other features".to_owned(),
            );
        }
        (State::Exact, format!("measured on this {cpu}"))
    }

    /// The choice for a product: the very entry, else the nearest shape in the bucket, else the
    /// nearest bucket. Only kernels that run on `features`.
    pub fn choose(
        &self,
        n: usize,
        k: usize,
        m: usize,
        groups: Option<Groups>,
        features: Features,
    ) -> Option<(&Entry, Match)> {
        let bucket = MBucket::of(m);
        let far = |a: usize, b: usize| (a.max(1) as f64 / b.max(1) as f64).ln().abs();
        let distance = |e: &Entry| {
            let buckets = e.bucket.index().abs_diff(bucket.index()) as f64;
            // A bucket away weighs more than any ratio of shapes.
            buckets * 100.0 + far(e.n, n) + far(e.k, k)
        };
        self.entries
            .iter()
            .filter(|e| e.spec.isa.runs_on(features))
            .filter(|e| Groups::of(&e.spec).ok().flatten() == groups)
            .min_by(|a, b| distance(a).total_cmp(&distance(b)))
            .map(|e| {
                let exact = e.n == n && e.k == k && e.bucket == bucket;
                (e, if exact { Match::Exact } else { Match::Nearest })
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_codegen::Isa;

    fn entry(n: usize, k: usize, first: usize, isa: Isa) -> Entry {
        Entry {
            n,
            k,
            bucket: MBucket { first },
            spec: KernelSpec::new("i2s", "i2s", 1, 32, 16, isa),
            evidence: Evidence {
                m: first,
                threads: 2,
                cold: true,
                median_ns: 1000.5,
                mad_ns: 1.0,
                samples: 9,
                gb_per_s: 30.0,
                gmac_per_s: 120.0,
                roofline_fraction: 0.7,
                timed: 12,
                unsupported: 3,
                runner_up: Some((KernelSpec::new("dense", "dense", 1, 32, 20, isa), 1100.0)),
                end: "complete".into(),
            },
        }
    }

    fn sample() -> Profile {
        Profile {
            generator: GENERATOR.into(),
            date: "2026-11-20".into(),
            host: HostRecord {
                cpu: "Test CPU".into(),
                features: vec![],
                caches_bytes: vec![49152],
                ..HostRecord::default()
            },
            entries: vec![
                entry(2560, 2560, 1, Isa::Interp),
                entry(6912, 2560, 1, Isa::Interp),
                entry(2560, 2560, 64, Isa::Interp),
                entry(9999, 9999, 1, Isa::Avx512Vbmi),
            ],
            unknown: vec![],
        }
    }

    #[test]
    fn buckets_cover_every_token_count() {
        for m in 1..400 {
            let b = MBucket::of(m);
            assert!(b.first <= m);
            assert!(
                M_BUCKETS
                    .get(b.index() + 1)
                    .is_none_or(|next| m < next.first)
            );
        }
        assert_eq!(MBucket::of(3).to_string(), "2-3");
        assert_eq!(MBucket::of(1).to_string(), "1");
        assert_eq!(MBucket::of(500).to_string(), "128+");
    }

    #[test]
    fn the_nearest_entry_answers_and_foreign_kernels_do_not() {
        let p = sample();
        let choose = |n, k, m| {
            p.choose(n, k, m, None, Features::NONE)
                .map(|(e, how)| (e.n, e.bucket.first, how))
        };
        assert_eq!(choose(6912, 2560, 1), Some((6912, 1, Match::Exact)));
        assert_eq!(choose(8000, 2500, 1), Some((6912, 1, Match::Nearest)));
        assert_eq!(
            choose(9999, 9999, 1),
            Some((6912, 1, Match::Nearest)),
            "needs AVX-512"
        );
        assert_eq!(choose(2560, 2560, 200), Some((2560, 64, Match::Nearest)));
        assert_eq!(
            Profile::default().choose(1, 1, 1, None, Features::NONE),
            None
        );
    }

    #[test]
    fn a_profile_survives_its_file() {
        let p = sample();
        assert_eq!(parse(&render(&p)).expect("own output parses"), p);
    }

    #[test]
    fn states_are_told_apart() {
        let state = |p: &Profile, cpu: &str| p.state(cpu, Features::NONE).0;
        let mut p = sample();
        assert_eq!(state(&p, "Test CPU"), State::Foreign);
        p.entries.pop();
        assert_eq!(state(&p, "Test CPU"), State::Exact);
        assert_eq!(state(&p, "Other CPU"), State::Compatible);
        p.generator = "0.0.1".into();
        assert_eq!(state(&p, "Test CPU"), State::Stale);
        p.generator = GENERATOR.into();
        p.unknown.push("warp-i2s-1x1c1-avx4096".into());
        assert_eq!(state(&p, "Test CPU"), State::Stale);
    }
}
