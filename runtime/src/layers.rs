//! The pieces of a transformer block around the ternary products: rotary embedding, projections of one input,
//! the key-value cache.
//!
//! Everything is f32: squared ReLU makes values of 1e6, which f16 cannot hold, and an f32 cache keeps a prompt
//! that is processed at once equal to one processed token by token without a rule for when to round.

use crate::format::LoadError;
use crate::kernels::{ForcedError, Kernels};
use crate::lanes;
use crate::linear::{Linear, Workspace};
use crate::memory::HugeBytes;
use crate::model::{Activation, Model, ModelConfig, Norm, Role, Rope, TensorId};
use crate::pool::{Pool, Rows};
use bitnet_codegen::trit::TritError;
use bitnet_codegen::{Activations, Scales, TernaryMatrix};
use std::sync::{Mutex, PoisonError};

/// What is told about every projection, when somebody asks: which one, its quantised input, its integer sums `[m, n]`.
pub type Tap = Box<dyn FnMut(TensorId, &Activations, &[i32]) + Send>;

/// Frequencies of the rotary embedding.
pub struct RopeTable {
    /// Angle of one position for each pair.
    frequencies: Vec<f64>,
}

impl RopeTable {
    /// `theta^(−2i/head_dim) / factor_i / linear` for each pair i, in f64.
    pub fn new(rope: &Rope, head_dim: usize) -> Self {
        let frequency = |i: usize| {
            let factor = rope.factors.as_ref().map_or(1.0, |f| f[i] as f64);
            let exponent = -2.0 * i as f64 / head_dim as f64;
            (rope.theta as f64).powf(exponent) / factor / rope.linear as f64
        };
        Self {
            frequencies: (0..head_dim / 2).map(frequency).collect(),
        }
    }

    /// Cosines, then sines of `position`: `[head_dim / 2]` each.
    pub fn fill(&self, position: usize, out: &mut [f32]) {
        let (cos, sin) = out.split_at_mut(self.frequencies.len());
        for ((c, s), f) in cos.iter_mut().zip(sin).zip(&self.frequencies) {
            let (sine, cosine) = (position as f64 * f).sin_cos();
            (*c, *s) = (cosine as f32, sine as f32);
        }
    }
}

/// Rotates the pairs `(x[i], x[i + head_dim/2])` of one head.
pub fn rotate(x: &[f32], cos_sin: &[f32], out: &mut [f32]) {
    let half = x.len() / 2;
    let (cos, sin) = cos_sin.split_at(half);
    let (a, b) = x.split_at(half);
    let (out_a, out_b) = out.split_at_mut(half);
    for i in 0..half {
        out_a[i] = a[i] * cos[i] - b[i] * sin[i];
        out_b[i] = b[i] * cos[i] + a[i] * sin[i];
    }
}

/// Keys and values of one layer, each head's positions contiguous: values `[kv_heads, n_ctx, head_dim]`, keys in
/// the blocks of [`crate::attention`].
pub struct Cache {
    keys: HugeBytes,
    values: HugeBytes,
}

impl Cache {
    /// Room for `elements` keys and as many values; `None` where the system has no such memory.
    pub fn new(elements: usize) -> Option<Self> {
        let bytes = elements.checked_mul(4)?;
        Some(Self {
            keys: HugeBytes::try_zeroed(bytes)?,
            values: HugeBytes::try_zeroed(bytes)?,
        })
    }

    /// Keys and values.
    pub fn get(&self) -> (&[f32], &[f32]) {
        (
            bytemuck::cast_slice(&self.keys),
            bytemuck::cast_slice(&self.values),
        )
    }

    /// Keys and values, writable.
    pub fn get_mut(&mut self) -> (&mut [f32], &mut [f32]) {
        (
            bytemuck::cast_slice_mut(&mut self.keys),
            bytemuck::cast_slice_mut(&mut self.values),
        )
    }
}

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
    roles: Vec<Role>,
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

/// Everything a product works with besides weights.
pub struct Products<'a> {
    /// The threads.
    pub pool: &'a Pool,
    /// Scratch memory.
    pub work: &'a mut Workspace,
    /// The quantised input.
    pub acts: &'a mut Activations,
    /// Normalised rows, `[m, k]`, on their way to the quantiser.
    pub normed: &'a mut [f32],
    /// A row of working memory for each worker, at least as long as the widest input.
    pub spares: &'a [Mutex<Vec<f32>>],
    /// Who listens.
    pub tap: &'a mut Option<Tap>,
}

