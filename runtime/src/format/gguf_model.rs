//! What GGUF keys and tensor names mean: from a parsed container to a validated [`Model`].

use std::sync::Arc;

use super::assemble::{Assembly, ConfigCheck};
use super::dtype::{self, Dtype, TernaryType};
use super::error::{LoadErrorKind, bad, unsupported};
use super::gguf::{self, Gguf};
use super::map::Blob;
use super::metadata::Metadata;
use super::store::{TensorInfo, TensorStore};
use super::ternary::{Packing, RowOrder, Ternarise, TernarySource};
use super::{OpenOptions, source};
use crate::format::Model;
use crate::format::model::TokenizerHome;
use crate::graph::{Architecture, ModelConfig, Norm, Projection, Rope, TensorId};

/// Opens a whole GGUF file.
pub(super) fn open(source: source::Source, options: &OpenOptions) -> Result<Model, LoadErrorKind> {
    let source::Source::File { path, bytes, .. } = source else {
        unreachable!("GGUF is detected on files only");
    };
    let bytes: Arc<Blob> = bytes;
    let Gguf { metadata, tensors } = gguf::parse(&bytes)?;
    let architecture = architecture(&metadata)?;
    if let Some(n) = metadata.u64("split.count")?.filter(|&n| n > 1) {
        let hint = "one file is known; merge the parts first (llama-gguf-split --merge)";
        return Err(unsupported(
            format!("GGUF file that is one of {n} parts"),
            hint,
        ));
    }
    let store = TensorStore::new(vec![bytes], tensors);
    let config = config(&metadata, architecture, &store)?;
    let mut names = Assembly::new(config, store, path, "GGUF");
    assemble(&mut names, options)?;
    check_vocabulary(&metadata, names.config())?;
    names.finish(TokenizerHome::Gguf(metadata))
}

fn architecture(metadata: &Metadata) -> Result<Architecture, LoadErrorKind> {
    let key = "general.architecture";
    let name = metadata.str(key)?.ok_or_else(|| LoadErrorKind::Missing {
        field: format!("key {key}"),
        hint: "it names the graph; convert the file again".into(),
    })?;
    Architecture::ALL
        .into_iter()
        .find(|a| a.gguf_name() == name)
        .ok_or_else(|| {
            let known: Vec<_> = Architecture::ALL.iter().map(|a| a.gguf_name()).collect();
            let known = known.join(" ");
            match name {
                "qwen3" | "gemma3" => unsupported(
                    format!("architecture {name:?}"),
                    format!(
                        "ternary models of it embed text and do not generate any; known are {known}"
                    ),
                ),
                _ => unsupported(
                    format!("architecture {name:?}"),
                    format!("known are {known}"),
                ),
            }
        })
}

/// Typed access to the keys of one architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    arch: &'static str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    fn count(&self, name: &str) -> Result<Option<usize>, LoadErrorKind> {
        let key = self.key(name);
        let Some(v) = self.metadata.u64(&key)? else {
            return Ok(None);
        };
        // Larger numbers are damage; none of them is near it.
        usize::try_from(v)
            .ok()
            .filter(|&v| v <= 1 << 31)
            .map(Some)
            .ok_or_else(|| bad(key, "a number up to 2^31", v))
    }

    fn required(&self, name: &str) -> Result<usize, LoadErrorKind> {
        self.count(name)?.ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> LoadErrorKind {
        let hint = "a model of this architecture needs it; convert the file again".into();
        LoadErrorKind::Missing {
            field: format!("key {}", self.key(name)),
            hint,
        }
    }

    /// A head count that may be an array with one entry for each layer.
    fn heads(&self, name: &str) -> Result<Option<usize>, LoadErrorKind> {
        let key = self.key(name);
        if self.metadata.array_len(&key).is_none() {
            return self.count(name);
        }
        let list = self.metadata.i64s(&key)?.unwrap_or_default();
        match list.first() {
            Some(&v) if v >= 0 && list.iter().all(|&x| x == v) => Ok(Some(v as usize)),
            Some(_) => Err(unsupported(
                format!("{key} that differs between layers"),
                "one head count for all layers is known",
            )),
            None => Err(bad(key, "a number", "an empty array")),
        }
    }

    fn positive(&self, name: &str, default: Option<f32>) -> Result<f32, LoadErrorKind> {
        let key = self.key(name);
        let value = self
            .metadata
            .f32(&key)?
            .or(default)
            .ok_or_else(|| self.missing(name))?;
        if value.is_finite() && value > 0.0 {
            Ok(value)
        } else {
            Err(bad(key, "a finite number above 0", value))
        }
    }
}

