//! `bitnet-tune kernel`: one kernel, verified, then timed.

use super::{MEASURING, Shape};
use crate::bound;
use crate::host::{Host, Measured};
use crate::lab::Lab;
use crate::sampler::Samples;
use crate::search::{Bench as _, Search};
use crate::space::learn::Learner;
use crate::space::model::{Case, Sketch, predict};
use crate::space::{Atlas, Candidate, Space};
use anyhow::{Context as _, Result, bail};
use bitnet_cli::args::{kernel_spec, thread_count};
use bitnet_cli::cpu::features;
use bitnet_cli::signals;
use bitnet_cli::terminal::Terminal;
use bitnet_codegen::{Groups, Isa, KernelSpec, plan};
use clap::Args;
use serde::Serialize;
use std::time::{Duration, Instant};

/// What to time.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    shape: Shape,
    /// The kernel; the best that a search of ten seconds finds, unless given.
    #[arg(long, value_parser = kernel_spec)]
    spec: Option<KernelSpec>,
    /// Only kernels whose name contains this text.
    #[arg(long, conflicts_with = "spec", allow_hyphen_values = true)]
    filter: Option<String>,
    /// Only kernels for these instruction sets, for instance avx2,avx128: as a lesser CPU would run.
    #[arg(long, conflicts_with = "spec", value_delimiter = ',', value_parser = isa)]
    isa: Vec<Isa>,
    /// Threads (all, unless given).
    #[arg(short, long, value_parser = thread_count)]
    threads: Option<usize>,
    /// Keep the weights in cache instead of streaming them from memory.
    #[arg(long)]
    hot: bool,
    /// Timings.
    #[arg(long, default_value_t = 31, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    samples: u32,
    /// Seconds for the search where no kernel is named.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    budget: u64,
}

/// The document of `kernel --json`.
#[derive(Serialize)]
pub struct Report {
    spec: String,
    m: usize,
    n: usize,
    k: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<usize>,
    threads: usize,
    verified: bool,
    cold: bool,
    median_ns: f64,
    mad_ns: f64,
    min_ns: f64,
    samples: usize,
    predicted_ns: f64,
    weight_bytes: usize,
    gb_per_s: f64,
    gmac_per_s: f64,
    roofline_fraction: f64,
    memory_bound: bool,
    read_gb_per_s: f64,
    peak_gmac_per_s: f64,
}

/// Verifies, times, prints.
///
/// # Errors
/// When the kernel does not exist here or differs from the oracle.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    let (problem, groups) = (options.shape.problem()?, groups(options)?);
    let host = Host::probe(features(terminal));
    let threads = options.threads.unwrap_or(host.threads);
    let measured = host.measure(&[threads], MEASURING)?;
    let peaks = measured
        .peaks(threads)
        .context("the peaks were just measured")?;
    let case = Case {
        problem,
        groups,
        threads,
        cold: !options.hot,
    };
    let space = space(&host, &measured, case, options)?;
    let _watch = signals::watch();
    let mut lab = Lab::new(host.features, plan, host.threads, host.last_level_bytes());
    let job = lab.open(&space)?;
    let id = match &options.spec {
        Some(_) => 0,
        None => find(&space, &mut lab, job, Duration::from_secs(options.budget))?,
    };
    let candidate = &space.candidates()[id];
    let mut bench = lab.bench(job);
    bench.prepare(id)?;
    let mut samples = Samples::default();
    for _ in 0..options.samples {
        samples.push(bench.time(id));
        if signals::asked() && samples.len() >= 3 {
            break;
        }
    }
    let s = samples.summary().context("samples were taken")?;
    let (spec, weight_bytes) = (&candidate.spec, candidate.weight_bytes);
    let floor = bound::floor(case.macs(), weight_bytes, case.cold, peaks);
    let report = Report {
        spec: spec.to_string(),
        m: problem.m,
        n: problem.n,
        k: problem.k,
        group: case.groups.map(|g| g.scales.k),
        threads,
        verified: true,
        cold: case.cold,
        median_ns: s.median_ns,
        mad_ns: s.mad_ns,
        min_ns: s.min_ns,
        samples: s.samples,
        predicted_ns: candidate.estimate.ns,
        weight_bytes,
        gb_per_s: weight_bytes as f64 / s.median_ns,
        gmac_per_s: case.macs() as f64 / s.median_ns,
        roofline_fraction: bound::fraction(floor, s.median_ns),
        memory_bound: floor.memory_bound,
        read_gb_per_s: peaks.read_gb_per_s,
        peak_gmac_per_s: peaks.dot_gmac_per_s,
    };
    terminal.print(&report, || text(&report))
}

