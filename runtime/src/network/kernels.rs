//! Which kernel serves a product: the one forced by name, else the profile's, else the nearest the profile
//! knows, else an estimate, down to the interpreter. An answer always exists, and never depends on a clock.
//!
//! Code comes from a pack, if there is one, else from an emitter, and each kernel is compared with the oracle once for
//! each spec and K: what answers otherwise is dropped, and the next source asked. A profile may name another panel for
//! every bucket of token counts; each panel is a copy of the weights, so no layer gets more than [`MAX_PACKINGS`].
//!
//! Where the system refuses memory for code, or the build has no emitter, what no pack has is interpreted, and
//! [`Kernels::into_no_code`] says why.

use crate::graph::Product;
use crate::network::KernelsUsed;
use crate::network::estimates::estimates;
use crate::network::head::HeadForm;
use crate::network::linear::{BUCKETS, ByBucket};
use crate::network::source::Sources;
use crate::pack::Pack;
use crate::profile::{M_BUCKETS, Match, Profile};
use bitnet_codegen::coded::{self, CodedKernel, Form};
use bitnet_codegen::kernel::CodeFrom;
use bitnet_codegen::{Features, Groups, Isa, Kernel, KernelError, KernelSet, KernelSpec};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use crate::network::source::NoCode;

/// Copies of a layer's weights, each packed for other kernels.
pub const MAX_PACKINGS: usize = 2;

/// Where a choice comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Named by the user.
    Forced,
    /// Measured for this very product.
    Profile,
    /// Measured for the nearest product.
    Nearest,
    /// Not measured.
    Estimate,
}

impl Origin {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forced => "forced",
            Self::Profile => "profile",
            Self::Nearest => "nearest",
            Self::Estimate => "estimate",
        }
    }
}

/// The kernel of a product and a number of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The kernel.
    pub spec: KernelSpec,
    /// Why this one.
    pub origin: Origin,
    /// Where its code comes from.
    pub code: CodeFrom,
}

/// Why a kernel that was asked for cannot be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "kernel {spec} cannot run with {k} input features: {why}; `bitnet-tune list` prints what can"
)]
pub struct ForcedError {
    /// The name.
    pub spec: KernelSpec,
    /// Input features.
    pub k: usize,
    /// The reason.
    pub why: KernelError,
}

/// The kernels of one process.
pub struct Kernels {
    cpu: Features,
    profile: Profile,
    threads: usize,
    forced: Option<KernelSpec>,
    head: Option<HeadForm>,
    sources: Sources,
    /// `None` where a spec cannot be built.
    built: HashMap<(KernelSpec, usize), Option<Arc<Kernel>>>,
    notes: Vec<String>,
    used: KernelsUsed,
}

impl Kernels {
    /// Chooses by `profile` (empty to estimate) for `cpu`, a subset of what this CPU has.
    pub fn new(cpu: Features, profile: Profile) -> Self {
        Self::of(cpu, profile, KernelSet::new(cpu))
    }

    /// The same for a CPU that need not be this one: the kernels are there to be written down, and never run.
    pub fn ahead(cpu: Features, profile: Profile) -> Self {
        Self::of(cpu, profile, KernelSet::ahead(cpu))
    }

    fn of(cpu: Features, profile: Profile, source: KernelSet) -> Self {
        Self {
            cpu,
            profile,
            threads: 1,
            forced: None,
            head: None,
            sources: Sources::new(source),
            built: HashMap::new(),
            notes: Vec::new(),
            used: BTreeMap::new(),
        }
    }

    /// Chooses for products on `threads`.
    pub fn on_threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// Uses `spec` for everything.
    pub fn forced(cpu: Features, spec: KernelSpec) -> Self {
        Self {
            forced: Some(spec),
            ..Self::new(cpu, Profile::default())
        }
    }

    /// Asks `pack` for code before anybody else.
    pub fn with_pack(mut self, pack: &Pack) -> Self {
        self.sources.ask_first(self.cpu, pack.library());
        self
    }

    /// Uses `form` for the LM head; without, what suits its table.
    pub fn with_head(mut self, form: Option<HeadForm>) -> Self {
        self.head = form;
        self
    }

    /// The form of the LM head that was asked for.
    pub fn head(&self) -> Option<HeadForm> {
        self.head
    }

    /// The features that kernels may use.
    pub fn cpu(&self) -> Features {
        self.cpu
    }

