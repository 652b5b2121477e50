//! `config.json` of a Hugging Face folder: the fields that are used, and what they say.

use std::path::Path;

use serde::Deserialize;

use super::assemble::ConfigCheck;
use super::error::{LoadErrorKind, bad, unsupported};
use super::hf_modules::KeptModules;
use super::store::TensorStore;
use crate::graph::architectures::Family;
use crate::graph::{
    ARCHITECTURES, Activation, Acts, Architecture, ModelConfig, Multipliers, Rope, Weight, Yarn,
};

/// The fields of `config.json` that are used. Others are skipped without being kept.
#[derive(Deserialize)]
pub(super) struct Config {
    architectures: Option<Vec<String>>,
    model_type: Option<String>,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: Option<usize>,
    rope_theta: Option<f32>,
    rope_scaling: Option<RopeScaling>,
    rope_parameters: Option<RopeScaling>,
    rms_norm_eps: Option<f32>,
    hidden_act: Option<String>,
    tie_word_embeddings: Option<bool>,
    quantization_config: Option<Quantization>,
    /// Old files carry the fields of `quantization_config` at the top.
    quant_method: Option<String>,
    linear_class: Option<String>,
    quantization_mode: Option<String>,
    use_rms_norm: Option<bool>,
    scale_emb: Option<f32>,
    scale_depth: Option<f32>,
    dim_model_base: Option<f32>,
}

#[derive(Deserialize, Default)]
struct RopeScaling {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f32>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<f32>,
    beta_fast: Option<f32>,
    beta_slow: Option<f32>,
    attention_factor: Option<f32>,
    mscale: Option<f32>,
    mscale_all_dim: Option<f32>,
    truncate: Option<bool>,
    short_factor: Option<Vec<f32>>,
}

#[derive(Deserialize, Default, Clone)]
struct Quantization {
    quant_method: Option<String>,
    linear_class: Option<String>,
    quantization_mode: Option<String>,
    use_rms_norm: Option<bool>,
    rms_norm_eps: Option<f32>,
    modules_to_not_convert: Option<Vec<String>>,
}

/// How projections are stored, after `quantization_config`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Weights {
    /// Packed codes; the scale divides.
    Divide,
    /// Packed codes; the scale multiplies.
    Multiply,
    /// Master weights, quantised by absmean.
    Master,
    /// No word about it.
    Unsaid,
}

