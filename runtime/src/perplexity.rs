//! Perplexity as llama-perplexity defines it, so that figures can be compared across programs.
//!
//! The text is cut into disjoint chunks of `n_ctx` tokens. Each starts from an empty context, its first token replaced
//! by begin-of-text where the model expects one, and only the second half is scored.

use serde::Serialize;

use crate::decoder::{Decoder, DecoderError};

/// How a text is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerplexityParams {
    /// Tokens in a chunk.
    pub n_ctx: usize,
    /// At most this many chunks, from the start of the text.
    pub chunks: Option<usize>,
    /// Goes in place of each chunk's first token; for models that expect a begin-of-text token.
    pub bos: Option<u32>,
}

impl Default for PerplexityParams {
    fn default() -> Self {
        Self {
            n_ctx: 512,
            chunks: None,
            bos: None,
        }
    }
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Perplexity {
    /// exp of the mean negative log-likelihood.
    pub perplexity: f64,
    /// One standard error of `perplexity`.
    pub standard_error: f64,
    /// Mean negative log-likelihood of a token, in nats.
    pub mean_nll: f64,
    /// Tokens in a chunk.
    pub n_ctx: usize,
    /// Chunks measured.
    pub n_chunks: usize,
    /// Tokens of the text.
    pub n_tokens: usize,
    /// Tokens scored.
    pub n_scored: usize,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PerplexityError {
    /// Chunks too small to have a half to score, or beyond what the model holds.
    #[error(
        "a context of {got} tokens cannot be measured: expected at least 4, and at most the {limit} that the engine holds"
    )]
    Context {
        /// Asked for.
        got: usize,
        /// What the engine holds.
        limit: usize,
    },
    /// Fewer tokens than two chunks.
    #[error(
        "the text has {got} tokens, but {expected} are needed for a context of {n_ctx}: use a longer text or a smaller --ctx"
    )]
    TooShort {
        /// Tokens of the text.
        got: usize,
        /// Tokens needed.
        expected: usize,
        /// The context asked for.
        n_ctx: usize,
    },
    /// A limit of no chunks.
    #[error("at least one chunk must be measured")]
    NoChunks,
    /// A token that the model does not have.
    #[error(
        "token {index} of the text is {id}, but the model has {n_vocab} tokens: the tokenizer is not this model's"
    )]
    TokenOutOfRange {
        /// Its place in the text.
        index: usize,
        /// The token.
        id: u32,
        /// Tokens of the model.
        n_vocab: usize,
    },
    /// A likelihood that is no number.
    #[error(
        "chunk {chunk}, position {position}: the likelihood is not a number: the model's weights or kernels are damaged"
    )]
    NotFinite {
        /// Counted from 0.
        chunk: usize,
        /// Within the chunk.
        position: usize,
    },
    /// The decoder failed.
    #[error("{0}")]
    Decoder(#[source] DecoderError),
}

/// Running sums, in double precision.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    nll: f64,
    nll_squared: f64,
    n_scored: usize,
}

impl Sums {
    fn result(&self, n_ctx: usize, n_chunks: usize, n_tokens: usize) -> Perplexity {
        let n = self.n_scored as f64;
        let mean_nll = self.nll / n;
        let variance = (self.nll_squared / n - mean_nll * mean_nll).max(0.0);
        let perplexity = mean_nll.exp();
        let standard_error = if self.n_scored > 1 {
            (variance / (n - 1.0)).sqrt() * perplexity
        } else {
            0.0
        };
        Perplexity {
            perplexity,
            standard_error,
            mean_nll,
            n_ctx,
            n_chunks,
            n_tokens,
            n_scored: self.n_scored,
        }
    }
}

