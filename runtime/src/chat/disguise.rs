//! Keeping what others have written from becoming control tokens, whatever the template does with it.
//!
//! A template's text and its messages end up in one text, in which `<|eot_id|>` is a token. So the first character of
//! every control token's text in a message is replaced by one that occurs nowhere, before the template runs, and put
//! back after the tokens have been found.

use std::collections::HashSet;

use serde_json::Value as Json;

use super::{Message, TemplateInputs};
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
        controls: Controls::new(tokenizer.control_texts()),
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
struct Wardrobe<'t, I> {
    controls: Controls<'t>,
    unused: I,
    masks: Vec<Mask>,
}

impl<I: Iterator<Item = char>> Wardrobe<'_, I> {
    fn text(&mut self, text: &str) -> String {
        let starts = self.controls.starts(text);
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

/// The texts of control tokens, in order, to be searched for all at once: a file may have any number.
struct Controls<'t>(Vec<&'t str>);

impl<'t> Controls<'t> {
    fn new(texts: impl Iterator<Item = &'t str>) -> Self {
        let mut texts: Vec<&str> = texts.collect();
        texts.sort_unstable();
        Self(texts)
    }

    /// Where a text begins in `content`, and where one may begin that the template's next words would complete.
    fn starts(&self, content: &str) -> HashSet<usize> {
        let mut firsts = [false; 256];
        for text in &self.0 {
            firsts[usize::from(text.as_bytes()[0])] = true;
        }
        // Templates often trim messages.
        let trimmed = content.trim_end();
        let possible = content.char_indices().map(|(at, _)| at);
        possible
            .filter(|&at| firsts[usize::from(content.as_bytes()[at])])
            .filter(|&at| {
                let trimmed_rest = trimmed.get(at..).unwrap_or("");
                self.has_prefix_of(&content[at..])
                    || self.begins(&content[at..])
                    || self.begins(trimmed_rest)
            })
            .collect()
    }

    /// Whether `rest` begins with one of the texts.
    fn has_prefix_of(&self, mut rest: &str) -> bool {
        loop {
            // Whatever begins `rest` comes before it, and so does all that lies between and begins alike.
            let n_before = self.0.partition_point(|text| *text <= rest);
            let Some(before) = n_before.checked_sub(1).map(|last| self.0[last]) else {
                return false;
            };
            if rest.starts_with(before) {
                return true;
            }
            let letters = rest.char_indices().zip(before.chars());
            let same = letters.take_while(|&((_, a), b)| a == b);
            match same.last() {
                Some(((at, c), _)) => rest = &rest[..at + c.len_utf8()],
                None => return false,
            }
        }
    }

    /// Whether one of the texts begins with `part` and goes on.
    fn begins(&self, part: &str) -> bool {
        let n_before = self.0.partition_point(|text| *text <= part);
        let next = self.0.get(n_before);
        !part.is_empty() && next.is_some_and(|text| text.starts_with(part))
    }
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
            let found = Controls::new(controls.iter().copied()).starts(&content);
            prop_assert_eq!(found, plain(&content, &controls));
        }
    }

    #[test]
    fn many_control_tokens_are_searched_for_in_no_time() {
        let controls: Vec<String> = (0..100_000).map(|i| format!("<|{i:05}|>")).collect();
        let controls = Controls::new(controls.iter().map(String::as_str));
        let content = "<|0000 <|99999|> ".repeat(10_000);
        // One whole text a time, and nothing that goes on at the end.
        assert_eq!(controls.starts(&content).len(), 10_000);
    }
}
