//! `bitnet-run embed`: vectors of texts, for models that were made to embed.

use crate::args::{ModelArgs, RunArgs};
use crate::load::Loader;
use crate::npy;
use crate::signals;
use crate::terminal::Terminal;
use anyhow::{Context as _, Result, bail};
use bitnet_runtime::embed::{self, Pooling};
use bitnet_runtime::network::head::HeadForm;
use bitnet_runtime::tokenizer::{utf8_argument, utf8_file};
use clap::Args;
use serde::Serialize;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// What to embed.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    run: RunArgs,
    /// A text; may be given several times.
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Vec<OsString>,
    /// A file with a text on every line; - reads standard input, as is done where nothing else is given.
    #[arg(short, long, value_name = "FILE", conflicts_with = "prompt")]
    file: Option<PathBuf>,
    /// Write the vectors as a NumPy file of f32 [texts, width] instead of printing them.
    #[arg(short, long, value_name = "FILE.npy")]
    out: Option<PathBuf>,
}

/// The document of `embed --json`.
#[derive(Serialize)]
struct Embedded {
    /// Numbers of a vector.
    width: usize,
    /// Tokens of each text.
    tokens: Vec<usize>,
    /// Where the vectors went, if not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// A vector for each text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    embeddings: Vec<Vec<f32>>,
}

/// Embeds every text.
///
/// # Errors
/// When a text is no UTF-8 or too long, or the model cannot be loaded.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    let texts = texts(options)?;
    let mut loader = Loader::new(terminal, &options.model, &options.run)?;
    // The head is not asked, so nothing is packed for it.
    loader.setup.head = Some(HeadForm::Exact);
    let model = loader.open()?;
    match Pooling::of(&model) {
        Pooling::Last => {}
        Pooling::Unsaid(name) => terminal.note(&format!(
            "note: the file says pooling {name}, which is written where nothing was known of it: the last token is taken"
        )),
        Pooling::Other(name) => bail!(
            "unsupported: {} pools by {name}; known is the last token",
            model.path()
        ),
    }
    // What else a tokenizer has to say is about texts that are continued.
    let tokenizer = loader.setup.tokenizer(&model)?;
    let mut ready = loader.ready(model)?;
    let _watch = signals::watch();
    let (mut embeddings, mut tokens) = (Vec::new(), Vec::new());
    for (i, text) in texts.iter().enumerate() {
        if signals::asked() {
            bail!("stopped after {i} of {} texts", texts.len());
        }
        let of_text = || format!("text {} of {}", i + 1, texts.len());
        let ids = embed::ids(&tokenizer, text).with_context(of_text)?;
        tokens.push(ids.len());
        embeddings.push(embed::embed(&mut ready.engine, &ids).with_context(of_text)?);
    }
    let width = ready.engine.model().config().hidden;
    let mut report = Embedded {
        width,
        tokens,
        path: None,
        embeddings,
    };
    if let Some(path) = &options.out {
        let rows = std::mem::take(&mut report.embeddings);
        npy::write(path, rows.len(), width, &rows.concat())
            .with_context(|| format!("cannot write {}", path.display()))?;
        report.path = Some(path.display().to_string());
    }
    terminal.print(&report, || text(&report))
}

/// The texts that are asked for, at least one.
fn texts(options: &Options) -> Result<Vec<String>> {
    if !options.prompt.is_empty() {
        let texts = options.prompt.iter().cloned();
        let texts = texts.map(|text| utf8_argument("a text (-p)", text));
        return Ok(texts.collect::<Result<_, _>>()?);
    }
    let (name, all) = match &options.file {
        Some(path) if path.as_path() != Path::new("-") => {
            (path.display().to_string(), utf8_file(path)?)
        }
        _ => {
            let mut all = String::new();
            let read = io::stdin().lock().read_to_string(&mut all);
            read.context("texts from standard input")?;
            ("standard input".to_owned(), all)
        }
    };
    let texts: Vec<String> = all.lines().map(str::to_owned).collect();
    if texts.is_empty() {
        bail!("{name} holds no text: a line is a text; name one with -p");
    }
    Ok(texts)
}

fn text(report: &Embedded) -> String {
    if let Some(path) = &report.path {
        return format!("{path}: f32 [{}, {}]\n", report.tokens.len(), report.width);
    }
    let mut out = String::new();
    for vector in &report.embeddings {
        for (i, v) in vector.iter().enumerate() {
            let _ = write!(out, "{}{v}", if i == 0 { "" } else { " " });
        }
        out.push('\n');
    }
    out
}
