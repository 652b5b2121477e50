//! Byte-level BPE against a naive encoder and against splits written by hand.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

/// Merges one pair at a time, the lowest rank first, over pieces that the caller has cut.
fn naive(vocab: &GgufVocab, piece: &str, whole: bool) -> Vec<u32> {
    let id = |text: &str| vocab.tokens.iter().position(|token| token == text).unwrap() as u32;
    if whole && vocab.tokens.iter().any(|token| token == piece) {
        return vec![id(piece)];
    }
    let mut word: Vec<String> = piece.chars().map(String::from).collect();
    let ranks: HashMap<String, usize> = vocab.merges.iter().cloned().zip(0..).collect();
    loop {
        let rank = |pair: &[String]| ranks.get(&format!("{} {}", pair[0], pair[1])).copied();
        let Some(best) = word.windows(2).filter_map(rank).min() else {
            break;
        };
        let (left, right) = vocab.merges[best].split_once(' ').unwrap();
        word = merge_once(&word, &(left.to_owned(), right.to_owned()));
    }
    word.iter().map(|text| id(text)).collect()
}

fn encoder(tokenizer: &Tokenizer) -> &Bpe {
    match &tokenizer.encoder {
        Encoder::Bpe(bpe) => bpe,
        Encoder::SentencePiece(_) => panic!("a gpt2 vocabulary became SentencePiece"),
    }
}

/// Any text, with the characters that the cuts care about made frequent.
fn text() -> impl Strategy<Value = String> {
    let interesting = proptest::sample::select(
        " \n\r\t'sStTrReEvVdDlLmMaéж日०1234567890.,!?$+<=>^~|_-\u{a0}\u{2028}\u{300}🙂"
            .chars()
            .collect::<Vec<_>>(),
    );
    let c = prop_oneof![4 => interesting, 1 => any::<char>()];
    proptest::collection::vec(c, 0..60).prop_map(String::from_iter)
}

/// One tokenizer for each pre-tokeniser, in their order.
static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let vocabs = PRE_TOKENIZERS.iter().map(|pre| byte_level_vocab(pre.name));
    vocabs
        .map(|vocab| Tokenizer::from_gguf(&vocab, None).unwrap())
        .collect()
});

proptest! {
    #[test]
    fn any_text_comes_back(text in text(), pre in 0..PRE_TOKENIZERS.len()) {
        let tokenizer = &TOKENIZERS[pre];
        let ids = tokenizer.encode(&text, Specials::AsText).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }

    #[test]
    fn ids_equal_a_naive_encoder(text in text(), pre in 0..PRE_TOKENIZERS.len()) {
        let (pre, tokenizer) = (&PRE_TOKENIZERS[pre], &TOKENIZERS[pre]);
        let vocab = byte_level_vocab(pre.name);
        let pieces = encoder(tokenizer).cut(&text);
        let expected: Vec<u32> = pieces.iter().flat_map(|piece| naive(&vocab, piece, pre.whole_pieces)).collect();
        prop_assert_eq!(tokenizer.encode(&text, Specials::AsText).unwrap(), expected);
    }

    #[test]
    fn llama_bpe_cuts_as_a_hand_written_splitter_does(text in text()) {
        let cut = encoder(&TOKENIZERS[0]).cut(&text);
        let cut: Vec<String> = cut
            .iter()
            .map(|piece| String::from_utf8(bytes::token_bytes(piece)).unwrap())
            .collect();
        prop_assert_eq!(cut, llama_cuts(&text));
    }
}

