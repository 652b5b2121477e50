//! The neutral model: what a file says, with its dialect removed.
//!
//! A [`Model`] names every weight by role, hands ternary matrices out one at a time in the
//! neutral form (so that loading needs one tensor of extra memory, not a second model), and
//! shows float tables as views of the mapped file.

use std::collections::HashMap;
use std::path::Path;

use bitnet_codegen::trit::{Scales, TernaryMatrix};

use super::dtype::Dtype;
use super::float::FloatType;
use super::metadata::Metadata;
use super::store::{TensorInfo, TensorStore};
use super::ternary::{Packing, TernarySource};
use super::{LoadError, LoadErrorKind, vocab};
use crate::graph::{ModelConfig, Norm, Product, Projection, ScaleShape, TensorId, products};
use crate::vocab::VocabSource;

/// A float table (embedding or head) as it lies in the file: `rows × cols`, row-major.
#[derive(Clone, Copy, Debug)]
pub struct FloatTensor<'a> {
    /// How a row is stored.
    pub dtype: FloatType,
    /// Rows (the vocabulary).
    pub rows: usize,
    /// Columns (the hidden width).
    pub cols: usize,
    /// `rows · dtype.row_bytes(cols)` bytes. Not aligned for anything but bytes.
    pub bytes: &'a [u8],
}

impl<'a> FloatTensor<'a> {
    /// The stored bytes of one row.
    ///
    /// # Panics
    /// When `row` is not below `rows`.
    pub fn row_bytes(&self, row: usize) -> &'a [u8] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let len = self.dtype.row_bytes(self.cols);
        &self.bytes[row * len..][..len]
    }

    /// Decodes one row.
    ///
    /// # Panics
    /// When `row` is not below `rows` or `out` does not hold exactly `cols` values.
    pub fn row_to_f32(&self, row: usize, out: &mut [f32]) {
        assert_eq!(
            out.len(),
            self.cols,
            "one slot for each of {} columns",
            self.cols
        );
        self.dtype.decode(self.row_bytes(row), out);
    }
}

