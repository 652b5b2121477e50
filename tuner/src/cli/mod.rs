//! The command line of `bitnet-tune`: one file per subcommand, each a thin skin over the library.

mod agreement;
mod check;
mod compile;
mod demo;
mod emit;
mod estimate;
mod explain;
mod host;
mod kernel;
mod list;
mod progress;
mod record;
mod show;
mod tune;
mod whole;

use crate::host::Host;
use anyhow::{Result, bail};
use bitnet_cli::args::thread_count;
use bitnet_cli::signals;
use bitnet_cli::terminal::{Terminal, exit_code};
use bitnet_codegen::layout::scales::{GroupScales, Stored};
use bitnet_codegen::variant::groups::{GROUP_STEP, MAX_K, MAX_PLANES};
use bitnet_codegen::{Groups, Problem};
use bitnet_runtime::graph::Acts;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
#[command(
    name = "bitnet-tune",
    version,
    about = "Finds the fastest exact ternary kernels of this machine",
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
    /// The whole story in about a minute: probe, tune, save the profile, generate text, compare.
    #[command(after_help = "Example: bitnet-tune demo")]
    Demo(demo::Options),
    /// What this machine is, and what it was measured to do.
    #[command(after_help = "Example: bitnet-tune host --json")]
    Host {
        /// Measure with this many threads only (1 and all, unless given).
        #[arg(short, long, value_parser = thread_count)]
        threads: Option<usize>,
    },
    /// Every kernel that this machine can run for a problem, and why others cannot.
    #[command(after_help = "Example: bitnet-tune list --n 6912 --k 2560 --m 1")]
    List(list::Options),
    /// Verify one kernel against the oracle, then time it (on cold weights unless --hot).
    #[command(after_help = "Example: bitnet-tune kernel --m 1 --n 2560 --k 2560")]
    Kernel(kernel::Options),
    /// One kernel as text: its program, what is proven of it, and its machine code with bytes.
    #[command(after_help = "Example: bitnet-tune emit i2s-i2s-1x16c16-avx2-f0-u1 --k 64")]
    Emit(emit::Options),
    /// Search the kernels for a model's shapes and write a profile.
    #[command(after_help = "Example: bitnet-tune tune --budget 20 -o profile.toml")]
    Tune(tune::Options),
    /// Kernels ahead of time: a pack of code for `bitnet-run --pack`, where none may or can be emitted.
    #[command(
        after_help = "Example: bitnet-tune compile -o demo.pack && bitnet-run generate -p Once --pack demo.pack"
    )]
    Compile(compile::Options),
    /// What a profile, or a pack of kernels, holds.
    #[command(
        after_help = "Example: bitnet-tune tune --budget 10 -o p.toml && bitnet-tune show p.toml --html p.html"
    )]
    Show(show::Options),
    /// Why each winner won, by how much, against what.
    #[command(
        after_help = "Example: bitnet-tune tune --budget 10 -o p.toml && bitnet-tune explain p.toml"
    )]
    Explain(explain::Options),
    /// Whether a profile is exact, compatible, stale or foreign for this machine, and why.
    #[command(
        after_help = "Example: bitnet-tune tune --budget 10 -o p.toml && bitnet-tune check p.toml"
    )]
    Check {
        /// The profile.
        file: PathBuf,
    },
    /// Run every kernel of a profile against the oracle here.
    #[command(
        after_help = "Example: bitnet-tune tune --budget 10 -o p.toml && bitnet-tune verify p.toml"
    )]
    Verify {
        /// The profile.
        file: PathBuf,
        /// Run the kernels' programs by the interpreter, for a profile of any machine.
        #[arg(long)]
        interpret: bool,
    },
}

/// A product on the command line.
#[derive(Args, Clone, Copy)]
pub struct Shape {
    /// Tokens.
    #[arg(long, default_value_t = 1, value_parser = dimension)]
    m: usize,
    /// Output features.
    #[arg(long, default_value_t = 2560, value_parser = dimension)]
    n: usize,
    /// Input features.
    #[arg(long, default_value_t = 2560, value_parser = dimension)]
    k: usize,
    /// Columns that share a scale, where kernels apply such scales: 32 to 256 in steps of 32.
    #[arg(long)]
    group: Option<usize>,
    /// How fine the inputs of such a product are: i8 or i16 (i16, unless given).
    #[arg(long, requires = "group", value_parser = acts)]
    acts: Option<Acts>,
    /// How each of these scales is stored: f16 or f32 (f16, unless given).
    #[arg(long, requires = "group", value_parser = stored)]
    scales: Option<Stored>,
}

fn stored(text: &str) -> Result<Stored, String> {
    match text {
        "f16" => Ok(Stored::F16),
        "f32" => Ok(Stored::F32),
        _ => Err("expected f16 or f32".into()),
    }
}

fn acts(text: &str) -> Result<Acts, String> {
    let fits = Acts::of(text).filter(|a| a.planes() <= MAX_PLANES);
    fits.ok_or_else(|| "expected i8 or i16".into())
}

impl Shape {
    /// The groups of the product.
    ///
    /// # Errors
    /// When kernels have none of that size.
    fn groups(self) -> Result<Option<Groups>> {
        let Some(k) = self.group else {
            return Ok(None);
        };
        if !k.is_multiple_of(GROUP_STEP) || !(GROUP_STEP..=MAX_K).contains(&k) {
            bail!(
                "groups of {k} columns: kernels have {GROUP_STEP} to {MAX_K} in steps of {GROUP_STEP}"
            );
        }
        let stored = self.scales.unwrap_or(Stored::F16);
        Ok(Some(Groups {
            scales: GroupScales { k, stored },
            planes: self.acts.unwrap_or(Acts::I16).planes(),
        }))
    }

    fn problem(self) -> Result<Problem> {
        let problem = Problem::new(self.m, self.n, self.k);
        let most = 1u64 << 32;
        if (self.n as u64 * self.k as u64).max(self.m as u64 * (self.n + self.k) as u64) > most {
            bail!(
                "a problem of {problem} (M x N x K) is larger than this tool measures: at most {most} weights"
            );
        }
        Ok(problem)
    }
}

fn dimension(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(n) if (1..=1 << 24).contains(&n) => Ok(n),
        _ => Err("expected a number from 1 to 16777216".into()),
    }
}

/// How long the machine's peaks may be measured where nobody sets a budget; they are known sooner on most.
const MEASURING: Duration = Duration::from_secs(15);

/// One thread and all threads, or the one count that was asked for.
fn thread_counts(host: &Host, asked: Option<usize>) -> Vec<usize> {
    match asked {
        Some(n) => vec![n],
        None if host.threads > 1 => vec![1, host.threads],
        None => vec![1],
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let terminal = Terminal::new(cli.json);
    signals::install();
    let result = match cli.command {
        Command::Demo(options) => demo::run(&terminal, &options),
        Command::Host { threads } => host::run(&terminal, threads),
        Command::List(options) => list::run(&terminal, &options),
        Command::Kernel(options) => kernel::run(&terminal, &options),
        Command::Emit(options) => emit::run(&terminal, &options),
        Command::Tune(options) => tune::run(&terminal, &options),
        Command::Compile(options) => compile::run(&terminal, &options),
        Command::Show(options) => show::run(&terminal, &options),
        Command::Explain(options) => explain::run(&terminal, &options),
        Command::Check { file } => check::run(&terminal, &file),
        Command::Verify { file, interpret } => check::verify(&terminal, &file, interpret),
    };
    exit_code(result)
}
