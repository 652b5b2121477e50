//! [`Sequence`]: one conversation, that is, its tokens and what the network remembers of them.

mod cache;
mod file;
mod kv;

pub(crate) use cache::{CacheShape, HeadCache, KvCache, pages_of};
pub use cache::{KEY_BLOCK, NoMemory, PAGE};
pub use file::{FileError, FileErrorKind};
pub(crate) use kv::{HeadLayout, SLAB};
pub use kv::{KvType, UnknownKvType};

use crate::network::Network;
use std::sync::Arc;

/// Positions that a sequence may hold where nobody says how many.
pub const DEFAULT_CONTEXT: usize = 4096;

/// How to set a sequence up.
#[derive(Clone, Debug, Default)]
pub struct SequenceOptions {
    /// Positions it may hold; by default the model's own, at most [`DEFAULT_CONTEXT`].
    pub n_ctx: Option<usize>,
    /// How keys and values are stored, [`KvType::F16`] by default.
    pub kv: KvType,
}

/// The asked context makes no sense for the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a context of {asked} tokens: expected 1 to {trained}, what the model was trained for")]
pub struct ContextError {
    /// What was asked for.
    pub asked: usize,
    /// The model's own length.
    pub trained: usize,
}

/// One conversation. Its memory grows with its tokens, a page of [`PAGE`] positions at a time.
pub struct Sequence {
    network: Arc<Network>,
    tokens: Vec<u32>,
    cache: KvCache,
    n_ctx: usize,
}

impl Sequence {
    /// An empty conversation with `network`.
    ///
    /// # Errors
    /// [`ContextError`].
    pub fn new(network: &Arc<Network>, options: &SequenceOptions) -> Result<Self, ContextError> {
        let config = network.config();
        let trained = config.context_len;
        let n_ctx = options.n_ctx.unwrap_or(trained.min(DEFAULT_CONTEXT));
        if n_ctx == 0 || n_ctx > trained {
            return Err(ContextError {
                asked: n_ctx,
                trained,
            });
        }
        Ok(Self {
            network: Arc::clone(network),
            tokens: Vec::new(),
            cache: KvCache::new(CacheShape::of(config, options.kv)),
            n_ctx,
        })
    }

    /// What it converses with.
    pub fn network(&self) -> &Arc<Network> {
        &self.network
    }

    /// The tokens held.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many tokens are held: the position of the next one.
    pub fn position(&self) -> usize {
        self.tokens.len()
    }

    /// How many tokens can be held.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Bytes of keys and values, those shared with forks included.
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Keys and values.
    pub(crate) fn cache(&self) -> &KvCache {
        &self.cache
    }

    /// A second conversation with the same past. The past is shared, not copied, but for the page in use.
    pub fn fork(&self) -> Self {
        Self {
            network: Arc::clone(&self.network),
            tokens: self.tokens.clone(),
            cache: self.cache.fork(self.position()),
            n_ctx: self.n_ctx,
        }
    }

    /// Forgets everything after the first `len` tokens; nothing when `len` is at least [`Self::position`].
    /// Memory is kept for the tokens to come; see [`Self::release`].
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
    }

    /// Gives back the memory that no held token needs.
    pub fn release(&mut self) {
        self.cache.release_after(self.position());
        self.tokens.shrink_to_fit();
    }

    /// Makes room for `more` tokens; nothing is allocated until they are used up.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn make_room(&mut self, more: usize) -> Result<(), NoMemory> {
        let new = self.position()..self.position() + more;
        let pages = pages_of(&new);
        // The list of tokens grows with the pages, so that nothing is allocated between two of them.
        self.tokens.reserve(pages.end * PAGE - new.start);
        self.cache.make_room(new)
    }

    /// Keys and values, to be written by a step.
    pub(crate) fn cache_mut(&mut self) -> &mut KvCache {
        &mut self.cache
    }

    /// Takes tokens whose keys and values were stored.
    pub(crate) fn append(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
    }
}