fn config(
    metadata: &Metadata,
    architecture: Architecture,
    store: &TensorStore,
) -> Result<ModelConfig, LoadErrorKind> {
    let keys = Keys {
        metadata,
        arch: architecture.gguf_name(),
    };
    let hidden = keys.required("embedding_length")?;
    let n_heads = keys
        .heads("attention.head_count")?
        .ok_or_else(|| keys.missing("attention.head_count"))?;
    let vocab = match keys.count("vocab_size")? {
        Some(v) => v,
        None => match metadata.array_len("tokenizer.ggml.tokens") {
            Some(n) => n,
            None => store
                .find("token_embd.weight")
                .map_or(0, |i| store.tensors()[i].dims[0]),
        },
    };
    let head_dim = match keys.count("attention.key_length")? {
        Some(d) => d,
        None if n_heads > 0 && hidden.is_multiple_of(n_heads) => hidden / n_heads,
        None => {
            let got = format!("{hidden} and {n_heads}");
            return Err(bad(
                keys.key("embedding_length and head_count"),
                "a multiple of the head count",
                got,
            ));
        }
    };
    let input_norms = store.find("blk.0.attn_q_norm_in.weight").is_some();
    let config = ModelConfig {
        architecture,
        name: metadata
            .str("general.name")?
            .unwrap_or_default()
            .to_string(),
        n_layers: keys.required("block_count")?,
        hidden,
        n_heads,
        n_kv_heads: keys.heads("attention.head_count_kv")?.unwrap_or(n_heads),
        head_dim,
        ffn: keys.required("feed_forward_length")?,
        vocab,
        context_len: keys.required("context_length")?,
        norm_eps: keys.positive("attention.layer_norm_rms_epsilon", None)?,
        sub_norms: architecture.sub_norms(),
        input_norm_eps: match input_norms {
            true => Some(keys.positive("attention.input_norm_rms_epsilon", Some(1e-6))?),
            false => None,
        },
        activation: architecture.activation(),
        rope: rope(&keys, head_dim, store)?,
        tied: store.find("output.weight").is_none(),
    };
    for (name, got) in [
        (
            "attention.value_length",
            keys.count("attention.value_length")?,
        ),
        ("rope.dimension_count", keys.count("rope.dimension_count")?),
    ] {
        if let Some(got) = got.filter(|&got| got != head_dim) {
            let known = format!("known is {head_dim}, the head width");
            return Err(unsupported(format!("{} of {got}", keys.key(name)), known));
        }
    }
    config.check(store.tensors().len())?;
    Ok(config)
}

fn rope(keys: &Keys<'_>, head_dim: usize, store: &TensorStore) -> Result<Rope, LoadErrorKind> {
    let kind_key = keys.key("rope.scaling.type");
    let kind = keys.metadata.str(&kind_key)?.unwrap_or("none");
    let linear = match kind {
        "linear" => keys.positive("rope.scaling.factor", Some(1.0))?,
        // The key's old name, which had no type beside it.
        "none" => keys.positive("rope.scale_linear", Some(1.0))?,
        other => {
            return Err(unsupported(
                format!("{kind_key} {other:?}"),
                "known are none and linear",
            ));
        }
    };
    let factors = match store.find("rope_freqs.weight") {
        None => None,
        Some(i) => Some(rope_factors(&store.tensors()[i], store.bytes(i), head_dim)?),
    };
    Ok(Rope {
        theta: keys.positive("rope.freq_base", Some(10_000.0))?,
        linear,
        factors,
    })
}

fn rope_factors(
    info: &TensorInfo,
    bytes: &[u8],
    head_dim: usize,
) -> Result<Vec<f32>, LoadErrorKind> {
    let expected = format!("{} float factors above 0", head_dim / 2);
    let Some(f) = info
        .dtype
        .as_float()
        .filter(|_| info.dims == [head_dim / 2])
    else {
        return Err(bad(
            format!("tensor {}", info.name),
            expected,
            format!("{} {}", info.shape(), info.dtype),
        ));
    };
    let mut out = vec![0f32; head_dim / 2];
    f.decode(bytes, &mut out);
    match out.iter().find(|v| !(v.is_finite() && **v > 0.0)) {
        Some(v) => Err(bad(format!("tensor {}", info.name), expected, v)),
        None => Ok(out),
    }
}

