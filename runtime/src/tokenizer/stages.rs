//! The stages of a `tokenizer.json` before its model: read one by one, checked, and bounded.
//!
//! A file may chain any stages, so what they cost is bounded: their number, and how far they may grow a text, counted
//! after each stage ([`Meter`]). What a regular expression may cost is `cut`'s business.
//!
//! Each stage gets plain text and gives plain text. The crate's own pipeline keeps track of where every letter came
//! from, which nothing here asks, and loses count (and panics) where some stages follow each other.

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::tokenizer::{
    NormalizedString, Normalizer as _, NormalizerWrapper, OffsetReferential, OffsetType,
    PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper, SplitDelimiterBehavior,
};

use super::added::Piece;
use super::bytes::byte_to_char;
use super::cut::{Cutter, Matches, Watch};
use super::error::{TokenizerError, shorten};
use super::pre::PreTokenizer;

/// Stages of one kind that a file may chain; those of models have up to six.
const MAX_STAGES: usize = 32;

/// What stages may make of a text: these bytes, and [`GROWTH`] times the text. Real stages at most triple a long text.
const GROWN_BYTES: usize = 256 << 10;
const GROWTH: usize = 8;

/// The kinds that are read, for messages.
const NORMALIZERS: &str = "Sequence, Replace, Prepend, NFC, NFD, NFKC, NFKD, Nmt, Strip, StripAccents, Lowercase, \
    BertNormalizer, ByteLevel";
const PRE_TOKENIZERS: &str = "Sequence, Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit, \
    CharDelimiterSplit, UnicodeScripts, FixedLength, BertPreTokenizer";

/// One change of the text before it is cut.
pub struct Rewrite {
    /// Where the file has it, for messages.
    label: String,
    kind: RewriteKind,
}

enum RewriteKind {
    /// Matches become another text.
    Replace(Box<Cutter>, String),
    /// The text gets another text in front.
    Prepend(String),
    /// Every byte becomes a character of the byte-level alphabet.
    Alphabet,
    /// Any other stage of the crate.
    Stage(Box<NormalizerWrapper>),
}

/// One cut of the text before merging.
pub enum Cut {
    /// Matches and the gaps between them become pieces (or as the behaviour says); inverted, gaps are the matches.
    Regex {
        /// What matches.
        cutter: Box<Cutter>,
        /// What becomes of a match.
        behavior: SplitDelimiterBehavior,
        /// Whether gaps and matches change places.
        invert: bool,
    },
    /// Every piece starts with a space.
    PrefixSpace,
    /// Every byte becomes a character of the byte-level alphabet; with its place in the file, for messages.
    Alphabet(String),
    /// Any other stage of the crate.
    Stage {
        /// Where the file has it, for messages.
        label: String,
        /// For the piece that the text begins with.
        first: Box<PreTokenizerWrapper>,
        /// For all others, where it is not the same.
        other: Option<Box<PreTokenizerWrapper>>,
    },
}

impl Cut {
    /// Matches of a known pre-tokeniser's expression and the gaps between them are pieces.
    ///
    /// # Errors
    /// When `regex` is no regular expression.
    pub fn isolated(label: &str, regex: &str) -> Result<Self, TokenizerError> {
        Ok(Self::Regex {
            cutter: Box::new(Cutter::new(label, regex)?),
            behavior: SplitDelimiterBehavior::Isolated,
            invert: false,
        })
    }

