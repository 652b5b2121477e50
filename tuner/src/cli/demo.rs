//! `bitnet-tune demo`: the whole story on this machine in about a minute.

use super::MEASURING;
use super::tune::{self, check_writable, out_path};
use super::whole::WholeToken;
use crate::deadline::Deadline;
use crate::host::{Host, Measured};
use crate::shapes::Shapes;
use crate::tuning::Task;
use anyhow::{Context as _, Result, bail};
use bitnet_cli::args::thread_count;
use bitnet_cli::cpu::features;
use bitnet_cli::signals::{self, STOP};
use bitnet_cli::terminal::Terminal;
use bitnet_codegen::oracle;
use bitnet_runtime::decoder::Decoder;
use bitnet_runtime::generate::{GenerateParams, Session};
use bitnet_runtime::pool::{Chunks, Pool};
use bitnet_runtime::profile::{self, M_BUCKETS};
use bitnet_runtime::sample::{Sampler, SamplerParams};
use bitnet_runtime::setup::{Ready, Setup};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long, and where to.
#[derive(Args)]
pub struct Options {
    /// The profile to write (the user's own, unless given).
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// Seconds for the search.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=3600))]
    budget: u64,
    /// Threads (all, unless given).
    #[arg(short, long, value_parser = thread_count)]
    threads: Option<usize>,
    /// The beginning of the text.
    #[arg(short, long, default_value = "Once upon a time")]
    prompt: String,
}

/// One row of the comparison.
#[derive(Serialize)]
struct Row {
    kernels: &'static str,
    decode_tokens_per_s: f64,
    prefill_tokens_per_s: f64,
    decode_roofline_fraction: f64,
    prefill_roofline_fraction: f64,
}

/// The document of `demo --json`.
#[derive(Serialize)]
struct Report {
    cpu: String,
    profile: String,
    text: String,
    rows: Vec<Row>,
}

/// Tokens of the prompt that prefill is timed with, and of the continuation that decoding is.
const PREFILL: usize = 256;
const DECODE: usize = 64;

/// Time for comparing whole tokens before the profile is written.
const WHOLE: Duration = Duration::from_secs(4);

/// Runs it all.
///
/// # Errors
/// When the profile cannot be written.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    let host = Host::probe(features(terminal));
    let threads = options.threads.unwrap_or(host.threads);
    let path = out_path(options.out.as_ref())
        .unwrap_or_else(|_| std::env::temp_dir().join("bitnet-tune-profile.toml"));
    if options.out.is_some() {
        check_writable(&path)?;
    }
    terminal.note(&format!(
        "1. this machine: {}, {} threads, best instruction set {}",
        host.machine.kind(),
        threads,
        host.isa
    ));
    let mut counts = vec![1, threads];
    counts.dedup();
    let measured = host.measure(&counts, MEASURING)?;
    for (t, read) in &measured.read_gb_per_s {
        let peak = measured.peak_gmac_per_s.get(t).copied().unwrap_or_default();
        terminal.note(&format!(
            "   {t} threads: reads {read:.1} GB/s, dot-product peak {peak:.0} GMAC/s"
        ));
    }
    let _watch = signals::watch();
    terminal.note(
        "2. tuning the demo model's shapes: every kernel is compared with the oracle, then timed",
    );
    let setup = Setup {
        threads: Some(threads),
        features: Some(host.features),
        ..Setup::default()
    };
    let model = setup.open_model()?;
    let path = tune(terminal, &host, &measured, &setup, options, path)?;
    terminal.note("3. generating with the winners");
    let tuned_setup = Setup {
        profile: Some(path.clone()),
        ..setup.clone()
    };
    let tokenizer = tuned_setup.tokenizer(&model)?;
    let mut tuned = tuned_setup.ready(model)?;
    let ids = tokenizer.encode_prompt(&options.prompt)?;
    let mut sampler = Sampler::new(SamplerParams::greedy(), tuned.engine.n_vocab())?;
    terminal.say(&format!("\n{}", options.prompt))?;
    let generated = Session::new(&mut tuned.engine, &tokenizer).generate(
        &ids,
        &GenerateParams::new(160),
        &mut sampler,
        &STOP,
        &mut |piece| terminal.stream(piece),
    )?;
    terminal.say("\n\n")?;
    if signals::asked() {
        bail!("stopped; the profile is written: {}", path.display());
    }
    terminal.note("4. comparing");
    let rows = compare(&host, &measured, &setup, tuned, threads)?;
    let report = Report {
        cpu: host.machine.kind(),
        profile: path.display().to_string(),
        text: options.prompt.clone() + &generated.text,
        rows,
    };
    terminal.print(&report, || table(&report))
}

