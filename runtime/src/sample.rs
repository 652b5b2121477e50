//! Choosing the next token from logits: greedy, or drawn after the usual cuts, in llama.cpp's order.
//!
//! Order: repeat penalty → top-k → top-p → min-p → temperature → draw. Same seed, same build, same output. Nothing is
//! allocated after construction.

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

/// A token and its logit.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    logit: f32,
    id: u32,
}

impl Candidate {
    /// Likeliest first; of equals the lowest id, so that the order is total and the same everywhere.
    fn order(a: &Self, b: &Self) -> Ordering {
        b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
    }
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

    /// Chooses the token that follows `history`, the prompt and everything since.
    ///
    /// # Errors
    /// When a logit is NaN or +∞, or all are −∞.
    pub fn sample(&mut self, logits: &[f32], history: &[u32]) -> Result<u32, SampleError> {
        let best = first_max(logits)?;
        let penalise = self.params.repeat_penalty != 1.0 && self.params.repeat_last_n > 0;
        if !penalise && self.params.temperature <= 0.0 {
            return Ok(best);
        }
        let mut penalised = std::mem::take(&mut self.penalised);
        let logits = if penalise {
            self.penalise(logits, history, &mut penalised);
            &penalised
        } else {
            logits
        };
        let chosen = if self.params.temperature <= 0.0 {
            first_max(logits)
        } else {
            self.keep(logits);
            self.draw()
        };
        self.penalised = penalised;
        chosen
    }

    fn penalise(&mut self, logits: &[f32], history: &[u32], penalised: &mut Vec<f32>) {
        penalised.clear();
        penalised.extend_from_slice(logits);
        let first = history.len().saturating_sub(self.params.repeat_last_n);
        self.recent.clear();
        self.recent.extend_from_slice(&history[first..]);
        self.recent.sort_unstable();
        self.recent.dedup();
        for &id in &self.recent {
            if let Some(logit) = penalised.get_mut(id as usize) {
                let penalty = self.params.repeat_penalty;
                *logit = if *logit > 0.0 {
                    *logit / penalty
                } else {
                    *logit * penalty
                };
            }
        }
    }

