//! Recordings of whole search spaces: every candidate of one product with its timings, so that the search can be
//! played again anywhere, any number of times, without a clock. `tests/landscapes/` holds some.

use crate::host::{costs_of, named_costs};
use crate::search::{Bench, ENOUGH, Rejection};
use crate::space::model::{Case, Costs};
use crate::space::{Atlas, Space};
use bitnet_codegen::isa::Feature;
use bitnet_codegen::problem::MAX_K;
use bitnet_codegen::{Features, Groups, KernelSpec};
use bitnet_runtime::graph::Product;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Timings of a candidate that is not far from the best.
const FEW: usize = 3;

/// Timings of one that is near it.
const MANY: usize = 20;

/// Near the best, and not far from it: within these factors of its fastest.
const NEAR: f64 = 1.25;
const FAR: f64 = 2.0;

/// Products beyond these are not recorded.
const MAX_TOKENS: usize = 1 << 16;
const MAX_WEIGHTS: usize = 1 << 32;
const MAX_THREADS: usize = 4096;

/// One product's recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Landscape {
    /// The machine, in words.
    pub machine: String,
    /// When it was recorded, `2026-11-24`.
    pub date: String,
    /// The product.
    pub case: Case,
    /// What kernels could use.
    pub features: Features,
    /// What the machine was measured to give.
    pub costs: Costs,
    /// Timings in nanoseconds by candidate.
    pub samples: BTreeMap<KernelSpec, Vec<f64>>,
}

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("not a recording: {0}")]
pub struct LandscapeError(String);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    machine: String,
    date: String,
    m: usize,
    n: usize,
    k: usize,
    threads: usize,
    cold: bool,
    features: Vec<String>,
    costs: BTreeMap<String, f64>,
    samples: BTreeMap<String, Vec<f64>>,
}

impl Landscape {
    /// Reads a recording's text.
    ///
    /// # Errors
    /// [`LandscapeError`].
    pub fn parse(text: &str) -> Result<Self, LandscapeError> {
        let bad = |why: String| LandscapeError(why);
        let file: File = toml::from_str(text).map_err(|e| bad(e.to_string()))?;
        if file.version != 1 {
            return Err(bad(format!("version {}, expected 1", file.version)));
        }
        let weights = file.n.checked_mul(file.k);
        let is_product = (1..=MAX_TOKENS).contains(&file.m)
            && (1..=MAX_K).contains(&file.k)
            && weights.is_some_and(|w| (1..=MAX_WEIGHTS).contains(&w))
            && (1..=MAX_THREADS).contains(&file.threads);
        if !is_product {
            let (m, n, k, threads) = (file.m, file.n, file.k, file.threads);
            return Err(bad(format!(
                "{m} x {n} x {k} on {threads} threads is no product that is recorded"
            )));
        }
        let features = Feature::ALL.iter().copied();
        let features = features.filter(|f| file.features.iter().any(|name| name == f.name()));
        let samples = file.samples.into_iter().map(|(name, ns)| {
            let spec = name.parse::<KernelSpec>().map_err(|e| bad(e.to_string()))?;
            if ns.is_empty() || ns.iter().any(|ns| !(ns.is_finite() && *ns > 0.0)) {
                return Err(bad(format!("{name}: {ns:?} are no times")));
            }
            Ok((spec, ns))
        });
        let samples: BTreeMap<KernelSpec, Vec<f64>> = samples.collect::<Result<_, _>>()?;
        let of = |spec: &KernelSpec| Groups::of(spec).map_err(|e| bad(e.to_string()));
        let mut groups = samples.keys().map(of);
        let first = groups.next().transpose()?.flatten();
        for other in groups {
            if other? != first {
                return Err(bad(
                    "its kernels are of products with different groups".into()
                ));
            }
        }
        let (n, k, groups) = (file.n, file.k, first);
        Ok(Self {
            machine: file.machine,
            date: file.date,
            case: Case::new(Product { n, k, groups }, file.m, file.threads, file.cold),
            features: features.collect(),
            costs: costs_of(&file.costs).ok_or_else(|| bad("a cost is missing".into()))?,
            samples,
        })
    }

