//! Putting a model together from named tensors: shapes and types checked, nothing left over.
//!
//! Both readers use it, so that a GGUF file and a Hugging Face folder are held to the same rules.

use std::collections::BTreeMap;

use super::OpenOptions;
use super::dtype::{Dtype, TernaryType};
use super::error::{LoadErrorKind, bad, unsupported};
use super::float::FloatType;
use super::store::{TensorInfo, TensorStore};
use super::ternary::{Packing, RowOrder, Ternarise, TernarySource, looks_ternary};
use crate::format::Model;
use crate::format::model::TokenizerHome;
use crate::graph::{Acts, ModelConfig, Norm, Projection, TensorId, Weight};

/// A model under construction.
pub(super) struct Assembly {
    config: ModelConfig,
    store: TensorStore,
    path: String,
    format: &'static str,
    used: Vec<bool>,
    linears: Vec<TernarySource>,
    norms: BTreeMap<Norm, usize>,
    embedding: usize,
    head: Option<usize>,
    ternary_embedding: Option<TernarySource>,
    ternary_head: Option<TernarySource>,
    notes: Vec<String>,
}

impl Assembly {
    pub(super) fn new(
        config: ModelConfig,
        store: TensorStore,
        path: String,
        format: &'static str,
    ) -> Self {
        let used = vec![false; store.tensors().len()];
        Self {
            config,
            store,
            path,
            format,
            used,
            linears: Vec::new(),
            norms: BTreeMap::new(),
            embedding: 0,
            head: None,
            ternary_embedding: None,
            ternary_head: None,
            notes: Vec::new(),
        }
    }

