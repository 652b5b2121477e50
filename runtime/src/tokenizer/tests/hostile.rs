//! `tokenizer.json` files that would lose text, take for ever, or fill the memory.
//!
//! Longer than 500 lines: a list of files that mean harm.

use serde_json::{Value, json};

use super::*;
use crate::bounded::bounded_tests;

/// Every byte as a token but those of `without`; nothing merges.
fn bytes_json(without: &[u8]) -> Value {
    let vocab: serde_json::Map<String, Value> = (0..=255u8)
        .filter(|byte| !without.contains(byte))
        .map(|byte| (bytes::byte_to_char(byte).to_string(), json!(byte)))
        .collect();
    json!({
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
}

/// The same with `stages` as one of its fields.
fn with(field: &str, stages: Value) -> Value {
    let mut json = bytes_json(&[]);
    json[field] = stages;
    json
}

fn sequence(field: &str, stages: Vec<Value>) -> Value {
    match field {
        "normalizer" => json!({"type": "Sequence", "normalizers": stages}),
        _ => json!({"type": "Sequence", "pretokenizers": stages}),
    }
}

fn split(regex: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
}

/// An expression that is refused when it is read, or is small enough to run.
fn too_large(regex: &str) {
    match load(&with("pre_tokenizer", split(regex))) {
        Ok(tokenizer) => drop(tokenizer.encode(&"a b".repeat(100), Specials::Parse)),
        Err(error) => drop(refusal(Err::<(), _>(error))),
    }
}

fn load_text(text: &str) -> Result<Tokenizer, TokenizerError> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), text).unwrap();
    let loaded = Tokenizer::from_folder(dir.path());
    // What one way in refuses the other does, too.
    let converted = GgufVocab::from_folder(dir.path());
    assert_eq!(loaded.is_err(), converted.is_err(), "loaded and converted");
    loaded
}

fn load(json: &Value) -> Result<Tokenizer, TokenizerError> {
    load_text(&json.to_string())
}

/// The message of the refusal, in one line of sane length that names the file or the stage.
fn refusal(result: Result<impl Sized, TokenizerError>) -> String {
    let message = result.err().expect("it was accepted").to_string();
    assert!(
        message.len() < 600 && !message.contains('\n') && !message.contains("tokenizer.ggml"),
        "{message}"
    );
    message
}

fn theirs(json: &Value) -> tokenizers::Tokenizer {
    json.to_string().parse().unwrap()
}

#[test]
fn a_byte_without_a_token_is_named_instead_of_dropped() {
    let tokenizer = load(&bytes_json(b"h")).unwrap();
    assert_eq!(
        tokenizer.encode("a b", Specials::Parse).unwrap(),
        [97, 32, 98]
    );
    for text in ["hhh ahb", "ah", "h", " h", "ä h"] {
        let error = tokenizer.encode_prompt(text).unwrap_err();
        assert!(
            matches!(error, TokenizerError::Inexpressible { character: 'h' }),
            "{text}: {error}"
        );
        assert!(error.to_string().contains("'h'"), "{error}");
    }
    // The middle one of a character's three bytes: the character is named.
    let tokenizer = load(&bytes_json(&[0x97])).unwrap();
    let error = tokenizer.encode("in 日本", Specials::Parse).unwrap_err();
    assert!(
        matches!(error, TokenizerError::Inexpressible { character: '日' }),
        "{error}"
    );
}

#[test]
fn nothing_put_in_front_of_a_text_is_nothing() {
    let plain = load(&bytes_json(&[])).unwrap();
    let stages = vec![
        json!({"type": "NFC"}),
        json!({"type": "Prepend", "prepend": ""}),
    ];
    let tokenizer = load(&with("normalizer", sequence("normalizer", stages))).unwrap();
    for text in ["hello world", "e\u{301} \u{2581}", "a"] {
        let want = plain.encode(&text.replace("e\u{301}", "\u{e9}"), Specials::AsText);
        let got = tokenizer.encode(text, Specials::AsText);
        assert_eq!(got.unwrap(), want.unwrap(), "{text}");
    }
}

