//! One matrix product through one kernel, on guarded buffers, compared with the oracle.

use crate::guarded::{Edge, Guarded, name_faults};
use bitnet_codegen::{
    Activations, Features, Kernel, KernelError, KernelSet, KernelSpec, TernaryMatrix, oracle, plan,
};
use std::sync::Arc;

/// A small generator (splitmix64): the same numbers on every machine.
#[derive(Clone)]
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// What the weights and activations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Random trits and random bytes, −128 among them.
    Random(u64),
    /// All weights `.0`, all activations `.1`.
    Constant(i8, i8),
    /// Signs change from column to column, all products are positive.
    Alternating,
}

impl Data {
    pub fn trits(self, n: usize, k: usize) -> Vec<i8> {
        match self {
            Data::Random(seed) => {
                let mut noise = Noise(seed);
                (0..n * k).map(|_| noise.below(3) as i8 - 1).collect()
            }
            Data::Constant(w, _) => vec![w; n * k],
            Data::Alternating => (0..n * k)
                .map(|i| if (i % k).is_multiple_of(2) { 1 } else { -1 })
                .collect(),
        }
    }

    pub fn codes(self, m: usize, k: usize) -> Vec<i8> {
        match self {
            Data::Random(seed) => {
                let mut noise = Noise(!seed);
                (0..m * k).map(|_| noise.next() as i8).collect()
            }
            Data::Constant(_, x) => vec![x; m * k],
            Data::Alternating => (0..m * k)
                .map(|i| if (i % k).is_multiple_of(2) { 127 } else { -128 })
                .collect(),
        }
    }

    /// Whether all rows of the weights are the same.
    fn rows_are_equal(self) -> bool {
        !matches!(self, Data::Random(_))
    }
}

/// Builds `spec` for `k`; `None` where it does not exist (an ordinary answer).
pub fn build(spec: &KernelSpec, k: usize, cpu: Features) -> Option<Arc<Kernel>> {
    let plan = plan(spec, k).ok()?;
    match KernelSet::build(vec![plan], cpu) {
        Ok(set) => Some(Arc::clone(&set.kernels()[0])),
        Err(KernelError::Unsupported(_)) => None,
        Err(e) => panic!("{spec} k{k}: {e}\n{}", rerun(spec)),
    }
}

/// The command that runs one spec alone.
pub fn rerun(spec: &KernelSpec) -> String {
    format!(
        "rerun: BITNET_SPEC={spec} cargo test --release -p bitnet-codegen --test conformance -- --nocapture"
    )
}

/// `Y[M,N]` through `kernel`, one thread, every buffer at `edge` of its mapping. A fault is named.
pub fn product(kernel: &Kernel, w: &TernaryMatrix, acts: &Activations, edge: Edge) -> Vec<i32> {
    let text = format!(
        "\n{} leaves its operands: m{} n{} k{}, buffers at the {edge:?} of their pages\n{}\n",
        kernel.spec(),
        acts.m,
        w.n(),
        kernel.k(),
        rerun(kernel.spec())
    );
    name_faults(&text, || guarded_product(kernel, w, acts, edge))
}

fn guarded_product(kernel: &Kernel, w: &TernaryMatrix, acts: &Activations, edge: Edge) -> Vec<i32> {
    let (panel, form, k) = (kernel.panel(), kernel.acts_form(), kernel.k());
    let nr = panel.shape.nr;
    let mut scratch = kernel.scratch();
    let tiles: Vec<_> = kernel
        .tiles(acts.m)
        .into_iter()
        .map(|(first, mr)| {
            let mut x = Guarded::zeroed(form.tile_bytes(mr, k), edge);
            if form.needs_preparing() {
                form.prepare(acts, first, mr, x.bytes_mut());
            } else {
                let rows = acts.rows(first, mr.min(acts.m - first));
                for (to, &from) in x.bytes_mut().iter_mut().zip(rows) {
                    *to = from as u8;
                }
            }
            let mut sums = Guarded::zeroed(4 * mr, edge);
            for (to, &from) in sums.words_mut().iter_mut().zip(&acts.sums[first..]) {
                *to = from;
            }
            (
                first,
                mr,
                x,
                sums,
                Guarded::zeroed(4 * kernel.out_len(mr), edge),
            )
        })
        .collect();
    let mut tiles = tiles;
    let mut y = vec![i32::MIN; acts.m * w.n()];
    let mut packed = Guarded::zeroed(panel.bytes(), edge);
    for p in 0..panel.count(w.n()) {
        panel.pack(w, p, packed.bytes_mut());
        kernel.load_panel(packed.bytes(), &mut scratch);
        for (first, mr, x, sums, out) in &mut tiles {
            // Stale results of another panel must not survive.
            out.words_mut().fill(0x5A5A_5A5A);
            kernel.run(
                *mr,
                packed.bytes(),
                x.bytes(),
                sums.words(),
                &mut scratch,
                out.words_mut(),
            );
            let order = kernel.out_order();
            for t in 0..(*mr).min(acts.m - *first) {
                for r in 0..nr.min(w.n() - p * nr) {
                    y[(*first + t) * w.n() + p * nr + r] = out.words()[order.index(t, r, *mr, nr)];
                }
            }
        }
    }
    y
}

/// A problem and its data.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub data: Data,
    pub edge: Edge,
}

/// Rows that are compared where all would take too long.
fn sample(case: &Case, budget_macs: usize) -> Vec<usize> {
    let count = (budget_macs / (case.m * case.k)).clamp(2, case.n.max(2));
    if count >= case.n {
        return (0..case.n).collect();
    }
    let mut noise = Noise(case.n as u64);
    let mut rows: Vec<usize> = (0..count).map(|_| noise.below(case.n)).collect();
    rows.extend([0, case.n - 1]);
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// Runs `case` through `kernel` and compares every result (or a sample of rows) with the oracle.
///
/// # Panics
/// With the spec, the first difference and the command to run it again.
pub fn check(kernel: &Kernel, case: &Case) {
    let &Case { m, n, k, data, .. } = case;
    let trits = data.trits(n, k);
    let w = TernaryMatrix::from_trits(n, k, &trits, 1.0).expect("trits");
    let x = data.codes(m, k);
    let y = product(kernel, &w, &Activations::from_codes(m, k, &x), case.edge);
    let rows = if data.rows_are_equal() {
        vec![0]
    } else {
        sample(case, 4 << 20)
    };
    let sampled: Vec<i8> = rows
        .iter()
        .flat_map(|&r| trits[r * k..][..k].iter().copied())
        .collect();
    let sampled = TernaryMatrix::from_trits(rows.len(), k, &sampled, 1.0).expect("trits");
    let want = oracle::matmul(&sampled, &x);
    for t in 0..m {
        for row in 0..n {
            let at = if data.rows_are_equal() {
                0
            } else {
                let Ok(at) = rows.binary_search(&row) else {
                    continue;
                };
                at
            };
            let (got, want) = (y[t * n + row], want[t * rows.len() + at]);
            assert!(
                got == want,
                "{} {case:?}: token {t} row {row}: got {got}, the oracle says {want}\n{}",
                kernel.spec(),
                rerun(kernel.spec())
            );
        }
    }
}