/// The llama-bpe rules without a regular expression, one alternative after the other.
fn llama_cuts(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    // The regex crates' own classes are the definition of letters, numbers and spaces.
    static CLASSES: LazyLock<[fancy_regex::Regex; 2]> = LazyLock::new(|| {
        [r"^\p{L}$", r"^\p{N}$"].map(|class| fancy_regex::Regex::new(class).unwrap())
    });
    let is = |class: usize, c: char| CLASSES[class].is_match(c.encode_utf8(&mut [0; 4])).unwrap();
    let is_letter = |c: char| is(0, c);
    let is_number = |c: char| is(1, c);
    let newline = |c: char| c == '\r' || c == '\n';
    let run =
        |from: usize, f: &dyn Fn(char) -> bool| chars[from..].iter().take_while(|&&c| f(c)).count();
    let (mut out, mut i) = (Vec::new(), 0);
    while i < chars.len() {
        let at = |k: usize| chars.get(i + k).copied();
        let lower = |k: usize| {
            at(k).map(|c| {
                if c == 'ſ' {
                    's'
                } else {
                    c.to_ascii_lowercase()
                }
            })
        };
        let contraction = match (at(0), lower(1), lower(2)) {
            (Some('\''), Some('s' | 't' | 'm' | 'd'), _) => 2,
            (Some('\''), Some('r' | 'v'), Some('e')) | (Some('\''), Some('l'), Some('l')) => 3,
            _ => 0,
        };
        let c = chars[i];
        let symbol = |c: char| !c.is_whitespace() && !is_letter(c) && !is_number(c);
        let head = usize::from(!newline(c) && !is_letter(c) && !is_number(c));
        let letters = run((i + head).min(chars.len()), &is_letter);
        let space = usize::from(c == ' ');
        let symbols = run(i + space, &symbol);
        let blank = run(i, &char::is_whitespace);
        let last_newline = chars[i..i + blank].iter().rposition(|&c| newline(c));
        let len = if contraction > 0 {
            contraction
        } else if letters > 0 {
            head + letters
        } else if is_number(c) {
            run(i, &is_number).min(3)
        } else if symbols > 0 {
            space + symbols + run(i + space + symbols, &newline)
        } else if let Some(last) = last_newline {
            last + 1
        } else if blank > 1 && i + blank < chars.len() {
            blank - 1
        } else {
            blank
        };
        out.push(chars[i..i + len].iter().collect());
        i += len;
    }
    out
}

#[test]
fn cuts_equal_those_written_by_hand() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "llama-bpe",
            "I'LL don't WE'VE",
            &["I", "'LL", " don", "'t", " WE", "'VE"],
        ),
        (
            "llama-bpe",
            " 1234567 tokens",
            &[" ", "123", "456", "7", " tokens"],
        ),
        ("llama-bpe", "a\n\n\n  b", &["a", "\n\n\n", " ", " b"]),
        ("llama-bpe", "x  \r\n y", &["x", "  \r\n", " y"]),
        ("llama-bpe", "tabs   and  ", &["tabs", "  ", " and", "  "]),
        ("llama-bpe", "\t\tx", &["\t", "\tx"]),
        ("llama-bpe", "3.14e-10", &["3", ".", "14", "e", "-", "10"]),
        ("llama-bpe", "hey!!\n\nyou", &["hey", "!!\n\n", "you"]),
        ("llama-bpe", "a\u{a0}b $x", &["a", "\u{a0}b", " $", "x"]),
        ("llama-bpe", "<|eot_id|>", &["<|", "eot", "_id", "|>"]),
        (
            "gpt-2",
            "I'LL don't 12345",
            &["I", "'", "LL", " don", "'t", " 12345"],
        ),
        ("gpt-2", "a\n\n b", &["a", "\n\n", " b"]),
        ("gpt-2", "a\nb", &["a", "\n", "b"]),
        (
            "default",
            "a, 12345!? b",
            &["a", ",", " ", "123", "45", "!?", " b"],
        ),
        ("default", "x = y|z", &["x", " ", "=", " y", "|", "z"]),
        ("default", "don't", &["don", "'", "t"]),
        ("qwen2", "x 12", &["x", " ", "1", "2"]),
    ];
    for (pre, text, expected) in cases {
        let tokenizer = Tokenizer::from_gguf(&byte_level_vocab(pre), None).unwrap();
        let cut = encoder(&tokenizer).cut(text);
        let cut: Vec<String> = cut
            .iter()
            .map(|piece| String::from_utf8_lossy(&bytes::token_bytes(piece)).into_owned())
            .collect();
        assert_eq!(cut, *expected, "{pre}: {text:?}");
    }
}

