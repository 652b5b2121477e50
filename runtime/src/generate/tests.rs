//! The loop against scripted models.

use std::cell::RefCell;
use std::sync::Arc;

use super::*;
use crate::decoder::scripted::Scripted;
use crate::sample::SamplerParams;
use crate::tokenizer::GgufVocab;

/// Bytes as tokens, then `<s>`, `</s>` and one that is two bytes of a three-byte character.
fn tokenizer() -> Tokenizer {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let vocab = GgufVocab {
        model: "llama".to_owned(),
        scores: vec![0.0; tokens.len()],
        tokens,
        bos: Some(1),
        eos: Some(2),
        unk: Some(0),
        add_space_prefix: Some(false),
        ..GgufVocab::default()
    };
    Tokenizer::from_gguf(&vocab, None).unwrap()
}

fn ids(text: &str) -> Vec<u32> {
    text.bytes().map(|byte| 3 + u32::from(byte)).collect()
}

/// Runs greedily and collects what was printed, piece by piece.
fn run(
    decoder: &mut Scripted,
    prompt: &[u32],
    params: &GenerateParams,
) -> (Generated, Vec<String>) {
    let tokenizer = tokenizer();
    let mut sampler = Sampler::new(SamplerParams::greedy(), decoder.n_vocab()).unwrap();
    let printed = RefCell::new(Vec::new());
    let generated = Session::new(decoder, &tokenizer)
        .generate(
            prompt,
            params,
            &mut sampler,
            &AtomicBool::new(false),
            &mut |piece| {
                printed.borrow_mut().push(piece.to_owned());
                Ok(())
            },
        )
        .unwrap();
    (generated, printed.into_inner())
}

#[test]
fn text_ends_at_the_stop_token_and_leaves_it_out() {
    let mut decoder = Scripted::saying(259, 64, 3, ids("so: 日!"), 2);
    let (generated, printed) = run(&mut decoder, &[1, 70, 71], &GenerateParams::new(50));
    assert_eq!(generated.text, "so: 日!");
    assert_eq!(generated.ids, ids("so: 日!"));
    assert_eq!((generated.prompt_tokens, generated.tokens), (3, 8));
    assert_eq!(generated.finish, Finish::Stop);
    assert_eq!(
        printed,
        ["s", "o", ":", " ", "日", "!"],
        "whole characters only"
    );
    assert!(generated.ttft_ms.is_some() && generated.p50_ms.is_some());
    assert!(generated.p50_ms <= generated.p95_ms && generated.p95_ms <= generated.p99_ms);
    // The stop token was chosen, not read; everything before it is held.
    assert_eq!(decoder.n_processed, 3 + 8);
}

#[test]
fn special_tokens_are_not_printed() {
    let mut said = ids("a");
    said.extend([1, 0]);
    said.extend(ids("b"));
    let mut decoder = Scripted::saying(259, 64, 1, said, 2);
    let (generated, _) = run(&mut decoder, &[1], &GenerateParams::new(50));
    assert_eq!((generated.text.as_str(), generated.tokens), ("ab", 4));
}

#[test]
fn limits_are_exact() {
    for max_tokens in [0, 1, 5] {
        let mut decoder = Scripted::saying(259, 64, 1, ids("abcdefgh"), 2);
        let (generated, _) = run(&mut decoder, &[1], &GenerateParams::new(max_tokens));
        assert_eq!(generated.text, &"abcdefgh"[..max_tokens]);
        assert_eq!(generated.finish, Finish::Length);
        assert_eq!(
            decoder.n_processed,
            1 + max_tokens.saturating_sub(1),
            "the last one need not be read"
        );
    }
    // A context of 4 with one prompt token: three can be read, and one more chosen.
    let mut decoder = Scripted::saying(259, 4, 1, ids("abcdefgh"), 2);
    let (generated, _) = run(&mut decoder, &[1], &GenerateParams::new(50));
    assert_eq!(
        (generated.text.as_str(), generated.finish),
        ("abcd", Finish::ContextFull)
    );
    // A prompt that fills the context is still answered with one token.
    let mut decoder = Scripted::saying(259, 2, 2, ids("abc"), 2);
    let (generated, _) = run(&mut decoder, &[1, 70], &GenerateParams::new(50));
    assert_eq!(
        (generated.text.as_str(), generated.finish),
        ("a", Finish::ContextFull)
    );
}

#[test]
fn stop_strings_and_ignored_stops() {
    let mut params = GenerateParams::new(50);
    params.stop_strings = vec!["\nUser:".to_owned()];
    let mut decoder = Scripted::saying(259, 64, 1, ids("Hi.\nUser: you"), 2);
    let (generated, printed) = run(&mut decoder, &[1], &params);
    assert_eq!(
        (generated.text.as_str(), generated.finish),
        ("Hi.", Finish::StopString)
    );
    assert_eq!(printed.concat(), "Hi.");
    // What was held back for a stop string that never came is printed at the end.
    let mut decoder = Scripted::saying(259, 64, 1, ids("Hi.\nUs"), 2);
    let (generated, printed) = run(&mut decoder, &[1], &params);
    assert_eq!(
        (generated.text.as_str(), printed.concat().as_str()),
        ("Hi.\nUs", "Hi.\nUs")
    );

    let params = GenerateParams {
        ignore_stops: true,
        ..GenerateParams::new(6)
    };
    let mut decoder = Scripted::saying(259, 64, 1, ids("ab"), 2);
    let (generated, _) = run(&mut decoder, &[1], &params);
    assert_eq!((generated.tokens, generated.finish), (6, Finish::Length));
    assert_eq!(generated.text, "ab");
}

