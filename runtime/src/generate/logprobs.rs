//! [`TokenLogprob`]: how likely the model found each token that was chosen, and the likeliest ones in its place.

use serde::Serialize;
use std::cmp::Ordering;

use crate::logits::Candidate;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// A token and the logarithm of its probability, by the model's own logits: before penalties, cuts and temperature.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Likelihood {
    /// The token.
    pub id: u32,
    /// What it prints, bytes that are no text on their own as replacement characters; of a special token its name.
    pub token: String,
    /// Natural logarithm; `None` (null) where the probability is 0.
    pub logprob: Option<f64>,
}

/// A chosen token among the likeliest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenLogprob {
    /// The chosen token.
    #[serde(flatten)]
    pub chosen: Likelihood,
    /// The likeliest tokens in its place, likeliest first, ties by id.
    pub top: Vec<Likelihood>,
}

/// Of `token`, chosen by `logits`, with the `n` likeliest.
///
/// # Errors
/// When one of the tokens cannot be printed.
pub fn of(
    tokenizer: &Tokenizer,
    logits: &[f32],
    token: u32,
    n: usize,
) -> Result<TokenLogprob, TokenizerError> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let above = |v: f32| f64::from(v) - f64::from(most);
    let sum: f64 = logits.iter().map(|&v| above(v).exp()).sum();
    let text = |id: u32| -> Result<String, TokenizerError> {
        let printed = tokenizer.print(id)?;
        // Special tokens print nothing and have a name.
        let name = tokenizer.token(id).filter(|_| printed.is_empty());
        Ok(name.map_or_else(
            || String::from_utf8_lossy(printed).into_owned(),
            str::to_owned,
        ))
    };
    let likelihood = |id: u32| {
        let logprob = above(logits[id as usize]) - sum.ln();
        Ok(Likelihood {
            id,
            token: text(id)?,
            logprob: logprob.is_finite().then_some(logprob),
        })
    };
    let top = likeliest(logits, n).into_iter();
    Ok(TokenLogprob {
        chosen: likelihood(token)?,
        top: top.map(|c| likelihood(c.id)).collect::<Result<_, _>>()?,
    })
}

/// The `n` largest, largest first, ties by id.
fn likeliest(logits: &[f32], n: usize) -> Vec<Candidate> {
    let before = |a: &Candidate, b: &Candidate| -> Ordering {
        b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
    };
    let all = logits.iter().enumerate();
    let mut all: Vec<Candidate> = all
        .map(|(id, &logit)| Candidate {
            logit,
            id: id as u32,
        })
        .collect();
    if n < all.len() {
        if n == 0 {
            return Vec::new();
        }
        all.select_nth_unstable_by(n - 1, before);
        all.truncate(n);
    }
    all.sort_unstable_by(before);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo;
    use crate::format::OpenOptions;
    use crate::setup::tokenizer;

    #[test]
    fn probabilities_are_those_of_the_softmax() {
        let model = demo::open(&OpenOptions::default()).expect("the demo model opens");
        let tokenizer = tokenizer(&model, None).expect("its tokenizer");
        let mut logits = vec![f32::NEG_INFINITY; tokenizer.n_vocab()];
        // A half, a quarter and two eighths.
        for (id, log2) in [(40, -1.0f32), (10, -2.0), (30, -3.0), (20, -3.0)] {
            logits[id] = 5.0 + log2 * std::f32::consts::LN_2;
        }
        let got = of(&tokenizer, &logits, 10, 3).expect("printable");
        let near = |l: &Likelihood, p: f64| (l.logprob.expect("possible").exp() - p).abs() < 1e-6;
        assert!(got.chosen.id == 10 && near(&got.chosen, 0.25), "{got:?}");
        let ids: Vec<u32> = got.top.iter().map(|l| l.id).collect();
        assert_eq!(ids, [40, 10, 20], "ties by id");
        assert!(near(&got.top[0], 0.5) && near(&got.top[2], 0.125));
        let impossible = of(&tokenizer, &logits, 0, 0).expect("printable");
        assert_eq!((impossible.chosen.logprob, impossible.top.len()), (None, 0));
        let all = of(&tokenizer, &logits, 0, usize::MAX).expect("printable");
        assert_eq!(all.top.len(), logits.len());
    }
}
