//! Hardware profiles: which kernel won for which shape on which machine, and the evidence.
//!
//! A profile is advice. A missing, broken, stale or foreign one costs speed and is said aloud once;
//! it never changes a result and never stops a load. Kernels are named by their text, never by number.

mod find;
mod machine;
mod schema;
mod state;

pub(crate) use find::path_in_environment;
pub use find::{
    Found, SHIPPED, ShippedProfile, Source, find, find_shipped, of_pack, read, user_path,
};
pub use machine::{Cache, Machine, cpu_name};
pub use schema::{ProfileError, parse, render, save};
pub use state::State;

use crate::graph::Product;
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
    /// What it is.
    pub machine: Machine,
    /// Names of the features that kernels may use: detected, and proven by running kernels that need them.
    pub features: Vec<String>,
    /// Read bandwidth by thread count.
    pub read_gb_per_s: BTreeMap<String, f64>,
    /// Dot-product peak by thread count.
    pub peak_gmac_per_s: BTreeMap<String, f64>,
}

/// Why a kernel was chosen.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// The 95 % interval of the median; both 0 in old profiles.
    pub interval_ns: (f64, f64),
    /// Timings behind the median.
    pub samples: usize,
    /// Packed weights read per second.
    pub gb_per_s: f64,
    /// Multiply-accumulates per second.
    pub gmac_per_s: f64,
    /// Fraction of the roofline, measured in the same minute.
    pub roofline_fraction: f64,
    /// What the cost model expected; 0 in old profiles.
    pub predicted_ns: f64,
    /// How much slower the model's first guess and the best of its first eight guesses are than the best.
    pub regret: Option<(f64, f64)>,
    /// Candidates that were verified and timed.
    pub timed: usize,
    /// Candidates that do not exist on the machine.
    pub unsupported: usize,
    /// The best other candidate and its median time.
    pub runner_up: Option<(KernelSpec, f64)>,
    /// Candidates that cannot be told from the winner, which has the least name of them.
    pub tied: Vec<KernelSpec>,
    /// A digest of the kernel's code; `None` in old profiles.
    pub code: Option<u64>,
    /// Why the search ended, or where the choice came from if not from a search.
    pub end: String,
}

/// An entry with fewer samples than this is thin.
pub const ENOUGH_SAMPLES: usize = 10;

impl Evidence {
    /// Whether there are too few samples to rely on.
    pub fn is_thin(&self) -> bool {
        self.samples < ENOUGH_SAMPLES
    }
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
    /// Why; its `threads` are part of the question that the entry answers.
    pub evidence: Evidence,
}

impl Entry {
    /// The product that the entry answers for: its groups stand in the kernel's name.
    pub fn product(&self) -> Product {
        Product {
            n: self.n,
            k: self.k,
            groups: Groups::of(&self.spec).ok().flatten(),
        }
    }

    /// The question that the entry answers: product, token counts, threads.
    pub fn question(&self) -> (Product, MBucket, usize) {
        (self.product(), self.bucket, self.evidence.threads)
    }
}

/// Under which circumstances a profile was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// Seconds that all searches together were given.
    pub budget_s: f64,
    /// Relative spread of one timing repeated: what no difference below it can be trusted.
    pub noise: f64,
    /// Share of the CPUs that other processes, or other guests of the machine, took.
    pub other_load: f64,
    /// What else is to be said, one line each.
    pub notes: Vec<String>,
}

/// What a whole token or prompt was measured to take under three sets of kernels, and the choice that follows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Phase {
    /// `decode` or `prefill`.
    pub name: String,
    /// Threads that it was measured with.
    pub threads: usize,
    /// Tokens of a batch; 1 for decoding.
    pub batch: usize,
    /// Whose kernels are in the profile: `tuned`, `untuned` or `shipped`.
    pub chosen: String,
    /// Tokens per second by whose kernels they were.
    pub tokens_per_s: BTreeMap<String, f64>,
}

/// A machine's choices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Version of the generator that made the kernels.
    pub generator: String,
    /// When it was made, as text (`2026-11-20`).
    pub date: String,
    /// Whether the cost model made it from a description of the machine: times in it are expected ones, and nothing was
    /// measured.
    pub is_estimate: bool,
    /// The machine.
    pub host: HostRecord,
    /// The circumstances.
    pub conditions: Conditions,
    /// The constants of the cost model, by name, in nanoseconds.
    pub costs: BTreeMap<String, f64>,
    /// Whole tokens and prompts.
    pub phases: Vec<Phase>,
    /// The choices.
    pub entries: Vec<Entry>,
    /// Kernel names that this build does not know (a newer generator's); kept to be told.
    pub unknown: Vec<String>,
}

