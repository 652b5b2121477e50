//! The cost model: how long a product should take, from what its programs ask for ([`Counts`]) and what the
//! machine was measured to give ([`Costs`]).
//!
//! ```text
//! call    = ‖loads + indices, arithmetic, stores‖₄ + turns          ports work side by side, not perfectly
//! compute = (unpack + Σ calls) · panels of the busiest thread + preparing tokens
//! time    = ‖compute, weight bytes / bandwidth‖₃
//! ```
//! It ranks; it does not promise. What it misses is learned while timing ([`super::learn`]).

use super::count::{self, Counts};
use bitnet_codegen::acts::ActsForm;
use bitnet_codegen::program::Width;
use bitnet_codegen::{Groups, KernelSpec, Plan, Problem};
use bitnet_runtime::graph::Product;
use std::collections::BTreeMap;

/// Nanoseconds that one vector operation takes of one thread, many of them in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// A load from the first-level cache.
    pub load: f64,
    /// A load that streams from the second-level cache.
    pub load_l2: f64,
    /// A load that repeats four bytes.
    pub bcast: f64,
    /// A store.
    pub store: f64,
    /// A dot product; infinite where there is none.
    pub dot: f64,
    /// A multiply-add of pairs.
    pub madd: f64,
    /// A byte shuffle.
    pub shuffle: f64,
    /// An addition.
    pub add: f64,
    /// An index from memory, its load included, the look-up not.
    pub index: f64,
    /// A turn of a loop.
    pub turn: f64,
}

impl Rates {
    /// The names of the rates, as profiles write them.
    pub const NAMES: [&str; 10] = [
        "load", "load_l2", "bcast", "store", "dot", "madd", "shuffle", "add", "index", "turn",
    ];

    /// The rates in the order of [`Self::NAMES`].
    pub fn values(&self) -> [f64; 10] {
        [
            self.load,
            self.load_l2,
            self.bcast,
            self.store,
            self.dot,
            self.madd,
            self.shuffle,
            self.add,
            self.index,
            self.turn,
        ]
    }

    /// The inverse of [`Self::values`].
    pub fn from_values(v: [f64; 10]) -> Self {
        let [
            load,
            load_l2,
            bcast,
            store,
            dot,
            madd,
            shuffle,
            add,
            index,
            turn,
        ] = v;
        Self {
            load,
            load_l2,
            bcast,
            store,
            dot,
            madd,
            shuffle,
            add,
            index,
            turn,
        }
    }

    /// Nanoseconds of one call.
    fn call_ns(&self, c: &Counts, fits_l1: bool) -> f64 {
        let load = if fits_l1 { self.load } else { self.load_l2 };
        let memory = c.all_loads() as f64 * load
            + c.bcasts as f64 * self.bcast
            + c.indices as f64 * self.index;
        let arithmetic = times(c.dots, self.dot)
            + c.madds as f64 * self.madd
            + c.shuffles as f64 * self.shuffle
            + (c.adds + c.prefetches) as f64 * self.add;
        let stores = c.stores as f64 * self.store;
        norm(&[memory, arithmetic, stores], 4) + c.turns as f64 * self.turn
    }

    /// Nanoseconds that no call can undercut: its scarcest resource alone.
    fn least_ns(&self, c: &Counts) -> f64 {
        let alone = [
            c.all_loads() as f64 * self.load + c.bcasts as f64 * self.bcast,
            times(c.dots, self.dot),
            c.madds as f64 * self.madd,
            c.shuffles as f64 * self.shuffle,
            c.stores as f64 * self.store,
        ];
        alone.into_iter().fold(0.0, f64::max)
    }
}

/// `count · ns`, 0 for none of what cannot be had.
fn times(count: u64, ns: f64) -> f64 {
    if count == 0 { 0.0 } else { count as f64 * ns }
}

fn norm(parts: &[f64], p: i32) -> f64 {
    parts
        .iter()
        .map(|x| x.powi(p))
        .sum::<f64>()
        .powf(1.0 / f64::from(p))
}

/// What this machine gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Costs {
    /// By width, in the order of [`Width::ALL`].
    pub rates: [Rates; 3],
    /// Read bandwidth by number of threads.
    pub read_gb_per_s: BTreeMap<usize, f64>,
    /// Size of the first-level data cache.
    pub l1_bytes: usize,
}

