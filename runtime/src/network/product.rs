//! [`Projections`]: the ternary products that share an input, and what they need to run.

use super::float::FloatRows;
use super::head::HeadError;
use super::kernels::{ForcedError, Kernels};
use super::linear::{Linear, Workspace};
use crate::format::{LoadError, Model};
use crate::graph::products::stacks;
use crate::graph::{Acts, ModelConfig, Norm, Projection, ScaleShape, TensorId};
use crate::lanes;
use crate::pool::{Chunks, Pool};
use bitnet_codegen::trit::TritError;
use bitnet_codegen::{Activations, TernaryMatrix};
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
    Float(FloatRows),
}

impl Weights {
    fn k(&self) -> usize {
        match self {
            Weights::Ternary(linear) => linear.k(),
            Weights::Float(rows) => rows.k(),
        }
    }
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
    n: usize,
}

/// Working memory of [`Projections::forward`], shared by all layers: nothing is allocated once it has grown to its size.
pub struct ProjectionScratch {
    work: Workspace,
    /// The quantised input.
    acts: Activations,
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
        linears: impl Iterator<Item = &'l Linear>,
    ) -> Self {
        let mut work = Workspace::new(pool);
        for linear in linears {
            work.make_room(linear);
        }
        let inputs = Projection::ALL.map(|p| config.linear_shape(p).1);
        let widest = inputs.into_iter().max().unwrap_or(0);
        let spare = |_| Mutex::new(vec![0f32; widest]);
        Self {
            work,
            acts: Activations::default(),
            input: vec![0.0; rows * widest],
            spares: (0..pool.threads()).map(spare).collect(),
        }
    }
}

