//! What the tensor names of a Hugging Face folder mean, and which way scales apply.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::assemble::Assembly;
use super::dtype::{Dtype, TernaryType};
use super::error::{LoadErrorKind, bad, unsupported};
use super::hf_config::{Config, Weights};
use super::projection::Stored;
use super::source::Source;
use super::ternary::RowOrder;
use super::{OpenOptions, safetensors};
use crate::format::Model;
use crate::format::model::TokenizerHome;
use crate::graph::Weight;

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
    let quantises = config.class()?.hf_quantises && weights == Weights::Unsaid;
    let mut model = Assembly::new(model_config, store, path, "safetensors");
    assemble(&mut model, weights, quantises, options)?;
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
    quantises: bool,
    options: &OpenOptions,
) -> Result<(), LoadErrorKind> {
    let config = model.config().clone();
    if config.tied {
        let head = config.architecture.hf(Weight::Head);
        head.for_each(|name| model.ignore(&format!("{name}.weight")));
    }
    for layer in 0..config.n_layers {
        model.ignore(&format!(
            "model.layers.{layer}.self_attn.rotary_emb.inv_freq"
        ));
    }
    let names = |weight| config.architecture.hf(weight);
    model.take_all(names, |model, id, name| {
        let stored = Stored {
            name,
            scale: scale(model, name, weights)?,
            order: RowOrder::Neutral,
            masters: weights == Weights::Master || quantises,
            either: config.sub_norms() && weights == Weights::Unsaid,
        };
        stored.source(model, id, options)
    })?;
    model.refuse_unused("it would change the result")
}

/// The multiplier of a projection, from a tensor beside it that multiplies or divides.
fn scale(
    model: &mut Assembly,
    module: &str,
    weights: Weights,
) -> Result<Option<f32>, LoadErrorKind> {
    let name = format!("{module}.weight_scale");
    let stored = model.dtype_of(&format!("{module}.weight"));
    let packed = stored == Some(Dtype::Ternary(TernaryType::HfPacked));
    let Some(stored) = model.scalar(&name)? else {
        if packed {
            return Err(LoadErrorKind::Missing {
                field: format!("tensor {name}"),
                hint: "packed weights have one; fetch or convert the folder again".into(),
            });
        }
        return Ok(None);
    };
    let factor = match weights {
        Weights::Multiply => stored,
        Weights::Divide => 1.0 / stored,
        Weights::Master | Weights::Unsaid => {
            return Err(unsupported(
                format!("{name} without an offline quantization_config in config.json"),
                "without it nothing tells whether weight_scale multiplies or divides",
            ));
        }
    };
    if factor.is_finite() && factor > 0.0 {
        return Ok(Some(factor));
    }
    let field = format!("tensor {name}");
    Err(bad(field, "a scale whose inverse is finite", factor))
}
