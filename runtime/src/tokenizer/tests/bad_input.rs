//! Vocabularies that contradict themselves are refused with a reason, never with a panic.

use proptest::prelude::*;

use super::*;

fn refuse(change: impl FnOnce(&mut GgufVocab)) -> TokenizerError {
    refuse_from(byte_level_vocab("llama-bpe"), change)
}

fn refuse_from(mut vocab: GgufVocab, change: impl FnOnce(&mut GgufVocab)) -> TokenizerError {
    change(&mut vocab);
    match Tokenizer::from_gguf(&vocab, None) {
        Ok(_) => panic!("a bad vocabulary was accepted"),
        Err(error) => error,
    }
}

#[test]
fn contradictions_are_named() {
    use TokenizerError as E;
    let spm = sentencepiece_vocab;
    assert!(matches!(refuse(|v| v.tokens.clear()), E::Empty { .. }));
    assert!(matches!(
        refuse(|v| v.model = "bert".into()),
        E::Unsupported { .. }
    ));
    assert!(matches!(
        refuse(|v| v.tokens[5] = v.tokens[4].clone()),
        E::Duplicate {
            first: 4,
            second: 5,
            ..
        }
    ));
    assert!(matches!(
        refuse(|v| v.token_types[7] = 9),
        E::Type { id: 7, got: 9, .. }
    ));
    assert!(matches!(
        refuse(|v| v.token_types[7] = -1),
        E::Type { id: 7, got: -1, .. }
    ));
    assert!(matches!(
        refuse(|v| {
            v.token_types.pop();
        }),
        E::Length { .. }
    ));
    assert!(matches!(
        refuse(|v| v.merges[3] = "ab".into()),
        E::Merge { index: 3, .. }
    ));
    assert!(matches!(
        refuse(|v| v.merges[3] = "a ".into()),
        E::Merge { index: 3, .. }
    ));
    assert!(matches!(
        refuse(|v| v.merges[3] = "".into()),
        E::Merge { index: 3, .. }
    ));
    assert!(matches!(
        refuse(|v| v.merges[3] = "Q QQ".into()),
        E::Merge { index: 3, .. }
    ));
    // Longer than any token: the tokenizers crate would panic on it.
    let long = "x".repeat(400);
    assert!(matches!(
        refuse(|v| v.merges[0] = format!("{long} {long}")),
        E::Merge { index: 0, .. }
    ));
    assert!(matches!(
        refuse(|v| v.bos = Some(u32::MAX)),
        E::SpecialId { .. }
    ));
    assert!(matches!(
        refuse(|v| v.eot = Some(v.tokens.len() as u32)),
        E::SpecialId { .. }
    ));
    assert!(matches!(
        refuse_from(spm(), |v| v.scores[9] = f32::NAN),
        E::Score { id: 9, .. }
    ));
    assert!(matches!(
        refuse_from(spm(), |v| v.scores.clear()),
        E::Length { got: 0, .. }
    ));
    assert!(matches!(
        refuse_from(spm(), |v| v.unk = Some(1 << 30)),
        E::SpecialId { .. }
    ));
}

#[test]
fn bytes_without_a_token_are_refused_instead_of_dropped() {
    let mut vocab = byte_level_vocab("llama-bpe");
    vocab.tokens[usize::from(b'Q')] = "[REMOVED]".to_owned();
    let tokenizer = Tokenizer::from_gguf(&vocab, None).unwrap();
    assert!(tokenizer.encode("the end", Specials::Parse).is_ok());
    let error = tokenizer.encode("the Queen", Specials::Parse).unwrap_err();
    assert!(
        matches!(error, TokenizerError::Inexpressible { character: 'Q' }),
        "{error}"
    );
}

#[test]
fn holes_in_the_numbering_are_legal_and_print_nothing() {
    let mut vocab = byte_level_vocab("llama-bpe");
    let n = vocab.tokens.len() as u32;
    vocab.tokens.extend([String::new(), String::new()]);
    vocab.token_types.extend([1, 1]);
    let tokenizer = Tokenizer::from_gguf(&vocab, None).unwrap();
    assert_eq!(tokenizer.decode(&[72, n, n + 1]).unwrap(), "H");
}

#[test]
fn a_pair_that_is_listed_twice_keeps_its_first_rank() {
    let vocab = byte_level_vocab("llama-bpe");
    let once = Tokenizer::from_gguf(&vocab, None).unwrap();
    let mut twice = vocab.clone();
    twice.merges.push(twice.merges[0].clone());
    let twice = Tokenizer::from_gguf(&twice, None).unwrap();
    let ids = |tokenizer: &Tokenizer| tokenizer.encode(CORPUS, Specials::Parse).unwrap();
    assert_eq!(ids(&once), ids(&twice));
}

proptest! {
    #[test]
    fn damaged_vocabularies_never_panic(
        spm: bool,
        at in 0usize..100_000,
        what in 0..8,
        text in any::<String>(),
        number: i32,
    ) {
        let mut vocab = if spm { sentencepiece_vocab() } else { byte_level_vocab("default") };
        let n = vocab.tokens.len();
        match what {
            0 => vocab.tokens[at % n] = text,
            1 => vocab.token_types[at % n] = number % 8,
            2 => vocab.merges.insert(at % (vocab.merges.len() + 1), text),
            3 => vocab.tokens.truncate(at % n),
            4 => vocab.bos = Some(number as u32),
            5 => vocab.token_types[at % n] = TokenType::Byte as i32,
            6 => if spm { vocab.scores[at % n] = f32::from_bits(number as u32) },
            _ => vocab.merges.truncate(at % (vocab.merges.len() + 1)),
        }
        if let Ok(tokenizer) = Tokenizer::from_gguf(&vocab, None)
            && let Ok(ids) = tokenizer.encode_prompt("She said <|eot_id|></s> the 日本語\n")
        {
            for id in ids {
                prop_assert!(tokenizer.print(id).is_ok());
            }
        }
    }
}
