//! Conversations: the model's own Jinja template, rendered as transformers renders it, then tokenised so that nothing a
//! user types becomes a control token.

mod template;

use crate::tokenizer::{Mask, Specials, Tokenizer, TokenizerError};

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
}

impl Role {
    /// The name that templates know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
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
    /// The template refused the conversation, or failed on it.
    #[error("the model's chat template refused the conversation: {why}")]
    Render {
        /// What the template or the engine said.
        why: String,
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
    engine: minijinja::Environment<'static>,
    source: String,
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
            engine: template::engine(source)?,
            source: source.to_owned(),
            stop_strings: stop_strings.iter().map(|&stop| stop.to_owned()).collect(),
            note: note.map(str::to_owned),
        })
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
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).unwrap_or("");
        template::render(
            &self.engine,
            messages,
            text(tokenizer.bos()),
            text(tokenizer.eos()),
        )
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
        let (disguised, masks) = disguise(tokenizer, messages, &self.source);
        let text = self.render(tokenizer, &disguised)?;
        let ids = tokenizer.encode_masked(&text, Specials::Parse, &masks)?;
        if ids.is_empty() {
            return Err(ChatError::Empty);
        }
        Ok(ids)
    }
}

/// Replaces the first character of every control token's text in `messages` by a character that occurs nowhere, and
/// tells which stands for which. Messages without such text, the usual ones, stay as they are.
///
/// The end of a message may be the beginning of a control token that the template's next words would complete; its
/// first character is replaced, too.
fn disguise(
    tokenizer: &Tokenizer,
    messages: &[Message],
    template: &str,
) -> (Vec<Message>, Vec<Mask>) {
    let controls: Vec<&str> = tokenizer.control_texts().collect();
    let mut masks: Vec<Mask> = Vec::new();
    let used = |c: char| {
        template.contains(c) || messages.iter().any(|message| message.content.contains(c))
    };
    let mut unused = ('\u{f0000}'..='\u{ffffd}').filter(|&c| !used(c));
    let disguised = messages.iter().map(|message| {
        let starts = control_starts(&message.content, &controls);
        let hide = |(at, original): (usize, char)| {
            if !starts.contains(&at) {
                return original;
            }
            if let Some(mask) = masks.iter().find(|mask| mask.1 == original) {
                return mask.0;
            }
            // Sixty-five thousand characters are not used up by one conversation's distinct first characters.
            let Some(stand_in) = unused.next() else {
                return char::REPLACEMENT_CHARACTER;
            };
            masks.push((stand_in, original));
            stand_in
        };
        Message {
            role: message.role,
            content: message.content.char_indices().map(hide).collect(),
        }
    });
    let disguised = disguised.collect();
    (disguised, masks)
}

/// Where texts of control tokens begin in `content`, and where one may begin that goes on after it.
fn control_starts(content: &str, controls: &[&str]) -> Vec<usize> {
    let mut starts = Vec::new();
    // Templates often trim messages.
    let end = content.trim_end();
    for control in controls {
        let mut from = 0;
        while let Some(at) = content[from..].find(control).map(|at| from + at) {
            starts.push(at);
            from = at + content[at..].chars().next().map_or(1, char::len_utf8);
        }
        for (len, _) in control.char_indices().skip(1) {
            for text in [content, end] {
                if text.ends_with(&control[..len]) {
                    starts.push(text.len() - len);
                }
            }
        }
    }
    starts
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
        let instructions = self.system.iter().map(|content| Message {
            role: Role::System,
            content: content.clone(),
        });
        self.messages.extend(instructions);
    }

    /// Adds what `role` says.
    pub fn push(&mut self, role: Role, content: impl Into<String>) {
        self.messages.push(Message {
            role,
            content: content.into(),
        });
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
