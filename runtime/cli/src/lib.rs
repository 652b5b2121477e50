//! The command line of `bitnet-run`, one file per subcommand, each a thin skin over the library; and what both
//! binaries need of a terminal: [`args`], [`cpu`], [`signals`], [`terminal`].

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod args;
mod bench;
mod chat;
mod convert;
pub mod cpu;
mod embed;
mod generate;
mod inspect;
mod lines;
mod load;
mod logits;
mod npy;
mod pack;
mod perplexity;
pub mod signals;
mod synth;
pub mod terminal;
mod tokenize;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use terminal::Terminal;

#[derive(Parser)]
#[command(
    name = "bitnet-run",
    version,
    about = "Loads a ternary model and generates text with tuned kernels",
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON document to standard output.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Continue a text; streams it.
    #[command(after_help = "Example: bitnet-run generate -p \"Once upon a time\" -n 120 --temp 0")]
    Generate(generate::Options),
    /// A conversation in the model's own template. /reset starts anew, /quit ends, Ctrl-C stops an answer.
    #[command(after_help = "Example: bitnet-run chat --temp 0")]
    Chat(chat::Options),
    /// Prefill (pp) and decode (tg) speed, with the bytes read and the fraction of the roofline.
    #[command(after_help = "Example: bitnet-run bench -p 128 -n 32 -t 1,2 -r 3 -o md")]
    Bench(bench::Options),
    /// Perplexity of a text file, by llama-perplexity's convention.
    #[command(
        after_help = "Example: bitnet-run perplexity -f runtime/assets/demo/heldout.txt --ctx 512"
    )]
    Perplexity(perplexity::Options),
    /// The logits after every token, as a NumPy file of f32 [T, vocabulary].
    #[command(after_help = "Example: bitnet-run logits --tokens 1,2,3 -o logits.npy")]
    Logits(logits::Options),
    /// What an embedding model makes of texts: a vector of length 1 for each.
    #[command(after_help = "Example: bitnet-run embed -p \"Once upon a time\" --json")]
    Embed(embed::Options),
    /// The ids of a text.
    #[command(after_help = "Example: bitnet-run tokenize -p \"Once upon a time\"")]
    Tokenize(tokenize::Options),
    /// What a model file holds, and what each byte is for.
    #[command(after_help = "Example: bitnet-run inspect")]
    Inspect(inspect::Options),
    /// Write a random-weight model with a real model's shape.
    #[command(after_help = "Example: bitnet-run synth --shape large --layers 1 -o m.gguf")]
    Synth(synth::Options),
    /// Hugging Face or GGUF in, GGUF out: I2_S (128), or blocks with group scales; the logits stay the same bits.
    #[command(after_help = "Example: bitnet-run convert tests/data/tiny/tiny_b158_hf -o tiny.gguf")]
    Convert(convert::Options),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let terminal = Terminal::new(cli.json);
    signals::install();
    let result = match cli.command {
        Command::Generate(options) => generate::run(&terminal, &options),
        Command::Chat(options) => chat::run(&terminal, &options),
        Command::Bench(options) => bench::run(&terminal, &options),
        Command::Perplexity(options) => perplexity::run(&terminal, &options),
        Command::Logits(options) => logits::run(&terminal, &options),
        Command::Embed(options) => embed::run(&terminal, &options),
        Command::Tokenize(options) => tokenize::run(&terminal, options),
        Command::Inspect(options) => inspect::run(&terminal, &options),
        Command::Synth(options) => synth::run(&terminal, &options),
        Command::Convert(options) => convert::run(&terminal, &options),
    };
    terminal::exit_code(result)
}