    /// Leaves in `candidates` what top-k, top-p and min-p keep, likeliest first.
    fn keep(&mut self, logits: &[f32]) {
        let kept = &mut self.candidates;
        kept.clear();
        kept.extend(
            (0u32..)
                .zip(logits)
                .map(|(id, &logit)| Candidate { logit, id }),
        );
        let top_k = self.params.top_k;
        if top_k > 0 && top_k < kept.len() {
            kept.select_nth_unstable_by(top_k - 1, Candidate::order);
            kept.truncate(top_k);
        }
        kept.sort_unstable_by(Candidate::order);
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

/// The first of the largest logits.
fn first_max(logits: &[f32]) -> Result<u32, SampleError> {
    let mut best = (f32::NEG_INFINITY, None);
    for (id, &value) in logits.iter().enumerate() {
        if value.is_nan() || value == f32::INFINITY {
            return Err(SampleError::Logit { id, value });
        }
        if value > best.0 {
            best = (value, u32::try_from(id).ok());
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
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// Draws without any cut.
    fn plain(seed: u64) -> SamplerParams {
        SamplerParams {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: Some(seed),
            ..SamplerParams::default()
        }
    }

    fn kept(params: SamplerParams, logits: &[f32]) -> Vec<u32> {
        let mut sampler = Sampler::new(params, logits.len()).unwrap();
        sampler.keep(logits);
        sampler.candidates.iter().map(|c| c.id).collect()
    }

    fn logits() -> impl Strategy<Value = Vec<f32>> {
        // Steps of a half make ties frequent.
        proptest::collection::vec((-20i8..20).prop_map(|x| f32::from(x) * 0.5), 1..50)
    }

    #[test]
    fn generators_give_their_published_numbers() {
        // From the reference implementations of both generators.
        let mut rng = Rng([1, 2, 3, 4]);
        let first: Vec<u64> = (0..5).map(|_| rng.next()).collect();
        assert_eq!(
            first,
            [
                41943041,
                58720359,
                3588806011781223,
                3591011842654386,
                9228616714210784205
            ]
        );
        let mut state = 1234567;
        assert_eq!(split_mix(&mut state), 6457827717110365317);
        assert_eq!(split_mix(&mut state), 3203168211198807973);
    }

    #[test]
    fn drawn_frequencies_are_the_softmax() {
        for temperature in [0.5f32, 1.0, 2.0] {
            let logits = [1.0f32, -0.5, 2.0, 0.0, 1.5, -2.0, f32::NEG_INFINITY];
            let weights: Vec<f64> = logits
                .iter()
                .map(|l| f64::from(l / temperature).exp())
                .collect();
            let total: f64 = weights.iter().sum();
            let mut sampler = Sampler::new(
                SamplerParams {
                    temperature,
                    ..plain(7)
                },
                7,
            )
            .unwrap();
            let n = 100_000;
            let mut counts = [0u32; 7];
            for _ in 0..n {
                counts[sampler.sample(&logits, &[]).unwrap() as usize] += 1;
            }
            assert_eq!(counts[6], 0, "an impossible token was drawn");
            let chi_square: f64 = (0..6)
                .map(|i| {
                    let expected = f64::from(n) * weights[i] / total;
                    (f64::from(counts[i]) - expected).powi(2) / expected
                })
                .sum();
            // 5 degrees of freedom: above 20.5 one time in a thousand; the seed is fixed.
            assert!(
                chi_square < 20.5,
                "T = {temperature}: chi² = {chi_square}, {counts:?}"
            );
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_tokens() {
        let logits: Vec<f32> = (0..100u8).map(|i| f32::from(i % 7)).collect();
        let draw = |seed| {
            let mut sampler = Sampler::new(plain(seed), 100).unwrap();
            (0..50)
                .map(|_| sampler.sample(&logits, &[]).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
        let free = SamplerParams {
            seed: None,
            ..plain(0)
        };
        let mut sampler = Sampler::new(free.clone(), 100).unwrap();
        let drawn: Vec<u32> = (0..50)
            .map(|_| sampler.sample(&logits, &[]).unwrap())
            .collect();
        assert_eq!(
            drawn,
            draw(sampler.seed()),
            "the reported seed repeats the run"
        );
        assert_ne!(sampler.seed(), Sampler::new(free, 100).unwrap().seed());
    }

    proptest! {
        #[test]
        fn one_candidate_is_greedy(logits in logits(), seed: u64) {
            let first = logits.iter().position(|l| logits.iter().all(|other| l >= other)).unwrap() as u32;
            let variants = [
                SamplerParams::greedy(),
                SamplerParams { top_k: 1, ..plain(seed) },
                SamplerParams { top_p: 0.0, ..plain(seed) },
                SamplerParams { temperature: -1.0, ..plain(seed) },
            ];
            for params in variants {
                let mut sampler = Sampler::new(params, logits.len()).unwrap();
                prop_assert_eq!(sampler.sample(&logits, &[]).unwrap(), first);
            }
            // Only ties of the maximum survive these two.
            for params in [SamplerParams { min_p: 1.0, ..plain(seed) }, SamplerParams { temperature: 1e-30, ..plain(seed) }] {
                let mut sampler = Sampler::new(params, logits.len()).unwrap();
                let drawn = sampler.sample(&logits, &[]).unwrap();
                prop_assert_eq!(logits[drawn as usize], logits[first as usize]);
            }
        }

        #[test]
        fn top_k_keeps_the_k_likeliest(logits in logits(), k in 1usize..60) {
            let kept = kept(SamplerParams { top_k: k, ..plain(0) }, &logits);
            prop_assert_eq!(kept.len(), k.min(logits.len()));
            let inside: HashSet<u32> = kept.iter().copied().collect();
            let least = logits[*kept.last().unwrap() as usize];
            for (id, &logit) in (0u32..).zip(&logits) {
                prop_assert!(inside.contains(&id) || logit <= least);
            }
        }

        #[test]
        fn top_p_keeps_the_smallest_sufficient_prefix(logits in logits(), p in 0.01f32..0.999) {
            let kept = kept(SamplerParams { top_p: p, ..plain(0) }, &logits);
            let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
            let mass = |ids: &[u32]| ids.iter().map(|&id| f64::from(logits[id as usize]).exp()).sum::<f64>() / total;
            prop_assert!(mass(&kept) >= f64::from(p) - 1e-9);
            prop_assert!(mass(&kept[..kept.len() - 1]) < f64::from(p) + 1e-9);
            prop_assert!(kept.is_sorted_by(|a, b| logits[*a as usize] >= logits[*b as usize]));
        }

        #[test]
        fn min_p_keeps_tokens_by_relative_probability(logits in logits(), p in 0.01f32..0.99) {
            let kept: HashSet<u32> = kept(SamplerParams { min_p: p, ..plain(0) }, &logits).into_iter().collect();
            let max = logits.iter().copied().fold(f32::MIN, f32::max);
            for (id, &logit) in (0u32..).zip(&logits) {
                prop_assert_eq!(kept.contains(&id), logit >= max + p.ln(), "{} {}", logit, max);
            }
        }

        #[test]
        fn repeated_tokens_lose(
            logits in logits(),
            history in proptest::collection::vec(0u32..60, 0..20),
            n in 0usize..20,
        ) {
            let params = SamplerParams { repeat_penalty: 2.0, repeat_last_n: n, ..SamplerParams::greedy() };
            let recent = &history[history.len().saturating_sub(n)..];
            let expected: Vec<f32> = (0u32..)
                .zip(&logits)
                .map(|(id, &l)| match recent.contains(&id) {
                    true if l > 0.0 => l / 2.0,
                    true => l * 2.0,
                    false => l,
                })
                .collect();
            let mut sampler = Sampler::new(params, logits.len()).unwrap();
            prop_assert_eq!(sampler.sample(&logits, &history).unwrap(), first_max(&expected).unwrap());
        }
    }

    #[test]
    fn cuts_follow_llama_cpps_order() {
        // Probabilities .64 .24 .09 .03: top-p 0.7 sees them before a temperature of 100 would flatten them.
        let logits = [4.0, 3.0, 2.0, 1.0];
        let params = SamplerParams {
            temperature: 100.0,
            top_p: 0.7,
            ..plain(0)
        };
        assert_eq!(kept(params, &logits), [0, 1]);
        // Top-k comes first: of the two left, the first alone has 73 %.
        let params = SamplerParams {
            top_k: 2,
            top_p: 0.7,
            ..plain(0)
        };
        assert_eq!(kept(params, &logits), [0]);
    }

    #[test]
    fn damaged_logits_and_parameters_are_refused() {
        for params in [SamplerParams::greedy(), plain(0)] {
            let mut sampler = Sampler::new(params, 3).unwrap();
            let error = sampler.sample(&[0.0, f32::NAN, 1.0], &[]).unwrap_err();
            assert!(matches!(error, SampleError::Logit { id: 1, .. }));
            let error = sampler.sample(&[0.0, 1.0, f32::INFINITY], &[]).unwrap_err();
            assert!(matches!(error, SampleError::Logit { id: 2, .. }));
            assert_eq!(
                sampler.sample(&[f32::NEG_INFINITY; 3], &[]),
                Err(SampleError::NothingPossible)
            );
            assert_eq!(sampler.sample(&[], &[]), Err(SampleError::NothingPossible));
        }
        let bad = [
            SamplerParams {
                temperature: f32::NAN,
                ..plain(0)
            },
            SamplerParams {
                top_p: 1.5,
                ..plain(0)
            },
            SamplerParams {
                top_p: f32::NAN,
                ..plain(0)
            },
            SamplerParams {
                min_p: -0.1,
                ..plain(0)
            },
            SamplerParams {
                repeat_penalty: 0.0,
                ..plain(0)
            },
        ];
        for params in bad {
            assert!(Sampler::new(params.clone(), 3).is_err(), "{params:?}");
        }
    }

    #[test]
    fn sampling_allocates_nothing() {
        let logits: Vec<f32> = (0..1000u16).map(|i| f32::from(i % 31)).collect();
        let params = SamplerParams {
            repeat_penalty: 1.1,
            ..plain(1)
        };
        let mut sampler = Sampler::new(params, 1000).unwrap();
        let addresses = |s: &Sampler| {
            (
                s.penalised.as_ptr(),
                s.recent.as_ptr(),
                s.candidates.as_ptr(),
                s.weights.as_ptr(),
            )
        };
        let before = addresses(&sampler);
        let history: Vec<u32> = (0..200).collect();
        for _ in 0..20 {
            sampler.sample(&logits, &history).unwrap();
        }
        assert_eq!(addresses(&sampler), before);
    }
}
