//! Choosing the next token from logits: greedy, or drawn after the usual cuts, in llama.cpp's order.
//!
//! Order: repeat penalty → top-k → top-p → min-p → temperature → draw. Same seed, same build, same output. Nothing is
//! allocated after construction.

use crate::logits::{Candidate, Logits, Top, Wanted};
use std::cmp::Ordering;
use std::hash::{BuildHasher, Hasher};

/// How tokens are chosen. The defaults are llama.cpp's.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerParams {
    /// Above 1 flattens, below 1 sharpens; 0 or less is greedy.
    pub temperature: f32,
    /// Keep the `top_k` most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of most likely tokens that has this much probability; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divide (multiply, if negative) the logits of recent tokens by this; 1 leaves them.
    pub repeat_penalty: f32,
    /// How many of the last tokens, prompt included, count as recent.
    pub repeat_last_n: usize,
    /// Random where absent; [`Sampler::seed`] tells which was drawn.
    pub seed: Option<u64>,
}

impl Default for SamplerParams {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            seed: None,
        }
    }
}

impl SamplerParams {
    /// Always the most likely token.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            seed: Some(0),
            ..Self::default()
        }
    }
}

/// Why no token could be chosen.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum SampleError {
    /// A parameter outside its range.
    #[error("{name}: expected {expected}, got {got}")]
    Param {
        /// Which.
        name: &'static str,
        /// Its range.
        expected: &'static str,
        /// What was given.
        got: f32,
    },
    /// A logit that is not a number, or infinitely likely: the model's weights or kernels are damaged.
    #[error(
        "the model's logit of token {id} is {value}: its weights are damaged (try `bitnet-tune verify`)"
    )]
    Logit {
        /// The token.
        id: usize,
        /// Its logit.
        value: f32,
    },
    /// Every token is impossible.
    #[error("the model's logits leave no token possible")]
    NothingPossible,
}

