//! `bitnet-run perplexity`: how well a model predicts a text.

use crate::args::{ModelArgs, RunArgs};
use crate::load::Loader;
use crate::signals;
use crate::terminal::Terminal;
use anyhow::{Result, bail};
use bitnet_runtime::perplexity::{PerplexityParams, perplexity};
use bitnet_runtime::tokenizer::{Specials, utf8_file};
use clap::Args;
use std::path::PathBuf;

/// What to measure.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    run: RunArgs,
    /// The text.
    #[arg(short, long)]
    file: PathBuf,
    /// At most this many chunks of --ctx tokens (512 unless given).
    #[arg(long)]
    chunks: Option<usize>,
}

/// Half of a chunk is scored, and a score needs something before it.
const MIN_CONTEXT: usize = 4;

/// Measures.
///
/// # Errors
/// When the text is too short, or the model cannot be loaded.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    let mut run = options.run.clone();
    let n_ctx = run.ctx.unwrap_or(512);
    if n_ctx < MIN_CONTEXT {
        bail!("--ctx {n_ctx}: a chunk to measure has at least {MIN_CONTEXT} tokens; 512 is usual");
    }
    run.ctx = Some(n_ctx);
    let text = utf8_file(&options.file)?;
    let loader = Loader::new(terminal, &options.model, &run)?;
    let model = loader.open()?;
    let tokenizer = loader.tokenizer(&model)?;
    let mut tokens = tokenizer.encode(&text, Specials::Parse)?;
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
    if bos.is_some() {
        tokenizer.put_bos_first(&mut tokens);
    }
    let mut ready = loader.ready(model)?;
    let params = PerplexityParams {
        n_ctx,
        chunks: options.chunks,
        bos,
    };
    let _watch = signals::watch();
    let result = perplexity(&mut ready.engine, &tokens, params, &mut |so_far, total| {
        terminal.note(&format!(
            "[{}/{total}] {:.4}",
            so_far.n_chunks, so_far.perplexity
        ));
        so_far.n_chunks == total || !signals::asked()
    })?;
    if result.n_chunks == 0 {
        bail!("stopped before the first chunk was measured");
    }
    terminal.print(&result, || {
        format!(
            "perplexity {:.4} ± {:.4} ({} chunks of {} tokens, {} scored)\n",
            result.perplexity,
            result.standard_error,
            result.n_chunks,
            result.n_ctx,
            result.n_scored
        )
    })
}
