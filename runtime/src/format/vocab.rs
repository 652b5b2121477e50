//! Tokenizer keys of GGUF files: read into, and written from, the plain [`GgufVocab`].

use super::error::{LoadErrorKind, bad};
use super::metadata::Metadata;
use super::write::GgufWriter;
use crate::vocab::GgufVocab;

const PREFIX: &str = "tokenizer.ggml.";
const HUGGING_FACE: &str = "tokenizer.huggingface.json";

/// The vocabulary, or `None` where the file has no tokens.
pub(crate) fn from_metadata(
    metadata: &Metadata,
    architecture: &str,
) -> Result<Option<GgufVocab>, LoadErrorKind> {
    let key = |name: &str| format!("{PREFIX}{name}");
    let Some(tokens) = owned(metadata, &key("tokens"))? else {
        return Ok(None);
    };
    let id = |name: &str| {
        let key = key(name);
        match metadata.u64(&key)? {
            // Some writers say "none" with the largest number, or with -1 read as one.
            Some(v) if v >= u32::MAX as u64 => Ok(None),
            v => Ok::<_, LoadErrorKind>(v.map(|v| v as u32)),
        }
    };
    let token_types = metadata.i64s(&key("token_type"))?.unwrap_or_default();
    let small = |v: i64| i32::try_from(v).map_err(|_| bad(key("token_type"), "small numbers", v));
    Ok(Some(GgufVocab {
        architecture: architecture.to_string(),
        model: metadata.str(&key("model"))?.unwrap_or_default().to_string(),
        pre: metadata.str(&key("pre"))?.map(str::to_string),
        tokens,
        scores: metadata.f32s(&key("scores"))?.unwrap_or_default(),
        token_types: token_types
            .into_iter()
            .map(small)
            .collect::<Result<_, _>>()?,
        merges: owned(metadata, &key("merges"))?.unwrap_or_default(),
        bos: id("bos_token_id")?,
        eos: id("eos_token_id")?,
        unk: id("unknown_token_id")?,
        pad: id("padding_token_id")?,
        eot: id("eot_token_id")?,
        add_bos: metadata.bool(&key("add_bos_token"))?,
        add_eos: metadata.bool(&key("add_eos_token"))?,
        add_space_prefix: metadata.bool(&key("add_space_prefix"))?,
        chat_template: metadata.str("tokenizer.chat_template")?.map(str::to_string),
        huggingface_json: metadata.str(HUGGING_FACE)?.map(str::to_string),
        file: None,
    }))
}

fn owned(metadata: &Metadata, key: &str) -> Result<Option<Vec<String>>, LoadErrorKind> {
    Ok(metadata
        .strings(key)?
        .map(|list| list.into_iter().map(str::to_string).collect()))
}

/// Writes the keys that [`from_metadata`] reads.
pub(crate) fn write(w: &mut GgufWriter, vocab: &GgufVocab) {
    let key = |name: &str| format!("{PREFIX}{name}");
    w.str(&key("model"), &vocab.model);
    if let Some(pre) = &vocab.pre {
        w.str(&key("pre"), pre);
    }
    w.strings(&key("tokens"), &vocab.tokens);
    if !vocab.scores.is_empty() {
        w.f32s(&key("scores"), &vocab.scores);
    }
    if !vocab.token_types.is_empty() {
        w.i32s(&key("token_type"), &vocab.token_types);
    }
    if !vocab.merges.is_empty() {
        w.strings(&key("merges"), &vocab.merges);
    }
    for (name, id) in [
        ("bos_token_id", vocab.bos),
        ("eos_token_id", vocab.eos),
        ("unknown_token_id", vocab.unk),
        ("padding_token_id", vocab.pad),
        ("eot_token_id", vocab.eot),
    ] {
        if let Some(id) = id {
            w.u32(&key(name), id as usize);
        }
    }
    for (name, flag) in [
        ("add_bos_token", vocab.add_bos),
        ("add_eos_token", vocab.add_eos),
        ("add_space_prefix", vocab.add_space_prefix),
    ] {
        if let Some(flag) = flag {
            w.bool(&key(name), flag);
        }
    }
    if let Some(template) = &vocab.chat_template {
        w.str("tokenizer.chat_template", template);
    }
    if let Some(json) = &vocab.huggingface_json {
        w.str(HUGGING_FACE, json);
    }
}
