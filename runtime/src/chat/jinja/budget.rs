//! What running a template may cost: steps and bytes, paid before they are taken, and never given back.
//!
//! Bytes that are freed again still count. So the sum of all values ever made bounds the memory at any moment, and
//! copying, too, which is most of what a hostile template could make a program do.

use std::cell::Cell;

use super::failure::{Failure, Result};

/// Steps of any template. One is an expression, a statement, a turn of a loop, an element looked at, or
/// [`BYTES_A_STEP`] bytes looked at; some tens of nanoseconds. A thousand messages take some ten thousand.
const STEPS: u64 = 1 << 21;

/// Steps more for each byte that the template is given.
const STEPS_A_BYTE: u64 = 4;

/// Bytes that values of any template may take, all of them together.
const BYTES: u64 = 64 << 20;

/// Bytes more for each byte that the template is given.
const BYTES_A_BYTE: u64 = 32;

/// Bytes that searching passes in one step.
const BYTES_A_STEP: usize = 64;

/// What is left to spend.
pub struct Budget {
    steps: Cell<u64>,
    bytes: Cell<u64>,
}

impl Budget {
    /// For a template that is given `n_bytes` of text.
    pub fn new(n_bytes: usize) -> Self {
        let given = u64::try_from(n_bytes).unwrap_or(u64::MAX);
        Self {
            steps: Cell::new(STEPS.saturating_add(given.saturating_mul(STEPS_A_BYTE))),
            bytes: Cell::new(BYTES.saturating_add(given.saturating_mul(BYTES_A_BYTE))),
        }
    }

    /// Pays for `n` steps.
    pub fn steps(&self, n: usize) -> Result<()> {
        spend(&self.steps, n, "steps")
    }

    /// Pays for looking through `n` bytes.
    pub fn search(&self, n: usize) -> Result<()> {
        self.steps(1 + n / BYTES_A_STEP)
    }

    /// Pays for `n` bytes of a value, and for writing them.
    pub fn bytes(&self, n: usize) -> Result<()> {
        spend(&self.bytes, n, "bytes of text and lists")?;
        self.search(n)
    }
}

fn spend(left: &Cell<u64>, n: usize, what: &'static str) -> Result<()> {
    let n = u64::try_from(n).unwrap_or(u64::MAX);
    match left.get().checked_sub(n) {
        Some(rest) => {
            left.set(rest);
            Ok(())
        }
        None => Err(Failure::costly(what)),
    }
}

/// A text that is paid for as it grows.
pub struct Text<'b> {
    budget: &'b Budget,
    text: String,
}

impl<'b> Text<'b> {
    /// Nothing yet.
    pub fn new(budget: &'b Budget) -> Self {
        Self {
            budget,
            text: String::new(),
        }
    }

    /// Adds `text`.
    pub fn push(&mut self, text: &str) -> Result<()> {
        self.budget.bytes(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    /// Adds one character.
    pub fn push_char(&mut self, c: char) -> Result<()> {
        self.push(c.encode_utf8(&mut [0; 4]))
    }

    /// Adds `text`, `n` times.
    pub fn repeat(&mut self, text: &str, n: usize) -> Result<()> {
        self.budget.bytes(text.len().saturating_mul(n))?;
        for _ in 0..n {
            self.text.push_str(text);
        }
        Ok(())
    }

    /// The whole.
    pub fn finish(self) -> String {
        self.text
    }
}
