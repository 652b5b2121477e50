//! `bitnet-run chat`: a conversation, turn by turn, in the model's own template.

use crate::args::{ModelArgs, RunArgs, SampleArgs, stop_text};
use crate::lines::Lines;
use crate::load::Loader;
use crate::signals::{self, STOP};
use crate::terminal::Terminal;
use anyhow::{Context as _, Result, bail};
use bitnet_runtime::chat::{ChatTemplate, Conversation, Role, TemplateInputs};
use bitnet_runtime::decoder::Decoder as _;
use bitnet_runtime::generate::{Finish, GenerateError, GenerateParams, Generated, Session};
use bitnet_runtime::sample::Sampler;
use bitnet_runtime::tokenizer::{Tokenizer, utf8_file};
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

/// How to talk.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    sample: SampleArgs,
    /// Instructions that stand before the conversation.
    #[arg(long, allow_hyphen_values = true)]
    system: Option<String>,
    /// A file with a Jinja chat template, in place of the model's own.
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    /// A variable for the template, for instance enable_thinking=false or 'tools=[{"type": "function", …}]'; may be given
    /// several times.
    #[arg(long, value_name = "KEY=JSON", value_parser = template_arg)]
    template_arg: Vec<(String, Value)>,
    /// End an answer when this text comes, without printing it; may be given several times.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = stop_text)]
    stop: Vec<String>,
    /// With --json: how likely the model found each chosen token, and this many of the likeliest in its place.
    #[arg(long, value_name = "N")]
    logprobs: Option<usize>,
    /// At most this many tokens an answer.
    #[arg(short = 'n', long = "tokens", default_value_t = 512)]
    tokens: usize,
}

/// `enable_thinking=false`.
fn template_arg(text: &str) -> Result<(String, Value), String> {
    let (key, json) = text
        .split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or("expected KEY=JSON, for instance enable_thinking=false")?;
    let value = serde_json::from_str(json).map_err(|e| {
        format!("the value is no JSON ({e}); a text stands in double quotes: '{key}=\"text\"'")
    })?;
    Ok((key.to_owned(), value))
}

/// The template that was asked for, else the model's, with the variables that were given.
fn template(options: &Options, tokenizer: &Tokenizer) -> Result<ChatTemplate> {
    let template = match &options.chat_template {
        Some(path) => {
            let source = utf8_file(path)?;
            ChatTemplate::from_source(&source).with_context(|| path.display().to_string())?
        }
        None => ChatTemplate::of(tokenizer)?,
    };
    let variables = options.template_arg.iter().cloned().collect();
    Ok(template.with_inputs(TemplateInputs {
        tools: Vec::new(),
        variables,
    })?)
}

/// One turn of `chat --json`.
#[derive(Serialize)]
struct Turn {
    question: String,
    #[serde(flatten)]
    answer: Generated,
}

/// Reads questions from standard input until it ends or says `/quit`.
///
/// # Errors
/// When the model cannot be loaded or the terminal fails.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    if options.logprobs.is_some() && !terminal.is_json() {
        bail!("--logprobs belongs to the JSON document: give --json, too");
    }
    let loader = Loader::new(terminal, &options.model, &options.run)?;
    let model = loader.open()?;
    let tokenizer = loader.tokenizer(&model)?;
    let template = template(options, &tokenizer)?;
    if let Some(note) = template.note() {
        terminal.note(&format!("note: {note}"));
    }
    let mut ready = loader.ready(model)?;
    let n_vocab = ready.engine.n_vocab();
    let mut chat = Chat {
        terminal,
        tokenizer: &tokenizer,
        template,
        conversation: Conversation::new(options.system.clone()),
        sampler: Sampler::new(options.sample.params(), n_vocab)?,
        options,
        turns: Vec::new(),
    };
    let mut session = Session::new(&mut ready.engine, &tokenizer);
    let interactive = io::stdin().is_terminal();
    if interactive {
        terminal.note("/reset starts anew, /quit ends, Ctrl-C stops an answer");
    }
    let lines = Lines::of_stdin().context("standard input")?;
    let _watch = signals::watch();
    loop {
        if interactive {
            terminal.say("> ")?;
        }
        let Some(line) = lines.next().context("standard input")? else {
            break;
        };
        let Ok(question) = std::str::from_utf8(&line) else {
            terminal.note("note: that line is not UTF-8, it was not read");
            continue;
        };
        match question.trim() {
            "" => continue,
            "/quit" | "/exit" => break,
            "/reset" => {
                chat.conversation.reset();
                session.reset();
                terminal.note("[a new conversation]");
            }
            question => chat.turn(&mut session, question)?,
        }
    }
    if terminal.is_json() {
        terminal.print(&chat.turns, String::new)?;
    }
    loader.keep(&ready);
    Ok(())
}

struct Chat<'a> {
    terminal: &'a Terminal,
    tokenizer: &'a Tokenizer,
    template: ChatTemplate,
    conversation: Conversation,
    sampler: Sampler,
    options: &'a Options,
    turns: Vec<Turn>,
}

impl Chat<'_> {
    fn turn(
        &mut self,
        session: &mut Session<'_, bitnet_runtime::engine::Engine>,
        question: &str,
    ) -> Result<()> {
        self.conversation.push(Role::User, question);
        let params = GenerateParams {
            stop_strings: [self.template.stop_strings(), &self.options.stop].concat(),
            logprobs: self.options.logprobs,
            ..GenerateParams::new(self.options.tokens)
        };
        loop {
            let ids = self
                .template
                .encode(self.tokenizer, self.conversation.messages())?;
            let terminal = self.terminal;
            let mut out = |piece: &str| terminal.stream(piece);
            let answer = session.generate(&ids, &params, &mut self.sampler, &STOP, &mut out);
            // Ctrl-C stops an answer; what else asks to stop ends the conversation at its next line.
            signals::was_only_ctrl_c();
            match answer {
                Ok(answer) => return self.keep(question, answer),
                // Make room by forgetting, as long as there is something to forget.
                Err(GenerateError::PromptTooLong { .. }) if self.conversation.forget_oldest() => {
                    terminal.note("[the oldest turn was forgotten to make room]");
                }
                Err(e @ GenerateError::PromptTooLong { .. }) => {
                    terminal.note(&format!("note: {e}"));
                    self.conversation.pop();
                    return Ok(());
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn keep(&mut self, question: &str, answer: Generated) -> Result<()> {
        self.conversation.push(Role::Assistant, answer.text.trim());
        if self.terminal.is_json() {
            self.turns.push(Turn {
                question: question.to_owned(),
                answer,
            });
            return Ok(());
        }
        self.terminal.say("\n")?;
        if !matches!(answer.finish, Finish::Stop | Finish::StopString) {
            self.terminal
                .note(&format!("[{}]", answer.finish.describe()));
        }
        Ok(())
    }
}
