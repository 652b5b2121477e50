//! The lab: this machine as a [`Bench`] for many products at once. Candidates are built by the [`forge`], compared
//! with the oracle ([`verify`]), and timed through the runtime's own linear layer, so that what is measured is
//! what runs.
//!
//! Cold is the default: in decoding each weight is read once a token, so timings rotate over more copies of the
//! packed weights than the last-level cache holds.

pub mod forge;
pub mod interpreted;
pub mod layer;
mod packed;
pub mod verify;

use crate::search::{Bench, Rejection};
use crate::space::Space;
use crate::space::model::Case;
use bitnet_codegen::{Features, Groups, Kernel, KernelSpec};
use bitnet_runtime::network::linear::Workspace;
use bitnet_runtime::pool::{Pool, PoolError};
use forge::{Forge, Planner};
use layer::{Layer, Tokens};
use packed::{Key, PackedWeights, Turn};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use verify::{Spot, Verifier};

/// Timings shorter than this are repeated and averaged: the clock and the thread wake-up show below it.
const MIN_SAMPLE: Duration = Duration::from_micros(200);

/// Memory for packed weights.
const PACKED_BYTES: usize = 1 << 30;

/// A candidate that equalled the oracle and can be timed.
struct Ready {
    kernel: Arc<Kernel>,
    key: Key,
    copies: Vec<Layer>,
    turn: Turn,
    work: Workspace,
    inner: usize,
}

/// One product, and the candidates that are at hand for it.
struct Job {
    case: Case,
    specs: Vec<KernelSpec>,
    ready: HashMap<usize, Ready>,
    acts: Arc<Tokens>,
    spot: Option<Spot>,
    y: Vec<f32>,
}

/// Where candidates are built, verified and timed.
pub struct Lab {
    forge: Forge,
    verifier: Verifier,
    packed: PackedWeights,
    pools: BTreeMap<usize, Pool>,
    acts: HashMap<(usize, usize, Option<Groups>), Arc<Tokens>>,
    jobs: Vec<Job>,
    /// Of the code of every kernel that was prepared.
    digests: HashMap<(KernelSpec, usize), u64>,
    cores: usize,
}

impl Lab {
    /// A lab for kernels of `features` on a machine of `cores` whose last cache has `last_level_bytes`.
    pub fn new(
        features: Features,
        planner: Planner,
        cores: usize,
        last_level_bytes: usize,
    ) -> Self {
        Self {
            forge: Forge::new(features, planner),
            verifier: Verifier::default(),
            packed: PackedWeights::new(PACKED_BYTES, last_level_bytes),
            pools: BTreeMap::new(),
            acts: HashMap::new(),
            jobs: Vec::new(),
            digests: HashMap::new(),
            cores,
        }
    }

    /// Takes a product in; its number.
    ///
    /// # Errors
    /// When its threads cannot be had.
    pub fn open(&mut self, space: &Space) -> Result<usize, PoolError> {
        let case = space.case;
        if let Entry::Vacant(place) = self.pools.entry(case.threads) {
            place.insert(Pool::new(case.threads)?);
        }
        let (m, n, k) = (case.problem.m, case.problem.n, case.problem.k);
        let acts = self.acts.entry((m, k, case.groups));
        let tokens = || Arc::new(verify::tokens(0, m, k, case.groups));
        let acts = Arc::clone(acts.or_insert_with(tokens));
        self.jobs.push(Job {
            case,
            specs: space.candidates().iter().map(|c| c.spec.clone()).collect(),
            ready: HashMap::new(),
            acts,
            spot: None,
            y: vec![0.0; m * n],
        });
        Ok(self.jobs.len() - 1)
    }

    /// Product `job`.
    pub fn case(&self, job: usize) -> Case {
        self.jobs[job].case
    }

    /// The bench of product `job`.
    pub fn bench(&mut self, job: usize) -> View<'_> {
        View { lab: self, job }
    }

    /// Frees what is at hand for product `job`.
    pub fn close(&mut self, job: usize) {
        self.jobs[job].ready.clear();
    }

    /// A digest of the code of one kernel; `None` if it was never prepared.
    pub fn code_digest(&self, spec: &KernelSpec, k: usize) -> Option<u64> {
        self.digests.get(&(spec.clone(), k)).copied()
    }

    /// The verdict of the oracle on one kernel for products with K = `k`.
    ///
    /// # Errors
    /// [`Rejection`].
    ///
    /// # Panics
    /// Before any product is open.
    pub fn verify(&mut self, spec: &KernelSpec, k: usize) -> Result<(), Rejection> {
        let pool = self.pools.values().next_back().expect("an open product");
        let kernel = self.forge.get(spec, k)?;
        self.verifier.verify(pool, &kernel)
    }
}

