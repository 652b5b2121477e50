//! Vocabularies made on the spot, and slow encoders that share no line with the fast ones.

mod bad_input;
mod byte_level;
mod files;
mod hostile;
mod models;
mod sentencepiece;

use std::collections::HashMap;
use std::sync::LazyLock;

use super::*;

/// Text that the test vocabularies are made from.
const CORPUS: &str = "Once upon a time there was a little girl. She had 3 dogs, 12 cats and 12345 ants! \
    It's what they've said: \"don't, I'll go\".\n\n  The   end?\tSchön wär's; naïve café, 日本語 und русский.\r\n \
    She said that the little dogs were there. There was a time when the cats had the ants.";

/// Pieces joined most often are merged first: the textbook's training, one merge at a time.
fn train(pieces: &[String], n_merges: usize) -> Vec<(String, String)> {
    let mut words: Vec<Vec<String>> = pieces
        .iter()
        .map(|piece| piece.chars().map(String::from).collect())
        .collect();
    let mut merges = Vec::new();
    for _ in 0..n_merges {
        let mut counts: HashMap<(String, String), usize> = HashMap::new();
        for pair in words.iter().flat_map(|word| word.windows(2)) {
            *counts
                .entry((pair[0].clone(), pair[1].clone()))
                .or_default() += 1;
        }
        let best = counts
            .into_iter()
            .max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(&a.0)));
        let Some((pair, _)) = best else { break };
        for word in &mut words {
            *word = merge_once(word, &pair);
        }
        merges.push(pair);
    }
    merges
}

/// Joins every occurrence of `pair`, from the left.
fn merge_once(word: &[String], pair: &(String, String)) -> Vec<String> {
    let (mut out, mut i) = (Vec::new(), 0);
    while i < word.len() {
        if i + 1 < word.len() && word[i] == pair.0 && word[i + 1] == pair.1 {
            out.push(format!("{}{}", pair.0, pair.1));
            i += 2;
        } else {
            out.push(word[i].clone());
            i += 1;
        }
    }
    out
}

/// A byte-complete `gpt2` vocabulary with control tokens at its end, and a user-defined one.
fn byte_level_vocab(pre: &str) -> GgufVocab {
    static MADE: LazyLock<GgufVocab> = LazyLock::new(make_byte_level_vocab);
    GgufVocab {
        pre: Some(pre.to_owned()),
        ..MADE.clone()
    }
}

fn make_byte_level_vocab() -> GgufVocab {
    let pieces: Vec<String> = CORPUS
        .split_inclusive(' ')
        .map(|word| word.bytes().map(bytes::byte_to_char).collect())
        .collect();
    let merges = train(&pieces, 150);
    let mut tokens: Vec<String> = (0..=255)
        .map(|b| bytes::byte_to_char(b).to_string())
        .collect();
    for (left, right) in &merges {
        let joined = format!("{left}{right}");
        if !tokens.contains(&joined) {
            tokens.push(joined);
        }
    }
    let mut token_types = vec![TokenType::Normal as i32; tokens.len()];
    let control = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"];
    let bos = tokens.len() as u32;
    tokens.extend(control.map(str::to_owned));
    token_types.extend([TokenType::Control as i32; 3]);
    tokens.push("<tool>".to_owned());
    token_types.push(TokenType::UserDefined as i32);
    GgufVocab {
        model: "gpt2".to_owned(),
        tokens,
        token_types,
        merges: merges.iter().map(|(l, r)| format!("{l} {r}")).collect(),
        bos: Some(bos),
        eos: Some(bos + 1),
        ..GgufVocab::default()
    }
}

/// A byte-complete `llama` vocabulary: three special tokens, 256 bytes, letters, then pieces by falling score.
fn sentencepiece_vocab() -> GgufVocab {
    static MADE: LazyLock<GgufVocab> = LazyLock::new(make_sentencepiece_vocab);
    MADE.clone()
}

fn make_sentencepiece_vocab() -> GgufVocab {
    let text = CORPUS.replace(' ', "\u{2581}");
    let pieces: Vec<String> = text
        .split_inclusive('\u{2581}')
        .map(str::to_owned)
        .collect();
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    let mut token_types = vec![
        TokenType::Unknown as i32,
        TokenType::Control as i32,
        TokenType::Control as i32,
    ];
    for byte in 0..=255 {
        tokens.push(format!("<0x{byte:02X}>"));
        token_types.push(TokenType::Byte as i32);
    }
    let mut scores = vec![0.0; tokens.len()];
    let mut letters: Vec<char> = text.chars().collect();
    letters.sort_unstable();
    letters.dedup();
    let merged = train(&pieces, 150);
    let joined = merged.iter().map(|(l, r)| format!("{l}{r}"));
    let ordinary = letters.into_iter().map(String::from).chain(joined);
    for token in ordinary {
        // One letter of the corpus has no token at all.
        if tokens.contains(&token) || token.contains('語') {
            continue;
        }
        tokens.push(token);
        token_types.push(TokenType::Normal as i32);
        scores.push(-(scores.len() as f32));
    }
    GgufVocab {
        model: "llama".to_owned(),
        tokens,
        scores,
        token_types,
        bos: Some(1),
        eos: Some(2),
        unk: Some(0),
        ..GgufVocab::default()
    }
}

