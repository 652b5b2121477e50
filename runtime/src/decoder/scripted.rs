//! A model whose logits are a function of its context: what the loop does is then known in advance.

use super::{Decoder, DecoderError};

type Script = Box<dyn Fn(&[u32], &mut [f32])>;

/// A decoder that asks its script for logits, and counts what it was given.
pub struct Scripted {
    n_ctx: usize,
    logits: Vec<f32>,
    pub context: Vec<u32>,
    pub script: Script,
    /// Tokens processed since the start, held or not.
    pub n_processed: usize,
}

impl Scripted {
    /// `script` fills zeroed logits for a context.
    pub fn new(
        n_vocab: usize,
        n_ctx: usize,
        script: impl Fn(&[u32], &mut [f32]) + 'static,
    ) -> Self {
        Self {
            n_ctx,
            logits: vec![0.0; n_vocab],
            context: Vec::new(),
            script: Box::new(script),
            n_processed: 0,
        }
    }

    /// Says `text`, one token each time, then `end` for ever.
    pub fn saying(n_vocab: usize, n_ctx: usize, n_prompt: usize, text: Vec<u32>, end: u32) -> Self {
        Self::new(n_vocab, n_ctx, move |context, logits| {
            let said = context.len() - n_prompt.min(context.len());
            let next = text.get(said).copied().unwrap_or(end);
            logits[next as usize] = 1.0;
        })
    }
}

impl Decoder for Scripted {
    fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32], DecoderError> {
        if tokens.is_empty() || self.context.len() + tokens.len() > self.n_ctx {
            return Err(format!("{} tokens after {}", tokens.len(), self.context.len()).into());
        }
        self.context.extend_from_slice(tokens);
        self.n_processed += tokens.len();
        self.logits.fill(0.0);
        (self.script)(&self.context, &mut self.logits);
        Ok(&self.logits)
    }

    fn truncate(&mut self, len: usize) {
        self.context.truncate(len);
    }

    fn position(&self) -> usize {
        self.context.len()
    }

    fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    fn n_vocab(&self) -> usize {
        self.logits.len()
    }
}
