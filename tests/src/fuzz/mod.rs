//! Fuzzing with structure: documents that are nearly right, in every format that the programs read.
//!
//! A target turns a seed into one execution: it draws a document, spoils it a little, and hands it to the library.
//! Whatever comes back is fine (a model, or an error of one short printable line); a panic, an abort, a stack that
//! overflows, more than [`LIMIT`] of time or memory, or an error that nobody can read is a finding. The same seed is
//! always the same execution, so a finding is told as its target and seed. What was found gets a test of its own in
//! the room that was at fault: seeds mean other documents once a target changes.
//!
//! ```text
//! cargo run --release -p bitnet-tests --bin fuzz -- --seconds 120                      every target, as CI does
//! cargo run --release -p bitnet-tests --bin fuzz -- --executions 10000000 --jobs 2     the long run
//! cargo run --release -p bitnet-tests --bin fuzz -- --target gguf --seed 12345         one execution, to look at it
//! ```

pub mod draw;
pub mod gguf;
pub mod hugging_face;
pub mod json;
pub mod profile;
pub mod seeds;
pub mod spec;
pub mod template;
pub mod text;
pub mod tokenizer;

use cpu_time::ProcessTime;
use draw::Draw;
use std::time::Duration;

/// One kind of document.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is spoiled, and what then has to be survived.
    pub about: &'static str,
    /// Share of the executions, of a hundred.
    pub weight: u32,
    /// One execution.
    run: fn(&mut Draw) -> Result<(), String>,
}

/// Every target; the only list.
pub const TARGETS: &[Target] = &[
    Target {
        name: "gguf",
        about: "GGUF files: keys, tensors, offsets, types, data; opened, decoded, inspected, tokenised",
        weight: 60,
        run: gguf::run,
    },
    Target {
        name: "hugging-face",
        about: "safetensors header and data beside config.json; opened, decoded, inspected",
        weight: 20,
        run: hugging_face::run,
    },
    Target {
        name: "tokenizer",
        about: "tokenizer.json and its neighbours; loaded, texts encoded and decoded",
        weight: 10,
        run: tokenizer::run,
    },
    Target {
        name: "template",
        about: "chat templates; parsed and rendered",
        weight: 2,
        run: template::run,
    },
    Target {
        name: "profile",
        about: "hardware profiles; parsed, written back and parsed again",
        weight: 5,
        run: profile::run,
    },
    Target {
        name: "spec",
        about: "names of kernels; parsed, planned and proven",
        weight: 3,
        run: spec::run,
    },
];

/// What one execution may take: documents are small, so anything near it is a fault.
pub struct Limit {
    /// Processor time of all threads: what else the machine does is no finding. Whoever sleeps is found by the supervisor.
    pub time: Duration,
    /// Bytes on the heap beyond what was there before.
    pub heap_bytes: usize,
}

/// The limit of every execution.
pub const LIMIT: Limit = Limit {
    time: Duration::from_secs(1),
    heap_bytes: 256 << 20,
};

/// The target called `name`.
pub fn by_name(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}

impl Target {
    /// Runs the execution of `seed`.
    ///
    /// # Errors
    /// What was found, in a line.
    pub fn execute(&self, seed: u64) -> Result<(), String> {
        let start = ProcessTime::now();
        (self.run)(&mut Draw::new(seed))?;
        let took = start.elapsed();
        if took > LIMIT.time {
            return Err(format!("took {took:.1?}, more than {:?}", LIMIT.time));
        }
        Ok(())
    }
}

/// No document drawn here is longer; an error may quote what it is about, the terminal shows its beginning.
const MAX_ERROR_CHARS: usize = 100_000;

/// An error says something, and not more than the document.
pub(crate) fn readable(error: &dyn std::error::Error) -> Result<(), String> {
    let line = error.to_string();
    let cut: String = line.chars().take(200).collect();
    if line.chars().count() > MAX_ERROR_CHARS {
        return Err(format!("an error of {} bytes: {cut:?}", line.len()));
    }
    if line.is_empty() {
        return Err("an error without a word".into());
    }
    Ok(())
}
