//! The loop that turns a prompt into text, over anything that can answer tokens with logits.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::decoder::{Decoder, DecoderError};
use crate::logits::{Logits, Wanted};
use crate::sample::{SampleError, Sampler};
use crate::stream::TextStream;
use crate::tokenizer::{Tokenizer, TokenizerError};

mod logprobs;

pub use logprobs::{Likelihood, TokenLogprob};

/// How far a generation goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerateParams {
    /// At most this many tokens.
    pub max_tokens: usize,
    /// Texts that end a generation and are not printed, beside the tokenizer's stop tokens.
    pub stop_strings: Vec<String>,
    /// Go on after stop tokens; for measurements.
    pub ignore_stops: bool,
    /// Note how likely each chosen token was, and this many of the likeliest in its place. All logits are computed then.
    pub logprobs: Option<usize>,
}

impl GenerateParams {
    /// Up to `max_tokens`, ended by the tokenizer's stop tokens.
    pub fn new(max_tokens: usize) -> Self {
        Self {
            max_tokens,
            stop_strings: Vec::new(),
            ignore_stops: false,
            logprobs: None,
        }
    }
}

/// What ended a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    /// The model said so, by a stop token.
    Stop,
    /// A stop string came.
    StopString,
    /// The limit asked for.
    Length,
    /// The context holds no more tokens.
    ContextFull,
    /// The person said so.
    Cancelled,
}

