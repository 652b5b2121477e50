//! Text to token ids and back, from `tokenizer.json` or from the keys of a GGUF file.
//!
//! Encoding runs on the `tokenizers` crate for byte-level BPE and on `spm` for SentencePiece. Decoding is a table
//! of raw bytes per token, so that text can be streamed token by token whatever the vocabulary.

mod added;
mod bpe;
mod bytes;
mod convert;
mod cut;
mod error;
mod folder;
mod json;
mod pieces;
mod pre;
mod proto;
mod spm;
mod stages;
mod vocab;

use std::ffi::OsString;
use std::path::Path;

pub use bpe::Mask;
pub use error::TokenizerError;
pub use folder::FolderConfig;
pub use pre::{PRE_TOKENIZERS, PreTokenizer};
pub use vocab::{GgufVocab, TokenType};

use crate::small_file::{self, MAX_TEXT_BYTES};
use crate::vocab::VocabSource;
use bpe::Bpe;
use json::{Spelling, TokenizerJson};
use pieces::Pieces;
use spm::SentencePiece;

/// Tokens that end a turn or a text whatever else the files say.
pub const STOP_TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "</s>",
];

/// Whether text may spell control tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// `<|eot_id|>` in the text is the token of that name. For prompts written by the person at the keyboard.
    Parse,
    /// `<|eot_id|>` in the text is ten characters. For text that others have written.
    AsText,
}

enum Encoder {
    Bpe(Box<Bpe>),
    SentencePiece(Box<SentencePiece>),
}

/// A vocabulary that encodes and decodes, with the tokens that begin and end texts.
pub struct Tokenizer {
    encoder: Encoder,
    pieces: Pieces,
    bos: Option<u32>,
    eos: Option<u32>,
    stops: Vec<u32>,
    add_bos: bool,
    add_eos: bool,
    space_prefix: bool,
    chat_template: Option<String>,
    architecture: String,
    kind: &'static str,
    notes: Vec<String>,
}

impl Tokenizer {
    /// The tokenizer that `source` describes, for a model whose embedding has `n_rows` rows. `pre` overrides the
    /// pre-tokeniser of a GGUF file; a folder's `tokenizer.json` states its own.
    ///
    /// # Errors
    /// When the model comes without a tokenizer, or with one that contradicts itself or the model.
    pub fn of(
        source: &VocabSource,
        n_rows: usize,
        pre: Option<&str>,
    ) -> Result<Self, TokenizerError> {
        let tokenizer = match source {
            VocabSource::Folder(folder) => Self::from_folder(folder)?,
            VocabSource::Keys {
                vocab: Some(vocab), ..
            } => Self::from_gguf(vocab, pre)?,
            VocabSource::Keys { vocab: None, path } => {
                return Err(TokenizerError::NoKeys { path: path.clone() });
            }
        };
        tokenizer.check_model(n_rows)?;
        Ok(tokenizer)
    }

    /// Rebuilds a tokenizer from the keys of a GGUF file. `pre` overrides the file's pre-tokeniser.
    ///
    /// # Errors
    /// When the keys contradict each other, or name something unknown.
    pub fn from_gguf(vocab: &GgufVocab, pre: Option<&str>) -> Result<Self, TokenizerError> {
        if vocab.model == GgufVocab::HUGGING_FACE {
            return Self::from_embedded_json(vocab);
        }
        let types = vocab.checked_types()?;
        let list = vocab.list("tokens");
        let ids = json::check_unique(&list, vocab.tokens.iter().map(String::as_str))?;
        let mut notes = Vec::new();
        let (encoder, spelling, default_bos, kind) = match vocab.model.as_str() {
            "gpt2" => {
                let (pre, note) = PreTokenizer::for_gguf(vocab, pre)?;
                notes.extend(note);
                let bpe = Bpe::from_gguf(vocab, &types, &ids, pre)?;
                (
                    Encoder::Bpe(Box::new(bpe)),
                    Spelling::ByteLevel,
                    pre.add_bos,
                    "byte-level BPE",
                )
            }
            "llama" => {
                let space_prefix = vocab.add_space_prefix.unwrap_or(true);
                let scores = vocab.checked_scores()?;
                let unk = vocab.unk.or_else(|| {
                    let at = types.iter().position(|&kind| kind == TokenType::Unknown)?;
                    u32::try_from(at).ok()
                });
                let spm = SentencePiece::new(&vocab.tokens, &types, scores, unk, space_prefix);
                let encoder = Encoder::SentencePiece(Box::new(spm));
                (
                    encoder,
                    Spelling::SentencePiece { space_prefix },
                    true,
                    "SentencePiece BPE",
                )
            }
            other => {
                return Err(TokenizerError::Unsupported {
                    what: "tokenizer.ggml.model",
                    got: other.to_owned(),
                    known: "gpt2, llama, huggingface",
                });
            }
        };
        let tokens = vocab.tokens.iter().cloned().zip(types).collect();
        let mut tokenizer = Self::assemble(encoder, tokens, spelling, kind);
        tokenizer.notes.extend(notes);
        tokenizer.name_specials(vocab, default_bos)
    }