#[test]
fn an_empty_vocabulary_says_nothing_silently() {
    let all: Vec<u8> = (0..=255).collect();
    let mut json = bytes_json(&all);
    json["added_tokens"] = json!([{"id": 0, "content": "<s>", "special": true}]);
    let tokenizer = load(&json).unwrap();
    assert_eq!(tokenizer.encode("<s>", Specials::Parse).unwrap(), [0]);
    let error = tokenizer.encode("<s>abc", Specials::Parse).unwrap_err();
    assert!(
        matches!(error, TokenizerError::Inexpressible { character: 'a' }),
        "{error}"
    );
}

#[test]
fn an_unknown_token_stands_in_as_in_the_library() {
    for fuse in [false, true] {
        let mut json = bytes_json(b"hx");
        json["model"]["vocab"]["<unk>"] = json!(256);
        json["model"]["unk_token"] = json!("<unk>");
        json["model"]["fuse_unk"] = json!(fuse);
        let ours = load(&json).unwrap();
        for text in ["hhh ahb", "xh", "a", "日hh"] {
            let want = theirs(&json).encode(text, false).unwrap();
            let got = ours.encode(text, Specials::AsText).unwrap();
            assert_eq!(got, want.get_ids(), "{text}");
        }
    }
}

#[test]
fn a_byte_fallback_with_a_hole_is_named_instead_of_dropped() {
    let mut vocab: serde_json::Map<String, Value> = (0..=255u8)
        .filter(|byte| *byte != 0xaa)
        .map(|byte| (format!("<0x{byte:02X}>"), json!(byte)))
        .collect();
    vocab.insert("\u{2581}".to_owned(), json!(256));
    let json = json!({
        "added_tokens": [],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}, {"type": "ByteFallback"}]},
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": true},
    });
    let tokenizer = load(&json).unwrap();
    let want = theirs(&json).encode("a é", false).unwrap();
    assert_eq!(
        tokenizer.encode("a é", Specials::Parse).unwrap(),
        want.get_ids()
    );
    let error = tokenizer.encode("a 語", Specials::Parse).unwrap_err();
    assert!(
        matches!(error, TokenizerError::Inexpressible { character: '語' }),
        "{error}"
    );
}

#[test]
fn prompts_that_spell_the_first_token_get_it_twice_as_in_the_library() {
    let mut json = bytes_json(&[]);
    json["added_tokens"] = json!([{"id": 256, "content": "<s>", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true}]);
    json["post_processor"] = json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}});
    let ours = load(&json).unwrap();
    for text in ["hi", "<s>hi", "<s><s>", "<s>"] {
        let want = theirs(&json).encode(text, true).unwrap();
        assert_eq!(ours.encode_prompt(text).unwrap(), want.get_ids(), "{text}");
    }
}

#[test]
fn faults_name_the_file_and_what_it_calls_its_lists() {
    let mut twice = bytes_json(&[]);
    twice["added_tokens"] = json!([{"id": 300, "content": "a"}]);
    assert!(
        refusal(load(&twice))
            .contains("tokenizer.json: model.vocab and added_tokens: \"a\" is both token 97")
    );
    let all: Vec<u8> = (0..=255).collect();
    assert!(
        refusal(load(&bytes_json(&all)))
            .contains("tokenizer.json: model.vocab and added_tokens: the vocabulary is empty")
    );
    let mut merge = bytes_json(&[]);
    merge["model"]["merges"] = json!(["a b"]);
    assert!(
        refusal(load(&merge))
            .contains("tokenizer.json: model.merges[0] = \"a b\": \"ab\" is not a token")
    );
    let mut merge = bytes_json(&[]);
    merge["model"]["merges"] = json!(["ab"]);
    assert!(refusal(load(&merge)).contains("tokenizer.json: model.merges[0]"));
}

#[test]
fn an_id_given_twice_is_told_the_same_way_each_time() {
    let mut json = bytes_json(&[]);
    for text in ["zz", "yy", "xx", "ww"] {
        json["model"]["vocab"][text] = json!(65);
        json["model"]["vocab"][text.repeat(2)] = json!(66);
    }
    for _ in 0..20 {
        let message = refusal(load(&json));
        assert!(
            message.ends_with("id 65 is both \"A\" and \"ww\""),
            "{message}"
        );
    }
}

