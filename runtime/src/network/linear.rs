//! [`Linear`]: a ternary matrix packed for its kernels, and the blocked, threaded product around them.
//!
//! Several matrices with the same input are stacked (q|k|v, gate|up), so that one pass over the threads serves
//! them all. Panels are handed out in chunks; each panel is read once and meets every tile of tokens.
//! A matrix with a scale for each group of columns runs as one product a group, added in column order.
//!
//! Longer than 500 lines: the blocked product and the memory that it runs in.

use crate::graph::ScaleShape;
use crate::lanes;
use crate::pool::{Chunks, ColumnBlock, Columns, Pool};
use crate::profile::M_BUCKETS;
use bitnet_codegen::kernel::AlignedBytes;
use bitnet_codegen::trit::TritError;
use bitnet_codegen::{Activations, Kernel, Scales, Scratch, TernaryMatrix};
use packed::Packed;

pub(super) use packed::Packings;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use tile::{TileSums, by_token};

pub mod grouped;
mod packed;
mod planes;
mod tile;

/// How many ranges of token counts have a kernel of their own.
pub const BUCKETS: usize = M_BUCKETS.len();

/// One kernel for each of [`M_BUCKETS`].
pub type ByBucket = [Arc<Kernel>; BUCKETS];

/// The same kernel for every number of tokens.
pub fn same_for_all(kernel: &Arc<Kernel>) -> ByBucket {
    std::array::from_fn(|_| Arc::clone(kernel))
}

/// The columns that share a scale, or all of them.
#[derive(Clone)]
struct Part {
    cols: Range<usize>,
    packings: Packings,
    /// The multiplier of each row.
    row_scales: Arc<Vec<f32>>,
}

/// A packed ternary layer.
pub struct Linear {
    n: usize,
    k: usize,
    stacked: Vec<Range<usize>>,
    parts: Vec<Part>,
}

/// Working memory for products, shared by all layers: nothing is allocated once it has grown to its size.
pub struct Workspace {
    workers: Vec<Mutex<Worker>>,
    prepared: AlignedBytes,
    group: Activations,
    /// Sums of several planes, before they are put together: `[m · planes, n]`.
    wide: Vec<i32>,
}

#[derive(Default)]
struct Worker {
    scratch: Vec<(Arc<Kernel>, Scratch)>,
    out: Vec<i32>,
    turned: Vec<i32>,
    sums: Vec<i32>,
}

impl Workspace {
    /// For `pool`.
    pub fn new(pool: &Pool) -> Self {
        Self {
            workers: (0..pool.threads()).map(|_| Mutex::default()).collect(),
            prepared: AlignedBytes::default(),
            group: Activations::default(),
            wide: Vec::new(),
        }
    }

    /// Sets aside what every worker needs for the products of `linear`. Otherwise a worker that joins its first
    /// product late allocates then.
    pub fn make_room(&mut self, linear: &Linear) {
        for kernel in linear.parts.iter().flat_map(|p| p.packings.kernels()) {
            self.make_room_for(kernel);
        }
    }

    fn make_room_for(&mut self, kernel: &Arc<Kernel>) {
        for worker in &mut self.workers {
            let worker = worker.get_mut().unwrap_or_else(PoisonError::into_inner);
            scratch_of(&mut worker.scratch, kernel);
            for mr in kernel.tile_sizes() {
                grow(&mut worker.out, kernel.out_len(mr));
                grow(&mut worker.turned, kernel.out_len(mr));
                grow(&mut worker.sums, mr);
            }
        }
    }
}

impl Linear {
    /// Packs `matrices` (stacked: all with one K), with the kernels that `pick(n, k)` gives for the
    /// stacked rows and for K or, under group scales, for the columns of a group.
    ///
    /// # Errors
    /// Those of `pick`, and [`TritError`] when the group scales of a matrix cannot be split into columns.
    ///
    /// # Panics
    /// When the matrices differ in K, or group scales are stacked with others.
    pub fn new<E: From<TritError>>(
        pool: &Pool,
        matrices: &[TernaryMatrix],
        mut pick: impl FnMut(usize, usize) -> Result<ByBucket, E>,
    ) -> Result<Self, E> {
        let k = matrices[0].k();
        assert!(
            matrices.iter().all(|m| m.k() == k),
            "stacked matrices have one K"
        );
        let stacked = stacked(matrices.iter().map(TernaryMatrix::n));
        let n = stacked.last().map_or(0, |rows| rows.end);
        let parts = if let Scales::Group { group_k, scales } = matrices[0].scales() {
            assert_eq!(matrices.len(), 1, "group scales are not stacked");
            let groups = k.div_ceil(*group_k);
            let columns = ScaleShape::from(matrices[0].scales()).columns(k);
            columns
                .enumerate()
                .map(|(g, cols)| {
                    let rows: Vec<f32> = (0..n).map(|r| scales[r * groups + g]).collect();
                    // A scale of 0 stands for an all-zero group, which any multiplier leaves at 0.
                    let w = matrices[0].columns(cols.clone(), Scales::Row(rows.clone()))?;
                    let kernels = pick(n, cols.len())?;
                    Ok(Part::pack(pool, &[w], cols, rows, kernels))
                })
                .collect::<Result<Vec<_>, E>>()?
        } else {
            let row_scales = matrices.iter().flat_map(row_scales).collect();
            vec![Part::pack(pool, matrices, 0..k, row_scales, pick(n, k)?)]
        };
        Ok(Self {
            n,
            k,
            stacked,
            parts,
        })
    }

