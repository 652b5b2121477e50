//! Hugging Face folders: the same ids as the `tokenizers` crate's own pipeline, and as the GGUF made from them.

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// The tokenizer.json that says what a `gpt2` vocabulary says.
fn byte_level_json(vocab: &GgufVocab) -> Value {
    let pre = PreTokenizer::named(vocab.pre.as_deref().unwrap()).unwrap();
    let mut stages: Vec<Value> = pre
        .regexes
        .iter()
        .map(|regex| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}))
        .collect();
    stages.push(json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}));
    let bos = &vocab.tokens[vocab.bos.unwrap() as usize];
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added(vocab),
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": stages},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {bos: {"id": bos, "ids": [vocab.bos], "tokens": [bos]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": pre.whole_pieces, "vocab": ordinary(vocab, &[3, 4]), "merges": vocab.merges},
    })
}

fn added(vocab: &GgufVocab) -> Vec<Value> {
    let tokens = vocab.tokens.iter().zip(&vocab.token_types).enumerate();
    tokens
        .filter(|(_, (_, kind))| [2, 3, 4].contains(*kind))
        .map(|(id, (text, kind))| {
            json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": *kind != 4})
        })
        .collect()
}

fn ordinary(vocab: &GgufVocab, without: &[i32]) -> serde_json::Map<String, Value> {
    let tokens = vocab.tokens.iter().zip(&vocab.token_types).enumerate();
    tokens
        .filter(|(_, (_, kind))| !without.contains(*kind))
        .map(|(id, (text, _))| (text.clone(), json!(id)))
        .collect()
}

