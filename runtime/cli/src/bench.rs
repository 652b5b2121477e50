//! `bitnet-run bench`: prefill (`pp`) and decode (`tg`) speed, as llama-bench measures them, with the bytes read
//! and, where a profile knows this machine's peaks, the fraction of the roofline.

use super::terminal::Terminal;
use super::{ModelArgs, RunArgs, STOP, thread_count};
use anyhow::{Context as _, Result, bail};
use bitnet_runtime::decoder::Decoder;
use bitnet_runtime::engine::{Engine, EngineOptions};
use bitnet_runtime::profile::{HostRecord, M_BUCKETS, MBucket, State};
use bitnet_runtime::setup::{Ready, default_threads};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// What to measure.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    run: BenchRunArgs,
    /// Tokens of the prompt; 0 leaves prefill out.
    #[arg(short = 'p', long, default_value_t = 512)]
    prompt: usize,
    /// Tokens to decode; 0 leaves decoding out.
    #[arg(short = 'n', long, default_value_t = 128)]
    tokens: usize,
    /// Thread counts (all threads, unless given).
    #[arg(short, long, value_delimiter = ',', value_parser = thread_count)]
    threads: Vec<usize>,
    /// Repetitions.
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t = Form::Md)]
    output: Form,
}

/// [`RunArgs`] without the threads, which are a list here.
#[derive(Args, Clone)]
struct BenchRunArgs {
    /// Hardware profile, before $BITNET_PROFILE, the user's own and the shipped ones.
    #[arg(long, value_name = "PATH")]
    profile: Option<std::path::PathBuf>,
    /// One kernel for everything, as `bitnet-tune list` names them.
    #[arg(long, value_name = "SPEC", value_parser = super::kernel_spec)]
    kernel: Option<bitnet_codegen::KernelSpec>,
    /// Tokens of a prompt that go through the layers together.
    #[arg(long, value_parser = super::positive)]
    batch: Option<usize>,
}

/// How rows are written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Md,
    Csv,
    Json,
}

#[derive(Clone, Copy, Serialize)]
struct Speed {
    median: f64,
    min: f64,
    max: f64,
}

#[derive(Serialize)]
struct ProfileUse {
    path: String,
    state: Option<&'static str>,
}

/// One row: one test with one number of threads.
#[derive(Serialize)]
struct Row {
    test: String,
    threads: usize,
    n_tokens: usize,
    tokens_per_s: Speed,
    /// What decoding a token reads; a prompt reads its weights once for many tokens.
    bytes_per_token: Option<usize>,
    gb_per_s: Option<f64>,
    gmac_per_s: f64,
    roofline_fraction: Option<f64>,
    peak_rss_bytes: Option<u64>,
    load_s: f64,
    profile: ProfileUse,
    kernels: BTreeMap<String, String>,
    head: String,
    model: String,
    host: String,
}

/// Measures and prints.
///
/// # Errors
/// When the model cannot be loaded, or the tokens do not fit its context.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    if options.prompt == 0 && options.tokens == 0 {
        bail!("nothing to measure: give tokens of a prompt (-p) or tokens to decode (-n)");
    }
    let threads = if options.threads.is_empty() {
        vec![default_threads()]
    } else {
        options.threads.clone()
    };
    let mut rows = Vec::new();
    for (i, &t) in threads.iter().enumerate() {
        let args = RunArgs {
            threads: Some(t),
            profile: options.run.profile.clone(),
            kernel: options.run.kernel.clone(),
            ctx: None,
            batch: options.run.batch,
        };
        let mut setup = options.model.setup_to_run(&args)?;
        let model = setup.open_model()?;
        let needed = options.prompt.max(options.tokens);
        if needed > model.config().context_len {
            bail!(
                "{needed} tokens do not fit the model's context of {}: lower -p and -n",
                model.config().context_len
            );
        }
        setup.engine = EngineOptions {
            n_ctx: Some(needed.max(1)),
            batch: options.run.batch,
        };
        let name = if model.config().name.is_empty() {
            model.path().to_owned()
        } else {
            model.config().name.clone()
        };
        let mut ready = setup.ready(model)?;
        if i == 0 && options.run.kernel.is_none() {
            terminal.tell(&ready);
        }
        for (test, count, each) in [
            ("pp", options.prompt, prefill as Test),
            ("tg", options.tokens, decode as Test),
        ] {
            if count > 0 && !STOP.load(Ordering::Relaxed) {
                let speed = repeat(&mut ready.engine, count, options.repetitions, each)?;
                rows.push(row(&ready, &name, test, count, t, speed));
            }
        }
    }
    if terminal.is_json() || options.output == Form::Json {
        return Terminal::new(true).print(&rows, String::new);
    }
    let text = match options.output {
        Form::Csv => csv(&rows),
        _ => markdown(&rows),
    };
    terminal.write(&text).context("the table")?;
    Ok(())
}

type Test = fn(&mut Engine, &[u32]) -> Result<()>;

fn prefill(engine: &mut Engine, tokens: &[u32]) -> Result<()> {
    engine
        .prefill(tokens)
        .map(drop)
        .map_err(anyhow::Error::from_boxed)
}

fn decode(engine: &mut Engine, tokens: &[u32]) -> Result<()> {
    for &token in tokens {
        engine
            .decode(token)
            .map(drop)
            .map_err(anyhow::Error::from_boxed)?;
    }
    Ok(())
}

