//! Conversations: the model's own Jinja template, rendered as transformers renders it, then tokenised so that nothing a
//! user types becomes a control token.

mod disguise;
mod jinja;
mod template;

use std::collections::BTreeMap;

use serde_json::Value as Json;

pub use template::TemplateInputs;

use crate::tokenizer::{Specials, Tokenizer, TokenizerError};
use disguise::disguise;

/// The template of BitNet b1.58 2B-4T, as its Hugging Face repository has it in other words.
const BITNET_2B_4T: &str = "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}\
    {{ message.role | capitalize }}: {{ message.content | trim }}<|eot_id|>{% endfor %}\
    {% if add_generation_prompt %}Assistant: {% endif %}";

/// For models without a template: a transcript that a base model is likely to continue.
const TRANSCRIPT: &str = "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content | trim }}\n\
    {% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}";

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A function that the model called.
    Tool,
}

impl Role {
    /// The name that templates know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What they say.
    pub content: String,
    /// What else templates may ask of a message: `tool_calls`, `reasoning_content`, `name`, … One called `content`
    /// takes the place of the text.
    pub fields: BTreeMap<String, Json>,
}

impl Message {
    /// What `role` says, and nothing else.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            fields: BTreeMap::new(),
        }
    }
}

/// Why a conversation could not be turned into tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The template is not valid Jinja.
    #[error("the model's chat template cannot be read: {why}")]
    Template {
        /// What the engine said.
        why: String,
    },
    /// The template refused the conversation, by its own words.
    #[error("the model's chat template refused the conversation: {why}")]
    Render {
        /// What the template said.
        why: String,
    },
    /// The template does something that has no meaning.
    #[error("the model's chat template failed at line {line}: {why}")]
    Failed {
        /// The line of the template, from 1.
        line: u32,
        /// What it tried.
        why: String,
    },
    /// The template wants more than any sane one: of time, memory, or levels.
    #[error("the model's chat template takes too many {what} at line {line}; it was stopped")]
    Costly {
        /// The line of the template, from 1.
        line: u32,
        /// Of what.
        what: &'static str,
    },
    /// A variable for the template that the conversation itself sets.
    #[error("the template variable {name:?} is set by the conversation and cannot be given")]
    Reserved {
        /// Its name.
        name: String,
    },
    /// Templates run on a stack of their own, and the system has none.
    #[error("no thread could be started to run the chat template: {source}")]
    NoThread {
        /// What the system said.
        source: std::io::Error,
    },
    /// A conversation without messages.
    #[error("the conversation is empty: say something first")]
    Empty,
    /// The rendered text could not be tokenised.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// How a model wants a conversation written down.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    /// The source as the engine reads it.
    prepared: String,
    inputs: TemplateInputs,
    stop_strings: Vec<String>,
    note: Option<String>,
}

