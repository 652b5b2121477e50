//! Byte-pair encoding by merge rank, on the stages of the `tokenizers` crate.
//!
//! The stages are run one by one here instead of through the crate's own pipeline, for three things it does not
//! offer: text in which control tokens are *not* recognised, regular expressions that report when they give up,
//! and whole-piece look-ups that never answer with a control token.

use std::collections::{HashMap, HashSet};

use tokenizers::models::bpe::{BPE, BpeBuilder, Merges, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::tokenizer::{
    AddedToken, AddedVocabulary, Model, NormalizerWrapper, OffsetType, PreTokenizedString,
    PreTokenizer as _, PreTokenizerWrapper, SplitDelimiterBehavior, Token,
};

use super::Specials;
use super::bytes::byte_to_char;
use super::cut::Cutter;
use super::error::TokenizerError;
use super::pre::PreTokenizer;
use super::vocab::{GgufVocab, TokenType};

/// A disguise: the first character stands for the second until special tokens have been found.
pub type Mask = (char, char);

/// One cut of the text before merging.
enum Cut {
    /// Matches and the gaps between them become pieces (or as the behaviour says).
    Regex(Box<Cutter>, SplitDelimiterBehavior),
    /// Any other stage of the crate.
    Stage(PreTokenizerWrapper),
}

/// A byte-pair encoder: text to ids, nothing else.
pub struct Bpe {
    model: BPE,
    normalizer: Option<NormalizerWrapper>,
    cuts: Vec<Cut>,
    /// Finds special tokens and those added by the author.
    with_specials: AddedVocabulary,
    /// Finds only those added by the author.
    as_text: AddedVocabulary,
    /// Emit a piece that is a token as a whole without consulting the merges, unless it is one of `control`.
    whole_pieces: bool,
    control: HashSet<u32>,
    /// Bytes without a token, in the byte-level alphabet; usually none.
    missing: Vec<char>,
}

/// What a [`Bpe`] is made of, checked.
pub struct BpeParts {
    /// Text to id, added tokens included or not.
    pub vocab: HashMap<String, u32>,
    /// Pairs in rank order; each half and each result is in `vocab`.
    pub merges: Vec<(String, String)>,
    /// Tokens that are found before cutting.
    pub added: Vec<AddedToken>,
    /// Applied to the text before cutting.
    pub normalizer: Option<NormalizerWrapper>,
    /// Applied one after the other.
    pub pre_tokenizer: Option<PreTokenizerWrapper>,
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
        let added = vocab.tokens.iter().zip(types).filter_map(|(text, kind)| {
            let special = match kind {
                TokenType::Control | TokenType::Unknown => true,
                TokenType::UserDefined => false,
                TokenType::Normal | TokenType::Unused | TokenType::Byte => return None,
            };
            Some(AddedToken::from(text.clone(), special).normalized(false))
        });
        let parts = BpeParts {
            vocab: ids
                .iter()
                .map(|(&text, &id)| (text.to_owned(), id))
                .collect(),
            merges: split_merges(&vocab.merges)?,
            added: added.collect(),
            normalizer: None,
            pre_tokenizer: None,
            whole_pieces: pre.whole_pieces,
            byte_fallback: false,
            unk: None,
            fuse_unk: false,
        };
        check_merges(|text| parts.vocab.contains_key(text), &parts.merges)?;
        let mut bpe = Self::new(parts)?;
        for regex in pre.regexes {
            bpe.cuts.push(Cut::Regex(
                Box::new(compile(regex)?),
                SplitDelimiterBehavior::Isolated,
            ));
        }
        let to_alphabet = ByteLevel::new(false, true, false);
        bpe.cuts.push(Cut::Stage(to_alphabet.into()));
        // Valid UTF-8 holds neither 0xC0, 0xC1 nor anything from 0xF5 on.
        bpe.missing = (0..=0xf4u8)
            .filter(|byte| !matches!(byte, 0xc0 | 0xc1))
            .map(byte_to_char)
            .filter(|c| !ids.contains_key(c.encode_utf8(&mut [0; 4]) as &str))
            .collect();
        Ok(bpe)
    }

    /// Builds an encoder from parts.
    ///
    /// # Errors
    /// When a regular expression does not compile.
    pub fn new(parts: BpeParts) -> Result<Self, TokenizerError> {
        let control: HashSet<u32> = parts
            .added
            .iter()
            .filter(|token| token.special)
            .filter_map(|token| parts.vocab.get(&token.content).copied())
            .collect();
        let mut builder = BpeBuilder::new()
            .vocab_and_merges(
                parts.vocab.into_iter().collect::<Vocab>(),
                first_of_each(parts.merges),
            )
            .byte_fallback(parts.byte_fallback)
            .fuse_unk(parts.fuse_unk);
        if let Some(unk) = parts.unk {
            builder = builder.unk_token(unk);
        }
        let model = builder.build().map_err(encode_error)?;
        let mut with_specials = AddedVocabulary::new();
        with_specials
            .add_tokens(parts.added, &model, parts.normalizer.as_ref())
            .map_err(encode_error)?;
        let mut as_text = with_specials.clone();
        as_text.set_encode_special_tokens(true);
        Ok(Self {
            model,
            normalizer: parts.normalizer,
            cuts: cuts(parts.pre_tokenizer)?,
            with_specials,
            as_text,
            whole_pieces: parts.whole_pieces,
            control,
            missing: Vec::new(),
        })
    }

    /// The id of an added token or of a piece.
    pub fn id(&self, text: &str) -> Option<u32> {
        self.with_specials.token_to_id(text, &self.model)
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
        let added = match specials {
            Specials::Parse => &self.with_specials,
            Specials::AsText => &self.as_text,
        };
        let mut pieces = added.extract_and_normalize(self.normalizer.as_ref(), text);
        for &(disguise, original) in masks {
            let original = String::from(original);
            pieces
                .normalize(|piece| piece.replace(disguise, &original))
                .map_err(encode_error)?;
        }
        for cut in &self.cuts {
            cut_pieces(cut, &mut pieces)?;
        }
        if !self.missing.is_empty() {
            self.refuse_missing(&pieces)?;
        }
        pieces
            .tokenize(|piece| self.piece(piece.get()))
            .map_err(encode_error)?;
        let encoding = pieces
            .into_encoding(None, 0, OffsetType::None)
            .map_err(encode_error)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// How a text is cut before merging, in the byte-level alphabet.
    #[cfg(test)]
    pub fn cut(&self, text: &str) -> Vec<String> {
        let mut pieces = PreTokenizedString::from(text);
        for cut in &self.cuts {
            cut_pieces(cut, &mut pieces).expect("cutting never fails here");
        }
        let referential = tokenizers::OffsetReferential::Normalized;
        let splits = pieces.get_splits(referential, OffsetType::None);
        splits
            .iter()
            .map(|(text, _, _)| (*text).to_owned())
            .collect()
    }

    fn piece(&self, piece: &str) -> tokenizers::Result<Vec<Token>> {
        if self.whole_pieces
            && let Some(id) = self.model.token_to_id(piece)
            && !self.control.contains(&id)
        {
            return Ok(vec![Token::new(id, String::new(), (0, piece.len()))]);
        }
        self.model.tokenize(piece)
    }

    /// Bytes without a token would vanish silently.
    fn refuse_missing(&self, pieces: &PreTokenizedString) -> Result<(), TokenizerError> {
        let splits = pieces.get_splits(tokenizers::OffsetReferential::Normalized, OffsetType::None);
        for (text, _, tokens) in splits {
            if tokens.is_none() && text.contains(self.missing.as_slice()) {
                let bytes = super::bytes::token_bytes(text);
                return Err(TokenizerError::Inexpressible {
                    text: String::from_utf8_lossy(&bytes).into_owned(),
                });
            }
        }
        Ok(())
    }
}

fn cut_pieces(cut: &Cut, pieces: &mut PreTokenizedString) -> Result<(), TokenizerError> {
    match cut {
        Cut::Regex(regex, behavior) => {
            let regex: &Cutter = regex;
            pieces.split(|_, piece| piece.split(regex, *behavior))
        }
        Cut::Stage(stage) => stage.pre_tokenize(pieces),
    }
    .map_err(encode_error)
}

/// The crate's stages, with its silent regular expressions replaced by ones that report.
fn cuts(stage: Option<PreTokenizerWrapper>) -> Result<Vec<Cut>, TokenizerError> {
    let mut cuts = Vec::new();
    match stage {
        None => {}
        Some(PreTokenizerWrapper::Sequence(stages)) => {
            for stage in stages.into_iter() {
                cuts.extend(self::cuts(Some(stage))?);
            }
        }
        Some(PreTokenizerWrapper::Split(split)) if !split.invert => {
            let regex = match &split.pattern {
                SplitPattern::Regex(regex) => compile(regex)?,
                SplitPattern::String(text) => compile(&fancy_regex::escape(text))?,
            };
            cuts.push(Cut::Regex(Box::new(regex), split.behavior));
        }
        Some(PreTokenizerWrapper::ByteLevel(stage))
            if stage.use_regex && !stage.add_prefix_space =>
        {
            // The crate's own expression is GPT-2's, and as silent.
            let gpt2 = PreTokenizer::named("gpt-2").expect("`gpt-2` is in PRE_TOKENIZERS");
            let isolated = SplitDelimiterBehavior::Isolated;
            for regex in gpt2.regexes {
                cuts.push(Cut::Regex(Box::new(compile(regex)?), isolated));
            }
            cuts.push(Cut::Stage(stage.use_regex(false).into()));
        }
        Some(stage) => cuts.push(Cut::Stage(stage)),
    }
    Ok(cuts)
}

fn compile(regex: &str) -> Result<Cutter, TokenizerError> {
    Cutter::new(regex).map_err(|error| TokenizerError::Encode {
        why: format!("the pre-tokeniser's regular expression {regex:?}: {error}"),
    })
}

fn encode_error(error: Box<dyn std::error::Error + Send + Sync>) -> TokenizerError {
    TokenizerError::Encode {
        why: error.to_string(),
    }
}

/// Splits `"left right"` at the first space that is not the first character.
///
/// # Errors
/// When there is no such space.
pub fn split_merges(merges: &[String]) -> Result<Vec<(String, String)>, TokenizerError> {
    let split = |(index, merge): (usize, &String)| {
        let space = merge.char_indices().skip(1).find(|&(_, c)| c == ' ');
        match space.map(|(at, _)| (&merge[..at], &merge[at + 1..])) {
            Some((left, right)) if !right.is_empty() => Ok((left.to_owned(), right.to_owned())),
            _ => Err(TokenizerError::Merge {
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

/// At most sixty characters of a text, for messages.
pub fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
