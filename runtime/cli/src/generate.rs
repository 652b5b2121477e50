//! `bitnet-run generate`: a prompt in, its continuation out, as it comes.

use super::terminal::Terminal;
use super::{ModelArgs, RunArgs, STOP, SampleArgs};
use anyhow::{Result, bail};
use bitnet_runtime::generate::{Finish, GenerateError, GenerateParams, Session};
use bitnet_runtime::sample::Sampler;
use bitnet_runtime::tokenizer::{utf8_argument, utf8_file};
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;

/// What to generate.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    sample: SampleArgs,
    /// The text to continue (nothing but the model's begin-of-text token, unless given).
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<OsString>,
    /// A file with the text to continue.
    #[arg(short, long, value_name = "FILE", conflicts_with = "prompt")]
    file: Option<PathBuf>,
    /// At most this many tokens.
    #[arg(short = 'n', long = "tokens", default_value_t = 128)]
    tokens: usize,
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
    let given = match (&options.prompt, &options.file) {
        (Some(text), _) => Some(utf8_argument("the prompt (-p)", text.clone())?),
        (None, Some(path)) => Some(utf8_file(path)?),
        (None, None) => None,
    };
    // Somebody who gives a text and has none is told; who gives none gets what the model begins with.
    if given.as_deref() == Some("") {
        bail!(GenerateError::EmptyPrompt);
    }
    let prompt = given.unwrap_or_default();
    let setup = options.model.setup_to_run(&options.run)?;
    let model = setup.open_model()?;
    let tokenizer = setup.tokenizer(&model)?;
    for note in setup.notes(&model).iter().chain(tokenizer.notes()) {
        terminal.note(&format!("note: {note}"));
    }
    let ids = tokenizer.encode_prompt(&prompt)?;
    let mut ready = setup.ready(model)?;
    if options.run.kernel.is_none() {
        terminal.tell(&ready);
    }
    let mut sampler = Sampler::new(
        options.sample.params(),
        tokenizer
            .n_vocab()
            .max(bitnet_runtime::decoder::Decoder::n_vocab(&ready.engine)),
    )?;
    let params = GenerateParams {
        ignore_stops: options.ignore_eos,
        ..GenerateParams::new(options.tokens)
    };
    let stream = !terminal.is_json();
    let mut session = Session::new(&mut ready.engine, &tokenizer);
    session.check(&ids)?;
    if stream && !options.no_echo {
        terminal.write(&prompt)?;
    }
    let result = session.generate(&ids, &params, &mut sampler, &STOP, &mut |piece| {
        if stream {
            terminal.write(piece)
        } else {
            Ok(())
        }
    })?;
    if !stream {
        return terminal.print(&result, String::new);
    }
    terminal.write("\n")?;
    if result.finish != Finish::Stop {
        terminal.note(&format!("[{}]", result.finish.describe()));
    }
    if let (Some(prefill), Some(decode)) = (result.prefill_tokens_per_s, result.decode_tokens_per_s)
    {
        terminal.note(&format!(
            "[{} prompt tokens at {prefill:.1}/s, {} tokens at {decode:.1}/s, loaded in {:.2} s]",
            result.prompt_tokens,
            result.tokens,
            ready.load.as_secs_f64()
        ));
    }
    Ok(())
}