    /// The tokenizer of a GGUF file that carries a whole `tokenizer.json`.
    fn from_embedded_json(vocab: &GgufVocab) -> Result<Self, TokenizerError> {
        let key = Path::new("tokenizer.huggingface.json");
        let text = vocab.huggingface_json.as_deref().unwrap_or_default();
        vocab.checked_types()?;
        let mut json = TokenizerJson::parse(text.as_bytes(), key)?;
        let encoder = Encoder::Bpe(Box::new(json.encoder()?));
        let kind = "BPE (tokenizer.json inside the file)";
        Self::assemble(encoder, json.tokens, json.spelling, kind)
            .name_specials(vocab, json.bos.is_some())
    }

    fn name_specials(
        mut self,
        vocab: &GgufVocab,
        default_bos: bool,
    ) -> Result<Self, TokenizerError> {
        self.bos = vocab.bos;
        self.eos = vocab.eos;
        self.add_bos = vocab.add_bos.unwrap_or(default_bos);
        self.stops.extend(vocab.eos);
        self.stops.extend(vocab.eot);
        self.chat_template = vocab.chat_template.clone();
        self.architecture = vocab.architecture.clone();
        self.finish(vocab.add_eos == Some(true))
    }

    /// Loads the tokenizer of a Hugging Face folder: `tokenizer.json` with the small files beside it, or
    /// `tokenizer.model` (SentencePiece BPE) where there is no `tokenizer.json`.
    ///
    /// # Errors
    /// When there is none, or the files contradict each other.
    pub fn from_folder(folder: &Path) -> Result<Self, TokenizerError> {
        let path = folder.join("tokenizer.json");
        if !path.exists() {
            return Self::from_gguf(&GgufVocab::from_folder(folder)?, None);
        }
        let config = FolderConfig::read(folder)?;
        let mut json = TokenizerJson::read(&path)?;
        let encoder = json.encoder()?;
        let id = |text: &Option<String>| encoder.id(text.as_deref()?);
        let bos = id(&config.bos).or(config.bos_id).or_else(|| id(&json.bos));
        let eos = id(&config.eos).or_else(|| config.eos_ids.first().copied());
        let kind = match json.spelling {
            Spelling::ByteLevel => "byte-level BPE (tokenizer.json)",
            Spelling::SentencePiece { .. } => "SentencePiece BPE (tokenizer.json)",
        };
        let encoder = Encoder::Bpe(Box::new(encoder));
        let mut tokenizer = Self::assemble(encoder, json.tokens, json.spelling, kind);
        tokenizer.bos = bos;
        tokenizer.eos = eos;
        tokenizer.add_bos = bos.is_some() && config.add_bos.unwrap_or(json.bos.is_some());
        tokenizer.stops.extend(eos);
        // Configurations may name ids that only other variants of a vocabulary have; those never come up.
        let n_vocab = tokenizer.n_vocab();
        let known = config.eos_ids.iter().filter(|&&id| (id as usize) < n_vocab);
        tokenizer.stops.extend(known);
        tokenizer.chat_template = config.chat_template;
        tokenizer.architecture = config.model_type.unwrap_or_default();
        tokenizer.finish(false)
    }