    pub(super) fn format(&self) -> &'static str {
        self.format
    }

    pub(super) fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(super) fn tensor(&self, index: usize) -> &TensorInfo {
        &self.store.tensors()[index]
    }

    pub(super) fn dtype_of(&self, name: &str) -> Option<Dtype> {
        self.store.find(name).map(|i| self.tensor(i).dtype)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.store.find(name).is_some()
    }

    fn find(&mut self, name: &str) -> Result<usize, LoadErrorKind> {
        let index = self
            .store
            .find(name)
            .ok_or_else(|| LoadErrorKind::Missing {
                field: format!("tensor {name}"),
                hint: format!(
                    "a {} model of {} layers needs it; fetch or convert again",
                    self.config.architecture, self.config.n_layers
                ),
            })?;
        self.used[index] = true;
        Ok(index)
    }

    /// A tensor that is there for others and changes nothing here.
    pub(super) fn ignore(&mut self, name: &str) {
        if let Some(index) = self.store.find(name) {
            self.used[index] = true;
        }
    }

    /// The tensor of that name, which must be N×K of whatever type.
    pub(super) fn matrix(
        &mut self,
        name: &str,
        n: usize,
        k: usize,
    ) -> Result<usize, LoadErrorKind> {
        let index = self.find(name)?;
        let info = self.tensor(index);
        if info.dims != [n, k] {
            return Err(bad(
                format!("shape of tensor {name}"),
                format!("{n}x{k}, from the configuration"),
                info.shape(),
            ));
        }
        Ok(index)
    }

    /// An embedding table or a head: the tensor, and how it is read where it holds trits.
    fn table(&mut self, name: &str) -> Result<(usize, Option<TernarySource>), LoadErrorKind> {
        let (n, k) = (self.config.vocab, self.config.hidden);
        let tensor = self.matrix(name, n, k)?;
        match self.tensor(tensor).dtype {
            Dtype::Float(_) => Ok((tensor, None)),
            Dtype::Ternary(kind) => {
                let packing = match kind {
                    TernaryType::I2S => Packing::I2S { block: 128 },
                    other => Packing::Plain(other),
                };
                let source = TernarySource {
                    tensor,
                    n,
                    k,
                    packing,
                    factor: 1.0,
                    order: RowOrder::Neutral,
                };
                match source.no_table() {
                    None => Ok((tensor, Some(source))),
                    Some(why) => Err(unsupported(
                        format!("type {} of tensor {name}", kind.name()),
                        why,
                    )),
                }
            }
            other => {
                let known: Vec<_> = FloatType::ALL.iter().map(|f| f.name()).collect();
                Err(unsupported(
                    format!("type {other} of tensor {name}"),
                    format!("known are {}", known.join(" ")),
                ))
            }
        }
    }

    /// Takes every weight of the graph: `names` gives what it may be called, without `.weight` (nothing for what this
    /// model does without), and `projection` says how a projection of that name is read.
    pub(super) fn take_all<N: Iterator<Item = String>>(
        &mut self,
        names: impl Fn(Weight) -> N,
        mut projection: impl FnMut(&mut Self, TensorId, &str) -> Result<TernarySource, LoadErrorKind>,
    ) -> Result<(), LoadErrorKind> {
        let weights: Vec<Weight> = self.config.weights().collect();
        for weight in weights {
            let mut usual = None;
            let there = names(weight).find(|name| {
                let there = self.has(&format!("{name}.weight"));
                usual.get_or_insert_with(|| name.clone());
                there
            });
            let Some(name) = there.or(usual) else {
                continue;
            };
            let full = format!("{name}.weight");
            match weight {
                Weight::Embedding => {
                    (self.embedding, self.ternary_embedding) = self.table(&full)?;
                    if self.config.tied {
                        self.ternary_head = self.ternary_embedding.clone();
                    }
                }
                Weight::Head => {
                    let (index, source) = self.table(&full)?;
                    (self.head, self.ternary_head) = (Some(index), source);
                }
                Weight::Norm(norm) => self.norm(norm, &full)?,
                Weight::Projection(id) => {
                    let source = projection(self, id, &name)?;
                    self.linear(id, source);
                }
            }
        }
        Ok(())
    }

    /// Makes the head a ternary product of a tensor that is a table for others.
    pub(super) fn set_ternary_head(&mut self, source: TernarySource) {
        self.note("the head is quantised like the projections, as config.json does not name it among those that are not");
        self.ternary_head = Some(source);
    }

    /// A sentence for whoever runs the model.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Settles how finely inputs are quantised: as the caller asks, else as `said` by the file, else to 8 bits where
    /// any matrix is stored as trits or is quantised on loading, and hardly at all where all of them are floats.
    pub(super) fn set_acts(&mut self, said: Option<Acts>, options: &OpenOptions) {
        let floats = |s: &TernarySource| s.packing == Packing::Floats(Ternarise::AsStored);
        let own = self.config.architecture.weight_only && self.config.input_norm_eps.is_none();
        let unsaid = || own || self.linears.iter().all(floats);
        let weight_only = said.map_or_else(unsaid, |acts| acts != Acts::I8);
        let follow = said.unwrap_or(match weight_only {
            true if own => Acts::I16,
            true => Acts::I24,
            false => Acts::I8,
        });
        self.config.weight_only = weight_only;
        self.config.acts = options.acts.unwrap_or(follow);
        match (weight_only, self.config.acts) {
            (true, Acts::I8) => self.note(
                "inputs of products are quantised to 8 bits, as asked: the model was not made for it",
            ),
            (true, acts) => self.note(format!(
                "weight-only: the files ask for no 8-bit inputs, so products take them as {}",
                acts.name()
            )),
            (false, Acts::I8) => {}
            (false, acts) => self.note(format!(
                "inputs of products are taken as {}, as asked: the model was made for 8 bits",
                acts.name()
            )),
        }
    }

    fn norm(&mut self, norm: Norm, name: &str) -> Result<(), LoadErrorKind> {
        let index = self.find(name)?;
        let (want, info) = (self.config.norm_len(norm), self.tensor(index));
        let float = matches!(
            info.dtype,
            Dtype::Float(FloatType::F32 | FloatType::F16 | FloatType::BF16)
        );
        if info.dims != [want] || !float {
            let got = format!("{} {}", info.shape(), info.dtype);
            return Err(bad(
                format!("tensor {name}"),
                format!("{want} values of type F32, F16 or BF16"),
                got,
            ));
        }
        self.norms.insert(norm, index);
        Ok(())
    }

    /// A one-element float tensor, if it is there: finite and above zero.
    pub(super) fn scalar(&mut self, name: &str) -> Result<Option<f32>, LoadErrorKind> {
        if !self.has(name) {
            return Ok(None);
        }
        let index = self.find(name)?;
        let info = self.tensor(index);
        let float = match info.dtype {
            Dtype::Float(f) if f.block().0 == 1 && info.n_elements() == 1 => f,
            dtype => {
                return Err(bad(
                    format!("tensor {name}"),
                    "one float",
                    format!("{} {dtype}", info.shape()),
                ));
            }
        };
        let mut value = [0f32];
        float.decode(self.store.bytes(index), &mut value);
        if value[0].is_finite() && value[0] > 0.0 {
            Ok(Some(value[0]))
        } else {
            Err(bad(
                format!("tensor {name}"),
                "a finite scale above 0",
                value[0],
            ))
        }
    }

    /// Refuses a float projection whose first row is plainly not ternary.
    pub(super) fn require_ternary_look(&self, index: usize, k: usize) -> Result<(), LoadErrorKind> {
        let info = self.tensor(index);
        let Dtype::Float(f) = info.dtype else {
            unreachable!("{} is a float tensor", info.name)
        };
        if looks_ternary(f, &self.store.bytes(index)[..f.row_bytes(k)], k) {
            return Ok(());
        }
        Err(unsupported(
            format!("float weights in tensor {} ({f})", info.name),
            "this is an ordinary model, not a ternary one: its values have many magnitudes; to quantise master weights by absmean give --absmean",
        ))
    }

    /// Takes the next projection; they come in the order of [`Model::linear_ids`].
    fn linear(&mut self, id: TensorId, source: TernarySource) {
        let at = id.layer * Projection::ALL.len() + id.projection as usize;
        assert_eq!(at, self.linears.len(), "projections in order");
        self.linears.push(source);
    }

    /// An unknown tensor is a part of the graph that would be left out silently.
    pub(super) fn refuse_unused(&self, why: &str) -> Result<(), LoadErrorKind> {
        let Some(index) = self.used.iter().position(|u| !u) else {
            return Ok(());
        };
        let name = &self.tensor(index).name;
        let arch = self.config.architecture;
        Err(unsupported(
            format!(
                "tensor {name}, which is not part of the {arch} graph of {} layers",
                self.config.n_layers
            ),
            why,
        ))
    }

    /// What the files leave open and the reader has decided.
    fn note_assumptions(&mut self) {
        let has = |wanted: fn(&Packing) -> bool| self.linears.iter().any(|l| wanted(&l.packing));
        if has(|p| matches!(p, Packing::I2S { block: 128 })) {
            let text = "I2_S read in blocks of 128, which the file does not say; files made on ARM may need --i2s-block 64";
            self.notes.push(text.into());
        }
        if has(|p| matches!(p, Packing::Floats(Ternarise::Absmean))) {
            self.notes
                .push("float projections are quantised by absmean when they are loaded".into());
        }
        let kept = self.linears.iter().filter(|l| l.packing == Packing::Kept);
        let kept = kept.count();
        if kept > 0 {
            let text = format!("{kept} projections run in float, as config.json says");
            self.notes.push(text);
        }
        if has(|p| matches!(p, Packing::Tiled(..))) {
            let text =
                "TL1 and TL2 tiles are not in the file: with the wrong sizes the text is garbage";
            self.notes.push(text.into());
        }
    }

    pub(super) fn finish(mut self, tokenizer: TokenizerHome) -> Result<Model, LoadErrorKind> {
        self.note_assumptions();
        let (rows, rest) = self.linears.as_chunks::<7>();
        assert!(
            rest.is_empty() && rows.len() == self.config.n_layers,
            "seven projections a layer"
        );
        Ok(Model {
            linears: rows.to_vec(),
            config: self.config,
            path: self.path,
            format: self.format,
            store: self.store,
            norms: self.norms,
            embedding: self.embedding,
            head: self.head,
            ternary_embedding: self.ternary_embedding,
            ternary_head: self.ternary_head,
            tokenizer,
            notes: self.notes,
        })
    }
}

