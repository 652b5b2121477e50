//! `tokenizer.json`, read into checked plain data: nothing reaches the `tokenizers` crate that could make it panic.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::tokenizer::{AddedToken, NormalizerWrapper, PreTokenizerWrapper};

use super::bpe::{Bpe, BpeParts, check_merges, shorten};
use super::error::TokenizerError;
use super::spm::{SPACE, parse_byte};
use super::vocab::TokenType;
use crate::small_file::{self, MAX_TEXT_BYTES};

/// How tokens spell bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// Every byte is a character of the byte-level alphabet.
    ByteLevel,
    /// Text with `▁` for spaces and `<0xXX>` for raw bytes.
    SentencePiece {
        /// One space is put before the text, and taken away again.
        space_prefix: bool,
    },
}

/// A `tokenizer.json` whose vocabulary, merges and ids have been checked against each other.
pub struct TokenizerJson {
    /// In id order; holes are empty and [`TokenType::Unused`].
    pub tokens: Vec<(String, TokenType)>,
    /// In rank order.
    pub merges: Vec<(String, String)>,
    /// The stage before cutting, as the file has it.
    pub normalizer: Option<Value>,
    /// The cutting stage, as the file has it.
    pub pre_tokenizer: Option<Value>,
    /// How tokens turn into text.
    pub spelling: Spelling,
    /// What the post-processor puts before a text.
    pub bos: Option<String>,
    /// What stands for unknown characters.
    pub unk: Option<String>,
    /// See [`super::pre::PreTokenizer::whole_pieces`].
    pub ignore_merges: bool,
    /// Unknown characters become bytes.
    pub byte_fallback: bool,
    fuse_unk: bool,
    vocab: HashMap<String, u32>,
    added: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct Head {
    model: HeadModel,
}

#[derive(Deserialize)]
struct HeadModel {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    added_tokens: Vec<RawAdded>,
    #[serde(default)]
    normalizer: Option<Value>,
    #[serde(default)]
    pre_tokenizer: Option<Value>,
    #[serde(default)]
    post_processor: Option<Value>,
    #[serde(default)]
    decoder: Option<Value>,
    model: RawModel,
}

#[derive(Deserialize)]
struct RawAdded {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct RawModel {
    vocab: HashMap<String, u32>,
    merges: Vec<RawMerge>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: Option<bool>,
    #[serde(default)]
    byte_fallback: Option<bool>,
    #[serde(default)]
    ignore_merges: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawMerge {
    Text(String),
    Pair(String, String),
}

impl TokenizerJson {
    /// Reads and checks `path`.
    ///
    /// # Errors
    /// When the file cannot be read, is no byte-pair vocabulary, or contradicts itself.
    pub fn read(path: &Path) -> Result<Self, TokenizerError> {
        let bytes =
            small_file::read(path, MAX_TEXT_BYTES).map_err(|source| TokenizerError::Io {
                path: path.to_owned(),
                source,
            })?;
        Self::parse(&bytes, path)
    }

    /// Checks the contents of a `tokenizer.json`; `path` is for messages.
    ///
    /// # Errors
    /// As [`Self::read`], but for reading.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, TokenizerError> {
        let bad = |why: String| TokenizerError::File {
            path: path.to_owned(),
            why,
        };
        let head: Head = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        if let Some(kind) = head.model.kind.filter(|kind| kind != "BPE") {
            return Err(TokenizerError::Unsupported {
                what: "tokenizer.json model",
                got: kind,
                known: "BPE",
            });
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        Self::check(raw, path)
    }