    fn assemble(
        encoder: Encoder,
        tokens: Vec<(String, TokenType)>,
        spelling: Spelling,
        kind: &'static str,
    ) -> Self {
        Self {
            encoder,
            pieces: Pieces::new(tokens, spelling),
            bos: None,
            eos: None,
            stops: Vec::new(),
            add_bos: false,
            add_eos: false,
            space_prefix: spelling == Spelling::SentencePiece { space_prefix: true },
            chat_template: None,
            architecture: String::new(),
            kind,
            notes: Vec::new(),
        }
    }

    fn finish(mut self, add_eos: bool) -> Result<Self, TokenizerError> {
        let by_text = (0u32..)
            .zip(&self.pieces.texts)
            .filter(|(_, text)| STOP_TEXTS.contains(&text.as_str()));
        self.stops.extend(by_text.map(|(id, _)| id));
        self.stops.sort_unstable();
        self.stops.dedup();
        let n_vocab = self.n_vocab();
        let named = [
            ("the begin-of-text token", self.bos),
            ("the end-of-text token", self.eos),
            ("an end-of-turn token", self.stops.last().copied()),
        ];
        for (key, id) in named {
            if let Some(id) = id.filter(|&id| id as usize >= n_vocab) {
                let key = key.to_owned();
                return Err(TokenizerError::SpecialId { key, id, n_vocab });
            }
        }
        if self.add_bos && self.bos.is_none() {
            self.add_bos = false;
            let note = "the file asks for a begin-of-text token but names none; going without";
            self.notes.push(note.to_owned());
        }
        self.add_eos = add_eos && self.eos.is_some();
        if add_eos {
            let note = "the file asks for an end-of-text token after every text; a prompt is to be continued, so none is added";
            self.notes.push(note.to_owned());
        }
        if self.stops.is_empty() {
            let note = "no token ends a text: generation runs until its limit";
            self.notes.push(note.to_owned());
        }
        Ok(self)
    }

    /// Things that the reader of the output should know, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What sort of vocabulary this is, in words.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// `general.architecture` of a GGUF file, `model_type` of a folder.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The chat template as the model's files have it.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// How many ids there are.
    pub fn n_vocab(&self) -> usize {
        self.pieces.types.len()
    }

    /// The begin-of-text token.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The end-of-text token.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether [`Self::encode_prompt`] puts a begin-of-text token first.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether the file asks for [`Self::eos`] behind every text; a prompt, which is to be continued, gets none.
    pub fn add_eos(&self) -> bool {
        self.add_eos
    }

    /// The ids that end a generation, ascending.
    pub fn stops(&self) -> &[u32] {
        &self.stops
    }

    /// Whether `id` ends a generation.
    pub fn is_stop(&self, id: u32) -> bool {
        self.stops.binary_search(&id).is_ok()
    }

    /// Whether `id` steers the model and is never printed.
    pub fn is_special(&self, id: u32) -> bool {
        let kind = self.pieces.types.get(id as usize);
        matches!(
            kind,
            Some(TokenType::Control | TokenType::Unknown | TokenType::Unused)
        )
    }

    /// The id of the token written `text` in the vocabulary.
    pub fn id(&self, text: &str) -> Option<u32> {
        let at = self.pieces.texts.iter().position(|token| token == text)?;
        u32::try_from(at).ok()
    }