#[test]
fn padding_rows_of_the_embedding_are_never_chosen() {
    let mut decoder = Scripted::new(300, 8, |_, logits| {
        logits[299] = 9.0;
        logits[3 + usize::from(b'x')] = 1.0;
    });
    let (generated, _) = run(&mut decoder, &[1], &GenerateParams::new(2));
    assert_eq!(generated.text, "xx");
}

#[test]
fn a_character_cut_off_by_the_limit_is_replaced() {
    let mut decoder = Scripted::saying(259, 64, 1, ids("日"), 2);
    let (generated, _) = run(&mut decoder, &[1], &GenerateParams::new(2));
    assert_eq!(generated.text, "\u{fffd}");
}

#[test]
fn what_the_context_holds_is_not_processed_again() {
    let tokenizer = tokenizer();
    let mut decoder = Scripted::new(259, 2000, |context, logits| {
        let next =
            3 + (context.iter().map(|&id| id as usize).sum::<usize>() * 31 + context.len()) % 256;
        logits[next] = 1.0;
    });
    let mut sampler = Sampler::new(SamplerParams::greedy(), 259).unwrap();
    let never = AtomicBool::new(false);
    let params = GenerateParams::new(5);
    let mut session = Session::new(&mut decoder, &tokenizer);
    let mut go = |session: &mut Session<'_, Scripted>, prompt: &[u32]| {
        session
            .generate(prompt, &params, &mut sampler, &never, &mut |_| Ok(()))
            .unwrap()
    };
    let first = go(&mut session, &[1, 50, 60]);
    assert_eq!(first.reused_tokens, 0);
    // The answer and a second turn: only what is new is processed, and the answer is as from scratch.
    let mut prompt = vec![1, 50, 60];
    prompt.extend(&first.ids);
    prompt.extend([70, 71]);
    let second = go(&mut session, &prompt);
    assert_eq!(
        second.reused_tokens,
        3 + 4,
        "the fifth token of the answer was never read"
    );
    session.reset();
    assert_eq!(go(&mut session, &prompt).ids, second.ids);
    // A prompt that departs early: the rest is forgotten.
    let other = go(&mut session, &[1, 50, 99]);
    assert_eq!(other.reused_tokens, 2);
    // The same prompt again: its last token must be read for its logits.
    assert_eq!(go(&mut session, &[1, 50, 99]).reused_tokens, 2);
    // Long prompts go in pieces and give the same answer.
    let long: Vec<u32> = (0..1300).map(|i| 3 + i % 256).collect();
    let pieces = go(&mut session, &long);
    drop(session);
    decoder.reset();
    let logits = decoder.prefill(&long).unwrap();
    let expected = logits.iter().position(|&logit| logit == 1.0).unwrap();
    assert_eq!(pieces.ids[0] as usize, expected);
}

#[test]
fn a_decoder_used_by_others_is_noticed() {
    let tokenizer = tokenizer();
    let mut decoder = Scripted::saying(259, 64, 2, ids("ab"), 2);
    let mut sampler = Sampler::new(SamplerParams::greedy(), 259).unwrap();
    let never = AtomicBool::new(false);
    let mut session = Session::new(&mut decoder, &tokenizer);
    let params = GenerateParams::new(9);
    session
        .generate(&[1, 50], &params, &mut sampler, &never, &mut |_| Ok(()))
        .unwrap();
    session.decoder.truncate(1);
    let again = session
        .generate(&[1, 50], &params, &mut sampler, &never, &mut |_| Ok(()))
        .unwrap();
    assert_eq!((again.text.as_str(), again.reused_tokens), ("ab", 0));
}

#[test]
fn bad_prompts_are_refused_before_anything_is_processed() {
    let tokenizer = tokenizer();
    let mut decoder = Scripted::saying(259, 8, 1, ids("ab"), 2);
    let mut sampler = Sampler::new(SamplerParams::greedy(), 259).unwrap();
    let never = AtomicBool::new(false);
    let mut refuse = |prompt: &[u32]| {
        let mut session = Session::new(&mut decoder, &tokenizer);
        session
            .generate(
                prompt,
                &GenerateParams::new(1),
                &mut sampler,
                &never,
                &mut |_| Ok(()),
            )
            .unwrap_err()
    };
    assert!(matches!(refuse(&[]), GenerateError::EmptyPrompt));
    assert!(matches!(
        refuse(&[1; 9]),
        GenerateError::PromptTooLong {
            prompt: 9,
            n_ctx: 8
        }
    ));
    assert!(matches!(
        refuse(&[1, 259]),
        GenerateError::TokenOutOfRange {
            id: 259,
            n_vocab: 259
        }
    ));
    assert_eq!(decoder.n_processed, 0);
}