    /// Cuts all pieces that are text.
    ///
    /// # Errors
    /// When the stage takes too long or grows the text too far.
    pub fn apply(&self, pieces: Vec<Piece>, meter: &Meter) -> Result<Vec<Piece>, TokenizerError> {
        let mut out = Vec::with_capacity(pieces.len());
        let mut bytes = 0;
        for piece in pieces {
            let Piece::Text { text, at_start } = piece else {
                out.push(piece);
                continue;
            };
            match self {
                Self::Regex {
                    cutter,
                    behavior,
                    invert,
                } => {
                    let mut matches = cutter.matches(&text, &meter.watch)?;
                    for (_, is_match) in &mut matches {
                        *is_match ^= *invert;
                    }
                    let parts = kept(matches, *behavior).into_iter();
                    out.extend(parts.map(|(start, end)| Piece::Text {
                        text: text[start..end].to_owned(),
                        at_start: at_start && start == 0,
                    }));
                }
                Self::PrefixSpace => out.push(Piece::Text {
                    text: match text.starts_with(' ') {
                        true => text,
                        false => format!(" {text}"),
                    },
                    at_start,
                }),
                Self::Alphabet(label) => {
                    let text: String = text.bytes().map(byte_to_char).collect();
                    bytes += text.len();
                    meter.allow(label, bytes)?;
                    out.push(Piece::Text { text, at_start });
                }
                Self::Stage {
                    label,
                    first,
                    other,
                } => {
                    let stage = match other {
                        Some(other) if !at_start => other,
                        _ => first,
                    };
                    let mut cut = PreTokenizedString::from(text);
                    stage.pre_tokenize(&mut cut).map_err(encode_error)?;
                    let parts = cut.get_splits(OffsetReferential::Normalized, OffsetType::None);
                    for (index, (text, _, _)) in parts.into_iter().enumerate() {
                        bytes += text.len();
                        out.push(Piece::Text {
                            text: text.to_owned(),
                            at_start: at_start && index == 0,
                        });
                    }
                    meter.allow(label, bytes)?;
                }
            }
        }
        Ok(out)
    }
}

/// The stretches that are left of matches and gaps, none of them empty.
fn kept(matches: Matches, behavior: SplitDelimiterBehavior) -> Vec<(usize, usize)> {
    let mut kept: Vec<(usize, usize)> = Vec::with_capacity(matches.len());
    let mut was_match = false;
    match behavior {
        SplitDelimiterBehavior::Isolated => kept.extend(matches.into_iter().map(|(at, _)| at)),
        SplitDelimiterBehavior::Removed => {
            let gaps = matches.into_iter().filter(|(_, is_match)| !is_match);
            kept.extend(gaps.map(|(at, _)| at));
        }
        SplitDelimiterBehavior::Contiguous => {
            for (at, is_match) in matches {
                match kept.last_mut().filter(|_| is_match == was_match) {
                    Some(last) => last.1 = at.1,
                    None => kept.push(at),
                }
                was_match = is_match;
            }
        }
        SplitDelimiterBehavior::MergedWithPrevious => {
            for (at, is_match) in matches {
                match kept.last_mut().filter(|_| is_match && !was_match) {
                    Some(last) => last.1 = at.1,
                    None => kept.push(at),
                }
                was_match = is_match;
            }
        }
        SplitDelimiterBehavior::MergedWithNext => {
            for (at, is_match) in matches.into_iter().rev() {
                match kept.last_mut().filter(|_| is_match && !was_match) {
                    Some(next) => next.0 = at.0,
                    None => kept.push(at),
                }
                was_match = is_match;
            }
            kept.reverse();
        }
    }
    kept.retain(|(start, end)| start < end);
    kept
}

/// What the stages may make of one text, and how long they may take.
pub struct Meter {
    watch: Watch,
    text_bytes: usize,
    limit_bytes: usize,
}

impl Meter {
    /// For a text of this length; the clock starts.
    pub fn new(text_bytes: usize) -> Self {
        Self {
            watch: Watch::start(text_bytes),
            text_bytes,
            limit_bytes: GROWN_BYTES.saturating_add(text_bytes.saturating_mul(GROWTH)),
        }
    }

    fn allow(&self, label: &str, bytes: usize) -> Result<(), TokenizerError> {
        if bytes <= self.limit_bytes {
            return Ok(());
        }
        Err(TokenizerError::Growth {
            stage: label.to_owned(),
            text_bytes: self.text_bytes,
            limit_bytes: self.limit_bytes,
        })
    }
}

/// Applies `rewrites` one after the other. `before` counts the bytes of all stretches that the meter's text has so
/// far become.
///
/// # Errors
/// When a stage takes too long or grows the text too far.
pub fn rewritten(
    rewrites: &[Rewrite],
    text: &str,
    meter: &Meter,
    before: &mut usize,
) -> Result<String, TokenizerError> {
    let mut text = text.to_owned();
    for rewrite in rewrites {
        text = rewrite.apply(text, meter, *before)?;
    }
    *before += text.len();
    Ok(text)
}