/// Tokens per second of `count` tokens from an empty context, after one round that is not counted.
fn repeat(engine: &mut Engine, count: usize, repetitions: u32, each: Test) -> Result<Speed> {
    let n_vocab = engine.n_vocab() as u64;
    // Any tokens will do: the work does not depend on them. Spread over the table as text is.
    let tokens: Vec<u32> = (0..count as u64)
        .map(|i| (i * 7919 % n_vocab) as u32)
        .collect();
    let mut speeds = Vec::new();
    for round in 0..=repetitions {
        engine.reset();
        let start = Instant::now();
        each(engine, &tokens)?;
        let speed = count as f64 / start.elapsed().as_secs_f64();
        if round > 0 {
            speeds.push(speed);
        }
        if STOP.load(Ordering::Relaxed) && !speeds.is_empty() {
            break;
        }
    }
    speeds.sort_by(f64::total_cmp);
    let middle = speeds.len() / 2;
    let median = if speeds.len() % 2 == 1 {
        speeds[middle]
    } else {
        (speeds[middle - 1] + speeds[middle]) / 2.0
    };
    Ok(Speed {
        median,
        min: speeds[0],
        max: speeds[speeds.len() - 1],
    })
}

fn row(ready: &Ready, model: &str, test: &str, count: usize, threads: usize, speed: Speed) -> Row {
    let engine = &ready.engine;
    // On average half of the tokens are held while decoding.
    let bytes = (test == "tg").then(|| engine.bytes_per_token(count / 2));
    let gb_per_s = bytes.map(|b| b as f64 * speed.median / 1e9);
    let macs = match test {
        "tg" => engine.macs_per_token(),
        _ => engine.prompt_macs(count) / count as u64,
    };
    let gmac_per_s = macs as f64 * speed.median / 1e9;
    let bucket = if test == "tg" {
        0
    } else {
        MBucket::of(count.min(bitnet_runtime::engine::BATCH)).index()
    };
    let kernels = engine
        .kernels()
        .iter()
        .filter(|((_, _, b), _)| *b == bucket)
        .map(|((n, k, b), (spec, _))| (format!("{n}x{k}x{}", M_BUCKETS[*b]), spec.to_string()))
        .collect();
    let host = &ready.found.profile.host;
    let here = ready.found.state == Some(State::Exact);
    Row {
        test: format!("{test}{count}"),
        threads,
        n_tokens: count,
        tokens_per_s: speed,
        bytes_per_token: bytes,
        gb_per_s,
        gmac_per_s,
        roofline_fraction: if here {
            fraction(host, threads, gb_per_s, gmac_per_s)
        } else {
            None
        },
        peak_rss_bytes: peak_rss_bytes(),
        load_s: ready.load.as_secs_f64(),
        profile: ProfileUse {
            path: ready.found.source.to_string(),
            state: ready.found.state.map(State::name),
        },
        kernels,
        head: format!("{:?}", engine.head().dtype()),
        model: model.to_owned(),
        host: bitnet_runtime::profile::cpu_name(),
    }
}

/// Decode against read bandwidth, prefill against the dot-product peak.
fn fraction(
    host: &HostRecord,
    threads: usize,
    gb_per_s: Option<f64>,
    gmac_per_s: f64,
) -> Option<f64> {
    let key = threads.to_string();
    match gb_per_s {
        Some(read) => Some(read / host.read_gb_per_s.get(&key)?),
        None => Some(gmac_per_s / host.peak_gmac_per_s.get(&key)?),
    }
}

/// The most memory that this process has held, where the system tells.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

fn percent(fraction: Option<f64>) -> String {
    fraction.map_or("-".into(), |f| format!("{:.0} %", f * 100.0))
}

fn markdown(rows: &[Row]) -> String {
    let mut out = String::from(
        "| model | test | threads | tokens/s (min to max) | GB/s | GMAC/s | roofline | peak memory |\n|---|---|---|---|---|---|---|---|\n",
    );
    for r in rows {
        let s = r.tokens_per_s;
        let memory = r
            .peak_rss_bytes
            .map_or("-".into(), bitnet_runtime::inspect::human_bytes);
        out += &format!(
            "| {} | {} | {} | {:.2} ({:.2} to {:.2}) | {} | {:.1} | {} | {memory} |\n",
            r.model,
            r.test,
            r.threads,
            s.median,
            s.min,
            s.max,
            r.gb_per_s.map_or("-".into(), |v| format!("{v:.1}")),
            r.gmac_per_s,
            percent(r.roofline_fraction)
        );
    }
    out
}

fn csv(rows: &[Row]) -> String {
    let mut out = String::from(
        "model,test,threads,n_tokens,median_tokens_per_s,min_tokens_per_s,max_tokens_per_s,bytes_per_token,gb_per_s,gmac_per_s,roofline_fraction,peak_rss_bytes,load_s\n",
    );
    for r in rows {
        let s = r.tokens_per_s;
        let [fraction, read] =
            [r.roofline_fraction, r.gb_per_s].map(|v| v.map_or(String::new(), |v| v.to_string()));
        let memory = r.peak_rss_bytes.map_or(String::new(), |b| b.to_string());
        let bytes = r.bytes_per_token.map_or(String::new(), |b| b.to_string());
        out += &format!(
            "\"{}\",{},{},{},{},{},{},{bytes},{read},{},{fraction},{memory},{}\n",
            r.model.replace('"', "\"\""),
            r.test,
            r.threads,
            r.n_tokens,
            s.median,
            s.min,
            s.max,
            r.gmac_per_s,
            r.load_s
        );
    }
    out
}
