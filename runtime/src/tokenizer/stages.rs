//! The stages of a `tokenizer.json` before its model: read one by one, checked, and bounded.
//!
//! A file may chain any stages, so what they cost is bounded: their number, and how far they may grow a text, counted
//! after each stage ([`Meter`]). What a regular expression may cost is `cut`'s business.

use std::sync::{Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::normalizers::Prepend;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::tokenizer::pattern::{Invert, Pattern};
use tokenizers::tokenizer::{
    NormalizedString, Normalizer, NormalizerWrapper, OffsetReferential, OffsetType,
    PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper, SplitDelimiterBehavior,
};

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
    Prepend(Prepend),
    /// Any other stage of the crate.
    Stage(NormalizerWrapper),
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
    /// Any other stage of the crate, with its place in the file.
    Stage(String, Box<PreTokenizerWrapper>),
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

    /// Every byte becomes a character of the byte-level alphabet.
    pub fn to_alphabet(label: String) -> Self {
        Self::Stage(label, Box::new(ByteLevel::new(false, true, false).into()))
    }

    /// Cuts all pieces.
    ///
    /// # Errors
    /// When the stage takes too long or grows the text too far.
    pub fn apply(&self, pieces: &mut PreTokenizedString, meter: &Meter) -> tokenizers::Result<()> {
        match self {
            Self::Regex {
                cutter,
                behavior,
                invert,
            } => {
                let timed = cutter.timed(&meter.watch);
                pieces.split(|_, piece| match invert {
                    false => piece.split(timed, *behavior),
                    true => piece.split(Invert(timed), *behavior),
                })
            }
            Self::PrefixSpace => pieces.normalize(|piece| {
                if !piece.get().starts_with(' ') {
                    piece.prepend(" ");
                }
                Ok(())
            }),
            Self::Stage(label, stage) => {
                stage.pre_tokenize(pieces)?;
                let splits = pieces.get_splits(OffsetReferential::Normalized, OffsetType::None);
                let bytes = splits.last().map_or(0, |(_, offsets, _)| offsets.1);
                Ok(meter.allow(label, bytes)?)
            }
        }
    }
}

/// What the stages may make of one text, and how long they may take.
pub struct Meter {
    watch: Watch,
    text_bytes: usize,
    limit_bytes: usize,
    /// The crate shares normalisers between threads and drops what they answer.
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    /// Bytes of the pieces that have been rewritten.
    rewritten: usize,
    /// What stopped the rewriting.
    failure: Option<TokenizerError>,
}

impl Meter {
    /// For a text of this length; the clock starts.
    pub fn new(text_bytes: usize) -> Self {
        Self {
            watch: Watch::start(text_bytes),
            text_bytes,
            limit_bytes: GROWN_BYTES.saturating_add(text_bytes.saturating_mul(GROWTH)),
            progress: Mutex::default(),
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

    /// The failure of a rewriting, if there was one.
    ///
    /// # Errors
    /// That failure.
    pub fn check(&self) -> Result<(), TokenizerError> {
        self.progress().failure.take().map_or(Ok(()), Err)
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rewrites pieces as long as the meter allows it; the failure is the meter's to tell.
pub struct Rewriter<'a> {
    /// Applied one after the other.
    pub rewrites: &'a [Rewrite],
    /// What they may cost.
    pub meter: &'a Meter,
}

impl Normalizer for Rewriter<'_> {
    fn normalize(&self, piece: &mut NormalizedString) -> tokenizers::Result<()> {
        let mut progress = self.meter.progress();
        if progress.failure.is_some() {
            return Ok(());
        }
        for rewrite in self.rewrites {
            if let Err(error) = rewrite.apply(piece, self.meter, progress.rewritten) {
                progress.failure = Some(error);
                return Ok(());
            }
        }
        progress.rewritten += piece.len();
        Ok(())
    }
}

impl Rewrite {
    /// `before`: bytes of the pieces before this one.
    fn apply(
        &self,
        piece: &mut NormalizedString,
        meter: &Meter,
        before: usize,
    ) -> Result<(), TokenizerError> {
        let allow = |bytes: usize| meter.allow(&self.label, before.saturating_add(bytes));
        let done = match &self.kind {
            RewriteKind::Replace(cutter, content) => {
                let found = cutter.matches(piece.get(), &meter.watch)?;
                let n_matches = found.iter().filter(|(_, is_match)| *is_match).count();
                allow(n_matches.saturating_mul(content.len()))?;
                replace(piece, found, content)
            }
            // The crate loses count, and panics in a later stage, where nothing is put in front.
            RewriteKind::Prepend(stage) if stage.prepend.is_empty() => Ok(()),
            RewriteKind::Prepend(stage) => {
                allow(piece.len().saturating_add(stage.prepend.len()))?;
                stage.normalize(piece)
            }
            // The largest step of these is that of U+FDFA, eleven times its bytes, in NFKC and NFKD.
            RewriteKind::Stage(stage) => stage.normalize(piece),
        };
        done.map_err(encode_error)?;
        allow(piece.len())
    }
}

/// Replaces matches. The crate loses count, and panics in a later stage, where a match of nothing at the start is
/// replaced by something; it does well what is the same, putting it in front.
fn replace(
    piece: &mut NormalizedString,
    mut found: Matches,
    content: &str,
) -> tokenizers::Result<()> {
    let in_front = found.first() == Some(&((0, 0), true));
    if in_front {
        found.remove(0);
    }
    piece.replace(Found(found), content)?;
    if in_front {
        piece.prepend(content);
    }
    Ok(())
}

/// Matches that have been found already.
struct Found(Matches);

impl Pattern for Found {
    fn find_matches(&self, _inside: &str) -> tokenizers::Result<Matches> {
        Ok(self.0.clone())
    }
}

/// The crate's errors carry ours as they are; what it says itself becomes a text.
pub fn encode_error(error: Box<dyn std::error::Error + Send + Sync>) -> TokenizerError {
    match error.downcast::<TokenizerError>() {
        Ok(ours) => *ours,
        Err(error) => TokenizerError::Encode {
            why: error.to_string(),
        },
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
            "Prepend" => RewriteKind::Prepend(place.read()?),
            "NFC" | "NFD" | "NFKC" | "NFKD" | "Nmt" | "Strip" | "StripAccents" | "Lowercase"
            | "BertNormalizer" | "ByteLevel" => RewriteKind::Stage(place.read()?),
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
                cuts.push(Cut::to_alphabet(place.full()));
            }
            "FixedLength" => {
                let length: u64 = place.field("length", "a whole number")?;
                if length == 0 {
                    return Err(place.bad("length", "at least 1", "0"));
                }
                cuts.push(Cut::Stage(place.full(), Box::new(place.read()?)));
            }
            "Metaspace" | "Digits" | "Punctuation" | "Whitespace" | "WhitespaceSplit"
            | "CharDelimiterSplit" | "UnicodeScripts" | "BertPreTokenizer" => {
                cuts.push(Cut::Stage(place.full(), Box::new(place.read()?)));
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
