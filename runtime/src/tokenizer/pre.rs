//! Pre-tokenisers of byte-level BPE: the regular expressions that cut text before merging, by their GGUF names.

use super::error::TokenizerError;
use super::vocab::GgufVocab;

/// A known way to cut text before merging.
#[derive(Debug, PartialEq, Eq)]
pub struct PreTokenizer {
    /// The name this project writes into `tokenizer.ggml.pre`.
    pub name: &'static str,
    /// Other names for the same cuts.
    aliases: &'static [&'static str],
    /// Applied one after the other; each cuts the pieces the previous one left. Matches and gaps are both pieces.
    pub regexes: &'static [&'static str],
    /// A piece that is a token as a whole is emitted without consulting the merges.
    pub whole_pieces: bool,
    /// Whether a begin-of-text token is expected when the file does not say.
    pub add_bos: bool,
}

/// The only list of pre-tokenisers. The first is what an unknown name falls back to, with a note.
pub static PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer {
        name: "llama-bpe",
        aliases: &["llama3", "llama-v3", "falcon3", "falcon-h1", "falcon_e"],
        regexes: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        whole_pieces: true,
        add_bos: true,
    },
    PreTokenizer {
        name: "default",
        aliases: &[],
        regexes: &[
            r"[\p{P}\$\+<=>\^~\|]+",
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
            r"\p{N}+",
            r"[0-9][0-9][0-9]",
        ],
        whole_pieces: false,
        add_bos: false,
    },
    PreTokenizer {
        name: "gpt-2",
        aliases: &["phi-2", "gpt2"],
        regexes: &[r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"],
        whole_pieces: false,
        add_bos: false,
    },
    PreTokenizer {
        name: "qwen2",
        aliases: &["deepseek-r1-qwen"],
        regexes: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        whole_pieces: false,
        add_bos: false,
    },
];

/// The names of [`PRE_TOKENIZERS`], for messages.
const KNOWN: &str = "llama-bpe, default, gpt-2, qwen2";

impl PreTokenizer {
    /// The pre-tokeniser called `name`, if it is known.
    pub fn named(name: &str) -> Option<&'static Self> {
        PRE_TOKENIZERS
            .iter()
            .find(|pre| pre.name == name || pre.aliases.contains(&name))
    }

    /// The pre-tokeniser whose regular expressions are exactly `regexes`, if there is one.
    ///
    /// Two spellings of the GPT-2 expression count as the same; they differ in nothing that can be matched.
    pub fn with_regexes(regexes: &[&str]) -> Option<&'static Self> {
        const CONTRACTIONS: (&str, &str) = (r"'(?:[sdmt]|ll|ve|re)", r"'s|'t|'re|'ve|'m|'ll|'d");
        let same = |known: &str, given: &str| {
            // A last `|\s+` is the same as leaving the gap: unmatched text is a piece, too.
            let trim = |s: &str| s.strip_suffix(r"|\s+").unwrap_or(s).to_owned();
            let (known, given) = (trim(known), trim(given));
            known == given || known == given.replacen(CONTRACTIONS.0, CONTRACTIONS.1, 1)
        };
        PRE_TOKENIZERS.iter().find(|pre| {
            pre.regexes.len() == regexes.len()
                && pre.regexes.iter().zip(regexes).all(|(a, b)| same(a, b))
        })
    }

    /// Decides for a GGUF file: the reader's choice, then the file's, then what the file should have said.
    ///
    /// The second value is a note for the reader where the file alone did not decide.
    ///
    /// # Errors
    /// When `chosen` is no known name. An unknown name in the file is answered with a note, since most vocabularies
    /// of the last years cut text as Llama 3 does.
    pub fn for_gguf(
        vocab: &GgufVocab,
        chosen: Option<&str>,
    ) -> Result<(&'static Self, Option<String>), TokenizerError> {
        let llama_bpe = &PRE_TOKENIZERS[0];
        if let Some(name) = chosen {
            let pre = Self::named(name).ok_or_else(|| TokenizerError::Unsupported {
                what: "pre-tokeniser",
                got: name.to_owned(),
                known: KNOWN,
            })?;
            return Ok((pre, None));
        }
        let Some(name) = vocab.pre.as_deref() else {
            // The official 2B-4T file does not name its pre-tokeniser; its vocabulary is Llama 3's.
            let is_2b_4t = matches!(vocab.architecture.as_str(), "bitnet-b1.58" | "bitnet-25")
                && vocab.tokens.len() == 128_256;
            return Ok(if is_2b_4t {
                let note = "tokenizer.ggml.pre is missing; using llama-bpe, which this vocabulary was made with \
                            (`--pre default` reproduces programs that do not know this)";
                (llama_bpe, Some(note.to_owned()))
            } else {
                let default = Self::named("default").expect("`default` is in PRE_TOKENIZERS");
                let note = "tokenizer.ggml.pre is missing; using `default`. If the text comes out garbled try --pre llama-bpe";
                (default, Some(note.to_owned()))
            });
        };
        Ok(match Self::named(name) {
            Some(pre) => (pre, None),
            None => {
                let note = format!(
                    "tokenizer.ggml.pre is `{name}`, which is not known ({KNOWN}); using llama-bpe"
                );
                (llama_bpe, Some(note))
            }
        })
    }
}