    fn check(raw: Raw, path: &Path) -> Result<Self, TokenizerError> {
        let affixes = [
            (
                "continuing_subword_prefix",
                &raw.model.continuing_subword_prefix,
            ),
            ("end_of_word_suffix", &raw.model.end_of_word_suffix),
        ];
        for (what, affix) in affixes {
            if let Some(affix) = affix.as_deref().filter(|affix| !affix.is_empty()) {
                return Err(TokenizerError::Unsupported {
                    what,
                    got: affix.to_owned(),
                    known: "none",
                });
            }
        }
        refuse_stage(raw.normalizer.as_ref(), "Precompiled")?;
        let spelling = spelling(raw.decoder.as_ref())?;
        let tokens = tokens_by_id(&raw, spelling, path)?;
        let merges = merges(raw.model.merges)?;
        if let Some(unk) = &raw.model.unk_token
            && !raw.model.vocab.contains_key(unk)
        {
            let why = format!("model.unk_token {unk:?} is not in model.vocab");
            return Err(TokenizerError::File {
                path: path.to_owned(),
                why,
            });
        }
        check_merges(|text| raw.model.vocab.contains_key(text), &merges)?;
        let mut added = raw.added_tokens;
        added.sort_by_key(|token| token.id);
        let added = added.into_iter().map(|token| {
            AddedToken::from(token.content, token.special)
                .single_word(token.single_word)
                .lstrip(token.lstrip)
                .rstrip(token.rstrip)
                .normalized(token.normalized)
        });
        let mut vocab = raw.model.vocab;
        let added: Vec<_> = added.collect();
        // Every token has its own id from here on; the crate would number the added ones itself.
        for (id, (text, _)) in (0u32..).zip(&tokens) {
            if !text.is_empty() {
                vocab.entry(text.clone()).or_insert(id);
            }
        }
        Ok(Self {
            tokens,
            merges,
            normalizer: raw.normalizer,
            pre_tokenizer: raw.pre_tokenizer,
            spelling,
            bos: leading_special(raw.post_processor.as_ref()),
            unk: raw.model.unk_token,
            ignore_merges: raw.model.ignore_merges.unwrap_or(false),
            byte_fallback: raw.model.byte_fallback.unwrap_or(false),
            fuse_unk: raw.model.fuse_unk.unwrap_or(false),
            vocab,
            added,
        })
    }

    /// The encoder that this file describes.
    ///
    /// # Errors
    /// When a stage is unknown or a merge names a token that is not there.
    pub fn encoder(&mut self) -> Result<Bpe, TokenizerError> {
        let stage_error = |what: &'static str| {
            move |error: serde_json::Error| TokenizerError::Unsupported {
                what,
                got: error.to_string(),
                known: "the stages of the `tokenizers` library",
            }
        };
        let normalizer: Option<NormalizerWrapper> = match &self.normalizer {
            None | Some(Value::Null) => None,
            Some(stage) => {
                Some(Deserialize::deserialize(stage).map_err(stage_error("normalizer"))?)
            }
        };
        let pre_tokenizer: Option<PreTokenizerWrapper> = match &self.pre_tokenizer {
            None | Some(Value::Null) => None,
            Some(stage) => {
                Some(Deserialize::deserialize(stage).map_err(stage_error("pre_tokenizer"))?)
            }
        };
        Bpe::new(BpeParts {
            vocab: std::mem::take(&mut self.vocab),
            merges: std::mem::take(&mut self.merges),
            added: std::mem::take(&mut self.added),
            normalizer,
            pre_tokenizer,
            whole_pieces: self.ignore_merges,
            byte_fallback: self.byte_fallback,
            unk: self.unk.clone(),
            fuse_unk: self.fuse_unk,
        })
    }
}

/// All tokens in id order.
fn tokens_by_id(
    raw: &Raw,
    spelling: Spelling,
    path: &Path,
) -> Result<Vec<(String, TokenType)>, TokenizerError> {
    let n_tokens = raw.model.vocab.len() + raw.added_tokens.len();
    let added = raw.added_tokens.iter().map(|token| {
        let kind = match token.special {
            true => TokenType::Control,
            false => TokenType::UserDefined,
        };
        (token.id, &token.content, kind)
    });
    let ordinary = raw.model.vocab.iter().map(|(text, &id)| {
        let byte = spelling != Spelling::ByteLevel && raw.model.byte_fallback == Some(true);
        let kind = match text {
            _ if raw.model.unk_token.as_ref() == Some(text) => TokenType::Unknown,
            _ if byte && parse_byte(text).is_some() => TokenType::Byte,
            _ => TokenType::Normal,
        };
        (id, text, kind)
    });
    let mut tokens: Vec<(String, TokenType)> = Vec::new();
    for (id, text, kind) in ordinary.chain(added) {
        let at = id as usize;
        if at >= n_tokens.saturating_mul(2).max(1024) {
            return Err(TokenizerError::SparseIds {
                path: path.to_owned(),
                id,
                n_tokens,
            });
        }
        if at >= tokens.len() {
            tokens.resize(at + 1, (String::new(), TokenType::Unused));
        }
        let slot = &mut tokens[at];
        if !slot.0.is_empty() && slot.0 != *text {
            return Err(TokenizerError::File {
                path: path.to_owned(),
                why: format!("id {id} is both {:?} and {text:?}", slot.0),
            });
        }
        // The unknown token is usually listed as an added special token, too; it stays what it is.
        if slot.1 != TokenType::Unknown {
            *slot = (text.clone(), kind);
        }
    }
    if tokens.is_empty() {
        return Err(TokenizerError::Empty);
    }
    check_unique(tokens.iter().map(|(text, _)| text.as_str()))?;
    Ok(tokens)
}

/// Refuses two ids for one text; empty texts are holes.
pub fn check_unique<'a>(
    tokens: impl ExactSizeIterator<Item = &'a str>,
) -> Result<HashMap<&'a str, u32>, TokenizerError> {
    let mut ids = HashMap::with_capacity(tokens.len());
    for (id, text) in (0u32..).zip(tokens) {
        if text.is_empty() {
            continue;
        }
        if let Some(first) = ids.insert(text, id) {
            return Err(TokenizerError::Duplicate {
                token: text.to_owned(),
                first,
                second: id,
            });
        }
    }
    Ok(ids)
}

