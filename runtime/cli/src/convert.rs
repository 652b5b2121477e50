//! `bitnet-run convert`: Hugging Face or GGUF in, I2_S GGUF out.

use crate::args::ReadArgs;
use crate::terminal::Terminal;
use anyhow::Result;
use bitnet_runtime::convert;
use bitnet_runtime::format;
use bitnet_runtime::inspect::human_bytes;
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What to convert.
#[derive(Args)]
pub struct Options {
    /// GGUF file or Hugging Face folder.
    input: PathBuf,
    #[command(flatten)]
    read: ReadArgs,
    /// The file to write.
    #[arg(short, long)]
    out: PathBuf,
}

/// What was written.
#[derive(Serialize)]
struct Written {
    path: String,
    bytes: u64,
    notes: Vec<String>,
}

/// Writes a model as I2_S. Nothing is kept of one that a signal cuts short, so nothing looks for one.
///
/// # Errors
/// When the source cannot be read or held in I2_S, or the file cannot be written; nothing is left of it then.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    let model = format::open(&options.input, &options.read.options()?)?;
    let bar = terminal.progress_bytes(0);
    let done = convert::to_i2s(&model, &options.out, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        true
    })?;
    bar.finish_and_clear();
    for note in &done.notes {
        terminal.note(&format!("note: {note}"));
    }
    written(terminal, &options.out, done.notes)
}

/// Says which model file was written.
///
/// # Errors
/// When it is gone, or the output cannot be written.
pub fn written(terminal: &Terminal, path: &Path, notes: Vec<String>) -> Result<()> {
    let bytes = std::fs::metadata(path)?.len();
    let report = Written {
        path: path.display().to_string(),
        bytes,
        notes,
    };
    terminal.print(&report, || {
        format!("{} ({})\n", report.path, human_bytes(bytes))
    })
}
