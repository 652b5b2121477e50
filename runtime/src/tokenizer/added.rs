//! Tokens that are found in a text before anything else: special ones, and those added by the author.
//!
//! As in the `tokenizers` crate: first those that stand in the text as typed, then, in what is left and has been
//! rewritten, those that are rewritten, too; the leftmost, and of those the longest.

use std::sync::LazyLock;

use fancy_regex::Regex;

use super::Specials;
use super::error::TokenizerError;
use crate::search::TextSet;

/// A letter of a word, for tokens that are none within one.
static LETTER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\w").expect("a valid expression"));

/// A token that a file adds to its vocabulary.
#[derive(Clone, Debug)]
pub struct AddedToken {
    /// Its text.
    pub text: String,
    /// Its number.
    pub id: u32,
    /// Steers the model; not found in text that others have written.
    pub special: bool,
    /// Found in the rewritten text, and rewritten for that.
    pub normalized: bool,
    /// Found only where no letter stands beside it.
    pub single_word: bool,
    /// Takes the white space before it along.
    pub lstrip: bool,
    /// Takes the white space after it along.
    pub rstrip: bool,
}

/// A stretch of a text on its way to tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Still text; never empty.
    Text {
        /// What it has become.
        text: String,
        /// Whether the whole text began with it.
        at_start: bool,
    },
    /// A token.
    Token(u32),
}

/// All added tokens of a vocabulary.
pub struct AddedTokens {
    tokens: Vec<AddedToken>,
    as_typed: Finder,
    rewritten: Finder,
}

/// Sets of tokens by their places in a list: all, and those that are not special.
struct Finder {
    all: TextSet,
    plain: TextSet,
}

impl AddedTokens {
    /// Tokens of which those that are normalized are rewritten by `rewrite`.
    ///
    /// # Errors
    /// Those of `rewrite`.
    pub fn new(
        tokens: Vec<AddedToken>,
        rewrite: impl Fn(&str) -> Result<String, TokenizerError>,
    ) -> Result<Self, TokenizerError> {
        let (mut typed, mut rewritten) = (Vec::new(), Vec::new());
        for (number, token) in (0u32..).zip(&tokens) {
            match token.normalized {
                true => rewritten.push((rewrite(&token.text)?, number)),
                false => typed.push((token.text.clone(), number)),
            }
        }
        let finder = |texts: Vec<(String, u32)>| {
            let boxed = |(text, number): &(String, u32)| (text.as_str().into(), *number);
            let plain = |(_, number): &&(String, u32)| !tokens[*number as usize].special;
            Finder {
                all: TextSet::new(texts.iter().map(boxed)),
                plain: TextSet::new(texts.iter().filter(plain).map(boxed)),
            }
        };
        let (as_typed, rewritten) = (finder(typed), finder(rewritten));
        Ok(Self {
            tokens,
            as_typed,
            rewritten,
        })
    }

    /// The tokens in `text` and the texts between them, rewritten by `rewrite`.
    ///
    /// # Errors
    /// Those of `rewrite`.
    pub fn pieces(
        &self,
        text: &str,
        specials: Specials,
        mut rewrite: impl FnMut(&str) -> Result<String, TokenizerError>,
    ) -> Result<Vec<Piece>, TokenizerError> {
        let mut out = Vec::new();
        for (piece, at_start) in self.found(text, self.as_typed.of(specials)) {
            let text = match piece {
                Found::Token(id) => {
                    out.push(Piece::Token(id));
                    continue;
                }
                Found::Text(text) => rewrite(text)?,
            };
            for (piece, first) in self.found(&text, self.rewritten.of(specials)) {
                out.push(match piece {
                    Found::Token(id) => Piece::Token(id),
                    Found::Text(text) => Piece::Text {
                        text: text.to_owned(),
                        at_start: at_start && first,
                    },
                });
            }
        }
        Ok(out)
    }

    /// Tokens of `set` in `text`, and the texts between them; true for what `text` begins with.
    fn found<'t>(&self, text: &'t str, set: &TextSet) -> Vec<(Found<'t>, bool)> {
        let (mut out, mut done, mut next) = (Vec::new(), 0, 0);
        for at in set.places(text) {
            if at < next {
                continue;
            }
            let Some((len, number)) = set.longest(&text[at..]) else {
                continue;
            };
            next = at + len;
            let token = &self.tokens[number as usize];
            let (mut start, mut stop) = (at, at + len);
            if token.single_word
                && (ends_in_letter(&text[..start]) || begins_with_letter(&text[stop..]))
            {
                continue;
            }
            if token.lstrip {
                // White space that the token before took along is gone.
                start = text[..start].trim_end().len().max(done.min(start));
            }
            if token.rstrip {
                stop += text[stop..].len() - text[stop..].trim_start().len();
            }
            if done < start {
                out.push((Found::Text(&text[done..start]), done == 0));
            }
            out.push((Found::Token(token.id), start == 0));
            // A token within white space that was taken along still counts; what it takes is taken once.
            done = done.max(stop);
        }
        if done < text.len() {
            out.push((Found::Text(&text[done..]), done == 0));
        }
        out
    }
}

enum Found<'t> {
    Text(&'t str),
    Token(u32),
}

impl Finder {
    fn of(&self, specials: Specials) -> &TextSet {
        match specials {
            Specials::Parse => &self.all,
            Specials::AsText => &self.plain,
        }
    }
}

fn is_letter(c: Option<char>) -> bool {
    c.is_some_and(|c| LETTER.is_match(c.encode_utf8(&mut [0; 4])).unwrap_or(false))
}

fn ends_in_letter(text: &str) -> bool {
    is_letter(text.chars().next_back())
}

fn begins_with_letter(text: &str) -> bool {
    is_letter(text.chars().next())
}