#[test]
fn a_bad_expression_is_told_as_what_it_is() {
    for field in ["pre_tokenizer", "normalizer"] {
        for regex in ["(", "[", r"\p{Nonsense}", "a{2,1}", "(?<x", "*"] {
            let stage = match field {
                "normalizer" => {
                    json!({"type": "Replace", "pattern": {"Regex": regex}, "content": "x"})
                }
                _ => split(regex),
            };
            let stages = sequence(
                field,
                vec![
                    json!({"type": match field {
                        "normalizer" => "NFC",
                        _ => "Whitespace",
                    }}),
                    stage,
                ],
            );
            let message = refusal(load(&with(field, stages)));
            let place = format!("tokenizer.json: {field} 1 (");
            assert!(
                message.contains(&place)
                    && message.contains(&format!("expression {regex:?} cannot")),
                "{message}"
            );
        }
    }
}

#[test]
fn the_expressions_of_real_models_are_within_the_limits() {
    let expressions = [
        // GPT-4o, Llama 4, Phi-4.
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        // DeepSeek V3.
        r#"[!"\#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#,
        "[一-龥\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
        // Kimi K2: intersections of classes.
        r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        // Bloom, and the old ones whose look-ahead is not last.
        r" ?[^(\s|[.,!?…。，、।۔،])]+",
        r"\s+(?!\S)|\s+| ?\p{L}+",
        r"(?<=\S)\s(?=\S)",
    ];
    for regex in expressions {
        let tokenizer = load(&with("pre_tokenizer", sequence("pre_tokenizer", vec![
            split(regex),
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}),
        ])))
        .unwrap_or_else(|error| panic!("{error}"));
        let ids = tokenizer.encode(CORPUS, Specials::Parse).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), CORPUS);
    }
}

#[test]
fn faults_of_a_sentencepiece_model_name_it() {
    let mut vocab = sentencepiece_vocab();
    vocab.file = Some("folder/tokenizer.model".into());
    vocab.scores[9] = f32::NAN;
    assert!(
        refusal(Tokenizer::from_gguf(&vocab, None))
            .starts_with("folder/tokenizer.model: scores[9]")
    );
}

