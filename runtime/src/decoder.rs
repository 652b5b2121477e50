//! [`Decoder`]: what generation, chat and perplexity ask of a model. They know no engine, and an engine knows
//! none of them.

use crate::logits::{Logits, Wanted};

/// What a decoder reports when it fails; its own type stays behind it.
pub type DecoderError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A model with a position: tokens go in, the logits of the next token come out.
pub trait Decoder {
    /// Appends `tokens` at [`Self::position`] and returns the logits that follow the last one.
    ///
    /// # Shapes
    /// `tokens`: `[m]`, m ≥ 1, each below [`Self::n_vocab`]; the result: `[n_vocab]`.
    ///
    /// # Errors
    /// When the tokens do not fit the context, an id is out of range, or there is none.
    fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32], DecoderError>;

    /// Appends one token and returns the logits that follow it.
    ///
    /// # Errors
    /// As [`Self::prefill`].
    fn decode(&mut self, token: u32) -> Result<&[f32], DecoderError> {
        self.prefill(&[token])
    }

    /// Appends `tokens` and returns of the logits that follow the last one what is `wanted`, or all.
    ///
    /// The default computes them all; a model that can spare most of them should override it.
    ///
    /// # Errors
    /// As [`Self::prefill`].
    fn prefill_wanted(
        &mut self,
        tokens: &[u32],
        wanted: &Wanted<'_>,
    ) -> Result<Logits<'_>, DecoderError> {
        let _ = wanted;
        Ok(Logits::All(self.prefill(tokens)?))
    }

    /// Appends `tokens` and hands `each` the logits that follow `tokens[i]`, for i from `first` on, in order.
    ///
    /// The default decodes one by one; a model that can compute many rows of logits at once should override it.
    ///
    /// # Errors
    /// As [`Self::prefill`].
    fn prefill_each(
        &mut self,
        tokens: &[u32],
        first: usize,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), DecoderError> {
        let Some(head) = tokens.get(..=first) else {
            // Nothing to report on, but the tokens still count.
            self.prefill(tokens)?;
            return Ok(());
        };
        each(first, self.prefill(head)?);
        for (i, &token) in tokens.iter().enumerate().skip(first + 1) {
            each(i, self.decode(token)?);
        }
        Ok(())
    }

    /// Forgets everything after the first `len` tokens; nothing when `len` is at least [`Self::position`].
    fn truncate(&mut self, len: usize);

    /// Forgets all tokens.
    fn reset(&mut self) {
        self.truncate(0);
    }

    /// How many tokens are held.
    fn position(&self) -> usize;

    /// How many tokens can be held.
    fn n_ctx(&self) -> usize;

    /// How many ids there are.
    fn n_vocab(&self) -> usize;
}

#[cfg(test)]
pub(crate) mod scripted;

#[cfg(test)]
mod tests {
    use super::scripted::Scripted;
    use super::*;

    #[test]
    fn default_row_by_row_logits_follow_the_trait() {
        let mut decoder = Scripted::new(300, 64, |context, logits| logits[context.len()] = 1.0);
        for first in [0, 2, 4] {
            decoder.reset();
            let mut seen = Vec::new();
            decoder
                .prefill_each(&[9, 9, 9, 9], first, &mut |i, logits| {
                    seen.push((i, logits.iter().position(|&l| l == 1.0).unwrap()));
                })
                .unwrap();
            let expected: Vec<_> = (first..4).map(|i| (i, i + 1)).collect();
            assert_eq!(seen, expected);
            assert_eq!(decoder.position(), 4);
        }
    }
}
