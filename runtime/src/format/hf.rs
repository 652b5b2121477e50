//! What the tensor names of a Hugging Face folder mean, and which way scales apply.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::assemble::Assembly;
use super::dtype::{self, Dtype, TernaryType};
use super::error::{LoadErrorKind, bad, unsupported};
use super::hf_config::{Config, Weights};
use super::source::Source;
use super::ternary::{Packing, RowOrder, Ternarise, TernarySource};
use super::{OpenOptions, safetensors};
use crate::format::Model;
use crate::format::model::TokenizerHome;
use crate::graph::{Architecture, Norm, Projection, TensorId};

/// Reads a JSON file of the folder; `None` when it is not there.
pub(super) fn read_json<T: DeserializeOwned>(
    folder: &Path,
    name: &str,
) -> Result<Option<T>, LoadErrorKind> {
    let path = folder.join(name);
    let in_file = |kind| LoadErrorKind::InFile {
        file: name.into(),
        kind: Box::new(kind),
    };
    let io = |reason| {
        in_file(LoadErrorKind::Io {
            action: "read",
            reason,
        })
    };
    match std::fs::metadata(&path) {
        Ok(meta) if meta.is_file() => {}
        // Reading a pipe would wait for a writer.
        Ok(_) => {
            return Err(in_file(unsupported(
                "input that is not a regular file",
                "expected a JSON file",
            )));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(reason) => return Err(io(reason)),
    }
    let text = std::fs::read(path).map_err(io)?;
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|reason| LoadErrorKind::Json {
            file: name.into(),
            reason,
        })
}

/// Whether the format takes this source.
pub(super) fn detect(source: &Source) -> bool {
    match source {
        Source::Folder { .. } => true,
        Source::File { .. } => safetensors::detect(source.magic()),
    }
}

/// Opens a folder, or one `.safetensors` file beside its `config.json`.
pub(super) fn open(source: Source, options: &OpenOptions) -> Result<Model, LoadErrorKind> {
    let (folder, path) = match &source {
        Source::Folder { path } => (path.clone(), path.display().to_string()),
        Source::File {
            on_disk: Some(file),
            path,
            ..
        } => (
            file.parent().map_or_else(PathBuf::new, Path::to_path_buf),
            path.clone(),
        ),
        Source::File { on_disk: None, .. } => {
            return Err(unsupported(
                "safetensors bytes without a folder",
                "they need a config.json beside them",
            ));
        }
    };
    let Some(config) = read_json::<Config>(&folder, "config.json")? else {
        return Err(no_config(&folder));
    };
    let store = match source {
        Source::Folder { .. } => safetensors::folder(&folder)?,
        Source::File { bytes, path, .. } => safetensors::one_file(bytes, &path)?,
    };
    let weights = config.weights()?;
    let model_config = config.model(&store, &folder)?;
    let absmean = config.class()? == Architecture::Bitnet && weights == Weights::Unsaid;
    let mut model = Assembly::new(model_config, store, path, "safetensors");
    let options = OpenOptions {
        absmean: options.absmean || absmean,
        ..options.clone()
    };
    assemble(&mut model, weights, &options)?;
    model.finish(TokenizerHome::Folder(folder))
}

fn no_config(folder: &Path) -> LoadErrorKind {
    let names = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name());
    let gguf = names
        .filter_map(|n| n.into_string().ok())
        .find(|n| n.ends_with(".gguf"));
    let hint = match gguf {
        Some(file) => format!(
            "a folder is read as a Hugging Face model; for the GGUF file in it give {}",
            folder.join(file).display()
        ),
        None => "a folder is read as a Hugging Face model, which has one beside its *.safetensors"
            .into(),
    };
    LoadErrorKind::Missing {
        field: "config.json".into(),
        hint,
    }
}

