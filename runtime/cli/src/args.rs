//! What several subcommands are told: which model, how to read and run it, how to choose tokens; and the checks of
//! single values, so that a senseless one is a usage error before anything is loaded.

use anyhow::{Context as _, Result};
use bitnet_codegen::KernelSpec;
use bitnet_runtime::engine::EngineOptions;
use bitnet_runtime::format::ternary::TileConfig;
use bitnet_runtime::format::{I2sBlock, OpenOptions};
use bitnet_runtime::graph::Acts;
use bitnet_runtime::network::head::HeadForm;
use bitnet_runtime::network::packed_cache;
use bitnet_runtime::sample::SamplerParams;
use bitnet_runtime::sequence::KvType;
use bitnet_runtime::setup::Setup;
use clap::Args;
use std::path::PathBuf;

/// Which model, and how to read it.
#[derive(Args, Clone)]
pub struct ModelArgs {
    /// GGUF file or Hugging Face folder (the embedded demo model, unless given).
    #[arg(short, long, value_name = "PATH")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// How to read a model file.
#[derive(Args, Clone)]
pub struct ReadArgs {
    /// Codes in a block of I2_S tensors: 128, or 64 for files quantised by ARM builds of bitnet.cpp.
    #[arg(long, default_value_t = 128, value_parser = i2s_block)]
    pub(crate) i2s_block: usize,
    /// Tile sizes of TL1/TL2 tensors: bitnet.cpp's kernel_config.ini.
    #[arg(long, value_name = "FILE")]
    pub(crate) tl_config: Option<PathBuf>,
    /// Quantise float projections by absmean even where the file does not ask for it.
    #[arg(long)]
    pub(crate) absmean: bool,
    /// How finely inputs of ternary products are quantised, against what the files say: i8, i16 or i24.
    #[arg(long, value_name = "WIDTH", value_parser = acts)]
    pub(crate) acts: Option<Acts>,
    /// Pre-tokeniser, against what a GGUF file says (llama-bpe, default).
    #[arg(long)]
    pub(crate) pre: Option<String>,
}

/// How to run a model.
#[derive(Args, Clone)]
pub struct RunArgs {
    /// Threads (all, unless given).
    #[arg(short, long, value_parser = thread_count)]
    pub(crate) threads: Option<usize>,
    /// Hardware profile, before $BITNET_PROFILE, the user's own and the shipped ones.
    #[arg(long, value_name = "PATH")]
    pub(crate) profile: Option<PathBuf>,
    /// Kernels compiled ahead by `bitnet-tune compile`, used before any are emitted; it is code, and trusted like a program.
    #[arg(long, value_name = "PATH")]
    pub(crate) pack: Option<PathBuf>,
    /// One kernel for everything, as `bitnet-tune list` names them.
    #[arg(long, value_name = "SPEC", value_parser = kernel_spec)]
    pub(crate) kernel: Option<KernelSpec>,
    /// How the likeliest tokens are worked out; all choose the same: auto (as suits the model's table), exact (f32, as
    /// `logits`, `perplexity` and sampling without --top-k always do), native (its own integer codes), i8, i4 (copies).
    #[arg(long, value_name = "FORM", default_value = "auto", value_parser = head_form)]
    pub(crate) head: HeadChoice,
    /// Tokens of context (the model's own length, at most 4096, unless given).
    #[arg(long, value_parser = positive)]
    pub(crate) ctx: Option<usize>,
    /// Tokens of a prompt that go through the layers together; the result does not depend on it.
    #[arg(long, value_parser = positive)]
    pub(crate) batch: Option<usize>,
    /// Folder that keeps packed weights of large models, as much as they take in memory, so that the next start need
    /// not pack them (bitnet-tune/packed in the user's folder for caches, unless given).
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Neither read nor keep packed weights.
    #[arg(long, conflicts_with = "cache")]
    pub(crate) no_cache: bool,
    /// How keys and values are kept: f32, f16 or q8_0; the result depends on it.
    #[arg(long, value_name = "TYPE", default_value_t)]
    pub(crate) kv: KvType,
}

/// How the next token is chosen.
#[derive(Args, Clone)]
pub struct SampleArgs {
    /// Temperature; 0 is greedy.
    #[arg(long, default_value_t = 0.8, value_parser = at_least_zero, allow_negative_numbers = true)]
    temp: f32,
    /// Keep this many most likely tokens; 0 keeps all.
    #[arg(long, default_value_t = 40)]
    top_k: usize,
    /// Keep the most likely tokens up to this probability.
    #[arg(long, default_value_t = 0.95, value_parser = probability, allow_negative_numbers = true)]
    top_p: f32,
    /// Keep tokens at least this fraction as likely as the most likely one.
    #[arg(long, default_value_t = 0.05, value_parser = probability, allow_negative_numbers = true)]
    min_p: f32,
    /// Penalty on recent tokens; 1 is none.
    #[arg(long, default_value_t = 1.0, value_parser = above_zero, allow_negative_numbers = true)]
    repeat_penalty: f32,
    /// How many of the last tokens the penalty looks at.
    #[arg(long, default_value_t = 64)]
    repeat_last_n: usize,
    /// Seed of the draws (random, unless given).
    #[arg(long)]
    seed: Option<u64>,
}

impl SampleArgs {
    pub(crate) fn params(&self) -> SamplerParams {
        SamplerParams {
            temperature: self.temp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            repeat_last_n: self.repeat_last_n,
            seed: self.seed,
        }
    }
}

impl ReadArgs {
    pub(crate) fn options(&self) -> Result<OpenOptions> {
        let mut options = OpenOptions {
            absmean: self.absmean,
            acts: self.acts,
            ..OpenOptions::default()
        };
        options.i2s_block =
            I2sBlock::from_codes(self.i2s_block).context("checked by the parser")?;
        if let Some(path) = &self.tl_config {
            let text = bitnet_runtime::tokenizer::utf8_file(path)?;
            options.tiles = TileConfig::parse(&text).with_context(|| path.display().to_string())?;
        }
        Ok(options)
    }
}

impl ModelArgs {
    pub(crate) fn setup(&self) -> Result<Setup> {
        Ok(Setup {
            model: self.model.clone(),
            open: self.read.options()?,
            pre: self.read.pre.clone(),
            ..Setup::default()
        })
    }