impl Projections {
    /// Packs the projections `roles` of `layer`: stacked into one product where their scales allow it and they
    /// share one input.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn new(
        pool: &Pool,
        model: &Model,
        kernels: &mut Kernels,
        layer: usize,
        roles: &[Role],
    ) -> Result<Self, BuildError> {
        let id = |role| TensorId { layer, role };
        let decoded: Vec<Mutex<Option<Result<TernaryMatrix, LoadError>>>> =
            roles.iter().map(|_| Mutex::new(None)).collect();
        pool.run(roles.len(), |_, i| {
            let matrix = model.ternary(id(roles[i]));
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
        let plain = |m: &TernaryMatrix| !matches!(m.scales(), Scales::Group { .. });
        let stack = config.input_norm_eps.is_none() && matrices.iter().all(plain);
        let runs: Vec<Vec<(Role, TernaryMatrix)>> = match stack {
            true => vec![roles.iter().copied().zip(matrices).collect()],
            false => roles
                .iter()
                .copied()
                .zip(matrices)
                .map(|one| vec![one])
                .collect(),
        };
        let (mut groups, mut n) = (Vec::new(), 0);
        for run in runs {
            let (roles, matrices): (Vec<Role>, Vec<TernaryMatrix>) = run.into_iter().unzip();
            let rows: usize = matrices.iter().map(TernaryMatrix::n).sum();
            let linear = Linear::new(pool, &matrices, |n, k| {
                Ok::<_, BuildError>(kernels.by_bucket(n, k)?)
            })
            .map_err(|e| e.of(id(roles[0])))?;
            let input_norm = config
                .input_norm_eps
                .map(|_| model.norm(Norm::Input(id(roles[0]))))
                .transpose()?;
            groups.push(Group {
                linear,
                roles,
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

    /// `y = projections(x)` for the `m` rows that `row(t, out, spare)` writes; `spare` is working memory.
    ///
    /// # Shapes
    /// A row: `[k]`; `y`: `[m, n]`.
    pub fn forward(
        &self,
        p: &mut Products<'_>,
        m: usize,
        row: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
        y: &mut [f32],
    ) {
        for (i, group) in self.groups.iter().enumerate() {
            let k = group.linear.k();
            if i == 0 || group.input_norm.is_some() {
                p.acts.reshape(m, k);
                let Activations {
                    q,
                    sums,
                    scales,
                    k_padded,
                    ..
                } = &mut *p.acts;
                let codes = (
                    Rows::new(q, *k_padded),
                    (Rows::new(sums, 1), Rows::new(scales, 1)),
                );
                let parts = (Rows::new(&mut p.normed[..m * k], k), codes);
                let spares = p.spares;
                p.pool
                    .each(parts, |worker, t, (normed, (q, (sum, scale)))| {
                        let mut spare = spares[worker]
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner);
                        let spare = &mut spare[..k];
                        row(t, normed, spare);
                        if let Some(weight) = &group.input_norm {
                            spare.copy_from_slice(normed);
                            lanes::rms_norm(spare, weight, self.input_norm_eps, normed);
                        }
                        (sum[0], scale[0]) = lanes::quantise(normed, q);
                    });
            }
            group
                .linear
                .forward(p.pool, p.work, p.acts, y, self.n, group.first);
            if let Some(tap) = p.tap {
                let n = group.linear.n();
                let mut acc = vec![0; m * n];
                group.linear.accumulate(p.pool, p.work, p.acts, &mut acc);
                for (role, rows) in group.roles.iter().zip(group.linear.stacked()) {
                    let own: Vec<i32> = acc
                        .chunks_exact(n)
                        .flat_map(|row| &row[rows.clone()])
                        .copied()
                        .collect();
                    tap(
                        TensorId {
                            layer: self.layer,
                            role: *role,
                        },
                        p.acts,
                        &own,
                    );
                }
            }
        }
    }
}

/// One transformer block: weights only.
pub struct Block {
    /// Norm before the attention.
    pub attn_norm: Vec<f32>,
    /// Norm of the concatenated heads, if any.
    pub attn_sub_norm: Option<Vec<f32>>,
    /// Norm before the FFN.
    pub ffn_norm: Vec<f32>,
    /// Norm of the gated product, if any.
    pub ffn_sub_norm: Option<Vec<f32>>,
    /// Queries, keys, values.
    pub qkv: Projections,
    /// Attention output.
    pub out: Projections,
    /// Gate and up.
    pub gate_up: Projections,
    /// Down.
    pub down: Projections,
}

impl Block {
    /// Packs block `layer`.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn new(
        pool: &Pool,
        model: &Model,
        kernels: &mut Kernels,
        layer: usize,
    ) -> Result<Self, BuildError> {
        let sub_norms = model.config().sub_norms;
        let sub = |norm| sub_norms.then(|| model.norm(norm)).transpose();
        let mut project = |roles: &[Role]| Projections::new(pool, model, kernels, layer, roles);
        Ok(Self {
            attn_norm: model.norm(Norm::Attn(layer))?,
            attn_sub_norm: sub(Norm::AttnSub(layer))?,
            ffn_norm: model.norm(Norm::Ffn(layer))?,
            ffn_sub_norm: sub(Norm::FfnSub(layer))?,
            qkv: project(&[Role::AttnQ, Role::AttnK, Role::AttnV])?,
            out: project(&[Role::AttnOut])?,
            gate_up: project(&[Role::FfnGate, Role::FfnUp])?,
            down: project(&[Role::FfnDown])?,
        })
    }

    /// All packed layers.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        [&self.qkv, &self.out, &self.gate_up, &self.down]
            .into_iter()
            .flat_map(Projections::linears)
    }
}

/// `out = activation(gate) ⊙ up` for one token, `gate_up` being `[2 · ffn]`, then the sub-norm if there is one.
pub fn gated(
    config: &ModelConfig,
    gate_up: &[f32],
    sub_norm: Option<&[f32]>,
    out: &mut [f32],
    spare: &mut [f32],
) {
    let (gate, up) = gate_up.split_at(gate_up.len() / 2);
    let product = if sub_norm.is_some() {
        &mut *spare
    } else {
        &mut *out
    };
    match config.activation {
        Activation::Relu2 => lanes::relu2_gate(gate, up, product),
        Activation::Silu => lanes::silu_gate(gate, up, product),
    }
    if let Some(weight) = sub_norm {
        lanes::rms_norm(spare, weight, config.norm_eps, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_keeps_lengths_and_depends_on_distance_only() {
        for head_dim in [32, 96, 100, 128, 256] {
            let rope = Rope {
                theta: 10_000.0,
                linear: 1.0,
                factors: None,
            };
            let table = RopeTable::new(&rope, head_dim);
            let head = |seed: usize| -> Vec<f32> {
                (0..head_dim)
                    .map(|i| ((i * seed) % 17) as f32 / 8.0 - 1.0)
                    .collect()
            };
            let at = |x: &[f32], position: usize| {
                let (mut cos_sin, mut out) = (vec![0f32; head_dim], vec![0f32; head_dim]);
                table.fill(position, &mut cos_sin);
                rotate(x, &cos_sin, &mut out);
                out
            };
            let (q, k) = (head(5), head(7));
            let near = lanes::dot(&at(&q, 3), &at(&k, 1));
            let far = lanes::dot(&at(&q, 1003), &at(&k, 1001));
            assert!(
                (near - far).abs() < 1e-3,
                "{near} at 3-1, {far} at 1003-1001"
            );
            assert!((lanes::dot(&at(&q, 77), &at(&q, 77)) - lanes::dot(&q, &q)).abs() < 1e-3);
            assert_eq!(at(&q, 0), q);
        }
    }

    #[test]
    fn factors_and_linear_scaling_divide_the_angle() {
        let plain = Rope {
            theta: 500_000.0,
            linear: 1.0,
            factors: None,
        };
        let slow = Rope {
            theta: 500_000.0,
            linear: 4.0,
            factors: Some(vec![2.0; 64]),
        };
        let (mut a, mut b) = (vec![0f32; 128], vec![0f32; 128]);
        RopeTable::new(&plain, 128).fill(3, &mut a);
        RopeTable::new(&slow, 128).fill(24, &mut b);
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