#[test]
fn cancelling_keeps_what_has_come() {
    let tokenizer = tokenizer();
    let cancel = AtomicBool::new(false);
    let mut sampler = Sampler::new(SamplerParams::greedy(), 259).unwrap();
    let mut decoder = Scripted::saying(259, 2000, 1, ids("abcdefgh"), 2);
    let mut session = Session::new(&mut decoder, &tokenizer);
    let mut n_printed = 0;
    let generated = session
        .generate(
            &[1],
            &GenerateParams::new(50),
            &mut sampler,
            &cancel,
            &mut |_| {
                n_printed += 1;
                cancel.store(n_printed == 3, Ordering::Relaxed);
                Ok(())
            },
        )
        .unwrap();
    assert_eq!(
        (generated.text.as_str(), generated.finish),
        ("abc", Finish::Cancelled)
    );
    // Before the first token, nothing is processed.
    session.reset();
    cancel.store(true, Ordering::Relaxed);
    let generated = session
        .generate(
            &[1; 1000],
            &GenerateParams::new(50),
            &mut sampler,
            &cancel,
            &mut |_| Ok(()),
        )
        .unwrap();
    assert_eq!((generated.tokens, generated.finish), (0, Finish::Cancelled));
    assert!(session.held().is_empty());
}

#[test]
fn a_long_prompt_is_left_between_two_pieces() {
    let tokenizer = tokenizer();
    let cancel = Arc::new(AtomicBool::new(false));
    let mut sampler = Sampler::new(SamplerParams::greedy(), 259).unwrap();
    let seen = Arc::clone(&cancel);
    let mut decoder = Scripted::new(259, 2000, move |context, _| {
        seen.store(context.len() >= 2 * PREFILL_PIECE, Ordering::Relaxed);
    });
    let mut session = Session::new(&mut decoder, &tokenizer);
    let params = GenerateParams::new(50);
    let generated = session
        .generate(&[1; 1000], &params, &mut sampler, &cancel, &mut |_| Ok(()))
        .unwrap();
    assert_eq!((generated.tokens, generated.finish), (0, Finish::Cancelled));
    assert_eq!(session.held().len(), 2 * PREFILL_PIECE);
}

#[test]
fn a_closed_pipe_and_damaged_logits_are_reported() {
    let tokenizer = tokenizer();
    let never = AtomicBool::new(false);
    let mut sampler = Sampler::new(SamplerParams::greedy(), 259).unwrap();
    let mut decoder = Scripted::saying(259, 64, 1, ids("abc"), 2);
    let error = Session::new(&mut decoder, &tokenizer)
        .generate(
            &[1],
            &GenerateParams::new(9),
            &mut sampler,
            &never,
            &mut |_| Err(io::ErrorKind::BrokenPipe.into()),
        )
        .unwrap_err();
    assert!(
        matches!(&error, GenerateError::Output(e) if e.kind() == io::ErrorKind::BrokenPipe),
        "{error}"
    );
    let mut decoder = Scripted::new(259, 64, |_, logits| logits[7] = f32::NAN);
    let error = Session::new(&mut decoder, &tokenizer)
        .generate(
            &[1],
            &GenerateParams::new(9),
            &mut sampler,
            &never,
            &mut |_| Ok(()),
        )
        .unwrap_err();
    assert!(
        matches!(
            error,
            GenerateError::Sample(SampleError::Logit { id: 7, .. })
        ),
        "{error}"
    );
}

#[test]
fn the_document_has_the_fields_of_the_contract() {
    let mut decoder = Scripted::saying(259, 64, 1, ids("abc"), 2);
    let (generated, _) = run(&mut decoder, &[1], &GenerateParams::new(9));
    let json = serde_json::to_value(&generated).unwrap();
    let fields = [
        "text",
        "ids",
        "prompt_tokens",
        "tokens",
        "prefill_tokens_per_s",
        "decode_tokens_per_s",
        "ttft_ms",
        "p50_ms",
        "p95_ms",
        "p99_ms",
    ];
    for field in fields {
        assert!(!json[field].is_null(), "{field} is missing: {json}");
    }
    assert_eq!(json["finish"], "stop");
}

#[test]
fn percentiles_are_nearest_ranks() {
    let times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
    let at = |times: &[Duration], p| nearest_rank(times, p).map(|time| time.as_millis());
    assert_eq!(
        [at(&times, 50), at(&times, 95), at(&times, 99)],
        [Some(50), Some(95), Some(99)]
    );
    assert_eq!(
        [at(&times[..1], 50), at(&times[..1], 99)],
        [Some(1), Some(1)]
    );
    assert_eq!(at(&times[..3], 50), Some(2));
    assert_eq!(at(&[], 50), None);
}