impl Finish {
    /// In words, for a note.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Stop => "the model ended its text",
            Self::StopString => "a stop string came",
            Self::Length => "the token limit was reached",
            Self::ContextFull => "the context is full",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A finished generation; serialises to the document of `generate --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Generated {
    /// What was printed.
    pub text: String,
    /// The tokens chosen, without the stop token.
    pub ids: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that were held from before and cost nothing.
    pub reused_tokens: usize,
    /// Tokens chosen.
    pub tokens: usize,
    /// How likely each of them was, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// What ended it.
    pub finish: Finish,
    /// The sampler's seed.
    pub seed: u64,
    /// Prompt tokens processed per second.
    pub prefill_tokens_per_s: Option<f64>,
    /// Tokens per second from the second one on.
    pub decode_tokens_per_s: Option<f64>,
    /// From the start to the first token.
    pub ttft_ms: Option<f64>,
    /// Half of the tokens, from the second one on, took at most this long.
    pub p50_ms: Option<f64>,
    /// 95 % of them.
    pub p95_ms: Option<f64>,
    /// 99 % of them.
    pub p99_ms: Option<f64>,
}

/// Why nothing, or nothing more, was generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// A prompt without tokens.
    #[error("the prompt is empty: there is nothing to continue")]
    EmptyPrompt,
    /// A prompt that the context cannot hold.
    #[error(
        "the prompt has {prompt} tokens but the context holds {n_ctx}: shorten it, or raise --ctx if the model allows"
    )]
    PromptTooLong {
        /// Its tokens.
        prompt: usize,
        /// What fits.
        n_ctx: usize,
    },
    /// A token that the model does not have.
    #[error("token {id} is out of range: the model has {n_vocab} tokens")]
    TokenOutOfRange {
        /// The token.
        id: u32,
        /// The number of tokens.
        n_vocab: usize,
    },
    /// The decoder failed.
    #[error("{0}")]
    Decoder(#[source] DecoderError),
    /// No token could be chosen.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// A token could not be printed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The text could not be written. A closed pipe is [`io::ErrorKind::BrokenPipe`].
    #[error("cannot write the text: {0}")]
    Output(#[source] io::Error),
}

/// Where the text goes as it comes.
pub type Output<'a> = dyn FnMut(&str) -> io::Result<()> + 'a;

/// A decoder with the tokens it holds: prompts that begin with those are not processed again.
pub struct Session<'a, D: Decoder + ?Sized> {
    decoder: &'a mut D,
    tokenizer: &'a Tokenizer,
    held: Vec<u32>,
}

/// Prompts are processed in pieces so that cancelling does not wait for a long one.
const PREFILL_PIECE: usize = 128;

impl<'a, D: Decoder + ?Sized> Session<'a, D> {
    /// Starts with an empty context.
    pub fn new(decoder: &'a mut D, tokenizer: &'a Tokenizer) -> Self {
        decoder.reset();
        let held = Vec::with_capacity(decoder.n_ctx());
        Self {
            decoder,
            tokenizer,
            held,
        }
    }

    /// Goes on with what `decoder` already holds: the tokens `held`.
    ///
    /// # Panics
    /// When there are more or fewer of them than `decoder` says.
    pub fn resume(decoder: &'a mut D, tokenizer: &'a Tokenizer, mut held: Vec<u32>) -> Self {
        assert_eq!(held.len(), decoder.position(), "the tokens that are held");
        held.reserve(decoder.n_ctx() - held.len());
        Self {
            decoder,
            tokenizer,
            held,
        }
    }

    /// The tokens in the context.
    pub fn held(&self) -> &[u32] {
        &self.held
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.decoder.reset();
        self.held.clear();
    }

    /// Continues `prompt`, the whole of it each time: what the context already holds is reused.
    ///
    /// `cancel` ends the generation between two tokens, with what has come so far.
    ///
    /// # Errors
    /// When the prompt is empty, does not fit, or names unknown tokens; when the model, the sampler or `out` fails.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        params: &GenerateParams,
        sampler: &mut Sampler,
        cancel: &AtomicBool,
        out: &mut Output<'_>,
    ) -> Result<Generated, GenerateError> {
        self.check(prompt)?;
        let reused = self.reuse(prompt);
        let mut run = Generation::new(prompt, reused, params, self.decoder.n_ctx(), sampler.seed());
        let finish = match self.prefill(&prompt[reused..], cancel)? {
            None => Finish::Cancelled,
            Some(last) => self.decode(last, &mut run, params, sampler, cancel, out)?,
        };
        run.piece.clear();
        run.stream.finish(&mut run.piece);
        run.emit(out)?;
        Ok(run.finish(finish, params))
    }

    /// Whether `prompt` can be continued.
    ///
    /// # Errors
    /// When it is empty, does not fit, or names unknown tokens.
    pub fn check(&self, prompt: &[u32]) -> Result<(), GenerateError> {
        let (n_ctx, n_vocab) = (self.decoder.n_ctx(), self.decoder.n_vocab());
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if prompt.len() > n_ctx {
            return Err(GenerateError::PromptTooLong {
                prompt: prompt.len(),
                n_ctx,
            });
        }
        match prompt.iter().find(|&&id| id as usize >= n_vocab) {
            Some(&id) => Err(GenerateError::TokenOutOfRange { id, n_vocab }),
            None => Ok(()),
        }
    }

    /// Keeps the longest common beginning; at least one token is left to process, since logits follow from it.
    fn reuse(&mut self, prompt: &[u32]) -> usize {
        if self.decoder.position() != self.held.len() {
            self.reset();
        }
        let same = self
            .held
            .iter()
            .zip(prompt)
            .take_while(|(a, b)| a == b)
            .count();
        let reused = same.min(prompt.len() - 1);
        self.decoder.truncate(reused);
        self.held.truncate(reused);
        reused
    }

    /// Processes all but the last piece of `tokens` and gives that back, or nothing when cancelled.
    fn prefill<'t>(
        &mut self,
        tokens: &'t [u32],
        cancel: &AtomicBool,
    ) -> Result<Option<&'t [u32]>, GenerateError> {
        let mut rest = tokens;
        while rest.len() > PREFILL_PIECE {
            if cancel.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let (piece, later) = rest.split_at(PREFILL_PIECE);
            // Nobody asks for the logits of a piece that others follow.
            self.decoder
                .prefill_each(piece, piece.len(), &mut |_, _| ())
                .map_err(GenerateError::Decoder)?;
            self.held.extend_from_slice(piece);
            rest = later;
        }
        Ok((!cancel.load(Ordering::Relaxed)).then_some(rest))
    }

    /// Processes the `last` piece of the prompt, then chooses and prints tokens until something ends it.
    fn decode(
        &mut self,
        last: &[u32],
        run: &mut Generation,
        params: &GenerateParams,
        sampler: &mut Sampler,
        cancel: &AtomicBool,
        out: &mut Output<'_>,
    ) -> Result<Finish, GenerateError> {
        let n_ctx = self.decoder.n_ctx();
        // Rows of the embedding beyond the vocabulary are padding that training never touched.
        let n_real = self.tokenizer.n_vocab().min(self.decoder.n_vocab());
        let wanted = logits_wanted(params, sampler, &run.history, n_real);
        let first = self.decoder.prefill_wanted(last, &wanted);
        let mut logits = first.map_err(GenerateError::Decoder)?;
        self.held.extend_from_slice(last);
        run.prefill = run.start.elapsed();
        let mut before = Instant::now();
        loop {
            if cancel.load(Ordering::Relaxed) {
                return Ok(Finish::Cancelled);
            }
            if run.n_chosen() == params.max_tokens {
                return Ok(Finish::Length);
            }
            let token = sampler.choose(logits, n_real, &run.history)?;
            if self.tokenizer.is_stop(token) && !params.ignore_stops {
                return Ok(Finish::Stop);
            }
            if let (Some(n), Logits::All(all)) = (params.logprobs, logits) {
                let noted = logprobs::of(self.tokenizer, &all[..n_real], token, n)?;
                run.logprobs.push(noted);
            }
            run.history.push(token);
            run.piece.clear();
            run.stream
                .push(self.tokenizer.print(token)?, &mut run.piece);
            run.emit(out)?;
            run.note_time(&mut before);
            if run.stream.stopped() {
                return Ok(Finish::StopString);
            }
            if run.n_chosen() == params.max_tokens {
                return Ok(Finish::Length);
            }
            if self.held.len() == n_ctx {
                return Ok(Finish::ContextFull);
            }
            let wanted = logits_wanted(params, sampler, &run.history, n_real);
            let next = self.decoder.prefill_wanted(&[token], &wanted);
            logits = next.map_err(GenerateError::Decoder)?;
            self.held.push(token);
        }
    }
}

/// The logits that the next token is chosen by: all where their probabilities are asked for.
fn logits_wanted<'w>(
    params: &GenerateParams,
    sampler: &'w mut Sampler,
    history: &[u32],
    n_real: usize,
) -> Wanted<'w> {
    match params.logprobs {
        Some(_) => Wanted::All,
        None => sampler.wanted(history, n_real),
    }
}

/// A generation in progress. All memory is set aside at its start.
struct Generation {
    start: Instant,
    prefill: Duration,
    first: Option<Duration>,
    /// Of each token from the second one on.
    token_times: Vec<Duration>,
    /// The prompt and what followed.
    history: Vec<u32>,
    n_prompt: usize,
    n_reused: usize,
    stream: TextStream,
    /// What the latest token prints.
    piece: String,
    text: String,
    seed: u64,
    logprobs: Vec<TokenLogprob>,
}

impl Generation {
    fn new(
        prompt: &[u32],
        n_reused: usize,
        params: &GenerateParams,
        n_ctx: usize,
        seed: u64,
    ) -> Self {
        // One more than fits: the last token chosen need not be held.
        let most = params.max_tokens.min(n_ctx - prompt.len() + 1);
        let mut history = Vec::with_capacity(prompt.len() + most);
        history.extend_from_slice(prompt);
        Self {
            start: Instant::now(),
            prefill: Duration::ZERO,
            first: None,
            token_times: Vec::with_capacity(most),
            history,
            n_prompt: prompt.len(),
            n_reused,
            stream: TextStream::new(params.stop_strings.iter().cloned()),
            piece: String::with_capacity(1024),
            text: String::with_capacity(most.saturating_mul(8)),
            seed,
            logprobs: Vec::new(),
        }
    }

    fn n_chosen(&self) -> usize {
        self.history.len() - self.n_prompt
    }

    fn emit(&mut self, out: &mut Output<'_>) -> Result<(), GenerateError> {
        if self.piece.is_empty() {
            return Ok(());
        }
        self.text.push_str(&self.piece);
        out(&self.piece).map_err(GenerateError::Output)
    }

    fn note_time(&mut self, before: &mut Instant) {
        let now = Instant::now();
        match self.first {
            None => self.first = Some(now - self.start),
            Some(_) => self.token_times.push(now - *before),
        }
        *before = now;
    }

    fn finish(mut self, finish: Finish, params: &GenerateParams) -> Generated {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let per_s = |n: usize, time: Duration| {
            let seconds = time.as_secs_f64();
            (n > 0 && seconds > 0.0).then(|| n as f64 / seconds)
        };
        let n_chosen = self.n_chosen();
        let decoding: Duration = self.token_times.iter().sum();
        self.token_times.sort_unstable();
        let percentile = |p| nearest_rank(&self.token_times, p).map(ms);
        Generated {
            ids: self.history[self.n_prompt..].to_vec(),
            prompt_tokens: self.n_prompt,
            reused_tokens: self.n_reused,
            tokens: n_chosen,
            logprobs: params.logprobs.map(|_| self.logprobs),
            finish,
            seed: self.seed,
            prefill_tokens_per_s: per_s(self.n_prompt - self.n_reused, self.prefill),
            decode_tokens_per_s: per_s(self.token_times.len(), decoding),
            ttft_ms: self.first.map(ms),
            p50_ms: percentile(50),
            p95_ms: percentile(95),
            p99_ms: percentile(99),
            text: self.text,
        }
    }
}

/// The smallest value that at least `percent` % of `sorted` do not exceed.
fn nearest_rank(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests;
