//! [`Projections`]: the ternary products that share an input, and what they need to run.

mod build;

pub(super) use build::Packer;

use super::float::FloatRows;
use super::head::HeadError;
use super::kernels::ForcedError;
use super::linear::grouped::GroupedLinear;
use super::linear::{Linear, Workspace};
use crate::format::LoadError;
use crate::graph::{Acts, ModelConfig, Projection, TensorId};
use crate::lanes;
use crate::pool::{Chunks, Pool};
use bitnet_codegen::trit::TritError;
use bitnet_codegen::{Activations, GroupedActs, Groups};
use std::sync::{Mutex, PoisonError};

/// What is told about every projection, when somebody asks: which one, its quantised input, its integer sums `[m, n]`.
pub type Tap = Box<dyn FnMut(TensorId, &Activations, &[i32]) + Send>;

/// Why a block cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The file's weights are not what they must be.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Group scales that cannot be split.
    #[error("{}{reason}", id.map_or(String::new(), |id| format!("{id}: ")))]
    Trit {
        /// The projection, once it is known.
        id: Option<TensorId>,
        /// What is wrong.
        reason: TritError,
    },
    /// The kernel that was asked for.
    #[error(transparent)]
    Kernel(#[from] ForcedError),
    /// The form of the LM head that was asked for.
    #[error(transparent)]
    Head(#[from] HeadError),
}

impl From<TritError> for BuildError {
    fn from(reason: TritError) -> Self {
        BuildError::Trit { id: None, reason }
    }
}

impl BuildError {
    fn of(self, projection: TensorId) -> Self {
        match self {
            BuildError::Trit { reason, .. } => BuildError::Trit {
                id: Some(projection),
                reason,
            },
            other => other,
        }
    }
}

/// What one product of [`Projections`] multiplies with.
enum Weights {
    Ternary(Linear),
    Grouped(GroupedLinear),
    Float(FloatRows),
}

impl Weights {
    fn k(&self) -> usize {
        match self {
            Weights::Ternary(linear) => linear.k(),
            Weights::Grouped(linear) => linear.k(),
            Weights::Float(rows) => rows.k(),
        }
    }

    fn n(&self) -> usize {
        match self {
            Weights::Ternary(linear) => linear.n(),
            Weights::Grouped(linear) => linear.n(),
            Weights::Float(rows) => rows.n(),
        }
    }

    /// What an input must be quantised to.
    fn held(&self) -> Held {
        match self {
            Weights::Ternary(_) => Held::Tokens,
            Weights::Grouped(linear) => Held::Groups(linear.groups()),
            Weights::Float(_) => Held::Floats,
        }
    }
}

/// What the working memory holds of the rows of an input.
#[derive(Clone, Copy, PartialEq)]
enum Held {
    /// Themselves.
    Floats,
    /// Themselves, and codes with a scale a token.
    Tokens,
    /// Themselves, and codes with a scale a token and group.
    Groups(Groups),
}

/// One product of [`Projections`].
struct Group {
    weights: Weights,
    projections: Vec<Projection>,
    input_norm: Option<Vec<f32>>,
    /// First column in the rows of the result.
    first: usize,
}

/// Projections of the same input, side by side in the result.
pub struct Projections {
    layer: usize,
    groups: Vec<Group>,
    input_norm_eps: f32,
    acts: Acts,
    /// Whether inputs have a scale for each group of columns, where weights have: the model was trained with floats.
    weight_only: bool,
    n: usize,
}

/// Working memory of [`Projections::forward`], shared by all layers: nothing is allocated once it has grown to its size.
pub struct ProjectionScratch {
    work: Workspace,
    /// The quantised input.
    acts: Activations,
    /// The same by groups.
    grouped: GroupedActs,
    /// Rows on their way to the quantiser, `[rows, widest input]`.
    input: Vec<f32>,
    /// For each worker a row as wide as the widest input.
    spares: Vec<Mutex<Vec<f32>>>,
}

impl ProjectionScratch {
    /// For up to `rows` rows of a model's inputs through `linears`.
    pub fn new<'l>(
        pool: &Pool,
        rows: usize,
        config: &ModelConfig,
        products: impl Iterator<Item = &'l Projections>,
    ) -> Self {
        let mut work = Workspace::new(pool);
        for group in products.flat_map(|p| &p.groups) {
            match &group.weights {
                Weights::Ternary(linear) => work.make_room(linear),
                Weights::Grouped(linear) => work.make_room_grouped(linear),
                Weights::Float(_) => {}
            }
        }
        let inputs = Projection::ALL.map(|p| config.linear_shape(p).1);
        let widest = inputs.into_iter().max().unwrap_or(0);
        let spare = |_| Mutex::new(vec![0f32; widest]);
        Self {
            work,
            acts: Activations::default(),
            grouped: GroupedActs::default(),
            input: vec![0.0; rows * widest],
            spares: (0..pool.threads()).map(spare).collect(),
        }
    }
}

