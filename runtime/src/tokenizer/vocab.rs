//! Checks on a GGUF file's vocabulary before anything encodes with it.

use super::error::TokenizerError;
use super::spm::parse_byte;
pub use crate::vocab::{GgufVocab, TokenType};

impl GgufVocab {
    /// How messages name one of the lists: as the file that it came from does.
    pub(super) fn list(&self, name: &str) -> String {
        match &self.file {
            Some(file) => format!("{}: {name}", file.display()),
            None => format!("tokenizer.ggml.{name}"),
        }
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
            let list = self.list("tokens");
            return Err(TokenizerError::Empty { list });
        }
        let named = [
            ("bos_token_id", self.bos),
            ("eos_token_id", self.eos),
            ("eot_token_id", self.eot),
            ("unknown_token_id", self.unk),
        ];
        for (name, id) in named {
            if let Some(id) = id.filter(|&id| id as usize >= n_vocab) {
                let key = self.list(name);
                return Err(TokenizerError::SpecialId { key, id, n_vocab });
            }
        }
        let mut types = if self.token_types.is_empty() {
            self.guessed_types()
        } else {
            self.check_length("token_type", self.token_types.len())?;
            let known = |(id, &got): (u32, &i32)| {
                TokenType::from_gguf(got).ok_or_else(|| TokenizerError::Type {
                    list: self.list("token_type"),
                    id,
                    got,
                })
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
        self.check_length("scores", self.scores.len())?;
        match (0u32..).zip(&self.scores).find(|(_, score)| score.is_nan()) {
            Some((id, _)) => Err(TokenizerError::Score {
                list: self.list("scores"),
                id,
            }),
            None => Ok(self.scores.clone()),
        }
    }

    fn check_length(&self, name: &str, got: usize) -> Result<(), TokenizerError> {
        let expected = self.tokens.len();
        if expected == got {
            return Ok(());
        }
        let list = self.list(name);
        Err(TokenizerError::Length {
            list,
            expected,
            got,
        })
    }
}
