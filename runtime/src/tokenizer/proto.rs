//! `tokenizer.model`: the few fields of the SentencePiece library's protobuf file that a vocabulary needs.

use std::path::Path;

use super::error::TokenizerError;
use super::vocab::GgufVocab;
use crate::small_file::{self, MAX_TEXT_BYTES};

/// One field of a message: its number and its value.
enum Field<'a> {
    Varint(u64, u64),
    Fixed32(u64, u32),
    Bytes(u64, &'a [u8]),
}

/// Walks the fields of a message; `None` in the middle of one means damage.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let len = usize::try_from(len).ok()?;
        let taken = self.0.get(..len)?;
        self.0 = &self.0[len..];
        Some(taken)
    }

    /// The next field, skipping 64-bit ones; `Ok(None)` at the end.
    fn next(&mut self) -> Result<Option<Field<'a>>, ()> {
        while !self.0.is_empty() {
            let tag = self.varint().ok_or(())?;
            let number = tag >> 3;
            return Ok(Some(match tag & 7 {
                0 => Field::Varint(number, self.varint().ok_or(())?),
                1 => {
                    self.take(8).ok_or(())?;
                    continue;
                }
                2 => {
                    let len = self.varint().ok_or(())?;
                    Field::Bytes(number, self.take(len).ok_or(())?)
                }
                5 => {
                    let bytes = self.take(4).and_then(|b| b.try_into().ok()).ok_or(())?;
                    Field::Fixed32(number, u32::from_le_bytes(bytes))
                }
                _ => return Err(()),
            }));
        }
        Ok(None)
    }
}

/// Reads the pieces of `path` and the ids that its trainer named.
///
/// # Errors
/// When the file is damaged, or its model is not BPE.
pub fn read(path: &Path) -> Result<GgufVocab, TokenizerError> {
    let bytes = small_file::read(path, MAX_TEXT_BYTES).map_err(|source| TokenizerError::Io {
        path: path.to_owned(),
        source,
    })?;
    let damaged = |()| TokenizerError::File {
        path: path.to_owned(),
        why: "not a SentencePiece model, or cut short".to_owned(),
    };
    let mut vocab = GgufVocab {
        model: "llama".to_owned(),
        add_space_prefix: Some(true),
        file: Some(path.to_owned()),
        ..GgufVocab::default()
    };
    // The library's defaults for what the file leaves out.
    let (mut unk, mut bos, mut eos, mut pad, mut kind) = (0i32, 1i32, 2i32, -1i32, 1u64);
    let mut fields = Fields(&bytes);
    while let Some(field) = fields.next().map_err(damaged)? {
        match field {
            Field::Bytes(1, piece) => push_piece(&mut vocab, piece).map_err(damaged)?,
            Field::Bytes(2, trainer) => {
                let mut fields = Fields(trainer);
                while let Some(field) = fields.next().map_err(damaged)? {
                    match field {
                        Field::Varint(3, value) => kind = value,
                        Field::Varint(40, value) => unk = value as i32,
                        Field::Varint(41, value) => bos = value as i32,
                        Field::Varint(42, value) => eos = value as i32,
                        Field::Varint(43, value) => pad = value as i32,
                        _ => {}
                    }
                }
            }
            Field::Bytes(3, normalizer) => {
                let mut fields = Fields(normalizer);
                while let Some(field) = fields.next().map_err(damaged)? {
                    if let Field::Varint(3, value) = field {
                        vocab.add_space_prefix = Some(value != 0);
                    }
                }
            }
            _ => {}
        }
    }
    if kind != 2 {
        return Err(TokenizerError::Unsupported {
            what: "tokenizer.model type",
            got: kind.to_string(),
            known: "2 (BPE)",
        });
    }
    if vocab.tokens.is_empty() {
        return Err(damaged(()));
    }
    let id = |id: i32| u32::try_from(id).ok();
    (vocab.unk, vocab.bos, vocab.eos, vocab.pad) = (id(unk), id(bos), id(eos), id(pad));
    Ok(vocab)
}

fn push_piece(vocab: &mut GgufVocab, piece: &[u8]) -> Result<(), ()> {
    let (mut text, mut score, mut kind) = (String::new(), 0.0, 1);
    let mut fields = Fields(piece);
    while let Some(field) = fields.next()? {
        match field {
            Field::Bytes(1, bytes) => text = String::from_utf8(bytes.to_vec()).map_err(|_| ())?,
            Field::Fixed32(2, bits) => score = f32::from_bits(bits),
            Field::Varint(3, value) => kind = i32::try_from(value).map_err(|_| ())?,
            _ => {}
        }
    }
    vocab.tokens.push(text);
    vocab.scores.push(score);
    vocab.token_types.push(kind);
    Ok(())
}

/// Tokens added after training: id, text, and whether they are special; ascending.
///
/// # Errors
/// When a file is there but cannot be read, or is not JSON.
pub fn added_tokens(folder: &Path) -> Result<Vec<(u32, String, bool)>, TokenizerError> {
    let mut added = Vec::new();
    let config = super::folder::object(&folder.join("tokenizer_config.json"))?;
    for (id, token) in config["added_tokens_decoder"]
        .as_object()
        .into_iter()
        .flatten()
    {
        if let (Ok(id), Some(text)) = (id.parse(), token["content"].as_str()) {
            let special = token["special"].as_bool().unwrap_or(false);
            added.push((id, text.to_owned(), special));
        }
    }
    let list = super::folder::object(&folder.join("added_tokens.json"))?;
    for (text, id) in list.as_object().into_iter().flatten() {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        if let Some(id) = id.filter(|id| !added.iter().any(|(known, _, _)| known == id)) {
            let special = text.starts_with('<') && text.ends_with('>') || is_bracketed(text);
            added.push((id, text.clone(), special));
        }
    }
    added.sort();
    Ok(added)
}

/// `[PAD]` and its like: the old list does not say which tokens are special.
fn is_bracketed(text: &str) -> bool {
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| !inner.is_empty() && inner.chars().all(|c| c.is_ascii_uppercase()))
}
