//! The small files beside a Hugging Face tokenizer: which tokens begin and end a text, and the chat template.

use std::path::Path;

use serde_json::Value;

use super::error::TokenizerError;
use crate::small_file::{self, MAX_TEXT_BYTES};

/// What `tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json`, `config.json` and
/// `chat_template.jinja` say; each file is optional.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FolderConfig {
    /// `model_type` of `config.json`.
    pub model_type: Option<String>,
    /// Text of the begin-of-text token.
    pub bos: Option<String>,
    /// Text of the end-of-text token.
    pub eos: Option<String>,
    /// Text of the unknown token.
    pub unk: Option<String>,
    /// Text of the padding token.
    pub pad: Option<String>,
    /// Id of the begin-of-text token, from the model's own configuration.
    pub bos_id: Option<u32>,
    /// All ids that end a generation, from the model's own configuration.
    pub eos_ids: Vec<u32>,
    /// Whether a begin-of-text token goes before a text.
    pub add_bos: Option<bool>,
    /// The template called `default` where there are several.
    pub chat_template: Option<String>,
}

impl FolderConfig {
    /// Reads what there is in `folder`.
    ///
    /// # Errors
    /// When a file is there but cannot be read, or is not JSON.
    pub fn read(folder: &Path) -> Result<Self, TokenizerError> {
        let tokenizer = object(&folder.join("tokenizer_config.json"))?;
        let map = object(&folder.join("special_tokens_map.json"))?;
        let generation = object(&folder.join("generation_config.json"))?;
        let model = object(&folder.join("config.json"))?;
        let text = |key: &str| token_text(&tokenizer[key]).or_else(|| token_text(&map[key]));
        let mut eos_ids = ids(&generation["eos_token_id"]);
        eos_ids.extend(ids(&model["eos_token_id"]));
        eos_ids.sort_unstable();
        eos_ids.dedup();
        let bos_id = [&generation, &model]
            .iter()
            .find_map(|file| ids(&file["bos_token_id"]).first().copied());
        let jinja = folder.join("chat_template.jinja");
        let chat_template = match read(&jinja)? {
            Some(bytes) => {
                Some(
                    String::from_utf8(bytes).map_err(|error| TokenizerError::NotUtf8 {
                        what: jinja.display().to_string(),
                        offset: error.utf8_error().valid_up_to(),
                    })?,
                )
            }
            None => template(&tokenizer["chat_template"]),
        };
        Ok(Self {
            model_type: model["model_type"].as_str().map(str::to_owned),
            bos: text("bos_token"),
            eos: text("eos_token"),
            unk: text("unk_token"),
            pad: text("pad_token"),
            bos_id,
            eos_ids,
            add_bos: tokenizer["add_bos_token"].as_bool(),
            chat_template,
        })
    }
}

/// The file's bytes, or nothing where there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, TokenizerError> {
    match small_file::read(path, MAX_TEXT_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The file's JSON; an absent file reads as null, in which every look-up finds null.
pub(super) fn object(path: &Path) -> Result<Value, TokenizerError> {
    let Some(bytes) = read(path)? else {
        return Ok(Value::Null);
    };
    serde_json::from_slice(&bytes).map_err(|error| TokenizerError::File {
        path: path.to_owned(),
        why: error.to_string(),
    })
}

/// A token is written as its text, or as an object with its `content`.
fn token_text(value: &Value) -> Option<String> {
    let text = value.as_str().or_else(|| value["content"].as_str())?;
    Some(text.to_owned())
}

/// One id or a list of ids.
fn ids(value: &Value) -> Vec<u32> {
    let list = value
        .as_array()
        .map_or(std::slice::from_ref(value), Vec::as_slice);
    list.iter()
        .filter_map(|id| u32::try_from(id.as_u64()?).ok())
        .collect()
}

/// One template, or a list of named ones.
fn template(value: &Value) -> Option<String> {
    if let Some(text) = value.as_str() {
        return Some(text.to_owned());
    }
    let named = value.as_array()?;
    let default = named.iter().find(|entry| entry["name"] == "default");
    let entry = default.or_else(|| named.first())?;
    entry["template"].as_str().map(str::to_owned)
}