    pub(crate) fn setup_to_run(&self, run: &RunArgs) -> Result<Setup> {
        Ok(Setup {
            threads: run.threads,
            profile: run.profile.clone(),
            kernel: run.kernel.clone(),
            head: run.head.0,
            cache: match run.no_cache {
                true => None,
                false => run.cache.clone().or_else(packed_cache::user_folder),
            },
            engine: EngineOptions {
                n_ctx: run.ctx,
                batch: run.batch,
                kv: run.kv,
            },
            ..self.setup()?
        })
    }
}

fn acts(text: &str) -> Result<Acts, String> {
    Acts::of(text).ok_or_else(|| format!("expected {}", Acts::ALL.map(Acts::name).join(", ")))
}

fn i2s_block(text: &str) -> Result<usize, String> {
    let codes = text
        .parse()
        .ok()
        .filter(|&n| I2sBlock::from_codes(n).is_some());
    codes.ok_or_else(|| "expected 128 or 64".into())
}

/// A number of threads.
///
/// # Errors
/// What was expected.
pub fn thread_count(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(n) if (1..=1024).contains(&n) => Ok(n),
        _ => Err("expected a number of threads from 1 to 1024".into()),
    }
}

pub(crate) fn positive(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|&n| n > 0)
        .ok_or_else(|| "expected a number above 0".into())
}

/// A form of the LM head; none is `auto`.
#[derive(Clone, Copy, Debug)]
pub struct HeadChoice(pub Option<HeadForm>);

/// A form of the LM head, or `auto`.
///
/// # Errors
/// What was expected.
pub fn head_form(text: &str) -> Result<HeadChoice, String> {
    if text == "auto" {
        return Ok(HeadChoice(None));
    }
    let form = text.parse::<HeadForm>();
    form.map(|f| HeadChoice(Some(f)))
        .map_err(|_| "expected auto, exact, native, i8 or i4".into())
}

/// A text that ends a generation.
///
/// # Errors
/// When it is empty.
pub fn stop_text(text: &str) -> Result<String, String> {
    match text {
        "" => Err("an empty text would end every text before it begins".into()),
        text => Ok(text.to_owned()),
    }
}

/// A kernel's name.
///
/// # Errors
/// What is wrong with it.
pub fn kernel_spec(text: &str) -> Result<KernelSpec, String> {
    text.parse()
        .map_err(|e: bitnet_codegen::spec::SpecError| e.to_string())
}

fn at_least_zero(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|v: &f32| v.is_finite() && *v >= 0.0)
        .ok_or_else(|| "expected a number from 0 up".into())
}

fn above_zero(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|v: &f32| v.is_finite() && *v > 0.0)
        .ok_or_else(|| "expected a number above 0".into())
}

fn probability(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|v| (0.0..=1.0).contains(v))
        .ok_or_else(|| "expected a number from 0 to 1".into())
}
