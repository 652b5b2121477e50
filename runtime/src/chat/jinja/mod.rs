//! Jinja for chat templates, which come from files and may say anything: an answer or one error, soon and in little
//! memory, whatever they say.
//!
//! minijinja reads them. It does not run them: its fuel counts instructions, while one instruction can double a text,
//! go through a list of lists, or compare two texts of megabytes, and its values nest without end. The interpreter
//! here walks the same tree and pays for every step and every byte before it takes them (`budget`); its values nest
//! no deeper than 150 levels and form no cycles (`value`); expressions, statements and macros nest no deeper than 500
//! (`run`), the text itself no deeper than 400 (`read`). All of it runs on a stack of its own that has room for that,
//! whatever is left of the caller's.
//!
//! The dialect is Python's Jinja2 as transformers sets it up, in its immutable sandbox: output and `repr` as Python
//! writes them, lists and mappings that cannot be changed, `tojson`, `raise_exception`, `strftime_now`, loop controls.
//! Left out are other templates (`include`, `extends`, `import`), recursive loops, `groupby`, `xmlattr` and what else
//! is for pages.

mod args;
mod budget;
mod clock;
mod eval;
mod failure;
mod filters;
mod functions;
mod lists;
mod methods;
mod ops;
mod percent;
mod predicates;
mod print;
mod read;
mod run;
mod texts;
mod value;

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::panic::resume_unwind;
use std::thread::Builder;

use serde_json::Value as Json;

pub use failure::{Failure, FailureKind};

use budget::Budget;
use run::Run;
use value::Value;

/// For the levels that a template may have, several times over. Memory is taken only as it is used.
const STACK_BYTES: usize = 16 << 20;

/// Why a template gave no text.
#[derive(Debug)]
pub enum JinjaError {
    /// It is not a template, in words.
    Unreadable(String),
    /// It stopped.
    Failed(Box<Failure>),
    /// The system has no stack for it.
    NoThread(io::Error),
}

/// Whether `source` can be read.
///
/// # Errors
/// Why it cannot.
pub fn check(source: &str) -> Result<(), JinjaError> {
    let source = newlines(source);
    let read = on_own_stack(|| read::read(&source).map(drop))?;
    read.map_err(JinjaError::Unreadable)
}

/// What `source` puts out, given variables by name.
///
/// # Errors
/// When it cannot be read, raises an exception, does what has no meaning, or wants more than `max_bytes` of output
/// or than its [`budget`].
pub fn render(
    source: &str,
    variables: &[(&str, Json)],
    max_bytes: usize,
) -> Result<String, JinjaError> {
    // The tree borrows the text, so it is read anew each time; that takes less than a token does.
    let source = newlines(source);
    on_own_stack(|| {
        let template = read::read(&source).map_err(JinjaError::Unreadable)?;
        let n_bytes = variables.iter().map(|(_, json)| text_bytes(json)).sum();
        let budget = Budget::new(n_bytes);
        let given = variables
            .iter()
            .map(|(name, json)| Ok(((*name).to_owned(), Value::from_json(json)?)))
            .collect::<failure::Result<HashMap<String, Value>>>()
            .map_err(JinjaError::Failed)?;
        let run = Run::new(&budget, &given, max_bytes);
        run.whole(&template).map_err(JinjaError::Failed)
    })?
}

/// Lines end in one character, whatever the file's do.
fn newlines(source: &str) -> Cow<'_, str> {
    match source.contains('\r') {
        true => source.replace("\r\n", "\n").replace('\r', "\n").into(),
        false => source.into(),
    }
}

/// Bytes of the texts in `json`.
pub fn text_bytes(json: &Json) -> usize {
    match json {
        Json::String(text) => text.len(),
        Json::Array(items) => items.iter().map(text_bytes).sum(),
        Json::Object(entries) => {
            let entry = |(key, value): (&String, &Json)| key.len() + text_bytes(value);
            entries.iter().map(entry).sum()
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => 0,
    }
}

fn on_own_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, JinjaError> {
    std::thread::scope(|scope| {
        let thread = Builder::new()
            .name("chat template".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(JinjaError::NoThread)?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

#[cfg(test)]
mod tests;
