//! `bitnet-tune explain`: what a profile holds, and why each winner won.

use super::dimension;
use anyhow::{Context as _, Result, bail};
use bitnet_cli::terminal::Terminal;
use bitnet_runtime::profile::{self, Entry, MBucket, Profile, ProfileError};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What to explain.
#[derive(Args)]
pub struct Options {
    /// The profile.
    file: PathBuf,
    /// Only this number of output features.
    #[arg(long, value_parser = dimension)]
    n: Option<usize>,
    /// Only this number of input features.
    #[arg(long, value_parser = dimension)]
    k: Option<usize>,
    /// Only this number of tokens.
    #[arg(long, value_parser = dimension)]
    m: Option<usize>,
}

/// One winner.
#[derive(Serialize)]
pub struct Row {
    pub(super) n: usize,
    pub(super) k: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<usize>,
    pub(super) tokens: String,
    pub(super) spec: String,
    pub(super) cold: bool,
    pub(super) threads: usize,
    pub(super) median_ns: f64,
    pub(super) mad_ns: f64,
    pub(super) interval_ns: (f64, f64),
    pub(super) samples: usize,
    pub(super) thin: bool,
    pub(super) gb_per_s: f64,
    pub(super) gmac_per_s: f64,
    pub(super) roofline_fraction: f64,
    pub(super) timed: usize,
    pub(super) unsupported: usize,
    pub(super) runner_up: Option<String>,
    pub(super) runner_up_median_ns: Option<f64>,
    pub(super) tied: Vec<String>,
    pub(super) predicted_ns: f64,
    pub(super) model_regret: Option<(f64, f64)>,
    pub(super) end: String,
}

/// The document of `show --json` and `explain --json`.
#[derive(Serialize)]
pub struct Report {
    pub(super) path: String,
    pub(super) cpu: String,
    pub(super) date: String,
    pub(super) generator: String,
    pub(super) estimate: bool,
    pub(super) budget_s: f64,
    pub(super) noise: f64,
    pub(super) other_load: f64,
    pub(super) notes: Vec<String>,
    pub(super) model_regret: Option<(f64, f64)>,
    pub(super) kernels: Vec<Row>,
    pub(super) unknown: Vec<String>,
}

/// Reads a profile, with its path in the error.
///
/// # Errors
/// When it cannot be read or is no profile.
pub fn read(path: &Path) -> Result<Profile> {
    match profile::read(path) {
        Err(e @ ProfileError::Read { .. }) => Err(e.into()),
        other => other.with_context(|| path.display().to_string()),
    }
}

fn row(e: &Entry) -> Row {
    let v = &e.evidence;
    Row {
        n: e.n,
        k: e.k,
        group: e.product().groups.map(|g| g.scales.k),
        tokens: e.bucket.to_string(),
        spec: e.spec.to_string(),
        cold: v.cold,
        threads: v.threads,
        median_ns: v.median_ns,
        mad_ns: v.mad_ns,
        interval_ns: v.interval_ns,
        samples: v.samples,
        thin: v.samples > 0 && v.is_thin(),
        gb_per_s: v.gb_per_s,
        gmac_per_s: v.gmac_per_s,
        roofline_fraction: v.roofline_fraction,
        timed: v.timed,
        unsupported: v.unsupported,
        runner_up: v.runner_up.as_ref().map(|(s, _)| s.to_string()),
        runner_up_median_ns: v.runner_up.as_ref().map(|(_, ns)| *ns),
        tied: v.tied.iter().map(ToString::to_string).collect(),
        predicted_ns: v.predicted_ns,
        model_regret: v.regret,
        end: v.end.clone(),
    }
}

/// How much slower than the best the cost model's first guess, and the best of its first eight, are in the mean.
fn mean_regret(entries: &[Entry]) -> Option<(f64, f64)> {
    let all: Vec<(f64, f64)> = entries.iter().filter_map(|e| e.evidence.regret).collect();
    let n = all.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| all.iter().map(of).sum::<f64>() / n;
    (!all.is_empty()).then(|| (mean(|r| r.0), mean(|r| r.1)))
}

/// What `p`, read from `path`, holds of what `keep` keeps.
pub fn report(path: &Path, p: Profile, keep: impl Fn(&Entry) -> bool) -> Report {
    Report {
        path: path.display().to_string(),
        kernels: p.entries.iter().filter(|e| keep(e)).map(row).collect(),
        cpu: p.host.machine.kind(),
        budget_s: p.conditions.budget_s,
        noise: p.conditions.noise,
        other_load: p.conditions.other_load,
        model_regret: mean_regret(&p.entries),
        notes: p.conditions.notes,
        date: p.date,
        estimate: p.is_estimate,
        generator: p.generator,
        unknown: p.unknown,
    }
}

/// The evidence, in words.
///
/// # Errors
/// When the file is no profile, or holds nothing of what was asked for.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    let bucket = options.m.map(MBucket::of);
    let keep = |e: &Entry| {
        options.n.is_none_or(|n| e.n == n)
            && options.k.is_none_or(|k| e.k == k)
            && bucket.is_none_or(|b| e.bucket == b)
    };
    let report = report(&options.file, read(&options.file)?, keep);
    if report.kernels.is_empty() {
        bail!(
            "{} holds no kernel for that; `bitnet-tune show` prints what it holds",
            report.path
        );
    }
    terminal.print(&report, || report.kernels.iter().map(words).collect())
}

fn words(r: &Row) -> String {
    let weights = if r.cold {
        "weights from memory"
    } else {
        "weights in cache"
    };
    if r.samples == 0 {
        return format!(
            "{} x {} (N x K), {} tokens, {} threads, {weights}:\n  {} is expected to take {:.1} us: {:.1} GB/s, {:.1} GMAC/s, {:.0} % of the roofline; nothing was measured\n",
            r.n,
            r.k,
            r.tokens,
            r.threads,
            r.spec,
            r.median_ns / 1e3,
            r.gb_per_s,
            r.gmac_per_s,
            r.roofline_fraction * 100.0
        );
    }
    let mut out = format!(
        "{} x {} (N x K){}, {} tokens, {} threads, {weights}:\n  {} won with {:.1} us (±{:.1}, {} timings{}): {:.1} GB/s, {:.1} GMAC/s, {:.0} % of the roofline\n",
        r.n,
        r.k,
        r.group
            .map_or(String::new(), |g| format!(", a scale for each {g} columns")),
        r.tokens,
        r.threads,
        r.spec,
        r.median_ns / 1e3,
        r.mad_ns / 1e3,
        r.samples,
        if r.thin { ": thin" } else { "" },
        r.gb_per_s,
        r.gmac_per_s,
        r.roofline_fraction * 100.0
    );
    if let (Some(other), Some(ns)) = (&r.runner_up, r.runner_up_median_ns) {
        let percent = (ns / r.median_ns - 1.0) * 100.0;
        out += &format!(
            "  ahead of {other} with {:.1} us ({percent:+.1} %)\n",
            ns / 1e3
        );
    }
    if !r.tied.is_empty() {
        out += &format!(
            "  cannot be told from {}; the name decides\n",
            r.tied.join(", ")
        );
    }
    if r.predicted_ns > 0.0 {
        out += &format!("  the cost model expected {:.1} us\n", r.predicted_ns / 1e3);
    }
    out + &format!(
        "  {} candidates equalled the oracle and were timed, {} do not exist here; the search ended: {}\n",
        r.timed, r.unsupported, r.end
    )
}