/// Tunes the demo model's shapes and saves the profile; where it went.
fn tune(
    terminal: &Terminal,
    host: &Host,
    measured: &Measured,
    setup: &Setup,
    options: &Options,
    path: PathBuf,
) -> Result<PathBuf> {
    let threads = setup.threads.unwrap_or(host.threads);
    let shapes = Shapes::of_model(&setup.open_model()?)?;
    let task = Task {
        cold: shapes.weights / 4 > host.last_level_bytes() / 2,
        products: shapes.distinct,
        buckets: (0..M_BUCKETS.len()).collect(),
        threads: vec![threads],
        budget: Duration::from_secs(options.budget),
        done: Vec::new(),
        seeds: Vec::new(),
    };
    let mut made = tune::search(terminal, host, measured, task)?;
    if signals::asked() || made.profile.entries.is_empty() {
        bail!("stopped while tuning; nothing was written");
    }
    let whole = WholeToken {
        model: Some(setup.open_model()?),
        weights: shapes.weights,
        products: Vec::new(),
        threads: vec![threads],
    };
    let now = Instant::now();
    let deadline = Deadline::new(&now, WHOLE);
    whole.judge(terminal, (host, measured), &mut made, deadline);
    let made = made.profile;
    if let Err(e) = profile::save(&made, &path) {
        // A home that cannot be written to must not end the story.
        let fallback = std::env::temp_dir().join("bitnet-tune-profile.toml");
        if options.out.is_some() || path == fallback {
            return Err(e.into());
        }
        terminal.note(&format!("   {e}; writing to {}", fallback.display()));
        profile::save(&made, &fallback)?;
        return Ok(fallback);
    }
    Ok(path)
}

fn compare(
    host: &Host,
    measured: &Measured,
    setup: &Setup,
    mut tuned: Ready,
    threads: usize,
) -> Result<Vec<Row>> {
    let peaks = measured.peaks(threads).context("the peaks were measured")?;
    let bytes = tuned.engine.bytes_per_token(DECODE / 2) as f64;
    let macs = tuned.engine.prompt_macs(PREFILL) as f64 / PREFILL as f64;
    let row = |kernels, decode: f64, prefill: f64| Row {
        kernels,
        decode_tokens_per_s: decode,
        prefill_tokens_per_s: prefill,
        decode_roofline_fraction: bytes * decode / 1e9 / peaks.read_gb_per_s,
        prefill_roofline_fraction: macs * prefill / 1e9 / peaks.dot_gmac_per_s,
    };
    // A profile without entries leaves the choice to the estimate, as on a machine that nobody has tuned.
    let empty = tempfile::NamedTempFile::new()?;
    let nothing = profile::Profile {
        generator: profile::GENERATOR.into(),
        host: host.record(measured),
        ..profile::Profile::default()
    };
    profile::save(&nothing, empty.path())?;
    let mut untuned = Setup {
        profile: Some(empty.path().to_owned()),
        ..setup.clone()
    }
    .ready(setup.open_model()?)?;
    let mut speeds = [(0.0f64, 0.0f64); 2];
    // In turn, so that a machine that slows down or speeds up meets both alike.
    for _ in 0..7 {
        for (ready, best) in [&mut tuned, &mut untuned].into_iter().zip(&mut speeds) {
            let (decode, prefill) = speed(ready)?;
            *best = (best.0.max(decode), best.1.max(prefill));
        }
    }
    let scalar = scalar_tokens_per_s(setup, threads)?;
    Ok(vec![
        row("tuned", speeds[0].0, speeds[0].1),
        row("untuned", speeds[1].0, speeds[1].1),
        row("scalar", scalar, scalar),
    ])
}

/// Decode and prefill tokens per second, once.
fn speed(ready: &mut Ready) -> Result<(f64, f64)> {
    let engine = &mut ready.engine;
    let n_vocab = engine.n_vocab() as u32;
    let tokens: Vec<u32> = (0..PREFILL as u32).map(|i| i * 31 % n_vocab).collect();
    engine.reset();
    let start = Instant::now();
    engine.prefill(&tokens).map_err(anyhow::Error::from_boxed)?;
    let prefill = PREFILL as f64 / start.elapsed().as_secs_f64();
    engine.reset();
    let start = Instant::now();
    for &token in &tokens[..DECODE] {
        engine.decode(token).map_err(anyhow::Error::from_boxed)?;
    }
    Ok((DECODE as f64 / start.elapsed().as_secs_f64(), prefill))
}

/// Tokens per second if the ternary layers were the naive loop that is the oracle (everything else free).
fn scalar_tokens_per_s(setup: &Setup, threads: usize) -> Result<f64> {
    let model = setup.open_model()?;
    let pool = Pool::new(threads)?;
    let layers = model
        .linear_ids()
        .map(|id| model.ternary(id))
        .collect::<Result<Vec<_>, _>>()?;
    let widest = layers.iter().map(|w| w.k()).max().unwrap_or(1);
    let x: Vec<i8> = (0..widest).map(|i| (i * 37 % 255) as u8 as i8).collect();
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        for w in &layers {
            let mut y = vec![0i32; w.n()];
            pool.each(Chunks::new(&mut y, 64), |_, block, out| {
                for (i, y) in out.iter_mut().enumerate() {
                    oracle::output(w, block * 64 + i, &x[..w.k()], std::slice::from_mut(y));
                }
            });
            std::hint::black_box(&y);
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(1.0 / best)
}

fn table(report: &Report) -> String {
    let mut out = format!("profile: {}\n\n", report.profile);
    out += "kernels   decode tokens/s   of roofline   prefill tokens/s   of roofline\n";
    for r in &report.rows {
        out += &format!(
            "{:<8} {:>16.1} {:>12.1} % {:>17.1} {:>12.1} %\n",
            r.kernels,
            r.decode_tokens_per_s,
            r.decode_roofline_fraction * 100.0,
            r.prefill_tokens_per_s,
            r.prefill_roofline_fraction * 100.0
        );
    }
    out += "roofline: decode against read bandwidth, prefill against the dot-product peak; the demo model fits the caches\n";
    out + "scalar: the naive loop over 2-bit codes for the ternary layers, everything else free\n"
}
