//! `tokenizer.json`, read into checked plain data: nothing reaches the `tokenizers` crate that could make it panic.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::added::AddedToken;
use super::bpe::{Bpe, BpeParts, check_merges};
use super::error::{TokenizerError, shorten};
use super::spm::{SPACE, parse_byte};
use super::stages::{self, flatten, kind};
use super::vocab::TokenType;
use crate::small_file::{self, MAX_TEXT_BYTES};

/// Bytes that added tokens may have together; they are all searched for at once, by a table of their letters.
const MAX_ADDED_BYTES: usize = 2 << 20;

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
    path: PathBuf,
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
        let spelling = spelling(raw.decoder.as_ref())?;
        let tokens = tokens_by_id(&raw, spelling, path)?;
        let list = list(path, "model.merges");
        let merges = merges(&list, raw.model.merges)?;
        if let Some(unk) = &raw.model.unk_token
            && !raw.model.vocab.contains_key(unk)
        {
            let why = format!("model.unk_token {unk:?} is not in model.vocab");
            return Err(TokenizerError::File {
                path: path.to_owned(),
                why,
            });
        }
        check_merges(&list, |text| raw.model.vocab.contains_key(text), &merges)?;
        let mut added = raw.added_tokens;
        let added_bytes: usize = added.iter().map(|token| token.content.len()).sum();
        if added_bytes > MAX_ADDED_BYTES {
            let why = format!(
                "added_tokens have {added_bytes} bytes of text, more than {MAX_ADDED_BYTES}"
            );
            return Err(TokenizerError::File {
                path: path.to_owned(),
                why,
            });
        }
        added.sort_by_key(|token| token.id);
        let added = added.into_iter().map(|token| AddedToken {
            text: token.content,
            id: token.id,
            special: token.special,
            normalized: token.normalized,
            single_word: token.single_word,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
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
            path: path.to_owned(),
            vocab,
            added,
        })
    }

    /// How messages name one of the file's lists.
    pub fn list(&self, name: &str) -> String {
        list(&self.path, name)
    }

    /// The encoder that this file describes.
    ///
    /// # Errors
    /// When a stage is unknown or cannot run as it is written.
    pub fn encoder(&mut self) -> Result<Bpe, TokenizerError> {
        let file = self.path.display().to_string();
        Bpe::new(BpeParts {
            rewrites: stages::rewrites(&file, self.normalizer.as_ref())?,
            cuts: stages::cuts(&file, self.pre_tokenizer.as_ref())?,
            byte_level: self.spelling == Spelling::ByteLevel,
            vocab: std::mem::take(&mut self.vocab),
            merges: std::mem::take(&mut self.merges),
            added: std::mem::take(&mut self.added),
            whole_pieces: self.ignore_merges,
            byte_fallback: self.byte_fallback,
            unk: self.unk.clone(),
            fuse_unk: self.fuse_unk,
        })
    }
}

fn list(path: &Path, name: &str) -> String {
    format!("{}: {name}", path.display())
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
    // Maps have no order of their own; the same file always gets the same answer.
    let mut ordinary: Vec<_> = ordinary.collect();
    ordinary.sort_unstable_by_key(|&(id, text, _)| (id, text));
    let mut tokens: Vec<(String, TokenType)> = Vec::new();
    for (id, text, kind) in ordinary.into_iter().chain(added) {
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
    let list = list(path, "model.vocab and added_tokens");
    if tokens.is_empty() {
        return Err(TokenizerError::Empty { list });
    }
    check_unique(&list, tokens.iter().map(|(text, _)| text.as_str()))?;
    Ok(tokens)
}

/// Refuses two ids for one text; empty texts are holes. `list` is how messages name the tokens.
pub fn check_unique<'a>(
    list: &str,
    tokens: impl ExactSizeIterator<Item = &'a str>,
) -> Result<HashMap<&'a str, u32>, TokenizerError> {
    let mut ids = HashMap::with_capacity(tokens.len());
    for (id, text) in (0u32..).zip(tokens) {
        if text.is_empty() {
            continue;
        }
        if let Some(first) = ids.insert(text, id) {
            return Err(TokenizerError::Duplicate {
                list: list.to_owned(),
                token: text.to_owned(),
                first,
                second: id,
            });
        }
    }
    Ok(ids)
}

fn merges(list: &str, raw: Vec<RawMerge>) -> Result<Vec<(String, String)>, TokenizerError> {
    let pair = |(index, merge): (usize, RawMerge)| match merge {
        RawMerge::Pair(left, right) => Ok((left, right)),
        RawMerge::Text(text) => match text.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => Ok((left.to_owned(), right.to_owned())),
            _ => Err(TokenizerError::Merge {
                list: list.to_owned(),
                index,
                merge: shorten(&text),
                why: "expected two tokens separated by a space".to_owned(),
            }),
        },
    };
    raw.into_iter().enumerate().map(pair).collect()
}

fn spelling(decoder: Option<&Value>) -> Result<Spelling, TokenizerError> {
    let decoders = flatten(decoder);
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
    let template = flatten(post_processor)
        .into_iter()
        .find(|stage| kind(stage) == "TemplateProcessing")?;
    let first = template.get("single")?.as_array()?.first()?;
    let token = first.get("SpecialToken")?.get("id")?.as_str()?;
    Some(token.to_owned())
}
