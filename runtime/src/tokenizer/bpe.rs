//! Byte-pair encoding by merge rank, on the stages of the `tokenizers` crate.
//!
//! The stages are run one by one here instead of through the crate's own pipeline, for four things it does not
//! offer: text in which control tokens are *not* recognised, stages that report when they give up, characters
//! without a token that are refused instead of dropped, and whole-piece look-ups that never answer with a control
//! token.

use std::collections::{HashMap, HashSet};

use tokenizers::models::bpe::{BPE, BpeBuilder, Merges, Vocab};
use tokenizers::tokenizer::Model as _;

use super::Specials;
use super::added::{AddedToken, AddedTokens, Piece};
use super::bytes::token_bytes;
use super::error::{TokenizerError, shorten};
use super::pre::PreTokenizer;
use super::stages::{Cut, Meter, Rewrite, encode_error, rewritten};
use super::vocab::{GgufVocab, TokenType};

/// A disguise: the first character stands for the second until special tokens have been found.
pub type Mask = (char, char);

/// Characters below this have an entry in a table, the letters of the byte-level alphabet among them.
const TABLE: u32 = 0x180;

/// A byte-pair encoder: text to ids, nothing else.
pub struct Bpe {
    model: BPE,
    rewrites: Vec<Rewrite>,
    cuts: Vec<Cut>,
    added: AddedTokens,
    /// Emit a piece that is a token as a whole without consulting the merges, unless it is one of `control`.
    whole_pieces: bool,
    control: HashSet<u32>,
    byte_level: bool,
    byte_fallback: bool,
    /// Whether each character below [`TABLE`] can be said.
    known: Vec<bool>,
    /// Whether something stands for characters that cannot be said.
    has_unk: bool,
}

/// What a [`Bpe`] is made of, checked.
pub struct BpeParts {
    /// Text to id, added tokens included or not.
    pub vocab: HashMap<String, u32>,
    /// Pairs in rank order; each half and each result is in `vocab`.
    pub merges: Vec<(String, String)>,
    /// Tokens that are found before cutting.
    pub added: Vec<AddedToken>,
    /// Applied to the text before cutting, one after the other.
    pub rewrites: Vec<Rewrite>,
    /// Applied one after the other.
    pub cuts: Vec<Cut>,
    /// Pieces are in the byte-level alphabet when they are merged.
    pub byte_level: bool,
    /// See [`PreTokenizer::whole_pieces`].
    pub whole_pieces: bool,
    /// Characters outside the vocabulary become `<0xXX>` tokens.
    pub byte_fallback: bool,
    /// What stands for characters outside the vocabulary.
    pub unk: Option<String>,
    /// Neighbouring unknown characters share one token.
    pub fuse_unk: bool,
}

impl Bpe {
    /// Rebuilds the encoder that a `gpt2` vocabulary was made with.
    ///
    /// # Errors
    /// When a merge names a token that is not there.
    pub fn from_gguf(
        vocab: &GgufVocab,
        types: &[TokenType],
        ids: &HashMap<&str, u32>,
        pre: &PreTokenizer,
    ) -> Result<Self, TokenizerError> {
        let tokens = (0u32..).zip(vocab.tokens.iter().zip(types));
        let added = tokens.filter_map(|(id, (text, kind))| {
            let special = match kind {
                TokenType::Control | TokenType::Unknown => true,
                TokenType::UserDefined => false,
                TokenType::Normal | TokenType::Unused | TokenType::Byte => return None,
            };
            Some(AddedToken {
                text: text.clone(),
                id,
                special,
                normalized: false,
                single_word: false,
                lstrip: false,
                rstrip: false,
            })
        });
        let mut cuts = Vec::new();
        let label = format!("the pre-tokeniser {}", pre.name);
        for regex in pre.regexes {
            cuts.push(Cut::isolated(&label, regex)?);
        }
        cuts.push(Cut::Alphabet(label));
        let list = vocab.list("merges");
        let parts = BpeParts {
            vocab: ids
                .iter()
                .map(|(&text, &id)| (text.to_owned(), id))
                .collect(),
            merges: split_merges(&list, &vocab.merges)?,
            added: added.collect(),
            rewrites: Vec::new(),
            cuts,
            byte_level: true,
            whole_pieces: pre.whole_pieces,
            byte_fallback: false,
            unk: None,
            fuse_unk: false,
        };
        check_merges(&list, |text| parts.vocab.contains_key(text), &parts.merges)?;
        Self::new(parts)
    }

