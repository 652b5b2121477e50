//! `bitnet-run perplexity`: how well a model predicts a text.

use super::terminal::Terminal;
use super::{ModelArgs, RunArgs, STOP};
use anyhow::{Result, bail};
use bitnet_runtime::perplexity::{PerplexityParams, perplexity};
use bitnet_runtime::tokenizer::{Specials, utf8_file};
use clap::Args;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

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

/// Measures.
///
/// # Errors
/// When the text is too short, or the model cannot be loaded.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    let text = utf8_file(&options.file)?;
    let mut run = options.run.clone();
    let n_ctx = run.ctx.unwrap_or(512);
    // Too few is for the measurement to refuse, with its own reason.
    run.ctx = Some(n_ctx.max(4));
    let setup = options.model.setup_to_run(&run)?;
    let model = setup.open_model()?;
    let tokenizer = setup.tokenizer(&model)?;
    let mut tokens = tokenizer.encode(&text, Specials::Parse)?;
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
    if bos.is_some() {
        tokenizer.put_bos_first(&mut tokens);
    }
    let mut ready = setup.ready(model)?;
    if run.kernel.is_none() {
        terminal.tell(&ready);
    }
    let params = PerplexityParams {
        n_ctx,
        chunks: options.chunks,
        bos,
    };
    let result = perplexity(&mut ready.engine, &tokens, params, &mut |so_far, total| {
        terminal.note(&format!(
            "[{}/{total}] {:.4}",
            so_far.n_chunks, so_far.perplexity
        ));
        !STOP.load(Ordering::Relaxed)
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
