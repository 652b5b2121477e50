//! A model's template, and what transformers gives to it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use fancy_regex::Regex;
use serde_json::{Map, Value as Json};

use super::jinja::{self, FailureKind, JinjaError};
use super::{ChatError, Message};

/// Bytes that a template may write, beside four times what it is given.
const OUTPUT_BYTES: usize = 1 << 20;

/// Tags that mark the model's words for training and render as nothing.
static GENERATION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\{%(-?)\s*generation\s*(-?)%\}").expect("a valid expression"));
static END_GENERATION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\{%(-?)\s*endgeneration\s*(-?)%\}").expect("a valid expression"));

/// What a template may be given beside the conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateInputs {
    /// Functions that the model may call, each described as `{"type": "function", "function": {…}}`; `none` to the
    /// template where there are none.
    pub tools: Vec<Json>,
    /// Any other variable, by name: `enable_thinking`, `documents`, `date_string`, … The names of the special tokens
    /// (`bos_token`, `eos_token`) may be among them.
    pub variables: BTreeMap<String, Json>,
}

impl TemplateInputs {
    /// Refuses variables that the conversation itself sets.
    ///
    /// # Errors
    /// With the name of the first of them.
    pub fn check(&self) -> Result<(), ChatError> {
        let ours = ["messages", "add_generation_prompt"];
        let twice = (!self.tools.is_empty()).then_some("tools");
        let mut reserved = ours.into_iter().chain(twice);
        match reserved.find(|name| self.variables.contains_key(*name)) {
            Some(name) => Err(ChatError::Reserved {
                name: name.to_owned(),
            }),
            None => Ok(()),
        }
    }
}

/// The text as the engine reads it.
///
/// # Errors
/// When it is not a template.
pub fn prepare(source: &str) -> Result<String, ChatError> {
    let source = GENERATION.replace_all(source, "{%${1} if true ${2}%}");
    let source = END_GENERATION.replace_all(&source, "{%${1} endif ${2}%}");
    jinja::check(&source).map_err(chat_error)?;
    Ok(source.into_owned())
}

/// Renders a prepared template for a conversation that the model is to continue.
///
/// # Errors
/// When the template raises an exception, fails, or wants too much.
pub fn render(
    prepared: &str,
    messages: &[Message],
    inputs: &TemplateInputs,
    bos: &str,
    eos: &str,
) -> Result<String, ChatError> {
    let tools = match inputs.tools.is_empty() {
        true => Json::Null,
        false => Json::Array(inputs.tools.clone()),
    };
    let turns: Vec<Json> = messages.iter().map(turn).collect();
    // As `apply_chat_template` gives them: what is not there is none, not undefined.
    let mut variables = vec![
        ("messages", Json::Array(turns)),
        ("tools", tools),
        ("documents", Json::Null),
        ("add_generation_prompt", Json::Bool(true)),
        ("bos_token", Json::String(bos.to_owned())),
        ("eos_token", Json::String(eos.to_owned())),
    ];
    // The last of a name counts.
    let given = inputs.variables.iter();
    variables.extend(given.map(|(name, value)| (name.as_str(), value.clone())));
    let n_bytes: usize = variables
        .iter()
        .map(|(_, json)| jinja::text_bytes(json))
        .sum();
    let max_bytes = OUTPUT_BYTES + 4 * n_bytes;
    jinja::render(prepared, &variables, max_bytes).map_err(chat_error)
}

/// One message as templates know it.
fn turn(message: &Message) -> Json {
    let mut turn = Map::new();
    turn.insert(
        "role".to_owned(),
        Json::String(message.role.name().to_owned()),
    );
    turn.insert("content".to_owned(), Json::String(message.content.clone()));
    let fields = message.fields.iter();
    turn.extend(fields.map(|(name, value)| (name.clone(), value.clone())));
    Json::Object(turn)
}

fn chat_error(error: JinjaError) -> ChatError {
    match error {
        JinjaError::Unreadable(why) => ChatError::Template { why },
        JinjaError::NoThread(source) => ChatError::NoThread { source },
        JinjaError::Failed(failure) => match failure.kind {
            FailureKind::Raised(why) => ChatError::Render { why },
            FailureKind::Wrong(why) => ChatError::Failed {
                line: failure.line,
                why,
            },
            FailureKind::Costly(what) => ChatError::Costly {
                line: failure.line,
                what,
            },
        },
    }
}
