//! `bitnet-tune tune --record`: every candidate of one product, with all its timings, in a file that the search can be
//! played on.

use super::MEASURING;
use super::progress::Progress;
use super::tune::{check_writable, counts};
use crate::host::Host;
use crate::lab::Lab;
use crate::landscape::{self, Landscape};
use crate::space::Atlas;
use crate::space::model::Case;
use crate::tuning::{self, Task};
use anyhow::{Result, bail};
use bitnet_cli::signals;
use bitnet_cli::terminal::Terminal;
use bitnet_codegen::plan;
use bitnet_runtime::new_file::NewFile;
use bitnet_runtime::profile::M_BUCKETS;
use serde::Serialize;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// The document of `tune --record --json`.
#[derive(Serialize)]
struct Recorded {
    path: String,
    candidates: usize,
    best_ns: f64,
}

/// Times every candidate of the one product of `task`.
///
/// # Errors
/// When `task` is of several, or the file cannot be written.
pub fn run(terminal: &Terminal, path: &Path, host: &Host, task: &Task) -> Result<()> {
    let ([product], [bucket], [threads]) =
        (&task.products[..], &task.buckets[..], &task.threads[..])
    else {
        bail!(
            "a recording is of one product: name it, for instance by --product 2560x2560 --m 1 -t 1 ({} products, {} token counts, {} thread counts are asked for)",
            task.products.len(),
            task.buckets.len(),
            task.threads.len()
        );
    };
    check_writable(path)?;
    terminal.note(&format!("measuring {}", host.machine.kind()));
    let measured = host.measure(&counts(&task.threads, host), MEASURING)?;
    let m = M_BUCKETS[*bucket].first;
    let case = Case::new(*product, m, *threads, task.cold);
    let features = host.features;
    let mut atlas = Atlas::new(Box::new(move |s| s.isa.runs_on(features)));
    let costs = host.costs(&measured);
    let space = atlas.space(case, &costs);
    let mut lab = Lab::new(features, plan, host.threads, host.last_level_bytes());
    let job = lab.open(&space)?;
    let _watch = signals::watch();
    let progress = Progress::new(terminal, Duration::ZERO, 1);
    let samples = {
        let mut bench = lab.bench(job);
        landscape::record(&space, &mut bench, &mut |done, of| {
            progress.counted(done, of);
            !signals::asked()
        })
    };
    progress.finish();
    if samples.is_empty() {
        bail!("stopped while recording; nothing was written");
    }
    let recording = Landscape {
        machine: host.machine.kind(),
        date: tuning::today(),
        case,
        features,
        costs,
        samples,
    };
    let head = format!(
        "# Every candidate of one product with its timings in nanoseconds. Written by\n# bitnet-tune tune --record FILE --product {product} --m {m} -t {threads}\n"
    );
    let mut file = NewFile::create(path)?;
    file.write_all((head + &recording.render()).as_bytes())?;
    file.finish()?;
    let report = Recorded {
        path: path.display().to_string(),
        candidates: recording.samples.len(),
        best_ns: recording.best_ns(),
    };
    terminal.print(&report, || {
        format!(
            "{} ({} candidates, the best takes {:.1} us)\n",
            report.path,
            report.candidates,
            report.best_ns / 1e3
        )
    })
}
