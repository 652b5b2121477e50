//! What GGUF keys and tensor names mean: from a parsed container to a validated [`Model`].

use std::sync::Arc;

use super::assemble::Assembly;
use super::error::{LoadErrorKind, bad, unsupported};
use super::gguf::{self, Gguf};
use super::gguf_config::{self, LONG_FACTORS, ROPE_FACTORS, SHORT_FACTORS};
use super::map::Blob;
use super::metadata::Metadata;
use super::projection::{Floats, Stored};
use super::store::TensorStore;
use super::ternary::RowOrder;
use super::{OpenOptions, source};
use crate::format::Model;
use crate::format::model::TokenizerHome;
use crate::graph::{ARCHITECTURES, Acts, Architecture, ModelConfig};

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
    let config = gguf_config::read(&metadata, architecture, &store)?;
    let window = config.local.map(|l| l.window);
    let mut names = Assembly::new(config, store, path, "GGUF");
    if let Some(window) = window {
        names.note(format!(
            "some layers see {window} positions only: longer contexts are not computed here"
        ));
    }
    assemble(&mut names, options)?;
    let acts = match metadata.str(gguf_config::ACTS)? {
        Some(name) => Some(Acts::of(name).ok_or_else(|| {
            let known = Acts::ALL.map(Acts::name).join(" ");
            unsupported(
                format!("{} {name:?}", gguf_config::ACTS),
                format!("known are {known}"),
            )
        })?),
        None => None,
    };
    names.set_acts(acts, options);
    check_vocabulary(&metadata, names.config())?;
    names.finish(TokenizerHome::Gguf(metadata))
}

fn architecture(metadata: &Metadata) -> Result<&'static Architecture, LoadErrorKind> {
    let key = "general.architecture";
    let name = metadata.str(key)?.ok_or_else(|| LoadErrorKind::Missing {
        field: format!("key {key}"),
        hint: "it names the graph; convert the file again".into(),
    })?;
    Architecture::of_gguf(name).ok_or_else(|| {
        let known: Vec<_> = ARCHITECTURES.iter().map(|a| a.name).collect();
        let known = known.join(" ");
        let known = match name {
            "qwen35" | "qwen3next" => format!(
                "its gated delta net layers, a recurrence instead of attention, are missing; known are {known}"
            ),
            "maple" => format!("its layers are not known here; known are {known}"),
            _ => format!("known are {known}"),
        };
        unsupported(format!("architecture {name:?}"), known)
    })
}

fn assemble(model: &mut Assembly, options: &OpenOptions) -> Result<(), LoadErrorKind> {
    let config = model.config().clone();
    for factors in [ROPE_FACTORS, SHORT_FACTORS, LONG_FACTORS] {
        model.ignore(factors);
    }
    let names = |weight| [config.architecture.gguf(weight)].into_iter();
    model.take_all(names, |model, id, name| {
        let stored = Stored {
            name,
            scale: model.scalar(&format!("{name}.scale"))?,
            order: RowOrder::of_gguf(&config, id.projection),
            floats: Floats::Trits,
        };
        stored.source(model, config.linear_shape(id.projection), options)
    })?;
    model.refuse_unused("it would change the result")
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