bounded_tests! {
    fn a_fixed_length_of_zero_is_refused() {
        let stage = |length: Value| json!({"type": "FixedLength", "length": length});
        for length in [json!(0), json!(-1), json!(0.5), json!("1"), Value::Null] {
            let message = refusal(load(&with("pre_tokenizer", stage(length))));
            assert!(message.contains("pre_tokenizer 0 (FixedLength): length: expected"), "{message}");
        }
        let tokenizer = load(&with("pre_tokenizer", sequence("pre_tokenizer", vec![
            stage(json!(2)),
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}),
        ])))
        .unwrap();
        assert_eq!(tokenizer.encode("abc", Specials::Parse).unwrap(), [97, 98, 99]);
    }

    fn six_replacements_in_a_row_are_stopped() {
        let replace = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(50)});
        let json = with("normalizer", sequence("normalizer", vec![replace; 6]));
        let tokenizer = load(&json).unwrap();
        assert_eq!(tokenizer.encode("b", Specials::Parse).unwrap(), [98]);
        let message = refusal(tokenizer.encode("aaaa", Specials::Parse));
        assert!(message.contains("normalizer 2 (Replace) turns a text of 4 bytes"), "{message}");
    }

    fn replacements_of_nothing_are_stopped() {
        let replace = json!({"type": "Replace", "pattern": {"Regex": "|a"}, "content": "ab".repeat(100)});
        let json = with("normalizer", sequence("normalizer", vec![replace; 8]));
        let tokenizer = load(&json).unwrap();
        refusal(tokenizer.encode("aaaa", Specials::Parse));
    }

    fn a_replacement_of_megabytes_is_stopped() {
        let replace = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "b".repeat(4 << 20)});
        let tokenizer = load(&with("normalizer", replace)).unwrap();
        assert_eq!(tokenizer.encode("b", Specials::Parse).unwrap(), [98]);
        refusal(tokenizer.encode(&"a".repeat(1000), Specials::Parse));
    }

    fn texts_in_front_of_every_piece_are_stopped() {
        let prepend = json!({"type": "Prepend", "prepend": "b".repeat(10_000)});
        let mut json = with("normalizer", sequence("normalizer", vec![prepend; 4]));
        json["added_tokens"] = json!([{"id": 256, "content": "<|>"}]);
        let tokenizer = load(&json).unwrap();
        assert_eq!(tokenizer.encode("b", Specials::Parse).unwrap().len(), 40_001);
        refusal(tokenizer.encode(&"a<|>".repeat(2000), Specials::Parse));
    }

    fn the_byte_alphabet_over_and_over_is_stopped() {
        let stage = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        let json = with("pre_tokenizer", sequence("pre_tokenizer", vec![stage.clone(); 30]));
        let tokenizer = load(&json).unwrap();
        let message = refusal(tokenizer.encode("日本", Specials::Parse));
        assert!(message.contains("pre_tokenizer 1"), "{message}");
        let json = with("normalizer", sequence("normalizer", vec![json!({"type": "ByteLevel"}); 30]));
        let tokenizer = load(&json).unwrap();
        let message = refusal(tokenizer.encode("日本", Specials::Parse));
        assert!(message.contains("normalizer 1"), "{message}");
    }

    fn added_tokens_are_rewritten_within_limits() {
        let replace = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(50)});
        let mut json = with("normalizer", sequence("normalizer", vec![replace; 6]));
        json["added_tokens"] = json!([{"id": 256, "content": "aaaa", "normalized": true}]);
        refusal(load(&json));
    }

    fn added_tokens_without_end_are_refused() {
        let mut json = bytes_json(&[]);
        let added: Vec<Value> = (0..60_000)
            .map(|i| json!({"id": 256 + i, "content": format!("{i:0>100}")}))
            .collect();
        json["added_tokens"] = json!(added);
        let message = refusal(load(&json));
        assert!(message.contains("added_tokens"), "{message}");
    }

    fn stages_without_end_are_refused() {
        for (field, stage) in [("normalizer", json!({"type": "NFKC"})), ("pre_tokenizer", split("a"))] {
            let json = with(field, sequence(field, vec![stage; 10_000]));
            let message = refusal(load(&json));
            assert!(message.contains("at most"), "{message}");
        }
    }

    fn nested_sequences_are_read_or_refused() {
        for (field, key) in [("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers")] {
            for depth in [20, 60, 100_000] {
                let nested = format!(
                    "{}{}{}",
                    format!(r#"{{"type": "Sequence", "{key}": ["#).repeat(depth),
                    r#"{"type": "Nothing"}"#,
                    "]}".repeat(depth)
                );
                let text = with(field, json!("HERE")).to_string().replace("\"HERE\"", &nested);
                refusal(load_text(&text));
            }
        }
    }

    fn a_million_alternatives() { too_large(&"a|".repeat(1_000_000)); }
    fn classes_repeated_a_million_times() { too_large(r"\p{L}{1000}{1000}"); }
    fn groups_of_classes_repeated() { too_large(r"(?:\p{L}{100}){100}"); }
    fn optional_letters_repeated_at_four_levels() { too_large(r"(?:(?:(?:(?:a?){64}){64}){64}){64}"); }
    fn classes_in_a_row() { too_large(&r"\p{L}".repeat(1600)); }
    fn looks_ahead_in_a_row() { too_large(&r"(?=\p{L}{50})".repeat(39)); }
    fn some_looks_ahead() { too_large(&r"(?=\p{L}{50})".repeat(12)); }
    fn groups_in_groups() { too_large(&format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000))); }
    fn groups_that_capture_nothing_in_groups() { too_large(&format!("{}a{}", "(?:".repeat(240), ")".repeat(240))); }
    fn unbalanced_groups() { too_large(&format!("{}a{}", "(".repeat(100_060), ")".repeat(100_000))); }
    fn stars_in_a_row() { too_large(&"a*".repeat(4000)); }

    fn catastrophic_expressions_give_up_by_name() {
        let text = format!("{}!", "a".repeat(5_000));
        for regex in [r"(?:(?=a)a|a)*b", r"(?:(?!b)a|(a))*b\1", r"(?:a(?!b)|aa|a)*b"] {
            let tokenizer = load(&with("pre_tokenizer", split(regex))).unwrap();
            let message = refusal(tokenizer.encode(&text, Specials::Parse));
            assert!(message.contains("pre_tokenizer 0 (Split)") && message.contains("gave up"), "{message}");
        }
    }

    fn a_catastrophic_replacement_gives_up_by_name() {
        let replace = json!({"type": "Replace", "pattern": {"Regex": "(?:(?=a)a|a)*b"}, "content": "x"});
        let tokenizer = load(&with("normalizer", replace)).unwrap();
        let message = refusal(tokenizer.encode(&"a".repeat(5_000), Specials::Parse));
        assert!(message.contains("normalizer 0 (Replace)") && message.contains("gave up"), "{message}");
    }
}

