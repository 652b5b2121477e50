//! Checks on a GGUF file's vocabulary before anything encodes with it.

use super::error::TokenizerError;
use super::spm::parse_byte;
pub use crate::vocab::{GgufVocab, TokenType};

impl GgufVocab {
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