impl ChatTemplate {
    /// The template of the tokenizer's model; where it is missing or known to be wrong, the right one, with a note.
    ///
    /// # Errors
    /// When the model's template is not valid Jinja.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self, ChatError> {
        let is_bitnet = matches!(
            tokenizer.architecture(),
            "bitnet-b1.58" | "bitnet-25" | "bitnet"
        ) && tokenizer.n_vocab() == 128_256
            && tokenizer.id("<|eot_id|>").is_some();
        // The official 2B-4T GGUF carries a placeholder that lets the model speak both parts for ever.
        let placeholder = |source: &str| source.contains("BITNETAssistant");
        match tokenizer.chat_template() {
            Some(source) if !placeholder(source) => Self::new(source, None, &[]),
            Some(_) if tokenizer.id("<|eot_id|>").is_some() => {
                let note = "the file's chat template is the placeholder of the first upload, known to be wrong; \
                            using the template of BitNet b1.58 2B-4T";
                Self::new(BITNET_2B_4T, Some(note), &[])
            }
            None if is_bitnet => {
                let note = "the file has no chat template; using the one of BitNet b1.58 2B-4T, whose vocabulary it has";
                Self::new(BITNET_2B_4T, Some(note), &[])
            }
            _ => {
                let note = "the model has no chat template: it may be a base model, which continues text instead of \
                            answering; using a plain `User:` / `Assistant:` transcript";
                // A transcript is a text as any other and begins as texts do.
                let begin = match tokenizer.add_bos() {
                    true => "{{ bos_token }}",
                    false => "",
                };
                Self::new(
                    &format!("{begin}{TRANSCRIPT}"),
                    Some(note),
                    &["\nUser:", "\nSystem:", "\nAssistant:"],
                )
            }
        }
    }

    fn new(source: &str, note: Option<&str>, stop_strings: &[&str]) -> Result<Self, ChatError> {
        Ok(Self {
            source: source.to_owned(),
            prepared: template::prepare(source)?,
            inputs: TemplateInputs::default(),
            stop_strings: stop_strings.iter().map(|&stop| stop.to_owned()).collect(),
            note: note.map(str::to_owned),
        })
    }

    /// A template of the caller's, in Jinja.
    ///
    /// # Errors
    /// When it is not valid Jinja.
    pub fn from_source(source: &str) -> Result<Self, ChatError> {
        Self::new(source, None, &[])
    }

    /// The same with tools and variables for the template, in place of those before.
    ///
    /// # Errors
    /// When a variable is one that the conversation sets.
    pub fn with_inputs(self, inputs: TemplateInputs) -> Result<Self, ChatError> {
        inputs.check()?;
        Ok(Self { inputs, ..self })
    }

    /// What the reader should know about the choice of template.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The Jinja text in use.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Texts that end an answer, beside the tokenizer's stop tokens; for models that have no token for it.
    pub fn stop_strings(&self) -> &[String] {
        &self.stop_strings
    }

    /// The conversation as the model's text, ending where the model's answer begins.
    ///
    /// # Errors
    /// When the template refuses the conversation.
    pub fn render(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<String, ChatError> {
        self.render_with(tokenizer, messages, &self.inputs)
    }

    fn render_with(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        inputs: &TemplateInputs,
    ) -> Result<String, ChatError> {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).unwrap_or("");
        let (bos, eos) = (text(tokenizer.bos()), text(tokenizer.eos()));
        template::render(&self.prepared, messages, inputs, bos, eos)
    }

    /// The conversation as tokens, the whole of it each time: [`crate::generate::Session`] reuses what it holds.
    ///
    /// Control tokens that the template writes are recognised; the same text in a message is only text. Nothing is
    /// added to what the template writes: one that writes no begin-of-text token gets none, as from
    /// `apply_chat_template(tokenize=True)`.
    ///
    /// # Errors
    /// When there are no messages, the template refuses them, or the vocabulary cannot express them.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
    ) -> Result<Vec<u32>, ChatError> {
        if messages.is_empty() {
            return Err(ChatError::Empty);
        }
        let (messages, inputs, masks) = disguise(tokenizer, messages, &self.inputs, &self.source);
        let text = self.render_with(tokenizer, &messages, &inputs)?;
        let ids = tokenizer.encode_masked(&text, Specials::Parse, &masks)?;
        if ids.is_empty() {
            return Err(ChatError::Empty);
        }
        Ok(ids)
    }
}

/// A growing conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    system: Option<String>,
    messages: Vec<Message>,
}

impl Conversation {
    /// Begins with instructions, or without.
    pub fn new(system: Option<String>) -> Self {
        let mut conversation = Self {
            system,
            messages: Vec::new(),
        };
        conversation.reset();
        conversation
    }

    /// Forgets all turns; the instructions stay.
    pub fn reset(&mut self) {
        self.messages.clear();
        let instructions = self.system.iter();
        self.messages
            .extend(instructions.map(|content| Message::new(Role::System, content)));
    }

    /// Adds what `role` says.
    pub fn push(&mut self, role: Role, content: impl Into<String>) {
        self.messages.push(Message::new(role, content));
    }

    /// Takes back the latest message; for a turn that could not be answered.
    pub fn pop(&mut self) -> Option<Message> {
        let n_instructions = usize::from(self.system.is_some());
        if self.messages.len() <= n_instructions {
            return None;
        }
        self.messages.pop()
    }

    /// Forgets the oldest question and its answer, to make room; false when only the latest question is left.
    pub fn forget_oldest(&mut self) -> bool {
        let first = usize::from(self.system.is_some());
        let turns = self.messages.iter().enumerate().skip(first + 1);
        let next = turns
            .filter(|(_, message)| message.role == Role::User)
            .map(|(at, _)| at)
            .next();
        match next {
            Some(next) => {
                self.messages.drain(first..next);
                true
            }
            None => false,
        }
    }

    /// All messages, oldest first.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }
}

#[cfg(test)]
mod tests;
