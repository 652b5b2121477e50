//! From a model's file to [`Projections`]: codes decoded, stacked where scales allow it, and packed for their kernels;
//! or what was packed before, read from a cache, without a look at the codes.

use super::{BuildError, Group, Projections, Weights};
use crate::format::{LoadError, Model};
use crate::graph::products::{common_group, stacks};
use crate::graph::{ModelConfig, Norm, Product, Projection, ScaleShape, TensorId};
use crate::network::float::FloatRows;
use crate::network::kernels::Kernels;
use crate::network::linear::grouped::{GroupedLinear, groups_of};
use crate::network::linear::{ByBucket, Linear, Packings};
use crate::network::packed_cache::{PackedCache, Sections};
use crate::pool::Pool;
use bitnet_codegen::{Groups, Scales, TernaryMatrix};
use std::sync::Mutex;

/// What packs the products of a model.
pub(in crate::network) struct Packer<'a> {
    /// The threads.
    pub pool: &'a Pool,
    /// Where the weights come from.
    pub model: &'a Model,
    /// What chooses their kernels.
    pub kernels: &'a mut Kernels,
    /// What was packed before.
    pub cache: Option<&'a PackedCache>,
}

/// A projection whose codes nobody has looked at; no scales where it is kept in float.
struct Unread {
    n: usize,
    scales: Option<Scales>,
}

impl Unread {
    fn shape(&self) -> ScaleShape {
        self.scales
            .as_ref()
            .map_or(ScaleShape::Float, ScaleShape::from)
    }
}

/// What `work` gives for each of `items`, in order, on all threads.
fn on_all<I: Sync, T: Send>(pool: &Pool, items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let slots: Vec<Mutex<Option<T>>> = items.iter().map(|_| Mutex::new(None)).collect();
    pool.run(items.len(), |_, i| {
        *slots[i].lock().expect("one worker a slot") = Some(work(&items[i]));
    });
    let done = slots
        .into_iter()
        .map(|slot| slot.into_inner().expect("one worker a slot"));
    done.map(|slot| slot.expect("every slot was filled"))
        .collect()
}

/// What a product is called in a cache.
fn name(layer: usize, projections: &[Projection]) -> String {
    format!("{layer} {projections:?}")
}

impl Packer<'_> {
    fn pick(&mut self, n: usize, k: usize, groups: Option<Groups>) -> Result<ByBucket, BuildError> {
        Ok(self.kernels.by_bucket(Product { n, k, groups })?)
    }

    /// Packs ternary matrices of one input.
    fn pack(&mut self, matrices: &[TernaryMatrix]) -> Result<Weights, BuildError> {
        let (pool, groups) = (self.pool, groups_of(matrices, self.model.config().acts));
        let Some(groups) = groups else {
            let linear = Linear::new(pool, matrices, |n, k| self.pick(n, k, None))?;
            return Ok(Weights::Ternary(linear));
        };
        let n = matrices.iter().map(TernaryMatrix::n).sum();
        let kernels = self.pick(n, matrices[0].k(), Some(groups))?;
        let linear = GroupedLinear::new(pool, matrices, groups, kernels);
        Ok(Weights::Grouped(linear))
    }

    /// The ternary matrices of `k` columns and one input that the cache has as `name`, if it has them.
    fn restore(
        &mut self,
        name: &str,
        matrices: &[&Unread],
        k: usize,
    ) -> Result<Option<Weights>, BuildError> {
        let Some(cache) = self.cache else {
            return Ok(None);
        };
        let shapes = matrices.iter().map(|m| m.shape());
        let acts = self.model.config().acts;
        let groups = match common_group(acts, shapes) {
            Some(ScaleShape::Groups(scales)) => Some(Groups {
                scales,
                planes: acts.planes(),
            }),
            _ => None,
        };
        let ns: Vec<usize> = matrices.iter().map(|m| m.n).collect();
        let n = ns.iter().sum();
        let mut rows = Vec::new();
        for m in matrices.iter().filter(|_| groups.is_none()) {
            match &m.scales {
                Some(Scales::Tensor(scale)) => rows.extend(std::iter::repeat_n(*scale, m.n)),
                Some(Scales::Row(scales)) => rows.extend(scales),
                // Products of single groups of columns are not kept.
                Some(Scales::Group { .. }) | None => return Ok(None),
            }
        }
        let kernels = self.pick(n, k, groups)?;
        let read = |panel, out: &mut [u8]| cache.read(self.pool, &cache.section(name, panel), out);
        let packings = Packings::restored(n, kernels, read);
        Ok(packings.map(|packings| match groups {
            Some(groups) => Weights::Grouped(GroupedLinear::restored(&ns, k, groups, packings)),
            None => Weights::Ternary(Linear::restored(&ns, k, rows, packings)),
        }))
    }
}