impl Costs {
    /// The rates of `width`.
    pub fn of(&self, width: Width) -> &Rates {
        &self.rates[place(width)]
    }

    /// Read bandwidth of `threads`: measured, else that of the nearest smaller number of threads.
    pub fn read(&self, threads: usize) -> f64 {
        let below = self.read_gb_per_s.range(..=threads).next_back();
        let any = below.or_else(|| self.read_gb_per_s.iter().next());
        any.map_or(10.0, |(_, &gb)| gb)
    }
}

/// The place of `width` in [`Width::ALL`].
pub fn place(width: Width) -> usize {
    match width {
        Width::W16 => 0,
        Width::W32 => 1,
        Width::W64 => 2,
    }
}

/// What the programs of a spec ask for, for one K: all that predicting needs of a plan.
#[derive(Clone, Debug)]
pub struct Sketch {
    /// Equal for plans whose programs are equal.
    pub digest: u64,
    panel_bytes: usize,
    unpack: Option<Counts>,
    /// By tile size, largest first: counts and working bytes.
    main: Vec<(usize, Counts, usize)>,
    acts: ActsForm,
}

impl Sketch {
    /// Of a plan.
    pub fn of(plan: &Plan) -> Self {
        let programs = plan.unpack.iter().chain(plan.main.iter().map(|(_, p)| p));
        Self {
            digest: count::digest(programs),
            panel_bytes: plan.panel.bytes(),
            unpack: plan.unpack.as_ref().map(Counts::of),
            main: plan
                .main
                .iter()
                .map(|(mr, p)| (*mr, Counts::of(p), count::working_bytes(p)))
                .collect(),
            acts: plan.acts,
        }
    }

    /// Bytes of packed weights of `n` rows.
    pub fn weight_bytes(&self, spec: &KernelSpec, n: usize) -> usize {
        n.div_ceil(spec.nr) * self.panel_bytes
    }

    /// Tiles that `m` tokens are divided into: how many of each of `main`.
    fn tiles(&self, m: usize) -> Vec<usize> {
        let mut left = m;
        let mut counts: Vec<usize> = self
            .main
            .iter()
            .map(|&(mr, ..)| {
                let whole = left / mr;
                left -= whole * mr;
                whole
            })
            .collect();
        if left > 0
            && let Some(last) = counts.last_mut()
        {
            *last += 1;
        }
        counts
    }
}

/// A product, as it is to be predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case {
    /// The product.
    pub problem: Problem,
    /// The groups of its columns, where kernels apply their scales.
    pub groups: Option<Groups>,
    /// Threads.
    pub threads: usize,
    /// Whether weights come from memory.
    pub cold: bool,
}

impl Case {
    /// `m` tokens of a product.
    pub fn new(product: Product, m: usize, threads: usize, cold: bool) -> Self {
        Self {
            problem: Problem::new(m, product.n, product.k),
            groups: product.groups,
            threads,
            cold,
        }
    }

    /// The product, whatever the tokens.
    pub fn product(&self) -> Product {
        Product {
            n: self.problem.n,
            k: self.problem.k,
            groups: self.groups,
        }
    }

    /// Multiply-accumulates of bytes: one for each weight, token and plane.
    pub fn macs(&self) -> u64 {
        self.problem.macs() * self.groups.map_or(1, |g| g.planes as u64)
    }
}

/// Nanoseconds of a call into a kernel and of what the runtime does around it.
const CALL_NS: f64 = 60.0;

/// Nanoseconds to hand a job to other threads and to wait for them.
const HAND_OUT_NS: f64 = 3000.0;

/// Bytes of weights that one claim of a thread covers, as `bitnet_runtime::network::linear` hands them out.
const CLAIM_BYTES: usize = 96 << 10;

/// The predicted time, and the time that this kernel cannot undercut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Expected.
    pub ns: f64,
    /// Impossible to undercut, margins of measurement aside.
    pub floor_ns: f64,
}