impl Config {
    /// The graph by the name of the class, before the activation is looked at.
    pub(super) fn class(&self) -> Result<&'static Architecture, LoadErrorKind> {
        let name = self.architectures.iter().flatten().next();
        let (name, kind) = (name.map(String::as_str), self.model_type.as_deref());
        Architecture::of_hf(name, kind).ok_or_else(|| {
            let got = name.or(kind).unwrap_or("(none)");
            let known: Vec<_> = ARCHITECTURES.iter().filter_map(|a| a.hf_class).collect();
            unsupported(
                format!("architecture {got:?} in config.json"),
                format!("known are {}", known.join(" ")),
            )
        })
    }

    fn architecture(&self) -> Result<&'static Architecture, LoadErrorKind> {
        let class = self.class()?;
        let activation = match self.hidden_act.as_deref() {
            None => class.activation,
            Some("relu2") => Activation::Relu2,
            Some("silu" | "swish") => Activation::Silu,
            Some(other) => {
                return Err(unsupported(
                    format!("hidden_act {other:?} in config.json"),
                    "known are relu2 and silu",
                ));
            }
        };
        class.with_activation(activation).ok_or_else(|| {
            unsupported(
                format!("hidden_act of {activation} in a {class} config.json"),
                format!("known is {}", class.activation),
            )
        })
    }

    fn quantization(&self) -> Quantization {
        let inner = self.quantization_config.clone().unwrap_or_default();
        Quantization {
            quant_method: inner.quant_method.or(self.quant_method.clone()),
            linear_class: inner.linear_class.or(self.linear_class.clone()),
            quantization_mode: inner.quantization_mode.or(self.quantization_mode.clone()),
            use_rms_norm: inner.use_rms_norm.or(self.use_rms_norm),
            modules_to_not_convert: inner.modules_to_not_convert,
            // At the top of the file this name is the model's own epsilon.
            rms_norm_eps: inner.rms_norm_eps,
        }
    }

    pub(super) fn weights(&self) -> Result<Weights, LoadErrorKind> {
        let q = self.quantization();
        let said =
            q.quant_method.is_some() || q.linear_class.is_some() || q.quantization_mode.is_some();
        if !said {
            return Ok(Weights::Unsaid);
        }
        if let Some(method) = q.quant_method.as_deref().filter(|m| *m != "bitnet") {
            return Err(unsupported(
                format!("quant_method {method:?} in config.json"),
                "known is bitnet",
            ));
        }
        let class = q.linear_class.as_deref().unwrap_or("bitlinear");
        match (class, q.quantization_mode.as_deref().unwrap_or("offline")) {
            ("bitlinear", "offline") => Ok(Weights::Divide),
            ("autobitlinear", "offline") => Ok(Weights::Multiply),
            ("autobitlinear", "online") => Ok(Weights::Master),
            (class, mode) => Err(unsupported(
                format!("linear_class {class:?} with quantization_mode {mode:?} in config.json"),
                "known are bitlinear offline, autobitlinear offline and autobitlinear online",
            )),
        }
    }

    /// The modules that stay float though others are quantised.
    pub(super) fn kept(&self, architecture: &Architecture) -> Result<KeptModules, LoadErrorKind> {
        let list = self.quantization().modules_to_not_convert;
        KeptModules::new(list.as_deref(), architecture.hf(Weight::Head))
    }

    pub(super) fn model(
        &self,
        store: &TensorStore,
        folder: &Path,
    ) -> Result<ModelConfig, LoadErrorKind> {
        let architecture = self.architecture()?;
        let heads = self.num_attention_heads;
        let head_dim = match self.head_dim {
            Some(d) => d,
            None if heads > 0 && self.hidden_size.is_multiple_of(heads) => self.hidden_size / heads,
            None => {
                let got = format!("{} and {heads}", self.hidden_size);
                return Err(bad(
                    "hidden_size and num_attention_heads in config.json",
                    "the first a multiple of the second",
                    got,
                ));
            }
        };
        let defaults = architecture.hf_defaults;
        let norm_eps = self.rms_norm_eps.unwrap_or(defaults.norm_eps);
        let q = self.quantization();
        let input_norms = q.use_rms_norm.unwrap_or(false);
        let name = folder
            .file_name()
            .map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let config = ModelConfig {
            architecture,
            name,
            n_layers: self.num_hidden_layers,
            hidden: self.hidden_size,
            n_heads: heads,
            n_kv_heads: self.num_key_value_heads.unwrap_or(heads),
            head_dim,
            ffn: self.intermediate_size,
            vocab: self.vocab_size,
            context_len: self.max_position_embeddings.unwrap_or(2048),
            norm_eps: positive("rms_norm_eps", norm_eps)?,
            input_norm_eps: match input_norms {
                true => Some(positive(
                    "quantization_config.rms_norm_eps",
                    q.rms_norm_eps.unwrap_or(1e-6),
                )?),
                false => None,
            },
            activation: architecture.activation,
            rope: self.rope(head_dim, defaults.rope_theta)?,
            local: None,
            multipliers: self.multipliers(architecture)?,
            tied: self.tie_word_embeddings.unwrap_or_else(|| {
                !architecture
                    .hf(Weight::Head)
                    .any(|n| store.find(&format!("{n}.weight")).is_some())
            }),
            acts: Acts::I8,
            weight_only: false,
        };
        config.check(store.tensors().len())?;
        Ok(config)
    }

    fn multipliers(&self, architecture: &Architecture) -> Result<Multipliers, LoadErrorKind> {
        if architecture.family != Family::Mup {
            return Ok(Multipliers::ONE);
        }
        let of = |name: &str, v: Option<f32>| positive(name, v.unwrap_or(1.0)).map(f64::from);
        let depth = of("scale_depth", self.scale_depth)?;
        let base = of("dim_model_base", self.dim_model_base)?;
        Ok(Multipliers {
            embedding: of("scale_emb", self.scale_emb)? as f32,
            residual: (depth / (self.num_hidden_layers as f64).sqrt()) as f32,
            logits: (base / self.hidden_size as f64) as f32,
        })
    }

    /// The factors of contexts up to the one the model was made for; longer ones have others, and a multiplier.
    fn short_factors(&self, s: &RopeScaling, head_dim: usize) -> Result<Vec<f32>, LoadErrorKind> {
        let whole = self.max_position_embeddings.unwrap_or(2048) as f32;
        if s.original_max_position_embeddings
            .is_some_and(|original| original < whole)
        {
            return Err(unsupported(
                "rope_scaling longrope with max_position_embeddings above original_max_position_embeddings in config.json",
                "known are its short factors, which hold up to the original positions",
            ));
        }
        let factors = s.short_factor.clone().unwrap_or_default();
        let fits =
            factors.len() == head_dim / 2 && factors.iter().all(|f| f.is_finite() && *f > 0.0);
        match fits {
            true => Ok(factors),
            false => Err(bad(
                "rope_scaling.short_factor in config.json",
                format!("{} numbers above 0", head_dim / 2),
                format!("{} numbers", factors.len()),
            )),
        }
    }

    fn rope(&self, head_dim: usize, default_theta: f32) -> Result<Rope, LoadErrorKind> {
        let empty = RopeScaling::default();
        let s = self
            .rope_scaling
            .as_ref()
            .or(self.rope_parameters.as_ref())
            .unwrap_or(&empty);
        let in_parameters = self.rope_parameters.as_ref().and_then(|p| p.rope_theta);
        let theta = positive(
            "rope_theta",
            self.rope_theta.or(in_parameters).unwrap_or(default_theta),
        )?;
        let factor = || positive("rope_scaling.factor", s.factor.unwrap_or(f32::NAN));
        let mut yarn = None;
        let (linear, factors) = match s.rope_type.as_deref().unwrap_or("default") {
            "default" | "none" => (1.0, None),
            "linear" => (factor()?, None),
            // Begins behind the last position, max_position_embeddings, and none is computed there.
            "dynamic" => (1.0, None),
            "yarn" => {
                yarn = Some(self.yarn(s, factor()?)?);
                (1.0, None)
            }
            "longrope" => (1.0, Some(self.short_factors(s, head_dim)?)),
            "llama3" => (1.0, Some(llama3_factors(s, theta, factor()?, head_dim)?)),
            other => {
                let what = format!("rope_scaling type {other:?} in config.json");
                return Err(unsupported(
                    what,
                    "known are default, linear, dynamic, yarn, longrope and llama3",
                ));
            }
        };
        Ok(Rope {
            theta,
            linear,
            factors,
            yarn,
        })
    }

    fn yarn(&self, s: &RopeScaling, factor: f32) -> Result<Yarn, LoadErrorKind> {
        let unknown = s.mscale.is_some() || s.mscale_all_dim.is_some() || s.truncate == Some(false);
        if unknown {
            return Err(unsupported(
                "rope_scaling yarn with mscale or without truncate in config.json",
                "known are factor, original_max_position_embeddings, attention_factor and betas",
            ));
        }
        let whole = self.max_position_embeddings.unwrap_or(2048) as f32;
        let original = s.original_max_position_embeddings.unwrap_or(whole);
        let usual = Yarn::new(
            factor,
            positive("original_max_position_embeddings", original)?,
        );
        let or = |name: &str, v: Option<f32>, usual: f32| positive(name, v.unwrap_or(usual));
        Ok(Yarn {
            beta_fast: or("rope_scaling.beta_fast", s.beta_fast, usual.beta_fast)?,
            beta_slow: or("rope_scaling.beta_slow", s.beta_slow, usual.beta_slow)?,
            attention: or(
                "rope_scaling.attention_factor",
                s.attention_factor,
                usual.attention,
            )?,
            ..usual
        })
    }
}

