//! SentencePiece BPE: merging neighbours by score, with bytes for what the vocabulary lacks.
//!
//! Spaces are written `▁` (U+2581). The pair whose joined text is the token with the highest score is merged first,
//! the leftmost of equals; O(n log n) with a heap over a linked list. This is not the Unigram model's best path.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use super::Specials;
use super::bpe::Mask;
use super::error::TokenizerError;
use super::vocab::TokenType;
use crate::search::TextSet;

/// What SentencePiece writes for a space.
pub const SPACE: char = '\u{2581}';

/// A SentencePiece encoder: text to ids, nothing else.
pub struct SentencePiece {
    /// Tokens that merging may produce.
    ids: HashMap<Box<str>, u32>,
    scores: Vec<f32>,
    bytes: [Option<u32>; 256],
    unk: Option<u32>,
    add_space_prefix: bool,
    /// Tokens that are found in the text before merging.
    added: TextSet,
    /// Those of them that are no control tokens.
    added_as_text: TextSet,
}

/// One character or the result of merges, linked to its neighbours.
#[derive(Clone, Copy)]
struct Symbol {
    start: usize,
    /// Zero once the symbol has become part of its left neighbour.
    len: usize,
    prev: Option<usize>,
    next: Option<usize>,
}

/// A possible merge of two neighbouring symbols.
struct Candidate {
    score: f32,
    left: usize,
    right: usize,
    /// Length of the joined text: a candidate is stale when its symbols have changed since.
    len: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_score = self.score.total_cmp(&other.score);
        by_score.then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

impl SentencePiece {
    /// Builds the encoder; `scores` has one entry a token and no NaN.
    pub fn new(
        tokens: &[String],
        types: &[TokenType],
        scores: Vec<f32>,
        unk: Option<u32>,
        add_space_prefix: bool,
    ) -> Self {
        assert_eq!(tokens.len(), types.len());
        assert_eq!(tokens.len(), scores.len());
        let mut ids = HashMap::new();
        let mut bytes = [None; 256];
        let (mut control, mut added) = (Vec::new(), Vec::new());
        for (id, (text, kind)) in (0u32..).zip(tokens.iter().zip(types)) {
            match kind {
                _ if text.is_empty() => {}
                TokenType::Byte => {
                    if let Some(byte) = parse_byte(text) {
                        bytes[usize::from(byte)] = Some(id);
                    }
                }
                // Text that happens to spell a control token must not become it.
                TokenType::Control | TokenType::Unknown => {
                    control.push((text.as_str().into(), id));
                }
                TokenType::UserDefined => added.push((text.as_str().into(), id)),
                TokenType::Normal | TokenType::Unused => {
                    ids.insert(text.clone().into_boxed_str(), id);
                }
            }
        }
        let added_as_text = TextSet::new(added.iter().cloned());
        Self {
            ids,
            scores,
            bytes,
            unk,
            add_space_prefix,
            added: TextSet::new(control.into_iter().chain(added)),
            added_as_text,
        }
    }

    /// Text to ids. Characters of `masks` are put back after special tokens have been found.
    ///
    /// # Errors
    /// When the vocabulary cannot express a character.
    pub fn encode(
        &self,
        text: &str,
        specials: Specials,
        masks: &[Mask],
    ) -> Result<Vec<u32>, TokenizerError> {
        let added = match specials {
            Specials::Parse => &self.added,
            Specials::AsText => &self.added_as_text,
        };
        let (mut out, mut done) = (Vec::new(), 0);
        for at in added.places(text) {
            let found = (at >= done).then(|| added.longest(&text[at..])).flatten();
            if let Some((len, id)) = found {
                self.encode_plain(&text[done..at], masks, &mut out)?;
                out.push(id);
                done = at + len;
            }
        }
        self.encode_plain(&text[done..], masks, &mut out)?;
        Ok(out)
    }

    fn encode_plain(
        &self,
        plain: &str,
        masks: &[Mask],
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        if plain.is_empty() {
            return Ok(());
        }
        let mut text = String::with_capacity(plain.len() + 3);
        // Both the start of the text and what follows a special token get the prefix.
        if self.add_space_prefix {
            text.push(SPACE);
        }
        for c in plain.chars() {
            let c = masks
                .iter()
                .find(|mask| mask.0 == c)
                .map_or(c, |mask| mask.1);
            text.push(if c == ' ' { SPACE } else { c });
        }
        let mut symbols = split_chars(&text);
        self.merge(&text, &mut symbols);
        let mut at = Some(0);
        while let Some(i) = at {
            let symbol = symbols[i];
            self.emit(&text[symbol.start..symbol.start + symbol.len], out)?;
            at = symbol.next;
        }
        Ok(())
    }

    fn merge(&self, text: &str, symbols: &mut [Symbol]) {
        let mut heap = BinaryHeap::new();
        for right in 1..symbols.len() {
            heap.extend(self.candidate(text, symbols, right - 1, right));
        }
        while let Some(best) = heap.pop() {
            let (left, right) = (symbols[best.left], symbols[best.right]);
            if left.len == 0 || right.len == 0 || left.len + right.len != best.len {
                continue;
            }
            symbols[best.left].len = best.len;
            symbols[best.left].next = right.next;
            symbols[best.right].len = 0;
            if let Some(next) = right.next {
                symbols[next].prev = Some(best.left);
                heap.extend(self.candidate(text, symbols, best.left, next));
            }
            if let Some(prev) = left.prev {
                heap.extend(self.candidate(text, symbols, prev, best.left));
            }
        }
    }

    fn candidate(
        &self,
        text: &str,
        symbols: &[Symbol],
        left: usize,
        right: usize,
    ) -> Option<Candidate> {
        let len = symbols[left].len + symbols[right].len;
        let start = symbols[left].start;
        let id = *self.ids.get(&text[start..start + len])?;
        Some(Candidate {
            score: self.scores[id as usize],
            left,
            right,
            len,
        })
    }

    fn emit(&self, symbol: &str, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        if let Some(&id) = self.ids.get(symbol) {
            out.push(id);
            return Ok(());
        }
        let bytes: Option<Vec<u32>> = symbol
            .bytes()
            .map(|byte| self.bytes[usize::from(byte)])
            .collect();
        match (bytes, self.unk) {
            (Some(bytes), _) => out.extend(bytes),
            (None, Some(unk)) => out.push(unk),
            (None, None) => {
                // What merging left alone and no token says is one character.
                let character = symbol.chars().next().unwrap_or(char::REPLACEMENT_CHARACTER);
                return Err(TokenizerError::Inexpressible { character });
            }
        }
        Ok(())
    }
}

fn split_chars(text: &str) -> Vec<Symbol> {
    let n = text.chars().count();
    let symbol = |(i, (start, c)): (usize, (usize, char))| Symbol {
        start,
        len: c.len_utf8(),
        prev: i.checked_sub(1),
        next: (i + 1 < n).then_some(i + 1),
    };
    text.char_indices().enumerate().map(symbol).collect()
}

/// The byte that a token written `<0xXX>` stands for.
pub fn parse_byte(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let plain = hex.len() == 2 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u8::from_str_radix(hex, 16).ok()).flatten()
}