impl Rewrite {
    fn apply(
        &self,
        mut text: String,
        meter: &Meter,
        before: usize,
    ) -> Result<String, TokenizerError> {
        let allow = |bytes: usize| meter.allow(&self.label, before.saturating_add(bytes));
        let rewritten = match &self.kind {
            RewriteKind::Replace(cutter, content) => {
                let found = cutter.matches(&text, &meter.watch)?;
                let n_matches = found.iter().filter(|(_, is_match)| *is_match).count();
                allow(n_matches.saturating_mul(content.len()))?;
                let part = |((start, end), is_match): ((usize, usize), bool)| match is_match {
                    true => content.as_str(),
                    false => &text[start..end],
                };
                found.into_iter().map(part).collect()
            }
            RewriteKind::Prepend(front) if !text.is_empty() => {
                allow(text.len().saturating_add(front.len()))?;
                text.insert_str(0, front);
                text
            }
            RewriteKind::Prepend(_) => text,
            RewriteKind::Alphabet => text.bytes().map(byte_to_char).collect(),
            // The largest step of these is that of U+FDFA, eleven times its bytes, in NFKC and NFKD.
            RewriteKind::Stage(stage) => {
                let mut normalized = NormalizedString::from(text);
                stage.normalize(&mut normalized).map_err(encode_error)?;
                normalized.get().to_owned()
            }
        };
        allow(rewritten.len())?;
        Ok(rewritten)
    }
}

/// What the crate says.
pub fn encode_error(error: Box<dyn std::error::Error + Send + Sync>) -> TokenizerError {
    TokenizerError::Encode {
        why: error.to_string(),
    }
}

/// Every stage of a possibly nested description, in order; a sequence of none is none.
pub fn flatten(stage: Option<&Value>) -> Vec<&Value> {
    let Some(stage) = stage.filter(|stage| !stage.is_null()) else {
        return Vec::new();
    };
    let nested = ["normalizers", "pretokenizers", "processors", "decoders"];
    let mut lists = nested.iter().filter_map(|key| stage.get(key)?.as_array());
    match lists.next() {
        Some(list) => list.iter().flat_map(|stage| flatten(Some(stage))).collect(),
        None if kind(stage) == "Sequence" => Vec::new(),
        None => vec![stage],
    }
}

/// The `type` of a stage.
pub fn kind(stage: &Value) -> &str {
    stage.get("type").and_then(Value::as_str).unwrap_or("")
}

/// One stage in its file, for messages.
struct Place<'a> {
    file: &'a str,
    label: String,
    stage: &'a Value,
}

impl<'a> Place<'a> {
    /// The stages of one of the file's fields.
    fn all(
        file: &'a str,
        field: &'static str,
        stage: Option<&'a Value>,
    ) -> Result<Vec<Self>, TokenizerError> {
        let stages = flatten(stage);
        if stages.len() > MAX_STAGES {
            return Err(TokenizerError::Stage {
                file: file.to_owned(),
                stage: field.to_owned(),
                field: "stages",
                expected: format!("at most {MAX_STAGES}"),
                got: stages.len().to_string(),
            });
        }
        let place = |(index, stage): (usize, &'a Value)| Self {
            file,
            label: format!("{field} {index} ({})", shorten(kind(stage))),
            stage,
        };
        Ok(stages.into_iter().enumerate().map(place).collect())
    }

    fn full(&self) -> String {
        format!("{}: {}", self.file, self.label)
    }

    fn bad(&self, field: &'static str, expected: &str, got: &str) -> TokenizerError {
        TokenizerError::Stage {
            file: self.file.to_owned(),
            stage: self.label.clone(),
            field,
            expected: expected.to_owned(),
            got: shorten(got),
        }
    }

    /// A parameter of the stage as the crate would read it.
    fn field<T: DeserializeOwned>(
        &self,
        field: &'static str,
        expected: &str,
    ) -> Result<T, TokenizerError> {
        let value = self.stage.get(field).unwrap_or(&Value::Null);
        T::deserialize(value).map_err(|_| self.bad(field, expected, &value.to_string()))
    }

    /// The whole stage as the crate reads it.
    fn read<T: DeserializeOwned>(&self) -> Result<T, TokenizerError> {
        T::deserialize(self.stage)
            .map_err(|error| self.bad("parameters", "what its kind has", &error.to_string()))
    }

