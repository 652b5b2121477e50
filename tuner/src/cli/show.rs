//! `bitnet-tune show`: what a profile holds, as a table or as a page of pictures; and what a pack of kernels holds.

use super::explain::{Report, read, report};
use crate::landscape::Landscape;
use anyhow::{Context as _, Result};
use bitnet_cli::terminal::Terminal;
use bitnet_runtime::new_file::NewFile;
use bitnet_runtime::pack::PackFile;
use bitnet_runtime::profile::Profile;
use bitnet_runtime::small_file;
use clap::Args;
use serde::Serialize;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// What to show, and how.
#[derive(Args)]
pub struct Options {
    /// The profile or pack.
    file: PathBuf,
    /// Write one page with pictures here, which needs nothing but a browser.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Show every candidate that `tune --record` kept in these files as well.
    #[arg(long, requires = "html", value_delimiter = ',')]
    recording: Vec<PathBuf>,
}

/// The document of `show --html --json`.
#[derive(Serialize)]
struct Page {
    path: String,
    bytes: usize,
}

/// No recording is larger.
const MAX_RECORDING: u64 = 64 << 20;

/// Shows a profile.
///
/// # Errors
/// When a file is not what it should be, or the page cannot be written.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    if options.html.is_none() && PackFile::is_one(&options.file) {
        return super::compile::show(terminal, &options.file);
    }
    let profile = read(&options.file)?;
    if let Some(out) = &options.html {
        return page(terminal, &profile, &options.recording, out);
    }
    let report = report(&options.file, profile, |_| true);
    terminal.print(&report, || table(&report))
}

fn page(terminal: &Terminal, profile: &Profile, recordings: &[PathBuf], out: &Path) -> Result<()> {
    let recordings = recordings.iter().map(|path| {
        let bytes = small_file::read(path, MAX_RECORDING)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let text = String::from_utf8(bytes).with_context(|| path.display().to_string())?;
        Landscape::parse(&text).with_context(|| path.display().to_string())
    });
    let recordings = recordings.collect::<Result<Vec<_>>>()?;
    let page = crate::report::page(profile, &recordings)?;
    let cannot = || format!("cannot write {}", out.display());
    let mut file = NewFile::create(out).with_context(cannot)?;
    file.write_all(page.as_bytes()).with_context(cannot)?;
    file.finish().with_context(cannot)?;
    let report = Page {
        path: out.display().to_string(),
        bytes: page.len(),
    };
    terminal.print(&report, || {
        format!("{} ({} KiB)\n", report.path, report.bytes.div_ceil(1024))
    })
}

/// All winners as a table.
fn table(report: &Report) -> String {
    let mut out = format!(
        "{}: {}, {}, generator {}{}\n",
        report.path,
        report.cpu,
        report.date,
        report.generator,
        if report.estimate {
            ", an estimate: nothing was measured"
        } else {
            ""
        }
    );
    for r in &report.kernels {
        out += &format!(
            "{:>7} x {:>6}  M {:>6}  {:>2} threads  {:>9.1} us  {:>7.1} GMAC/s  {:>3.0} %  {}{}{}\n",
            r.n,
            r.k,
            r.tokens,
            r.threads,
            r.median_ns / 1e3,
            r.gmac_per_s,
            r.roofline_fraction * 100.0,
            r.spec,
            if r.tied.is_empty() { "" } else { "  tie" },
            if r.thin { "  thin" } else { "" },
        );
    }
    if let Some((first, eight)) = report.model_regret {
        out += &format!(
            "the cost model's first guess is {:.1} % slower than the best, the best of its first eight {:.1} %\n",
            first * 100.0,
            eight * 100.0
        );
    }
    for note in &report.notes {
        out += &format!("note: {note}\n");
    }
    for name in &report.unknown {
        out += &format!("unknown to this build: {name}\n");
    }
    out
}
