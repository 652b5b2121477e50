//! Why a template stopped: it said so, it did what cannot be done, or it wanted too much.

/// What a template's step answers.
pub type Result<T> = std::result::Result<T, Box<Failure>>;

/// Characters of a template's own words that are kept for a message.
const MAX_CHARS: usize = 500;

/// The reason, and the line of the template.
#[derive(Debug)]
pub struct Failure {
    /// Counted from 1; zero until the line is known.
    pub line: u32,
    /// The reason.
    pub kind: FailureKind,
}

/// The reason.
#[derive(Debug)]
pub enum FailureKind {
    /// `raise_exception`, with its words.
    Raised(String),
    /// Something that the dialect has no meaning for.
    Wrong(String),
    /// More of something than the limit.
    Costly(&'static str),
}

impl Failure {
    fn new(kind: FailureKind) -> Box<Self> {
        Box::new(Self { line: 0, kind })
    }

    /// The template's own refusal.
    pub fn raised(words: &str) -> Box<Self> {
        Self::new(FailureKind::Raised(cut(words, MAX_CHARS)))
    }

    /// Something that has no meaning, in words.
    pub fn wrong(why: impl AsRef<str>) -> Box<Self> {
        Self::new(FailureKind::Wrong(cut(why.as_ref(), MAX_CHARS)))
    }

    /// More `what` than a template may have.
    pub fn costly(what: &'static str) -> Box<Self> {
        Self::new(FailureKind::Costly(what))
    }

    /// The same, at `line` unless a line is known.
    pub fn at(mut self: Box<Self>, line: u32) -> Box<Self> {
        if self.line == 0 {
            self.line = line;
        }
        self
    }
}

/// At most `n` characters of `text`.
pub fn cut(text: &str, n: usize) -> String {
    match text.char_indices().nth(n) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
