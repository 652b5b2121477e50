//! The vocabulary as a GGUF file states it: plain data, no behaviour of its own.
//!
//! A format reader fills [`GgufVocab`] from the `tokenizer.*` keys; a converter fills it from
//! `tokenizer.json` and writes the same keys. [`super::Tokenizer`] turns it into something that encodes.

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
/// judge them: the checks are made, with typed errors, when a [`super::Tokenizer`] is built.
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
}