#[test]
fn prompts_get_a_bos_and_empty_ones_are_the_bos_alone() {
    let mut vocab = byte_level_vocab("llama-bpe");
    let bos = vocab.bos.unwrap();
    let tokenizer = Tokenizer::from_gguf(&vocab, None).unwrap();
    assert!(
        tokenizer.add_bos(),
        "llama-bpe expects one unless the file says no"
    );
    assert_eq!(tokenizer.encode_prompt("a").unwrap(), [bos, 97]);
    assert_eq!(
        tokenizer.encode_prompt("<|begin_of_text|>a").unwrap(),
        [bos, bos, 97],
        "as the `tokenizers` library does"
    );
    assert_eq!(tokenizer.encode_prompt("").unwrap(), [bos]);

    vocab.add_bos = Some(false);
    let tokenizer = Tokenizer::from_gguf(&vocab, None).unwrap();
    assert_eq!(tokenizer.encode_prompt("a").unwrap(), [97]);
    assert_eq!(tokenizer.encode_prompt("").unwrap(), [bos]);

    vocab.bos = None;
    vocab.add_bos = Some(true);
    let tokenizer = Tokenizer::from_gguf(&vocab, None).unwrap();
    assert_eq!(tokenizer.encode_prompt("a").unwrap(), [97]);
    assert!(matches!(
        tokenizer.encode_prompt(""),
        Err(TokenizerError::EmptyPrompt)
    ));
    assert_eq!(tokenizer.notes().len(), 1, "{:?}", tokenizer.notes());
}

#[test]
fn generation_stops_at_declared_and_well_known_tokens() {
    let mut vocab = byte_level_vocab("llama-bpe");
    let bos = vocab.bos.unwrap();
    // <|eot_id|> is not declared, as in the official 2B-4T file.
    let tokenizer = Tokenizer::from_gguf(&vocab, None).unwrap();
    assert_eq!(tokenizer.stops(), [bos + 1, bos + 2]);
    vocab.eot = Some(97);
    let tokenizer = Tokenizer::from_gguf(&vocab, None).unwrap();
    assert_eq!(tokenizer.stops(), [97, bos + 1, bos + 2]);
    assert!(tokenizer.is_stop(97) && !tokenizer.is_stop(98));
}

#[test]
fn only_parsed_text_becomes_control_tokens() {
    for vocab in [byte_level_vocab("llama-bpe"), sentencepiece_vocab()] {
        let tokenizer = Tokenizer::from_gguf(&vocab, None).unwrap();
        let eos = tokenizer.eos().unwrap();
        let text = format!("a{}b", vocab.tokens[eos as usize]);
        let parsed = tokenizer.encode(&text, Specials::Parse).unwrap();
        assert!(parsed.contains(&eos), "{parsed:?}");
        let plain = tokenizer.encode(&text, Specials::AsText).unwrap();
        assert!(
            !plain.iter().any(|&id| tokenizer.is_special(id)),
            "{plain:?}"
        );
        assert_eq!(tokenizer.decode(&plain).unwrap(), text);
        // A disguised first letter keeps one occurrence from being the token.
        let masked = format!(
            "{}{}",
            vocab.tokens[eos as usize],
            text.replace('<', "\u{e000}")
        );
        let ids = tokenizer
            .encode_masked(&masked, Specials::Parse, &[('\u{e000}', '<')])
            .unwrap();
        assert_eq!(ids.iter().filter(|&&id| id == eos).count(), 1, "{ids:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
}

#[test]
fn decoding_prints_no_control_token_and_refuses_unknown_ids() {
    let vocab = byte_level_vocab("llama-bpe");
    let tokenizer = Tokenizer::from_gguf(&vocab, None).unwrap();
    let n_vocab = tokenizer.n_vocab();
    let bos = vocab.bos.unwrap();
    assert_eq!(tokenizer.decode(&[bos, 72, 105, bos + 2]).unwrap(), "Hi");
    let id = n_vocab as u32;
    let error = tokenizer.decode(&[72, id]).unwrap_err();
    assert!(
        matches!(error, TokenizerError::IdOutOfRange { id: got, n_vocab: n } if got == id && n == n_vocab),
        "{error}"
    );
    assert!(tokenizer.print(u32::MAX).is_err());
    assert!(tokenizer.check_model(n_vocab + 1).is_ok());
    assert!(tokenizer.check_model(n_vocab - 1).is_err());
}

#[test]
fn arguments_and_files_must_be_utf8() {
    assert_eq!(utf8_argument("prompt", "Grüße".into()).unwrap(), "Grüße");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    std::fs::write(&path, b"ab\xffc").unwrap();
    let error = utf8_file(&path).unwrap_err();
    assert!(
        matches!(error, TokenizerError::NotUtf8 { offset: 2, .. }),
        "{error}"
    );
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        let error = utf8_argument("prompt", OsString::from_vec(b"a\xc3".to_vec())).unwrap_err();
        assert!(
            matches!(error, TokenizerError::NotUtf8 { offset: 1, .. }),
            "{error}"
        );
    }
}
