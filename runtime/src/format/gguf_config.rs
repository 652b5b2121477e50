//! A model's configuration as the keys of a GGUF file: read, and written.

use super::assemble::ConfigCheck;
use super::error::{LoadErrorKind, bad, unsupported};
use super::metadata::Metadata;
use super::store::{TensorInfo, TensorStore};
use super::write::GgufWriter;
use crate::graph::architectures::Family;
use crate::graph::{
    Acts, Architecture, Local, ModelConfig, Multipliers, Norm, Projection, Rope, TensorId, Weight,
    Yarn,
};

/// The tensor of [`Rope::factors`], whatever the architecture.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The same in files of two contexts: up to the one that the model was made for, and beyond.
pub(super) const SHORT_FACTORS: &str = "rope_factors_short.weight";
/// See [`SHORT_FACTORS`].
pub(super) const LONG_FACTORS: &str = "rope_factors_long.weight";

/// How finely inputs of ternary products are quantised, where it is not what the types of the tensors say.
pub(crate) const ACTS: &str = "bitnet_tune.acts";

/// `general.file_type` of files whose projections are I2_S.
const FILE_TYPE_I2S: usize = 40;

fn key(architecture: &Architecture, name: &str) -> String {
    format!("{architecture}.{name}")
}

/// Typed access to the keys of one architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'static Architecture,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        key(self.architecture, name)
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

