//! [`Network`]: a model's weights, packed for their kernels. Immutable once built; any number of sequences and
//! steps share one behind an [`Arc`].

pub(crate) mod block;
pub(crate) mod digest;
pub mod estimates;
mod exact;
pub(crate) mod float;
pub mod head;
pub mod kernels;
pub mod linear;
pub mod packed_cache;
pub(crate) mod product;
pub(crate) mod rope;
mod source;

pub use digest::ModelDigest;
pub use product::{BuildError, Tap};

use crate::format::Model;
use crate::graph::{ModelConfig, Norm, Product, Projection, Rope};
use crate::lanes;
use crate::pool::Pool;
use block::Block;
use float::FloatRows;
use head::{Head, HeadError, HeadForm};
use kernels::{Choice, Kernels};
use linear::Linear;
use packed_cache::{Kept, PackedCache, Sections};
use product::{Packer, Projections};
use rope::RopeTable;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};

/// Kernels in use, by product and bucket.
pub type KernelsUsed = BTreeMap<(Product, usize), Choice>;

/// Everything that is read, and never written, to turn tokens into logits.
pub struct Network {
    /// The file: its embedding table is read in place.
    model: Arc<Model>,
    rope: RopeTable,
    /// The angles of layers with a window, if there are any.
    local_rope: Option<RopeTable>,
    blocks: Vec<Block>,
    /// `[hidden]`.
    output_norm: Vec<f32>,
    head: Option<Head>,
    ternary_head: Option<Projections>,
    used: KernelsUsed,
    digest: OnceLock<ModelDigest>,
}

impl Network {
    /// Packs `model` on the threads of `pool`, for the kernels that `kernels` chooses.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn new(model: Arc<Model>, pool: &Pool, kernels: &mut Kernels) -> Result<Self, BuildError> {
        Self::with_cache(model, pool, kernels, None)
    }

    /// As [`Self::new`]; what `cache` has is not packed again.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn with_cache(
        model: Arc<Model>,
        pool: &Pool,
        kernels: &mut Kernels,
        cache: Option<&PackedCache>,
    ) -> Result<Self, BuildError> {
        let (config, cache) = (model.config(), cache.and_then(PackedCache::with_files));
        let mut packer = Packer {
            pool,
            model: &model,
            kernels,
            cache,
        };
        let blocks = (0..config.n_layers)
            .map(|layer| Block::new(&mut packer, layer))
            .collect::<Result<Vec<_>, _>>()?;
        let ternary_head = Projections::head(&mut packer)?;
        let head = match (&ternary_head, kernels.head()) {
            (None, form) => Some(Head::new(pool, kernels, &model, form, cache)?),
            (Some(_), None | Some(HeadForm::Exact)) => None,
            (Some(_), Some(form)) => return Err(HeadError::Ternary { form }.into()),
        };
        Ok(Self {
            rope: RopeTable::new(&config.rope, config.head_dim),
            local_rope: config.local.map(|local| {
                let rope = Rope {
                    theta: local.theta,
                    linear: 1.0,
                    factors: None,
                    yarn: None,
                };
                RopeTable::new(&rope, config.head_dim)
            }),
            blocks,
            output_norm: model.norm(Norm::Output)?,
            head,
            ternary_head,
            used: kernels.used().clone(),
            digest: OnceLock::new(),
            model,
        })
    }

    /// Writes what was packed into `cache`, if something was missing there and all of it can be kept.
    ///
    /// # Errors
    /// When it cannot be written; nothing is left of it then.
    pub fn keep(&self, cache: &PackedCache) -> io::Result<Option<Kept>> {
        let mut sections = Sections::new();
        let whole = self.products().all(|p| p.sections(cache, &mut sections));
        if let Some(head) = &self.head {
            head.sections(&mut sections);
        }
        match whole {
            true => cache.keep(&sections),
            false => Ok(None),
        }
    }

    /// Sizes and constants.
    pub fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    /// The model that was packed.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// What tells this model from every other.
    pub fn digest(&self) -> ModelDigest {
        *self.digest.get_or_init(|| ModelDigest::of(&self.model))
    }

    /// The transformer blocks, in order.
    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The weight of the norm before the head, `[hidden]`.
    pub(crate) fn output_norm(&self) -> &[f32] {
        &self.output_norm
    }

    /// The LM head, where it is of floats.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// The head of a model that quantises it like its projections; it stands in for [`Self::head`].
    pub(crate) fn ternary_head(&self) -> Option<&Projections> {
        self.ternary_head.as_ref()
    }

    /// The embedding of `token`: `x` is `[hidden]`.
    ///
    /// # Panics
    /// When there is no such token.
    pub fn embed(&self, token: u32, x: &mut [f32]) {
        self.model.embed(token as usize, x);
        let factor = self.config().multipliers.embedding;
        if factor != 1.0 {
            lanes::scale(x, factor);
        }
    }

    /// The angles of the rotary embedding: of most layers, then of those with a window, if there are any.
    pub(crate) fn ropes(&self) -> impl Iterator<Item = &RopeTable> {
        std::iter::once(&self.rope).chain(&self.local_rope)
    }

    /// Which of [`Self::ropes`] turns layer `layer`.
    pub(crate) fn rope_of(&self, layer: usize) -> usize {
        let local = self.config().local;
        usize::from(local.is_some_and(|local| local.has(layer)))
    }

    /// The kernels in use.
    pub fn kernels(&self) -> &KernelsUsed {
        &self.used
    }

    /// The packed ternary matrices.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.blocks.iter().flat_map(Block::linears)
    }

    /// Every product, the ternary head among them.
    pub(crate) fn products(&self) -> impl Iterator<Item = &Projections> {
        let blocks = self.blocks.iter().flat_map(Block::products);
        blocks.chain(&self.ternary_head)
    }

    /// Bytes of weights that decoding one token reads: all matrices and the LM head.
    pub fn weight_bytes_per_token(&self) -> usize {
        let planes = self.config().acts.planes();
        let of_product = |p: &Projections| {
            let ternary: usize = p.linears().map(|l| l.weight_bytes(planes)).sum();
            let grouped: usize = p.grouped().map(|l| l.weight_bytes(1)).sum();
            ternary + grouped + p.floats().map(FloatRows::table_bytes).sum::<usize>()
        };
        let head = self.head.as_ref().map_or(0, Head::table_bytes);
        self.products().map(of_product).sum::<usize>() + head
    }

    /// Multiply-accumulates of a prompt of `tokens`, which needs the head once, for its last token.
    pub fn prompt_macs(&self, tokens: usize) -> u64 {
        let c = self.config();
        let of_layer = |layer| Projection::ALL.map(|projection| (layer, projection));
        let all = (0..c.n_layers).flat_map(of_layer);
        let macs = all.map(|(_, projection)| {
            let (n, k) = c.linear_shape(projection);
            n as u64 * k as u64
        });
        let layers: u64 = macs.sum();
        layers * tokens as u64 + c.vocab as u64 * c.hidden as u64
    }
}
