//! The vocabulary as a GGUF file states it: plain data, no behaviour of its own.
//!
//! A format reader fills [`GgufVocab`] from the `tokenizer.*` keys; a converter fills it from
//! `tokenizer.json` and writes the same keys. [`super::Tokenizer`] turns it into something that encodes.

use super::error::TokenizerError;
use super::spm::parse_byte;

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
    /// `tokenizer.huggingface.json`: the whole `tokenizer.json`. It is what counts where `model` is
    /// [`GgufVocab::HUGGING_FACE`], that is, where the other keys have no words for what it does.
    pub huggingface_json: Option<String>,
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

    /// Checks that the keys fit together, and gives every token its type.
    ///
    /// Where the file has no types they follow from the texts and the named ids. Empty tokens are unused, and the
    /// well-known texts that end a turn are control tokens even where a file calls them ordinary.
    ///
    /// # Errors
    /// When the vocabulary is empty, a list has another length, a type is unknown, or a named id has no token.
    pub(super) fn checked_types(&self) -> Result<Vec<TokenType>, TokenizerError> {
        let n_vocab = self.tokens.len();
        if n_vocab == 0 {
            return Err(TokenizerError::Empty);
        }
        let named = [
            ("tokenizer.ggml.bos_token_id", self.bos),
            ("tokenizer.ggml.eos_token_id", self.eos),
            ("tokenizer.ggml.eot_token_id", self.eot),
            ("tokenizer.ggml.unknown_token_id", self.unk),
        ];
        for (key, id) in named {
            if let Some(id) = id.filter(|&id| id as usize >= n_vocab) {
                return Err(TokenizerError::SpecialId { key, id, n_vocab });
            }
        }
        let mut types = if self.token_types.is_empty() {
            self.guessed_types()
        } else {
            check_length("tokenizer.ggml.token_type", n_vocab, self.token_types.len())?;
            let known = |(id, &got): (u32, &i32)| {
                TokenType::from_gguf(got).ok_or(TokenizerError::Type { id, got })
            };
            (0u32..)
                .zip(&self.token_types)
                .map(known)
                .collect::<Result<Vec<_>, _>>()?
        };
        for (kind, text) in types.iter_mut().zip(&self.tokens) {
            if text.is_empty() {
                *kind = TokenType::Unused;
            } else if super::STOP_TEXTS.contains(&text.as_str()) {
                *kind = TokenType::Control;
            }
        }
        Ok(types)
    }

    fn guessed_types(&self) -> Vec<TokenType> {
        let named = [self.bos, self.eos, self.eot, self.pad];
        let guess = |(id, text): (u32, &String)| {
            if self.unk == Some(id) {
                TokenType::Unknown
            } else if named.contains(&Some(id)) {
                TokenType::Control
            } else if self.model == "llama" && parse_byte(text).is_some() {
                TokenType::Byte
            } else {
                TokenType::Normal
            }
        };
        (0u32..).zip(&self.tokens).map(guess).collect()
    }

    /// The scores that a SentencePiece vocabulary cannot do without.
    ///
    /// # Errors
    /// When they are absent, of another number than the tokens, or not comparable.
    pub(super) fn checked_scores(&self) -> Result<Vec<f32>, TokenizerError> {
        check_length(
            "tokenizer.ggml.scores",
            self.tokens.len(),
            self.scores.len(),
        )?;
        match (0u32..).zip(&self.scores).find(|(_, score)| score.is_nan()) {
            Some((id, _)) => Err(TokenizerError::Score { id }),
            None => Ok(self.scores.clone()),
        }
    }
}

fn check_length(key: &'static str, expected: usize, got: usize) -> Result<(), TokenizerError> {
    if expected == got {
        return Ok(());
    }
    Err(TokenizerError::Length { key, expected, got })
}
