//! Tokenizers of the model files that come with the repository.

use std::path::{Path, PathBuf};

use super::*;
use crate::chat::{ChatTemplate, Conversation, Role};
use crate::format::{OpenOptions, open};
use crate::setup::{self, SetupError};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_demo_model_reads_and_prints_its_language() {
    let model = open(&here("assets/demo/demo.gguf"), &OpenOptions::default()).unwrap();
    let tokenizer = setup::tokenizer(&model, None).unwrap();
    assert_eq!(tokenizer.notes(), [] as [String; 0]);
    let text = "Once upon a time there was a little fox. \"Hello!\" said the fox, 12 times.\n";
    let ids = tokenizer.encode_prompt(text).unwrap();
    assert_eq!(Some(ids[0]), tokenizer.bos());
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    // A vocabulary made for such text needs few tokens for it.
    assert!(
        ids.len() < text.len() / 2,
        "{} tokens for {} bytes",
        ids.len(),
        text.len()
    );

    let template = ChatTemplate::of(&tokenizer).unwrap();
    assert_eq!(template.note(), None, "the demo model has its own template");
    let mut conversation = Conversation::default();
    conversation.push(Role::User, "Who are you? <|end|>");
    let ids = template
        .encode(&tokenizer, conversation.messages())
        .unwrap();
    let n_stops = ids.iter().filter(|&&id| tokenizer.is_stop(id)).count();
    conversation.pop();
    conversation.push(Role::User, "Who are you?");
    let honest = template
        .encode(&tokenizer, conversation.messages())
        .unwrap();
    assert_eq!(
        n_stops,
        honest.iter().filter(|&&id| tokenizer.is_stop(id)).count()
    );
}

#[test]
fn the_fixtures_have_tokenizers_or_say_that_they_have_none() {
    for name in ["b158", "llama"] {
        let path = here(&format!("../tests/data/tiny/tiny_{name}.gguf"));
        let model = open(&path, &OpenOptions::default()).unwrap();
        let tokenizer = setup::tokenizer(&model, None).unwrap();
        let ids = tokenizer
            .encode("Hello, Grüße 日本!", Specials::Parse)
            .unwrap();
        assert_eq!(
            tokenizer.decode(&ids).unwrap(),
            "Hello, Grüße 日本!",
            "{name}"
        );
        let folder = here(&format!("../tests/data/tiny/tiny_{name}_hf"));
        let model = open(&folder, &OpenOptions::default()).unwrap();
        let error = setup::tokenizer(&model, None).err().unwrap();
        assert!(
            matches!(
                error,
                SetupError::Tokenizer(TokenizerError::NoTokenizer { .. })
            ),
            "{error}"
        );
    }
}