/// Likeliest first; of equals the lowest id, so that the order is total and the same everywhere.
fn order(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Chooses tokens; holds the state of its random numbers.
#[derive(Debug)]
pub struct Sampler {
    params: SamplerParams,
    seed: u64,
    rng: Rng,
    penalised: Vec<f32>,
    recent: Vec<u32>,
    candidates: Vec<Candidate>,
    weights: Vec<f64>,
}

impl Sampler {
    /// Checks `params` and sets memory aside for `n_vocab` logits.
    ///
    /// # Errors
    /// When a parameter is outside its range.
    pub fn new(params: SamplerParams, n_vocab: usize) -> Result<Self, SampleError> {
        let check = |name, expected, got: f32, good: bool| match good {
            true => Ok(()),
            false => Err(SampleError::Param {
                name,
                expected,
                got,
            }),
        };
        let (temperature, penalty) = (params.temperature, params.repeat_penalty);
        check(
            "temperature",
            "a number, 0 for greedy",
            temperature,
            temperature.is_finite(),
        )?;
        check(
            "top-p",
            "0 to 1",
            params.top_p,
            (0.0..=1.0).contains(&params.top_p),
        )?;
        check(
            "min-p",
            "0 to 1",
            params.min_p,
            (0.0..=1.0).contains(&params.min_p),
        )?;
        check(
            "repeat-penalty",
            "a number above 0",
            penalty,
            penalty.is_finite() && penalty > 0.0,
        )?;
        let seed = params.seed.unwrap_or_else(random_seed);
        let greedy = params.temperature <= 0.0;
        let n_penalised = if penalty == 1.0 { 0 } else { n_vocab };
        let n_candidates = if greedy { 0 } else { n_vocab };
        Ok(Self {
            seed,
            rng: Rng::new(seed),
            penalised: Vec::with_capacity(n_penalised),
            recent: Vec::with_capacity(params.repeat_last_n.min(n_penalised)),
            candidates: Vec::with_capacity(n_candidates),
            weights: Vec::with_capacity(n_candidates),
            params,
        })
    }

    /// The seed in use: the given one, or the one that was drawn.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    fn is_greedy(&self) -> bool {
        self.params.temperature <= 0.0
    }

    fn penalises(&self) -> bool {
        self.params.repeat_penalty != 1.0 && self.params.repeat_last_n > 0
    }

    /// What [`Self::choose`] needs of the logits that follow `history`, of the first `n_vocab` tokens.
    pub fn wanted(&mut self, history: &[u32], n_vocab: usize) -> Wanted<'_> {
        let k = if self.is_greedy() {
            1
        } else {
            self.params.top_k
        };
        if k == 0 || k >= n_vocab {
            return Wanted::All;
        }
        self.recent.clear();
        if self.penalises() {
            self.note_recent(history);
        }
        Wanted::Top(Top {
            // A penalty may push as many out of the likeliest as it touches, or up into them.
            k: k + self.recent.len(),
            among: n_vocab,
            also: &self.recent,
        })
    }

    /// Chooses the token that follows `history`, the prompt and everything since, among the first `n_vocab`.
    ///
    /// `logits` are what [`Self::wanted`] asked for, or all: the choice is the same.
    ///
    /// # Errors
    /// When a logit is NaN or +∞, or all are −∞.
    pub fn choose(
        &mut self,
        logits: Logits<'_>,
        n_vocab: usize,
        history: &[u32],
    ) -> Result<u32, SampleError> {
        match logits {
            Logits::All(logits) => self.sample(&logits[..n_vocab.min(logits.len())], history),
            Logits::Some(given) => self.sample_some(given, history),
        }
    }

    /// Chooses the token that follows `history`, the prompt and everything since.
    ///
    /// # Errors
    /// When a logit is NaN or +∞, or all are −∞.
    pub fn sample(&mut self, logits: &[f32], history: &[u32]) -> Result<u32, SampleError> {
        let best = first_max(by_id(logits))?;
        if !self.penalises() && self.is_greedy() {
            return Ok(best);
        }
        let mut penalised = std::mem::take(&mut self.penalised);
        let logits = if self.penalises() {
            self.penalise(logits, history, &mut penalised);
            &penalised
        } else {
            logits
        };
        let chosen = if self.is_greedy() {
            first_max(by_id(logits))
        } else {
            self.keep(logits);
            self.draw()
        };
        self.penalised = penalised;
        chosen
    }

    /// [`Self::sample`] from the likeliest and the penalised tokens alone, in rising order of ids.
    fn sample_some(&mut self, given: &[Candidate], history: &[u32]) -> Result<u32, SampleError> {
        first_max(given.iter().copied())?;
        self.recent.clear();
        if self.penalises() {
            self.note_recent(history);
        }
        let (recent, penalty) = (&self.recent, self.params.repeat_penalty);
        let penalised = given.iter().map(|c| match recent.binary_search(&c.id) {
            Ok(_) => Candidate {
                logit: penalised(c.logit, penalty),
                id: c.id,
            },
            Err(_) => *c,
        });
        if self.params.temperature <= 0.0 {
            return first_max(penalised);
        }
        self.candidates.clear();
        self.candidates.extend(penalised);
        self.cut();
        self.draw()
    }

    /// The distinct tokens among the last of `history`, in rising order.
    fn note_recent(&mut self, history: &[u32]) {
        let first = history.len().saturating_sub(self.params.repeat_last_n);
        self.recent.clear();
        self.recent.extend_from_slice(&history[first..]);
        self.recent.sort_unstable();
        self.recent.dedup();
    }

    fn penalise(&mut self, logits: &[f32], history: &[u32], out: &mut Vec<f32>) {
        out.clear();
        out.extend_from_slice(logits);
        self.note_recent(history);
        for &id in &self.recent {
            if let Some(logit) = out.get_mut(id as usize) {
                *logit = penalised(*logit, self.params.repeat_penalty);
            }
        }
    }

    /// Leaves in `candidates` what top-k, top-p and min-p keep of all tokens.
    fn keep(&mut self, logits: &[f32]) {
        self.candidates.clear();
        self.candidates.extend(by_id(logits));
        self.cut();
    }

    /// Leaves in `candidates` what top-k, top-p and min-p keep of them, likeliest first.
    fn cut(&mut self) {
        let kept = &mut self.candidates;
        let top_k = self.params.top_k;
        if top_k > 0 && top_k < kept.len() {
            kept.select_nth_unstable_by(top_k - 1, order);
            kept.truncate(top_k);
        }
        kept.sort_unstable_by(order);
        let max = kept[0].logit;
        if self.params.top_p < 1.0 {
            let probability = |c: &Candidate| f64::from(c.logit - max).exp();
            let total: f64 = kept.iter().map(probability).sum();
            let enough = f64::from(self.params.top_p) * total;
            let mut sum = 0.0;
            let reached = kept.iter().position(|candidate| {
                sum += probability(candidate);
                sum >= enough
            });
            kept.truncate(reached.map_or(kept.len(), |last| last + 1));
        }
        if self.params.min_p > 0.0 {
            let least = max + self.params.min_p.ln();
            let n_kept = kept.partition_point(|candidate| candidate.logit >= least);
            kept.truncate(n_kept.max(1));
        }
    }

    /// Draws from `candidates` at the temperature.
    fn draw(&mut self) -> Result<u32, SampleError> {
        let max = self.candidates[0].logit;
        let temperature = f64::from(self.params.temperature);
        let mut total = 0.0;
        self.weights.clear();
        for candidate in &self.candidates {
            // The difference first: however small the temperature, the likeliest weighs one.
            total += (f64::from(candidate.logit - max) / temperature).exp();
            self.weights.push(total);
        }
        let at = self.rng.unit() * total;
        let drawn = self.weights.partition_point(|&sum| sum <= at);
        let candidate = self
            .candidates
            .get(drawn)
            .or_else(|| self.candidates.first());
        candidate.map(|c| c.id).ok_or(SampleError::NothingPossible)
    }
}

/// All tokens with their logits.
fn by_id(logits: &[f32]) -> impl Iterator<Item = Candidate> {
    (0u32..)
        .zip(logits)
        .map(|(id, &logit)| Candidate { logit, id })
}

/// A recent token's logit.
fn penalised(logit: f32, penalty: f32) -> f32 {
    if logit > 0.0 {
        logit / penalty
    } else {
        logit * penalty
    }
}

/// The first of the largest logits.
fn first_max(candidates: impl Iterator<Item = Candidate>) -> Result<u32, SampleError> {
    let mut best = (f32::NEG_INFINITY, None);
    for Candidate { logit, id } in candidates {
        if logit.is_nan() || logit == f32::INFINITY {
            return Err(SampleError::Logit {
                id: id as usize,
                value: logit,
            });
        }
        if logit > best.0 {
            best = (logit, Some(id));
        }
    }
    best.1.ok_or(SampleError::NothingPossible)
}

/// A seed from the operating system's randomness, by way of the standard library's hash keys.
fn random_seed() -> u64 {
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u64(0);
    hasher.finish()
}

/// xoshiro256++ (Blackman and Vigna, 2019), its state filled from the seed by SplitMix64.
#[derive(Clone, Debug)]
struct Rng([u64; 4]);

impl Rng {
    fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| split_mix(&mut state)))
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in [0, 1), from the upper 53 bits.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
