//! A vocabulary as a GGUF file states it: plain data that readers, writers and the tokenizer agree on.
//!
//! A format reader fills [`GgufVocab`] from the `tokenizer.*` keys; a converter fills it from
//! `tokenizer.json` and writes the same keys. [`crate::tokenizer::Tokenizer`] turns it into something that encodes.

use std::path::PathBuf;

/// Where a model's vocabulary comes from.
#[derive(Clone, Debug)]
pub enum VocabSource {
    /// The keys of a GGUF file; `None` where it has no tokens.
    Keys {
        /// The file, for messages.
        path: String,
        /// What they say.
        vocab: Option<Box<GgufVocab>>,
    },
    /// A Hugging Face folder: `tokenizer.json`, or `tokenizer.model`, and the small files beside it.
    Folder(PathBuf),
}

/// What a token is for; the numbers are those of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
pub enum TokenType {
    /// Ordinary text.
    Normal = 1,
    /// Stands for what the vocabulary cannot say.
    Unknown = 2,
    /// Steers the model; never printed, never read from a user's text.
    Control = 3,
    /// Added by the model's author as one indivisible piece of text.
    UserDefined = 4,
    /// A hole in the numbering.
    Unused = 5,
    /// One raw byte, written `<0xXX>`.
    Byte = 6,
}

impl TokenType {
    /// The type with this number in a GGUF file, if it is one of the six.
    pub fn from_gguf(value: i32) -> Option<Self> {
        Some(match value {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }
}

/// The `tokenizer.*` keys of a GGUF file, unchecked and in the file's own words.
///
/// Absent keys are `None` or empty. `token_types` and `scores` hold the raw numbers so that a reader need not
/// judge them: the checks are made, with typed errors, when a [`crate::tokenizer::Tokenizer`] is built.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocab {
    /// `general.architecture`; decides the pre-tokeniser where the file forgets to name it.
    pub architecture: String,
    /// `tokenizer.ggml.model`: `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE).
    pub model: String,
    /// `tokenizer.ggml.pre`: which pre-tokeniser goes with a byte-level BPE.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`, in id order.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.scores`, empty where absent.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.token_type`, empty where absent.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.merges`, `"left right"` in rank order, empty where absent.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unk: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub pad: Option<u32>,
    /// `tokenizer.ggml.eot_token_id`: the end of a turn, where it differs from the end of the text.
    pub eot: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`, a Jinja template.
    pub chat_template: Option<String>,
    /// `tokenizer.huggingface.json`: the whole `tokenizer.json`. It is what counts where `model` is
    /// [`GgufVocab::HUGGING_FACE`], that is, where the other keys have no words for what it does.
    pub huggingface_json: Option<String>,
    /// The `tokenizer.model` that the lists were read from, where it was not a GGUF file; for messages.
    pub file: Option<PathBuf>,
}

impl GgufVocab {
    /// The `model` of a vocabulary that only its `tokenizer.json` describes. Readers that do not know the key refuse
    /// such a file, which is better than encoding wrongly.
    pub const HUGGING_FACE: &str = "huggingface";

    /// What the reader of a converted file should know.
    pub fn note(&self) -> Option<&'static str> {
        (self.model == Self::HUGGING_FACE).then_some(
            "GGUF keys have no words for this tokenizer, so the whole tokenizer.json is in the file; other programs may refuse it",
        )
    }
}
