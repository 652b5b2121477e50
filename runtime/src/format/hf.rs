//! What the tensor names of a Hugging Face folder mean, and which way scales apply.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::assemble::Assembly;
use super::dtype::{Dtype, TernaryType};
use super::error::{LoadErrorKind, bad, unsupported};
use super::float::FloatType;
use super::hf_config::{Config, Weights};
use super::hf_modules::KeptModules;
use super::projection::{Floats, Stored};
use super::source::Source;
use super::store::TensorStore;
use super::ternary::RowOrder;
use super::{OpenOptions, safetensors};
use crate::format::Model;
use crate::format::model::TokenizerHome;
use crate::graph::{Acts, ModelConfig, Norm, Weight};

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
    let mut model_config = config.model(&store, &folder)?;
    let tie = tie(&store, &model_config);
    model_config.tied = matches!(tie, Tie::Embedding | Tie::Head);
    let class = config.class()?;
    let kept = match weights {
        Weights::Unsaid => None,
        _ => Some(config.kept(class)?),
    };
    let mut model = Assembly::new(model_config, store, path, "safetensors");
    if tie == Tie::Differ {
        model.note(
            "config.json ties the head to the embedding, but the files have two different tables: each is used as it is",
        );
    }
    let how = Reading {
        weights,
        quantises: class.hf_quantises && weights == Weights::Unsaid,
        kept,
        tie,
    };
    how.assemble(&mut model, options)?;
    model.set_acts((weights != Weights::Unsaid).then_some(Acts::I8), options);
    model.finish(TokenizerHome::Folder(folder))
}

/// Whether embedding and head are one table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tie {
    /// They are not meant to be.
    No,
    /// The embedding's.
    Embedding,
    /// The head's: there is no other in the files.
    Head,
    /// They are meant to be, but the files hold two tables that differ.
    Differ,
}

/// As transformers does: what `config.json` asks for holds where the files do not contradict it.
fn tie(store: &TensorStore, config: &ModelConfig) -> Tie {
    let find = |weight| {
        let mut names = config.architecture.hf(weight);
        names.find_map(|name| store.find(&format!("{name}.weight")))
    };
    match (config.tied, find(Weight::Embedding), find(Weight::Head)) {
        (false, ..) => Tie::No,
        (true, Some(a), Some(b)) if !same_table(store, a, b) => Tie::Differ,
        (true, None, Some(_)) => Tie::Head,
        (true, ..) => Tie::Embedding,
    }
}

/// Whether two tensors hold the same values.
fn same_table(store: &TensorStore, a: usize, b: usize) -> bool {
    let [x, y] = [a, b].map(|i| &store.tensors()[i]);
    if x.dims != y.dims {
        return false;
    }
    if x.dtype == y.dtype && store.bytes(a) == store.bytes(b) {
        return true;
    }
    let (Dtype::Float(f), Dtype::Float(g), [_, cols]) = (x.dtype, y.dtype, &x.dims[..]) else {
        return false;
    };
    let (mut p, mut q) = (vec![0f32; *cols], vec![0f32; *cols]);
    let rows = |i, t: FloatType| store.bytes(i).chunks_exact(t.row_bytes(*cols).max(1));
    rows(a, f).zip(rows(b, g)).all(|(r, s)| {
        f.decode(r, &mut p);
        g.decode(s, &mut q);
        p == q
    })
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

/// How the tensors of a folder are read.
struct Reading {
    weights: Weights,
    /// Whether the class quantises by itself.
    quantises: bool,
    /// What stays float in a folder that is quantised.
    kept: Option<KeptModules>,
    tie: Tie,
}

impl Reading {
    fn assemble(&self, model: &mut Assembly, options: &OpenOptions) -> Result<(), LoadErrorKind> {
        let config = model.config().clone();
        let architecture = config.architecture;
        let module = |weight| architecture.hf(weight).next().unwrap_or_default();
        let mut kept = HashSet::new();
        for weight in config.weights() {
            if let (Weight::Projection(id), Some(list)) = (weight, &self.kept)
                && list.keeps(&module(weight))?
            {
                kept.insert(id);
            }
        }
        let head = match &self.kept {
            Some(list) => !list.keeps(&module(Weight::Head))?,
            None => false,
        };
        if config.tied {
            let names = architecture.hf(Weight::Head);
            names.for_each(|name| model.ignore(&format!("{name}.weight")));
        }
        for layer in 0..config.n_layers {
            model.ignore(&format!(
                "model.layers.{layer}.self_attn.rotary_emb.inv_freq"
            ));
        }
        let names = |weight| {
            let names: Vec<String> = match weight {
                Weight::Embedding if self.tie == Tie::Head => {
                    architecture.hf(Weight::Head).collect()
                }
                Weight::Head if head => Vec::new(),
                // What is kept in float has no norm of its own.
                Weight::Norm(Norm::Input(id)) if kept.contains(&id) => Vec::new(),
                weight => architecture.hf(weight).collect(),
            };
            names.into_iter()
        };
        model.take_all(names, |model, id, name| {
            let floats = match kept.contains(&id) {
                true => Floats::Kept,
                false => self.floats(),
            };
            let scale = match floats {
                Floats::Kept => None,
                _ => scale(model, name, self.weights)?,
            };
            let stored = Stored {
                name,
                scale,
                order: RowOrder::Neutral,
                floats,
            };
            stored.source(model, config.linear_shape(id.projection), options)
        })?;
        if head {
            self.ternary_head(model, options)?;
        }
        model.refuse_unused("it would change the result")
    }

    fn floats(&self) -> Floats {
        match self.weights == Weights::Master || self.quantises {
            true => Floats::Masters,
            false => Floats::Trits,
        }
    }

    /// A head that `modules_to_not_convert` leaves out is quantised like the projections.
    fn ternary_head(
        &self,
        model: &mut Assembly,
        options: &OpenOptions,
    ) -> Result<(), LoadErrorKind> {
        let config = model.config().clone();
        let what = "a head that modules_to_not_convert in config.json leaves to be quantised";
        if config.input_norm_eps.is_some() {
            return Err(unsupported(
                format!("{what}, with use_rms_norm"),
                "name lm_head there",
            ));
        }
        let table = match self.tie {
            Tie::Embedding => Weight::Embedding,
            Tie::No | Tie::Head | Tie::Differ => Weight::Head,
        };
        if config.tied && self.weights != Weights::Master {
            return Err(unsupported(
                format!("{what} and is tied to the embedding"),
                "name lm_head there",
            ));
        }
        let mut names = config.architecture.hf(table);
        let name = names.next().unwrap_or_default();
        let stored = Stored {
            name: &name,
            scale: scale(model, &name, self.weights)?,
            order: RowOrder::Neutral,
            floats: self.floats(),
        };
        let source = stored.source(model, (config.vocab, config.hidden), options)?;
        model.set_ternary_head(source);
        Ok(())
    }
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