    /// Stacked matrices of `ns` rows and `k` columns that were packed before, with a scale a row.
    pub(super) fn restored(
        ns: &[usize],
        k: usize,
        row_scales: Vec<f32>,
        packings: Packings,
    ) -> Self {
        let stacked = stacked(ns.iter().copied());
        let part = Part {
            cols: 0..k,
            packings,
            row_scales: Arc::new(row_scales),
        };
        Self {
            n: stacked.last().map_or(0, |rows| rows.end),
            k,
            stacked,
            parts: vec![part],
        }
    }

    /// The packed weights; `None` where the layer has a part for each group of columns.
    pub(super) fn packings(&self) -> Option<&Packings> {
        match &self.parts[..] {
            [part] => Some(&part.packings),
            _ => None,
        }
    }

    /// The same packed weights, shared, under `kernels`; `None` where one of them reads other panels,
    /// or where the layer has a part for each group of columns.
    pub fn share(&self, kernels: &ByBucket) -> Option<Self> {
        let [part] = &self.parts[..] else { return None };
        Some(Self {
            n: self.n,
            k: self.k,
            stacked: self.stacked.clone(),
            parts: vec![part.share(kernels)?],
        })
    }

    /// The same layer over its own copy of the packed bytes, so that a benchmark can read weights that no cache holds.
    pub fn duplicate(&self) -> Self {
        Self {
            n: self.n,
            k: self.k,
            stacked: self.stacked.clone(),
            parts: self.parts.iter().map(Part::duplicate).collect(),
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

    /// The output rows of each stacked matrix.
    pub fn stacked(&self) -> &[Range<usize>] {
        &self.stacked
    }

    /// The kernel that serves `m` tokens (of the first group of columns, where there are several).
    pub fn kernel(&self, m: usize) -> &Arc<Kernel> {
        self.parts[0].packings.of(m).0
    }

    /// Bytes of weights that a product of `m` tokens reads.
    pub fn weight_bytes(&self, m: usize) -> usize {
        self.parts.iter().map(|p| p.packings.bytes(m)).sum()
    }

    /// Bytes of all packed copies.
    pub fn packed_bytes(&self) -> usize {
        self.parts.iter().map(|p| p.packings.all_bytes()).sum()
    }

    /// `y[t][first + n] = (Σ_k w[n][k]·q[t][k]) / s[t] · ws[n]` for every token of `acts`.
    ///
    /// # Shapes
    /// `y`: `[m, stride]`; columns `first..first + n` are written.
    pub fn forward(
        &self,
        pool: &Pool,
        work: &mut Workspace,
        acts: &Activations,
        y: &mut [f32],
        stride: usize,
        first: usize,
    ) {
        self.rescaled(pool, work, acts, (y, stride, first), false);
    }

    /// As [`Self::forward`] with rows of `n`, added to what `y` holds by one addition an output; `false`, and nothing
    /// is done, where an output is a sum over groups of columns by itself.
    pub fn forward_add(
        &self,
        pool: &Pool,
        work: &mut Workspace,
        acts: &Activations,
        y: &mut [f32],
    ) -> bool {
        let whole = self.parts.len() == 1;
        if whole {
            self.rescaled(pool, work, acts, (y, self.n, 0), true);
        }
        whole
    }

    fn rescaled(
        &self,
        pool: &Pool,
        work: &mut Workspace,
        acts: &Activations,
        out: (&mut [f32], usize, usize),
        add: bool,
    ) {
        self.product(pool, work, acts, out, |part, tile, y| {
            let s = &acts.scales[tile.tokens.clone()];
            let ws = &self.parts[part].row_scales[tile.rows.clone()];
            let at = (tile.tokens.start, tile.column);
            lanes::rescale((tile.sums, tile.stride), s, ws, y, at, add || part > 0);
        });
    }

    /// The integer sums alone, `[m, n]`: what is compared with the oracle.
    pub fn accumulate(&self, pool: &Pool, work: &mut Workspace, acts: &Activations, y: &mut [i32]) {
        self.product(pool, work, acts, (y, self.n, 0), |part, tile, y| {
            tile.each(y, |sums, y| match part {
                0 => y.copy_from_slice(sums),
                _ => y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum),
            });
        });
    }

    /// Runs all tiles; `store(part, sums of a tile, columns)` takes them to the columns of the outputs.
    fn product<T: Send>(
        &self,
        pool: &Pool,
        work: &mut Workspace,
        acts: &Activations,
        (y, stride, first): (&mut [T], usize, usize),
        store: impl Fn(usize, TileSums<'_>, &mut ColumnBlock<'_, T>) + Sync,
    ) {
        assert_eq!(acts.k, self.k, "K of the activations and of the layer");
        if acts.m == 0 {
            return;
        }
        assert!(
            work.workers.len() >= pool.threads(),
            "a workspace of {} threads for {}",
            work.workers.len(),
            pool.threads()
        );
        for (index, part) in self.parts.iter().enumerate() {
            let store = |tile: TileSums<'_>, y: &mut ColumnBlock<'_, T>| store(index, tile, y);
            self.part_product(part, pool, work, acts, (&mut *y, stride, first), store);
        }
    }

    /// Runs the tiles of one part of at least one token.
    fn part_product<T: Send>(
        &self,
        part: &Part,
        pool: &Pool,
        work: &mut Workspace,
        acts: &Activations,
        (y, stride, first): (&mut [T], usize, usize),
        store: impl Fn(TileSums<'_>, &mut ColumnBlock<'_, T>) + Sync,
    ) {
        let Workspace {
            workers,
            prepared,
            group,
            ..
        } = work;
        let acts = if self.parts.len() == 1 {
            acts
        } else {
            columns(acts, part.cols.clone(), group);
            &*group
        };
        let run = Run::new(part, acts);
        run.prepare(pool, prepared);
        let (run, prepared, workers) = (&run, prepared.bytes(), &*workers);
        let block = run.packed.claim(pool.threads()) * run.packed.nr();
        let out = Columns::new(y, acts.m, stride, first, self.n, block);
        pool.each(out, |worker, _, mut columns| {
            // Each worker has its own lock, so it is always free; after a panic any content will do.
            let mut worker = workers[worker]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            run.chunk(&mut worker, prepared, &mut columns, &store);
        });
    }
}

/// The rows of each of some stacked matrices.
fn stacked(ns: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut end = 0;
    let rows = ns.map(|n| {
        end += n;
        end - n..end
    });
    rows.collect()
}

fn row_scales(m: &TernaryMatrix) -> Vec<f32> {
    match m.scales() {
        Scales::Tensor(s) => vec![*s; m.n()],
        Scales::Row(rows) => rows.clone(),
        Scales::Group { .. } => panic!("group scales are not stacked"),
    }
}

/// The columns `cols` of quantised tokens, with their own sums.
fn columns(acts: &Activations, cols: Range<usize>, out: &mut Activations) {
    out.reshape(acts.m, cols.len());
    for t in 0..acts.m {
        let from = &acts.q[t * acts.k_padded..][cols.clone()];
        let to = &mut out.q[t * out.k_padded..][..out.k_padded];
        to[..from.len()].copy_from_slice(from);
        to[from.len()..].fill(0);
        out.sums[t] = from.iter().map(|&q| q as i32).sum();
    }
}

impl Part {
    fn pack(
        pool: &Pool,
        matrices: &[TernaryMatrix],
        cols: Range<usize>,
        row_scales: Vec<f32>,
        kernels: ByBucket,
    ) -> Self {
        Self {
            packings: Packings::new(pool, matrices, cols.len(), kernels),
            cols,
            row_scales: Arc::new(row_scales),
        }
    }

