//! Samplers against definitions, published numbers and a chi-square test.

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

    /// What a head gives that computes the likeliest alone is enough, whatever the parameters.
    #[test]
    fn the_wanted_logits_choose_as_all_do(
        logits in logits(),
        history in proptest::collection::vec(0u32..60, 0..20),
        (temperature, top_k, top_p, min_p) in (0u8..3, 0usize..60, 0u8..3, 0u8..3),
        (penalty, n, more) in (0u8..3, 0usize..20, 0usize..5),
        seed: u64,
    ) {
        let params = SamplerParams {
            temperature: f32::from(temperature) * 0.7,
            top_k,
            top_p: 1.0 - f32::from(top_p) * 0.4,
            min_p: f32::from(min_p) * 0.3,
            repeat_penalty: [1.0, 1.3, 0.8][usize::from(penalty)],
            repeat_last_n: n,
            seed: Some(seed),
        };
        let mut whole = Sampler::new(params.clone(), logits.len()).unwrap();
        let mut sparing = Sampler::new(params, logits.len()).unwrap();
        for _ in 0..3 {
            let given: Option<Vec<Candidate>> = match sparing.wanted(&history, logits.len()) {
                Wanted::All => None,
                Wanted::Top(top) => {
                    let mut order: Vec<Candidate> = by_id(&logits).collect();
                    order.sort_by(super::order);
                    let kth = order[top.k.min(order.len()) - 1].logit;
                    let kept = |(i, c): &(usize, Candidate)| {
                        c.logit >= kth || top.also.contains(&c.id) || *i < top.k + more
                    };
                    let kept = order.into_iter().enumerate().filter(kept);
                    let mut given: Vec<Candidate> = kept.map(|(_, c)| c).collect();
                    given.sort_by_key(|c| c.id);
                    Some(given)
                }
            };
            let given = given.as_deref().map_or(Logits::All(&logits), Logits::Some);
            prop_assert_eq!(
                sparing.choose(given, logits.len(), &history),
                whole.sample(&logits, &history)
            );
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
        prop_assert_eq!(sampler.sample(&logits, &history).unwrap(), first_max(by_id(&expected)).unwrap());
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