/// Sizes that must agree before any tensor is looked at.
pub(super) trait ConfigCheck {
    /// `n_tensors` bounds the number of layers.
    fn check(&self, n_tensors: usize) -> Result<(), LoadErrorKind>;
}

impl ConfigCheck for ModelConfig {
    fn check(&self, n_tensors: usize) -> Result<(), LoadErrorKind> {
        const LIMIT: usize = 1 << 24;
        for (field, value) in [
            ("layers", self.n_layers),
            ("hidden width", self.hidden),
            ("heads", self.n_heads),
            ("key-value heads", self.n_kv_heads),
            ("head width", self.head_dim),
            ("FFN width", self.ffn),
            ("vocabulary", self.vocab),
            ("context length", self.context_len),
        ] {
            if value == 0 || value > LIMIT {
                return Err(bad(field, format!("a number from 1 to {LIMIT}"), value));
            }
        }
        if self.n_layers > n_tensors {
            return Err(bad(
                "layers",
                format!("at most the {n_tensors} tensors of the file"),
                self.n_layers,
            ));
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let got = format!("{} and {}", self.n_heads, self.n_kv_heads);
            return Err(bad(
                "heads and key-value heads",
                "the first a multiple of the second",
                got,
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(bad(
                "head width",
                "an even number, for rotary pairs",
                self.head_dim,
            ));
        }
        if self.n_heads * self.head_dim > LIMIT {
            return Err(bad(
                "heads times head width",
                format!("at most {LIMIT}"),
                self.n_heads * self.head_dim,
            ));
        }
        Ok(())
    }
}