/// The bench of one product of a [`Lab`].
pub struct View<'l> {
    lab: &'l mut Lab,
    job: usize,
}

impl View<'_> {
    /// Brings the packed weights back if they were dropped to make room.
    fn refill(&mut self, id: usize) {
        let Lab {
            packed,
            pools,
            jobs,
            ..
        } = &mut *self.lab;
        let job = &mut jobs[self.job];
        let Some(ready) = job.ready.get_mut(&id) else {
            return;
        };
        if ready.copies.is_empty() {
            let pool = &pools[&job.case.threads];
            (ready.copies, ready.turn) = packed.under(ready.key, pool, &ready.kernel);
        }
        self.drop_the_dropped();
    }

    /// Lets go of copies that the lab has dropped: shared memory is freed when its last user is.
    fn drop_the_dropped(&mut self) {
        let Lab { packed, jobs, .. } = &mut *self.lab;
        let all = jobs.iter_mut().flat_map(|j| j.ready.values_mut());
        for ready in all.filter(|r| !packed.holds(&r.key)) {
            ready.copies.clear();
        }
    }

    fn run(&mut self, id: usize) -> Duration {
        let Lab { pools, jobs, .. } = &mut *self.lab;
        let job = &mut jobs[self.job];
        let ready = job.ready.get_mut(&id).expect("prepared");
        let pool = &pools[&job.case.threads];
        let start = Instant::now();
        for _ in 0..ready.inner {
            let copy = ready.turn.next(&ready.copies);
            copy.forward(pool, &mut ready.work, &job.acts, &mut job.y);
        }
        start.elapsed()
    }
}

impl Bench for View<'_> {
    fn foresee(&mut self, ids: &[usize]) {
        let job = &self.lab.jobs[self.job];
        for &id in ids {
            self.lab.forge.foresee(&job.specs[id], job.case.problem.k);
        }
    }

    fn prepare(&mut self, id: usize) -> Result<(), Rejection> {
        if self.lab.jobs[self.job].ready.contains_key(&id) {
            self.refill(id);
            return Ok(());
        }
        let Lab {
            forge,
            verifier,
            packed,
            pools,
            jobs,
            digests,
            ..
        } = &mut *self.lab;
        let job = &mut jobs[self.job];
        let product = job.case.product();
        let kernel = forge.get(&job.specs[id], product.k)?;
        digests.insert((job.specs[id].clone(), product.k), kernel.code_digest());
        let pool = &pools[&job.case.threads];
        verifier.verify(pool, &kernel)?;
        let key = PackedWeights::key(&kernel, product.n, job.case.cold);
        let (copies, turn) = packed.under(key, pool, &kernel);
        let mut work = Workspace::new(pool);
        copies[0].make_room(&mut work);
        let got = turn.next(&copies).exact(pool, &mut work, &job.acts);
        if job.spot.is_none() {
            job.spot = Some(Spot::new(&packed.matrix(product), &job.acts));
        }
        if let Some(spot) = &job.spot {
            spot.check(&kernel, &got)?;
        }
        job.ready.insert(
            id,
            Ready {
                kernel,
                key,
                copies,
                turn,
                work,
                inner: 1,
            },
        );
        self.drop_the_dropped();
        let once = self.run(id).max(Duration::from_nanos(100));
        let inner = (MIN_SAMPLE.as_nanos() / once.as_nanos()).clamp(1, 1000) as usize;
        if let Some(ready) = self.lab.jobs[self.job].ready.get_mut(&id) {
            ready.inner = inner;
        }
        Ok(())
    }

    fn time(&mut self, id: usize) -> f64 {
        if self.lab.jobs[self.job].case.threads >= self.lab.cores {
            self.lab.forge.settle();
        }
        self.refill(id);
        let took = self.run(id);
        let ready = &self.lab.jobs[self.job].ready[&id];
        took.as_nanos() as f64 / ready.inner as f64
    }

    fn release(&mut self, id: usize) {
        let job = &mut self.lab.jobs[self.job];
        if job.ready.remove(&id).is_some() {
            let k = job.case.problem.k;
            self.lab.forge.forget(&job.specs[id], k);
        }
    }
}

#[cfg(test)]
mod tests;
