//! Sequences side by side give the bits that each gives alone, and what cannot be run is refused by name.

use super::*;
use crate::demo;
use crate::format::{self, OpenOptions};
use crate::network::kernels::Kernels;
use crate::profile::Profile;
use crate::sequence::{KvType, PAGE, SequenceOptions};
use bitnet_codegen::Features;
use std::collections::HashMap;

fn network(name: Option<&str>) -> Arc<Network> {
    let options = OpenOptions::default();
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/tiny");
    let model = match name {
        Some(name) => format::open(&std::path::Path::new(tiny).join(name), &options),
        None => demo::open(&options),
    };
    let pool = Pool::new(1).expect("a thread");
    let mut kernels = Kernels::new(Features::detect(), Profile::default());
    Arc::new(Network::new(Arc::new(model.expect("it opens")), &pool, &mut kernels).expect("packed"))
}

fn step(network: &Arc<Network>, threads: usize, max_rows: usize) -> Step {
    let pool = Arc::new(Pool::new(threads).expect("threads"));
    Step::new(Arc::clone(network), pool, max_rows)
}

fn sequence(network: &Arc<Network>, kv: KvType) -> Sequence {
    let options = SequenceOptions {
        kv,
        ..SequenceOptions::default()
    };
    Sequence::new(network, &options).expect("the model's own context")
}

/// Numbers that are always the same for a seed.
struct Dice(u64);

impl Dice {
    /// Below `n`.
    fn roll(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|v| v.to_bits()).collect()
}

/// What the model answers to `tokens` alone, one by one, from an empty sequence.
struct Alone {
    step: Step,
    known: HashMap<(KvType, Vec<u32>), Vec<u32>>,
}

impl Alone {
    fn answer(&mut self, kv: KvType, tokens: &[u32]) -> Vec<u32> {
        if let Some(known) = self.known.get(&(kv, tokens.to_vec())) {
            return known.clone();
        }
        let mut sequence = sequence(self.step.network(), kv);
        let mut last = Vec::new();
        for (i, token) in tokens.iter().enumerate() {
            let append = Append {
                sequence: &mut sequence,
                tokens: &[*token],
                logits_from: 0,
            };
            self.step
                .run(&mut [append], |_, _, logits| last = bits(logits))
                .expect("room");
            self.known.insert((kv, tokens[..=i].to_vec()), last.clone());
        }
        last
    }
}

/// One pass with new tokens for some of `sequences`, each answer compared with what its tokens give alone.
fn pass(step: &mut Step, sequences: &mut [Sequence], alone: &mut Alone, dice: &mut Dice) {
    let vocab = step.network().config().vocab;
    let mut left = step.max_rows();
    let mut news: Vec<Vec<u32>> = Vec::new();
    for sequence in sequences.iter() {
        // Single tokens, short and long prompts, or nothing in this pass.
        let room = left.min(sequence.n_ctx() - sequence.position());
        let want = [0, 1, 1, 1, 3, 9, 40][dice.roll(7)].min(room);
        left -= want;
        news.push((0..want).map(|_| dice.roll(vocab) as u32).collect());
    }
    let mut appends: Vec<Append<'_>> = Vec::new();
    for (sequence, tokens) in sequences.iter_mut().zip(&news) {
        if !tokens.is_empty() {
            appends.push(Append {
                sequence,
                tokens,
                logits_from: dice.roll(tokens.len() + 1),
            });
        }
    }
    let mut expected: Vec<(usize, usize)> = Vec::new();
    for (a, append) in appends.iter().enumerate() {
        expected.extend((append.logits_from..append.tokens.len()).map(|i| (a, i)));
    }
    let contexts: Vec<Vec<u32>> = appends
        .iter()
        .map(|a| [a.sequence.tokens(), a.tokens].concat())
        .collect();
    let types: Vec<KvType> = appends
        .iter()
        .map(|a| a.sequence.cache().shape().head.kv())
        .collect();
    let starts: Vec<usize> = appends.iter().map(|a| a.sequence.position()).collect();
    let mut got = Vec::new();
    step.run(&mut appends, |a, i, logits| got.push((a, i, bits(logits))))
        .expect("room");
    assert_eq!(got.iter().map(|g| (g.0, g.1)).collect::<Vec<_>>(), expected);
    for (a, i, logits) in got {
        let tokens = &contexts[a][..=starts[a] + i];
        assert!(
            logits == alone.answer(types[a], tokens),
            "{} tokens, append {a}, token {i}",
            tokens.len()
        );
    }
    let held = sequences.iter().map(|s| s.position()).sum::<usize>();
    assert!(held >= news.iter().map(Vec::len).sum());
}