/// Predicts one candidate.
pub fn predict(spec: &KernelSpec, sketch: &Sketch, case: &Case, costs: &Costs) -> Estimate {
    let Case {
        problem: Problem { m, n, k },
        threads,
        ..
    } = *case;
    let rates = costs.of(spec.isa.width());
    let w = spec.isa.width().bytes() as f64;
    let (mut panel_ns, mut least_ns) = (0.0, 0.0);
    if let Some(unpack) = &sketch.unpack {
        panel_ns += rates.call_ns(unpack, true) + CALL_NS;
        least_ns += rates.least_ns(unpack);
    }
    let mut tiles_bytes = 0;
    for (count, (mr, counts, working)) in sketch.tiles(m).into_iter().zip(&sketch.main) {
        // The result of a tile is scaled and written once more.
        let result = 3.0 * rates.store * (mr * spec.nr * 4) as f64 / w;
        let call = rates.call_ns(counts, *working <= costs.l1_bytes) + CALL_NS + result;
        panel_ns += count as f64 * call;
        least_ns += count as f64 * rates.least_ns(counts);
        tiles_bytes += count * sketch.acts.tile_bytes(*mr, k);
    }
    let panels = n.div_ceil(spec.nr);
    let even = panels / (threads * 6);
    let claim = (CLAIM_BYTES / sketch.panel_bytes.max(1)).min(even).max(1);
    let busiest = (panels.div_ceil(claim).div_ceil(threads) * claim).min(panels);
    let prepare = if sketch.acts.needs_preparing() {
        4.0 * tiles_bytes as f64 / w * rates.store / threads as f64
    } else {
        0.0
    };
    let hand_out = if threads > 1 { HAND_OUT_NS } else { 0.0 };
    let compute = busiest as f64 * panel_ns + prepare + hand_out;
    let bytes = sketch.weight_bytes(spec, n) as f64;
    let memory = if case.cold {
        bytes / costs.read(threads)
    } else {
        0.0
    };
    Estimate {
        ns: norm(&[compute, memory], 3),
        floor_ns: memory.max(busiest as f64 * least_ns),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bitnet_codegen::plan;

    /// A machine of round figures: 64-byte vectors as fast as narrow ones, and little bandwidth.
    pub(crate) fn machine() -> Costs {
        let rates = Rates::from_values([0.3, 0.6, 0.15, 0.5, 0.3, 0.3, 0.3, 0.15, 0.2, 0.3]);
        Costs {
            rates: [rates; 3],
            read_gb_per_s: [(1, 30.0), (2, 40.0)].into(),
            l1_bytes: 32 << 10,
        }
    }

    /// Of K = 2560 on one thread.
    fn case(m: usize, n: usize, cold: bool) -> Case {
        let (k, groups) = (2560, None);
        Case::new(Product { n, k, groups }, m, 1, cold)
    }

    fn estimate(spec: &str, case: Case) -> Estimate {
        let spec: KernelSpec = spec.parse().expect("a spec");
        let sketch = Sketch::of(&plan(&spec, case.problem.k).expect("it exists"));
        predict(&spec, &sketch, &case, &machine())
    }

    #[test]
    fn decoding_from_memory_waits_for_the_memory() {
        let case = case(1, 13824, true);
        let i2s = "i2s-i2s-1x32c16-avx512vnni-f0-pf0-u2";
        let cold = estimate(i2s, case);
        assert_eq!(cold.floor_ns, 13824.0 * 2560.0 / 4.0 / 30.0);
        assert!(cold.ns >= cold.floor_ns && cold.ns < 1.5 * cold.floor_ns);
        assert!(
            estimate(
                i2s,
                Case {
                    cold: false,
                    ..case
                }
            )
            .ns < cold.ns
        );
        assert!(estimate(i2s, Case { threads: 2, ..case }).ns < cold.ns);
    }

    #[test]
    fn long_prompts_are_ranked_by_arithmetic() {
        let case = case(128, 2560, true);
        let tiled = estimate("gemm-i2s-8x48c16-avx512vnni-pf64-u4", case);
        let narrow = estimate("gemm-i2s-6x8c16-vnni128-pf64-u4", case);
        let alone = estimate("i2s-i2s-1x32c16-avx512vnni-f0-pf0-u2", case);
        assert!(tiled.ns < narrow.ns && tiled.ns < alone.ns);
    }

    #[test]
    fn a_panel_taller_than_the_matrix_costs_what_it_is() {
        let case = |n| case(128, n, false);
        let tall = "vlut-lut4-32x2560c32-avx512vnni-a0-pf0-u8";
        assert_eq!(estimate(tall, case(64)).ns, estimate(tall, case(2560)).ns);
    }

    #[test]
    fn rates_have_a_name_each() {
        let rates = machine().rates[0];
        assert_eq!(Rates::from_values(rates.values()), rates);
        assert_eq!(Rates::NAMES.len(), rates.values().len());
    }
}
