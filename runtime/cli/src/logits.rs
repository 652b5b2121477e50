//! `bitnet-run logits`: what a model says after every token, as numbers in a file.

use crate::args::{ModelArgs, RunArgs};
use crate::load::Loader;
use crate::npy;
use crate::terminal::Terminal;
use anyhow::{Context as _, Result};
use bitnet_runtime::decoder::Decoder as _;
use bitnet_runtime::engine::BATCH;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Which logits.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Token ids.
    #[arg(long, value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// The file to write.
    #[arg(short, long)]
    out: PathBuf,
}

/// The document of `logits --json`.
#[derive(Serialize)]
struct Written {
    path: String,
    dtype: &'static str,
    shape: [usize; 2],
}

/// Computes and writes logits. Nothing is kept of work that a signal cuts short, so nothing looks for one.
///
/// # Errors
/// When a token is out of range, the context too short, or the file cannot be written; nothing is left of it then.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    let loader = Loader::new(terminal, &options.model, &options.run)?;
    let mut ready = loader.ready(loader.open()?)?;
    let n_vocab = ready.engine.n_vocab();
    let mut rows = Vec::with_capacity(options.tokens.len().min(ready.engine.n_ctx()) * n_vocab);
    // All of them are checked before the first is processed.
    ready.engine.check(&options.tokens)?;
    for piece in options.tokens.chunks(BATCH) {
        ready
            .engine
            .prefill_each(piece, 0, &mut |_, logits| rows.extend_from_slice(logits))
            .map_err(anyhow::Error::from_boxed)?;
    }
    npy::write(&options.out, options.tokens.len(), n_vocab, &rows)
        .with_context(|| format!("cannot write {}", options.out.display()))?;
    let written = Written {
        path: options.out.display().to_string(),
        dtype: "f32",
        shape: [options.tokens.len(), n_vocab],
    };
    terminal.print(&written, || {
        format!(
            "{}: f32 [{}, {n_vocab}]\n",
            written.path,
            options.tokens.len()
        )
    })
}