/// Measures `tokens`, a whole text; `progress` hears the result so far after each chunk and returns whether to go on.
///
/// # Errors
/// When the text is shorter than two chunks, the context does not suit the model, or the model fails.
pub fn perplexity<D: Decoder + ?Sized>(
    decoder: &mut D,
    tokens: &[u32],
    params: PerplexityParams,
    progress: &mut dyn FnMut(&Perplexity, usize) -> bool,
) -> Result<Perplexity, PerplexityError> {
    let n_ctx = params.n_ctx;
    let n_chunks = check(decoder, tokens, params)?;
    let mut sums = Sums::default();
    let mut chunk = Vec::with_capacity(n_ctx);
    let mut result = sums.result(n_ctx, 0, tokens.len());
    for (index, whole) in tokens.chunks_exact(n_ctx).take(n_chunks).enumerate() {
        chunk.clear();
        chunk.extend_from_slice(whole);
        if let Some(bos) = params.bos {
            chunk[0] = bos;
        }
        decoder.reset();
        score(decoder, &chunk, &mut sums).map_err(|error| match error {
            PerplexityError::NotFinite { position, .. } => PerplexityError::NotFinite {
                chunk: index,
                position,
            },
            error => error,
        })?;
        result = sums.result(n_ctx, index + 1, tokens.len());
        if !progress(&result, n_chunks) {
            break;
        }
    }
    decoder.reset();
    Ok(result)
}

fn check<D: Decoder + ?Sized>(
    decoder: &D,
    tokens: &[u32],
    params: PerplexityParams,
) -> Result<usize, PerplexityError> {
    let (n_ctx, limit) = (params.n_ctx, decoder.n_ctx());
    if !(4..=limit).contains(&n_ctx) {
        return Err(PerplexityError::Context { got: n_ctx, limit });
    }
    let expected = n_ctx.saturating_mul(2);
    if tokens.len() < expected {
        return Err(PerplexityError::TooShort {
            got: tokens.len(),
            expected,
            n_ctx,
        });
    }
    let n_vocab = decoder.n_vocab();
    let bad = tokens
        .iter()
        .chain(&params.bos)
        .position(|&id| id as usize >= n_vocab);
    if let Some(index) = bad {
        let id = tokens.get(index).copied().or(params.bos).unwrap_or(0);
        return Err(PerplexityError::TokenOutOfRange { index, id, n_vocab });
    }
    match params.chunks {
        Some(0) => Err(PerplexityError::NoChunks),
        limit => Ok((tokens.len() / n_ctx).min(limit.unwrap_or(usize::MAX))),
    }
}

/// Adds the second half of a chunk. The last token is only predicted, never read.
fn score<D: Decoder + ?Sized>(
    decoder: &mut D,
    chunk: &[u32],
    sums: &mut Sums,
) -> Result<(), PerplexityError> {
    let mut bad = None;
    let read = &chunk[..chunk.len() - 1];
    let mut each = |position: usize, logits: &[f32]| {
        let nll = negative_log_likelihood(logits, chunk[position + 1]);
        if !nll.is_finite() && bad.is_none() {
            bad = Some(position);
        }
        sums.nll += nll;
        sums.nll_squared += nll * nll;
        sums.n_scored += 1;
    };
    decoder
        .prefill_each(read, chunk.len() / 2, &mut each)
        .map_err(PerplexityError::Decoder)?;
    match bad {
        Some(position) => Err(PerplexityError::NotFinite { chunk: 0, position }),
        None => Ok(()),
    }
}

