//! Texts to vectors: the normed hidden state behind the last token of a text, brought to length 1.
//!
//! The models that are made for it end every text with their end-of-text token, which their files ask for; a model that
//! was made to continue texts gives the state from which it would go on.

use crate::decoder::Decoder as _;
use crate::engine::{Engine, EngineError};
use crate::format::{Model, TokenizerSource};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// How a model pools the states of a text, by the number in GGUF files.
const POOLING: [&str; 5] = ["none", "mean", "cls", "last", "rank"];

/// The state of the last token.
const LAST: &str = "last";

/// What files say where their writer found no word of it, though their models need [`LAST`].
const UNSAID: [&str; 2] = ["none", "mean"];

/// How a model asks for its states to be pooled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// By the last token, or it does not say.
    Last,
    /// By what writers of files put there where they find no word of it.
    Unsaid(&'static str),
    /// In a way that there is no such vector for.
    Other(String),
}

impl Pooling {
    /// Of `model`.
    pub fn of(model: &Model) -> Self {
        let TokenizerSource::Gguf(metadata) = model.tokenizer_source() else {
            return Pooling::Last;
        };
        let key = format!("{}.pooling_type", model.config().architecture);
        match metadata.u64(&key) {
            Ok(None) => Pooling::Last,
            Ok(Some(n)) => match usize::try_from(n).ok().and_then(|n| POOLING.get(n)) {
                Some(&LAST) => Pooling::Last,
                Some(name) if UNSAID.contains(name) => Pooling::Unsaid(name),
                Some(name) => Pooling::Other((*name).to_owned()),
                None => Pooling::Other(n.to_string()),
            },
            Err(e) => Pooling::Other(e.to_string()),
        }
    }
}

/// The ids of a text as a model that embeds takes them: with the end-of-text token where its file asks for one.
///
/// # Errors
/// When the vocabulary cannot express the text, or there is nothing to embed.
pub fn ids(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, TokenizerError> {
    let end = tokenizer.eos().filter(|_| tokenizer.add_eos());
    if let (true, Some(end)) = (text.is_empty(), end) {
        return Ok(vec![end]);
    }
    let mut ids = tokenizer.encode_prompt(text)?;
    ids.extend(end);
    Ok(ids)
}

/// The vector of a text, `[hidden]`: its values are those of the text alone, whatever the engine held before.
///
/// # Errors
/// When a token does not exist or the text is longer than the context.
pub fn embed(engine: &mut Engine, ids: &[u32]) -> Result<Vec<f32>, EngineError> {
    engine.truncate(0);
    let mut vector = engine.run_hidden(ids)?.to_vec();
    let squares: f64 = vector.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    // A vector of zeros has no direction and stays what it is.
    let length = squares.sqrt().max(f64::MIN_POSITIVE);
    for v in &mut vector {
        *v = (f64::from(*v) / length) as f32;
    }
    Ok(vector)
}