#[test]
fn expressions_that_look_far_ahead_at_every_match_run_out_of_time() {
    // Linear for each match, so quadratic for the text; on the clock, not in the processor seconds of a child.
    let tokenizer = load(&with("pre_tokenizer", split(r".*[^A-Z]|[A-Z]"))).unwrap();
    let since = std::time::Instant::now();
    let text = "A".repeat(300_000);
    let message = refusal(tokenizer.encode(&text, Specials::Parse));
    assert!(message.contains("too much time"), "{message}");
    assert!(since.elapsed().as_secs() < 30);
}

#[test]
fn replacements_are_those_of_the_library() {
    let replacing = |pattern: Value| {
        let replace = json!({"type": "Replace", "pattern": pattern, "content": "_é"});
        let stages = vec![json!({"type": "NFC"}), replace];
        with("normalizer", sequence("normalizer", stages))
    };
    let texts = ["", "a", "xx a.b  x\n", "  日 x", "e\u{301}"];
    let patterns = [
        json!({"Regex": " +"}),
        json!({"Regex": "b*$"}),
        json!({"String": "a.b"}),
        json!({"Regex": r"\s+(?!\S)|\s+"}),
    ];
    for pattern in patterns {
        let json = replacing(pattern);
        let ours = load(&json).unwrap();
        for text in texts {
            let want = theirs(&json).encode(text, false).unwrap();
            let got = ours.encode(text, Specials::AsText).unwrap();
            assert_eq!(got, want.get_ids(), "{json} {text:?}");
        }
    }
    // The library panics on a match of nothing in front.
    let plain = load(&bytes_json(&[])).unwrap();
    let ours = load(&replacing(json!({"Regex": "^"}))).unwrap();
    for text in ["a", " x", "日"] {
        let want = plain
            .encode(&format!("_é{text}"), Specials::AsText)
            .unwrap();
        assert_eq!(ours.encode(text, Specials::AsText).unwrap(), want, "{text}");
    }
}

