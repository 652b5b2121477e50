//! tokenizer.json and tokenizer_config.json as trees, with stages drawn from all that are known.

use super::draw::Draw;
use super::json::spoil;
use super::readable;
use super::text::text;
use bitnet_runtime::tokenizer::{Specials, Tokenizer};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Texts that a right tokenizer gives back.
const TEXTS: &[&str] = &[
    "hello world",
    "a\u{301}bc  é\n\n",
    "<s>x<|eot_id|>",
    "日本語 ▁ 123",
    "",
];

/// Encodes and decodes some text.
pub(super) fn use_tokenizer(draw: &mut Draw, tokenizer: &Tokenizer) -> Result<(), String> {
    for specials in [Specials::Parse, Specials::AsText] {
        let text = match draw.one_in(2) {
            true => (*draw.pick(TEXTS)).to_owned(),
            false => text(draw),
        };
        match tokenizer.encode(&text, specials) {
            Err(e) => readable(&e)?,
            Ok(ids) => {
                if let Err(e) = tokenizer.decode(&ids) {
                    readable(&e)?;
                }
            }
        }
    }
    Ok(())
}

fn normalizer(draw: &mut Draw) -> Value {
    match draw.below(9) {
        0 => json!({"type": "Prepend", "prepend": "▁"}),
        1 => json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
        2 => {
            json!({"type": "Replace", "pattern": {"Regex": "a+"}, "content": text(draw).repeat(1 + draw.below(60))})
        }
        3 => {
            json!({"type": *draw.pick(&["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel"])})
        }
        4 => json!({"type": "Strip", "strip_left": true, "strip_right": draw.one_in(2)}),
        5 => {
            json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Prepend", "prepend": text(draw)}]})
        }
        6 => {
            json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true})
        }
        7 => json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        _ => Value::Null,
    }
}

fn pre_tokenizer(draw: &mut Draw) -> Value {
    let regex = *draw.pick(&[
        "\\s+",
        "(?i:'s|'t)|\\p{L}+|\\p{N}{1,3}",
        "(a+)+$",
        "(",
        "(?=a)",
        ".{0,1000}{0,1000}",
    ]);
    match draw.below(8) {
        0 => {
            json!({"type": "ByteLevel", "add_prefix_space": draw.one_in(2), "trim_offsets": true, "use_regex": draw.one_in(2)})
        }
        1 => {
            json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": *draw.pick(&["Isolated", "Removed", "MergedWithNext", "Contiguous"]), "invert": draw.one_in(2)})
        }
        2 => json!({"type": "FixedLength", "length": draw.below(4)}),
        3 => {
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": *draw.pick(&["always", "first", "never"]), "split": true})
        }
        4 => json!({"type": "Digits", "individual_digits": true}),
        5 => {
            json!({"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, {"type": "Punctuation", "behavior": "Isolated"}]})
        }
        6 => json!({"type": "CharDelimiterSplit", "delimiter": " "}),
        _ => Value::Null,
    }
}

/// A small tokenizer.json, right but for its stages.
fn document(draw: &mut Draw) -> Value {
    let mut vocab: serde_json::Map<String, Value> = [
        "a", "b", "h", "e", "l", "o", "Ġ", "▁", "ab", "he", "ll", "<unk>",
    ]
    .iter()
    .enumerate()
    .map(|(id, t)| ((*t).to_owned(), json!(id)))
    .collect();
    let byte_fallback = draw.one_in(2);
    if byte_fallback {
        (0..256).for_each(|b| drop(vocab.insert(format!("<0x{b:02X}>"), json!(12 + b))));
    }
    let n = vocab.len();
    let added = json!([
        {"id": n, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": draw.one_in(3), "normalized": draw.one_in(3), "special": true},
        {"id": n + 1, "content": "<|eot_id|>", "single_word": false, "lstrip": draw.one_in(3), "rstrip": false, "normalized": false, "special": true},
    ]);
    let unk = if draw.one_in(2) {
        json!("<unk>")
    } else {
        Value::Null
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": normalizer(draw), "pre_tokenizer": pre_tokenizer(draw),
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [n], "tokens": ["<s>"]}}},
        "decoder": {"type": *draw.pick(&["ByteLevel", "Metaspace", "Fuse", "ByteFallback"])},
        "model": {"type": "BPE", "dropout": null, "unk_token": unk, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": draw.one_in(2), "byte_fallback": byte_fallback, "ignore_merges": draw.one_in(2),
            "vocab": vocab, "merges": ["a b", "h e", "l l"]},
    })
}

const KNOWN: &[&str] = &[
    "BPE",
    "WordPiece",
    "Unigram",
    "WordLevel",
    "ByteLevel",
    "Metaspace",
    "Sequence",
    "Split",
    "Prepend",
    "Replace",
    "unk_token",
    "dropout",
    "fuse_unk",
    "byte_fallback",
    "ignore_merges",
    "merges",
    "vocab",
    "model",
    "added_tokens",
    "normalizer",
    "pre_tokenizer",
    "post_processor",
    "decoder",
    "type",
    "content",
    "<unk>",
    "<s>",
    "cls_token",
    "RobertaProcessing",
];

fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = super::hugging_face::scratch("tokenizer");
        fs::create_dir_all(&folder).expect("a folder for the files");
        folder
    })
}

/// One execution.
///
/// # Errors
/// What was found.
pub fn run(draw: &mut Draw) -> Result<(), String> {
    let mut document = document(draw);
    for _ in 0..draw.below(4) {
        spoil(draw, &mut document, KNOWN);
    }
    let mut config = json!({"bos_token": "<s>", "eos_token": {"content": "<|eot_id|>"}, "add_bos_token": true, "model_max_length": 1e30,
        "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"});
    if draw.one_in(3) {
        spoil(
            draw,
            &mut config,
            &[
                "bos_token",
                "eos_token",
                "chat_template",
                "add_bos_token",
                "<s>",
                "default",
            ],
        );
    }
    let folder = folder();
    fs::write(folder.join("tokenizer.json"), document.to_string()).map_err(|e| e.to_string())?;
    fs::write(folder.join("tokenizer_config.json"), config.to_string())
        .map_err(|e| e.to_string())?;
    match Tokenizer::from_folder(folder) {
        Err(e) => readable(&e),
        Ok(tokenizer) => use_tokenizer(draw, &tokenizer),
    }
}