    /// The kernels of a product for every bucket of token counts.
    ///
    /// # Errors
    /// [`ForcedError`], only when a kernel was forced.
    pub fn by_bucket(&mut self, product: Product) -> Result<ByBucket, ForcedError> {
        let mut chosen: [Option<Arc<Kernel>>; BUCKETS] = Default::default();
        // Decoding and long prompts come first; the buckets between take what these leave.
        let order = [0, BUCKETS - 1].into_iter().chain((1..BUCKETS - 1).rev());
        for bucket in order {
            let (kernel, origin) = self.choose(product, M_BUCKETS[bucket].first)?;
            let fits = {
                let mut panels: Vec<_> = chosen.iter().flatten().map(panel_key).collect();
                panels.push(panel_key(&kernel));
                panels.sort_unstable();
                panels.dedup();
                panels.len() <= MAX_PACKINGS
            };
            let (kernel, origin) = if fits {
                (kernel, origin)
            } else {
                let nearest = (0..BUCKETS)
                    .filter(|&b| chosen[b].is_some())
                    .min_by_key(|&b| b.abs_diff(bucket))
                    .expect("decoding was chosen first");
                let kernel = chosen[nearest].clone().expect("a chosen bucket");
                (kernel, Origin::Nearest)
            };
            let choice = Choice {
                spec: kernel.spec().clone(),
                origin,
                code: kernel.code_from(),
            };
            self.used.insert((product, bucket), choice);
            chosen[bucket] = Some(kernel);
        }
        Ok(chosen.map(|kernel| kernel.expect("every bucket was chosen")))
    }

    /// The kernel for a product of `m` tokens.
    ///
    /// # Errors
    /// [`ForcedError`], only when a kernel was forced.
    pub fn choose(
        &mut self,
        product: Product,
        m: usize,
    ) -> Result<(Arc<Kernel>, Origin), ForcedError> {
        let Product { n, k, groups } = product;
        // A kernel that is asked for stands for the same with the groups of the product, or without any.
        let with = |spec: KernelSpec| match (groups, Groups::of(&spec)) {
            (Some(groups), Ok(None)) => {
                let mr = spec.mr.div_ceil(groups.planes);
                groups.name(KernelSpec { mr, ..spec })
            }
            (Some(groups), Ok(Some(_))) => groups.name(spec),
            (None, Ok(Some(_))) => Groups::unname(spec),
            (None, Ok(None)) | (_, Err(_)) => spec,
        };
        if let Some(spec) = self.forced.clone().map(with) {
            if let Some(Some(kernel)) = self.built.get(&(spec.clone(), k)) {
                return Ok((Arc::clone(kernel), Origin::Forced));
            }
            return match self.sources.kernel(&spec, k) {
                Ok(kernel) => {
                    self.built.insert((spec, k), Some(Arc::clone(&kernel)));
                    Ok((kernel, Origin::Forced))
                }
                Err(why) => Err(ForcedError { spec, k, why }),
            };
        }
        let found = self.profile.choose(product, m, self.threads, self.cpu);
        if let Some((entry, how)) = found {
            let (spec, origin) = match how {
                Match::Exact => (entry.spec.clone(), Origin::Profile),
                Match::Nearest => (entry.spec.clone(), Origin::Nearest),
            };
            let measured = (entry.k == k).then_some(entry.evidence.code).flatten();
            if let Some(kernel) = self.get(&spec, k) {
                let emitted = kernel.spec().isa != Isa::Interp && kernel.code_bytes() > 0;
                if emitted && measured.is_some_and(|code| code != kernel.code_digest()) {
                    self.note(format!(
                        "{spec} for K = {k} was measured with other code than this build makes: the entry is stale"
                    ));
                }
                return Ok((kernel, origin));
            }
            if self.sources.no_code.is_none() {
                self.note(format!(
                    "{spec} for K = {k} is not used, another kernel takes its place"
                ));
            }
        }
        let estimate = estimates(self.cpu, product, m).find_map(|spec| self.get(&spec, k));
        let kernel =
            estimate.unwrap_or_else(|| panic!("no kernel for {m}x{n}x{k}, not even interpreted"));
        Ok((kernel, Origin::Estimate))
    }

    /// What was chosen.
    pub fn used(&self) -> &KernelsUsed {
        &self.used
    }

