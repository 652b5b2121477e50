//! From options to a model that is ready to run: open, tokenizer, threads, profile, kernels, engine.

use crate::demo;
use crate::engine::{Engine, EngineError, EngineOptions};
use crate::format::Model;
use crate::format::{self, LoadError, OpenOptions};
use crate::network::Network;
use crate::network::head::HeadForm;
use crate::network::kernels::{Kernels, NoCode};
use crate::network::packed_cache::{Kept, PackedCache};
use crate::pack::Pack;
use crate::pool::{Pool, PoolError};
use crate::profile::{self, Found, Machine};
use crate::tokenizer::{Tokenizer, TokenizerError};
use bitnet_codegen::{Features, KernelSpec};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What to load and how.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// GGUF file or Hugging Face folder; the demo model where absent.
    pub model: Option<PathBuf>,
    /// How to read it.
    pub open: OpenOptions,
    /// The pre-tokeniser, against what a GGUF file says.
    pub pre: Option<String>,
    /// Threads; all where absent.
    pub threads: Option<usize>,
    /// A profile, before all other places.
    pub profile: Option<PathBuf>,
    /// Kernels that were compiled ahead, and the profile that chose them where no other is given.
    pub pack: Option<Arc<Pack>>,
    /// One kernel for everything.
    pub kernel: Option<KernelSpec>,
    /// What kernels may use of the CPU; all that it announces, where absent. See [`crate::proven`].
    pub features: Option<Features>,
    /// How the LM head finds the likeliest tokens; as suits its table where absent.
    pub head: Option<HeadForm>,
    /// Positions and batches.
    pub engine: EngineOptions,
    /// A folder that keeps packed weights, see [`PackedCache`]; the demo model is never kept.
    pub cache: Option<PathBuf>,
}

/// Why it cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The model.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Its tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The threads.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The weights, kernels or context.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A model that is ready to run.
pub struct Ready {
    /// The engine.
    pub engine: Engine,
    /// Where kernels were looked up.
    pub found: Found,
    /// Why kernels are interpreted although this CPU could run code, if any is.
    pub no_code: Option<NoCode>,
    /// Where kernels that were compiled ahead come from.
    pub pack: Option<Arc<Pack>>,
    /// What is kept of the packed weights; the caller chooses when [`Ready::keep`] adds to it.
    pub cache: Option<PackedCache>,
    /// How long loading took.
    pub load: Duration,
}

impl Ready {
    /// Keeps the packed weights for the next start, where they were not read from there and are worth it.
    ///
    /// # Errors
    /// When they cannot be written; nothing is left of them then.
    pub fn keep(&self) -> io::Result<Option<Kept>> {
        match &self.cache {
            Some(cache) => self.engine.network().keep(cache),
            None => Ok(None),
        }
    }
}

impl Setup {
    /// Opens the model alone.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn open_model(&self) -> Result<Model, LoadError> {
        match &self.model {
            Some(path) => format::open(path, &self.open),
            None => demo::open(&self.open),
        }
    }

    /// What the reader of a file assumed; nothing for the demo model, which leaves nothing to assume.
    pub fn notes<'m>(&self, model: &'m Model) -> &'m [String] {
        if self.model.is_some() {
            model.notes()
        } else {
            &[]
        }
    }

    /// The tokenizer of `model`.
    ///
    /// # Errors
    /// [`SetupError::Load`] or [`SetupError::Tokenizer`].
    pub fn tokenizer(&self, model: &Model) -> Result<Tokenizer, SetupError> {
        tokenizer(model, self.pre.as_deref())
    }

    /// Packs `model` and emits its kernels.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn ready(&self, model: Model) -> Result<Ready, SetupError> {
        let start = Instant::now();
        let threads = self.threads.unwrap_or_else(default_threads);
        let pool = Arc::new(Pool::new(threads)?);
        let cpu = self.features.unwrap_or_else(Features::detect);
        let here = Machine::probe();
        let mut found = match (&self.profile, &self.pack) {
            (None, Some(pack)) => profile::of_pack(&pack.file().profile, pack.path(), &here, cpu),
            (asked, _) => profile::find(asked.as_deref(), &here, cpu),
        };
        let mut kernels = match &self.kernel {
            Some(spec) => Kernels::forced(cpu, spec.clone()),
            None => Kernels::new(cpu, found.profile.clone()).on_threads(threads),
        }
        .with_head(self.head);
        if let Some(pack) = &self.pack {
            kernels = kernels.with_pack(pack);
        }
        let cache = match (&self.cache, &self.model) {
            // A model whose file was taken away since it was opened is packed.
            (Some(folder), Some(path)) => PackedCache::open(folder, path, &model).ok(),
            _ => None,
        };
        let network = Network::with_cache(Arc::new(model), &pool, &mut kernels, cache.as_ref());
        let network = Arc::new(network.map_err(EngineError::from)?);
        let engine = Engine::of(network, pool, &self.engine).map_err(EngineError::from)?;
        for note in kernels.notes() {
            let told = found.note.get_or_insert_default();
            *told = [told.as_str(), &note].join(if told.is_empty() { "" } else { "; " });
        }
        Ok(Ready {
            engine,
            found,
            no_code: kernels.into_no_code(),
            pack: self.pack.clone(),
            cache,
            load: start.elapsed(),
        })
    }
}

/// The tokenizer that belongs to `model`, checked against its embedding; `pre` overrides the pre-tokeniser of a
/// GGUF file.
///
/// # Errors
/// [`SetupError::Load`] or [`SetupError::Tokenizer`].
pub fn tokenizer(model: &Model, pre: Option<&str>) -> Result<Tokenizer, SetupError> {
    Ok(Tokenizer::of(
        &model.vocabulary()?,
        model.config().vocab,
        pre,
    )?)
}

/// Threads that this process may run at once.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}