/// Passes over `count` sequences, of every type of keys and values, that now and then fork and forget.
fn interleaved(network: &Arc<Network>, count: usize, passes: usize, seed: u64, max_rows: usize) {
    let mut dice = Dice(seed);
    let mut alone = Alone {
        step: step(network, 1, 1),
        known: HashMap::new(),
    };
    let mut step = step(network, 1 + seed as usize % 3, max_rows);
    let mut sequences: Vec<Sequence> = (0..count)
        .map(|i| sequence(network, KvType::ALL[i % 3]))
        .collect();
    for _ in 0..passes {
        pass(&mut step, &mut sequences, &mut alone, &mut dice);
        let one = dice.roll(count);
        match dice.roll(4) {
            0 => {
                // Half of them keep the pages of the tokens that they forget.
                let len = dice.roll(sequences[one].position() + 1);
                sequences[one].truncate(len);
                if dice.roll(2) == 0 {
                    sequences[one].release();
                }
            }
            1 => {
                let fork = sequences[one].fork();
                let other = dice.roll(count);
                sequences[other] = fork;
            }
            _ => {}
        }
    }
}

#[test]
fn sequences_in_one_step_give_the_bits_that_each_gives_alone() {
    for (model, passes) in [
        (Some("tiny_b158.gguf"), 30),
        (Some("tiny_llama.gguf"), 12),
        (None, 14),
    ] {
        let network = network(model);
        for (seed, count) in [2, 3, 8].into_iter().enumerate() {
            let max_rows = [64, 17, 128][seed % 3];
            interleaved(&network, count, passes, seed as u64, max_rows);
        }
    }
}

#[test]
fn forks_take_a_page_and_truncation_keeps_memory_until_it_is_released() {
    let network = network(None);
    let mut step = step(&network, 2, PAGE);
    let mut first = sequence(&network, KvType::F16);
    assert_eq!(first.cache_bytes(), 0, "nothing is reserved");
    let tokens: Vec<u32> = (0..PAGE as u32).map(|i| i % 200).collect();
    for tokens in [&tokens[..], &tokens[..3]] {
        let append = Append {
            sequence: &mut first,
            tokens,
            logits_from: tokens.len(),
        };
        step.run(&mut [append], |_, _, _| unreachable!("none wanted"))
            .expect("room");
    }
    let page = first.cache_bytes() / 2;
    first.truncate(1);
    assert_eq!(first.cache_bytes(), 2 * page);
    first.release();
    assert_eq!(first.cache_bytes(), page);
    first.truncate(0);
    first.release();
    assert_eq!(first.cache_bytes(), 0);
}

#[test]
fn what_cannot_be_run_is_refused_and_changes_nothing() {
    let network = network(Some("tiny_b158.gguf"));
    let other = self::network(Some("tiny_b158.gguf"));
    let mut step = step(&network, 1, 4);
    let (mut a, mut b) = (
        sequence(&network, KvType::F16),
        sequence(&network, KvType::F16),
    );
    let mut foreign = sequence(&other, KvType::F16);
    fn append<'a>(sequence: &'a mut Sequence, tokens: &'a [u32]) -> Append<'a> {
        Append {
            sequence,
            tokens,
            logits_from: 0,
        }
    }
    fn refused(step: &mut Step, mut appends: [Append<'_>; 2]) -> StepError {
        step.run(&mut appends, |_, _, _| ()).expect_err("refused")
    }
    let e = refused(
        &mut step,
        [append(&mut a, &[1, 2]), append(&mut b, &[3, 4, 5])],
    );
    assert!(matches!(e, StepError::Rows { got: 5, most: 4 }), "{e}");
    let e = refused(
        &mut step,
        [append(&mut a, &[1]), append(&mut foreign, &[2])],
    );
    assert!(matches!(e, StepError::Foreign { append: 1 }), "{e}");
    let e = refused(&mut step, [append(&mut a, &[1]), append(&mut b, &[])]);
    assert!(matches!(e, StepError::Empty), "{e}");
    let e = refused(&mut step, [append(&mut a, &[1]), append(&mut b, &[2, 272])]);
    assert!(
        matches!(
            e,
            StepError::Token {
                id: 272,
                index: 1,
                n_vocab: 272
            }
        ),
        "{e}"
    );
    assert_eq!((a.position(), b.position()), (0, 0));
    step.run(&mut [], |_, _, _| unreachable!("no rows"))
        .expect("nothing to do");
}
