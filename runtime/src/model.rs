//! The neutral model: what a file says, with its dialect removed.
//!
//! A [`Model`] names every weight by role, hands ternary matrices out one at a time in the
//! neutral form (so that loading needs one tensor of extra memory, not a second model), and
//! shows float tables as views of the mapped file. Readers live in [`crate::format`].

use std::fmt;
use std::path::Path;

use bitnet_codegen::trit::TernaryMatrix;

use crate::format::float::FloatType;
use crate::format::metadata::Metadata;
use crate::format::store::{TensorInfo, TensorStore};
use crate::format::ternary::TernarySource;
use crate::format::{LoadError, LoadErrorKind, vocab};
use crate::tokenizer::GgufVocab;

/// The graph a file asks for. Differences that matter to arithmetic are fields of
/// [`ModelConfig`]; this name is for people and for writing files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// microsoft/bitnet-b1.58-2B-4T: sub-norms, ReLU², tied.
    BitnetB158,
    /// The first upload of the same model: the same graph, a separate head.
    Bitnet25,
    /// 1bitLLM: sub-norms, SiLU.
    Bitnet,
    /// Llama with ternary projections (Llama3-8B-1.58, Falcon3, Falcon-E): no sub-norms, SiLU.
    Llama,
}

impl Architecture {
    /// Every architecture that can be loaded.
    pub const ALL: [Architecture; 4] = [
        Architecture::BitnetB158,
        Architecture::Bitnet25,
        Architecture::Bitnet,
        Architecture::Llama,
    ];

    /// The value of `general.architecture`.
    pub fn gguf_name(self) -> &'static str {
        match self {
            Architecture::BitnetB158 => "bitnet-b1.58",
            Architecture::Bitnet25 => "bitnet-25",
            Architecture::Bitnet => "bitnet",
            Architecture::Llama => "llama",
        }
    }

    /// Whether the attention output and the FFN product are normalised before their projection.
    pub fn sub_norms(self) -> bool {
        self != Architecture::Llama
    }

    /// The gate's activation where the file does not say otherwise.
    pub fn activation(self) -> Activation {
        match self {
            Architecture::BitnetB158 | Architecture::Bitnet25 => Activation::Relu2,
            Architecture::Bitnet | Architecture::Llama => Activation::Silu,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.gguf_name())
    }
}

/// The activation of the FFN gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `max(x, 0)²`.
    Relu2,
    /// `x / (1 + e^−x)`.
    Silu,
}

/// Rotary embedding, always in the NEOX pairing `(x[i], x[i + head_dim/2])`: rows of files that
/// interleave pairs are put back in this order when they are read.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the angles: `angle_i = pos / linear / factor_i · theta^(−2i/head_dim)`.
    pub theta: f32,
    /// Linear position scaling; 1 for none.
    pub linear: f32,
    /// One divisor for each of the `head_dim / 2` frequencies (Llama 3.1 style), if any.
    pub factors: Option<Vec<f32>>,
}

/// Everything about a model that is not a weight.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The graph's name.
    pub architecture: Architecture,
    /// The model's own name, for display.
    pub name: String,
    /// Transformer blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one head; even, and not always `hidden / n_heads`.
    pub head_dim: usize,
    /// Width of the FFN.
    pub ffn: usize,
    /// Rows of the embedding table and of the head.
    pub vocab: usize,
    /// Positions the model was trained for.
    pub context_len: usize,
    /// Epsilon of every RMSNorm but the input norms.
    pub norm_eps: f32,
    /// Whether [`Norm::AttnSub`] and [`Norm::FfnSub`] exist.
    pub sub_norms: bool,
    /// `Some(eps)` when every projection owns an RMSNorm of its input ([`Norm::Input`]), which
    /// runs before the activations are quantised.
    pub input_norm_eps: Option<f32>,
    /// Activation of the FFN gate.
    pub activation: Activation,
    /// Rotary embedding.
    pub rope: Rope,
    /// Whether the head is the embedding table.
    pub tied: bool,
}

impl ModelConfig {
    /// Rows and columns (N, K) of a projection.
    pub fn linear_shape(&self, role: Role) -> (usize, usize) {
        let (h, q, kv) = (
            self.hidden,
            self.n_heads * self.head_dim,
            self.n_kv_heads * self.head_dim,
        );
        match role {
            Role::AttnQ => (q, h),
            Role::AttnK | Role::AttnV => (kv, h),
            Role::AttnOut => (h, q),
            Role::FfnGate | Role::FfnUp => (self.ffn, h),
            Role::FfnDown => (h, self.ffn),
        }
    }

    /// Length of a norm's weight.
    pub fn norm_len(&self, norm: Norm) -> usize {
        match norm {
            Norm::Attn(_) | Norm::Ffn(_) | Norm::Output => self.hidden,
            Norm::AttnSub(_) => self.n_heads * self.head_dim,
            Norm::FfnSub(_) => self.ffn,
            Norm::Input(id) => self.linear_shape(id.role).1,
        }
    }
}