/// `−ln softmax(logits)[token]`, exponentials in single and the sum in double precision.
pub fn negative_log_likelihood(logits: &[f32], token: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|&logit| f64::from((logit - max).exp()))
        .sum();
    sum.ln() - f64::from(logits[token as usize] - max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::scripted::Scripted;

    fn run(
        decoder: &mut Scripted,
        tokens: &[u32],
        params: PerplexityParams,
    ) -> Result<Perplexity, PerplexityError> {
        perplexity(decoder, tokens, params, &mut |_, _| true)
    }

    fn params(n_ctx: usize) -> PerplexityParams {
        PerplexityParams {
            n_ctx,
            ..PerplexityParams::default()
        }
    }

    #[test]
    fn a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary() {
        let mut decoder = Scripted::new(37, 64, |_, logits| logits.fill(0.25));
        let tokens: Vec<u32> = (0..70).map(|i| i % 37).collect();
        let result = run(&mut decoder, &tokens, params(16)).unwrap();
        assert!((result.perplexity - 37.0).abs() < 1e-9, "{result:?}");
        assert!(result.standard_error < 1e-6, "{result:?}");
        assert_eq!(
            (result.n_chunks, result.n_tokens, result.n_scored),
            (4, 70, 4 * 7)
        );
    }

    #[test]
    fn only_second_halves_count_and_each_chunk_starts_anew() {
        // The logits tell how long the context is and what it began with.
        let mut decoder = Scripted::new(50, 64, |context, logits| {
            let sum: u32 = context.iter().sum();
            logits[(sum as usize * 7 + context.len()) % 50] = 3.0;
            logits[context[0] as usize] += 1.5;
        });
        let tokens: Vec<u32> = (0..50).map(|i| (i * i + 3) % 50).collect();
        let n_ctx = 12;
        for bos in [None, Some(49)] {
            let got = run(
                &mut decoder,
                &tokens,
                PerplexityParams {
                    bos,
                    ..params(n_ctx)
                },
            )
            .unwrap();
            let mut nlls = Vec::new();
            for start in [0, 12, 24, 36] {
                let mut chunk = tokens[start..start + n_ctx].to_vec();
                chunk[0] = bos.unwrap_or(chunk[0]);
                for j in n_ctx / 2..=n_ctx - 2 {
                    let mut logits = vec![0.0f32; 50];
                    (decoder.script)(&chunk[..=j], &mut logits);
                    let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
                    nlls.push(total.ln() - f64::from(logits[chunk[j + 1] as usize]));
                }
            }
            let n = nlls.len() as f64;
            let mean = nlls.iter().sum::<f64>() / n;
            let spread = nlls.iter().map(|nll| (nll - mean).powi(2)).sum::<f64>() / n;
            assert_eq!(got.n_scored, nlls.len());
            assert!(
                (got.mean_nll - mean).abs() < 1e-6,
                "{got:?}, expected {mean}"
            );
            let error = (spread / (n - 1.0)).sqrt() * mean.exp();
            assert!(
                (got.standard_error - error).abs() < 1e-5,
                "{got:?}, expected ± {error}"
            );
        }
        assert_eq!(decoder.position(), 0);
    }

    #[test]
    fn progress_hears_every_chunk_and_can_end_it() {
        let mut decoder = Scripted::new(5, 64, |_, _| {});
        let tokens = vec![1; 80];
        let mut heard = Vec::new();
        let limited = PerplexityParams {
            chunks: Some(3),
            ..params(8)
        };
        perplexity(&mut decoder, &tokens, limited, &mut |so_far, n| {
            heard.push((so_far.n_chunks, n));
            true
        })
        .unwrap();
        assert_eq!(heard, [(1, 3), (2, 3), (3, 3)]);
        let result = perplexity(&mut decoder, &tokens, params(8), &mut |so_far, _| {
            so_far.n_chunks < 2
        })
        .unwrap();
        assert_eq!(result.n_chunks, 2);
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        use PerplexityError as E;
        let mut decoder = Scripted::new(5, 32, |_, _| {});
        let tokens = vec![1; 40];
        assert!(matches!(
            run(&mut decoder, &tokens, params(3)),
            Err(E::Context { got: 3, limit: 32 })
        ));
        assert!(matches!(
            run(&mut decoder, &tokens, params(33)),
            Err(E::Context { got: 33, limit: 32 })
        ));
        assert!(matches!(
            run(&mut decoder, &tokens, params(21)),
            Err(E::TooShort {
                got: 40,
                expected: 42,
                ..
            })
        ));
        let none = PerplexityParams {
            chunks: Some(0),
            ..params(8)
        };
        assert!(matches!(run(&mut decoder, &tokens, none), Err(E::NoChunks)));
        let bos = PerplexityParams {
            bos: Some(5),
            ..params(8)
        };
        assert!(matches!(
            run(&mut decoder, &tokens, bos),
            Err(E::TokenOutOfRange { id: 5, .. })
        ));
        let error = run(
            &mut decoder,
            &[vec![1; 20], vec![9; 20]].concat(),
            params(8),
        );
        assert!(matches!(
            error,
            Err(E::TokenOutOfRange {
                index: 20,
                id: 9,
                n_vocab: 5
            })
        ));
        let mut damaged = Scripted::new(5, 32, |context, logits| {
            if context.len() == 6 && context[0] == 2 {
                logits[3] = f32::NAN;
            }
        });
        let error = run(
            &mut damaged,
            &[vec![1; 16], vec![2; 16]].concat(),
            params(8),
        );
        assert!(
            matches!(
                error,
                Err(E::NotFinite {
                    chunk: 2,
                    position: 5
                })
            ),
            "{error:?}"
        );
    }
}
