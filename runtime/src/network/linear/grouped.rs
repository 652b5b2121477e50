//! [`GroupedLinear`]: ternary matrices whose columns have scales by groups, as one product.
//!
//! The scales lie among the packed codes and kernels apply them group by group (see
//! [`bitnet_codegen::variant::groups`]), so a layer is one pass over the threads, whatever its groups, and what comes
//! out is f32.

use super::packed::Packed;
use super::{BUCKETS, ByBucket, CHUNK_BYTES, CHUNKS_PER_THREAD, Workspace, bucket_of, grow};
use super::{scratch_of, tiles};
use crate::graph::products::common_group;
use crate::graph::{Acts, ScaleShape};
use crate::pool::{Columns, Pool};
use bitnet_codegen::variant::OutOrder;
use bitnet_codegen::{GroupedActs, Groups, Kernel, TernaryMatrix};
use std::ops::Range;
use std::sync::{Arc, PoisonError};

/// Packed ternary matrices of one input, stacked.
pub struct GroupedLinear {
    n: usize,
    k: usize,
    groups: Groups,
    stacked: Vec<Range<usize>>,
    packed: Vec<Arc<Packed>>,
    kernels: ByBucket,
    /// For each bucket an index into `packed`.
    packed_of: [usize; BUCKETS],
}

/// The groups in which `matrices` run as one product of inputs as fine as `acts`; none where no matrix has groups, or
/// no kernel has them.
pub fn groups_of<'m>(
    matrices: impl IntoIterator<Item = &'m TernaryMatrix>,
    acts: Acts,
) -> Option<Groups> {
    let shapes = matrices.into_iter().map(|m| m.scales().into());
    let Some(ScaleShape::Groups(scales)) = common_group(acts, shapes) else {
        return None;
    };
    let planes = acts.planes();
    Some(Groups { scales, planes })
}

impl GroupedLinear {
    /// Packs `matrices`, all with one K, for `kernels`.
    ///
    /// # Panics
    /// When the matrices differ in K, or a kernel has other groups than `groups`.
    pub fn new(pool: &Pool, matrices: &[TernaryMatrix], groups: Groups, kernels: ByBucket) -> Self {
        let k = matrices[0].k();
        let mut n = 0;
        let stacked = matrices.iter().map(|m| {
            n += m.n();
            n - m.n()..n
        });
        let stacked: Vec<_> = stacked.collect();
        let mut packed: Vec<Arc<Packed>> = Vec::new();
        let packed_of = std::array::from_fn(|bucket| {
            let kernel = &kernels[bucket];
            let fits = kernel.k() == k
                && kernel.groups() == Some(groups)
                && kernel.out_order() == OutOrder::TokenMajor
                && kernel.tile_sizes().min() == Some(1);
            assert!(fits, "{} for {groups:?} of {k} columns", kernel.spec());
            let panel = kernel.panel();
            packed
                .iter()
                .position(|p| p.serves(panel))
                .unwrap_or_else(|| {
                    packed.push(Arc::new(Packed::new(pool, panel, matrices)));
                    packed.len() - 1
                })
        });
        Self {
            n,
            k,
            groups,
            stacked,
            packed,
            kernels,
            packed_of,
        }
    }

    /// Output features, all stacked matrices together.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The groups of its columns.
    pub fn groups(&self) -> Groups {
        self.groups
    }

    /// The output rows of each stacked matrix.
    pub fn stacked(&self) -> &[Range<usize>] {
        &self.stacked
    }

    /// The same packed weights, shared, under `kernels`; `None` where one of them reads other panels or has other groups.
    pub fn share(&self, kernels: &ByBucket) -> Option<Self> {
        let mut packed_of = [0; BUCKETS];
        for (of, kernel) in packed_of.iter_mut().zip(kernels) {
            let fits = kernel.k() == self.k && kernel.groups() == Some(self.groups);
            let serves = |p: &Arc<Packed>| fits && p.serves(kernel.panel());
            *of = self.packed.iter().position(serves)?;
        }
        Some(Self {
            packed: self.packed.clone(),
            stacked: self.stacked.clone(),
            kernels: kernels.clone(),
            packed_of,
            ..*self
        })
    }

