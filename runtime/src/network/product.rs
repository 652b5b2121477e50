//! [`Projections`]: the ternary products that share an input, and what they need to run.

use super::kernels::{ForcedError, Kernels};
use super::linear::{Linear, Workspace};
use crate::format::{LoadError, Model};
use crate::graph::products::stacks;
use crate::graph::{Norm, Projection, ScaleShape, TensorId};
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

/// One product of [`Projections`].
struct Group {
    linear: Linear,
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
    /// For up to `rows` rows through `linears`.
    pub fn new<'l>(pool: &Pool, rows: usize, linears: impl Iterator<Item = &'l Linear>) -> Self {
        let mut work = Workspace::new(pool);
        let mut widest = 0;
        for linear in linears {
            work.make_room(linear);
            widest = widest.max(linear.k());
        }
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
        let decoded: Vec<Mutex<Option<Result<TernaryMatrix, LoadError>>>> =
            projections.iter().map(|_| Mutex::new(None)).collect();
        pool.run(projections.len(), |_, i| {
            let matrix = model.ternary(id(projections[i]));
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
            ScaleShape::from(matrix.scales())
        };
        let stacks: Vec<&[Projection]> = stacks(config, projections, scales).collect();
        let mut rest = matrices.into_iter();
        let (mut groups, mut n) = (Vec::new(), 0);
        for projections in stacks {
            let matrices: Vec<TernaryMatrix> = rest.by_ref().take(projections.len()).collect();
            let rows: usize = matrices.iter().map(TernaryMatrix::n).sum();
            let linear = Linear::new(pool, &matrices, |n, k| {
                Ok::<_, BuildError>(kernels.by_bucket(n, k)?)
            })
            .map_err(|e| e.of(id(projections[0])))?;
            let input_norm = config
                .input_norm_eps
                .map(|_| model.norm(Norm::Input(id(projections[0]))))
                .transpose()?;
            groups.push(Group {
                linear,
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
            n,
        })
    }

    /// Output features of all projections together.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The packed layers.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.groups.iter().map(|g| &g.linear)
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
        for (i, group) in self.groups.iter().enumerate() {
            let k = group.linear.k();
            if i == 0 || group.input_norm.is_some() {
                acts.reshape(m, k);
                let Activations {
                    q,
                    sums,
                    scales,
                    k_padded,
                    ..
                } = &mut *acts;
                let codes = (
                    Chunks::new(q, *k_padded),
                    (Chunks::new(sums, 1), Chunks::new(scales, 1)),
                );
                let parts = (Chunks::new(&mut input[..m * k], k), codes);
                let spares = &*spares;
                pool.each(parts, |worker, r, (x, (q, (sum, scale)))| {
                    let mut spare = spares[worker]
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    let spare = &mut spare[..k];
                    row(r, x, spare);
                    if let Some(weight) = &group.input_norm {
                        spare.copy_from_slice(x);
                        lanes::rms_norm(spare, weight, self.input_norm_eps, x);
                    }
                    (sum[0], scale[0]) = lanes::quantise(x, q);
                });
            }
            group
                .linear
                .forward(pool, work, acts, y, self.n, group.first);
            if let Some(tap) = tap {
                let n = group.linear.n();
                let mut acc = vec![0; m * n];
                group.linear.accumulate(pool, work, acts, &mut acc);
                for (projection, rows) in group.projections.iter().zip(group.linear.stacked()) {
                    let own: Vec<i32> = acc
                        .chunks_exact(n)
                        .flat_map(|row| &row[rows.clone()])
                        .copied()
                        .collect();
                    tap(
                        TensorId {
                            layer: self.layer,
                            projection: *projection,
                        },
                        acts,
                        &own,
                    );
                }
            }
        }
    }
}
