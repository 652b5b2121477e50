//! `bitnet-tune kernel`: one kernel, verified, then timed.

use super::{MEASURING, Shape};
use crate::bound;
use crate::host::Host;
use crate::measure::{KernelBench, Setting};
use crate::sampler::Samples;
use crate::search::{Bench, Effort, search};
use crate::tuning;
use anyhow::{Context as _, Result, bail};
use bitnet_cli::args::{kernel_spec, thread_count};
use bitnet_cli::cpu::features;
use bitnet_cli::signals::{self, STOP};
use bitnet_cli::terminal::Terminal;
use bitnet_codegen::{Isa, KernelSpec};
use bitnet_runtime::pool::Pool;
use clap::Args;
use serde::Serialize;
use std::time::Duration;

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
    threads: usize,
    verified: bool,
    cold: bool,
    median_ns: f64,
    mad_ns: f64,
    min_ns: f64,
    samples: usize,
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
    let problem = options.shape.problem()?;
    let host = Host::probe(features(terminal));
    let threads = options.threads.unwrap_or(host.threads);
    let measured = host.measure(&[threads], MEASURING)?;
    let peaks = measured
        .peaks(threads)
        .context("the peaks were just measured")?;
    let pool = Pool::new(threads)?;
    let setting = Setting {
        problem,
        cold: !options.hot,
        last_level_bytes: host.last_level_bytes(),
        features: host.features,
        peaks: Some(peaks),
    };
    let _watch = signals::watch();
    let mut bench = KernelBench::new(setting, &pool, &STOP);
    let spec = match &options.spec {
        Some(spec) => spec.clone(),
        None => {
            let filter = options.filter.as_deref().unwrap_or_default();
            let candidates = tuning::candidates(problem, host.features, |c| {
                c.to_string().contains(filter)
                    && (options.isa.is_empty() || options.isa.contains(&c.isa))
            });
            let effort = Effort {
                budget: Duration::from_secs(options.budget),
                ..Effort::default()
            };
            let found = search(&mut bench, candidates, effort);
            let Some(winner) = found.winner() else {
                if signals::asked() {
                    bail!("stopped before a kernel was timed");
                }
                let named = match filter {
                    "" => String::new(),
                    f => format!(" with {f:?} in its name"),
                };
                let isas: Vec<&str> = options.isa.iter().map(|isa| isa.name()).collect();
                let of = match isas.is_empty() {
                    true => String::new(),
                    false => format!(" for {}", isas.join(", ")),
                };
                bail!(
                    "no kernel for {problem} (M x N x K){of} runs here{named}; `bitnet-tune list` prints them all"
                );
            };
            winner.candidate.clone()
        }
    };
    bench.prepare(&spec)?;
    let mut samples = Samples::default();
    for _ in 0..options.samples {
        samples.push(bench.time(&spec));
        if samples.len() >= 3 && signals::asked() {
            break;
        }
    }
    let s = samples.summary().context("samples were taken")?;
    let weight_bytes = bench.weight_bytes(&spec);
    let floor = bound::floor(problem, weight_bytes, setting.cold, peaks);
    let report = Report {
        spec: spec.to_string(),
        m: problem.m,
        n: problem.n,
        k: problem.k,
        threads,
        verified: true,
        cold: setting.cold,
        median_ns: s.median_ns,
        mad_ns: s.mad_ns,
        min_ns: s.min_ns,
        samples: s.samples,
        weight_bytes,
        gb_per_s: weight_bytes as f64 / s.median_ns,
        gmac_per_s: problem.macs() as f64 / s.median_ns,
        roofline_fraction: bound::fraction(floor, s.median_ns),
        memory_bound: floor.memory_bound,
        read_gb_per_s: peaks.read_gb_per_s,
        peak_gmac_per_s: peaks.dot_gmac_per_s,
    };
    terminal.print(&report, || text(&report))
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
        "{}\n{} x {} x {} (M x N x K), {} threads, {kind} weights, verified\n\
         {:.1} us (±{:.1})   {:.1} GB/s of {:.1}   {:.1} GMAC/s of {:.1}   {:.0} % of the roofline ({limit})\n",
        r.spec,
        r.m,
        r.n,
        r.k,
        r.threads,
        r.median_ns / 1e3,
        r.mad_ns / 1e3,
        r.gb_per_s,
        r.read_gb_per_s,
        r.gmac_per_s,
        r.peak_gmac_per_s,
        r.roofline_fraction * 100.0
    )
}