    /// The same weights, shared, under other kernels; `None` where a kernel reads other panels.
    fn share(&self, kernels: &ByBucket) -> Option<Self> {
        let packings = self.packings.share(kernels)?;
        Some(Self {
            packings,
            ..self.clone()
        })
    }

    /// The same layer over a copy of the packed bytes.
    fn duplicate(&self) -> Self {
        Self {
            packings: self.packings.duplicate(),
            ..self.clone()
        }
    }
}

/// One product of one part.
struct Run<'a> {
    kernel: &'a Arc<Kernel>,
    packed: &'a Packed,
    /// Distance between prepared tiles.
    tile_bytes: usize,
    /// Whether tiles are prepared: the form asks for it, or the last one reads past the last token.
    prepares: bool,
    acts: &'a Activations,
}

impl<'a> Run<'a> {
    fn new(part: &'a Part, acts: &'a Activations) -> Self {
        let (kernel, packed) = part.packings.of(acts.m);
        let form = kernel.acts_form();
        let most = tiles(kernel, acts.m).map(|(_, mr)| mr).max().unwrap_or(0);
        let end = tiles(kernel, acts.m).map(|(first, mr)| first + mr).max();
        Self {
            kernel,
            packed,
            tile_bytes: form.tile_bytes(most, acts.k).next_multiple_of(64),
            prepares: form.needs_preparing() || end != Some(acts.m),
            acts,
        }
    }