/// As transformers converts a SentencePiece vocabulary: merges from all splits, by falling score of the result.
fn sentencepiece_json(vocab: &GgufVocab) -> Value {
    let normal = |text: &str| {
        let at = vocab.tokens.iter().position(|token| token == text)?;
        (vocab.token_types[at] == 1).then_some(at)
    };
    let mut merges = Vec::new();
    for text in &vocab.tokens {
        let Some(at) = normal(text) else { continue };
        for (split, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(split);
            if normal(left).is_some() && normal(right).is_some() {
                merges.push((vocab.scores[at], [left.to_owned(), right.to_owned()]));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0));
    let merges: Vec<_> = merges.into_iter().map(|(_, pair)| pair).collect();
    json!({
        "version": "1.0",
        "added_tokens": added(vocab),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": ordinary(vocab, &[]), "merges": merges},
    })
}

struct Folder {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn folder(files: &[(&str, String)]) -> Folder {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let path = dir.path().to_owned();
    Folder { _dir: dir, path }
}

fn text() -> impl Strategy<Value = String> {
    let interesting = proptest::sample::select(
        "  the lidogcatsrn\n'日語é1234.<s>/🙂"
            .chars()
            .collect::<Vec<_>>(),
    );
    let c = prop_oneof![6 => interesting, 1 => any::<char>()];
    proptest::collection::vec(c, 0..60).prop_map(String::from_iter)
}

/// The folder, the crate's own reading of it, and the GGUF keys made from it.
struct Three {
    ours: Tokenizer,
    theirs: tokenizers::Tokenizer,
    gguf: Tokenizer,
    _folder: Folder,
}

fn three(json: &Value) -> Three {
    let folder = folder(&[
        ("tokenizer.json", json.to_string()),
        (
            "tokenizer_config.json",
            json!({"eos_token": "</s>"}).to_string(),
        ),
    ]);
    let path = folder.path.join("tokenizer.json");
    let mut vocab = GgufVocab::from_tokenizer_json(&path).unwrap();
    assert_eq!(vocab.note().is_some(), vocab.huggingface_json.is_some());
    vocab.architecture = "bitnet-b1.58".to_owned();
    Three {
        ours: Tokenizer::from_folder(&folder.path).unwrap(),
        theirs: tokenizers::Tokenizer::from_file(&path).unwrap(),
        gguf: Tokenizer::from_gguf(&vocab, None).unwrap(),
        _folder: folder,
    }
}

fn agree(three: &Three, text: &str) {
    let theirs = three.theirs.encode_fast(text, false).unwrap();
    let ours = three.ours.encode(text, Specials::Parse).unwrap();
    assert_eq!(ours, theirs.get_ids(), "{text:?}");
    assert_eq!(
        three.gguf.encode(text, Specials::Parse).unwrap(),
        ours,
        "GGUF, {text:?}"
    );
    let decoded = three.theirs.decode(&ours, true).unwrap();
    assert_eq!(three.ours.decode(&ours).unwrap(), decoded, "{text:?}");
}

#[test]
fn byte_level_folders_agree_with_the_crate_and_with_their_gguf() {
    for pre in PRE_TOKENIZERS {
        let vocab = byte_level_vocab(pre.name);
        let three = three(&byte_level_json(&vocab));
        assert_eq!(three.ours.bos(), vocab.bos);
        assert_eq!(three.gguf.bos(), vocab.bos);
        assert!(three.ours.add_bos() && three.gguf.add_bos());
        agree(&three, CORPUS);
        agree(&three, "a <|eot_id|>b<tool> c<|begin_of_text|>");
        proptest!(ProptestConfig::with_cases(64), |(text in text())| agree(&three, &text));
    }
}

#[test]
fn sentencepiece_folders_agree_with_the_crate_and_with_their_gguf() {
    let three = three(&sentencepiece_json(&sentencepiece_vocab()));
    agree(&three, CORPUS);
    agree(&three, "the</s>dogs <s>");
    proptest!(ProptestConfig::with_cases(256), |(text in text())| agree(&three, &text));
}

#[test]
fn a_gguf_vocabulary_survives_the_way_through_tokenizer_json() {
    let vocab = byte_level_vocab("llama-bpe");
    let folder = folder(&[("tokenizer.json", byte_level_json(&vocab).to_string())]);
    let back = GgufVocab::from_folder(&folder.path).unwrap();
    assert_eq!(back.tokens, vocab.tokens);
    assert_eq!(back.token_types, vocab.token_types);
    assert_eq!(back.merges, vocab.merges);
    assert_eq!(back.pre, vocab.pre);
    assert_eq!((back.bos, back.add_bos), (vocab.bos, Some(true)));
}

#[test]
fn what_gguf_keys_cannot_say_is_carried_whole() {
    let mut other_cuts = byte_level_json(&byte_level_vocab("llama-bpe"));
    other_cuts["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!(r"\w+|\W+");
    let mut normalized = byte_level_json(&byte_level_vocab("gpt-2"));
    normalized["normalizer"] = json!({"type": "NFC"});
    let mut prefixed = byte_level_json(&byte_level_vocab("gpt-2"));
    prefixed["pre_tokenizer"] = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    // Merges that leave out a pair: merging by score would use it.
    let mut missing_pair = sentencepiece_json(&sentencepiece_vocab());
    missing_pair["model"]["merges"]
        .as_array_mut()
        .unwrap()
        .remove(0);
    for json in [other_cuts, normalized, prefixed, missing_pair] {
        let three = three(&json);
        assert!(
            three.gguf.kind().contains("inside"),
            "{}",
            three.gguf.kind()
        );
        agree(&three, CORPUS);
        agree(&three, "e\u{301}a</s>b<|eot_id|> c");
        proptest!(ProptestConfig::with_cases(64), |(text in text())| agree(&three, &text));
    }
    // The key that names it must be there and whole.
    let vocab = GgufVocab {
        model: GgufVocab::HUGGING_FACE.to_owned(),
        tokens: vec!["a".to_owned()],
        ..GgufVocab::default()
    };
    let error = Tokenizer::from_gguf(&vocab, None).err().unwrap();
    assert!(
        error.to_string().contains("tokenizer.huggingface.json"),
        "{error}"
    );
}

#[test]
fn the_small_files_name_the_special_tokens() {
    let vocab = byte_level_vocab("llama-bpe");
    let mut json = byte_level_json(&vocab);
    json["post_processor"] = Value::Null;
    let bos = vocab.bos.unwrap();
    let folder = folder(&[
        ("tokenizer.json", json.to_string()),
        (
            "tokenizer_config.json",
            json!({"bos_token": {"content": "<|begin_of_text|>"}, "eos_token": "<|end_of_text|>", "add_bos_token": true,
                "chat_template": [{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]})
            .to_string(),
        ),
        ("generation_config.json", json!({"eos_token_id": [bos + 1, 65, 4_000_000_000u32]}).to_string()),
        ("config.json", json!({"model_type": "bitnet", "eos_token_id": 66}).to_string()),
    ]);
    let ours = Tokenizer::from_folder(&folder.path).unwrap();
    assert_eq!(
        (ours.bos(), ours.eos(), ours.add_bos()),
        (Some(bos), Some(bos + 1), true)
    );
    assert_eq!(ours.stops(), [65, 66, bos + 1, bos + 2]);
    assert_eq!(ours.chat_template(), Some("D"));
    assert_eq!(ours.architecture(), "bitnet");
    let gguf = GgufVocab::from_folder(&folder.path).unwrap();
    assert_eq!(
        (gguf.bos, gguf.eos, gguf.eot, gguf.add_bos),
        (Some(bos), Some(bos + 1), Some(65), Some(true))
    );
    assert_eq!(gguf.chat_template.as_deref(), Some("D"));
    // A template in its own file is the newer habit and wins.
    std::fs::write(folder.path.join("chat_template.jinja"), "J").unwrap();
    assert_eq!(
        Tokenizer::from_folder(&folder.path)
            .unwrap()
            .chat_template(),
        Some("J")
    );
}

#[test]
fn damaged_files_are_refused_with_their_path() {
    let good = byte_level_json(&byte_level_vocab("llama-bpe"));
    let long = "x".repeat(300);
    let changes: Vec<(&str, Value)> = vec![
        ("/model/type", json!("Unigram")),
        ("/model/merges/0", json!(format!("{long} {long}"))),
        ("/model/merges/0", json!("one")),
        ("/model/merges/0", json!(["a"])),
        ("/model/vocab/a", json!(4_000_000_000u32)),
        ("/model/vocab/a", json!(98)),
        ("/model/vocab/a", json!(-1)),
        ("/model/unk_token", json!("nowhere")),
        ("/model/end_of_word_suffix", json!("</w>")),
        ("/model/continuing_subword_prefix", json!("##")),
        ("/added_tokens/0/id", json!(65)),
        ("/added_tokens/0/id", json!(4_000_000_000u32)),
        (
            "/normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        ),
        ("/normalizer", json!({"type": "Nothing"})),
        (
            "/pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false}),
        ),
        ("/decoder", json!({"type": "WordPiece"})),
        ("/decoder", Value::Null),
    ];
    for (at, value) in changes {
        let mut json = good.clone();
        *json.pointer_mut(at).unwrap() = value.clone();
        let folder = folder(&[("tokenizer.json", json.to_string())]);
        assert!(
            Tokenizer::from_folder(&folder.path).is_err(),
            "{at} = {value} was accepted"
        );
        assert!(
            GgufVocab::from_folder(&folder.path).is_err(),
            "{at} = {value} was converted"
        );
    }
    let text = good.to_string();
    for cut in [0, 1, text.len() / 3, text.len() - 1] {
        let folder = folder(&[("tokenizer.json", text[..cut].to_owned())]);
        let error = Tokenizer::from_folder(&folder.path).err().unwrap();
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
    }
    let empty = folder(&[]);
    let error = Tokenizer::from_folder(&empty.path).err().unwrap();
    assert!(
        matches!(error, TokenizerError::NoTokenizer { .. }),
        "{error}"
    );
}

/// `tokenizer.model` as the SentencePiece library writes it.
fn protobuf(vocab: &GgufVocab, kind: u8) -> Vec<u8> {
    fn varint(mut value: usize, out: &mut Vec<u8>) {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }
    let mut out = Vec::new();
    for ((text, score), kind) in vocab
        .tokens
        .iter()
        .zip(&vocab.scores)
        .zip(&vocab.token_types)
    {
        let mut piece = vec![0x0a];
        varint(text.len(), &mut piece);
        piece.extend_from_slice(text.as_bytes());
        piece.push(0x15);
        piece.extend_from_slice(&score.to_le_bytes());
        if *kind != 1 {
            piece.extend([0x18, *kind as u8]);
        }
        out.push(0x0a);
        varint(piece.len(), &mut out);
        out.extend(piece);
    }
    // trainer_spec {model_type, pad_id: -1}; normalizer_spec {add_dummy_prefix: true}.
    let mut trainer = vec![0x18, kind, 0xd8, 0x02];
    trainer.extend([0xff; 9]);
    trainer.push(0x01);
    out.extend([0x12, trainer.len() as u8]);
    out.extend(trainer);
    out.extend([0x1a, 2, 0x18, 1]);
    out
}

#[test]
fn a_sentencepiece_model_without_tokenizer_json_is_read() {
    let vocab = sentencepiece_vocab();
    let n = vocab.tokens.len();
    let bytes = protobuf(&vocab, 2);
    let folder = folder(&[(
        "added_tokens.json",
        json!({"<pad>": n, "[PAD]": n + 1}).to_string(),
    )]);
    let path = folder.path.join("tokenizer.model");
    std::fs::write(&path, &bytes).unwrap();
    let read = GgufVocab::from_folder(&folder.path).unwrap();
    assert_eq!(read.tokens[..n], vocab.tokens);
    assert_eq!(read.scores[..n], vocab.scores);
    assert_eq!(read.token_types[..n], vocab.token_types);
    assert_eq!(read.tokens[n..], ["<pad>", "[PAD]"]);
    assert_eq!(read.token_types[n..], [3, 3]);
    assert_eq!(
        (read.unk, read.bos, read.eos, read.pad),
        (Some(0), Some(1), Some(2), None)
    );
    assert_eq!(
        (read.add_bos, read.add_space_prefix),
        (Some(true), Some(true))
    );
    let ours = Tokenizer::from_folder(&folder.path).unwrap();
    let theirs = Tokenizer::from_gguf(&vocab, None).unwrap();
    assert_eq!(
        ours.encode_prompt(CORPUS).unwrap(),
        theirs.encode_prompt(CORPUS).unwrap()
    );

    // Cut short, it is refused or a shorter vocabulary, never a panic.
    for cut in (0..bytes.len()).step_by(7) {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let _ = Tokenizer::from_folder(&folder.path);
    }
    std::fs::write(&path, protobuf(&vocab, 1)).unwrap();
    let error = GgufVocab::from_folder(&folder.path).unwrap_err();
    assert!(
        matches!(error, TokenizerError::Unsupported { .. }),
        "{error}"
    );
}
