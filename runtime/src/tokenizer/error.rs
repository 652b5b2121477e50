//! What can be wrong with a vocabulary or with what is asked of a tokenizer.

use std::path::PathBuf;

/// Why a tokenizer could not be built or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A tokenizer file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A tokenizer file is not what its name promises.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        why: String,
    },
    /// A folder holds no tokenizer.
    #[error(
        "{}: no tokenizer here: expected tokenizer.json or tokenizer.model; copy it from the model's repository",
        path.display()
    )]
    NoTokenizer {
        /// The folder.
        path: PathBuf,
    },
    /// A GGUF file without `tokenizer.*` keys: the model can be run on token ids only.
    #[error(
        "{path}: the file has no tokenizer.ggml.tokens: give token ids, or a file with a tokenizer"
    )]
    NoKeys {
        /// The file.
        path: String,
    },
    /// The vocabulary is of a kind that this runtime does not know. An ordinary answer, not a defect of the file.
    #[error("tokenizer: {what} `{got}` is not supported; known: {known}")]
    Unsupported {
        /// Which property.
        what: &'static str,
        /// Its value.
        got: String,
        /// The values that are understood.
        known: &'static str,
    },
    /// No tokens.
    #[error("{list}: the vocabulary is empty")]
    Empty {
        /// The list, as its file names it.
        list: String,
    },
    /// Two lists that describe the same tokens differ in length.
    #[error("{list}: expected {expected} entries, one for each token, got {got}")]
    Length {
        /// The list, as its file names it.
        list: String,
        /// The number of tokens.
        expected: usize,
        /// The number of entries.
        got: usize,
    },
    /// One text has two ids, so encoding would be a matter of chance.
    #[error("{list}: {token:?} is both token {first} and token {second}")]
    Duplicate {
        /// The list, as its file names it.
        list: String,
        /// The text.
        token: String,
        /// Its lower id.
        first: u32,
        /// Its higher id.
        second: u32,
    },
    /// A token type outside 1..=6.
    #[error("{list}[{id}]: expected 1 to 6, got {got}")]
    Type {
        /// The list, as its file names it.
        list: String,
        /// The token.
        id: u32,
        /// The number found.
        got: i32,
    },
    /// A score that cannot be compared.
    #[error("{list}[{id}]: expected a number, got NaN")]
    Score {
        /// The list, as its file names it.
        list: String,
        /// The token.
        id: u32,
    },
    /// A merge rule that the vocabulary does not bear out.
    #[error("{list}[{index}] = {merge:?}: {why}")]
    Merge {
        /// The list, as its file names it.
        list: String,
        /// Its rank.
        index: usize,
        /// The rule.
        merge: String,
        /// What is wrong with it.
        why: String,
    },
    /// A named token (bos, eos, …) that is not in the vocabulary.
    #[error("{key} is {id}, but the vocabulary has {n_vocab} tokens")]
    SpecialId {
        /// The key that names it.
        key: String,
        /// The id.
        id: u32,
        /// The number of tokens.
        n_vocab: usize,
    },
    /// Ids in a file that leave more holes than tokens.
    #[error("{}: token id {id} is far beyond the {n_tokens} tokens listed", path.display())]
    SparseIds {
        /// The file.
        path: PathBuf,
        /// The id.
        id: u32,
        /// The number of tokens.
        n_tokens: usize,
    },
    /// The tokenizer knows ids that the model's embedding does not have.
    #[error(
        "the tokenizer has {tokenizer} tokens but the model's embedding has {model} rows: they do not belong together"
    )]
    ModelMismatch {
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Rows of the embedding.
        model: usize,
    },
    /// An id that names no token.
    #[error("token id {id} is out of range: the vocabulary has {n_vocab} tokens")]
    IdOutOfRange {
        /// The id.
        id: u32,
        /// The number of tokens.
        n_vocab: usize,
    },
    /// Nothing to start from.
    #[error(
        "the prompt is empty and the model has no begin-of-text token to start from; give some text"
    )]
    EmptyPrompt,
    /// A character that the vocabulary cannot express. It would vanish without a word.
    #[error(
        "the vocabulary has no token for the character {character:?} and no unknown token to stand for it; \
         leave it out, or use the model's own tokenizer"
    )]
    Inexpressible {
        /// The character; U+FFFD where the file's own stages made bytes that are none.
        character: char,
    },
    /// A stage of `tokenizer.json` that cannot run as it is written.
    #[error("{file}: {stage}: {field}: expected {expected}, got {got}")]
    Stage {
        /// The file.
        file: String,
        /// Which stage: `pre_tokenizer 2 (Split)`.
        stage: String,
        /// The parameter at fault.
        field: &'static str,
        /// What would do.
        expected: String,
        /// What is there, shortened.
        got: String,
    },
    /// A regular expression that does not compile, or only into something too large.
    #[error("{stage}: the regular expression {regex:?} cannot be used: {why}")]
    Regex {
        /// Whose expression: a file and its stage, or a known pre-tokeniser.
        stage: String,
        /// The expression, shortened.
        regex: String,
        /// What the library said.
        why: String,
    },
    /// A regular expression that takes more time on a text than any sane one.
    #[error(
        "{stage}: the regular expression {regex:?} gave up on this text ({why}); the tokenizer is unfit for it"
    )]
    Slow {
        /// Whose expression: a file and its stage, or a known pre-tokeniser.
        stage: String,
        /// The expression, shortened.
        regex: String,
        /// What ran out.
        why: String,
    },
    /// Stages that blow a text up.
    #[error(
        "{stage} turns a text of {text_bytes} bytes into more than {limit_bytes}; no tokenizer of a model does"
    )]
    Growth {
        /// The stage at which the limit was passed.
        stage: String,
        /// What went in.
        text_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// A prompt that is not text.
    #[error("{what} is not valid UTF-8 (byte {offset}); pass UTF-8 text")]
    NotUtf8 {
        /// What was given: an argument or a file.
        what: String,
        /// The first bad byte.
        offset: usize,
    },
    /// The pre-tokeniser or the model of `tokenizer.json` gave up on a text.
    #[error("the text could not be tokenised: {why}")]
    Encode {
        /// What the library said.
        why: String,
    },
}

/// At most sixty characters of a text, for messages.
pub fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
