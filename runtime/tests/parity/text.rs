//! Prompts and conversations become the ids that transformers makes of them, and those ids its logits:
//! `tests/parity/text.py` made the tokenizers. Where its tokenizer loses characters without a word, ours names one.

use super::{Expected, logits};
use bitnet_runtime::chat::{ChatTemplate, Message, Role};
use bitnet_runtime::format::OpenOptions;
use bitnet_runtime::tokenizer::Tokenizer;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/parity/text")
}

/// The tokenizers, each with its name and what transformers says.
fn tokenizers() -> Vec<(String, Tokenizer, Value)> {
    let entries = std::fs::read_dir(folder()).expect("the fixtures are there");
    let mut all: Vec<_> = entries
        .map(|e| e.expect("an entry").path())
        .filter(|path| path.join("tokenizer.json").exists())
        .map(|path| {
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            let tokenizer = Tokenizer::from_folder(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
            let text = std::fs::read_to_string(path.join("expected.json")).expect("expected.json");
            (name, tokenizer, serde_json::from_str(&text).expect("JSON"))
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(all.len() >= 5, "{} tokenizers", all.len());
    all
}

fn ids(json: &Value) -> Vec<u32> {
    let ids = json["ids"].as_array().expect("a list").iter();
    ids.map(|id| id.as_u64().expect("an id") as u32).collect()
}

fn messages(json: &Value) -> Vec<Message> {
    let all = json["messages"].as_array().expect("a list").iter();
    all.map(|message| {
        let role = match message["role"].as_str() {
            Some("system") => Role::System,
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            other => panic!("role {other:?}"),
        };
        Message::new(role, message["content"].as_str().expect("text"))
    })
    .collect()
}

#[test]
fn prompts_are_those_of_tokenizers() {
    for (name, tokenizer, expected) in tokenizers() {
        for prompt in expected["prompts"].as_array().expect("a list") {
            let text = prompt["text"].as_str().expect("text");
            let got = tokenizer
                .encode_prompt(text)
                .unwrap_or_else(|e| panic!("{name} {text:?}: {e}"));
            assert_eq!(got, ids(prompt), "{name} {text:?}");
        }
    }
}

#[test]
fn a_character_that_tokenizers_loses_is_an_error_that_names_it() {
    let mut seen = 0;
    for (name, tokenizer, expected) in tokenizers() {
        for (text, lost) in expected["losing"].as_object().expect("an object") {
            let error = tokenizer
                .encode_prompt(text)
                .expect_err("a lost character")
                .to_string();
            let lost = lost.as_str().expect("text");
            assert!(
                error.contains(&format!("{lost:?}")) || error.contains(&format!("'{lost}'")),
                "{name} {text:?}: {error}"
            );
            seen += 1;
        }
    }
    assert!(seen > 0, "no text loses anything");
}

#[test]
fn conversations_are_those_of_apply_chat_template() {
    let mut seen = 0;
    for (name, tokenizer, expected) in tokenizers() {
        for chat in expected["chats"].as_array().expect("a list") {
            let template = ChatTemplate::of(&tokenizer).unwrap_or_else(|e| panic!("{name}: {e}"));
            let got = template.encode(&tokenizer, &messages(chat));
            let got = got.unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(
                got,
                ids(chat),
                "{name}: {:?}",
                template.render(&tokenizer, &messages(chat))
            );
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen} conversations");
}

#[test]
fn a_prompt_gives_the_logits_of_transformers() {
    for (name, tokenizer, expected) in tokenizers() {
        let first = expected["prompts"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|p| ids(p).len() > 3);
        let text = first.and_then(|p| p["text"].as_str()).expect("a prompt");
        let tokens = tokenizer.encode_prompt(text).expect("ids");
        let expected = Expected::of(&folder().join(&name));
        let (got, _) = logits(&folder().join("model"), &OpenOptions::default(), &tokens);
        let (difference, ratio, same) = expected.compare(&got);
        assert!(
            ratio <= 10.0 && same,
            "{name}: {difference:.2e}, {ratio:.1} of transformers' own, argmax same: {same}"
        );
    }
}
