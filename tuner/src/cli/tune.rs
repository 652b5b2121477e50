//! `bitnet-tune tune`: search the kernels for a model's shapes, write a profile.

use super::MEASURING;
use crate::host::Host;
use crate::search::Outcome;
use crate::shapes::Shapes;
use crate::tuning::{self, Task};
use anyhow::{Context as _, Result, bail};
use bitnet_cli::args::thread_count;
use bitnet_cli::cpu::features;
use bitnet_cli::signals::{self, STOP};
use bitnet_cli::terminal::Terminal;
use bitnet_codegen::{KernelSpec, Problem};
use bitnet_runtime::new_file::NewFile;
use bitnet_runtime::pool::Pool;
use bitnet_runtime::profile::{self, M_BUCKETS, MBucket, Profile};
use bitnet_runtime::setup::Setup;
use bitnet_runtime::synth::{SHAPES, Shape};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What to tune, and for how long.
#[derive(Args)]
pub struct Options {
    /// The model whose shapes to tune: GGUF file or Hugging Face folder (the demo model, unless given).
    #[arg(short, long)]
    model: Option<PathBuf>,
    /// A published model's shapes, without its file.
    #[arg(long, conflicts_with = "model", value_parser = clap::builder::PossibleValuesParser::new(SHAPES.iter().map(|s| s.name)))]
    shapes: Option<String>,
    /// The profile to write (the user's own, unless given).
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// Seconds for everything: measuring the machine, planning, verifying and timing.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    budget: u64,
    /// Threads (all, unless given).
    #[arg(short, long, value_parser = thread_count)]
    threads: Option<usize>,
    /// Only these token counts (their ranges), for instance 1,128.
    #[arg(long, value_delimiter = ',', value_parser = super::dimension)]
    m: Vec<usize>,
    /// Keep what the profile already holds for this machine and tune the rest.
    #[arg(long)]
    resume: bool,
}

/// The document of `tune --json`.
#[derive(Serialize)]
struct Report {
    path: String,
    entries: usize,
    complete: bool,
}

/// Where the profile goes: as asked, else the user's own place, whose folder is made.
///
/// # Errors
/// When the system names no place for it, or its folder cannot be made.
pub fn out_path(asked: Option<&PathBuf>) -> Result<PathBuf> {
    if let Some(path) = asked {
        return Ok(path.clone());
    }
    let path = profile::user_path().context(
        "no place for a profile: neither XDG_CONFIG_HOME nor HOME is set; name a file with -o",
    )?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot write profile {}", path.display()))?;
    }
    Ok(path)
}

/// Tunes.
///
/// # Errors
/// When the model cannot be opened or the profile cannot be written.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    let (began, budget) = (Instant::now(), Duration::from_secs(options.budget));
    let shapes = match &options.shapes {
        Some(name) => Shapes::of_shape(Shape::find(name)?),
        None => {
            let setup = Setup {
                model: options.model.clone(),
                ..Setup::default()
            };
            Shapes::of_model(&setup.open_model()?)?
        }
    };
    let sizes = shapes.sizes()?;
    let path = out_path(options.out.as_ref())?;
    // Better now than after minutes of measuring.
    check_writable(&path)?;
    let host = Host::probe(features(terminal));
    let threads = options.threads.unwrap_or(host.threads);
    let mut buckets: Vec<usize> = options.m.iter().map(|&m| MBucket::of(m).index()).collect();
    if buckets.is_empty() {
        buckets = (0..M_BUCKETS.len()).collect();
    }
    // Decoding and long prompts matter most: they come first, should time run out.
    buckets.sort_unstable_by_key(|&b| (b != 0, std::cmp::Reverse(b)));
    buckets.dedup();
    let done = if options.resume {
        resumable(&path, &host)?.entries
    } else {
        Vec::new()
    };
    terminal.note(&format!("measuring {}", host.cpu));
    let mut counts = vec![1, threads, host.threads];
    counts.sort_unstable();
    counts.dedup();
    let measured = host.measure(&counts, MEASURING.min(budget / 5))?;
    let task = Task {
        cold: shapes.weights / 4 > host.last_level_bytes() / 2,
        shapes: sizes,
        buckets,
        threads,
        // Whatever was done so far, the budget has paid for it.
        budget: budget.saturating_sub(began.elapsed()),
    };
    let pool = Pool::new(threads)?;
    let _watch = signals::watch();
    let mut progress = |problem: Problem, outcome: &Outcome<KernelSpec>, left: usize| {
        terminal.note(&line(problem, outcome, left));
    };
    let made = tuning::tune(&host, &measured, &task, &pool, &STOP, done, &mut progress);
    let wanted = task.shapes.len() * task.buckets.len();
    let complete = made.entries.len() >= wanted;
    if !complete {
        // Whatever stands in the way of the rest: if it is a signal, the exit status says so.
        signals::asked();
    }
    if made.entries.is_empty() {
        bail!("stopped before the first search ended; nothing was written");
    }
    profile::save(&made, &path)?;
    if !complete {
        terminal.note("stopped early: `bitnet-tune tune --resume` goes on from here");
    }
    let report = Report {
        path: path.display().to_string(),
        entries: made.entries.len(),
        complete,
    };
    terminal.print(&report, || {
        format!("{} ({} kernels)\n", report.path, report.entries)
    })
}

/// One line about a finished search.
pub fn line(problem: Problem, outcome: &Outcome<KernelSpec>, left: usize) -> String {
    let head = format!("{:>4} x {:>6} x {:>6}", problem.m, problem.n, problem.k);
    match outcome
        .winner()
        .and_then(|w| Some((&w.candidate, w.summary?)))
    {
        Some((spec, s)) => format!(
            "{head}  {:>9.1} us  {:>7.1} GMAC/s  {spec}  ({} candidates, {left} searches left)",
            s.median_ns / 1e3,
            problem.macs() as f64 / s.median_ns,
            outcome.trials.len(),
        ),
        None => format!("{head}  no kernel was measured ({left} searches left)"),
    }
}

/// Whether a profile can be written to `path`, as far as can be told before it is.
///
/// # Errors
/// Why not.
pub fn check_writable(path: &std::path::Path) -> Result<()> {
    NewFile::create(path)
        .map(drop)
        .with_context(|| format!("cannot write profile {}", path.display()))
}

/// The profile to go on from: only one that was measured here by this build.
fn resumable(path: &std::path::Path, host: &Host) -> Result<Profile> {
    if !path.exists() {
        return Ok(Profile::default());
    }
    let found = super::explain::read(path)?;
    match found.state(&host.cpu, host.features) {
        (profile::State::Exact, _) => Ok(found),
        (state, why) => bail!(
            "{} cannot be resumed, it is {}: {why}; leave --resume out to tune anew",
            path.display(),
            state.name()
        ),
    }
}