    /// Builds an encoder from parts.
    ///
    /// # Errors
    /// When an added token cannot be rewritten as the text would be.
    pub fn new(parts: BpeParts) -> Result<Self, TokenizerError> {
        let control: HashSet<u32> = parts
            .added
            .iter()
            .filter(|token| token.special)
            .map(|token| token.id)
            .collect();
        let mut builder = BpeBuilder::new()
            .vocab_and_merges(
                parts.vocab.into_iter().collect::<Vocab>(),
                first_of_each(parts.merges),
            )
            .byte_fallback(parts.byte_fallback)
            .fuse_unk(parts.fuse_unk);
        let has_unk = parts.unk.is_some();
        if let Some(unk) = parts.unk {
            builder = builder.unk_token(unk);
        }
        let model = builder.build().map_err(encode_error)?;
        let meter = Meter::new(parts.added.iter().map(|token| token.text.len()).sum());
        let added = AddedTokens::new(parts.added, |text| {
            rewritten(&parts.rewrites, text, &meter, &mut 0)
        })?;
        let mut bpe = Self {
            model,
            rewrites: parts.rewrites,
            cuts: parts.cuts,
            added,
            whole_pieces: parts.whole_pieces,
            control,
            byte_level: parts.byte_level,
            byte_fallback: parts.byte_fallback,
            known: Vec::new(),
            has_unk,
        };
        bpe.known = (0..TABLE)
            .map(|code| char::from_u32(code).is_some_and(|c| bpe.look_up(c)))
            .collect();
        Ok(bpe)
    }

    /// The id of an added token or of a piece.
    pub fn id(&self, text: &str) -> Option<u32> {
        self.model.token_to_id(text)
    }

    /// Text to ids. Characters of `masks` are put back after special tokens have been found.
    ///
    /// # Errors
    /// When the vocabulary cannot express the text.
    pub fn encode(
        &self,
        text: &str,
        specials: Specials,
        masks: &[Mask],
    ) -> Result<Vec<u32>, TokenizerError> {
        let meter = Meter::new(text.len());
        let mut n_bytes = 0;
        let rewrite = |text: &str| rewritten(&self.rewrites, text, &meter, &mut n_bytes);
        let mut pieces = self.added.pieces(text, specials, rewrite)?;
        for piece in &mut pieces {
            if let Piece::Text { text, .. } = piece {
                for &(disguise, original) in masks {
                    if text.contains(disguise) {
                        *text = text.replace(disguise, original.encode_utf8(&mut [0; 4]));
                    }
                }
            }
        }
        for cut in &self.cuts {
            pieces = cut.apply(pieces, &meter)?;
        }
        let mut ids = Vec::new();
        for piece in &pieces {
            match piece {
                Piece::Token(id) => ids.push(*id),
                Piece::Text { text, .. } => self.piece(text, &mut ids)?,
            }
        }
        Ok(ids)
    }

    /// How a text is cut before merging, in the byte-level alphabet.
    #[cfg(test)]
    pub fn cut(&self, text: &str) -> Vec<String> {
        let meter = Meter::new(text.len());
        let whole = Piece::Text {
            text: text.to_owned(),
            at_start: true,
        };
        let pieces = self.cuts.iter().fold(vec![whole], |pieces, cut| {
            cut.apply(pieces, &meter).expect("cutting never fails here")
        });
        let text = |piece| match piece {
            Piece::Text { text, .. } => Some(text),
            Piece::Token(_) => None,
        };
        pieces.into_iter().filter_map(text).collect()
    }

