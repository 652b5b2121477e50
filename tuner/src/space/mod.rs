//! The space of one product: every candidate that this machine could run, best guess first, without proving or
//! emitting one.
//!
//! A structure (a spec without what only moves prefetches and index loads about) is planned once for each K and
//! counted; every product with that K predicts from the counts. Specs that make the same programs for the same
//! kind of encoder are one candidate under the name that asks least of the CPU; the others are its twins.

pub mod count;
pub mod learn;
pub mod model;

use bitnet_codegen::variant::VARIANTS;
use bitnet_codegen::{Groups, Isa, KernelSpec, plan, space};
use model::{Case, Costs, Estimate, Sketch, predict};
use std::collections::HashMap;
use std::sync::Arc;

/// One kernel that could serve the product.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The spec.
    pub spec: KernelSpec,
    /// How long it should take.
    pub estimate: Estimate,
    /// Bytes of packed weights that a product reads.
    pub weight_bytes: usize,
}

/// The candidates of one product, best guess first.
#[derive(Clone, Debug)]
pub struct Space {
    /// The product.
    pub case: Case,
    candidates: Vec<Candidate>,
    places: HashMap<KernelSpec, usize>,
}

/// Knobs that change neither counts nor structure: the cost model does not see them.
pub const LOOSE_KNOBS: [&str; 2] = ["a", "pf"];

/// A spec with what it asks for.
type Listed = (KernelSpec, Arc<Sketch>);

/// The specs of one (M, K, groups): those that differ, and twins by the place of the one that stands for them.
struct Listing {
    listed: Vec<Listed>,
    twins: Vec<(KernelSpec, usize)>,
}

/// Whether a spec is to be looked at.
pub type Keep = dyn Fn(&KernelSpec) -> bool;

/// What a listing is of: M, K and the groups of columns.
type Asked = (usize, usize, Option<Groups>);

/// What has been counted so far, shared by all products.
pub struct Atlas {
    keep: Box<Keep>,
    sketches: HashMap<(KernelSpec, usize), Option<Arc<Sketch>>>,
    listings: HashMap<Asked, Arc<Listing>>,
}

impl Atlas {
    /// Of the specs that `keep` keeps; instruction sets that do not run here must not be among them.
    pub fn new(keep: Box<Keep>) -> Self {
        Self {
            keep,
            sketches: HashMap::new(),
            listings: HashMap::new(),
        }
    }

    /// The space of `case` on a machine of `costs`.
    pub fn space(&mut self, case: Case, costs: &Costs) -> Space {
        let listing = self.listing((case.problem.m, case.problem.k, case.groups));
        let mut order: Vec<(usize, Estimate)> = listing
            .listed
            .iter()
            .map(|(spec, sketch)| predict(spec, sketch, &case, costs))
            .enumerate()
            .collect();
        order.sort_by(|(i, a), (j, b)| {
            let names = || listing.listed[*i].0.cmp(&listing.listed[*j].0);
            a.ns.total_cmp(&b.ns).then_with(names)
        });
        let mut place_of = vec![0; order.len()];
        let candidates: Vec<Candidate> = order
            .into_iter()
            .enumerate()
            .map(|(place, (i, estimate))| {
                place_of[i] = place;
                let (spec, sketch) = &listing.listed[i];
                Candidate {
                    spec: spec.clone(),
                    estimate,
                    weight_bytes: sketch.weight_bytes(spec, case.problem.n),
                }
            })
            .collect();
        let own = candidates.iter().enumerate();
        let own = own.map(|(place, c)| (c.spec.clone(), place));
        let twins = listing.twins.iter();
        let twins = twins.map(|(spec, i)| (spec.clone(), place_of[*i]));
        Space {
            places: own.chain(twins).collect(),
            case,
            candidates,
        }
    }

    fn listing(&mut self, asked: Asked) -> Arc<Listing> {
        if let Some(known) = self.listings.get(&asked) {
            return Arc::clone(known);
        }
        let mut listing = self.list(asked, |isa| isa != Isa::Interp);
        if listing.listed.is_empty() {
            // The last resort.
            listing = self.list(asked, |isa| isa == Isa::Interp);
            listing.listed.truncate(1);
            listing.twins.clear();
        }
        let listing = Arc::new(listing);
        self.listings.insert(asked, Arc::clone(&listing));
        listing
    }