/// The groups that the named kernel has, else those that the options ask for.
fn groups(options: &Options) -> Result<Option<Groups>> {
    let asked = options.shape.groups()?;
    let Some(spec) = &options.spec else {
        return Ok(asked);
    };
    let named = Groups::of(spec)?;
    if asked.is_some() && asked != named {
        bail!(
            "{spec} has other groups than --group, --acts and --scales ask for; its name alone says them"
        );
    }
    Ok(named)
}

/// The one kernel that was named, or all that the options leave.
fn space(host: &Host, measured: &Measured, case: Case, options: &Options) -> Result<Space> {
    let costs = host.costs(measured);
    if let Some(spec) = &options.spec {
        let sketch = Sketch::of(&plan(spec, case.problem.k)?);
        let candidate = Candidate {
            spec: spec.clone(),
            estimate: predict(spec, &sketch, &case, &costs),
            weight_bytes: sketch.weight_bytes(spec, case.problem.n),
        };
        return Ok(Space::of(case, vec![candidate]));
    }
    let features = host.features;
    let (filter, isas) = (
        options.filter.clone().unwrap_or_default(),
        options.isa.clone(),
    );
    let wanted = move |s: &KernelSpec| {
        let named = filter.is_empty() || s.to_string().contains(&filter);
        s.isa.runs_on(features) && named && (isas.is_empty() || isas.contains(&s.isa))
    };
    let space = Atlas::new(Box::new(wanted)).space(case, &costs);
    if space.candidates().is_empty() {
        let named = match &options.filter {
            None => String::new(),
            Some(f) => format!(" with {f:?} in its name"),
        };
        let isas: Vec<&str> = options.isa.iter().map(|isa| isa.name()).collect();
        let of = match isas.is_empty() {
            true => String::new(),
            false => format!(" for {}", isas.join(", ")),
        };
        bail!(
            "no kernel for {} (M x N x K){of} runs here{named}; `bitnet-tune list` prints them all",
            case.problem
        );
    }
    Ok(space)
}

/// The best that a search of `budget` finds.
fn find(space: &Space, lab: &mut Lab, job: usize, budget: Duration) -> Result<usize> {
    let start = Instant::now();
    let mut learner = Learner::default();
    let mut search = Search::new(space.clone(), 0, &[], &mut learner);
    let mut bench = lab.bench(job);
    while search.end().is_none() && start.elapsed() < budget && !signals::asked() {
        search.step(&mut bench, &mut learner);
    }
    let outcome = search.outcome();
    match outcome.winner() {
        Some(winner) => space.find(&winner.spec).context("a candidate of the space"),
        None if signals::asked() => bail!("stopped before a kernel was timed"),
        None => bail!("no kernel for {} could be timed", space.case.problem),
    }
}

fn isa(text: &str) -> Result<Isa, String> {
    text.parse()
        .map_err(|e: bitnet_codegen::isa::UnknownIsa| e.to_string())
}

fn text(r: &Report) -> String {
    let kind = if r.cold { "cold" } else { "hot" };
    let limit = if r.memory_bound {
        "read bandwidth"
    } else {
        "dot-product peak"
    };
    format!(
        "{}\n{} x {} x {} (M x N x K){}, {} threads, {kind} weights, verified\n\
         {:.1} us (±{:.1}, the model expects {:.1})   {:.1} GB/s of {:.1}   {:.1} GMAC/s of {:.1}   {:.0} % of the roofline ({limit})\n",
        r.spec,
        r.m,
        r.n,
        r.k,
        r.group
            .map_or(String::new(), |g| format!(", a scale for each {g} columns")),
        r.threads,
        r.median_ns / 1e3,
        r.mad_ns / 1e3,
        r.predicted_ns / 1e3,
        r.gb_per_s,
        r.read_gb_per_s,
        r.gmac_per_s,
        r.peak_gmac_per_s,
        r.roofline_fraction * 100.0
    )
}
