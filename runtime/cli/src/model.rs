//! `bitnet-run logits`, `tokenize` and `inspect`: looking into a model.

use super::terminal::Terminal;
use super::{ModelArgs, RunArgs, STOP};
use anyhow::{Context as _, Result, bail};
use bitnet_runtime::decoder::Decoder as _;
use bitnet_runtime::engine::BATCH;
use bitnet_runtime::inspect;
use bitnet_runtime::new_file::NewFile;
use bitnet_runtime::tokenizer::{Specials, utf8_argument};
use clap::Args;
use serde::Serialize;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Which logits.
#[derive(Args)]
pub struct LogitsOptions {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Token ids.
    #[arg(long, value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// The file to write.
    #[arg(short, long)]
    out: PathBuf,
}

/// What to tokenize.
#[derive(Args)]
pub struct TokenizeOptions {
    #[command(flatten)]
    model: ModelArgs,
    /// The text.
    #[arg(short, long, allow_hyphen_values = true)]
    prompt: OsString,
    /// Do not recognise control tokens in the text.
    #[arg(long)]
    plain: bool,
    /// Also print each token's text.
    #[arg(long)]
    pieces: bool,
}

/// What to inspect.
#[derive(Args)]
pub struct InspectOptions {
    #[command(flatten)]
    model: ModelArgs,
}

/// The document of `tokenize --json`.
#[derive(Serialize)]
struct Ids {
    ids: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pieces: Option<Vec<String>>,
}

/// Computes and writes logits.
///
/// # Errors
/// When a token is out of range, the context too short, or the file cannot be written; nothing is left of it then.
pub fn logits(terminal: &Terminal, options: &LogitsOptions) -> Result<()> {
    let setup = options.model.setup_to_run(&options.run)?;
    let mut ready = setup.ready(setup.open_model()?)?;
    if options.run.kernel.is_none() {
        terminal.tell(&ready);
    }
    let n_vocab = ready.engine.n_vocab();
    let mut rows = Vec::with_capacity(options.tokens.len().min(ready.engine.n_ctx()) * n_vocab);
    // All of them are checked before the first is processed, then they go in pieces that Ctrl-C can come between.
    ready.engine.check(&options.tokens)?;
    for piece in options.tokens.chunks(BATCH) {
        if STOP.load(Ordering::Relaxed) {
            bail!("stopped; nothing was written");
        }
        ready
            .engine
            .prefill_each(piece, 0, &mut |_, logits| rows.extend_from_slice(logits))
            .map_err(anyhow::Error::from_boxed)?;
    }
    write_npy(&options.out, options.tokens.len(), n_vocab, &rows)
        .with_context(|| format!("cannot write {}", options.out.display()))?;
    terminal.note(&format!(
        "{}: f32 [{}, {n_vocab}]",
        options.out.display(),
        options.tokens.len()
    ));
    Ok(())
}

/// A NumPy file (format 1.0) of f32 `[rows, cols]`.
fn write_npy(path: &Path, rows: usize, cols: usize, values: &[f32]) -> io::Result<()> {
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {cols}), }}");
    // Magic, version and length take 10 bytes; the data starts at a multiple of 64.
    let len = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.extend(std::iter::repeat_n(' ', len - 1 - header.len()));
    header.push('\n');
    let mut out = NewFile::create(path)?;
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(header.len() as u16).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for v in values {
        out.write_all(&v.to_le_bytes())?;
    }
    out.finish()
}

/// Prints ids.
///
/// # Errors
/// When the text is not UTF-8 or the vocabulary cannot express it.
pub fn tokenize(terminal: &Terminal, options: TokenizeOptions) -> Result<()> {
    let setup = options.model.setup()?;
    let model = setup.open_model()?;
    let tokenizer = setup.tokenizer(&model)?;
    for note in tokenizer.notes() {
        terminal.note(&format!("note: {note}"));
    }
    let text = utf8_argument("the text (-p)", options.prompt)?;
    let ids = if options.plain {
        tokenizer.encode(&text, Specials::AsText)?
    } else {
        tokenizer.encode_prompt(&text)?
    };
    let pieces = options.pieces.then(|| {
        ids.iter()
            .map(|&id| tokenizer.token(id).unwrap_or("").to_owned())
            .collect()
    });
    let report = Ids { ids, pieces };
    terminal.print(&report, || {
        let ids: Vec<String> = report.ids.iter().map(u32::to_string).collect();
        let mut out = ids.join(" ") + "\n";
        for (id, piece) in report.ids.iter().zip(report.pieces.iter().flatten()) {
            out += &format!("{id:>8} {piece:?}\n");
        }
        out
    })
}

/// Prints what a file holds.
///
/// # Errors
/// When the file is not a model.
pub fn inspect(terminal: &Terminal, options: &InspectOptions) -> Result<()> {
    let setup = options.model.setup()?;
    let model = setup.open_model()?;
    let inspection = inspect::inspect(&model);
    terminal.print(&inspection, || inspection.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npy_files_have_an_aligned_header_and_replace_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x.npy");
        write_npy(&path, 2, 3, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).expect("written");
        let bytes = std::fs::read(&path).expect("read");
        let header = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
        assert_eq!((10 + header) % 64, 0);
        assert_eq!(bytes.len(), 10 + header + 24);
        assert!(String::from_utf8_lossy(&bytes[10..10 + header]).contains("'shape': (2, 3)"));
        assert_eq!(&bytes[10 + header..][..4], &1f32.to_le_bytes());
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1);
        assert!(
            write_npy(dir.path(), 1, 1, &[0.0]).is_err(),
            "a folder is not replaced"
        );
    }
}
