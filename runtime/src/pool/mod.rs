#![expect(unsafe_code, reason = "lends borrowed closures to other threads")]
//! [`Pool`]: threads that stay, and work that is claimed part by part.
//!
//! Parts are handed out by an atomic counter, so a core that another process takes away costs its share and no
//! more. Workers spin briefly after a job (the next one is microseconds away while decoding), then sleep.
//! A job never waits for a worker that did not join it: seven threads on two cores finish as two would.

mod parts;

pub use parts::{Chunks, Parts};
pub(crate) use parts::{ColumnBlock, Columns, SliceList};

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// Polls of an idle worker before it sleeps: tens of microseconds.
const SPINS: u32 = 4_000;

/// The most threads a pool is made of; more is a mistyped number.
pub const MAX_THREADS: usize = 1024;

/// Why a pool cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The number makes no sense.
    #[error("{got} threads: expected 1 to {MAX_THREADS}")]
    Threads {
        /// What was asked for.
        got: usize,
    },
    /// The system gave no thread.
    #[error("cannot start thread {index} of {threads}: {reason}; ask for fewer with -t")]
    Spawn {
        /// Which thread.
        index: usize,
        /// Of how many.
        threads: usize,
        /// The system's words.
        reason: std::io::Error,
    },
}

/// What a worker runs: its index and the counter it claims from. The lifetime is erased; [`Pool::run`] restores it.
type Job = &'static (dyn Fn(usize) + Sync);

struct Slot {
    job: Option<Job>,
    stop: bool,
    sleepers: usize,
}

struct Shared {
    slot: Mutex<Slot>,
    wake: Condvar,
    /// Raised when a job is published; what idle workers watch.
    epoch: AtomicU64,
    /// Workers inside the current job.
    running: AtomicUsize,
    panicked: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Threads that run parts of one job at a time. The calling thread is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held during a job: jobs of several callers follow one another.
    caller: Mutex<()>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data behind every lock here is valid at each step, so a panic elsewhere does not spoil it.
    m.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Pool {
    /// A pool of `threads`, the caller included.
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn new(threads: usize) -> Result<Self, PoolError> {
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(PoolError::Threads { got: threads });
        }
        let mut pool = Self {
            shared: Arc::new(Shared {
                slot: Mutex::new(Slot {
                    job: None,
                    stop: false,
                    sleepers: 0,
                }),
                wake: Condvar::new(),
                epoch: AtomicU64::new(0),
                running: AtomicUsize::new(0),
                panicked: AtomicBool::new(false),
                panic: Mutex::new(None),
            }),
            workers: Vec::new(),
            caller: Mutex::new(()),
        };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let handle = std::thread::Builder::new()
                .name(format!("bitnet-{index}"))
                .spawn(move || work(&shared, index))
                .map_err(|reason| PoolError::Spawn {
                    index,
                    threads,
                    reason,
                })?;
            pool.workers.push(handle);
        }
        Ok(pool)
    }

    /// Threads, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f(worker, i)` once for each `i` below `count`, in any order, on any worker (below
    /// [`Self::threads`]), and returns when all calls have.
    ///
    /// # Panics
    /// With the panic of a call, after the others have ended. When called from inside a job.
    pub fn run(&self, count: usize, f: impl Fn(usize, usize) + Sync) {
        if self.workers.is_empty() || count <= 1 {
            (0..count).for_each(|i| f(0, i));
            return;
        }
        let next = AtomicUsize::new(0);
        let claim_all = |worker: usize| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return;
                }
                f(worker, i);
            }
        };
        self.run_job(&claim_all);
    }

    fn run_job(&self, job: &(dyn Fn(usize) + Sync)) {
        let _caller = match self.caller.try_lock() {
            Ok(guard) => guard,
            Err(std::sync::TryLockError::Poisoned(p)) => p.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => {
                assert!(!IN_JOB.get(), "a job must not start another on its pool");
                lock(&self.caller)
            }
        };
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. `retire` below runs before this function returns or unwinds: it
        // takes the job out of the slot, so that no worker joins any more, and waits for those inside.
        let erased = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        let sleepers = {
            let mut slot = lock(&shared.slot);
            slot.job = Some(erased);
            shared.epoch.fetch_add(1, Ordering::Release);
            slot.sleepers
        };
        if sleepers > 0 {
            shared.wake.notify_all();
        }
        let was_in_job = IN_JOB.replace(true);
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        IN_JOB.set(was_in_job);
        retire(shared);
        if let Err(payload) = own {
            shared.panicked.store(false, Ordering::Relaxed);
            *lock(&shared.panic) = None;
            resume_unwind(payload);
        }
        if shared.panicked.swap(false, Ordering::Relaxed)
            && let Some(payload) = lock(&shared.panic).take()
        {
            resume_unwind(payload);
        }
    }

    /// Calls `f(worker, i, part)` once for each part of `parts`, in any order.
    ///
    /// # Panics
    /// As [`Self::run`].
    pub fn each<P: Parts>(&self, parts: P, f: impl Fn(usize, usize, P::Part) + Sync) {
        self.run(parts.len(), |worker, i| {
            // SAFETY: `run` calls with each index once, and `parts` is dropped after it.
            let part = unsafe { parts.part(i) };
            f(worker, i, part);
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.slot).stop = true;
        self.shared.epoch.fetch_add(1, Ordering::Release);
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its jobs, so joining fails only with a bug that was printed already.
            let _ = worker.join();
        }
    }
}