fn positive(field: &str, value: f32) -> Result<f32, LoadErrorKind> {
    let ok = value.is_finite() && value > 0.0;
    if ok {
        Ok(value)
    } else {
        Err(bad(
            format!("{field} in config.json"),
            "a finite number above 0",
            value,
        ))
    }
}

/// Llama 3.1: long wavelengths are stretched by `factor`, short ones not, those between smoothly.
fn llama3_factors(
    s: &RopeScaling,
    theta: f32,
    factor: f32,
    head_dim: usize,
) -> Result<Vec<f32>, LoadErrorKind> {
    let get = |name: &str, v: Option<f32>| {
        positive(&format!("rope_scaling.{name}"), v.unwrap_or(f32::NAN))
    };
    let low = get("low_freq_factor", s.low_freq_factor)?;
    let high = get("high_freq_factor", s.high_freq_factor)?;
    let old = get(
        "original_max_position_embeddings",
        s.original_max_position_embeddings,
    )?;
    let one = |i: usize| {
        let frequency = (theta as f64).powf(-2.0 * i as f64 / head_dim as f64) as f32;
        let turns = old * frequency / std::f32::consts::TAU;
        match turns {
            t if t > high => 1.0,
            t if t < low => factor,
            t => {
                let smooth = (t - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        }
    };
    Ok((0..head_dim / 2).map(one).collect())
}
