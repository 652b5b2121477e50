//! The forge: plans, proves and emits kernels, ahead of need on a core of its own.
//!
//! Only what is about to be timed is built. While one candidate is timed on fewer threads than the machine has
//! cores, the next ones are built beside it; where timing takes all cores, building waits ([`Forge::settle`]).

use crate::search::Rejection;
use bitnet_codegen::{Features, Kernel, KernelError, KernelSet, KernelSpec, Plan, Unsupported};
use std::collections::HashMap;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// From a spec and a K to a plan: [`bitnet_codegen::plan`], or what a test plants.
pub type Planner = fn(&KernelSpec, usize) -> Result<Plan, Unsupported>;

/// One kernel asked for.
type Order = (KernelSpec, usize);

/// A kernel, or why there is none.
type Made = Result<Arc<Kernel>, Rejection>;

#[derive(Default)]
struct Shelf {
    /// `None` while it is being built.
    made: Mutex<HashMap<Order, Option<Made>>>,
    changed: Condvar,
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, HashMap<Order, Option<Made>>> {
        // Each entry is whole at every step, so a panic elsewhere does not spoil the map.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, order: Order, made: Made) {
        self.lock().insert(order, Some(made));
        self.changed.notify_all();
    }
}

/// Builds kernels for one CPU.
pub struct Forge {
    features: Features,
    planner: Planner,
    shelf: Arc<Shelf>,
    orders: Sender<Order>,
}

/// Builds one kernel.
pub(super) fn make(planner: Planner, features: Features, (spec, k): &Order) -> Made {
    let set = KernelSet::build(vec![planner(spec, *k)?], features).map_err(|e| match e {
        KernelError::Unsupported(e) => e.into(),
        KernelError::NoBackend(e) => e.into(),
        KernelError::Check(e) => e.into(),
        e => Rejection::NotHere(e.to_string()),
    })?;
    Ok(Arc::clone(&set.kernels()[0]))
}

impl Forge {
    /// A forge for `features`, which this CPU must have.
    pub fn new(features: Features, planner: Planner) -> Self {
        let shelf = Arc::new(Shelf::default());
        let (orders, inbox) = channel::<Order>();
        let worker = Arc::clone(&shelf);
        // The thread ends when the forge, and with it the sender, is dropped.
        std::thread::spawn(move || {
            for order in inbox {
                let made = make(planner, features, &order);
                worker.put(order, made);
            }
        });
        Self {
            features,
            planner,
            shelf,
            orders,
        }
    }

    /// Starts to build what is not built yet.
    pub fn foresee(&self, spec: &KernelSpec, k: usize) {
        let order = (spec.clone(), k);
        let mut made = self.shelf.lock();
        if made.contains_key(&order) {
            return;
        }
        // If the thread is gone the kernel is built when it is asked for.
        if self.orders.send(order.clone()).is_ok() {
            made.insert(order, None);
        }
    }

    /// The kernel.
    ///
    /// # Errors
    /// Why there is none.
    pub fn get(&self, spec: &KernelSpec, k: usize) -> Made {
        let order = (spec.clone(), k);
        let mut made = self.shelf.lock();
        loop {
            match made.get(&order) {
                Some(Some(done)) => return done.clone(),
                Some(None) => {
                    let waited = self.shelf.changed.wait(made);
                    made = waited.unwrap_or_else(PoisonError::into_inner);
                }
                None => break,
            }
        }
        made.insert(order.clone(), None);
        drop(made);
        let done = make(self.planner, self.features, &order);
        self.shelf.put(order, done.clone());
        done
    }

    /// Waits until nothing is being built.
    pub fn settle(&self) {
        let mut made = self.shelf.lock();
        while made.values().any(Option::is_none) {
            let waited = self.shelf.changed.wait(made);
            made = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Forgets a kernel, and frees its memory once nobody uses it.
    pub fn forget(&self, spec: &KernelSpec, k: usize) {
        let order = (spec.clone(), k);
        let mut made = self.shelf.lock();
        if made.get(&order).is_some_and(Option::is_some) {
            made.remove(&order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_codegen::plan;

    #[test]
    fn kernels_are_built_once_ahead_or_when_asked_for() {
        let forge = Forge::new(Features::NONE, plan);
        let spec: KernelSpec = "i2s-i2s-1x8c16-interp-f1-u1".parse().expect("a spec");
        forge.foresee(&spec, 64);
        let first = forge.get(&spec, 64).expect("it exists");
        assert!(Arc::ptr_eq(&first, &forge.get(&spec, 64).expect("kept")));
        let other = forge.get(&spec, 96).expect("not foreseen");
        assert_eq!(other.k(), 96);
        forge.foresee(&spec, 128);
        forge.settle();
        forge.forget(&spec, 64);
        assert!(!Arc::ptr_eq(&first, &forge.get(&spec, 64).expect("anew")));
        let bad: KernelSpec = "i2s-i2s-1x7c16-interp".parse().expect("a spec");
        forge.foresee(&bad, 64);
        assert!(matches!(
            forge.get(&bad, 64),
            Err(Rejection::Unsupported(_))
        ));
    }
}
