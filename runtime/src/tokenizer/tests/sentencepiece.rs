//! SentencePiece BPE against a naive encoder that rescans the whole text for each merge.

use proptest::prelude::*;

use super::*;

/// The definition, word for word: merge the best-scored neighbouring pair, the leftmost of equals, until none is left.
fn naive(vocab: &GgufVocab, text: &str, prefix: bool) -> Vec<u32> {
    if text.is_empty() {
        return Vec::new();
    }
    let mergeable = |text: &str| {
        let at = vocab.tokens.iter().position(|token| token == text)?;
        (vocab.token_types[at] == TokenType::Normal as i32).then_some(at)
    };
    let text = format!("{}{text}", if prefix { " " } else { "" }).replace(' ', "\u{2581}");
    let mut word: Vec<String> = text.chars().map(String::from).collect();
    loop {
        let mut best: Option<(f32, usize)> = None;
        for i in 0..word.len().saturating_sub(1) {
            if let Some(at) = mergeable(&format!("{}{}", word[i], word[i + 1])) {
                let score = vocab.scores[at];
                if best.is_none_or(|(top, _)| score > top) {
                    best = Some((score, i));
                }
            }
        }
        let Some((_, i)) = best else { break };
        let right = word.remove(i + 1);
        word[i].push_str(&right);
    }
    let ids = |piece: String| match mergeable(&piece) {
        Some(at) => vec![at as u32],
        None => piece.bytes().map(|byte| 3 + u32::from(byte)).collect(),
    };
    word.into_iter().flat_map(ids).collect()
}

fn text() -> impl Strategy<Value = String> {
    let interesting = proptest::sample::select(
        "  the lidogcatsrn\n\u{2581}日語é1.<s>/🙂\0"
            .chars()
            .collect::<Vec<_>>(),
    );
    let c = prop_oneof![6 => interesting, 1 => any::<char>()];
    proptest::collection::vec(c, 0..60).prop_map(String::from_iter)
}

proptest! {
    #[test]
    fn ids_equal_a_naive_encoder(text in text(), prefix: bool) {
        let mut vocab = sentencepiece_vocab();
        vocab.add_space_prefix = Some(prefix);
        let tokenizer = Tokenizer::from_gguf(&vocab, None).unwrap();
        let ids = tokenizer.encode(&text, Specials::AsText).unwrap();
        prop_assert_eq!(ids, naive(&vocab, &text, prefix));
    }

    #[test]
    fn equal_scores_merge_from_the_left(text in "[ab]{0,24}") {
        let mut vocab = sentencepiece_vocab();
        for token in ["b", "ab", "ba", "aa", "bb", "aba", "bab", "aab", "abb"] {
            if !vocab.tokens.iter().any(|known| known == token) {
                vocab.tokens.push(token.to_owned());
                vocab.token_types.push(TokenType::Normal as i32);
                vocab.scores.push(0.0);
            }
        }
        vocab.scores.fill(0.0);
        let tokenizer = Tokenizer::from_gguf(&vocab, None).unwrap();
        let ids = tokenizer.encode(&text, Specials::AsText).unwrap();
        prop_assert_eq!(ids, naive(&vocab, &text, true));
    }

    #[test]
    fn any_text_comes_back(text in text(), prefix: bool) {
        // A text's own U+2581 is indistinguishable from a space; that is SentencePiece's doing.
        let text = text.replace('\u{2581}', " ");
        let mut vocab = sentencepiece_vocab();
        vocab.add_space_prefix = Some(prefix);
        let tokenizer = Tokenizer::from_gguf(&vocab, None).unwrap();
        let ids = tokenizer.encode(&text, Specials::AsText).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
}

#[test]
fn characters_outside_the_vocabulary_are_bytes_or_unknown() {
    let mut vocab = sentencepiece_vocab();
    vocab.add_space_prefix = Some(false);
    let tokenizer = Tokenizer::from_gguf(&vocab, None).unwrap();
    assert_eq!(
        tokenizer.encode("語", Specials::AsText).unwrap(),
        [3 + 0xe8, 3 + 0xaa, 3 + 0x9e]
    );

    // Without the byte tokens the unknown token stands in; without that, it is an error.
    vocab.tokens[3 + 0xaa] = "taken".to_owned();
    vocab.token_types[3 + 0xaa] = TokenType::Normal as i32;
    let tokenizer = Tokenizer::from_gguf(&vocab, None).unwrap();
    assert_eq!(tokenizer.encode("語", Specials::AsText).unwrap(), [0]);
    vocab.unk = None;
    vocab.token_types[0] = TokenType::Normal as i32;
    let tokenizer = Tokenizer::from_gguf(&vocab, None).unwrap();
    let error = tokenizer.encode("語", Specials::AsText).unwrap_err();
    assert!(
        matches!(error, TokenizerError::Inexpressible { character: '語' }),
        "{error}"
    );
}

#[test]
fn text_after_a_special_token_gets_the_space_prefix() {
    let vocab = sentencepiece_vocab();
    let tokenizer = Tokenizer::from_gguf(&vocab, None).unwrap();
    let the = tokenizer.encode("the", Specials::Parse).unwrap();
    let both = tokenizer.encode("the</s>the", Specials::Parse).unwrap();
    assert_eq!(both, [the.clone(), vec![2], the].concat());
}

#[test]
fn a_vocabulary_without_types_is_understood() {
    let mut vocab = sentencepiece_vocab();
    let typed = Tokenizer::from_gguf(&vocab, None).unwrap();
    vocab.token_types.clear();
    let guessed = Tokenizer::from_gguf(&vocab, None).unwrap();
    for id in 0..typed.n_vocab() as u32 {
        assert_eq!(
            guessed.token_type(id),
            typed.token_type(id),
            "{id}: {:?}",
            typed.token(id)
        );
    }
}

#[test]
fn long_texts_take_near_linear_time() {
    // The naive way would need minutes for this.
    let tokenizer = Tokenizer::from_gguf(&sentencepiece_vocab(), None).unwrap();
    let text = "the little dogs said that ".repeat(8_000);
    let ids = tokenizer.encode(&text, Specials::AsText).unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
}
