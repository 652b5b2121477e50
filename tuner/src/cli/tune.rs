//! `bitnet-tune tune`: search the kernels for a model's shapes, write a profile.

use super::progress::Progress;
use super::{MEASURING, agreement, estimate, record};
use crate::deadline::Deadline;
use crate::host::{Host, Measured};
use crate::lab::Lab;
use crate::shapes::Shapes;
use crate::tuning::{self, Task, Tuned};
use anyhow::{Context as _, Result, bail};
use bitnet_cli::args::thread_count;
use bitnet_cli::cpu::features;
use bitnet_cli::signals::{self, STOP};
use bitnet_cli::terminal::Terminal;
use bitnet_codegen::plan;
use bitnet_runtime::format::Model;
use bitnet_runtime::graph::Product;
use bitnet_runtime::new_file::NewFile;
use bitnet_runtime::profile::{self, Entry, M_BUCKETS, MBucket, Profile};
use bitnet_runtime::setup::Setup;
use bitnet_runtime::synth::{SHAPES, Shape};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};
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
    /// Seconds for everything: measuring the machine and all searches.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    budget: u64,
    /// Numbers of threads, for instance 1,2 (all, unless given).
    #[arg(short, long, value_delimiter = ',', value_parser = thread_count)]
    threads: Vec<usize>,
    /// Only these token counts (their ranges), for instance 1,128.
    #[arg(long, value_delimiter = ',', value_parser = super::dimension)]
    m: Vec<usize>,
    /// Only these products, for instance 2560x6912 (N x K), or 4096x2048-g128 where groups of columns have scales.
    #[arg(long, value_delimiter = ',', value_parser = named)]
    product: Vec<Named>,
    /// Keep what the profile already holds for this machine and tune the rest.
    #[arg(long)]
    resume: bool,
    /// Tune again and print how far the result agrees with the profile; nothing is written.
    #[arg(long, conflicts_with = "resume")]
    check: bool,
    /// Time every candidate of one product (name it by --product, --m and -t) and keep all timings in this file.
    #[arg(long, conflicts_with_all = ["resume", "check", "out"])]
    record: Option<PathBuf>,
    /// Measure nothing: what the cost model expects most of on the machine that this file describes.
    #[arg(long = "for", value_name = "MACHINE.TOML", requires = "out", conflicts_with_all = ["resume", "check", "record"])]
    for_machine: Option<PathBuf>,
}

/// A product as it is printed; without groups it stands for any.
#[derive(Clone, Copy)]
struct Named {
    n: usize,
    k: usize,
    group: Option<usize>,
}

impl Named {
    fn is(self, product: &Product) -> bool {
        let group = product.groups.map(|g| g.scales.k);
        let groups = self.group.is_none() || self.group == group;
        (product.n, product.k) == (self.n, self.k) && groups
    }
}

/// `2560x6912`, `4096x2048-g128`.
fn named(text: &str) -> Result<Named, String> {
    let (size, group) = match text.split_once("-g") {
        Some((size, group)) => (size, Some(super::dimension(group)?)),
        None => (text, None),
    };
    let (n, k) = size
        .split_once('x')
        .ok_or("expected NxK, for instance 2560x6912")?;
    let (n, k) = (super::dimension(n)?, super::dimension(k)?);
    Ok(Named { n, k, group })
}

