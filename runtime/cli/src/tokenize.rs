//! `bitnet-run tokenize`: the ids of a text.

use crate::args::ModelArgs;
use crate::load::Loader;
use crate::terminal::Terminal;
use anyhow::Result;
use bitnet_runtime::tokenizer::{Specials, utf8_argument};
use clap::Args;
use serde::Serialize;
use std::ffi::OsString;

/// What to tokenize.
#[derive(Args)]
pub struct Options {
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

/// The document of `tokenize --json`.
#[derive(Serialize)]
struct Ids {
    ids: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pieces: Option<Vec<String>>,
}

/// Prints ids.
///
/// # Errors
/// When the text is not UTF-8 or the vocabulary cannot express it.
pub fn run(terminal: &Terminal, options: Options) -> Result<()> {
    let loader = Loader::to_read(terminal, &options.model)?;
    let tokenizer = loader.tokenizer(&loader.open()?)?;
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