    /// How the vocabulary writes token `id`.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.pieces.texts.get(id as usize).map(String::as_str)
    }

    /// What token `id` is for.
    pub fn token_type(&self, id: u32) -> Option<TokenType> {
        self.pieces.types.get(id as usize).copied()
    }

    /// The texts that control tokens are written as.
    pub fn control_texts(&self) -> impl Iterator<Item = &str> {
        let tokens = self.pieces.texts.iter().zip(&self.pieces.types);
        let control = |kind| matches!(kind, TokenType::Control | TokenType::Unknown);
        tokens
            .filter(move |&(text, &kind)| control(kind) && !text.is_empty())
            .map(|(text, _)| text.as_str())
    }

    /// Refuses a model whose embedding has fewer rows than there are ids. More rows are padding.
    ///
    /// # Errors
    /// When the tokenizer knows ids that the model does not.
    pub fn check_model(&self, n_vocab: usize) -> Result<(), TokenizerError> {
        if self.n_vocab() > n_vocab {
            return Err(TokenizerError::ModelMismatch {
                tokenizer: self.n_vocab(),
                model: n_vocab,
            });
        }
        Ok(())
    }

    /// Text to ids, with nothing added before or after.
    ///
    /// # Errors
    /// When the vocabulary cannot express the text.
    pub fn encode(&self, text: &str, specials: Specials) -> Result<Vec<u32>, TokenizerError> {
        self.encode_masked(text, specials, &[])
    }

    /// As [`Self::encode`], with characters that stand for others until special tokens have been found: text in
    /// which `masks` hide the start of a control token's name cannot become that token.
    ///
    /// # Errors
    /// When the vocabulary cannot express the text.
    pub fn encode_masked(
        &self,
        text: &str,
        specials: Specials,
        masks: &[Mask],
    ) -> Result<Vec<u32>, TokenizerError> {
        match &self.encoder {
            Encoder::Bpe(bpe) => bpe.encode(text, specials, masks),
            Encoder::SentencePiece(spm) => spm.encode(text, specials, masks),
        }
    }

    /// A prompt to ids: control tokens are recognised, and a begin-of-text token is put first where the model
    /// expects one. An empty prompt is the begin-of-text token alone.
    ///
    /// As in the `tokenizers` library, a prompt that spells the begin-of-text token itself gets two. A conversation
    /// gets none here: its template writes what there is to be ([`crate::chat::ChatTemplate::encode`]).
    ///
    /// # Errors
    /// When the vocabulary cannot express the text, or the prompt is empty and there is no begin-of-text token.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.encode(text, Specials::Parse)?;
        if ids.is_empty() {
            return Ok(vec![self.bos.ok_or(TokenizerError::EmptyPrompt)?]);
        }
        self.put_bos_first(&mut ids);
        Ok(ids)
    }

    /// Puts the begin-of-text token first where the model expects one, whatever `ids` begin with.
    pub fn put_bos_first(&self, ids: &mut Vec<u32>) {
        if let Some(bos) = self.bos.filter(|_| self.add_bos) {
            ids.insert(0, bos);
        }
    }

    /// The raw bytes that `id` prints; nothing for tokens that are never printed. Not always whole characters:
    /// `TextStream` joins them.
    ///
    /// # Errors
    /// When `id` names no token.
    pub fn print(&self, id: u32) -> Result<&[u8], TokenizerError> {
        let bytes = self.pieces.bytes(id).ok_or(TokenizerError::IdOutOfRange {
            id,
            n_vocab: self.n_vocab(),
        })?;
        Ok(if self.is_special(id) { &[] } else { bytes })
    }

    /// Ids to text, without control tokens and without the space that was put before the text on encoding. Bytes
    /// that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// When an id names no token.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let mut bytes = Vec::new();
        for &id in ids {
            bytes.extend_from_slice(self.print(id)?);
        }
        if self.space_prefix && bytes.first() == Some(&b' ') {
            bytes.remove(0);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// A command-line argument as text.
///
/// # Errors
/// When it is not UTF-8; `what` names it in the message.
pub fn utf8_argument(what: &str, argument: OsString) -> Result<String, TokenizerError> {
    argument.into_string().map_err(|argument| {
        let bytes = argument.as_encoded_bytes();
        let offset = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
        TokenizerError::NotUtf8 {
            what: what.to_owned(),
            offset,
        }
    })
}

/// A text file's contents.
///
/// # Errors
/// When it cannot be read or is not UTF-8.
pub fn utf8_file(path: &Path) -> Result<String, TokenizerError> {
    let bytes = small_file::read(path, MAX_TEXT_BYTES).map_err(|source| TokenizerError::Io {
        path: path.to_owned(),
        source,
    })?;
    String::from_utf8(bytes).map_err(|error| TokenizerError::NotUtf8 {
        what: path.display().to_string(),
        offset: error.utf8_error().valid_up_to(),
    })
}

#[cfg(test)]
mod tests;
