//! Keeping what others have written from becoming control tokens, whatever the template does with it.
//!
//! A template's text and its messages end up in one text, in which `<|eot_id|>` is a token. So the first character of
//! every control token's text in a message is replaced by one that occurs nowhere, before the template runs, and put
//! back after the tokens have been found.

use std::collections::HashSet;

use serde_json::Value as Json;

use super::{Message, TemplateInputs};
use crate::search::TextSet;
use crate::tokenizer::{Mask, Tokenizer};

/// Messages and inputs in disguise, and which character stands for which. Those without such text, the usual ones,
/// stay as they are.
pub fn disguise(
    tokenizer: &Tokenizer,
    messages: &[Message],
    inputs: &TemplateInputs,
    template: &str,
) -> (Vec<Message>, TemplateInputs, Vec<Mask>) {
    let mut texts = vec![template];
    for message in messages {
        texts.push(&message.content);
        message
            .fields
            .values()
            .for_each(|json| collect(json, &mut texts));
    }
    let given = inputs.tools.iter().chain(inputs.variables.values());
    given.for_each(|json| collect(json, &mut texts));
    let used = |c: char| texts.iter().any(|text| text.contains(c));
    let mut wardrobe = Wardrobe {
        controls: TextSet::new(tokenizer.control_texts().map(|text| (text.into(), 0))),
        unused: ('\u{f0000}'..='\u{ffffd}').filter(|&c| !used(c)),
        masks: Vec::new(),
    };
    let messages = messages.iter().map(|message| {
        let fields = message.fields.iter();
        Message {
            role: message.role,
            content: wardrobe.text(&message.content),
            fields: fields
                .map(|(name, value)| (name.clone(), wardrobe.json(value)))
                .collect(),
        }
    });
    let messages = messages.collect();
    let inputs = TemplateInputs {
        tools: inputs
            .tools
            .iter()
            .map(|tool| wardrobe.json(tool))
            .collect(),
        variables: inputs
            .variables
            .iter()
            .map(|(name, value)| (name.clone(), wardrobe.json(value)))
            .collect(),
    };
    (messages, inputs, wardrobe.masks)
}

/// All texts of `json`, keys among them.
fn collect<'j>(json: &'j Json, texts: &mut Vec<&'j str>) {
    match json {
        Json::String(text) => texts.push(text),
        Json::Array(items) => items.iter().for_each(|item| collect(item, texts)),
        Json::Object(entries) => {
            for (key, value) in entries {
                texts.push(key);
                collect(value, texts);
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

/// Characters to hide behind.
struct Wardrobe<I> {
    controls: TextSet,
    unused: I,
    masks: Vec<Mask>,
}

impl<I: Iterator<Item = char>> Wardrobe<I> {
    fn text(&mut self, text: &str) -> String {
        let starts = control_starts(text, &self.controls);
        if starts.is_empty() {
            return text.to_owned();
        }
        let hide = |(at, original): (usize, char)| {
            if !starts.contains(&at) {
                return original;
            }
            if let Some(mask) = self.masks.iter().find(|mask| mask.1 == original) {
                return mask.0;
            }
            // Sixty-five thousand characters are not used up by one conversation's distinct first characters.
            let Some(stand_in) = self.unused.next() else {
                return char::REPLACEMENT_CHARACTER;
            };
            self.masks.push((stand_in, original));
            stand_in
        };
        text.char_indices().map(hide).collect()
    }

    fn json(&mut self, json: &Json) -> Json {
        match json {
            Json::String(text) => Json::String(self.text(text)),
            Json::Array(items) => Json::Array(items.iter().map(|item| self.json(item)).collect()),
            Json::Object(entries) => {
                let entries = entries.iter();
                Json::Object(
                    entries
                        .map(|(key, value)| (self.text(key), self.json(value)))
                        .collect(),
                )
            }
            other => other.clone(),
        }
    }
}

/// Where texts of control tokens begin in `content`, and where one may begin that the template's next words would
/// complete.
fn control_starts(content: &str, controls: &TextSet) -> HashSet<usize> {
    // Templates often trim messages.
    let trimmed = content.trim_end();
    let starts = controls.places(content).filter(|&at| {
        let (rest, trimmed_rest) = (&content[at..], trimmed.get(at..).unwrap_or(""));
        controls.longest(rest).is_some() || controls.goes_on(rest) || controls.goes_on(trimmed_rest)
    });
    starts.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One text after the other.
    fn plain(content: &str, controls: &[&str]) -> HashSet<usize> {
        let mut starts = HashSet::new();
        for control in controls {
            for (at, _) in content.char_indices() {
                if content[at..].starts_with(control) {
                    starts.insert(at);
                }
            }
            for (len, _) in control.char_indices().skip(1) {
                for text in [content, content.trim_end()] {
                    if text.ends_with(&control[..len]) {
                        starts.insert(text.len() - len);
                    }
                }
            }
        }
        starts
    }

    proptest! {
        #[test]
        fn all_texts_are_found_at_once(
            controls in proptest::collection::vec("[a<é>]{1,4}", 0..6),
            content in "[a<é> ]{0,20}",
        ) {
            let controls: Vec<&str> = controls.iter().map(String::as_str).collect();
            let set = TextSet::new(controls.iter().map(|&text| (text.into(), 0)));
            let found = control_starts(&content, &set);
            prop_assert_eq!(found, plain(&content, &controls));
        }
    }
}
