//! One problem on this machine: builds candidates, compares them with the oracle, and times them through the
//! runtime's own linear layer.
//!
//! Cold is the default: in decoding each weight is read once a token, so timings rotate over more copies of the
//! packed weights than the last-level cache holds. Candidates with the same panel share the copies.

use crate::bound::{self, Peaks};
use crate::search::{Bench, Mismatch, Rejection};
use bitnet_codegen::layout::PanelShape;
use bitnet_codegen::noise::Noise;
use bitnet_codegen::{
    Activations, Features, Kernel, KernelError, KernelSet, KernelSpec, Problem, TernaryMatrix,
    oracle, plan,
};
use bitnet_runtime::network::linear::{Linear, Workspace, same_for_all};
use bitnet_runtime::pool::{Chunks, Pool};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Timings shorter than this are repeated and averaged: the clock and the thread wake-up show below it.
const MIN_SAMPLE: Duration = Duration::from_micros(200);

/// Copies are enough once they are this many times the last-level cache.
const COLD_CACHES: usize = 2;

/// Copies of a small matrix beyond this buy nothing.
const MAX_COPIES: usize = 2048;

/// What all timings of one problem have in common.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The product.
    pub problem: Problem,
    /// Whether weights come from memory.
    pub cold: bool,
    /// Size of the last-level cache.
    pub last_level_bytes: usize,
    /// What kernels may use.
    pub features: Features,
    /// The machine's peaks, if measured.
    pub peaks: Option<Peaks>,
}

/// A candidate that equalled the oracle and can be timed.
struct Ready {
    copies: Vec<Linear>,
    weight_bytes: usize,
    inner: usize,
}

/// The bench of one problem.
pub struct KernelBench<'a> {
    setting: Setting,
    pool: &'a Pool,
    stop: &'a AtomicBool,
    weights: TernaryMatrix,
    acts: Activations,
    expected: Vec<i32>,
    work: Workspace,
    y: Vec<f32>,
    sums: Vec<i32>,
    packed: HashMap<(&'static str, PanelShape), Vec<Linear>>,
    ready: HashMap<KernelSpec, Ready>,
    turn: usize,
    start: Instant,
}

/// Weights and activations of a problem: random, with every extreme among the activations.
pub fn sample(problem: Problem, seed: u32) -> (TernaryMatrix, Activations) {
    let mut noise = Noise::new(seed);
    let mut next = || noise.next().expect("without end") >> 16;
    let trits: Vec<i8> = (0..problem.n * problem.k)
        .map(|_| (next() % 3) as i8 - 1)
        .collect();
    let w = TernaryMatrix::from_trits(problem.n, problem.k, &trits, 1.0)
        .expect("random trits are a matrix");
    let q: Vec<i8> = (0..problem.m * problem.k)
        .map(|i| match i % 61 {
            0 => 127,
            1 => -127,
            2 => -128,
            _ => (next() % 255) as u8 as i8,
        })
        .collect();
    (w, Activations::from_codes(problem.m, problem.k, &q))
}

/// The oracle, rows shared out over the pool.
fn expected(pool: &Pool, w: &TernaryMatrix, acts: &Activations) -> Vec<i32> {
    let rows: Vec<i8> = (0..acts.m)
        .flat_map(|t| acts.rows(t, 1)[..acts.k].to_vec())
        .collect();
    let mut by_row = vec![0i32; w.n() * acts.m];
    pool.each(Chunks::new(&mut by_row, acts.m), |_, n, out| {
        oracle::output(w, n, &rows, out);
    });
    let mut y = vec![0i32; by_row.len()];
    for n in 0..w.n() {
        for t in 0..acts.m {
            y[t * w.n() + n] = by_row[n * acts.m + t];
        }
    }
    y
}

impl<'a> KernelBench<'a> {
    /// A bench for `setting.problem` with weights and activations of its own.
    pub fn new(setting: Setting, pool: &'a Pool, stop: &'a AtomicBool) -> Self {
        // What it takes to know the right answer is time as well.
        let start = Instant::now();
        let (weights, acts) = sample(setting.problem, 1);
        let expected = expected(pool, &weights, &acts);
        Self {
            setting,
            pool,
            stop,
            expected,
            work: Workspace::new(pool),
            y: vec![0.0; setting.problem.m * setting.problem.n],
            sums: vec![0; setting.problem.m * setting.problem.n],
            packed: HashMap::new(),
            ready: HashMap::new(),
            turn: 0,
            start,
            weights,
            acts,
        }
    }

