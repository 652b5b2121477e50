#![expect(
    unsafe_code,
    reason = "takes the word of whoever mapped code for what the code does"
)]
//! [`Library`]: code that was compiled before and lies in a mapping that may be executed, found by what it computes.
//!
//! It is called like code that was just emitted. What an emitter vouches for there, the file vouches for here: nothing
//! can tell by looking what code would touch, so a library is trusted as a program is. What can be looked at is: that
//! functions lie inside, apart from each other and aligned, that the stubs are the known ones, and on each request that
//! the CPU has what the code needs. That sums are right is for the caller to try before it relies on them.

use super::memory::Executable;
use crate::abi::{PREFETCH_LINES, prefetch_stub};
use crate::isa::{Arch, Features};
use crate::key::Key;
use memmap2::Mmap;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Where functions of a library start: at multiples of this from the start of the mapping.
pub const ALIGN: usize = 64;

/// A piece of code in a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// What it computes.
    pub key: Key,
    /// What it needs of the CPU.
    pub features: Features,
    /// Its bytes.
    pub at: Range<usize>,
}

/// Why code is no library.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LibraryError {
    /// A function does not lie where functions may.
    #[error("code at bytes {} to {} of {have}: functions lie inside, at multiples of {ALIGN}, and are not empty", at.start, at.end)]
    Place {
        /// Where it would lie.
        at: Range<usize>,
        /// Bytes there are.
        have: usize,
    },
    /// Two functions share bytes or a key.
    #[error("two functions have the key {0} or lie on each other")]
    Twice(Key),
    /// The stubs that kernels call are missing or others.
    #[error("the stub that prefetches {lines} lines on {} is not there as this build knows it", Arch::HOST.name())]
    Stub {
        /// Lines of the stub.
        lines: usize,
    },
}

/// Code that was compiled before.
#[derive(Debug)]
pub struct Library {
    /// The stubs come first, as [`super::Emitted`] expects.
    memory: Arc<Executable>,
    functions: HashMap<Key, (usize, Features)>,
}

impl Library {
    /// The `functions` in `map`.
    ///
    /// # Errors
    /// [`LibraryError`].
    ///
    /// # Safety
    /// * `map` may be executed, and its bytes are not changed while this or a kernel of it lives.
    /// * Each function is what an emitter of this crate made of a program with its key, in the convention
    ///   [`crate::abi::ABI`], for a CPU with its features.
    pub unsafe fn new(map: Mmap, functions: Vec<Function>) -> Result<Self, LibraryError> {
        let mut by_place: Vec<&Function> = functions.iter().collect();
        by_place.sort_by_key(|f| f.at.start);
        for (i, f) in by_place.iter().enumerate() {
            let whole = f.at.start < f.at.end && f.at.end <= map.len();
            if !whole || !f.at.start.is_multiple_of(ALIGN) {
                let (at, have) = (f.at.clone(), map.len());
                return Err(LibraryError::Place { at, have });
            }
            if i > 0 && by_place[i - 1].at.end > f.at.start {
                return Err(LibraryError::Twice(f.key));
            }
        }
        let mut at: Vec<Range<usize>> = Vec::with_capacity(functions.len() + PREFETCH_LINES.len());
        for lines in PREFETCH_LINES {
            let key = Key::of_stub(Arch::HOST, lines);
            let known = prefetch_stub(Arch::HOST, lines);
            let stub = functions.iter().find(|f| f.key == key);
            match stub.filter(|f| map[f.at.clone()] == known) {
                Some(stub) => at.push(stub.at.clone()),
                None => return Err(LibraryError::Stub { lines }),
            }
        }
        let mut found = HashMap::new();
        for f in functions {
            if found.insert(f.key, (at.len(), f.features)).is_some() {
                return Err(LibraryError::Twice(f.key));
            }
            at.push(f.at);
        }
        Ok(Self {
            memory: Arc::new(Executable::of(map, at)),
            functions: found,
        })
    }

    /// How many functions there are, the stubs among them.
    pub fn len(&self) -> usize {
        self.functions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// The place of the code of `key`, where `cpu` can run it.
    pub(super) fn find(&self, key: &Key, cpu: Features) -> Option<usize> {
        let (place, needs) = self.functions.get(key)?;
        cpu.contains(*needs).then_some(*place)
    }

    /// The memory that places are of.
    pub(super) fn memory(&self) -> &Arc<Executable> {
        &self.memory
    }
}