thread_local! {
    static IN_JOB: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Takes the job out of the slot and waits until no worker is inside.
fn retire(shared: &Shared) {
    lock(&shared.slot).job = None;
    let mut spins = 0u32;
    while shared.running.load(Ordering::Acquire) != 0 {
        spins += 1;
        if spins < SPINS {
            std::hint::spin_loop();
        } else {
            // The worker may need this very core to finish its part.
            std::thread::yield_now();
        }
    }
}

fn work(shared: &Shared, index: usize) {
    IN_JOB.set(true);
    let mut seen = 0;
    loop {
        let mut spins = 0u32;
        while shared.epoch.load(Ordering::Acquire) == seen && spins < SPINS {
            spins += 1;
            std::hint::spin_loop();
        }
        let job = {
            let mut slot = lock(&shared.slot);
            while shared.epoch.load(Ordering::Relaxed) == seen && !slot.stop {
                slot.sleepers += 1;
                slot = shared
                    .wake
                    .wait(slot)
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                slot.sleepers -= 1;
            }
            if slot.stop {
                return;
            }
            seen = shared.epoch.load(Ordering::Relaxed);
            if slot.job.is_some() {
                // Under the lock, so that `retire` either sees this worker or keeps it out.
                shared.running.fetch_add(1, Ordering::Relaxed);
            }
            slot.job
        };
        if let Some(job) = job {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| job(index))) {
                lock(&shared.panic).get_or_insert(payload);
                shared.panicked.store(true, Ordering::Relaxed);
            }
            shared.running.fetch_sub(1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_part_is_run_once_whatever_the_threads() {
        for threads in [1, 2, 3, 7] {
            let pool = Pool::new(threads).unwrap();
            for count in [0, 1, 2, 3, 100, 1000] {
                let hits: Vec<AtomicU32> = (0..count).map(|_| AtomicU32::new(0)).collect();
                for _ in 0..20 {
                    pool.run(count, |worker, i| {
                        assert!(worker < threads);
                        hits[i].fetch_add(1, Ordering::Relaxed);
                    });
                }
                assert!(
                    hits.iter().all(|h| h.load(Ordering::Relaxed) == 20),
                    "{threads} threads, {count} parts"
                );
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(4).unwrap();
        for bad in [0, 17, 99] {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(100, |_, i| assert_ne!(i, bad, "part {bad} fails"));
            }));
            let message = caught.unwrap_err();
            let text = message.downcast_ref::<String>().unwrap();
            assert!(text.contains("fails"), "{text}");
            let sum = AtomicUsize::new(0);
            pool.run(100, |_, i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn a_job_inside_a_job_is_refused() {
        let pool = Pool::new(2).unwrap();
        let caught = catch_unwind(AssertUnwindSafe(|| {
            pool.run(4, |_, _| pool.run(4, |_, _| ()));
        }));
        assert!(caught.is_err());
    }

    #[test]
    fn several_callers_take_turns() {
        let pool = Pool::new(3).unwrap();
        let sum = AtomicUsize::new(0);
        std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    for _ in 0..200 {
                        pool.run(50, |_, i| {
                            sum.fetch_add(i, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 3 * 200 * 1225);
    }

    #[test]
    fn senseless_thread_counts_are_refused() {
        for threads in [0, MAX_THREADS + 1, usize::MAX] {
            assert!(
                matches!(Pool::new(threads), Err(PoolError::Threads { got }) if got == threads)
            );
        }
    }
}