fn merges(raw: Vec<RawMerge>) -> Result<Vec<(String, String)>, TokenizerError> {
    let pair = |(index, merge): (usize, RawMerge)| match merge {
        RawMerge::Pair(left, right) => Ok((left, right)),
        RawMerge::Text(text) => match text.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => Ok((left.to_owned(), right.to_owned())),
            _ => Err(TokenizerError::Merge {
                index,
                merge: shorten(&text),
                why: "expected two tokens separated by a space".to_owned(),
            }),
        },
    };
    raw.into_iter().enumerate().map(pair).collect()
}

/// Every stage of a possibly nested description.
fn stages(stage: &Value) -> Vec<&Value> {
    let nested = ["normalizers", "pretokenizers", "processors", "decoders"];
    let lists = nested.iter().filter_map(|key| stage.get(key)?.as_array());
    let inner: Vec<&Value> = lists.flatten().flat_map(stages).collect();
    if inner.is_empty() { vec![stage] } else { inner }
}

fn kind(stage: &Value) -> &str {
    stage.get("type").and_then(Value::as_str).unwrap_or("")
}

fn refuse_stage(stage: Option<&Value>, refused: &str) -> Result<(), TokenizerError> {
    let found = stage
        .into_iter()
        .flat_map(stages)
        .any(|stage| kind(stage) == refused);
    if found {
        return Err(TokenizerError::Unsupported {
            what: "normalizer",
            got: refused.to_owned(),
            known: "Sequence, Prepend, Replace, NFC, NFD, NFKC, NFKD, Strip, Lowercase",
        });
    }
    Ok(())
}

fn spelling(decoder: Option<&Value>) -> Result<Spelling, TokenizerError> {
    let decoders = decoder.map(stages).unwrap_or_default();
    let has = |wanted: &str| decoders.iter().any(|stage| kind(stage) == wanted);
    if has("ByteLevel") {
        return Ok(Spelling::ByteLevel);
    }
    let text = |stage: &Value, key: &str| stage.get(key).and_then(Value::as_str).map(str::to_owned);
    if let Some(stage) = decoders.iter().find(|stage| kind(stage) == "Metaspace") {
        // Old files say `add_prefix_space`, newer ones `prepend_scheme`.
        let scheme = text(stage, "prepend_scheme");
        let old = stage.get("add_prefix_space").and_then(Value::as_bool);
        let space_prefix = match scheme.as_deref() {
            Some(scheme) => scheme != "never",
            None => old.unwrap_or(true),
        };
        return Ok(Spelling::SentencePiece { space_prefix });
    }
    let replaces_space = decoders.iter().any(|stage| {
        let pattern = stage.get("pattern").and_then(|p| p.get("String"));
        kind(stage) == "Replace"
            && pattern.and_then(Value::as_str) == Some(SPACE.encode_utf8(&mut [0; 4]))
    });
    if replaces_space {
        let space_prefix = decoders
            .iter()
            .any(|stage| kind(stage) == "Strip" && text(stage, "content").as_deref() == Some(" "));
        return Ok(Spelling::SentencePiece { space_prefix });
    }
    Err(TokenizerError::Unsupported {
        what: "tokenizer.json decoder",
        got: decoders
            .iter()
            .map(|stage| kind(stage))
            .collect::<Vec<_>>()
            .join(", "),
        known: "ByteLevel, Metaspace, Replace ▁ with ByteFallback",
    })
}

/// The special token that a template post-processor puts before a text.
fn leading_special(post_processor: Option<&Value>) -> Option<String> {
    let stages = post_processor.map(stages).unwrap_or_default();
    let template = stages
        .into_iter()
        .find(|stage| kind(stage) == "TemplateProcessing")?;
    let first = template.get("single")?.as_array()?.first()?;
    let token = first.get("SpecialToken")?.get("id")?.as_str()?;
    Some(token.to_owned())
}