    /// Brings every tile of tokens into the form that the kernel reads.
    fn prepare(&self, pool: &Pool, prepared: &mut AlignedBytes) {
        if !self.prepares {
            return;
        }
        let count = tiles(self.kernel, self.acts.m).count();
        let need = count * self.tile_bytes;
        if prepared.bytes().len() < need {
            *prepared = AlignedBytes::zeroed(need);
        }
        let form = self.kernel.acts_form();
        pool.each(
            Chunks::new(&mut prepared.bytes_mut()[..need], self.tile_bytes),
            |_, i, out| {
                let (first, mr) = tiles(self.kernel, self.acts.m)
                    .nth(i)
                    .expect("a tile of this product");
                let out = &mut out[..form.tile_bytes(mr, self.acts.k)];
                if form.needs_preparing() {
                    form.prepare(self.acts, first, mr, out);
                } else {
                    let rows = self.acts.rows(first, mr.min(self.acts.m - first));
                    out[rows.len()..].fill(0);
                    out[..rows.len()].copy_from_slice(bytemuck::cast_slice(rows));
                }
            },
        );
    }

    /// All tiles of a block of panels.
    fn chunk<T>(
        &self,
        worker: &mut Worker,
        prepared: &[u8],
        columns: &mut ColumnBlock<'_, T>,
        store: &impl Fn(TileSums<'_>, &mut ColumnBlock<'_, T>),
    ) {
        let Worker {
            scratch,
            out,
            turned,
            sums,
        } = worker;
        let scratch = scratch_of(scratch, self.kernel);
        let (kernel, nr, acts) = (&**self.kernel, self.packed.nr(), self.acts);
        let order = kernel.out_order();
        for from in (0..columns.width()).step_by(nr) {
            let first_row = columns.first() + from;
            let rows = first_row..first_row + nr.min(columns.width() - from);
            let panel = self.packed.panel(first_row / nr);
            kernel.load_panel(panel, scratch);
            for (i, (first, mr)) in tiles(kernel, acts.m).enumerate() {
                let tokens = mr.min(acts.m - first);
                let len = kernel.out_len(mr);
                grow(out, len);
                grow(sums, mr);
                sums[..tokens].copy_from_slice(&acts.sums[first..first + tokens]);
                sums[tokens..].fill(0);
                let tile: &[u8] = if self.prepares {
                    &prepared[i * self.tile_bytes..][..kernel.acts_form().tile_bytes(mr, acts.k)]
                } else {
                    bytemuck::cast_slice(acts.rows(first, mr))
                };
                kernel.run(mr, panel, tile, &sums[..mr], scratch, &mut out[..len]);
                for (part, values) in by_token(order, (nr, mr), &out[..len], turned) {
                    let shown = part.start.min(rows.len())..part.end.min(rows.len());
                    if shown.is_empty() {
                        continue;
                    }
                    let tile = TileSums {
                        tokens: first..first + tokens,
                        rows: first_row + shown.start..first_row + shown.end,
                        column: from + shown.start,
                        sums: values,
                        stride: part.len(),
                    };
                    store(tile, columns);
                }
            }
        }
    }
}

fn grow(v: &mut Vec<i32>, len: usize) {
    if v.len() < len {
        v.resize(len, 0);
    }
}

fn scratch_of<'w>(
    all: &'w mut Vec<(Arc<Kernel>, Scratch)>,
    kernel: &Arc<Kernel>,
) -> &'w mut Scratch {
    let at = match all.iter().position(|(k, _)| Arc::ptr_eq(k, kernel)) {
        Some(at) => at,
        None => {
            all.push((Arc::clone(kernel), kernel.scratch()));
            all.len() - 1
        }
    };
    &mut all[at].1
}

/// [`Kernel::tiles`] without an allocation.
fn tiles(kernel: &Kernel, m: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut first = 0;
    std::iter::from_fn(move || {
        (first < m).then(|| {
            let smallest = kernel.tile_sizes().min().expect("a kernel has a tile size");
            let mr = kernel
                .tile_sizes()
                .find(|&s| s <= m - first)
                .unwrap_or(smallest);
            first += mr;
            (first - mr, mr)
        })
    })
}

#[cfg(test)]
mod tests;
