//! The progress of tuning: a bar on a terminal, with what is timed, the best so far and the time left; one line for
//! every search that has ended.

use crate::search::Outcome;
use crate::space::model::Case;
use crate::tuning::Event;
use bitnet_cli::terminal::Terminal;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal as _};
use std::time::Duration;

/// A bar and the lines above it.
pub struct Progress<'t> {
    terminal: &'t Terminal,
    bar: ProgressBar,
    budget: Duration,
}

impl<'t> Progress<'t> {
    /// Of `searches` that together may take `budget`.
    pub fn new(terminal: &'t Terminal, budget: Duration, searches: usize) -> Self {
        let bar = if io::stderr().is_terminal() {
            ProgressBar::new(1000)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {msg}") {
            bar.set_style(style);
        }
        bar.set_message(format!("{searches} searches"));
        Self {
            terminal,
            bar,
            budget,
        }
    }

    /// Shows what has happened.
    pub fn tell(&self, event: &Event<'_>) {
        match event {
            Event::Step {
                case,
                best,
                elapsed,
            } => {
                let share = elapsed.as_secs_f64() / self.budget.as_secs_f64().max(1e-9);
                self.bar.set_position((share * 1000.0).min(1000.0) as u64);
                let best = best.map_or(String::new(), |(spec, ns)| {
                    format!("  {:.1} us {spec}", ns / 1e3)
                });
                let left = self.budget.saturating_sub(*elapsed).as_secs();
                self.bar
                    .set_message(format!("{left} s left  {}{best}", head(case)));
            }
            Event::Ended {
                case,
                outcome,
                open,
            } => self
                .bar
                .suspend(|| self.terminal.note(&line(case, outcome, *open))),
        }
    }

    /// Shows a count instead of a time.
    pub fn counted(&self, done: usize, of: usize) {
        self.bar.set_length(of as u64);
        self.bar.set_position(done as u64);
        self.bar.set_message(format!("{done} of {of}"));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn head(case: &Case) -> String {
    let p = case.problem;
    let groups = case
        .groups
        .map_or(String::new(), |g| format!(" g{}", g.scales.k));
    format!(
        "{:>4} x {:>6} x {:>6}{groups}  {} threads",
        p.m, p.n, p.k, case.threads
    )
}

/// One line about a search that has ended.
pub fn line(case: &Case, outcome: &Outcome, open: usize) -> String {
    let head = head(case);
    let Some((winner, s)) = outcome.winner().and_then(|w| Some((w, w.summary?))) else {
        return format!("{head}  no kernel was measured ({open} searches left)");
    };
    format!(
        "{head}  {:>9.1} us  {:>7.1} GMAC/s  {}  ({} timed{}, {}, {open} searches left)",
        s.median_ns / 1e3,
        case.macs() as f64 / s.median_ns,
        winner.spec,
        outcome.timed(),
        match outcome.tied {
            0 | 1 => String::new(),
            n => format!(", {n} tie"),
        },
        outcome.end.name()
    )
}
