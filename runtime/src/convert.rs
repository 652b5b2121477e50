//! Any model in, a GGUF file with I2_S projections (blocks of 128) out, one tensor at a time.
//!
//! Nothing is rounded: codes and the f32 scale of every projection are those that loading the source
//! gives, tables keep their type, norms become F32, so logits are equal bit for bit. What I2_S cannot
//! say (a scale for each row or group, a number of weights that is not a multiple of 128) is refused.

use std::path::Path;

use bitnet_codegen::trit::Scales;
use thiserror::Error;

use crate::format::dtype::TernaryType;
use crate::format::float::FloatType;
use crate::format::ternary::{RowOrder, pack};
use crate::format::{FloatTensor, GgufFile, GgufWriter, LoadError, Model, TokenizerSource};
use crate::format::{WriteError, gguf_config, vocab};
use crate::graph::{Acts, ModelConfig, TensorId, Weight};
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
    /// I2_S cannot hold a tensor.
    #[error("unsupported: I2_S cannot hold {tensor}: {why}")]
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

/// One tensor of the new file.
enum Part<'a> {
    Weight(Weight),
    Factors(&'a [f32]),
}

/// Writes `model` to `path`. `progress(done, total)` is told bytes and answers whether to go on.
///
/// # Errors
/// [`ConvertError`].
pub fn to_i2s(
    model: &Model,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Converted, ConvertError> {
    let config = model.config();
    check_shapes(model)?;
    let mut notes = Vec::new();
    let mut writer = GgufWriter::default();
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
            gguf_config::write(&mut writer, config);
            tokenizer_keys(&mut writer, folder, config, &mut notes)?;
        }
    }
    gguf_config::write_file_type(&mut writer);
    if config.acts != Acts::I8 {
        writer.str(gguf_config::ACTS, config.acts.name());
        notes.push(format!(
            "inputs of products stay {}, as a key of the new file says; other programs will quantise them to 8 bits",
            config.acts.name()
        ));
    }
    let factors = config.rope.factors.as_deref().map(Part::Factors);
    let parts: Vec<Part<'_>> = factors
        .into_iter()
        .chain(config.weights().map(Part::Weight))
        .collect();
    for part in &parts {
        declare(&mut writer, model, part);
    }
    let (total, mut done) = (writer.data_bytes(), 0);
    let mut file = writer.create(path)?;
    for part in &parts {
        done += match *part {
            Part::Weight(Weight::Embedding) => write_table(&mut file, &model.embedding())?,
            Part::Weight(Weight::Head) => write_table(&mut file, &model.head())?,
            Part::Weight(Weight::Norm(norm)) => write_f32s(&mut file, &model.norm(norm)?)?,
            Part::Weight(Weight::Projection(id)) => write_i2s(&mut file, model, id)?,
            Part::Factors(factors) => write_f32s(&mut file, factors)?,
        };
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

fn unsupported(tensor: TensorId, why: impl Into<String>) -> ConvertError {
    ConvertError::Unsupported {
        tensor,
        why: why.into(),
    }
}

fn write_table(file: &mut GgufFile, table: &FloatTensor<'_>) -> Result<usize, WriteError> {
    file.tensor(|sink| sink.write_all(table.bytes))?;
    Ok(table.bytes.len())
}

fn write_f32s(file: &mut GgufFile, values: &[f32]) -> Result<usize, WriteError> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    file.tensor(|sink| sink.write_all(&bytes))?;
    Ok(bytes.len())
}

fn write_i2s(file: &mut GgufFile, model: &Model, id: TensorId) -> Result<usize, ConvertError> {
    let matrix = model.ternary(id)?;
    let Scales::Tensor(scale) = *matrix.scales() else {
        return Err(unsupported(
            id,
            "its scale differs between rows or groups, I2_S has one for the tensor",
        ));
    };
    let order = RowOrder::of_gguf(model.config(), id.projection);
    file.tensor(|sink| {
        pack::i2s_codes(&matrix, order, sink)?;
        sink.write_all(&pack::i2s_tail(scale))
    })?;
    Ok(matrix.n() * matrix.k() / 4 + 32)
}

fn check_shapes(model: &Model) -> Result<(), ConvertError> {
    if model.ternary_head.is_some() {
        return Err(ConvertError::TernaryHead);
    }
    for id in model.linear_ids() {
        if model.float_projection(id).is_some() {
            return Err(unsupported(id, "it is kept in float"));
        }
        let (n, k) = model.config().linear_shape(id.projection);
        if !(n * k).is_multiple_of(128) {
            return Err(unsupported(
                id,
                format!("{n}x{k} weights are not a multiple of 128"),
            ));
        }
    }
    Ok(())
}

fn declare(writer: &mut GgufWriter, model: &Model, part: &Part<'_>) {
    let config = model.config();
    let f32_id = FloatType::F32.ggml_id();
    let weight = match *part {
        Part::Factors(f) => {
            return writer.tensor(gguf_config::ROPE_FACTORS, &[f.len()], f32_id, 4 * f.len());
        }
        Part::Weight(weight) => weight,
    };
    let table = |t: FloatTensor<'_>| (t.dtype.ggml_id(), t.bytes.len());
    let (type_id, bytes) = match weight {
        Weight::Embedding => table(model.embedding()),
        Weight::Head => table(model.head()),
        Weight::Norm(norm) => (f32_id, 4 * config.norm_len(norm)),
        Weight::Projection(id) => {
            let (n, k) = config.linear_shape(id.projection);
            let type_id = TernaryType::I2S.ggml_id();
            let type_id = type_id.unwrap_or_else(|| panic!("I2_S has an id"));
            (type_id, n * k / 4 + 32)
        }
    };
    let name = format!("{}.weight", config.architecture.gguf(weight));
    writer.tensor(&name, &config.dims(weight), type_id, bytes);
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