#[test]
fn a_missing_pre_tokeniser_is_llama_bpe_for_the_2b_4t_vocabulary_only() {
    let mut vocab = byte_level_vocab("llama-bpe");
    vocab.pre = None;
    vocab.architecture = "bitnet-b1.58".to_owned();
    let name = |vocab: &GgufVocab, chosen| {
        PreTokenizer::for_gguf(vocab, chosen).map(|(pre, note)| (pre.name, note.is_some()))
    };
    assert_eq!(name(&vocab, None).unwrap(), ("default", true));
    vocab.tokens.resize(128_256, String::new());
    assert_eq!(name(&vocab, None).unwrap(), ("llama-bpe", true));
    assert_eq!(name(&vocab, Some("default")).unwrap(), ("default", false));
    vocab.architecture = "bitnet-25".to_owned();
    assert_eq!(name(&vocab, None).unwrap(), ("llama-bpe", true));
    vocab.architecture = "llama".to_owned();
    assert_eq!(name(&vocab, None).unwrap(), ("default", true));
    vocab.pre = Some("falcon3".to_owned());
    assert_eq!(name(&vocab, None).unwrap(), ("llama-bpe", false));
    vocab.pre = Some("of-tomorrow".to_owned());
    assert_eq!(name(&vocab, None).unwrap(), ("llama-bpe", true));
    let error = name(&vocab, Some("of-tomorrow")).unwrap_err();
    assert!(error.to_string().contains("llama-bpe"), "{error}");
}

#[test]
fn whole_pieces_never_become_control_tokens() {
    let mut vocab = byte_level_vocab("llama-bpe");
    // A control token that is spelled like a word.
    let last = vocab.tokens.len() - 2;
    vocab.tokens[last] = "stop".to_owned();
    let tokenizer = Tokenizer::from_gguf(&vocab, None).unwrap();
    let plain = tokenizer.encode("stop", Specials::AsText).unwrap();
    assert!(!plain.contains(&(last as u32)), "{plain:?}");
    assert_eq!(
        tokenizer.encode("stop", Specials::Parse).unwrap(),
        [last as u32]
    );
}

#[test]
fn very_long_runs_are_cut_like_short_ones() {
    let tokenizer = Tokenizer::from_gguf(&byte_level_vocab("llama-bpe"), None).unwrap();
    let n = 1_200_000;
    let text = format!("a{}b{}", " ".repeat(n), "\n".repeat(n));
    let cut = encoder(&tokenizer).cut(&text);
    let lengths: Vec<usize> = cut.iter().map(|piece| piece.chars().count()).collect();
    assert_eq!(lengths, [1, n - 1, 2, n]);
    // One piece that only merging can shorten.
    let text = "there".repeat(50_000);
    let ids = tokenizer.encode(&text, Specials::Parse).unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
}

#[test]
fn a_vocabulary_of_llama_3_size_loads_and_encodes() {
    let mut vocab = byte_level_vocab("llama-bpe");
    let letters: Vec<char> = ('a'..='z').collect();
    // Two- to four-letter words: each merge joins a known word and a letter.
    let mut words: Vec<String> = letters.iter().map(char::to_string).collect();
    let mut known: std::collections::HashSet<String> = vocab.tokens.iter().cloned().collect();
    let mut next = 0;
    while vocab.merges.len() < 280_147 && next < words.len() {
        let word = words[next].clone();
        next += 1;
        for letter in &letters {
            let joined = format!("{word}{letter}");
            vocab.merges.push(format!("{word} {letter}"));
            if known.insert(joined.clone()) {
                vocab.tokens.push(joined.clone());
                vocab.token_types.push(TokenType::Normal as i32);
            }
            words.push(joined);
        }
    }
    assert!(vocab.merges.len() >= 280_147, "{}", vocab.merges.len());
    let start = std::time::Instant::now();
    let tokenizer = Tokenizer::from_gguf(&vocab, None).unwrap();
    println!(
        "{} merges loaded in {:?}",
        vocab.merges.len(),
        start.elapsed()
    );
    assert_eq!(tokenizer.encode("abcd", Specials::Parse).unwrap().len(), 1);
}
