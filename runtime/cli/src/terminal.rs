//! What both binaries do at the terminal: results to stdout, notes to stderr, one line and an exit code for errors.
//!
//! The one place where text meets a terminal, so the one place that makes it harmless: control characters of names,
//! templates and profiles, which come from files of strangers, are printed as escapes (`\u{1b}`), and messages are cut
//! at a length that a person reads. What a model says goes out as it is into a file or a pipe; on a terminal its
//! control characters (but tab and new line) are escaped as well, since a model can be made to say anything: a
//! sequence that renames the window or fills the clipboard is not text.

use crate::signals;
use anyhow::{Context as _, Result};
use bitnet_runtime::setup::Ready;
use serde::Serialize;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

/// How results and notes are printed.
pub struct Terminal {
    json: bool,
    /// Whether standard output is a terminal.
    interactive: bool,
}

impl Terminal {
    /// Prints JSON documents if `json`.
    pub fn new(json: bool) -> Self {
        Self {
            json,
            interactive: io::stdout().is_terminal(),
        }
    }

    /// Whether results are JSON documents.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A line on standard error.
    pub fn note(&self, text: &str) {
        // A closed standard error is no reason to stop.
        let _ = writeln!(io::stderr(), "{}", message(text));
    }

    /// What is to be said of the profile and of code, if anything; once a run.
    pub fn tell(&self, ready: &Ready) {
        if let Some(note) = &ready.found.note {
            self.note(&format!("note: {note}"));
        }
        if let Some(why) = &ready.no_code {
            let (which, how) = match ready.pack {
                Some(_) => (
                    "kernels that the pack has not got",
                    "`bitnet-tune compile -o k.pack` with this model and profile compiles them ahead, for --pack k.pack",
                ),
                None => (
                    "kernels",
                    "`bitnet-tune compile -o k.pack` compiles them ahead, and --pack k.pack runs them here",
                ),
            };
            self.note(&format!(
                "note: {why}; {which} are interpreted: the same answers, many times slower; {how}"
            ));
        }
    }

    /// The result: JSON if asked for, else `text()`.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn print(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        let out = if self.json {
            escape_json(serde_json::to_string_pretty(value).context("JSON of the result")?) + "\n"
        } else {
            escape(&text()).into_owned()
        };
        write(&out).context("cannot write to standard output")
    }

    /// A piece of a prompt or of what a model says, at once; nothing where results are JSON documents.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn stream(&self, piece: &str) -> io::Result<()> {
        match (self.json, self.interactive) {
            (true, _) => Ok(()),
            (false, true) => write(&escape(piece)),
            (false, false) => write(piece),
        }
    }

    /// A text of our own beside what is streamed.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn say(&self, text: &str) -> Result<()> {
        self.stream(text).context("cannot write to standard output")
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

/// Text to standard output, at once.
fn write(text: &str) -> io::Result<()> {
    signals::while_writing(|| {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    })
}

/// The exit code of a result: 0, or 1 with one line; that of the signal if one cut the work short.
/// Whoever closed our output has seen enough: that is no failure.
pub fn exit_code(result: Result<()>) -> ExitCode {
    let otherwise = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if is_closed_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(io::stderr(), "error: {}", message(&one_line(&e)));
            ExitCode::FAILURE
        }
    };
    signals::cut().unwrap_or(otherwise)
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
    line
}

fn is_closed_pipe(e: &anyhow::Error) -> bool {
    e.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Of a longer message this many characters are printed, from its beginning and its end.
const HEAD_CHARS: usize = 800;
const TAIL_CHARS: usize = 200;

/// A message as one line that is safe to print and short enough to read.
fn message(text: &str) -> String {
    let line = text.replace('\n', " ");
    let length = line.chars().count();
    if length <= HEAD_CHARS + TAIL_CHARS {
        return escape(&line).into_owned();
    }
    let head: String = line.chars().take(HEAD_CHARS).collect();
    let tail: String = line.chars().skip(length - TAIL_CHARS).collect();
    let left_out = length - HEAD_CHARS - TAIL_CHARS;
    format!(
        "{} [... {left_out} characters ...] {}",
        escape(&head),
        escape(&tail)
    )
}

/// Whether a terminal does something else with `c` than to show it: control characters, and those that turn the
/// direction of what follows or end a line unseen.
fn is_active(c: char) -> bool {
    let turns =
        matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
    turns || (c.is_control() && c != '\n' && c != '\t')
}

/// `text` with every character that a terminal acts upon written as Rust writes it.
fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_active) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_active(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The same for a JSON document, in which such characters stand within strings only: as JSON writes them.
fn escape_json(document: String) -> String {
    if !document.contains(is_active) {
        return document;
    }
    let mut out = String::with_capacity(document.len() + 16);
    for c in document.chars() {
        match is_active(c) {
            // All of them lie below U+10000, so one escape each.
            true => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_that_says_nothing_twice() {
        let cause = || io::Error::other("the disk\nis gone");
        let told = anyhow::Error::new(cause()).context("cannot write x: the disk\nis gone");
        assert_eq!(
            message(&one_line(&told)),
            "cannot write x: the disk is gone"
        );
        let untold = anyhow::Error::new(cause()).context("cannot write x");
        assert_eq!(
            message(&one_line(&untold)),
            "cannot write x: the disk is gone"
        );
    }

    #[test]
    fn no_message_acts_on_the_terminal() {
        let active = "a\u{1b}]0;title\u{7}\u{9b}2J\r\u{7f}\u{202e}b";
        let told = message(active);
        assert!(
            told.is_ascii() && !told.contains(char::is_control),
            "{told:?}"
        );
        assert!(told.contains("\\u{1b}]0;title\\u{7}"), "{told}");
        assert_eq!(message("Grüße\tvon 你"), "Grüße\tvon 你", "text stays");
        let json = escape_json(serde_json::to_string(active).expect("JSON"));
        assert!(
            json.is_ascii() && !json.contains(char::is_control),
            "{json:?}"
        );
        let back: String = serde_json::from_str(&json).expect("still JSON");
        assert_eq!(back, active);
    }

    #[test]
    fn a_long_message_keeps_its_beginning_and_its_end() {
        let long = format!("begin {} end", "é".repeat(70_000));
        let told = message(&long);
        assert!(told.starts_with("begin é") && told.ends_with("é end"));
        assert!(told.chars().count() < 1100 && told.contains("characters"));
    }
}