/// The seven ternary projections of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Queries: `[n_heads · head_dim, hidden]`.
    AttnQ,
    /// Keys: `[n_kv_heads · head_dim, hidden]`.
    AttnK,
    /// Values: `[n_kv_heads · head_dim, hidden]`.
    AttnV,
    /// Attention output: `[hidden, n_heads · head_dim]`.
    AttnOut,
    /// FFN gate: `[ffn, hidden]`.
    FfnGate,
    /// FFN up: `[ffn, hidden]`.
    FfnUp,
    /// FFN down: `[hidden, ffn]`.
    FfnDown,
}

impl Role {
    /// All roles, in the order of the forward pass.
    pub const ALL: [Role; 7] = [
        Role::AttnQ,
        Role::AttnK,
        Role::AttnV,
        Role::AttnOut,
        Role::FfnGate,
        Role::FfnUp,
        Role::FfnDown,
    ];

    /// The name GGUF files use (`attn_q`).
    pub fn gguf_name(self) -> &'static str {
        match self {
            Role::AttnQ => "attn_q",
            Role::AttnK => "attn_k",
            Role::AttnV => "attn_v",
            Role::AttnOut => "attn_output",
            Role::FfnGate => "ffn_gate",
            Role::FfnUp => "ffn_up",
            Role::FfnDown => "ffn_down",
        }
    }
}

/// One projection of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId {
    /// Block, from 0.
    pub layer: usize,
    /// Which projection.
    pub role: Role,
}

impl fmt::Display for TensorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blk.{}.{}", self.layer, self.role.gguf_name())
    }
}

/// One RMSNorm weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Norm {
    /// Before the attention of a block.
    Attn(usize),
    /// Over the concatenated heads, before the attention output projection.
    AttnSub(usize),
    /// Before the FFN of a block.
    Ffn(usize),
    /// Over the FFN product, before the down projection.
    FfnSub(usize),
    /// Before one projection (see [`ModelConfig::input_norm_eps`]).
    Input(TensorId),
    /// Before the head.
    Output,
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Norm::Attn(l) => write!(f, "blk.{l}.attn_norm"),
            Norm::AttnSub(l) => write!(f, "blk.{l}.attn_sub_norm"),
            Norm::Ffn(l) => write!(f, "blk.{l}.ffn_norm"),
            Norm::FfnSub(l) => write!(f, "blk.{l}.ffn_sub_norm"),
            Norm::Input(id) => write!(f, "{id}_norm_in"),
            Norm::Output => f.write_str("output_norm"),
        }
    }
}

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
    /// `linears[layer][role as usize]`.
    pub(crate) linears: Vec<[TernarySource; 7]>,
    pub(crate) norms: std::collections::BTreeMap<Norm, usize>,
    pub(crate) embedding: usize,
    pub(crate) head: Option<usize>,
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

    /// The vocabulary of a GGUF file, in its own words; `None` where the file has none or the model
    /// is a folder.
    ///
    /// # Errors
    /// When a `tokenizer.*` key holds another kind of value than it must.
    pub fn gguf_vocab(&self) -> Result<Option<GgufVocab>, LoadError> {
        match &self.tokenizer {
            TokenizerHome::Gguf(m) => {
                let arch = self.config.architecture.gguf_name();
                vocab::from_metadata(m, arch).map_err(|kind| LoadError::new(&self.path, kind))
            }
            TokenizerHome::Folder(_) => Ok(None),
        }
    }

    /// Every tensor of the files, in file order, used or not.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.store.tensors()
    }

    /// Bytes of the model's file, or of all shards.
    pub fn file_bytes(&self) -> u64 {
        self.store.file_bytes()
    }

    /// All projections, in the order of the forward pass.
    pub fn linear_ids(&self) -> impl Iterator<Item = TensorId> + use<> {
        (0..self.config.n_layers).flat_map(|layer| Role::ALL.map(|role| TensorId { layer, role }))
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
    /// above zero, values of more than one magnitude.
    ///
    /// # Panics
    /// When `id.layer` is not below `n_layers`.
    pub fn ternary(&self, id: TensorId) -> Result<TernaryMatrix, LoadError> {
        let source = self.linear(id);
        source
            .decode(&self.store)
            .map_err(|kind| LoadError::new(&self.path, kind))
    }

    fn linear(&self, id: TensorId) -> &TernarySource {
        assert!(
            id.layer < self.config.n_layers,
            "layer {} of {}",
            id.layer,
            self.config.n_layers
        );
        &self.linears[id.layer][id.role as usize]
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

    /// The embedding table.
    pub fn embedding(&self) -> FloatTensor<'_> {
        self.float_tensor(self.embedding)
    }

    /// The head: the embedding table where the model is tied.
    pub fn head(&self) -> FloatTensor<'_> {
        self.float_tensor(self.head.unwrap_or(self.embedding))
    }

    fn float_tensor(&self, index: usize) -> FloatTensor<'_> {
        let info = &self.store.tensors()[index];
        let dtype = info
            .dtype
            .as_float()
            .unwrap_or_else(|| panic!("{} was checked to be a float tensor", info.name));
        FloatTensor {
            dtype,
            rows: self.config.vocab,
            cols: self.config.hidden,
            bytes: self.store.bytes(index),
        }
    }
}