    fn list(&mut self, (m, k, groups): Asked, wanted: impl Fn(Isa) -> bool) -> Listing {
        let mut listing = Listing {
            listed: Vec::new(),
            twins: Vec::new(),
        };
        let mut first: HashMap<(&'static str, u64, KernelSpec), usize> = HashMap::new();
        for &family in VARIANTS {
            // The instruction sets that ask for least come first, and stand for their twins.
            for &isa in Isa::ALL.iter().filter(|&&i| wanted(i)) {
                for spec in space::of_product(family, isa, m, groups).unwrap_or_default() {
                    // Tiles of more tokens than there are would only run their tails.
                    if spec.mr > m.next_power_of_two() || !(self.keep)(&spec) {
                        continue;
                    }
                    let Some(sketch) = self.sketch(&spec, k) else {
                        continue;
                    };
                    let mut nameless = spec.clone();
                    nameless.isa = Isa::Interp;
                    let place = listing.listed.len();
                    let twin = *first
                        .entry((encoder(isa), sketch.digest, nameless))
                        .or_insert(place);
                    if twin == place {
                        listing.listed.push((spec, sketch));
                    } else {
                        listing.twins.push((spec, twin));
                    }
                }
            }
        }
        listing
    }

    fn sketch(&mut self, spec: &KernelSpec, k: usize) -> Option<Arc<Sketch>> {
        let mut structure = spec.clone();
        for knob in LOOSE_KNOBS {
            if let Some(value) = structure.knobs.get_mut(knob) {
                *value = 0;
            }
        }
        self.sketches
            .entry((structure, k))
            .or_insert_with_key(|(spec, k)| {
                let plan = plan(spec, *k).ok()?;
                Some(Arc::new(Sketch::of(&plan)))
            })
            .clone()
    }
}

/// What turns programs of `isa` into code: equal programs make equal code only under the same.
fn encoder(isa: Isa) -> &'static str {
    match isa {
        Isa::Interp => "none",
        Isa::Ssse3 => "sse",
        Isa::Avx128 | Isa::Vnni128 => "vex128",
        Isa::Avx2 | Isa::AvxVnni => "vex256",
        Isa::Avx512Bw | Isa::Avx512Vnni | Isa::Avx512Vbmi => "evex",
        Isa::Neon | Isa::Sdot | Isa::Usdot => "neon",
        Isa::Rvv => "rvv",
    }
}

impl Space {
    /// A space of given candidates, in their order.
    pub fn of(case: Case, candidates: Vec<Candidate>) -> Self {
        let places = candidates.iter().enumerate();
        Self {
            case,
            places: places.map(|(i, c)| (c.spec.clone(), i)).collect(),
            candidates,
        }
    }

    /// The candidates, best guess first; their places are their numbers.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The candidate that `spec` or a twin of it is.
    pub fn find(&self, spec: &KernelSpec) -> Option<usize> {
        self.places.get(spec).copied()
    }

    /// The candidates that stand for other names.
    pub fn twins(&self) -> HashMap<KernelSpec, KernelSpec> {
        let all = self
            .places
            .iter()
            .map(|(name, &id)| (name, &self.candidates[id].spec));
        let twins = all.filter(|(name, stands)| name != stands);
        twins
            .map(|(name, stands)| (name.clone(), stands.clone()))
            .collect()
    }

    /// Candidates that differ from `id` in one axis: layout, tile, instruction set or a knob.
    pub fn neighbours(&self, id: usize) -> Vec<usize> {
        let from = &self.candidates[id].spec;
        let near = |c: &Candidate| c.spec.variant == from.variant && distance(&c.spec, from) == 1;
        let all = self.candidates.iter().enumerate();
        all.filter(|(_, c)| near(c)).map(|(i, _)| i).collect()
    }

    /// The candidate of `spec`'s family that is most like it.
    pub fn nearest(&self, spec: &KernelSpec) -> Option<usize> {
        self.find(spec).or_else(|| {
            let all = self.candidates.iter().enumerate();
            all.filter(|(_, c)| c.spec.variant == spec.variant)
                .min_by_key(|(_, c)| distance(&c.spec, spec))
                .map(|(i, _)| i)
        })
    }
}

