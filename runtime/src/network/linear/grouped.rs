//! [`GroupedLinear`]: ternary matrices whose columns have scales by groups, as one product.
//!
//! The scales lie among the packed codes and kernels apply them group by group (see
//! [`bitnet_codegen::variant::groups`]), so a layer is one pass over the threads, whatever its groups, and what comes
//! out is f32.

use super::packed::Packings;
use super::{ByBucket, Workspace, grow, scratch_of, stacked, tiles};
use crate::graph::products::common_group;
use crate::graph::{Acts, ScaleShape};
use crate::lanes;
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
    packings: Packings,
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
        let ns: Vec<usize> = matrices.iter().map(TernaryMatrix::n).collect();
        let packings = Packings::new(pool, matrices, k, kernels);
        Self::restored(&ns, k, groups, packings)
    }

    /// Stacked matrices of `ns` rows and `k` columns that were packed before.
    ///
    /// # Panics
    /// When a kernel has other groups than `groups`.
    pub(in crate::network) fn restored(
        ns: &[usize],
        k: usize,
        groups: Groups,
        packings: Packings,
    ) -> Self {
        for kernel in packings.kernels() {
            let fits = kernel.groups() == Some(groups)
                && kernel.out_order() == OutOrder::TokenMajor
                && kernel.tile_sizes().min() == Some(1);
            assert!(fits, "{} for {groups:?} of {k} columns", kernel.spec());
        }
        let stacked = stacked(ns.iter().copied());
        Self {
            n: stacked.last().map_or(0, |rows| rows.end),
            k,
            groups,
            stacked,
            packings,
        }
    }

    /// The packed weights.
    pub(in crate::network) fn packings(&self) -> &Packings {
        &self.packings
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
        let fits = |k: &Arc<Kernel>| k.groups() == Some(self.groups);
        let packings = self.packings.share(kernels)?;
        kernels.iter().all(fits).then(|| Self {
            packings,
            stacked: self.stacked.clone(),
            ..*self
        })
    }

    /// Bytes of all packed copies.
    pub fn packed_bytes(&self) -> usize {
        self.packings.all_bytes()
    }

    /// The kernel that serves `m` tokens.
    pub fn kernel(&self, m: usize) -> &Arc<Kernel> {
        self.packings.of(m).0
    }

    /// Bytes of weights and scales that a product of `m` tokens reads.
    pub fn weight_bytes(&self, m: usize) -> usize {
        self.packings.bytes(m)
    }

    /// The same layer over its own copy of the packed bytes, so that a benchmark can read weights that no cache holds.
    pub fn duplicate(&self) -> Self {
        Self {
            packings: self.packings.duplicate(),
            stacked: self.stacked.clone(),
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
        let put = |y: &mut [f32], values: &[f32]| y.copy_from_slice(values);
        self.product(pool, work, acts, (y, stride, first), put);
    }

    /// As [`Self::forward`] with rows of `n`, added to what `y` holds by one addition an output.
    pub fn forward_add(
        &self,
        pool: &Pool,
        work: &mut Workspace,
        acts: &GroupedActs,
        y: &mut [f32],
    ) {
        self.product(pool, work, acts, (y, self.n, 0), lanes::add);
    }

    /// Runs all tiles; `put(outputs, values)` takes a token's values of a panel to their place.
    fn product(
        &self,
        pool: &Pool,
        work: &mut Workspace,
        acts: &GroupedActs,
        (y, stride, first): (&mut [f32], usize, usize),
        put: impl Fn(&mut [f32], &[f32]) + Sync,
    ) {
        let asked = (acts.k, acts.group_k, acts.planes);
        let known = (self.k, self.groups.scales.k, self.groups.planes);
        assert_eq!(
            asked, known,
            "K, groups and planes of activations and layer"
        );
        let (kernel, packed) = self.packings.of(acts.m);
        let nr = packed.nr();
        let block = packed.claim(pool.threads()) * nr;
        let out = Columns::new(y, acts.m, stride, first, self.n, block);
        let workers = &work.workers;
        pool.each(out, |worker, _, mut columns| {
            let mut worker = workers[worker]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let worker = &mut *worker;
            let scratch = scratch_of(&mut worker.scratch, kernel);
            for from in (0..columns.width()).step_by(nr) {
                let panel = packed.panel((columns.first() + from) / nr);
                let rows = nr.min(columns.width() - from);
                kernel.load_panel(panel, scratch);
                for (first, mr) in tiles(kernel, acts.m) {
                    grow(&mut worker.out, kernel.out_len(mr));
                    let out: &mut [f32] =
                        bytemuck::cast_slice_mut(&mut worker.out[..kernel.out_len(mr)]);
                    let x = bytemuck::cast_slice(acts.rows(first, mr));
                    kernel.run_grouped(mr, panel, x, acts.of_groups(first, mr), scratch, out);
                    for (t, values) in out.chunks_exact(nr).enumerate() {
                        put(&mut columns.row(first + t)[from..][..rows], &values[..rows]);
                    }
                }
            }
        });
    }
}

impl Workspace {
    /// As [`Workspace::make_room`].
    pub fn make_room_grouped(&mut self, linear: &GroupedLinear) {
        for kernel in linear.packings.kernels() {
            self.make_room_for(kernel);
        }
    }
}
