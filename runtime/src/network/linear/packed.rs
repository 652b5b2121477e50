//! [`Packings`]: stacked ternary matrices in the panels that kernels read, a copy for each kind of panel.

use super::{BUCKETS, ByBucket};
use crate::memory::HugeBytes;
use crate::pool::{Chunks, Pool};
use crate::profile::MBucket;
use bitnet_codegen::layout::Panel;
use bitnet_codegen::{Kernel, TernaryMatrix};
use std::sync::Arc;

/// Weights packed once; kernels that read the same panels share them.
pub(super) struct Packed {
    panel: Panel,
    bytes: HugeBytes,
}

/// Bytes of weights that one claim covers: enough to hide the claim, few enough to share the work evenly.
const CHUNK_BYTES: usize = 96 << 10;

/// Claims that each thread should find at least.
const CHUNKS_PER_THREAD: usize = 6;

impl Packed {
    /// Rows of a panel.
    pub fn nr(&self) -> usize {
        self.panel.shape.nr
    }

    /// Panel `i`.
    pub fn panel(&self, i: usize) -> &[u8] {
        &self.bytes[i * self.panel.bytes()..][..self.panel.bytes()]
    }

    /// Panels of one claim.
    pub fn claim(&self, threads: usize) -> usize {
        let panels = self.bytes.len() / self.panel.bytes();
        let even = panels / (threads * CHUNKS_PER_THREAD);
        (CHUNK_BYTES / self.panel.bytes()).min(even).max(1)
    }

    /// Whether kernels that read `panel` read these bytes.
    fn serves(&self, panel: Panel) -> bool {
        let same = |p: Panel| (p.shape, p.layout.name(), p.scales);
        same(self.panel) == same(panel)
    }

    fn duplicate(&self) -> Self {
        let mut bytes = HugeBytes::zeroed(self.bytes.len());
        bytes.copy_from_slice(&self.bytes);
        Self {
            panel: self.panel,
            bytes,
        }
    }

    /// Packs stacked matrices panel by panel, in parallel.
    fn new(pool: &Pool, panel: Panel, matrices: &[TernaryMatrix]) -> Self {
        let n: usize = matrices.iter().map(TernaryMatrix::n).sum();
        let mut bytes = HugeBytes::zeroed(panel.count(n) * panel.bytes());
        pool.each(Chunks::new(&mut bytes, panel.bytes()), |_, i, out| {
            let row = |r: usize| {
                let mut n = i * panel.shape.nr + r;
                matrices.iter().find_map(|w| match n.checked_sub(w.n()) {
                    None => Some((w, n)),
                    Some(rest) => {
                        n = rest;
                        None
                    }
                })
            };
            panel.pack_rows(row, out);
        });
        Self { panel, bytes }
    }
}

/// The kernels of a product by token count, and the packed copies that they read.
#[derive(Clone)]
pub(in crate::network) struct Packings {
    packed: Vec<Arc<Packed>>,
    kernels: ByBucket,
    /// For each bucket an index into `packed`.
    of: [usize; BUCKETS],
}

impl Packings {
    /// Packs stacked `matrices` of `k` columns for `kernels`.
    ///
    /// # Panics
    /// When a kernel is for another K.
    pub fn new(pool: &Pool, matrices: &[TernaryMatrix], k: usize, kernels: ByBucket) -> Self {
        let mut packed: Vec<Arc<Packed>> = Vec::new();
        let of = std::array::from_fn(|bucket| {
            let kernel = &kernels[bucket];
            assert_eq!(kernel.k(), k, "K of the kernel {}", kernel.spec());
            let panel = kernel.panel();
            let there = packed.iter().position(|p| p.serves(panel));
            there.unwrap_or_else(|| {
                packed.push(Arc::new(Packed::new(pool, panel, matrices)));
                packed.len() - 1
            })
        });
        Self {
            packed,
            kernels,
            of,
        }
    }

    /// Packings of `n` rows for `kernels` with the bytes that `read` fills in for each panel; `None` where it cannot.
    pub fn restored(
        n: usize,
        kernels: ByBucket,
        read: impl Fn(Panel, &mut [u8]) -> bool,
    ) -> Option<Self> {
        let mut packed: Vec<Arc<Packed>> = Vec::new();
        let mut of = [0; BUCKETS];
        for (of, kernel) in of.iter_mut().zip(&kernels) {
            let panel = kernel.panel();
            let there = packed.iter().position(|p| p.serves(panel));
            *of = match there {
                Some(at) => at,
                None => {
                    let mut bytes = HugeBytes::zeroed(panel.count(n) * panel.bytes());
                    if !read(panel, &mut bytes) {
                        return None;
                    }
                    packed.push(Arc::new(Packed { panel, bytes }));
                    packed.len() - 1
                }
            };
        }
        Some(Self {
            packed,
            kernels,
            of,
        })
    }

    /// The copies.
    pub fn all(&self) -> impl Iterator<Item = (Panel, &[u8])> {
        self.packed.iter().map(|p| (p.panel, &p.bytes[..]))
    }

    /// The same copies, shared, under other kernels; `None` where one of them reads other panels.
    pub fn share(&self, kernels: &ByBucket) -> Option<Self> {
        let mut of = [0; BUCKETS];
        for (of, kernel) in of.iter_mut().zip(kernels) {
            let serves = |p: &Arc<Packed>| p.serves(kernel.panel());
            *of = self.packed.iter().position(serves)?;
        }
        Some(Self {
            packed: self.packed.clone(),
            kernels: kernels.clone(),
            of,
        })
    }

    /// The same over its own copies of the bytes.
    pub fn duplicate(&self) -> Self {
        let copy = |p: &Arc<Packed>| Arc::new(p.duplicate());
        Self {
            packed: self.packed.iter().map(copy).collect(),
            ..self.clone()
        }
    }

    /// The kernel for `m` tokens, and the weights that it reads.
    pub(super) fn of(&self, m: usize) -> (&Arc<Kernel>, &Packed) {
        let bucket = MBucket::of(m).index();
        (&self.kernels[bucket], &self.packed[self.of[bucket]])
    }

    /// All kernels.
    pub fn kernels(&self) -> &ByBucket {
        &self.kernels
    }

    /// Bytes that a product of `m` tokens reads.
    pub fn bytes(&self, m: usize) -> usize {
        self.of(m).1.bytes.len()
    }

    /// Bytes of all copies.
    pub fn all_bytes(&self) -> usize {
        self.packed.iter().map(|p| p.bytes.len()).sum()
    }
}