fn assemble(model: &mut Assembly, options: &OpenOptions) -> Result<(), LoadErrorKind> {
    let config = model.config().clone();
    model.embedding("token_embd.weight")?;
    if !config.tied {
        model.head("output.weight")?;
    }
    model.ignore("rope_freqs.weight");
    model.norm(Norm::Output, "output_norm.weight")?;
    for layer in 0..config.n_layers {
        for norm in [Norm::Attn(layer), Norm::Ffn(layer)] {
            model.norm(norm, &format!("{norm}.weight"))?;
        }
        if config.sub_norms {
            for norm in [Norm::AttnSub(layer), Norm::FfnSub(layer)] {
                model.norm(norm, &format!("{norm}.weight"))?;
            }
        }
        for projection in Projection::ALL {
            let id = TensorId { layer, projection };
            if config.input_norm_eps.is_some() {
                let norm = Norm::Input(id);
                model.norm(norm, &format!("{norm}.weight"))?;
            }
            linear(model, id, options)?;
        }
    }
    model.refuse_unused("it would change the result")
}

fn linear(model: &mut Assembly, id: TensorId, options: &OpenOptions) -> Result<(), LoadErrorKind> {
    let config = model.config();
    let (n, k) = config.linear_shape(id.projection);
    let interleaved = config.architecture == Architecture::Llama
        && matches!(id.projection, Projection::AttnQ | Projection::AttnK);
    let order = match interleaved {
        true => RowOrder::Interleaved {
            head_dim: config.head_dim,
        },
        false => RowOrder::Neutral,
    };
    let bitnet = config.architecture != Architecture::Llama;
    let name = format!("{id}.weight");
    let tensor = model.matrix(&name, n, k)?;
    let factor = model.scalar(&format!("{id}.scale"))?;
    let packing = match model.tensor(tensor).dtype {
        Dtype::Ternary(TernaryType::I2S) => {
            if !(n * k).is_multiple_of(128) {
                let hint = "the last block is cut off in such files, their weights are lost";
                return Err(bad(
                    format!("tensor {name} (I2_S)"),
                    format!("a multiple of 128 elements: {hint}"),
                    n * k,
                ));
            }
            Packing::I2S {
                block: options.i2s_block.codes(),
            }
        }
        Dtype::Ternary(t @ (TernaryType::TL1 | TernaryType::TL2)) => {
            tiled(&name, t, n, k, options)?
        }
        Dtype::Ternary(TernaryType::IQ2BNR4) if !n.is_multiple_of(4) => {
            return Err(bad(
                format!("tensor {name} (IQ2_BN_R4)"),
                "a multiple of 4 rows",
                n,
            ));
        }
        Dtype::Ternary(t) => Packing::Plain(t),
        Dtype::Float(_) if factor.is_some() => Packing::Floats(Ternarise::OneMagnitude),
        Dtype::Float(_) if options.absmean => Packing::Floats(Ternarise::Absmean),
        Dtype::Float(_) if bitnet => Packing::Floats(Ternarise::Detect),
        Dtype::Float(_) => {
            model.require_ternary_look(tensor, k)?;
            Packing::Floats(Ternarise::OneMagnitude)
        }
        Dtype::Other(t) => {
            return Err(unsupported(
                format!("type {t} of tensor {name}"),
                dtype::known_types(),
            ));
        }
    };
    model.linear(
        id,
        TernarySource {
            tensor,
            n,
            k,
            packing,
            factor: factor.unwrap_or(1.0),
            order,
        },
    );
    Ok(())
}

fn tiled(
    name: &str,
    kind: TernaryType,
    n: usize,
    k: usize,
    options: &OpenOptions,
) -> Result<Packing, LoadErrorKind> {
    let what = format!("{} tensor {name} ({n}x{k})", kind.name());
    let Some(tiles) = options.tiles.get(n, k) else {
        let known = options.tiles.shapes();
        return Err(unsupported(
            format!("{what} without its tile sizes, which the file does not hold"),
            format!(
                "give the kernel_config.ini it was converted with (--tl-config); shapes given: {known}"
            ),
        ));
    };
    tiles
        .check(kind, n, k)
        .map_err(|e| bad(&what, "tile sizes that fit", e))?;
    if kind == TernaryType::TL2 {
        let need: usize = super::ternary::tl2_sections(n, k, tiles).iter().sum();
        let reserve = dtype::tl2_scale_offset(n, k).unwrap_or(0);
        if need > reserve {
            return Err(bad(
                &what,
                format!("tile sizes that need at most {reserve} bytes"),
                format!("{tiles}: {need}"),
            ));
        }
    }
    Ok(Packing::Tiled(kind, tiles))
}

fn check_vocabulary(metadata: &Metadata, config: &ModelConfig) -> Result<(), LoadErrorKind> {
    match metadata.array_len("tokenizer.ggml.tokens") {
        Some(n) if n != config.vocab => Err(bad(
            "tokenizer.ggml.tokens",
            format!("{} tokens, as the embedding has rows", config.vocab),
            n,
        )),
        _ => Ok(()),
    }
}