impl Projections {
    /// Packs `projections` of `layer`: stacked into one product where their scales allow it and they
    /// share one input.
    ///
    /// # Errors
    /// [`BuildError`].
    pub(in crate::network) fn new(
        packer: &mut Packer<'_>,
        layer: usize,
        projections: &[Projection],
    ) -> Result<Self, BuildError> {
        if packer.cache.is_some()
            && let Some(this) = Self::restored(packer, layer, projections)?
        {
            return Ok(this);
        }
        let model = packer.model;
        // None for what is kept in float.
        let decoded = on_all(packer.pool, projections, |&projection| {
            let id = TensorId { layer, projection };
            match model.float_projection(id) {
                Some(_) => Ok(None),
                None => model.ternary(id).map(Some),
            }
        });
        let matrices = decoded.into_iter().collect::<Result<Vec<_>, LoadError>>()?;
        let shape =
            |m: &Option<TernaryMatrix>| m.as_ref().map_or(ScaleShape::Float, |m| m.scales().into());
        let shapes: Vec<_> = matrices.iter().map(shape).collect();
        let mut rest = matrices.into_iter();
        let weights = |packer: &mut Packer<'_>, stack: &[Projection]| {
            let matrices: Vec<_> = rest.by_ref().take(stack.len()).flatten().collect();
            // Nothing where they are kept in float.
            match &matrices[..] {
                [] => Ok(None),
                matrices => packer.pack(matrices).map(Some),
            }
        };
        let this = Self::stacked(packer, (layer, projections), &shapes, weights)?;
        Ok(this.expect("every stack was packed"))
    }

    /// The same from the cache, if it has all of it.
    fn restored(
        packer: &mut Packer<'_>,
        layer: usize,
        projections: &[Projection],
    ) -> Result<Option<Self>, BuildError> {
        let model = packer.model;
        let unread = on_all(packer.pool, projections, |&projection| {
            let id = TensorId { layer, projection };
            let scales = match model.float_projection(id) {
                Some(_) => None,
                None => Some(model.scales(id)?),
            };
            let (n, _) = model.config().linear_shape(projection);
            Ok(Unread { n, scales })
        });
        let unread = unread.into_iter().collect::<Result<Vec<_>, LoadError>>()?;
        let shapes: Vec<_> = unread.iter().map(Unread::shape).collect();
        let mut rest = unread.iter();
        let weights = |packer: &mut Packer<'_>, stack: &[Projection]| {
            let matrices: Vec<_> = rest.by_ref().take(stack.len()).collect();
            let (_, k) = packer.model.config().linear_shape(stack[0]);
            packer.restore(&name(layer, stack), &matrices, k)
        };
        Self::stacked(packer, (layer, projections), &shapes, weights)
    }

    /// Projections with the scales of `shapes`, each stack that they allow with what `weights` gives for it, in order;
    /// `None` where that gives none.
    fn stacked(
        packer: &mut Packer<'_>,
        (layer, projections): (usize, &[Projection]),
        shapes: &[ScaleShape],
        mut weights: impl FnMut(&mut Packer<'_>, &[Projection]) -> Result<Option<Weights>, BuildError>,
    ) -> Result<Option<Self>, BuildError> {
        let model = packer.model;
        let config = model.config();
        let shape = |projection| {
            let at = projections.iter().position(|p| *p == projection);
            shapes[at.expect("one of these projections")]
        };
        let (mut groups, mut n) = (Vec::new(), 0);
        for stack in stacks(config, projections, shape) {
            let id = |projection| TensorId { layer, projection };
            let first = id(stack[0]);
            let own = weights(packer, stack).map_err(|e| e.of(first))?;
            let weights = match model.float_projection(first) {
                Some(table) => Weights::Float(FloatRows::new(&table)),
                None => match own {
                    Some(weights) => weights,
                    None => return Ok(None),
                },
            };
            let norm = Norm::Input(first);
            let rows = weights.n();
            groups.push(Group {
                weights,
                projections: stack.to_vec(),
                input_norm: model.has_norm(norm).then(|| model.norm(norm)).transpose()?,
                first: n,
            });
            n += rows;
        }
        Ok(Some(Self {
            input_norm_eps: config.input_norm_eps.unwrap_or(0.0),
            ..Self::of(config, layer, groups)
        }))
    }

    /// A ternary LM head, one product of the last hidden state, if the model has one.
    ///
    /// # Errors
    /// [`BuildError`].
    pub(in crate::network) fn head(packer: &mut Packer<'_>) -> Result<Option<Self>, BuildError> {
        let model = packer.model;
        let Some((n, k)) = model.ternary_head_shape() else {
            return Ok(None);
        };
        let mut kept = None;
        if packer.cache.is_some() {
            let scales = model.ternary_head_scales()?;
            kept = packer.restore(&name(0, &[]), &[&Unread { n, scales }], k)?;
        }
        let weights = match kept {
            Some(weights) => weights,
            None => {
                let matrix = model.ternary_head()?.expect("it has a shape");
                packer.pack(&[matrix])?
            }
        };
        let head = Group {
            weights,
            projections: Vec::new(),
            input_norm: None,
            first: 0,
        };
        Ok(Some(Self::of(model.config(), 0, vec![head])))
    }

    fn of(config: &ModelConfig, layer: usize, groups: Vec<Group>) -> Self {
        Self {
            layer,
            n: groups.iter().map(|g| g.weights.n()).sum(),
            groups,
            input_norm_eps: 0.0,
            acts: config.acts,
            weight_only: config.weight_only,
        }
    }

    /// Adds all that is packed to `sections`; `false` where some of it cannot be kept.
    pub(in crate::network) fn sections<'n>(
        &'n self,
        cache: &PackedCache,
        sections: &mut Sections<'n>,
    ) -> bool {
        self.groups.iter().all(|group| {
            let packings = match &group.weights {
                Weights::Ternary(linear) => linear.packings(),
                Weights::Grouped(linear) => Some(linear.packings()),
                Weights::Float(_) => return true,
            };
            let name = name(self.layer, &group.projections);
            packings.is_some_and(|packings| {
                let all = packings.all();
                sections.extend(all.map(|(panel, bytes)| (cache.section(&name, panel), bytes)));
                true
            })
        })
    }
}