impl Projections {
    /// Output features of all projections together.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The packed layers.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.groups.iter().filter_map(|g| match &g.weights {
            Weights::Ternary(linear) => Some(linear),
            Weights::Grouped(_) | Weights::Float(_) => None,
        })
    }

    /// The packed layers whose kernels apply group scales.
    pub fn grouped(&self) -> impl Iterator<Item = &GroupedLinear> {
        self.groups.iter().filter_map(|g| match &g.weights {
            Weights::Grouped(linear) => Some(linear),
            Weights::Ternary(_) | Weights::Float(_) => None,
        })
    }

    /// What is kept in float.
    pub fn floats(&self) -> impl Iterator<Item = &FloatRows> {
        self.groups.iter().filter_map(|g| match &g.weights {
            Weights::Ternary(_) | Weights::Grouped(_) => None,
            Weights::Float(rows) => Some(rows),
        })
    }

    /// `y = projections(x)` for the `m` rows of x that `row(r, out, spare)` writes; `spare` is working memory.
    ///
    /// # Shapes
    /// A row: `[k]`; `y`: `[m, n]`.
    pub fn forward(
        &self,
        pool: &Pool,
        scratch: &mut ProjectionScratch,
        tap: &mut Option<Tap>,
        m: usize,
        row: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
        y: &mut [f32],
    ) {
        self.groups_of_rows(pool, scratch, tap, m, row, |pool, scratch, group| {
            self.multiply(pool, scratch, group, m, y);
        });
    }

    /// As [`Self::forward`], added to what `y` holds. `spare`: as much room, for products that cannot add.
    pub fn forward_add(
        &self,
        pool: &Pool,
        scratch: &mut ProjectionScratch,
        tap: &mut Option<Tap>,
        m: usize,
        row: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
        (y, spare): (&mut [f32], &mut [f32]),
    ) {
        let mut added = false;
        self.groups_of_rows(pool, scratch, tap, m, row, |pool, scratch, group| {
            added = self.multiply_add(pool, scratch, group, y);
            if !added {
                self.multiply(pool, scratch, group, m, spare);
            }
        });
        if !added {
            pool.each(Chunks::new(y, self.n), |_, r, y| {
                lanes::add(y, &spare[r * self.n..][..self.n])
            });
        }
    }

    /// Takes the rows into the working memory as each group of products wants them, and lets it multiply.
    fn groups_of_rows(
        &self,
        pool: &Pool,
        scratch: &mut ProjectionScratch,
        tap: &mut Option<Tap>,
        m: usize,
        row: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
        mut multiply: impl FnMut(&Pool, &mut ProjectionScratch, &Group),
    ) {
        // What the working memory holds of the rows without any norm of a projection's own.
        let mut held = None;
        for group in &self.groups {
            let norm = group.input_norm.as_deref();
            let wanted = group.weights.held();
            if norm.is_some() || held != Some(wanted) {
                self.take(
                    pool,
                    scratch,
                    (m, group.weights.k()),
                    wanted,
                    |r, x, spare| {
                        row(r, x, spare);
                        if let Some(weight) = norm {
                            spare.copy_from_slice(x);
                            lanes::rms_norm(spare, weight, self.input_norm_eps, x);
                        }
                    },
                );
                held = norm.is_none().then_some(wanted);
            }
            multiply(pool, scratch, group);
            if let (Some(tap), Weights::Ternary(linear)) = (&mut *tap, &group.weights) {
                self.tell(pool, scratch, (linear, &group.projections), tap);
            }
        }
    }

    /// Takes `m` rows of `k` into the working memory, quantised as `wanted` says.
    fn take(
        &self,
        pool: &Pool,
        scratch: &mut ProjectionScratch,
        (m, k): (usize, usize),
        wanted: Held,
        row: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
    ) {
        let ProjectionScratch {
            acts,
            grouped,
            input,
            spares,
            ..
        } = scratch;
        let spares = &*spares;
        let read = |worker: usize, r: usize, x: &mut [f32]| {
            let spare = spares[worker].lock();
            let mut spare = spare.unwrap_or_else(PoisonError::into_inner);
            row(r, x, &mut spare[..k]);
        };
        let input = Chunks::new(&mut input[..m * k], k);
        match wanted {
            Held::Floats => pool.each(input, read),
            Held::Tokens => {
                let planes = self.acts.planes();
                acts.reshape(m * planes, k);
                let k_padded = acts.k_padded;
                let sums = (
                    Chunks::new(&mut acts.sums, planes),
                    Chunks::new(&mut acts.scales, planes),
                );
                let parts = (input, (Chunks::new(&mut acts.q, k_padded * planes), sums));
                pool.each(parts, |worker, r, (x, (q, (sums, scales)))| {
                    read(worker, r, x);
                    if planes == 1 {
                        (sums[0], scales[0]) = lanes::quantise(x, q);
                        return;
                    }
                    scales.fill(lanes::quantise_planes(x, k_padded, q));
                    for (sum, plane) in sums.iter_mut().zip(q.chunks_exact(k_padded)) {
                        *sum = plane.iter().map(|&q| i32::from(q)).sum();
                    }
                });
            }
            Held::Groups(groups) => {
                let (width, planes) = (groups.scales.k, groups.planes);
                grouped.reshape(m, k, width, planes);
                let (k_padded, count) = (grouped.k_padded, grouped.groups());
                let sums = Chunks::new(&mut grouped.sums, count);
                let of_groups = (sums, Chunks::new(&mut grouped.scales, count));
                let codes = Chunks::new(&mut grouped.q, k_padded * planes);
                let parts = (input, (codes, of_groups));
                pool.each(parts, |worker, r, (x, (q, (sums, scales)))| {
                    read(worker, r, x);
                    match self.weight_only || planes > 1 {
                        true => lanes::quantise_groups(x, width, q, sums, scales),
                        false => lanes::quantise_token(x, width, q, sums, scales),
                    }
                });
            }
        }
    }

    /// The product of one group with what the working memory holds.
    fn multiply(
        &self,
        pool: &Pool,
        scratch: &mut ProjectionScratch,
        group: &Group,
        m: usize,
        y: &mut [f32],
    ) {
        let (work, acts, first) = (&mut scratch.work, &scratch.acts, group.first);
        match (&group.weights, self.acts.planes()) {
            (Weights::Float(rows), _) => {
                let x = &scratch.input[..m * rows.k()];
                rows.forward(pool, x, y, self.n, first);
            }
            (Weights::Grouped(linear), _) => {
                linear.forward(pool, work, &scratch.grouped, y, self.n, first);
            }
            (Weights::Ternary(linear), 1) => linear.forward(pool, work, acts, y, self.n, first),
            (Weights::Ternary(linear), planes) => {
                linear.forward_planes(pool, work, (acts, planes), y, self.n, first);
            }
        }
    }

    /// The product of the only group, added to `y`; `false`, and nothing is done, where it cannot add.
    fn multiply_add(
        &self,
        pool: &Pool,
        scratch: &mut ProjectionScratch,
        group: &Group,
        y: &mut [f32],
    ) -> bool {
        match (&group.weights, self.acts.planes(), self.groups.len()) {
            (Weights::Ternary(linear), 1, 1) => {
                linear.forward_add(pool, &mut scratch.work, &scratch.acts, y)
            }
            (Weights::Grouped(linear), _, 1) => {
                linear.forward_add(pool, &mut scratch.work, &scratch.grouped, y);
                true
            }
            _ => false,
        }
    }

    /// Tells who listens of a product: it is computed again.
    fn tell(
        &self,
        pool: &Pool,
        scratch: &mut ProjectionScratch,
        (linear, projections): (&Linear, &[Projection]),
        tap: &mut Tap,
    ) {
        let n = linear.n();
        let mut acc = vec![0; scratch.acts.m * n];
        linear.accumulate(pool, &mut scratch.work, &scratch.acts, &mut acc);
        for (projection, rows) in projections.iter().zip(linear.stacked()) {
            let rows = acc.chunks_exact(n).flat_map(|row| &row[rows.clone()]);
            let own: Vec<i32> = rows.copied().collect();
            let id = TensorId {
                layer: self.layer,
                projection: *projection,
            };
            tap(id, &scratch.acts, &own);
        }
    }
}