    /// Every kernel that was built on the way to the choices, those that no layer has room for among them, by name and K.
    pub fn built(&self) -> Vec<&Arc<Kernel>> {
        let mut built: Vec<_> = self.built.values().flatten().collect();
        built.sort_by_key(|kernel| (kernel.spec(), kernel.k()));
        built
    }

    /// What is to be said aloud: kernels of the profile or the pack that are not used, or not what was measured, and
    /// what the pack has not got; each once.
    pub fn notes(&self) -> Vec<String> {
        self.notes
            .iter()
            .cloned()
            .chain(self.sources.notes())
            .collect()
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Why kernels are interpreted although this CPU could run code, if any is.
    pub fn into_no_code(self) -> Option<NoCode> {
        self.sources.no_code
    }

    fn get(&mut self, spec: &KernelSpec, k: usize) -> Option<Arc<Kernel>> {
        let key = (spec.clone(), k);
        if let Some(known) = self.built.get(&key) {
            return known.clone();
        }
        let built = self.sources.kernel(spec, k);
        let built = built.map_err(|why| self.sources.remember(why)).ok();
        self.built.insert(key, built.clone());
        built
    }

    /// The product of tables of `form` with `k` columns: the default tile of the best instruction set that has one.
    pub(crate) fn coded(&mut self, form: &'static Form, k: usize) -> Option<CodedKernel> {
        let cpu = self.cpu;
        let mut isas = Isa::ALL
            .iter()
            .rev()
            .filter(|isa| **isa != Isa::Interp && isa.runs_on(cpu));
        isas.find_map(|&isa| {
            let plan = coded::plan(&coded::default_spec(form, isa), k).ok()?;
            let built = self.sources.coded(plan);
            built.map_err(|why| self.sources.remember(why)).ok()
        })
    }
}

fn panel_key(kernel: &Arc<Kernel>) -> (&'static str, usize, usize) {
    let panel = kernel.panel();
    (panel.layout.name(), panel.shape.nr, panel.shape.kr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Entry, Evidence, MBucket};

    fn entry(n: usize, k: usize, first: usize, spec: &str) -> Entry {
        Entry {
            n,
            k,
            bucket: MBucket { first },
            spec: spec.parse().expect("a spec"),
            evidence: Evidence {
                m: first,
                threads: 1,
                median_ns: 1.0,
                ..Evidence::default()
            },
        }
    }

    fn plain(n: usize, k: usize) -> Product {
        let groups = None;
        Product { n, k, groups }
    }

    fn interpreted(entries: Vec<Entry>) -> Kernels {
        let profile = Profile {
            entries,
            ..Profile::default()
        };
        Kernels::new(Features::NONE, profile)
    }

    #[test]
    fn the_profile_answers_then_its_nearest_entry_then_the_estimate() {
        let decode = "i2s-i2s-1x16c16-interp-f1-u1";
        let mut kernels = interpreted(vec![entry(64, 96, 1, decode)]);
        let (kernel, origin) = kernels.choose(plain(64, 96), 1).expect("an answer");
        assert_eq!(
            (kernel.spec().to_string().as_str(), origin),
            (decode, Origin::Profile)
        );
        let (kernel, origin) = kernels.choose(plain(100, 100), 1).expect("an answer");
        assert_eq!(
            (kernel.spec().to_string().as_str(), origin),
            (decode, Origin::Nearest)
        );
        assert_eq!(kernel.k(), 100);
        let (kernel, origin) = interpreted(vec![])
            .choose(plain(100, 100), 9)
            .expect("an answer");
        assert_eq!((kernel.spec().isa, origin), (Isa::Interp, Origin::Estimate));
    }

    #[test]
    fn an_entry_that_cannot_be_built_is_passed_over() {
        // Seven rows are no multiple of any vector.
        let mut kernels = interpreted(vec![entry(64, 96, 1, "i2s-i2s-1x7c16-interp")]);
        let (_, origin) = kernels.choose(plain(64, 96), 1).expect("an answer");
        assert_eq!(origin, Origin::Estimate);
        kernels.choose(plain(64, 96), 1).expect("an answer");
        let notes = kernels.notes();
        let [note] = &notes[..] else {
            panic!("said once: {notes:?}");
        };
        assert!(note.contains("i2s-i2s-1x7c16-interp"), "{note}");
    }

    #[test]
    fn a_forced_kernel_is_used_for_all_or_refused_with_its_reason() {
        let spec: KernelSpec = "i2s-i2s-2x8c16-interp-f1".parse().expect("a spec");
        let mut kernels = Kernels::forced(Features::NONE, spec.clone());
        let all = kernels.by_bucket(plain(33, 70)).expect("it exists");
        assert!(all.iter().all(|k| *k.spec() == spec));
        let bad: KernelSpec = "i2s-i2s-1x7c16-interp".parse().expect("a spec");
        let e = Kernels::forced(Features::NONE, bad)
            .by_bucket(plain(33, 70))
            .err()
            .expect("refused");
        assert!(e.to_string().contains("i2s-i2s-1x7c16-interp"), "{e}");
    }

    #[test]
    fn a_layer_is_packed_a_few_times_at_most() {
        let spec = |nr: usize| format!("i2s-i2s-1x{nr}c16-interp-f1-u1");
        let entries = M_BUCKETS
            .iter()
            .enumerate()
            .map(|(i, b)| entry(64, 96, b.first, &spec(4 * (i + 1))));
        let mut kernels = interpreted(entries.collect());
        let all = kernels.by_bucket(plain(64, 96)).expect("an answer");
        let mut panels: Vec<_> = all.iter().map(panel_key).collect();
        assert_eq!(panels[0].1, 4, "decoding gets its own");
        assert_eq!(panels[BUCKETS - 1].1, 4 * BUCKETS, "and so do long prompts");
        panels.sort_unstable();
        panels.dedup();
        assert_eq!(panels.len(), MAX_PACKINGS);
        assert_eq!(kernels.used().len(), BUCKETS);
    }

    #[test]
    fn entries_answer_for_products_with_their_groups() {
        let (without, with) = (
            "i2s-i2s-1x16c16-interp-f1-u1",
            "i2s-i2s-1x8c16-interp-f1-g32-p1-s16-u1",
        );
        let spec: KernelSpec = with.parse().expect("a spec");
        let groups = Groups::of(&spec).expect("knobs that exist");
        let mut kernels = interpreted(vec![entry(64, 96, 1, without)]);
        let mut origin = |entry| {
            kernels.profile.entries.extend(entry);
            let product = Product {
                groups,
                ..plain(64, 96)
            };
            let choice = kernels.choose(product, 1);
            let (kernel, origin) = choice.expect("an answer");
            assert_eq!(kernel.groups(), groups);
            origin
        };
        assert_eq!(origin(None), Origin::Estimate);
        assert_eq!(origin(Some(entry(64, 96, 1, with))), Origin::Profile);
        let (kernel, _) = kernels.choose(plain(64, 96), 1).expect("an answer");
        assert_eq!(kernel.spec().to_string(), without);
    }

    /// Without any feature, too, and however groups are cut and stored.
    #[test]
    fn there_is_a_kernel_for_every_group() {
        use bitnet_codegen::layout::scales::{GroupScales, Stored};
        use bitnet_codegen::variant::groups::{GROUP_STEP, MAX_K};
        let mut kernels = interpreted(vec![]);
        for k in (GROUP_STEP..=MAX_K).step_by(GROUP_STEP) {
            for stored in [Stored::F16, Stored::F32] {
                for planes in [1, 2] {
                    let scales = GroupScales { k, stored };
                    let groups = Some(Groups { scales, planes });
                    let product = Product {
                        groups,
                        ..plain(70, 288)
                    };
                    let all = kernels.by_bucket(product).expect("kernels");
                    assert!(all.iter().all(|k| k.groups() == groups), "{groups:?}");
                }
            }
        }
    }

    #[test]
    fn the_estimate_of_this_cpu_is_not_interpreted_where_an_emitter_exists() {
        let cpu = Features::detect();
        for m in [1, 4, 8, 200] {
            let spec = estimates(cpu, plain(256, 256), m)
                .next()
                .expect("a first guess");
            let (kernel, _) = Kernels::new(cpu, Profile::default())
                .choose(plain(256, 256), m)
                .expect("an answer");
            println!("m{m}: first guess {spec}, built {}", kernel.spec());
            let emitted = Isa::ALL.iter().any(|i| {
                *i != Isa::Interp && i.runs_on(cpu) && bitnet_codegen::backend::for_isa(*i).is_ok()
            });
            assert!(
                !emitted || kernel.spec().isa != Isa::Interp,
                "m{m}: {}",
                kernel.spec()
            );
        }
    }
}
