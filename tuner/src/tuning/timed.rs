//! The lab against the clock: how long it has taken, how fast memory is read meanwhile, and a second look at it before a
//! time is called impossible.

use super::conditions::{Looks, PROBE_EVERY};
use crate::campaign::Benches;
use crate::lab::{Lab, View};
use crate::peaks::Probe;
use crate::search::{Bench, Rejection};
use crate::space::Candidate;
use crate::space::model::Case;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Looks at the read bandwidth before a time is impossible: a look falls short while other processes run.
const DOUBTS: usize = 12;

/// The lab of one tuning.
pub struct Timed<'t> {
    /// Where candidates are timed.
    pub lab: &'t mut Lab,
    /// When it began.
    pub start: Instant,
    /// Set when the user wants it to end.
    pub stop: &'t AtomicBool,
    /// Looks at the bandwidth.
    pub probe: &'t Probe,
    /// Numbers of threads.
    pub threads: &'t [usize],
    /// What the looks found.
    pub looks: &'t RefCell<Looks>,
    /// The bandwidth that floors were computed with, by threads.
    pub read_gb_per_s: &'t BTreeMap<usize, f64>,
}

impl Benches for Timed<'_> {
    type Bench<'b>
        = Watched<'b>
    where
        Self: 'b;

    fn bench(&mut self, job: usize) -> Watched<'_> {
        let elapsed = self.start.elapsed();
        let mut looks = self.looks.borrow_mut();
        if looks.last.is_none_or(|last| elapsed - last >= PROBE_EVERY) {
            for &threads in self.threads {
                looks.look(self.probe, threads);
            }
            looks.last = Some(elapsed);
        }
        Watched {
            case: self.lab.case(job),
            view: self.lab.bench(job),
            probe: self.probe,
            looks: self.looks,
            read_gb_per_s: self.read_gb_per_s,
        }
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn close(&mut self, job: usize) {
        self.lab.close(job);
    }
}

/// The bench of one product, whose floor is what memory was ever seen to do.
pub struct Watched<'b> {
    case: Case,
    view: View<'b>,
    probe: &'b Probe,
    looks: &'b RefCell<Looks>,
    read_gb_per_s: &'b BTreeMap<usize, f64>,
}

impl Bench for Watched<'_> {
    fn foresee(&mut self, ids: &[usize]) {
        self.view.foresee(ids);
    }

    fn prepare(&mut self, id: usize) -> Result<(), Rejection> {
        self.view.prepare(id)
    }

    fn time(&mut self, id: usize) -> f64 {
        self.view.time(id)
    }

    fn floor_ns(&mut self, _: usize, candidate: &Candidate) -> f64 {
        let (floor_ns, threads) = (candidate.estimate.floor_ns, self.case.threads);
        let mut looks = self.looks.borrow_mut();
        for _ in 0..DOUBTS {
            looks.look(self.probe, threads);
        }
        let (Some(&assumed), Some((_, most))) =
            (self.read_gb_per_s.get(&threads), looks.range(threads))
        else {
            return floor_ns;
        };
        let memory_ns = candidate.weight_bytes as f64 / assumed;
        // What arithmetic asks for stays what it is.
        match self.case.cold && floor_ns <= memory_ns {
            true => memory_ns.min(candidate.weight_bytes as f64 / most),
            false => floor_ns,
        }
    }

    fn release(&mut self, id: usize) {
        self.view.release(id);
    }
}
