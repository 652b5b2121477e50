//! Packed weights to time kernels on: copies of one matrix for each panel shape, shared by every candidate and
//! every number of tokens that reads it, and dropped, least used first, before they take too much memory.

use super::layer::Layer;
use bitnet_codegen::layout::PanelShape;
use bitnet_codegen::layout::scales::GroupScales;
use bitnet_codegen::{Kernel, TernaryMatrix};
use bitnet_runtime::graph::Product;
use bitnet_runtime::pool::Pool;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Copies are enough once they are this many times the last-level cache: weights then come from memory.
const COLD_CACHES: usize = 2;

/// Copies of a small matrix beyond this buy nothing.
const MAX_COPIES: usize = 2048;

/// Which matrix, in which panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    n: usize,
    layout: &'static str,
    shape: PanelShape,
    scales: Option<GroupScales>,
    cold: bool,
}

struct Copies {
    copies: Vec<Layer>,
    turn: Turn,
    used: u64,
}

/// Whose turn it is of the copies of one key, for all who use them: a copy comes back after all others, when the cache
/// has lost it. Right after packing, too, for the copies that were written first come first.
#[derive(Clone, Default)]
pub struct Turn(Arc<AtomicUsize>);

impl Turn {
    /// The next of `copies`.
    pub fn next<'c>(&self, copies: &'c [Layer]) -> &'c Layer {
        &copies[self.0.fetch_add(1, Ordering::Relaxed) % copies.len()]
    }
}

/// The packed weights that are at hand.
pub struct PackedWeights {
    at_hand: HashMap<Key, Copies>,
    matrices: HashMap<(usize, usize, Option<GroupScales>), Arc<TernaryMatrix>>,
    turn: u64,
    most_bytes: usize,
    last_level_bytes: usize,
}

impl PackedWeights {
    /// At most `most_bytes` of them, or one key's.
    pub fn new(most_bytes: usize, last_level_bytes: usize) -> Self {
        Self {
            at_hand: HashMap::new(),
            matrices: HashMap::new(),
            turn: 0,
            most_bytes,
            last_level_bytes,
        }
    }

    /// The weights of a product; inputs of any number of planes multiply with the same.
    pub fn matrix(&mut self, product: Product) -> Arc<TernaryMatrix> {
        let Product { n, k, groups } = product;
        let made = self.matrices.entry((n, k, groups.map(|g| g.scales)));
        Arc::clone(made.or_insert_with(|| Arc::new(super::verify::matrix(product))))
    }

    /// Whose weights `kernel` reads for N rows.
    pub fn key(kernel: &Kernel, n: usize, cold: bool) -> Key {
        let panel = kernel.panel();
        Key {
            n,
            layout: panel.layout.name(),
            shape: panel.shape,
            scales: panel.scales,
            cold,
        }
    }

    /// Whether the weights are still there.
    pub fn holds(&self, key: &Key) -> bool {
        self.at_hand.contains_key(key)
    }

    /// The copies, under `kernel`, and their turn; packed if they are not at hand.
    ///
    /// # Panics
    /// When `kernel` does not read panels of `key`.
    pub fn under(&mut self, key: Key, pool: &Pool, kernel: &Arc<Kernel>) -> (Vec<Layer>, Turn) {
        if !self.holds(&key) {
            let copies = self.pack(key, pool, kernel);
            self.make_room(&key, bytes(&copies));
            let (turn, used) = (Turn::default(), 0);
            self.at_hand.insert(key, Copies { copies, turn, used });
        }
        self.turn += 1;
        let found = self.at_hand.get_mut(&key).expect("packed above");
        found.used = self.turn;
        let copies = found.copies.iter();
        let copies = copies.map(|c| c.share(kernel).expect("panels of the key"));
        (copies.collect(), found.turn.clone())
    }

    fn pack(&mut self, key: Key, pool: &Pool, kernel: &Arc<Kernel>) -> Vec<Layer> {
        let (n, k, groups) = (key.n, key.shape.k, kernel.groups());
        let w = self.matrix(Product { n, k, groups });
        let first = Layer::of_one(pool, &w, kernel).expect("the scales that the kernel asks for");
        let count = if key.cold {
            (COLD_CACHES * self.last_level_bytes)
                .div_ceil(first.packed_bytes())
                .clamp(2, MAX_COPIES)
        } else {
            1
        };
        let mut copies: Vec<Layer> = (1..count).map(|_| first.duplicate()).collect();
        copies.push(first);
        copies
    }

    /// Drops what was not used for longest.
    fn make_room(&mut self, keep: &Key, more: usize) {
        let mut held: usize = self.at_hand.values().map(|c| bytes(&c.copies)).sum();
        while held + more > self.most_bytes {
            let oldest = self.at_hand.iter().filter(|(key, _)| *key != keep);
            let Some((&key, _)) = oldest.min_by_key(|(_, c)| c.used) else {
                break;
            };
            if let Some(gone) = self.at_hand.remove(&key) {
                held -= bytes(&gone.copies);
            }
        }
    }
}

fn bytes(copies: &[Layer]) -> usize {
    copies.iter().map(Layer::packed_bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_codegen::{Features, KernelSet, KernelSpec, plan};

    #[test]
    fn what_was_not_used_for_longest_is_dropped_first() {
        let pool = Pool::new(1).expect("a pool");
        let kernel = |nr: usize| {
            let spec: KernelSpec = format!("i2s-i2s-1x{nr}c16-interp").parse().expect("a spec");
            let set = KernelSet::build(vec![plan(&spec, 64).expect("a plan")], Features::NONE);
            Arc::clone(&set.expect("built").kernels()[0])
        };
        // 64 x 64 weights are 1 KiB; two copies of them are 2 KiB.
        let mut packed = PackedWeights::new(5 << 10, 1 << 10);
        let kernels = [4, 8, 16].map(kernel);
        let keys: Vec<Key> = kernels
            .iter()
            .map(|k| PackedWeights::key(k, 64, true))
            .collect();
        for (kernel, &key) in kernels.iter().zip(&keys).take(2) {
            assert_eq!(packed.under(key, &pool, kernel).0.len(), 2);
        }
        packed.under(keys[0], &pool, &kernels[0]);
        packed.under(keys[2], &pool, &kernels[2]);
        let held: Vec<bool> = keys.iter().map(|k| packed.holds(k)).collect();
        assert_eq!(held, [true, false, true]);
        let hot = PackedWeights::key(&kernels[0], 64, false);
        assert_eq!(packed.under(hot, &pool, &kernels[0]).0.len(), 1);
    }
}
