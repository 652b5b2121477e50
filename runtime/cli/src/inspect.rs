//! `bitnet-run inspect`: what a model file holds.

use crate::args::ModelArgs;
use crate::terminal::Terminal;
use anyhow::Result;
use bitnet_runtime::inspect;
use clap::Args;

/// What to inspect.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    model: ModelArgs,
}

/// Prints what a file holds; what its reader assumed is part of that.
///
/// # Errors
/// When the file is not a model.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    let model = options.model.setup()?.open_model()?;
    let inspection = inspect::inspect(&model);
    terminal.print(&inspection, || inspection.to_string())
}
