//! Why a model cannot be opened: one line that says where, what was expected, what was found
//! and what to do.

use bitnet_codegen::trit::TritError;
use thiserror::Error;

/// A file or folder that is not a usable model.
#[derive(Debug, Error)]
#[error("{path}: {kind}")]
pub struct LoadError {
    /// The file or folder.
    pub path: String,
    /// What is wrong with it. Part of the line above, so not a source of its own.
    pub kind: LoadErrorKind,
}

impl LoadError {
    /// Attaches a path.
    pub fn new(path: impl Into<String>, kind: LoadErrorKind) -> Self {
        Self {
            path: path.into(),
            kind,
        }
    }

    /// Whether the file is in order and only asks for something this program does not do.
    pub fn is_unsupported(&self) -> bool {
        let mut kind = &self.kind;
        while let LoadErrorKind::InFile { kind: inner, .. } = kind {
            kind = inner;
        }
        matches!(kind, LoadErrorKind::Unsupported { .. })
    }
}

/// What is wrong, without the path.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadErrorKind {
    /// The operating system refused.
    #[error("cannot {action}: {reason}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        reason: std::io::Error,
    },
    /// The file has no bytes.
    #[error(
        "the file is empty: expected a GGUF file or a folder with config.json and *.safetensors; fetch it again"
    )]
    Empty,
    /// No format claims the file.
    #[error("not a model file: it starts with {got}, expected {expected}")]
    UnknownFormat {
        /// The first bytes, printable or in hex.
        got: String,
        /// What the known formats start with.
        expected: String,
    },
    /// The file ends inside a field.
    #[error(
        "truncated at {field}: {need} more bytes expected at byte {at}, {have} left; fetch the file again"
    )]
    Truncated {
        /// What was being read.
        field: String,
        /// Where the field starts.
        at: u64,
        /// Bytes the field needs.
        need: u64,
        /// Bytes that are left.
        have: u64,
    },
    /// A required key, tensor or file is not there.
    #[error("{field} is missing: {hint}")]
    Missing {
        /// The key, tensor or file.
        field: String,
        /// Why it is needed, or what to do.
        hint: String,
    },
    /// A field holds something else than it must.
    #[error("{field}: expected {expected}, got {got}; {hint}")]
    Value {
        /// The key or tensor.
        field: String,
        /// What it must hold.
        expected: String,
        /// What it holds.
        got: String,
        /// What to do.
        hint: &'static str,
    },
    /// The file is in order but needs something that is not implemented.
    #[error("unsupported {what}; {known}")]
    Unsupported {
        /// What it asks for.
        what: String,
        /// What is known instead, or what to do.
        known: String,
    },
    /// The bytes of a ternary tensor are not ternary.
    #[error("{tensor} ({dtype}): {reason}; {hint}")]
    NotTernary {
        /// The tensor.
        tensor: String,
        /// Its stored type.
        dtype: &'static str,
        /// What was found.
        reason: TritError,
        /// What to try.
        hint: &'static str,
    },
    /// One file of a folder has something wrong with it.
    #[error("{file}: {kind}")]
    InFile {
        /// The file's name in the folder.
        file: String,
        /// What is wrong.
        kind: Box<LoadErrorKind>,
    },
    /// A JSON file does not parse.
    #[error("{file} is not valid JSON of the expected form: {reason}")]
    Json {
        /// The file's name.
        file: String,
        /// The parser's answer.
        reason: serde_json::Error,
    },
}

/// Shorthand for [`LoadErrorKind::Value`] with the usual advice for damaged files.
pub(crate) fn bad(
    field: impl Into<String>,
    expected: impl Into<String>,
    got: impl std::fmt::Display,
) -> LoadErrorKind {
    LoadErrorKind::Value {
        field: field.into(),
        expected: expected.into(),
        got: got.to_string(),
        hint: "the file is damaged or not what it claims, fetch or convert it again",
    }
}

/// Shorthand for [`LoadErrorKind::Unsupported`].
pub(crate) fn unsupported(what: impl Into<String>, known: impl Into<String>) -> LoadErrorKind {
    LoadErrorKind::Unsupported {
        what: what.into(),
        known: known.into(),
    }
}
