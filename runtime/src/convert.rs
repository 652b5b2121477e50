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
use crate::format::{FloatTensor, Model, TokenizerSource};
use crate::format::{GgufWriter, LoadError, WriteError, vocab};
use crate::graph::{Architecture, ModelConfig, Norm, Projection, TensorId};
use crate::tokenizer::{GgufVocab, TokenType, TokenizerError};

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
    Table(&'static str, FloatTensor<'a>),
    Norm(Norm),
    Factors(&'a [f32]),
    Linear(TensorId),
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
                    "general.alignment" | "general.file_type"
                ) {
                    writer.raw(&entry.key, metadata.raw(entry));
                }
            }
        }
        TokenizerSource::Folder(folder) => {
            config_keys(&mut writer, config);
            tokenizer_keys(&mut writer, folder, config, &mut notes)?;
        }
    }
    writer.u32("general.file_type", 40);
    let parts = parts(model);
    for part in &parts {
        declare(&mut writer, config, part);
    }
    let (total, mut done) = (writer.data_bytes(), 0);
    let mut file = writer.create(path)?;
    for part in &parts {
        match part {
            Part::Table(_, t) => {
                file.tensor(|sink| sink.write_all(t.bytes))?;
                done += t.bytes.len();
            }
            Part::Norm(norm) => done += write_f32s(&mut file, &model.norm(*norm)?)?,
            Part::Factors(factors) => done += write_f32s(&mut file, factors)?,
            Part::Linear(id) => {
                let matrix = model.ternary(*id)?;
                let Scales::Tensor(scale) = *matrix.scales() else {
                    return Err(unsupported(
                        *id,
                        "its scale differs between rows or groups, I2_S has one for the tensor",
                    ));
                };
                let order = row_order(config, *id);
                file.tensor(|sink| {
                    pack::i2s_codes(&matrix, order, sink)?;
                    sink.write_all(&pack::i2s_tail(scale))
                })?;
                done += matrix.n() * matrix.k() / 4 + 32;
            }
        }
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

fn write_f32s(file: &mut crate::format::GgufFile, values: &[f32]) -> Result<usize, WriteError> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    file.tensor(|sink| sink.write_all(&bytes))?;
    Ok(bytes.len())
}

fn check_shapes(model: &Model) -> Result<(), ConvertError> {
    for id in model.linear_ids() {
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

/// Llama files keep rotary pairs side by side.
fn row_order(config: &ModelConfig, id: TensorId) -> RowOrder {
    match (config.architecture, id.projection) {
        (Architecture::Llama, Projection::AttnQ | Projection::AttnK) => RowOrder::Interleaved {
            head_dim: config.head_dim,
        },
        _ => RowOrder::Neutral,
    }
}

fn parts(model: &Model) -> Vec<Part<'_>> {
    let config = model.config();
    let mut parts = vec![Part::Table("token_embd.weight", model.embedding())];
    if !config.tied {
        parts.push(Part::Table("output.weight", model.head()));
    }
    if let Some(factors) = &config.rope.factors {
        parts.push(Part::Factors(factors));
    }
    parts.push(Part::Norm(Norm::Output));
    for layer in 0..config.n_layers {
        let ids = Projection::ALL.map(|projection| TensorId { layer, projection });
        let norms = [
            Norm::Attn(layer),
            Norm::AttnSub(layer),
            Norm::Ffn(layer),
            Norm::FfnSub(layer),
        ];
        let norms = norms.into_iter().chain(ids.map(Norm::Input));
        parts.extend(norms.filter(|&n| model.has_norm(n)).map(Part::Norm));
        parts.extend(ids.map(Part::Linear));
    }
    parts
}

fn declare(writer: &mut GgufWriter, config: &ModelConfig, part: &Part<'_>) {
    let f32_id = FloatType::F32.ggml_id();
    match part {
        Part::Table(name, t) => {
            writer.tensor(name, &[t.rows, t.cols], t.dtype.ggml_id(), t.bytes.len())
        }
        Part::Norm(norm) => {
            let n = config.norm_len(*norm);
            writer.tensor(&format!("{norm}.weight"), &[n], f32_id, 4 * n);
        }
        Part::Factors(f) => writer.tensor("rope_freqs.weight", &[f.len()], f32_id, 4 * f.len()),
        Part::Linear(id) => {
            let (n, k) = config.linear_shape(id.projection);
            let type_id = TernaryType::I2S
                .ggml_id()
                .unwrap_or_else(|| panic!("I2_S has an id"));
            writer.tensor(&format!("{id}.weight"), &[n, k], type_id, n * k / 4 + 32);
        }
    }
}

fn config_keys(w: &mut GgufWriter, c: &ModelConfig) {
    let arch = c.architecture.gguf_name();
    let key = |name: &str| format!("{arch}.{name}");
    w.str("general.architecture", arch);
    w.str("general.name", &c.name);
    w.u32("general.quantization_version", 2);
    w.u32(&key("vocab_size"), c.vocab);
    w.u32(&key("context_length"), c.context_len);
    w.u32(&key("embedding_length"), c.hidden);
    w.u32(&key("block_count"), c.n_layers);
    w.u32(&key("feed_forward_length"), c.ffn);
    w.u32(&key("rope.dimension_count"), c.head_dim);
    w.u32(&key("attention.head_count"), c.n_heads);
    w.u32(&key("attention.head_count_kv"), c.n_kv_heads);
    w.u32(&key("attention.key_length"), c.head_dim);
    w.u32(&key("attention.value_length"), c.head_dim);
    w.f32(&key("attention.layer_norm_rms_epsilon"), c.norm_eps);
    if let Some(eps) = c.input_norm_eps {
        w.f32(&key("attention.input_norm_rms_epsilon"), eps);
    }
    w.f32(&key("rope.freq_base"), c.rope.theta);
    if c.rope.linear != 1.0 {
        w.str(&key("rope.scaling.type"), "linear");
        w.f32(&key("rope.scaling.factor"), c.rope.linear);
    }
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
