//! `bitnet-tune tune --check`: two tunings of the same machine, entry by entry.

use crate::agreement::{Verdict, question};
use anyhow::{Result, bail};
use bitnet_cli::terminal::Terminal;
use bitnet_runtime::profile::Entry;
use serde::Serialize;

/// One entry twice.
#[derive(Serialize)]
struct Again {
    n: usize,
    k: usize,
    tokens: String,
    threads: usize,
    before: String,
    now: String,
    agrees: bool,
    slower_by: f64,
}

/// The document of `tune --check --json`.
#[derive(Serialize)]
struct Agreement {
    agree: usize,
    of: usize,
    entries: Vec<Again>,
}

/// Compares two tunings entry by entry: the same winner, or one that ties with it, is agreement.
///
/// # Errors
/// When they have no product in common.
pub fn print(terminal: &Terminal, before: &[Entry], now: &[Entry]) -> Result<()> {
    let pairs = now.iter().filter_map(|b| {
        let same = |a: &&Entry| question(a) == question(b);
        before.iter().find(same).map(|a| (a, b))
    });
    let entries: Vec<Again> = pairs
        .map(|(a, b)| Again {
            n: a.n,
            k: a.k,
            tokens: a.bucket.to_string(),
            threads: a.evidence.threads,
            before: a.spec.to_string(),
            now: b.spec.to_string(),
            agrees: Verdict::of(a, b) != Verdict::Differs,
            slower_by: b.evidence.median_ns / a.evidence.median_ns - 1.0,
        })
        .collect();
    if entries.is_empty() {
        bail!("the profile holds none of these products; tune without --check first");
    }
    let report = Agreement {
        agree: entries.iter().filter(|e| e.agrees).count(),
        of: entries.len(),
        entries,
    };
    terminal.print(&report, || {
        let mut text = String::new();
        for e in &report.entries {
            let word = if e.agrees { "agrees" } else { "DIFFERS" };
            text += &format!(
                "{word:<7} {:>6} x {:>6}  M {:>6}  {} threads  {:+5.1} %  {}",
                e.n,
                e.k,
                e.tokens,
                e.threads,
                e.slower_by * 100.0,
                e.before
            );
            text += &match e.before == e.now {
                true => "\n".to_owned(),
                false => format!("  now {}\n", e.now),
            };
        }
        text + &format!("{} of {} entries agree\n", report.agree, report.of)
    })
}