    fn piece(&self, piece: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        if self.whole_pieces
            && let Some(id) = self.model.token_to_id(piece)
            && !self.control.contains(&id)
        {
            ids.push(id);
            return Ok(());
        }
        // The crate drops characters that it cannot say.
        if !self.has_unk
            && let Some((at, c)) = piece.char_indices().find(|&(_, c)| !self.knows(c))
        {
            let character = self.as_typed(piece, at, c);
            return Err(TokenizerError::Inexpressible { character });
        }
        let tokens = self.model.tokenize(piece).map_err(encode_error)?;
        ids.extend(tokens.iter().map(|token| token.id));
        Ok(())
    }

    /// Whether `c` is a token, or its bytes are.
    fn knows(&self, c: char) -> bool {
        let in_table = self.known.get(c as usize);
        in_table.copied().unwrap_or_else(|| self.look_up(c))
    }

    fn look_up(&self, c: char) -> bool {
        let mut buffer = [0; 4];
        let text = c.encode_utf8(&mut buffer);
        let is_token = |text: &str| self.model.token_to_id(text).is_some();
        is_token(text)
            || self.byte_fallback && text.bytes().all(|byte| is_token(&format!("<{byte:#04X}>")))
    }

    /// The character that stood in the text where the piece has `c`: in the byte-level alphabet that is one of its
    /// bytes.
    fn as_typed(&self, piece: &str, at: usize, c: char) -> char {
        if !self.byte_level {
            return c;
        }
        let (bytes, n_before) = (token_bytes(piece), token_bytes(&piece[..at]).len());
        let text = std::str::from_utf8(&bytes).unwrap_or("\u{fffd}");
        let before = text.char_indices().take_while(|&(i, _)| i <= n_before);
        before.last().map_or(c, |(_, typed)| typed)
    }
}

/// Splits `"left right"` at the first space that is not the first character.
///
/// `list` is how messages name the merges.
///
/// # Errors
/// When there is no such space.
pub fn split_merges(
    list: &str,
    merges: &[String],
) -> Result<Vec<(String, String)>, TokenizerError> {
    let split = |(index, merge): (usize, &String)| {
        let space = merge.char_indices().skip(1).find(|&(_, c)| c == ' ');
        match space.map(|(at, _)| (&merge[..at], &merge[at + 1..])) {
            Some((left, right)) if !right.is_empty() => Ok((left.to_owned(), right.to_owned())),
            _ => Err(TokenizerError::Merge {
                list: list.to_owned(),
                index,
                merge: shorten(merge),
                why: "expected two tokens separated by a space".to_owned(),
            }),
        }
    };
    merges.iter().enumerate().map(split).collect()
}

/// Both halves and the result of every merge are tokens. The crate would panic on some that are not.
///
/// # Errors
/// When a text for which `is_token` is false turns up.
pub fn check_merges(
    list: &str,
    is_token: impl Fn(&str) -> bool,
    merges: &[(String, String)],
) -> Result<(), TokenizerError> {
    let mut joined = String::new();
    for (index, (left, right)) in merges.iter().enumerate() {
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        for text in [left, right, &joined] {
            if !is_token(text) {
                return Err(TokenizerError::Merge {
                    list: list.to_owned(),
                    index,
                    merge: shorten(&format!("{left} {right}")),
                    why: format!("{:?} is not a token", shorten(text)),
                });
            }
        }
    }
    Ok(())
}

/// Where a pair is listed twice its first rank counts; the crate would take the last.
fn first_of_each(merges: Vec<(String, String)>) -> Merges {
    let mut seen = HashSet::with_capacity(merges.len());
    let repeated = merges.iter().any(|pair| !seen.insert(pair));
    if !repeated {
        return merges;
    }
    let mut seen = HashSet::new();
    let first = |pair: &(String, String)| seen.insert(pair.clone());
    merges.into_iter().filter(first).collect()
}
