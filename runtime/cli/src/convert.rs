//! `bitnet-run convert`: Hugging Face or GGUF in, GGUF out: I2_S, or blocks where groups of columns have scales.

use crate::args::ReadArgs;
use crate::terminal::Terminal;
use anyhow::Result;
use bitnet_runtime::convert::{self, GroupType};
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
    /// How to store matrices with a scale for each 128 columns: pq2_0 (2.125 bits a weight) or ptq1_0 (1.75).
    #[arg(long, value_name = "TYPE", default_value = "pq2_0", value_parser = group_type)]
    group_type: GroupType,
    /// The file to write.
    #[arg(short, long)]
    out: PathBuf,
}

fn group_type(text: &str) -> Result<GroupType, String> {
    match text {
        "pq2_0" => Ok(GroupType::PQ2_0),
        "ptq1_0" => Ok(GroupType::PTQ1_0),
        other => Err(format!("unknown type {other:?}: expected pq2_0 or ptq1_0")),
    }
}

/// What was written.
#[derive(Serialize)]
struct Written {
    path: String,
    bytes: u64,
    notes: Vec<String>,
}

/// Writes a model as GGUF. Nothing is kept of one that a signal cuts short, so nothing looks for one.
///
/// # Errors
/// When the source cannot be read or no type holds it, or the file cannot be written; nothing is left of it then.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    let model = format::open(&options.input, &options.read.options()?)?;
    let bar = terminal.progress_bytes(0);
    let done = convert::to_gguf(
        &model,
        &options.out,
        options.group_type,
        &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
            true
        },
    )?;
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
