//! What each token prints: one table of raw bytes, whatever the vocabulary.

use super::bytes::token_bytes;
use super::json::Spelling;
use super::spm::{SPACE, parse_byte};
use super::vocab::TokenType;

/// What each token prints.
pub struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// How the vocabulary writes each token.
    pub texts: Vec<String>,
    /// What each token is for.
    pub types: Vec<TokenType>,
}

impl Pieces {
    /// The table of a vocabulary in id order.
    pub fn new(tokens: Vec<(String, TokenType)>, spelling: Spelling) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(tokens.len()));
        for (text, kind) in &tokens {
            match (kind, spelling) {
                (TokenType::Control | TokenType::Unknown | TokenType::UserDefined, _) => {
                    bytes.extend_from_slice(text.as_bytes());
                }
                (TokenType::Byte, Spelling::SentencePiece { .. }) => bytes.extend(parse_byte(text)),
                (_, Spelling::SentencePiece { .. }) => {
                    let mut buffer = [0; 4];
                    for c in text.chars() {
                        let c = if c == SPACE { ' ' } else { c };
                        bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                    }
                }
                (_, Spelling::ByteLevel) => bytes.extend(token_bytes(text)),
            }
            ends.push(bytes.len());
        }
        let (texts, types) = tokens.into_iter().unzip();
        Self {
            bytes,
            ends,
            texts,
            types,
        }
    }

    /// The bytes of token `id`, special or not.
    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        let end = *self.ends.get(id as usize)?;
        let start = (id as usize).checked_sub(1).map_or(0, |i| self.ends[i]);
        Some(&self.bytes[start..end])
    }
}