/// The document of `tune --json`.
#[derive(Serialize)]
struct Report {
    path: String,
    entries: usize,
    complete: bool,
    took_s: f64,
    thin: usize,
    tied: usize,
    suspects: Vec<String>,
    notes: Vec<String>,
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

/// The share of the budget that the whole token may take, and the most.
const WHOLE: f64 = 0.2;
const WHOLE_MOST: Duration = Duration::from_secs(20);

/// Budgets below this are too short to build a large model's products several times over.
const WHOLE_FROM: Duration = Duration::from_secs(20);

/// The share of the budget that is used: putting everything together and writing it takes time as well.
const USED: f64 = 0.98;

/// Tunes.
///
/// # Errors
/// When the model cannot be opened or the profile cannot be written.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    let start = Instant::now();
    let budget = Duration::from_secs(options.budget);
    let deadline = Deadline::new(&start, budget.mul_f64(USED));
    let host = Host::probe(features(terminal));
    let (task, model, weights) = task(options, &host)?;
    if let Some(file) = &options.for_machine {
        let out = out_path(options.out.as_ref())?;
        check_writable(&out)?;
        let threads = &options.threads;
        return estimate::run(terminal, (file, &out), task, weights, threads);
    }
    if let Some(file) = &options.record {
        return record::run(terminal, file, &host, &task);
    }
    let path = out_path(options.out.as_ref())?;
    let old = if options.check || options.resume {
        known(&path, &host)?
    } else {
        Profile::default()
    };
    if !options.check {
        // Better now than after minutes of measuring.
        check_writable(&path)?;
    }
    terminal.note(&format!("measuring {}", host.machine.kind()));
    let measured = host.measure(&counts(&task.threads, &host), MEASURING.min(budget / 8))?;
    // What stands on thin evidence is searched again, and kept only if that finds nothing in time.
    let before = if options.resume {
        &old.entries[..]
    } else {
        &[]
    };
    let (thin, done): (Vec<Entry>, Vec<Entry>) =
        before.iter().cloned().partition(|e| e.evidence.is_thin());
    // The whole token needs some of the time, too.
    let is_small = model.is_some() && weights <= super::whole::LOADED_WEIGHTS;
    let for_whole = match options.check || (budget < WHOLE_FROM && !is_small) {
        true => Duration::ZERO,
        false => budget.mul_f64(WHOLE).min(WHOLE_MOST),
    };
    let whole = super::whole::WholeToken {
        model,
        weights,
        products: task.products.clone(),
        threads: task.threads.clone(),
    };
    let task = Task {
        done,
        seeds: if options.check {
            Vec::new()
        } else {
            previous(&path)
        },
        budget: deadline.before(for_whole).left(),
        ..task
    };
    let (wanted, kept) = (task.wanted(), task.done.len());
    let _watch = signals::watch();
    let mut made = search(terminal, &host, &measured, task)?;
    keep(thin, &mut made.profile.entries);
    made.profile.conditions.budget_s = budget.as_secs_f64();
    // Every search may have an answer by then, if a thin one.
    let stopped = signals::asked();
    if !options.check && !made.profile.entries.is_empty() && !stopped {
        whole.judge(terminal, (&host, &measured), &mut made, deadline);
    }
    for line in &made.profile.conditions.notes {
        terminal.note(&format!("note: {line}"));
    }
    if options.check {
        return agreement::print(terminal, &old.entries, &made.profile.entries);
    }
    write(terminal, &made, &path, (wanted.max(kept), stopped), start)
}

/// Writes the profile and tells of it: `wanted` entries were to be had, and whether the user `stopped` before.
fn write(
    terminal: &Terminal,
    made: &Tuned,
    path: &Path,
    (wanted, stopped): (usize, bool),
    start: Instant,
) -> Result<()> {
    if made.profile.entries.len() < wanted {
        // Whatever stands in the way of the rest: if it is a signal, the exit status says so.
        signals::asked();
    }
    if made.profile.entries.is_empty() {
        let why = if signals::asked() {
            "stopped"
        } else {
            "the budget was spent"
        };
        bail!("{why} before the first kernel was timed; nothing was written");
    }
    profile::save(&made.profile, path)?;
    let entries = &made.profile.entries;
    let report = Report {
        path: path.display().to_string(),
        entries: entries.len(),
        complete: entries.len() >= wanted && !stopped,
        took_s: start.elapsed().as_secs_f64(),
        thin: entries.iter().filter(|e| e.evidence.is_thin()).count(),
        tied: entries
            .iter()
            .filter(|e| !e.evidence.tied.is_empty())
            .count(),
        suspects: made.suspects.clone(),
        notes: made.profile.conditions.notes.clone(),
    };
    if !report.complete {
        terminal.note("stopped early: `bitnet-tune tune --resume` goes on from here");
    }
    terminal.print(&report, || {
        let mut text = format!(
            "{} ({} kernels in {:.0} s",
            report.path, report.entries, report.took_s
        );
        if report.thin > 0 {
            text += &format!(
                ", {} on thin evidence: a larger --budget tells more",
                report.thin
            );
        }
        text + ")\n"
    })
}

