//! `bitnet-tune tune --for`: a profile from the description of a machine that is not here.

use super::progress::Progress;
use crate::described::Described;
use crate::estimate;
use crate::tuning::Task;
use anyhow::{Context as _, Result, bail};
use bitnet_cli::terminal::Terminal;
use bitnet_runtime::{profile, small_file};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// The document of `tune --for --json`.
#[derive(Serialize)]
struct Report {
    path: String,
    machine: String,
    entries: usize,
    estimate: bool,
}

/// No description is longer.
const MAX_BYTES: u64 = 1 << 20;

/// Estimates what `task` asks for on the machine that the first of the two files describes, into the second; on `threads`,
/// or on the numbers that the description names.
///
/// # Errors
/// When the description cannot be read, or the profile not written.
pub fn run(
    terminal: &Terminal,
    (described, out): (&Path, &Path),
    task: Task,
    weights: usize,
    threads: &[usize],
) -> Result<()> {
    let context = || described.display().to_string();
    let bytes = small_file::read(described, MAX_BYTES).with_context(context)?;
    let text = String::from_utf8(bytes).with_context(context)?;
    let mut machine = Described::parse(&text).with_context(context)?;
    if !threads.is_empty() {
        machine.threads = task.threads;
    }
    let last = machine.caches_bytes.iter().copied().max().unwrap_or(0);
    let cold = weights / 4 > last / 2;
    let wanted = machine.threads.len() * task.buckets.len() * task.products.len();
    let progress = Progress::new(terminal, Duration::ZERO, wanted);
    let mut done = 0;
    let made = estimate::profile(&machine, &task.products, &task.buckets, cold, &mut |_| {
        done += 1;
        progress.counted(done, wanted);
    });
    progress.finish();
    if made.entries.is_empty() {
        bail!("no kernel can be had for {}", machine.name);
    }
    profile::save(&made, out)?;
    let report = Report {
        path: out.display().to_string(),
        machine: machine.name,
        entries: made.entries.len(),
        estimate: true,
    };
    terminal.print(&report, || {
        format!(
            "{} ({} kernels estimated for {}; nothing was measured)\n",
            report.path, report.entries, report.machine
        )
    })
}