impl Projections {
    /// Packs `projections` of `layer`: stacked into one product where their scales allow it and they
    /// share one input.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn new(
        pool: &Pool,
        model: &Model,
        kernels: &mut Kernels,
        layer: usize,
        projections: &[Projection],
    ) -> Result<Self, BuildError> {
        let id = |projection| TensorId { layer, projection };
        /// `None` for what is kept in float.
        type Decoded = Result<Option<TernaryMatrix>, LoadError>;
        let decoded: Vec<Mutex<Option<Decoded>>> =
            projections.iter().map(|_| Mutex::new(None)).collect();
        pool.run(projections.len(), |_, i| {
            let id = id(projections[i]);
            let matrix = match model.float_projection(id) {
                Some(_) => Ok(None),
                None => model.ternary(id).map(Some),
            };
            *decoded[i].lock().expect("one worker a slot") = Some(matrix);
        });
        let matrices = decoded
            .into_iter()
            .map(|slot| {
                slot.into_inner()
                    .expect("one worker a slot")
                    .expect("every slot was filled")
            })
            .collect::<Result<Vec<_>, _>>()?;
        let config = model.config();
        let scales = |projection| {
            let of = projections.iter().zip(&matrices);
            let (_, matrix) = of
                .into_iter()
                .find(|(p, _)| **p == projection)
                .expect("one of these projections");
            match matrix {
                Some(matrix) => ScaleShape::from(matrix.scales()),
                None => ScaleShape::Float,
            }
        };
        let stacks: Vec<&[Projection]> = stacks(config, projections, scales).collect();
        let mut rest = matrices.into_iter();
        let (mut groups, mut n) = (Vec::new(), 0);
        for projections in stacks {
            let matrices: Vec<TernaryMatrix> =
                rest.by_ref().take(projections.len()).flatten().collect();
            let first = id(projections[0]);
            let (weights, rows) = match model.float_projection(first) {
                Some(table) => (Weights::Float(FloatRows::new(&table)), table.rows),
                None => {
                    let linear = Linear::new(pool, &matrices, |n, k| {
                        Ok::<_, BuildError>(kernels.by_bucket(n, k)?)
                    })
                    .map_err(|e| e.of(first))?;
                    let rows = linear.n();
                    (Weights::Ternary(linear), rows)
                }
            };
            let norm = Norm::Input(first);
            let input_norm = model.has_norm(norm).then(|| model.norm(norm)).transpose()?;
            groups.push(Group {
                weights,
                projections: projections.to_vec(),
                input_norm,
                first: n,
            });
            n += rows;
        }
        Ok(Self {
            layer,
            groups,
            input_norm_eps: config.input_norm_eps.unwrap_or(0.0),
            acts: config.acts,
            n,
        })
    }

    /// A ternary LM head: one product of the last hidden state.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn head(
        pool: &Pool,
        matrix: TernaryMatrix,
        kernels: &mut Kernels,
        acts: Acts,
    ) -> Result<Self, BuildError> {
        let linear = Linear::new(pool, &[matrix], |n, k| {
            Ok::<_, BuildError>(kernels.by_bucket(n, k)?)
        })?;
        Ok(Self {
            layer: 0,
            n: linear.n(),
            groups: vec![Group {
                weights: Weights::Ternary(linear),
                projections: Vec::new(),
                input_norm: None,
                first: 0,
            }],
            input_norm_eps: 0.0,
            acts,
        })
    }

    /// Output features of all projections together.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The packed layers.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.groups.iter().filter_map(|g| match &g.weights {
            Weights::Ternary(linear) => Some(linear),
            Weights::Float(_) => None,
        })
    }

    /// What is kept in float.
    pub fn floats(&self) -> impl Iterator<Item = &FloatRows> {
        self.groups.iter().filter_map(|g| match &g.weights {
            Weights::Ternary(_) => None,
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
        let ProjectionScratch {
            work,
            acts,
            input,
            spares,
        } = scratch;
        let planes = self.acts.planes();
        // Whether `input` and `acts` hold the rows without any norm of a projection's own.
        let mut plain = false;
        for group in &self.groups {
            let k = group.weights.k();
            let norm = group.input_norm.as_deref();
            if norm.is_some() || !plain {
                acts.reshape(m * planes, k);
                let Activations {
                    q,
                    sums,
                    scales,
                    k_padded,
                    ..
                } = &mut *acts;
                let k_padded = *k_padded;
                let codes = (
                    Chunks::new(q, k_padded * planes),
                    (Chunks::new(sums, planes), Chunks::new(scales, planes)),
                );
                let parts = (Chunks::new(&mut input[..m * k], k), codes);
                let spares = &*spares;
                pool.each(parts, |worker, r, (x, (q, (sums, scales)))| {
                    let mut spare = spares[worker]
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    let spare = &mut spare[..k];
                    row(r, x, spare);
                    if let Some(weight) = norm {
                        spare.copy_from_slice(x);
                        lanes::rms_norm(spare, weight, self.input_norm_eps, x);
                    }
                    match planes {
                        1 => (sums[0], scales[0]) = lanes::quantise(x, q),
                        _ => {
                            scales.fill(lanes::quantise_planes(x, k_padded, q));
                            for (sum, plane) in sums.iter_mut().zip(q.chunks_exact(k_padded)) {
                                *sum = plane.iter().map(|&q| i32::from(q)).sum();
                            }
                        }
                    }
                });
                plain = norm.is_none();
            }
            let linear = match &group.weights {
                Weights::Float(rows) => {
                    rows.forward(pool, &input[..m * k], y, self.n, group.first);
                    continue;
                }
                Weights::Ternary(linear) => linear,
            };
            match planes {
                1 => linear.forward(pool, work, acts, y, self.n, group.first),
                _ => linear.forward_planes(pool, work, (acts, planes), y, self.n, group.first),
            }
            if let Some(tap) = tap {
                let n = linear.n();
                let mut acc = vec![0; acts.m * n];
                linear.accumulate(pool, work, acts, &mut acc);
                for (projection, rows) in group.projections.iter().zip(linear.stacked()) {
                    let own: Vec<i32> = acc
                        .chunks_exact(n)
                        .flat_map(|row| &row[rows.clone()])
                        .copied()
                        .collect();
                    let id = TensorId {
                        layer: self.layer,
                        projection: *projection,
                    };
                    tap(id, acts, &own);
                }
            }
        }
    }
}
