//! `bitnet-run synth` and `convert`: the subcommands that write models.

use super::terminal::Terminal;
use super::{ReadArgs, STOP, positive};
use anyhow::Result;
use bitnet_runtime::convert;
use bitnet_runtime::format;
use bitnet_runtime::inspect::human_bytes;
use bitnet_runtime::synth::{self, SHAPES, Shape};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// What to make up.
#[derive(Args)]
pub struct Options {
    /// The model whose shape to take.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(SHAPES.iter().map(|s| s.name)))]
    shape: String,
    /// Seed of the weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only the first layers of it.
    #[arg(long, value_parser = positive)]
    layers: Option<usize>,
    /// The file to write.
    #[arg(short, long)]
    out: PathBuf,
}

/// What to convert.
#[derive(Args)]
pub struct ConvertOptions {
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

/// Writes a synthetic model.
///
/// # Errors
/// When the file cannot be written; nothing is left of it then.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    let shape = Shape::find(&options.shape)?;
    let bar = terminal.progress_bytes(0);
    synth::write(
        &options.out,
        shape,
        options.seed,
        options.layers,
        &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
            !STOP.load(Ordering::Relaxed)
        },
    )?;
    bar.finish_and_clear();
    written(terminal, &options.out, Vec::new())
}

/// Writes a model as I2_S.
///
/// # Errors
/// When the source cannot be read or held in I2_S, or the file cannot be written; nothing is left of it then.
pub fn convert(terminal: &Terminal, options: &ConvertOptions) -> Result<()> {
    let model = format::open(&options.input, &options.read.options()?)?;
    let bar = terminal.progress_bytes(0);
    let done = convert::to_i2s(&model, &options.out, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        !STOP.load(Ordering::Relaxed)
    })?;
    bar.finish_and_clear();
    for note in &done.notes {
        terminal.note(&format!("note: {note}"));
    }
    written(terminal, &options.out, done.notes)
}

fn written(terminal: &Terminal, path: &Path, notes: Vec<String>) -> Result<()> {
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
