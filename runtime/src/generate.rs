//! The loop that turns a prompt into text, over anything that can answer tokens with logits.

/// What a decoder reports when it fails; its own type stays behind it.
pub type DecoderError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A model with a position: tokens go in, the logits of the next token come out.
///
/// Generation, chat and perplexity are written against this trait, so that they are tested with scripted models.
pub trait Decoder {
    /// Appends `tokens` at [`Self::position`] and returns the logits that follow the last one.
    ///
    /// # Shapes
    /// `tokens`: `[m]`, m ≥ 1, each below [`Self::n_vocab`]; the result: `[n_vocab]`.
    ///
    /// # Errors
    /// When the tokens do not fit the context, an id is out of range, or there is none.
    fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32], DecoderError>;

    /// Appends one token and returns the logits that follow it: [`Self::prefill`] of one, kept apart for speed.
    ///
    /// # Errors
    /// As [`Self::prefill`].
    fn decode(&mut self, token: u32) -> Result<&[f32], DecoderError>;

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