#[test]
fn cuts_are_those_of_the_library() {
    let to_alphabet = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let mut stages = vec![
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        json!({"type": "Digits", "individual_digits": true}),
        json!({"type": "Punctuation", "behavior": "Contiguous"}),
        json!({"type": "FixedLength", "length": 3}),
        json!({"type": "WhitespaceSplit"}),
        json!({"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": true}),
    ];
    for behavior in [
        "Removed",
        "Isolated",
        "MergedWithPrevious",
        "MergedWithNext",
        "Contiguous",
    ] {
        for (pattern, invert) in [
            (json!({"Regex": r"\s+|x*"}), false),
            (json!({"String": "ab"}), true),
        ] {
            stages.push(json!({"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}));
        }
    }
    for stage in stages {
        let mut json = bytes_json(&[]);
        // Merges show where a text was cut.
        for text in ["ab", "abab", "xx", "12", "Ġa"] {
            let n = json["model"]["vocab"].as_object().unwrap().len();
            json["model"]["vocab"][text] = json!(n);
        }
        json["model"]["merges"] = json!(["a b", "ab ab", "x x", "1 2", "Ġ a"]);
        json["pre_tokenizer"] = match stage["type"] == "ByteLevel" {
            true => stage.clone(),
            false => sequence("pre_tokenizer", vec![stage.clone(), to_alphabet.clone()]),
        };
        let ours = load(&json).unwrap();
        for text in ["abab ab a12", " xx,.xab\n\nab", "日abxxx", "a"] {
            let want = theirs(&json).encode(text, false).unwrap();
            let got = ours.encode(text, Specials::AsText).unwrap();
            assert_eq!(got, want.get_ids(), "{stage} {text:?}");
        }
    }
}

#[test]
fn added_tokens_are_found_as_in_the_library() {
    let token = |id: u32, text: &str, flags: &[&str]| {
        let flag = |name: &str| flags.contains(&name);
        json!({"id": id, "content": text, "single_word": flag("single_word"), "lstrip": flag("lstrip"),
            "rstrip": flag("rstrip"), "normalized": flag("normalized"), "special": flag("special")})
    };
    let mut json = with("normalizer", json!({"type": "Lowercase"}));
    json["added_tokens"] = json!([
        token(256, "<s>", &["special"]),
        token(257, "<mask>", &["special", "lstrip"]),
        token(258, "<|user|>", &["special", "rstrip"]),
        token(259, "<|user|>x", &[]),
        token(260, "word", &["single_word"]),
        token(261, "Day", &["normalized"]),
        token(262, "<both>", &["lstrip", "rstrip", "normalized"]),
        token(263, "日", &[]),
    ]);
    let (ours, theirs) = (load(&json).unwrap(), theirs(&json));
    let texts = [
        "a<s>b",
        "a  <mask> <mask>",
        "<|user|>  \n x<|user|>x <|user|>",
        "word words aword word_ (word) é word",
        "Day day DAY yesterday",
        "  <both>  <both> <BOTH> a",
        "日本日<s>日",
        "<|user|> <mask> <both> day",
        "<|use<|user|",
    ];
    for text in texts {
        let want = theirs.encode(text, false).unwrap();
        let got = ours.encode(text, Specials::Parse).unwrap();
        assert_eq!(got, want.get_ids(), "{text:?}");
    }
    // The library panics where a token lies within white space that another took along.
    json["added_tokens"] = json!([token(256, "<r>", &["rstrip"]), token(257, " ", &["lstrip"])]);
    let ours = load(&json).unwrap();
    assert_eq!(
        ours.encode("<r>   a", Specials::Parse).unwrap(),
        [256, 257, 257, 257, 97]
    );
}

proptest::proptest! {
    #[test]
    fn any_stages_in_any_order_give_an_answer(
        stages in proptest::collection::vec((0..16usize, 0..16usize), 0..5),
        text in "[ a<s>\u{301}日Ａ\u{fdfa}_\n]{0,12}",
    ) {
        let normalizers = [
            json!({"type": "NFC"}), json!({"type": "NFKD"}), json!({"type": "StripAccents"}), json!({"type": "Lowercase"}),
            json!({"type": "Nmt"}), json!({"type": "Strip", "strip_left": true, "strip_right": false}),
            json!({"type": "Prepend", "prepend": ""}), json!({"type": "Prepend", "prepend": "_é"}),
            json!({"type": "Replace", "pattern": {"Regex": "^"}, "content": "é_"}),
            json!({"type": "Replace", "pattern": {"Regex": "a*"}, "content": ""}),
            json!({"type": "Replace", "pattern": {"String": " "}, "content": "日"}), json!({"type": "ByteLevel"}),
            json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true}),
        ];
        let cuts = [
            json!({"type": "Whitespace"}), json!({"type": "WhitespaceSplit"}), json!({"type": "BertPreTokenizer"}),
            json!({"type": "Digits", "individual_digits": true}), json!({"type": "Punctuation", "behavior": "MergedWithNext"}),
            json!({"type": "CharDelimiterSplit", "delimiter": "a"}), json!({"type": "UnicodeScripts"}),
            json!({"type": "FixedLength", "length": 1}),
            json!({"type": "Metaspace", "replacement": "日", "prepend_scheme": "first", "split": true}),
            json!({"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": false}),
            json!({"type": "Split", "pattern": {"Regex": "x*"}, "behavior": "MergedWithPrevious", "invert": true}),
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        ];
        let mut json = bytes_json(&[]);
        json["model"]["byte_fallback"] = json!(true);
        let n = normalizers.len();
        json["normalizer"] = sequence("normalizer", stages.iter().map(|(at, _)| normalizers[at % n].clone()).collect());
        let n = cuts.len();
        json["pre_tokenizer"] = sequence("pre_tokenizer", stages.iter().map(|(_, at)| cuts[at % n].clone()).collect());
        json["added_tokens"] = json!([
            {"id": 256, "content": "<s>", "lstrip": true, "rstrip": true}, {"id": 257, "content": " ", "lstrip": true, "normalized": true},
        ]);
        let tokenizer = load(&json).unwrap();
        if let Err(error) = tokenizer.encode(&text, Specials::Parse) {
            proptest::prop_assert!(matches!(error, TokenizerError::Inexpressible { .. }), "{}", error);
        }
    }
}
