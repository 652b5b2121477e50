//! Text to token ids and back, from `tokenizer.json` or from the keys of a GGUF file.

mod vocab;

pub use vocab::{GgufVocab, TokenType};
