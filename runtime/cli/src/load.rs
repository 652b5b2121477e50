//! From the arguments to a model that runs, as every subcommand goes there: open the file, read its tokenizer, pack
//! and emit, and say on the way what the readers and the profile have to say.

use crate::args::{ModelArgs, RunArgs};
use crate::signals;
use crate::terminal::Terminal;
use crate::{cpu, pack};
use anyhow::Result;
use bitnet_runtime::format::Model;
use bitnet_runtime::setup::{Ready, Setup};
use bitnet_runtime::tokenizer::Tokenizer;

/// What to load, and where to say what is to be said of it.
pub struct Loader<'a> {
    terminal: &'a Terminal,
    /// The whole of what was asked for; a subcommand may ask for more.
    pub setup: Setup,
}

impl<'a> Loader<'a> {
    /// For a subcommand that runs the model.
    ///
    /// # Errors
    /// When a file that the arguments name cannot be read.
    pub fn new(terminal: &'a Terminal, model: &ModelArgs, run: &RunArgs) -> Result<Self> {
        let features = cpu::features(terminal);
        let pack = run.pack.as_deref();
        let setup = Setup {
            features: Some(features),
            pack: pack.and_then(|path| pack::open(terminal, path, features)),
            ..model.setup_to_run(run)?
        };
        Ok(Self { terminal, setup })
    }

    /// For a subcommand that only reads the model.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn to_read(terminal: &'a Terminal, model: &ModelArgs) -> Result<Self> {
        let setup = model.setup()?;
        Ok(Self { terminal, setup })
    }

    /// Opens the model and says what its reader assumed.
    ///
    /// # Errors
    /// When it is no model.
    pub fn open(&self) -> Result<Model> {
        let model = self.setup.open_model()?;
        self.say(self.setup.notes(&model));
        Ok(model)
    }

    /// Reads the tokenizer of `model` and says what was assumed of it.
    ///
    /// # Errors
    /// When there is none, or none that this runtime knows.
    pub fn tokenizer(&self, model: &Model) -> Result<Tokenizer> {
        let tokenizer = self.setup.tokenizer(model)?;
        self.say(tokenizer.notes());
        Ok(tokenizer)
    }

    /// Packs `model` and emits its kernels; says which profile they are of, where that is worth a word.
    ///
    /// # Errors
    /// When memory, threads or the context do not suffice.
    pub fn ready(&self, model: Model) -> Result<Ready> {
        let ready = self.setup.ready(model)?;
        // Who names the kernel does not ask a profile.
        if self.setup.kernel.is_none() {
            self.terminal.tell(&ready);
        }
        if let Some(cache) = &ready.cache {
            self.say(&cache.notes());
        }
        Ok(ready)
    }

    /// Keeps the packed weights of `ready` for the next start and says how much that is; not those of a kernel that was
    /// named, which is an experiment. To be called when what was asked for is done: it takes about a second.
    pub fn keep(&self, ready: &Ready) {
        if self.setup.kernel.is_some() || signals::asked() {
            return;
        }
        match ready.keep() {
            Ok(None) => {}
            Ok(Some(kept)) => self.terminal.note(&format!(
                "note: packed weights are kept in {} ({:.1} GB) for the next start; --no-cache keeps none",
                kept.path.display(),
                kept.bytes as f64 / 1e9
            )),
            Err(why) => self
                .terminal
                .note(&format!("note: packed weights cannot be kept: {why}")),
        }
    }

    fn say(&self, notes: &[String]) {
        for note in notes {
            self.terminal.note(&format!("note: {note}"));
        }
    }
}