    /// Bytes of packed weights that `spec` reads for one product.
    pub fn weight_bytes(&self, spec: &KernelSpec) -> usize {
        self.ready.get(spec).map_or(0, |r| r.weight_bytes)
    }

    /// The oracle's verdict on one kernel.
    ///
    /// # Errors
    /// [`Rejection`].
    pub fn verify(&mut self, spec: &KernelSpec) -> Result<(), Rejection> {
        self.prepare(spec)
    }

    fn build(&self, spec: &KernelSpec) -> Result<Arc<Kernel>, Rejection> {
        let plan = plan(spec, self.setting.problem.k)?;
        let set = KernelSet::build(vec![plan], self.setting.features).map_err(|e| match e {
            KernelError::Unsupported(e) => e.into(),
            KernelError::NoBackend(e) => e.into(),
            KernelError::Check(e) => e.into(),
            e => Rejection::Memory(e.to_string()),
        })?;
        Ok(Arc::clone(&set.kernels()[0]))
    }

    /// Packed copies for the kernel: shared with every candidate of the same panel.
    fn copies(&mut self, kernel: &Arc<Kernel>) -> Vec<Linear> {
        let panel = kernel.panel();
        let key = (panel.layout.name(), panel.shape);
        let kernels = same_for_all(kernel);
        if let Some(copies) = self.packed.get(&key) {
            return copies
                .iter()
                .map(|c| c.share(&kernels).expect("the same panel"))
                .collect();
        }
        let first = Linear::new(self.pool, std::slice::from_ref(&self.weights), |_, _| {
            Ok::<_, bitnet_codegen::trit::TritError>(kernels.clone())
        })
        .expect("one scale for the whole matrix");
        let count = if self.setting.cold {
            (COLD_CACHES * self.setting.last_level_bytes)
                .div_ceil(first.packed_bytes())
                .clamp(2, MAX_COPIES)
        } else {
            1
        };
        let mut copies: Vec<Linear> = (1..count).map(|_| first.duplicate()).collect();
        copies.push(first);
        let shared = copies
            .iter()
            .map(|c| c.share(&kernels).expect("the same panel"))
            .collect();
        self.packed.insert(key, copies);
        shared
    }

    fn run_once(&mut self, spec: &KernelSpec) -> Duration {
        let ready = &self.ready[spec];
        let (pool, work, y) = (self.pool, &mut self.work, &mut self.y);
        let start = Instant::now();
        for _ in 0..ready.inner {
            let copy = &ready.copies[self.turn % ready.copies.len()];
            copy.forward(pool, work, &self.acts, y, self.setting.problem.n, 0);
            self.turn += 1;
        }
        start.elapsed()
    }
}

impl Bench for KernelBench<'_> {
    type Candidate = KernelSpec;

    fn prepare(&mut self, spec: &KernelSpec) -> Result<(), Rejection> {
        if self.ready.contains_key(spec) {
            return Ok(());
        }
        let kernel = self.build(spec)?;
        let copies = self.copies(&kernel);
        self.sums.fill(i32::MIN);
        copies[0].accumulate(self.pool, &mut self.work, &self.acts, &mut self.sums);
        if let Some(at) = self
            .sums
            .iter()
            .zip(&self.expected)
            .position(|(got, want)| got != want)
        {
            let (t, n) = (at / self.setting.problem.n, at % self.setting.problem.n);
            return Err(Rejection::Wrong(Mismatch {
                spec: spec.clone(),
                problem: self.setting.problem,
                token: t,
                row: n,
                got: self.sums[at],
                want: self.expected[at],
            }));
        }
        let weight_bytes = copies[0].weight_bytes(self.setting.problem.m);
        self.ready.insert(
            spec.clone(),
            Ready {
                copies,
                weight_bytes,
                inner: 1,
            },
        );
        let once = self.run_once(spec).max(Duration::from_nanos(100));
        let inner = (MIN_SAMPLE.as_nanos() / once.as_nanos()).clamp(1, 1000) as usize;
        self.ready.get_mut(spec).expect("just inserted").inner = inner;
        Ok(())
    }

    fn time(&mut self, spec: &KernelSpec) -> f64 {
        let took = self.run_once(spec);
        took.as_nanos() as f64 / self.ready[spec].inner as f64
    }

    fn floor_ns(&self, spec: &KernelSpec) -> Option<f64> {
        let peaks = self.setting.peaks?;
        Some(
            bound::floor(
                self.setting.problem,
                self.weight_bytes(spec),
                self.setting.cold,
                peaks,
            )
            .ns,
        )
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