    /// The text of the recording: times rounded to three digits, which is less than they vary.
    ///
    /// # Panics
    /// Never: every field has a TOML form.
    pub fn render(&self) -> String {
        let file = File {
            version: 1,
            machine: self.machine.clone(),
            date: self.date.clone(),
            m: self.case.problem.m,
            n: self.case.problem.n,
            k: self.case.problem.k,
            threads: self.case.threads,
            cold: self.case.cold,
            features: self.features.iter().map(|f| f.name().to_owned()).collect(),
            costs: named_costs(&self.costs),
            samples: BTreeMap::new(),
        };
        let mut text = toml::to_string(&file).expect("a recording has a TOML form");
        for (spec, ns) in &self.samples {
            let ns: Vec<String> = ns.iter().map(|&ns| format!("{:?}", rounded(ns))).collect();
            let _ = writeln!(text, "{spec} = [{}]", ns.join(", "));
        }
        text
    }

    /// The space that was recorded, as this build enumerates it.
    pub fn space(&self) -> Space {
        let features = self.features;
        let mut atlas = Atlas::new(Box::new(move |s| s.isa.runs_on(features)));
        atlas.space(self.case, &self.costs)
    }

    /// The middle of a candidate's timings; `None` if it was not recorded.
    pub fn median_ns(&self, spec: &KernelSpec) -> Option<f64> {
        let ns = self.samples.get(spec)?;
        Some(crate::sampler::median(ns.clone()))
    }

    /// The best of all candidates with as many timings as the best have, and the middle of its timings.
    pub fn best(&self) -> Option<(&KernelSpec, f64)> {
        let sure = self.samples.iter().filter(|(_, ns)| ns.len() >= MANY / 2);
        let medians = sure.map(|(spec, ns)| (spec, crate::sampler::median(ns.clone())));
        medians.min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// What the best takes.
    pub fn best_ns(&self) -> f64 {
        self.best().map_or(f64::INFINITY, |(_, ns)| ns)
    }

    /// Timings that recording everything took with as many of each candidate as an entry of a profile needs.
    pub fn timings(&self) -> usize {
        self.samples.len() * ENOUGH
    }

    /// A bench that plays the recording.
    pub fn replay<'l>(&'l self, space: &Space, seed: u64) -> Replay<'l> {
        let all = space.candidates().iter();
        Replay {
            samples: all
                .map(|c| self.samples.get(&c.spec).map(Vec::as_slice))
                .collect(),
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        }
    }
}

/// Three significant digits.
fn rounded(ns: f64) -> f64 {
    let unit = 10f64.powf(ns.log10().floor() - 2.0);
    let digits = (ns / unit).round();
    // Dividing by a whole number prints shortly where multiplying by a fraction does not.
    if unit >= 1.0 {
        digits * unit.round()
    } else {
        digits / (1.0 / unit).round()
    }
}

/// A recording as a [`Bench`]: each timing is one of the recorded ones, drawn at random.
pub struct Replay<'l> {
    samples: Vec<Option<&'l [f64]>>,
    random: u64,
}

impl Bench for Replay<'_> {
    fn prepare(&mut self, id: usize) -> Result<(), Rejection> {
        match self.samples[id] {
            Some(_) => Ok(()),
            None => Err(Rejection::NotHere("not recorded".into())),
        }
    }

    fn time(&mut self, id: usize) -> f64 {
        // xorshift64 (Marsaglia 2003).
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let ns = self.samples[id].expect("prepared");
        ns[(self.random >> 33) as usize % ns.len()]
    }
}