/// Where the tokenizer's description lies.
#[derive(Clone, Copy, Debug)]
pub enum TokenizerSource<'a> {
    /// The `tokenizer.*` keys of a GGUF file (they may be absent).
    Gguf(&'a Metadata),
    /// A Hugging Face folder: `tokenizer.json`, `tokenizer_config.json`, `generation_config.json`.
    Folder(&'a Path),
}

/// Who gives the tokenizer's description; the owned form of [`TokenizerSource`].
#[derive(Debug)]
pub(crate) enum TokenizerHome {
    Gguf(Metadata),
    Folder(std::path::PathBuf),
}

/// An opened model: configuration, and weights on demand.
#[derive(Debug)]
pub struct Model {
    pub(crate) config: ModelConfig,
    pub(crate) path: String,
    pub(crate) format: &'static str,
    pub(crate) store: TensorStore,
    /// `linears[layer][projection as usize]`.
    pub(crate) linears: Vec<[TernarySource; 7]>,
    pub(crate) norms: std::collections::BTreeMap<Norm, usize>,
    pub(crate) embedding: usize,
    pub(crate) head: Option<usize>,
    pub(crate) ternary_embedding: Option<TernarySource>,
    pub(crate) ternary_head: Option<TernarySource>,
    pub(crate) tokenizer: TokenizerHome,
    pub(crate) notes: Vec<String>,
}

impl Model {
    /// Shape and constants of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The path (or the name of embedded bytes) the model came from.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The file format's name, as listed in [`crate::format::FORMATS`].
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// What a reader should know about how the file was understood (assumptions, warnings).
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Where the tokenizer is described.
    pub fn tokenizer_source(&self) -> TokenizerSource<'_> {
        match &self.tokenizer {
            TokenizerHome::Gguf(m) => TokenizerSource::Gguf(m),
            TokenizerHome::Folder(p) => TokenizerSource::Folder(p),
        }
    }

    /// The vocabulary, in the files' own words.
    ///
    /// # Errors
    /// When a `tokenizer.*` key holds another kind of value than it must.
    pub fn vocabulary(&self) -> Result<VocabSource, LoadError> {
        match &self.tokenizer {
            TokenizerHome::Gguf(m) => {
                let vocab = vocab::from_metadata(m, self.config.architecture.name)
                    .map_err(|kind| LoadError::new(&self.path, kind))?;
                Ok(VocabSource::Keys {
                    path: self.path.clone(),
                    vocab: vocab.map(Box::new),
                })
            }
            TokenizerHome::Folder(folder) => Ok(VocabSource::Folder(folder.clone())),
        }
    }

    /// Every tensor of the files, in file order, used or not.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.store.tensors()
    }

    /// The bytes of each of [`Self::tensors`].
    pub fn tensor_bytes(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.store.tensors().len()).map(|index| self.store.bytes(index))
    }

    /// Bytes of the model's file, or of all shards.
    pub fn file_bytes(&self) -> u64 {
        self.store.file_bytes()
    }

    /// All projections, in the order of the forward pass.
    pub fn linear_ids(&self) -> impl Iterator<Item = TensorId> + use<> {
        (0..self.config.n_layers)
            .flat_map(|layer| Projection::ALL.map(|projection| TensorId { layer, projection }))
    }

    /// How a projection is stored, and which tensor holds it.
    pub fn ternary_info(&self, id: TensorId) -> (&TensorInfo, &TernarySource) {
        let source = self.linear(id);
        (&self.store.tensors()[source.tensor], source)
    }

    /// Decodes one projection to the neutral form. Query and key rows are in NEOX order.
    ///
    /// # Errors
    /// When the stored bytes are not a ternary matrix: a code 3, a scale that is not a number
    /// above zero, values of more magnitudes than rows and groups of columns; and when the projection is kept in
    /// float (see [`Self::float_projection`]).
    ///
    /// # Panics
    /// When `id.layer` is not below `n_layers`.
    pub fn ternary(&self, id: TensorId) -> Result<TernaryMatrix, LoadError> {
        let source = self.linear(id);
        source
            .decode(&self.store)
            .map_err(|kind| LoadError::new(&self.path, kind))
    }

    /// A projection that is kept in float, if this is one.
    ///
    /// # Panics
    /// When `id.layer` is not below `n_layers`.
    pub fn float_projection(&self, id: TensorId) -> Option<FloatTensor<'_>> {
        let source = self.linear(id);
        let kept = source.packing == Packing::Kept;
        kept.then(|| self.float_tensor(source.tensor, source.n, source.k))
    }

    /// Rows and columns of the head, where it is a ternary product.
    pub fn ternary_head_shape(&self) -> Option<(usize, usize)> {
        self.ternary_head.as_ref().map(|s| (s.n, s.k))
    }

    /// The head, where it is a ternary product with inputs quantised like others: `[vocab, hidden]`.
    ///
    /// # Errors
    /// As [`Self::ternary`].
    pub fn ternary_head(&self) -> Result<Option<TernaryMatrix>, LoadError> {
        self.ternary_head
            .as_ref()
            .map(|s| self.decode(s))
            .transpose()
    }

    /// The scales of the head where it is a ternary product, without its codes.
    ///
    /// # Errors
    /// As [`Self::ternary`], where scales are concerned.
    pub(crate) fn ternary_head_scales(&self) -> Result<Option<Scales>, LoadError> {
        let head = self.ternary_head.as_ref();
        head.map(|source| self.scales_of(source)).transpose()
    }

    /// The scales of a projection, without its codes.
    ///
    /// # Errors
    /// As [`Self::ternary`], where scales are concerned.
    pub(crate) fn scales(&self, id: TensorId) -> Result<Scales, LoadError> {
        self.scales_of(self.linear(id))
    }

    /// The type and bytes of the embedding table or the head, as they are stored.
    pub(crate) fn stored_table(&self, head: bool) -> (Dtype, &[u8]) {
        let own = self.head.filter(|_| head);
        let index = own.unwrap_or(self.embedding);
        (self.store.tensors()[index].dtype, self.store.bytes(index))
    }

    /// How the embedding, or the head, is read where the file holds it as trits.
    pub(crate) fn ternary_table(&self, head: bool) -> Option<&TernarySource> {
        match head {
            true => self.ternary_head.as_ref(),
            false => self.ternary_embedding.as_ref(),
        }
    }

    /// Decodes a matrix.
    ///
    /// # Errors
    /// As [`Self::ternary`].
    pub(crate) fn decode(&self, source: &TernarySource) -> Result<TernaryMatrix, LoadError> {
        let matrix = source.decode(&self.store);
        matrix.map_err(|kind| LoadError::new(&self.path, kind))
    }

    /// The scales of a matrix, without its codes.
    ///
    /// # Errors
    /// As [`Self::ternary`], where scales are concerned.
    pub(crate) fn scales_of(&self, source: &TernarySource) -> Result<Scales, LoadError> {
        let scales = source.scales(&self.store);
        scales.map_err(|kind| LoadError::new(&self.path, kind))
    }

    /// How far the scales of a projection reach, without decoding its codes.
    ///
    /// # Errors
    /// As [`Self::ternary`], where scales are concerned.
    ///
    /// # Panics
    /// When `id.layer` is not below `n_layers`.
    pub fn scale_shape(&self, id: TensorId) -> Result<ScaleShape, LoadError> {
        let source = self.linear(id);
        if source.packing == Packing::Kept {
            return Ok(ScaleShape::Float);
        }
        Ok(ScaleShape::from(&self.scales_of(source)?))
    }

    /// Every ternary product of the model, in the order of the forward pass; no codes are decoded.
    ///
    /// # Errors
    /// As [`Self::ternary`], where scales are concerned.
    pub fn products(&self) -> Result<Vec<Product>, LoadError> {
        let shapes = self.linear_ids().map(|id| Ok((id, self.scale_shape(id)?)));
        let shapes = shapes.collect::<Result<HashMap<TensorId, ScaleShape>, LoadError>>()?;
        let mut all = products::products(&self.config, |id| shapes[&id]);
        if let Some(head) = &self.ternary_head {
            let scales = ScaleShape::from(&self.scales_of(head)?);
            all.extend(products::of_head(&self.config, scales));
        }
        Ok(all)
    }

    fn linear(&self, id: TensorId) -> &TernarySource {
        assert!(
            id.layer < self.config.n_layers,
            "layer {} of {}",
            id.layer,
            self.config.n_layers
        );
        &self.linears[id.layer][id.projection as usize]
    }

    /// Whether the model has this norm.
    pub fn has_norm(&self, norm: Norm) -> bool {
        self.norms.contains_key(&norm)
    }

    /// One norm's weight as f32.
    ///
    /// # Errors
    /// When a value is NaN or infinite.
    ///
    /// # Panics
    /// When the model has no such norm (see [`Self::has_norm`]): the configuration says which exist.
    pub fn norm(&self, norm: Norm) -> Result<Vec<f32>, LoadError> {
        let &index = self
            .norms
            .get(&norm)
            .unwrap_or_else(|| panic!("{norm} is not part of {}", self.config.architecture));
        let info = &self.store.tensors()[index];
        let dtype = info
            .dtype
            .as_float()
            .unwrap_or_else(|| panic!("{norm} was checked to be a float tensor"));
        let mut out = vec![0f32; self.config.norm_len(norm)];
        dtype.decode(self.store.bytes(index), &mut out);
        match out.iter().position(|v| !v.is_finite()) {
            None => Ok(out),
            Some(at) => Err(LoadError::new(
                &self.path,
                LoadErrorKind::Value {
                    field: info.name.clone(),
                    expected: "finite norm weights".into(),
                    got: format!("{} at index {at}", out[at]),
                    hint: "the file is damaged, fetch or convert it again",
                },
            )),
        }
    }

    /// One row of the embedding table, whatever it is stored as.
    ///
    /// # Panics
    /// When there is no such row, or `out` is not as long as one.
    pub fn embed(&self, token: usize, out: &mut [f32]) {
        match &self.ternary_embedding {
            Some(source) => source.row_to_f32(&self.store, token, out),
            None => self.embedding().row_to_f32(token, out),
        }
    }

    /// Whether the embedding table holds trits; then [`Self::embedding`] has no answer.
    pub fn embeds_trits(&self) -> bool {
        self.ternary_embedding.is_some()
    }

    /// The embedding table, where it is of floats.
    ///
    /// # Panics
    /// When it is ternary (see [`Self::embeds_trits`]).
    pub fn embedding(&self) -> FloatTensor<'_> {
        self.table(self.embedding)
    }

    /// The head: the embedding table where the model is tied. Where the head is a ternary product of what the file holds
    /// as floats, these floats (see [`Self::ternary_head`]).
    ///
    /// # Panics
    /// When the file holds it as trits.
    pub fn head(&self) -> FloatTensor<'_> {
        self.table(self.head.unwrap_or(self.embedding))
    }

    fn table(&self, index: usize) -> FloatTensor<'_> {
        self.float_tensor(index, self.config.vocab, self.config.hidden)
    }

    fn float_tensor(&self, index: usize, rows: usize, cols: usize) -> FloatTensor<'_> {
        let info = &self.store.tensors()[index];
        let dtype = info
            .dtype
            .as_float()
            .unwrap_or_else(|| panic!("{} was checked to be a float tensor", info.name));
        FloatTensor {
            dtype,
            rows,
            cols,
            bytes: self.store.bytes(index),
        }
    }
}
