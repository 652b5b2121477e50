//! Any model in, a GGUF file out, one tensor at a time: projections as I2_S in blocks of 128, or, where groups of columns
//! have scales of their own, as Q2_0 (64 columns), PQ2_0 or PTQ1_0 (128) and TQ2_0 (256).
//!
//! Nothing is rounded: codes and scales of every projection are those that loading the source gives, tables of floats
//! keep their type, norms become F32, so logits are equal bit for bit. What no type can say (a scale for each row, other
//! groups, a number of weights that is not a multiple of 128) is refused.

use std::path::Path;

use bitnet_codegen::trit::Scales;
use half::f16;
use thiserror::Error;

use crate::format::dtype::{Dtype, TernaryType};
use crate::format::float::FloatType;
use crate::format::ternary::{RowOrder, TernarySource, pack};
use crate::format::{GgufFile, GgufWriter, LoadError, Model, TokenizerSource};
use crate::format::{WriteError, gguf_config, vocab};
use crate::graph::{Acts, ModelConfig, Norm, TensorId, Weight};
use crate::tokenizer::TokenizerError;
use crate::vocab::{GgufVocab, TokenType};

/// Why a model was not converted. No part of the output is left behind.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// A tensor of the source cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The output cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// No type holds a tensor.
    #[error("unsupported: no GGUF type holds {tensor}: {why}")]
    Unsupported {
        /// The projection.
        tensor: TensorId,
        /// What it would need.
        why: String,
    },
    /// GGUF files have no word for it.
    #[error("unsupported: the head is ternary with 8-bit inputs, which GGUF files cannot say")]
    TernaryHead,
    /// The tokenizer has more tokens than the model has rows.
    #[error(
        "the tokenizer has {tokens} tokens, the model's embedding {rows} rows: they do not belong together"
    )]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the embedding.
        rows: usize,
    },
    /// The caller asked to stop.
    #[error("stopped; nothing was written")]
    Stopped,
}

/// What was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// Tensors of the new file.
    pub n_tensors: usize,
    /// Bytes of its tensors.
    pub tensor_bytes: u64,
    /// What a person should know: what could not be carried over.
    pub notes: Vec<String>,
}

/// How matrices with a scale for each 128 columns are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupType {
    /// PQ2_0: 2.125 bits a weight.
    #[default]
    PQ2_0,
    /// PTQ1_0: 1.75 bits a weight, five trits a byte.
    PTQ1_0,
}

impl GroupType {
    fn kind(self) -> TernaryType {
        match self {
            Self::PQ2_0 => TernaryType::PQ2_0,
            Self::PTQ1_0 => TernaryType::PTQ1_0,
        }
    }
}