/// The generator of this build.
pub const GENERATOR: &str = env!("CARGO_PKG_VERSION");

/// How an entry answers a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The very shape and bucket.
    Exact,
    /// The nearest shape or bucket.
    Nearest,
}

/// Buckets that an entry may be away from the tokens it answers for.
const NEAR_BUCKETS: usize = 2;

impl Profile {
    /// The choice for a product on `threads`: the very entry, else the nearest shape in the bucket, else the
    /// nearest bucket, if it is near: what decodes best is no answer for long prompts. Another number of threads
    /// weighs less than another shape. Only kernels that run on `features`, and only those with the groups of the
    /// product: scales change which family is fastest.
    pub fn choose(
        &self,
        product: Product,
        m: usize,
        threads: usize,
        features: Features,
    ) -> Option<(&Entry, Match)> {
        let bucket = MBucket::of(m);
        let far = |a: usize, b: usize| (a.max(1) as f64 / b.max(1) as f64).ln().abs();
        let distance = |e: &Entry| {
            let buckets = e.bucket.index().abs_diff(bucket.index()) as f64;
            // A bucket away weighs more than any ratio of shapes.
            buckets * 100.0
                + far(e.n, product.n)
                + far(e.k, product.k)
                + 0.1 * far(e.evidence.threads, threads)
        };
        self.entries
            .iter()
            .filter(|e| e.spec.isa.runs_on(features))
            .filter(|e| e.product().groups == product.groups)
            .filter(|e| e.bucket.index().abs_diff(bucket.index()) <= NEAR_BUCKETS)
            .min_by(|a, b| distance(a).total_cmp(&distance(b)))
            .map(|e| {
                let exact = e.product() == product && e.bucket == bucket;
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
                interval_ns: (990.25, 1010.5),
                samples: 9,
                gb_per_s: 30.0,
                gmac_per_s: 120.0,
                roofline_fraction: 0.7,
                predicted_ns: 900.0,
                regret: Some((0.25, 0.0)),
                timed: 12,
                unsupported: 3,
                runner_up: Some((KernelSpec::new("dense", "dense", 1, 32, 20, isa), 1100.0)),
                tied: vec![KernelSpec::new("i2s", "i2s", 1, 64, 16, isa)],
                code: Some(u64::MAX - 1),
                end: "complete".into(),
            },
        }
    }

    fn plain(n: usize, k: usize) -> Product {
        let groups = None;
        Product { n, k, groups }
    }

    fn sample() -> Profile {
        Profile {
            generator: GENERATOR.into(),
            date: "2026-11-20".into(),
            is_estimate: true,
            host: HostRecord {
                machine: Machine {
                    quota_cpus: Some(1.5),
                    ..Machine::probe()
                },
                features: vec!["avx2".into()],
                read_gb_per_s: [("1".to_owned(), 30.5)].into(),
                peak_gmac_per_s: [("1".to_owned(), 235.0)].into(),
            },
            conditions: Conditions {
                budget_s: 120.0,
                noise: 0.03,
                other_load: 0.5,
                notes: vec!["another process took half of the machine".into()],
            },
            costs: [("w64.load".to_owned(), 0.25)].into(),
            phases: vec![Phase {
                name: "decode".into(),
                threads: 2,
                batch: 1,
                chosen: "tuned".into(),
                tokens_per_s: [("tuned".to_owned(), 30.0)].into(),
            }],
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
            p.choose(plain(n, k), m, 2, Features::NONE)
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
        let decode_only = Profile {
            entries: vec![entry(2560, 2560, 1, Isa::Interp)],
            ..Profile::default()
        };
        let long = decode_only.choose(plain(2560, 2560), 200, 2, Features::NONE);
        assert_eq!(long, None, "what decodes best is no answer");
        assert_eq!(
            Profile::default().choose(plain(1, 1), 1, 1, Features::NONE),
            None
        );
    }

    #[test]
    fn a_profile_survives_its_file() {
        let p = sample();
        assert_eq!(parse(&render(&p)).expect("own output parses"), p);
    }

    #[test]
    fn the_entry_of_the_nearest_number_of_threads_answers() {
        let mut p = sample();
        let mut other = entry(2560, 2560, 1, Isa::Interp);
        other.evidence.threads = 1;
        other.spec.nr = 16;
        p.entries.push(other);
        let nr = |threads| {
            let found = p.choose(plain(2560, 2560), 1, threads, Features::NONE);
            found.map(|(e, how)| (e.spec.nr, how))
        };
        assert_eq!(nr(1), Some((16, Match::Exact)));
        assert_eq!(nr(2), Some((32, Match::Exact)));
        assert_eq!(nr(8), Some((32, Match::Exact)), "nearer than another shape");
    }
}
