//! `bitnet-run synth`: a model of random weights with a real model's shape.

use crate::args::positive;
use crate::convert::written;
use crate::terminal::Terminal;
use anyhow::Result;
use bitnet_runtime::format::float::FloatType;
use bitnet_runtime::synth::{self, SHAPES, Shape, TableOptions};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

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
    /// How embedding and head are stored.
    #[arg(long, value_enum, default_value_t = Table::F16)]
    table: Table,
    /// Logits that stand out as a trained model's do, instead of flat ones, the worst case for --head i4.
    #[arg(long)]
    peaked: bool,
    /// The file to write.
    #[arg(short, long)]
    out: PathBuf,
}

/// Types of embedding and head.
#[derive(Clone, Copy, ValueEnum)]
enum Table {
    F16,
    /// Rows must be a multiple of 256 wide.
    #[value(name = "q6_k")]
    Q6K,
}

impl Table {
    fn dtype(self) -> FloatType {
        match self {
            Self::F16 => FloatType::F16,
            Self::Q6K => FloatType::Q6K,
        }
    }
}

/// Writes a synthetic model. Nothing is kept of one that a signal cuts short, so nothing looks for one.
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
        TableOptions {
            dtype: options.table.dtype(),
            peaked: options.peaked,
        },
        &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
            true
        },
    )?;
    bar.finish_and_clear();
    written(terminal, &options.out, Vec::new())
}
