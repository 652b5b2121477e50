//! `bitnet-run generate`: a prompt in, its continuation out, as it comes.

use crate::args::{ModelArgs, RunArgs, SampleArgs, stop_text};
use crate::load::Loader;
use crate::signals::{self, STOP};
use crate::terminal::Terminal;
use anyhow::{Context as _, Result, bail};
use bitnet_runtime::decoder::Decoder as _;
use bitnet_runtime::engine::Engine;
use bitnet_runtime::generate::{Finish, GenerateError, GenerateParams, Generated, Session};
use bitnet_runtime::new_file::NewFile;
use bitnet_runtime::sample::Sampler;
use bitnet_runtime::sequence::{Sequence, SequenceOptions};
use bitnet_runtime::tokenizer::{Specials, utf8_argument, utf8_file};
use clap::Args;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

/// What to generate.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    sample: SampleArgs,
    /// The text to continue; - reads it from standard input, as does a pipe where none is given. Without any, the
    /// model begins by itself.
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<OsString>,
    /// A file with the text to continue.
    #[arg(short, long, value_name = "FILE", conflicts_with = "prompt")]
    file: Option<PathBuf>,
    /// At most this many tokens.
    #[arg(short = 'n', long = "tokens", default_value_t = 128)]
    tokens: usize,
    /// End when this text comes, without printing it; may be given several times.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = stop_text)]
    stop: Vec<String>,
    /// With --json: how likely the model found each chosen token, and this many of the likeliest in its place.
    #[arg(long, value_name = "N")]
    logprobs: Option<usize>,
    /// Keep the conversation in this file when the text has ended.
    #[arg(long, value_name = "FILE")]
    save_session: Option<PathBuf>,
    /// Go on with a conversation that was kept; the text to continue follows it.
    #[arg(long, value_name = "FILE")]
    load_session: Option<PathBuf>,
    /// Go on after the model ended its text.
    #[arg(long)]
    ignore_eos: bool,
    /// Do not repeat the prompt before the continuation.
    #[arg(long)]
    no_echo: bool,
}

/// Generates.
///
/// # Errors
/// Whatever stands between the prompt and the text.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    let given = prompt(options)?;
    // Somebody who gives a text and has none is told; who gives none gets what the model begins with.
    if given.as_deref() == Some("") {
        bail!(GenerateError::EmptyPrompt);
    }
    if options.logprobs.is_some() && !terminal.is_json() {
        bail!("--logprobs belongs to the JSON document: give --json, too");
    }
    let prompt = given.unwrap_or_default();
    let loader = Loader::new(terminal, &options.model, &options.run)?;
    let model = loader.open()?;
    let tokenizer = loader.tokenizer(&model)?;
    if let Some(path) = &options.save_session {
        // Better now than after the text.
        NewFile::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut ready = loader.ready(model)?;
    let held = match &options.load_session {
        Some(path) => load(path, &mut ready.engine)?,
        None => Vec::new(),
    };
    let ids = if held.is_empty() {
        tokenizer.encode_prompt(&prompt)?
    } else {
        [&held[..], &tokenizer.encode(&prompt, Specials::Parse)?].concat()
    };
    let n_vocab = tokenizer.n_vocab().max(ready.engine.n_vocab());
    let mut sampler = Sampler::new(options.sample.params(), n_vocab)?;
    let params = GenerateParams {
        ignore_stops: options.ignore_eos,
        stop_strings: options.stop.clone(),
        logprobs: options.logprobs,
        ..GenerateParams::new(options.tokens)
    };
    let mut session = Session::resume(&mut ready.engine, &tokenizer, held);
    session.check(&ids)?;
    let _watch = signals::watch();
    if !options.no_echo {
        terminal.say(&prompt)?;
    }
    let mut out = |piece: &str| terminal.stream(piece);
    let result = session.generate(&ids, &params, &mut sampler, &STOP, &mut out)?;
    if result.finish == Finish::Cancelled {
        signals::asked();
    }
    if let Some(path) = &options.save_session {
        save(path, &mut ready.engine, &ids, &result)?;
    }
    if terminal.is_json() {
        terminal.print(&result, String::new)?;
        loader.keep(&ready);
        return Ok(());
    }
    terminal.say("\n")?;
    if result.finish != Finish::Stop {
        terminal.note(&format!("[{}]", result.finish.describe()));
    }
    let speeds = (result.prefill_tokens_per_s, result.decode_tokens_per_s);
    if let (Some(prefill), Some(decode)) = speeds {
        terminal.note(&format!(
            "[{} prompt tokens at {prefill:.1}/s, {} tokens at {decode:.1}/s, loaded in {:.2} s]",
            result.prompt_tokens,
            result.tokens,
            ready.load.as_secs_f64()
        ));
    }
    loader.keep(&ready);
    Ok(())
}

/// Puts a conversation that was kept in place of the empty one; its tokens.
fn load(path: &Path, engine: &mut Engine) -> Result<Vec<u32>> {
    let options = SequenceOptions {
        n_ctx: Some(engine.n_ctx()),
        ..SequenceOptions::default()
    };
    let sequence = Sequence::load(engine.network(), path, &options)?;
    let tokens = sequence.tokens().to_vec();
    engine.replace(sequence)?;
    Ok(tokens)
}

/// Keeps the conversation: all that was said, where the context has room for the last token, too.
fn save(path: &Path, engine: &mut Engine, prompt: &[u32], result: &Generated) -> Result<()> {
    let said = [prompt, &result.ids].concat();
    let missing = &said[engine.position().min(said.len())..];
    let fits = missing.len() <= engine.n_ctx() - engine.position();
    if result.finish != Finish::Cancelled && fits && !missing.is_empty() {
        engine.prefill(missing).map_err(anyhow::Error::from_boxed)?;
    }
    Ok(engine.sequence().save(path)?)
}

/// The text to continue, if any was given: as an argument, in a file, or through standard input.
fn prompt(options: &Options) -> Result<Option<String>> {
    let piped = || -> Result<String> {
        let mut text = String::new();
        io::stdin()
            .lock()
            .read_to_string(&mut text)
            .context("the prompt from standard input")?;
        Ok(text)
    };
    Ok(match (&options.prompt, &options.file) {
        (Some(text), _) if text == "-" => Some(piped()?),
        (Some(text), _) => Some(utf8_argument("the prompt (-p)", text.clone())?),
        (None, Some(path)) => Some(utf8_file(path)?),
        // An empty pipe (a service's, a test's) is nobody's prompt.
        (None, None) if !io::stdin().is_terminal() => Some(piped()?).filter(|t| !t.is_empty()),
        (None, None) => None,
    })
}
