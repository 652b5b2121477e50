//! What both binaries do at the terminal: results to stdout, notes to stderr, one line and an exit code for errors.

use anyhow::{Context as _, Result};
use bitnet_runtime::new_file::remove_unfinished;
use bitnet_runtime::setup::Ready;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// How results and notes are printed.
pub struct Terminal {
    json: bool,
}

impl Terminal {
    /// Prints JSON documents if `json`.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether results are JSON documents.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A line on standard error.
    pub fn note(&self, text: &str) {
        // A closed standard error is no reason to stop.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// What is to be said of the profile and of memory for code, if anything; once a run.
    pub fn tell(&self, ready: &Ready) {
        if let Some(note) = &ready.found.note {
            self.note(&format!("note: {note}"));
        }
        if let Some(why) = &ready.no_code {
            self.note(&format!(
                "note: {why}; kernels are interpreted: the same answers, many times slower"
            ));
        }
    }

    /// The result: JSON if asked for, else `text()`.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn print(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        let out = if self.json {
            serde_json::to_string_pretty(value).context("JSON of the result")? + "\n"
        } else {
            text()
        };
        self.write(&out)?;
        Ok(())
    }

    /// Text to standard output, at once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// A progress bar over `total` bytes on a terminal, nothing elsewhere.
    pub fn progress_bytes(&self, total: u64) -> indicatif::ProgressBar {
        if !io::stderr().is_terminal() {
            return indicatif::ProgressBar::hidden();
        }
        let style = indicatif::ProgressStyle::with_template(
            "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        );
        let bar = indicatif::ProgressBar::new(total);
        match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}

/// The first Ctrl-C sets `stop`; a second one ends a program that does not come to its next look at it.
pub fn on_ctrl_c(stop: &'static AtomicBool) {
    let handler = ctrlc::set_handler(move || {
        if stop.swap(true, Ordering::Relaxed) {
            remove_unfinished();
            std::process::exit(130);
        }
    });
    if let Err(e) = handler {
        let _ = writeln!(io::stderr(), "note: Ctrl-C ends the program at once: {e}");
    }
}

/// The exit code of a result: 0, or 1 with one line. Whoever closed our output has seen enough: that is no failure.
pub fn exit_code(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if is_closed_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(io::stderr(), "error: {}", one_line(&e));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes in one line; a cause that the line already tells is not told again.
fn one_line(e: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in e.chain().map(ToString::to_string) {
        if !line.contains(&cause) {
            line += if line.is_empty() { "" } else { ": " };
            line += &cause;
        }
    }
    line.replace('\n', " ")
}

fn is_closed_pipe(e: &anyhow::Error) -> bool {
    e.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_that_says_nothing_twice() {
        let cause = || io::Error::other("the disk\nis gone");
        let told = anyhow::Error::new(cause()).context("cannot write x: the disk\nis gone");
        assert_eq!(one_line(&told), "cannot write x: the disk is gone");
        let untold = anyhow::Error::new(cause()).context("cannot write x");
        assert_eq!(one_line(&untold), "cannot write x: the disk is gone");
    }
}