/// The configuration that the keys state.
pub(super) fn read(
    metadata: &Metadata,
    architecture: &'static Architecture,
    store: &TensorStore,
) -> Result<ModelConfig, LoadErrorKind> {
    let keys = Keys {
        metadata,
        architecture,
    };
    let tensor = |weight| store.find(&format!("{}.weight", architecture.gguf(weight)));
    let hidden = keys.required("embedding_length")?;
    let n_heads = keys
        .heads("attention.head_count")?
        .ok_or_else(|| keys.missing("attention.head_count"))?;
    let vocab = match keys.count("vocab_size")? {
        Some(v) => v,
        None => match metadata.array_len("tokenizer.ggml.tokens") {
            Some(n) => n,
            None => tensor(Weight::Embedding).map_or(0, |i| store.tensors()[i].dims[0]),
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
    let first = TensorId {
        layer: 0,
        projection: Projection::AttnQ,
    };
    let input_norms = tensor(Weight::Norm(Norm::Input(first))).is_some();
    let mut config = ModelConfig {
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
        input_norm_eps: match input_norms {
            true => Some(keys.positive("attention.input_norm_rms_epsilon", Some(1e-6))?),
            false => None,
        },
        activation: architecture.activation,
        rope: rope(&keys, head_dim, store)?,
        local: local(&keys)?,
        multipliers: multipliers(&keys, hidden)?,
        tied: tensor(Weight::Head).is_none(),
        acts: Acts::I8,
        weight_only: false,
    };
    // Within the window of its local layers a model is computed as if there were none.
    let seen = config.local.map_or(config.context_len, |l| l.window);
    config.context_len = config.context_len.min(seen);
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

/// Layers with a window: files of Gemma3 that have any name its size.
fn local(keys: &Keys<'_>) -> Result<Option<Local>, LoadErrorKind> {
    let name = "attention.sliding_window";
    let window = keys.count(name)?.filter(|&window| window > 0);
    match (keys.architecture.family, window) {
        (_, None) => Ok(None),
        (Family::Gemma3, Some(window)) => Ok(Some(Local {
            window,
            every: 6,
            theta: keys.positive("rope.freq_base_swa", Some(10_000.0))?,
        })),
        (Family::Plain | Family::Mup, Some(window)) => Err(unsupported(
            format!("{} of {window}", keys.key(name)),
            "known are windows of gemma3",
        )),
    }
}

fn multipliers(keys: &Keys<'_>, hidden: usize) -> Result<Multipliers, LoadErrorKind> {
    Ok(match keys.architecture.family {
        Family::Plain => Multipliers::ONE,
        Family::Gemma3 => Multipliers {
            embedding: (hidden as f32).sqrt(),
            ..Multipliers::ONE
        },
        Family::Mup => Multipliers {
            embedding: keys.positive("embedding_scale", None)?,
            residual: keys.positive("residual_scale", None)?,
            // The logits are divided by it.
            logits: 1.0 / keys.positive("logit_scale", None)?,
        },
    })
}

/// The factors of the rotary embedding, if the file has any for contexts of `context_len`.
fn factors(
    keys: &Keys<'_>,
    head_dim: usize,
    store: &TensorStore,
) -> Result<Option<Vec<f32>>, LoadErrorKind> {
    let found = store.find(ROPE_FACTORS);
    let Some(index) = found.or_else(|| store.find(SHORT_FACTORS)) else {
        return Ok(None);
    };
    let whole = keys.required("context_length")?;
    let original = keys.count("rope.scaling.original_context_length")?;
    if found.is_none() && original.is_some_and(|original| original < whole) {
        return Err(unsupported(
            format!("{SHORT_FACTORS} in a file of longer contexts than they hold for"),
            "known are files whose context_length is original_context_length",
        ));
    }
    rope_factors(&store.tensors()[index], store.bytes(index), head_dim).map(Some)
}

fn rope(keys: &Keys<'_>, head_dim: usize, store: &TensorStore) -> Result<Rope, LoadErrorKind> {
    let kind_key = keys.key("rope.scaling.type");
    let kind = keys.metadata.str(&kind_key)?.unwrap_or("none");
    let mut yarn = None;
    let linear = match kind {
        "yarn" => {
            let factor = keys.positive("rope.scaling.factor", None)?;
            let original = keys.required("rope.scaling.original_context_length")?;
            let mut of_file = Yarn::new(factor, original as f32);
            let default = Some(of_file.attention);
            of_file.attention = keys.positive("rope.scaling.yarn_attn_factor", default)?;
            of_file.beta_fast = keys.positive("rope.scaling.yarn_beta_fast", Some(32.0))?;
            of_file.beta_slow = keys.positive("rope.scaling.yarn_beta_slow", Some(1.0))?;
            yarn = Some(of_file);
            1.0
        }
        "linear" => keys.positive("rope.scaling.factor", Some(1.0))?,
        // The key's old name, which had no type beside it.
        "none" | "longrope" => keys.positive("rope.scale_linear", Some(1.0))?,
        other => {
            return Err(unsupported(
                format!("{kind_key} {other:?}"),
                "known are none, linear, yarn and longrope",
            ));
        }
    };
    let factors = factors(keys, head_dim, store)?;
    if kind == "longrope" && factors.is_none() {
        return Err(LoadErrorKind::Missing {
            field: format!("tensor {SHORT_FACTORS}"),
            hint: format!("{kind_key} {kind:?} is by factors; convert the file again"),
        });
    }
    Ok(Rope {
        theta: keys.positive("rope.freq_base", Some(10_000.0))?,
        linear,
        factors,
        yarn,
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

/// Writes the keys that [`read`] reads.
pub(crate) fn write(w: &mut GgufWriter, c: &ModelConfig) {
    let key = |name: &str| key(c.architecture, name);
    w.str("general.architecture", c.architecture.name);
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
    if c.architecture.family == Family::Mup {
        w.f32(&key("embedding_scale"), c.multipliers.embedding);
        w.f32(&key("residual_scale"), c.multipliers.residual);
        w.f32(&key("logit_scale"), 1.0 / c.multipliers.logits);
    }
    if let Some(local) = c.local {
        w.u32(&key("attention.sliding_window"), local.window);
        w.f32(&key("rope.freq_base_swa"), local.theta);
    }
    if let Some(yarn) = c.rope.yarn {
        w.str(&key("rope.scaling.type"), "yarn");
        w.f32(&key("rope.scaling.factor"), yarn.factor);
        let original = yarn.original as usize;
        w.u32(&key("rope.scaling.original_context_length"), original);
        w.f32(&key("rope.scaling.yarn_attn_factor"), yarn.attention);
        w.f32(&key("rope.scaling.yarn_beta_fast"), yarn.beta_fast);
        w.f32(&key("rope.scaling.yarn_beta_slow"), yarn.beta_slow);
    }
    if c.rope.linear != 1.0 {
        w.str(&key("rope.scaling.type"), "linear");
        w.f32(&key("rope.scaling.factor"), c.rope.linear);
    }
}

/// Writes what tells other programs that projections are I2_S.
pub(crate) fn write_file_type(w: &mut GgufWriter) {
    w.u32("general.file_type", FILE_TYPE_I2S);
}