/// One tensor of the new file.
enum Part<'m> {
    /// [`crate::graph::Rope::factors`].
    Factors(&'m [f32]),
    Norm(Norm),
    /// An embedding or a head as it is stored.
    Stored(Weight, Dtype, &'m [u8]),
    /// An embedding or a head of trits in another type.
    Table(Weight, &'m TernarySource, TernaryType),
    Projection(TensorId, TernaryType),
}

/// Writes `model` to `path`; `groups` is for matrices with a scale for each 128 columns. `progress(done, total)` is told
/// bytes and answers whether to go on.
///
/// # Errors
/// [`ConvertError`].
pub fn to_gguf(
    model: &Model,
    path: &Path,
    groups: GroupType,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Converted, ConvertError> {
    let parts = parts(model, groups)?;
    let mut notes = Vec::new();
    let mut writer = GgufWriter::default();
    keys(&mut writer, model, &mut notes)?;
    for part in &parts {
        declare(&mut writer, model.config(), part);
    }
    let (total, mut done) = (writer.data_bytes(), 0);
    let mut file = writer.create(path)?;
    for part in &parts {
        done += write(&mut file, model, part)?;
        if !progress(done as u64, total) {
            return Err(ConvertError::Stopped);
        }
    }
    file.finish()?;
    Ok(Converted {
        n_tensors: parts.len(),
        tensor_bytes: total,
        notes,
    })
}

/// The keys of the new file.
fn keys(
    writer: &mut GgufWriter,
    model: &Model,
    notes: &mut Vec<String>,
) -> Result<(), ConvertError> {
    let config = model.config();
    match model.tokenizer_source() {
        TokenizerSource::Gguf(metadata) => {
            // All keys as they are, but those that describe the old file's storage.
            for entry in metadata.entries() {
                if !matches!(
                    entry.key.as_str(),
                    "general.alignment" | "general.file_type" | gguf_config::ACTS
                ) {
                    writer.raw(&entry.key, metadata.raw(entry));
                }
            }
        }
        TokenizerSource::Folder(folder) => {
            gguf_config::write(writer, config);
            tokenizer_keys(writer, folder, config, notes)?;
        }
    }
    gguf_config::write_file_type(writer);
    // Weight-only graphs take 16 bits without being told.
    let usual = match config.architecture.weight_only && config.weight_only {
        true => Acts::I16,
        false => Acts::I8,
    };
    if config.acts != usual {
        writer.str(gguf_config::ACTS, config.acts.name());
        notes.push(format!(
            "inputs of products stay {}, as a key of the new file says; other programs will quantise them to 8 bits",
            config.acts.name()
        ));
    }
    Ok(())
}

/// Every tensor of the new file, and what it becomes.
fn parts(model: &Model, groups: GroupType) -> Result<Vec<Part<'_>>, ConvertError> {
    let config = model.config();
    let mut parts = Vec::new();
    parts.extend(config.rope.factors.as_deref().map(Part::Factors));
    for weight in config.weights() {
        parts.push(match weight {
            Weight::Norm(norm) => Part::Norm(norm),
            Weight::Projection(id) => Part::Projection(id, projection(model, id, groups)?),
            Weight::Embedding | Weight::Head => table(model, weight, groups)?,
        });
    }
    // A head that files hold as trits is a tensor; one that is made from floats has no type.
    let (head, _) = model.stored_table(true);
    if model.ternary_head.is_some() && head.as_float().is_some() {
        return Err(ConvertError::TernaryHead);
    }
    Ok(parts)
}

fn unsupported(tensor: TensorId, why: impl Into<String>) -> ConvertError {
    ConvertError::Unsupported {
        tensor,
        why: why.into(),
    }
}

/// What a matrix of `k` columns with `scales` becomes, if anything holds it: I2_S, or blocks of as many columns as share
/// a scale. Others would be added in another order, and logits be other bits.
fn target(scales: &Scales, k: usize, groups: GroupType) -> Option<TernaryType> {
    let (group_k, scales) = match scales {
        Scales::Tensor(_) => return Some(TernaryType::I2S),
        Scales::Row(_) => return None,
        Scales::Group { group_k, scales } => (*group_k, scales),
    };
    let kind = match group_k {
        64 => TernaryType::Q2_0,
        128 => groups.kind(),
        256 => TernaryType::TQ2_0,
        _ => return None,
    };
    let halves = scales.iter().all(|&s| f16::from_f32(s).to_f32() == s);
    (halves && k.is_multiple_of(group_k)).then_some(kind)
}

fn projection(model: &Model, id: TensorId, groups: GroupType) -> Result<TernaryType, ConvertError> {
    if model.float_projection(id).is_some() {
        return Err(unsupported(id, "it is kept in float"));
    }
    let (n, k) = model.config().linear_shape(id.projection);
    match target(&model.scales(id)?, k, groups) {
        None => Err(unsupported(
            id,
            "its scale differs between rows or groups, I2_S has one for the tensor, and other types have f16 scales for 64, 128 or 256 columns",
        )),
        Some(TernaryType::I2S) if !(n * k).is_multiple_of(128) => Err(unsupported(
            id,
            format!("{n}x{k} weights are not a multiple of 128"),
        )),
        Some(kind) => Ok(kind),
    }
}

/// Embedding or head: as it is stored, but where scales of 128 columns have another type.
fn table(model: &Model, weight: Weight, groups: GroupType) -> Result<Part<'_>, ConvertError> {
    let head = weight == Weight::Head;
    let (dtype, bytes) = model.stored_table(head);
    let stored = Part::Stored(weight, dtype, bytes);
    let (Dtype::Ternary(kind), Some(source)) = (dtype, model.ternary_table(head)) else {
        return Ok(stored);
    };
    let scales = model.scales_of(source)?;
    Ok(match target(&scales, source.k, groups) {
        Some(wanted) if wanted == groups.kind() && wanted != kind => {
            Part::Table(weight, source, wanted)
        }
        _ => stored,
    })
}

fn id_of(kind: TernaryType) -> u32 {
    let id = kind.ggml_id();
    id.unwrap_or_else(|| panic!("{} has an id", kind.name()))
}

fn declare(writer: &mut GgufWriter, config: &ModelConfig, part: &Part<'_>) {
    let f32_id = FloatType::F32.ggml_id();
    let packed = |kind: TernaryType, (n, k): (usize, usize)| {
        let bytes = kind.n_bytes(n, k);
        let bytes = bytes.unwrap_or_else(|| panic!("the size of a {n}x{k} matrix"));
        (id_of(kind), bytes)
    };
    let (weight, (type_id, bytes)) = match *part {
        Part::Factors(f) => {
            return writer.tensor(gguf_config::ROPE_FACTORS, &[f.len()], f32_id, 4 * f.len());
        }
        Part::Norm(norm) => (Weight::Norm(norm), (f32_id, 4 * config.norm_len(norm))),
        Part::Stored(weight, dtype, bytes) => {
            let id = match dtype {
                Dtype::Ternary(kind) => id_of(kind),
                Dtype::Float(kind) => kind.ggml_id(),
                Dtype::Other(name) => panic!("a table of {name} was opened"),
            };
            (weight, (id, bytes.len()))
        }
        Part::Table(weight, source, kind) => (weight, packed(kind, (source.n, source.k))),
        Part::Projection(id, kind) => {
            let shape = config.linear_shape(id.projection);
            (Weight::Projection(id), packed(kind, shape))
        }
    };
    let name = format!("{}.weight", config.architecture.gguf(weight));
    writer.tensor(&name, &config.dims(weight), type_id, bytes);
}

/// Writes the bytes of a tensor and says how many.
fn write(file: &mut GgufFile, model: &Model, part: &Part<'_>) -> Result<usize, ConvertError> {
    let f32s = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let bytes: Vec<u8> = match *part {
        Part::Factors(factors) => f32s(factors),
        Part::Norm(norm) => f32s(&model.norm(norm)?),
        Part::Stored(_, _, bytes) => {
            file.tensor(|sink| sink.write_all(bytes))?;
            return Ok(bytes.len());
        }
        Part::Table(_, source, kind) => pack::pack(kind, &model.decode(source)?, 128, None),
        Part::Projection(id, TernaryType::I2S) => return write_i2s(file, model, id),
        Part::Projection(id, kind) => {
            let order = RowOrder::of_gguf(model.config(), id.projection);
            let matrix = model.ternary(id)?;
            let mut neutral = vec![0; matrix.n()];
            (0..matrix.n()).for_each(|r| neutral[order.stored(r)] = r);
            pack::pack(kind, &matrix.permute_rows(&neutral), 128, None)
        }
    };
    file.tensor(|sink| sink.write_all(&bytes))?;
    Ok(bytes.len())
}

fn write_i2s(file: &mut GgufFile, model: &Model, id: TensorId) -> Result<usize, ConvertError> {
    let matrix = model.ternary(id)?;
    let Scales::Tensor(scale) = *matrix.scales() else {
        unreachable!("{id} was found to have one scale")
    };
    let order = RowOrder::of_gguf(model.config(), id.projection);
    file.tensor(|sink| {
        pack::i2s_codes(&matrix, order, sink)?;
        sink.write_all(&pack::i2s_tail(scale))
    })?;
    Ok(matrix.n() * matrix.k() / 4 + 32)
}

fn tokenizer_keys(
    w: &mut GgufWriter,
    folder: &Path,
    config: &ModelConfig,
    notes: &mut Vec<String>,
) -> Result<(), ConvertError> {
    let mut vocab = match GgufVocab::from_folder(folder) {
        Ok(vocab) => vocab,
        Err(TokenizerError::NoTokenizer { .. }) => {
            notes
                .push("the folder has no tokenizer: the new file takes token ids, not text".into());
            return Ok(());
        }
        Err(error) => {
            notes.push(format!(
                "the new file has no tokenizer, as GGUF keys cannot say it: {error}"
            ));
            return Ok(());
        }
    };
    notes.extend(vocab.note().map(str::to_string));
    let (tokens, rows) = (vocab.tokens.len(), config.vocab);
    if tokens > rows {
        return Err(ConvertError::Vocabulary { tokens, rows });
    }
    // Tables are often padded to a round number of rows; every row needs a name.
    vocab
        .tokens
        .extend((tokens..rows).map(|id| format!("[PAD{id}]")));
    if !vocab.token_types.is_empty() {
        vocab.token_types.resize(rows, TokenType::Unused as i32);
    }
    if !vocab.scores.is_empty() {
        vocab.scores.resize(rows, 0.0);
    }
    vocab::write(w, &vocab);
    Ok(())
}