    /// The whole stage as a cut.
    fn stage(&self, other: Option<Box<PreTokenizerWrapper>>) -> Result<Cut, TokenizerError> {
        Ok(Cut::Stage {
            label: self.full(),
            first: self.read()?,
            other,
        })
    }

    /// `{"String": …}` or `{"Regex": …}`, compiled.
    fn pattern(&self) -> Result<Cutter, TokenizerError> {
        let pattern = self.stage.get("pattern").unwrap_or(&Value::Null);
        let text = |key: &str| pattern.get(key).and_then(Value::as_str);
        match (text("String"), text("Regex")) {
            (Some(text), None) => Cutter::new(&self.full(), &fancy_regex::escape(text)),
            (None, Some(regex)) => Cutter::new(&self.full(), regex),
            _ => Err(self.bad(
                "pattern",
                "{\"String\": …} or {\"Regex\": …}",
                &pattern.to_string(),
            )),
        }
    }
}

/// The stages of `normalizer`.
///
/// # Errors
/// When one is unknown or cannot run as it is written.
pub fn rewrites(file: &str, stage: Option<&Value>) -> Result<Vec<Rewrite>, TokenizerError> {
    let read = |place: Place<'_>| {
        let kind = match kind(place.stage) {
            "Replace" => {
                let content = place.field("content", "a text")?;
                RewriteKind::Replace(Box::new(place.pattern()?), content)
            }
            "Prepend" => RewriteKind::Prepend(place.field("prepend", "a text")?),
            "ByteLevel" => RewriteKind::Alphabet,
            "NFC" | "NFD" | "NFKC" | "NFKD" | "Nmt" | "Strip" | "StripAccents" | "Lowercase"
            | "BertNormalizer" => RewriteKind::Stage(place.read()?),
            other => {
                return Err(TokenizerError::Unsupported {
                    what: "normalizer",
                    got: shorten(other),
                    known: NORMALIZERS,
                });
            }
        };
        Ok(Rewrite {
            label: place.full(),
            kind,
        })
    };
    let places = Place::all(file, "normalizer", stage)?;
    places.into_iter().map(read).collect()
}

/// The stages of `pre_tokenizer`.
///
/// # Errors
/// When one is unknown or cannot run as it is written.
pub fn cuts(file: &str, stage: Option<&Value>) -> Result<Vec<Cut>, TokenizerError> {
    let mut cuts = Vec::new();
    for place in Place::all(file, "pre_tokenizer", stage)? {
        match kind(place.stage) {
            // The crate's own would hide an expression that gives up.
            "Split" => cuts.push(Cut::Regex {
                cutter: Box::new(place.pattern()?),
                behavior: place.field(
                    "behavior",
                    "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous",
                )?,
                invert: place.field("invert", "true or false")?,
            }),
            "ByteLevel" => {
                let stage: ByteLevel = place.read()?;
                if stage.add_prefix_space {
                    cuts.push(Cut::PrefixSpace);
                }
                if stage.use_regex {
                    // The crate's own expression is GPT-2's, and as silent.
                    let gpt2 = PreTokenizer::named("gpt-2").expect("`gpt-2` is in PRE_TOKENIZERS");
                    for regex in gpt2.regexes {
                        cuts.push(Cut::isolated(&place.full(), regex)?);
                    }
                }
                cuts.push(Cut::Alphabet(place.full()));
            }
            "FixedLength" => {
                let length: u64 = place.field("length", "a whole number")?;
                if length == 0 {
                    return Err(place.bad("length", "at least 1", "0"));
                }
                cuts.push(place.stage(None)?);
            }
            "Metaspace" => {
                let mut stage: Metaspace = place.read()?;
                let other = (stage.get_prepend_scheme() == PrependScheme::First).then(|| {
                    stage.set_prepend_scheme(PrependScheme::Never);
                    Box::new(stage.into())
                });
                cuts.push(place.stage(other)?);
            }
            "Digits" | "Punctuation" | "Whitespace" | "WhitespaceSplit" | "CharDelimiterSplit"
            | "UnicodeScripts" | "BertPreTokenizer" => {
                cuts.push(place.stage(None)?);
            }
            other => {
                return Err(TokenizerError::Unsupported {
                    what: "pre_tokenizer",
                    got: shorten(other),
                    known: PRE_TOKENIZERS,
                });
            }
        }
    }
    Ok(cuts)
}