fn assemble(
    model: &mut Assembly,
    weights: Weights,
    options: &OpenOptions,
) -> Result<(), LoadErrorKind> {
    let config = model.config().clone();
    model.embedding("model.embed_tokens.weight")?;
    if config.tied {
        model.ignore("lm_head.weight");
    } else {
        model.head("lm_head.weight")?;
    }
    model.norm(Norm::Output, "model.norm.weight")?;
    for layer in 0..config.n_layers {
        let block = format!("model.layers.{layer}");
        model.ignore(&format!("{block}.self_attn.rotary_emb.inv_freq"));
        model.norm(
            Norm::Attn(layer),
            &format!("{block}.input_layernorm.weight"),
        )?;
        model.norm(
            Norm::Ffn(layer),
            &format!("{block}.post_attention_layernorm.weight"),
        )?;
        if config.sub_norms {
            // The second name is 1bitLLM's.
            for (norm, names) in [
                (
                    Norm::AttnSub(layer),
                    ["self_attn.attn_sub_norm", "self_attn.inner_attn_ln"],
                ),
                (
                    Norm::FfnSub(layer),
                    ["mlp.ffn_sub_norm", "mlp.ffn_layernorm"],
                ),
            ] {
                let names = names.map(|n| format!("{block}.{n}.weight"));
                let name = names.iter().find(|n| model.has(n)).unwrap_or(&names[0]);
                model.norm(norm, name)?;
            }
        }
        for projection in Projection::ALL {
            let id = TensorId { layer, projection };
            let name = format!("{block}.{}", module(projection));
            if config.input_norm_eps.is_some() {
                model.norm(Norm::Input(id), &format!("{name}.rms_norm.weight"))?;
            }
            linear(model, id, &name, weights, options)?;
        }
    }
    model.refuse_unused("it would change the result")
}

pub(super) fn module(projection: Projection) -> &'static str {
    match projection {
        Projection::AttnQ => "self_attn.q_proj",
        Projection::AttnK => "self_attn.k_proj",
        Projection::AttnV => "self_attn.v_proj",
        Projection::AttnOut => "self_attn.o_proj",
        Projection::FfnGate => "mlp.gate_proj",
        Projection::FfnUp => "mlp.up_proj",
        Projection::FfnDown => "mlp.down_proj",
    }
}

fn linear(
    model: &mut Assembly,
    id: TensorId,
    module: &str,
    weights: Weights,
    options: &OpenOptions,
) -> Result<(), LoadErrorKind> {
    let (n, k) = model.config().linear_shape(id.projection);
    let name = format!("{module}.weight");
    let scale_name = format!("{module}.weight_scale");
    let packed = model.dtype_of(&name) == Some(Dtype::Ternary(TernaryType::HfPacked));
    // Four rows share a byte.
    let tensor = model.matrix(&name, if packed { n.div_ceil(4) } else { n }, k)?;
    let scale = model.scalar(&scale_name)?;
    let bitnet = model.config().architecture != Architecture::Llama;
    let packing = match model.tensor(tensor).dtype {
        Dtype::Ternary(t) => Packing::Plain(t),
        Dtype::Float(_) if scale.is_some() => Packing::Floats(Ternarise::OneMagnitude),
        Dtype::Float(_) if options.absmean || weights == Weights::Master => {
            Packing::Floats(Ternarise::Absmean)
        }
        Dtype::Float(_) if bitnet && weights == Weights::Unsaid => {
            Packing::Floats(Ternarise::Detect)
        }
        Dtype::Float(_) => {
            model.require_ternary_look(tensor, k)?;
            Packing::Floats(Ternarise::OneMagnitude)
        }
        Dtype::Other(t) => {
            return Err(unsupported(
                format!("type {t} of tensor {name}"),
                dtype::known_hf_types(),
            ));
        }
    };
    let factor = match (scale, weights) {
        (Some(s), Weights::Multiply) => s,
        (Some(s), Weights::Divide) => 1.0 / s,
        (Some(_), _) => {
            let known = "without it nothing tells whether weight_scale multiplies or divides";
            return Err(unsupported(
                format!("{scale_name} without an offline quantization_config in config.json"),
                known,
            ));
        }
        (None, _) if packed => {
            let hint = "packed weights have one; fetch or convert the folder again".into();
            return Err(LoadErrorKind::Missing {
                field: format!("tensor {scale_name}"),
                hint,
            });
        }
        (None, _) => 1.0,
    };
    if !(factor.is_finite() && factor > 0.0) {
        return Err(bad(
            format!("tensor {scale_name}"),
            "a scale whose inverse is finite",
            factor,
        ));
    }
    model.linear(
        id,
        TernarySource {
            tensor,
            n,
            k,
            packing,
            factor,
            order: RowOrder::Neutral,
        },
    );
    Ok(())
}