/// Times every candidate of `space`, in passes, so that a machine that changes meets all alike: all of them once, those
/// not far from the best a few times, those near it until they have many. `told(done, of)` is called now and then and
/// answers whether to go on.
pub fn record(
    space: &Space,
    bench: &mut impl Bench,
    told: &mut dyn FnMut(usize, usize) -> bool,
) -> BTreeMap<KernelSpec, Vec<f64>> {
    let candidates = space.candidates();
    let mut samples: Vec<Vec<f64>> = vec![Vec::new(); candidates.len()];
    // Candidates with the same panel follow one another, so that weights are packed once for each.
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|&id| {
        let s = &candidates[id].spec;
        (s.layout.clone(), s.nr, s.kr)
    });
    let fastest = |ns: &[f64]| ns.iter().copied().fold(f64::INFINITY, f64::min);
    let mut done = 0;
    for pass in 0..MANY {
        let best = fastest(&samples.concat());
        order.retain(|&id| match pass {
            0 => true,
            1..FEW => fastest(&samples[id]) <= best * FAR,
            _ => fastest(&samples[id]) <= best * NEAR,
        });
        for chunk in order.chunks(8) {
            if !told(done, done + order.len() * (MANY - pass)) {
                return BTreeMap::new();
            }
            done += chunk.len();
            bench.foresee(chunk);
            for &id in chunk {
                if bench.prepare(id).is_ok() {
                    samples[id].push(bench.time(id));
                    // Packing again costs less than keeping every panel.
                    bench.release(id);
                }
            }
        }
    }
    let timed = candidates.iter().zip(samples);
    timed
        .filter(|(_, ns)| !ns.is_empty())
        .map(|(c, ns)| (c.spec.clone(), ns))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Search;
    use crate::space::learn::Learner;

    fn small() -> Landscape {
        let features =
            Features::from([Feature::Ssse3, Feature::Sse41, Feature::Avx, Feature::Avx2]);
        let (n, k, groups) = (256, 256, None);
        let mut landscape = Landscape {
            machine: "a script".into(),
            date: "2026-11-24".into(),
            case: Case::new(Product { n, k, groups }, 1, 1, true),
            features,
            costs: crate::space::model::tests::machine(),
            samples: BTreeMap::new(),
        };
        struct Clock(Vec<f64>);
        impl Bench for Clock {
            fn prepare(&mut self, id: usize) -> Result<(), Rejection> {
                if id == 3 {
                    Err(Rejection::NotHere("no".into()))
                } else {
                    Ok(())
                }
            }
            fn time(&mut self, id: usize) -> f64 {
                self.0[id]
            }
        }
        let space = landscape.space();
        // What the model expects, off by up to a half.
        let all = space.candidates().iter().enumerate();
        let mut clock = Clock(
            all.map(|(i, c)| c.estimate.ns * (1.0 + (i * 7 % 11) as f64 / 20.0))
                .collect(),
        );
        landscape.samples = record(&space, &mut clock, &mut |_, _| true);
        landscape
    }

    #[test]
    fn a_recording_survives_its_file_but_for_digits() {
        let recorded = small();
        assert_eq!(
            recorded.samples.len(),
            recorded.space().candidates().len() - 1
        );
        let near = recorded
            .samples
            .values()
            .filter(|ns| ns.len() == MANY)
            .count();
        assert!(near > 0 && near < recorded.samples.len());
        let read = Landscape::parse(&recorded.render()).expect("own output parses");
        assert_eq!(read.samples.len(), recorded.samples.len());
        for (spec, ns) in &recorded.samples {
            let again = read.median_ns(spec).expect("recorded");
            assert!(
                (again / ns[0] - 1.0).abs() < 0.006,
                "{spec}: {again} of {}",
                ns[0]
            );
        }
        assert_eq!(Landscape::parse(&read.render()).expect("parses"), read);
        assert!(Landscape::parse("version = 1").is_err());
        for (from, to) in [
            ("m = 1\n", "m = 0\n"),
            ("n = 256", "n = 9999999999"),
            ("k = 256", "k = 0"),
        ] {
            let text = read.render().replacen(from, to, 1);
            let e = Landscape::parse(&text).expect_err(to).to_string();
            assert!(e.contains("no product"), "{to}: {e}");
        }
        assert_eq!((rounded(123_456.0), rounded(0.012_34)), (123_000.0, 0.0123));
    }

    #[test]
    fn the_search_plays_on_a_recording() {
        let landscape = small();
        let space = landscape.space();
        let mut bench = landscape.replay(&space, 1);
        let mut learner = Learner::default();
        let mut search = Search::new(space, 0, &[], &mut learner);
        while search.end().is_none() {
            search.step(&mut bench, &mut learner);
        }
        let out = search.outcome();
        let won = landscape
            .median_ns(&out.winner().expect("one").spec)
            .expect("recorded");
        assert!(won <= 1.03 * landscape.best_ns());
    }

    #[test]
    fn recording_may_be_stopped() {
        let landscape = small();
        let space = landscape.space();
        let mut bench = landscape.replay(&space, 1);
        assert!(record(&space, &mut bench, &mut |done, _| done < 20).is_empty());
    }
}
