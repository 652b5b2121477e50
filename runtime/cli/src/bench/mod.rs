//! `bitnet-run bench`: prefill (`pp`) and decode (`tg`) speed, as llama-bench measures them, the time to the first
//! token and of loading, with the bytes read and, where a profile knows this machine's peaks, the fraction of the
//! roofline.

mod compare;
mod row;
mod table;

use crate::args::{HeadChoice, ModelArgs, RunArgs, head_form, kernel_spec, positive, thread_count};
use crate::load::Loader;
use crate::signals;
use crate::terminal::Terminal;
use anyhow::{Result, bail};
use bitnet_runtime::decoder::Decoder;
use bitnet_runtime::engine::{Engine, EngineOptions};
use bitnet_runtime::logits::{Logits, Wanted};
use bitnet_runtime::sample::{Sampler, SamplerParams};
use bitnet_runtime::sequence::KvType;
use bitnet_runtime::setup::{Ready, default_threads};
use clap::{Args, ValueEnum};
use compare::Other;
use row::{Row, Test};
use std::path::PathBuf;
use std::time::{Duration, Instant};

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
    /// Tokens that the context already holds when the measured ones come.
    #[arg(short, long, default_value_t = 0)]
    depth: usize,
    /// Thread counts (all threads, unless given).
    #[arg(short, long, value_delimiter = ',', value_parser = thread_count)]
    threads: Vec<usize>,
    /// Repetitions.
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t = Form::Md)]
    output: Form,
    /// An earlier run's JSON: each test is set against the same test there.
    #[arg(long, value_name = "OTHER.json")]
    compare: Option<PathBuf>,
}

/// [`RunArgs`] without the threads, which are a list here, and the context, which follows from the tests.
#[derive(Args, Clone)]
struct BenchRunArgs {
    /// Hardware profile, before $BITNET_PROFILE, the user's own and the shipped ones.
    #[arg(long, value_name = "PATH")]
    profile: Option<PathBuf>,
    /// Kernels compiled ahead by `bitnet-tune compile`, used before any are emitted; it is code, and trusted like a program.
    #[arg(long, value_name = "PATH")]
    pack: Option<PathBuf>,
    /// One kernel for everything, as `bitnet-tune list` names them.
    #[arg(long, value_name = "SPEC", value_parser = kernel_spec)]
    kernel: Option<bitnet_codegen::KernelSpec>,
    /// How the likeliest tokens are worked out: auto, exact, native, i8 or i4.
    #[arg(long, value_name = "FORM", default_value = "auto", value_parser = head_form)]
    head: HeadChoice,
    /// Tokens of a prompt that go through the layers together.
    #[arg(long, value_parser = positive)]
    batch: Option<usize>,
    /// Folder that keeps packed weights; without one, loading packs them every time.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// How keys and values are kept: f32, f16 or q8_0.
    #[arg(long, value_name = "TYPE", default_value_t)]
    kv: KvType,
}

/// How rows are written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Md,
    Csv,
    Json,
}

/// Measures and prints.
///
/// # Errors
/// When the model cannot be loaded, or the tokens do not fit its context.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    if options.prompt == 0 && options.tokens == 0 {
        bail!("nothing to measure: give tokens of a prompt (-p) or tokens to decode (-n)");
    }
    let other = options.compare.as_deref().map(Other::read).transpose()?;
    let threads = if options.threads.is_empty() {
        vec![default_threads()]
    } else {
        options.threads.clone()
    };
    let mut rows = Vec::new();
    for (i, &threads) in threads.iter().enumerate() {
        if signals::asked() {
            break;
        }
        let (mut ready, model) = ready(terminal, options, threads, i == 0)?;
        let _watch = signals::watch();
        measure(&mut ready, &model, options, threads, &mut rows)?;
    }
    if let Some(other) = &other {
        for note in other.set_against(&mut rows) {
            terminal.note(&format!("note: {note}"));
        }
    }
    let json = terminal.is_json() || options.output == Form::Json;
    Terminal::new(json).print(&rows, || match options.output {
        Form::Csv => table::csv(&rows),
        _ => table::markdown(&rows),
    })
}

/// A model for one number of threads, and its name. What there is to say of it is said the first time.
fn ready(
    terminal: &Terminal,
    options: &Options,
    threads: usize,
    first: bool,
) -> Result<(Ready, String)> {
    let args = RunArgs {
        threads: Some(threads),
        profile: options.run.profile.clone(),
        pack: options.run.pack.clone(),
        kernel: options.run.kernel.clone(),
        head: options.run.head,
        ctx: None,
        batch: options.run.batch,
        cache: options.run.cache.clone(),
        no_cache: options.run.cache.is_none(),
        kv: options.run.kv,
    };
    let mut loader = Loader::new(terminal, &options.model, &args)?;
    let model = if first {
        loader.open()?
    } else {
        loader.setup.open_model()?
    };
    let tokens = options.prompt.max(options.tokens);
    let needed = options.depth.saturating_add(tokens);
    if needed > model.config().context_len {
        bail!(
            "{tokens} tokens at depth {} do not fit the model's context of {}: lower -p, -n or -d",
            options.depth,
            model.config().context_len
        );
    }
    loader.setup.engine = EngineOptions {
        n_ctx: Some(needed),
        ..loader.setup.engine
    };
    let name = if model.config().name.is_empty() {
        model.path().to_owned()
    } else {
        model.config().name.clone()
    };
    let ready = if first {
        loader.ready(model)?
    } else {
        loader.setup.ready(model)?
    };
    loader.keep(&ready);
    Ok((ready, name))
}