    /// Bytes of all packed copies.
    pub fn packed_bytes(&self) -> usize {
        self.packed.iter().map(|p| p.bytes.len()).sum()
    }

    /// The kernel that serves `m` tokens.
    pub fn kernel(&self, m: usize) -> &Arc<Kernel> {
        &self.kernels[bucket_of(m)]
    }

    /// Bytes of weights and scales that a product of `m` tokens reads.
    pub fn weight_bytes(&self, m: usize) -> usize {
        self.packed[self.packed_of[bucket_of(m)]].bytes.len()
    }

    /// The same layer over its own copy of the packed bytes, so that a benchmark can read weights that no cache holds.
    pub fn duplicate(&self) -> Self {
        let copy = |p: &Arc<Packed>| Arc::new(p.duplicate());
        Self {
            packed: self.packed.iter().map(copy).collect(),
            stacked: self.stacked.clone(),
            kernels: self.kernels.clone(),
            ..*self
        }
    }

    /// `y[t][first + n] = Σ_g f32(Σ_{k in g} w[n][k] · q[t][k]) · (ws[n][g] · xs[t][g])` for every token of `acts`,
    /// groups in ascending order.
    ///
    /// # Shapes
    /// `y`: `[m, stride]`; columns `first..first + n` are written.
    pub fn forward(
        &self,
        pool: &Pool,
        work: &mut Workspace,
        acts: &GroupedActs,
        y: &mut [f32],
        stride: usize,
        first: usize,
    ) {
        let asked = (acts.k, acts.group_k, acts.planes);
        let known = (self.k, self.groups.scales.k, self.groups.planes);
        assert_eq!(
            asked, known,
            "K, groups and planes of activations and layer"
        );
        let bucket = bucket_of(acts.m);
        let (kernel, packed) = (&self.kernels[bucket], &*self.packed[self.packed_of[bucket]]);
        let (nr, panel_bytes) = (packed.panel.shape.nr, packed.panel.bytes());
        let even = self.n.div_ceil(nr) / (pool.threads() * CHUNKS_PER_THREAD);
        let chunk = (CHUNK_BYTES / panel_bytes).min(even).max(1);
        let out = Columns::new(y, acts.m, stride, first, self.n, chunk * nr);
        let workers = &work.workers;
        pool.each(out, |worker, _, mut columns| {
            let mut worker = workers[worker]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let worker = &mut *worker;
            let scratch = scratch_of(&mut worker.scratch, kernel);
            for from in (0..columns.width()).step_by(nr) {
                let panel = (columns.first() + from) / nr * panel_bytes;
                let panel = &packed.bytes[panel..][..panel_bytes];
                let rows = nr.min(columns.width() - from);
                kernel.load_panel(panel, scratch);
                for (first, mr) in tiles(kernel, acts.m) {
                    grow(&mut worker.out, kernel.out_len(mr));
                    let out: &mut [f32] =
                        bytemuck::cast_slice_mut(&mut worker.out[..kernel.out_len(mr)]);
                    let x = bytemuck::cast_slice(acts.rows(first, mr));
                    kernel.run_grouped(mr, panel, x, acts.of_groups(first, mr), scratch, out);
                    for (t, values) in out.chunks_exact(nr).enumerate() {
                        columns.row(first + t)[from..][..rows].copy_from_slice(&values[..rows]);
                    }
                }
            }
        });
    }

    /// All kernels.
    pub(super) fn kernels(&self) -> &ByBucket {
        &self.kernels
    }
}

impl Workspace {
    /// As [`Workspace::make_room`].
    pub fn make_room_grouped(&mut self, linear: &GroupedLinear) {
        for kernel in linear.kernels() {
            self.make_room_for(kernel);
        }
    }
}