/// Puts back what has no successor among `entries`.
fn keep(old: Vec<Entry>, entries: &mut Vec<Entry>) {
    for entry in old {
        if !entries.iter().any(|e| e.question() == entry.question()) {
            entries.push(entry);
        }
    }
}

/// What the options ask for, the model if there is one, and how many ternary weights it has; the budget is filled in
/// later.
fn task(options: &Options, host: &Host) -> Result<(Task, Option<Model>, usize)> {
    let (shapes, model) = match &options.shapes {
        Some(name) => (Shapes::of_shape(Shape::find(name)?), None),
        None => {
            let setup = Setup {
                model: options.model.clone(),
                ..Setup::default()
            };
            let model = setup.open_model()?;
            (Shapes::of_model(&model)?, Some(model))
        }
    };
    let weights = shapes.weights;
    let mut products = shapes.distinct;
    if products.is_empty() {
        bail!("the model has no ternary products: all its projections are kept in float");
    }
    if !options.product.is_empty() {
        products.retain(|p| options.product.iter().any(|named| named.is(p)));
        if products.is_empty() {
            bail!(
                "the model has none of these products; `bitnet-tune tune --help` shows how they are written"
            );
        }
    }
    let mut threads = options.threads.clone();
    if threads.is_empty() {
        threads.push(host.threads);
    }
    threads.sort_unstable();
    threads.dedup();
    let mut buckets: Vec<usize> = options.m.iter().map(|&m| MBucket::of(m).index()).collect();
    if buckets.is_empty() {
        buckets = (0..M_BUCKETS.len()).collect();
    }
    buckets.sort_unstable();
    buckets.dedup();
    let task = Task {
        cold: weights / 4 > host.last_level_bytes() / 2,
        products,
        buckets,
        threads,
        budget: Duration::ZERO,
        done: Vec::new(),
        seeds: Vec::new(),
    };
    Ok((task, model, weights))
}

/// Thread counts whose peaks are measured: those asked for, one, and all.
pub fn counts(threads: &[usize], host: &Host) -> Vec<usize> {
    let mut counts = [&[1, host.threads], threads].concat();
    counts.sort_unstable();
    counts.dedup();
    counts
}

/// Plays all searches, telling what is found.
///
/// # Errors
/// When the threads cannot be had.
pub fn search(terminal: &Terminal, host: &Host, measured: &Measured, task: Task) -> Result<Tuned> {
    let mut lab = Lab::new(host.features, plan, host.threads, host.last_level_bytes());
    let progress = Progress::new(terminal, task.budget, task.wanted() - task.done.len());
    let made = tuning::tune(host, measured, task, &mut lab, &STOP, &mut |event| {
        progress.tell(&event)
    });
    progress.finish();
    Ok(made?)
}

/// Whether a profile can be written to `path`, as far as can be told before it is.
///
/// # Errors
/// Why not.
pub fn check_writable(path: &Path) -> Result<()> {
    NewFile::create(path)
        .map(drop)
        .with_context(|| format!("cannot write profile {}", path.display()))
}

/// The profile to go on from or to compare with: only one that was measured here by this build.
fn known(path: &Path, host: &Host) -> Result<Profile> {
    if !path.exists() {
        return Ok(Profile::default());
    }
    let found = super::explain::read(path)?;
    match found.state(&host.machine, host.features) {
        (profile::State::Exact, _) => Ok(found),
        (state, why) => bail!(
            "{} cannot be gone on from, it is {}: {why}; leave --resume and --check out to tune anew",
            path.display(),
            state.name()
        ),
    }
}

/// Winners of the profile that is about to be replaced, wherever they come from: worth a first look.
fn previous(path: &Path) -> Vec<Profile> {
    profile::read(path).into_iter().collect()
}