/// The rows of one number of threads.
fn measure(
    ready: &mut Ready,
    model: &str,
    options: &Options,
    threads: usize,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let test = |kind: &str, tokens: usize| Test {
        name: match options.depth {
            0 => format!("{kind}{tokens}"),
            depth => format!("{kind}{tokens} @ d{depth}"),
        },
        model: model.to_owned(),
        threads,
        tokens,
        depth: options.depth,
    };
    // What is waited for comes behind what counts tokens.
    let mut waits = Vec::new();
    if options.prompt > 0 && !signals::asked() {
        let times = repeat(&mut ready.engine, options.prompt, options, prefill)?;
        let (all, first): (Vec<_>, Vec<_>) = times.into_iter().unzip();
        rows.push(Row::new(ready, test("pp", options.prompt), &all).of_prefill(ready));
        waits.push(Row::new(ready, test("ttft", options.prompt), &first));
    }
    if options.tokens > 0 && !signals::asked() {
        let times = repeat(&mut ready.engine, options.tokens, options, decode)?;
        rows.push(Row::new(ready, test("tg", options.tokens), &times).of_decode(ready));
    }
    let loading = Test {
        name: "load".to_owned(),
        tokens: 0,
        depth: 0,
        ..test("", 0)
    };
    waits.push(Row::new(ready, loading, &[ready.load]));
    rows.extend(waits);
    Ok(())
}

/// How long a prompt takes, and how long until its first token is chosen.
fn prefill(engine: &mut Engine, tokens: &[u32]) -> Result<(Duration, Duration)> {
    let mut greedy = Greedy::new(engine)?;
    let start = Instant::now();
    let logits = engine.prefill_wanted(tokens, &greedy.wanted());
    let logits = logits.map_err(anyhow::Error::from_boxed)?;
    let all = start.elapsed();
    greedy.choose(logits)?;
    Ok((all, start.elapsed()))
}

/// How long it takes to decode tokens one by one and to choose what would follow each.
fn decode(engine: &mut Engine, tokens: &[u32]) -> Result<Duration> {
    let mut greedy = Greedy::new(engine)?;
    let start = Instant::now();
    for &token in tokens {
        let logits = engine.prefill_wanted(&[token], &greedy.wanted());
        greedy.choose(logits.map_err(anyhow::Error::from_boxed)?)?;
    }
    Ok(start.elapsed())
}

/// The likeliest token, as `generate --temp 0` chooses it.
struct Greedy {
    sampler: Sampler,
    n_vocab: usize,
}

impl Greedy {
    fn new(engine: &Engine) -> Result<Self> {
        let n_vocab = engine.n_vocab();
        let sampler = Sampler::new(SamplerParams::greedy(), n_vocab)?;
        Ok(Self { sampler, n_vocab })
    }

    fn wanted(&mut self) -> Wanted<'_> {
        self.sampler.wanted(&[], self.n_vocab)
    }

    fn choose(&mut self, logits: Logits<'_>) -> Result<u32> {
        Ok(self.sampler.choose(logits, self.n_vocab, &[])?)
    }
}

/// Times `each` on `count` tokens behind as many as the options say, after one round that is not counted.
fn repeat<T>(
    engine: &mut Engine,
    count: usize,
    options: &Options,
    each: fn(&mut Engine, &[u32]) -> Result<T>,
) -> Result<Vec<T>> {
    let n_vocab = engine.n_vocab() as u64;
    // Any tokens will do: the work does not depend on them. Spread over the table as text is.
    let tokens: Vec<u32> = (0..(options.depth + count) as u64)
        .map(|i| (i * 7919 % n_vocab) as u32)
        .collect();
    let (held, measured) = tokens.split_at(options.depth);
    engine.reset();
    if !held.is_empty() {
        engine.prefill(held).map_err(anyhow::Error::from_boxed)?;
    }
    let mut times = Vec::new();
    for round in 0..=options.repetitions {
        engine.truncate(options.depth);
        let time = each(engine, measured)?;
        if round > 0 {
            times.push(time);
        }
        if round < options.repetitions && !times.is_empty() && signals::asked() {
            break;
        }
    }
    Ok(times)
}