/// Axes in which two specs of one family differ.
fn distance(a: &KernelSpec, b: &KernelSpec) -> usize {
    let tile = usize::from(a.mr != b.mr) + usize::from(a.nr != b.nr) + usize::from(a.kr != b.kr);
    let knobs = a.knobs.iter();
    let knobs = knobs.filter(|(name, v)| b.knobs.get(*name) != Some(*v));
    let kind = usize::from(a.layout != b.layout) + usize::from(a.isa != b.isa);
    tile + kind + knobs.count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_codegen::Features;
    use bitnet_codegen::layout::scales::{GroupScales, Stored};
    use bitnet_runtime::graph::Product;
    use std::collections::HashSet;

    fn case(m: usize, k: usize) -> Case {
        grouped(m, k, None)
    }

    fn grouped(m: usize, k: usize, groups: Option<Groups>) -> Case {
        let product = Product { n: 256, k, groups };
        Case::new(product, m, 1, true)
    }

    fn x86(spec: &KernelSpec) -> bool {
        spec.isa.arch() == bitnet_codegen::isa::Arch::X86_64
    }

    #[test]
    fn every_structure_is_planned_once_and_each_name_has_one_candidate() {
        let mut atlas = Atlas::new(Box::new(x86));
        let costs = model::tests::machine();
        for (m, specs) in [(1, 300..1200), (128, 1500..6000)] {
            let space = atlas.space(case(m, 256), &costs);
            let n = space.candidates().len();
            assert!(specs.contains(&n), "{n} candidates for {m} tokens");
            let names: HashSet<_> = space.candidates().iter().map(|c| &c.spec).collect();
            assert_eq!(names.len(), n);
            for pair in space.candidates().windows(2) {
                assert!(
                    pair[0].estimate.ns <= pair[1].estimate.ns,
                    "best guess first"
                );
            }
            let families: HashSet<_> = names.iter().map(|s| &s.variant).collect();
            assert!(families.len() >= 5, "{families:?}");
        }
        let planned = atlas.sketches.len();
        atlas.space(case(128, 256), &costs);
        assert_eq!(atlas.sketches.len(), planned);
    }

    #[test]
    fn products_with_groups_have_candidates_with_those_groups() {
        let mut atlas = Atlas::new(Box::new(x86));
        let costs = model::tests::machine();
        for (planes, m) in [(1, 1), (2, 1), (1, 128), (2, 128)] {
            let (k, stored) = (128, Stored::F16);
            let scales = GroupScales { k, stored };
            let groups = Some(Groups { scales, planes });
            let space = atlas.space(grouped(m, 300, groups), &costs);
            let own = |c: &Candidate| Groups::of(&c.spec).expect("its own name") == groups;
            assert!(space.candidates().len() > 50 && space.candidates().iter().all(own));
            let families: HashSet<_> = space.candidates().iter().map(|c| &c.spec.variant).collect();
            let known = VARIANTS.iter().filter(|v| v.has_groups()).count();
            assert!(families.len() == known || m > 1, "{families:?} of {known}");
            let finite = |c: &Candidate| c.estimate.ns.is_finite() && c.weight_bytes > 0;
            assert!(space.candidates().iter().all(finite));
        }
    }

    #[test]
    fn a_twin_is_found_under_the_name_that_asks_least() {
        let mut atlas = Atlas::new(Box::new(x86));
        let space = atlas.space(case(128, 256), &model::tests::machine());
        let find = |isa: &str| {
            let text = format!("vlut-lut4-32x256c32-{isa}-a0-pf0-u8");
            space
                .find(&text.parse().expect("a spec"))
                .expect("it exists")
        };
        assert_eq!(find("avx512bw"), find("avx512vbmi"));
        let stands = &space.candidates()[find("avx512vnni")];
        assert_eq!(stands.spec.isa, Isa::Avx512Bw);
    }

    #[test]
    fn twins_make_the_same_code() {
        let cpu = Features::detect();
        let runs = move |s: &KernelSpec| s.isa.runs_on(cpu);
        let listing = Atlas::new(Box::new(runs)).list((128, 256, None), |isa| isa != Isa::Interp);
        let emit = |spec: &KernelSpec| {
            let set = bitnet_codegen::KernelSet::build(vec![plan(spec, 256).ok()?], cpu).ok()?;
            Some(set.kernels()[0].code_digest())
        };
        for (twin, of) in listing.twins.iter().step_by(37) {
            assert_eq!(emit(twin), emit(&listing.listed[*of].0), "{twin}");
        }
    }

    #[test]
    fn one_instruction_set_alone_has_candidates() {
        // Its programs are twins of others' programs, but nobody else is there.
        let only = |s: &KernelSpec| s.isa == Isa::Ssse3;
        let space = Atlas::new(Box::new(only)).space(case(1, 256), &model::tests::machine());
        assert!(space.candidates().len() > 20);
        assert!(space.candidates().iter().all(|c| only(&c.spec)));
        let nothing = |s: &KernelSpec| s.isa == Isa::Interp;
        let space = Atlas::new(Box::new(nothing)).space(case(1, 256), &model::tests::machine());
        assert_eq!(
            space.candidates().len(),
            1,
            "the interpreter is the last resort"
        );
    }

    #[test]
    fn neighbours_differ_in_one_axis() {
        let mut atlas = Atlas::new(Box::new(x86));
        let space = atlas.space(case(1, 256), &model::tests::machine());
        let i2s = "i2s-i2s-1x32c16-avx512vnni-f0-pf0-u2";
        let id = space
            .find(&i2s.parse().expect("a spec"))
            .expect("it exists");
        let near = space.neighbours(id);
        // Two more of each of nr, f and u, three of pf; other instruction sets as far as they make other programs.
        assert!((9..=12).contains(&near.len()), "{}", near.len());
        assert!(!near.contains(&id));
        let unknown: KernelSpec = "i2s-i2s-1x32c16-avx512vnni-f0-pf1-u2"
            .parse()
            .expect("a spec");
        assert_eq!(space.find(&unknown), None);
        assert!(space.nearest(&unknown).is_some());
    }
}
