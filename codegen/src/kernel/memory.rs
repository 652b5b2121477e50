#![expect(
    unsafe_code,
    reason = "tells the processor that bytes have become instructions"
)]
//! [`Executable`]: memory that holds code, of exactly the size that the code takes.
//!
//! Memory is writable first and executable afterwards, never both. Code has no relocations, so it needs no
//! linker; whole pages are mapped for each batch of functions, because a page that runs cannot be written.
//! A system may refuse (`MemoryDenyWriteExecute`, SELinux without `execmem`) or be out of address space: both
//! are answers, not accidents.

use memmap2::{Mmap, MmapMut};
use std::io;
use std::ops::Range;
use wasmtime_internal_jit_icache_coherence as icache;

/// Where functions start: on a cache line, which also suits the constants that follow code.
const ALIGN: usize = 64;

/// Why there is no memory for code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The system does not let this process make memory executable.
    #[error(
        "the system does not let this process make memory executable ({bytes} bytes): {source}"
    )]
    Refused {
        /// Bytes of code.
        bytes: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The memory itself cannot be had.
    #[error("no memory for {bytes} bytes of code: {source}")]
    Exhausted {
        /// Bytes of code.
        bytes: usize,
        /// What the system said.
        source: io::Error,
    },
}

/// Functions in executable memory; freed with the value.
#[derive(Debug)]
pub struct Executable {
    map: Mmap,
    functions: Vec<Range<usize>>,
}

impl Executable {
    /// Puts `functions`, each position-independent code without relocations, where they can run.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn new(functions: &[&[u8]]) -> Result<Self, MemoryError> {
        let mut end = 0;
        let functions_at: Vec<Range<usize>> = functions
            .iter()
            .map(|code| {
                let start = usize::next_multiple_of(end, ALIGN);
                end = start + code.len();
                start..end
            })
            .collect();
        let bytes = end;
        let mut map =
            MmapMut::map_anon(bytes).map_err(|source| MemoryError::Exhausted { bytes, source })?;
        for (code, at) in functions.iter().zip(&functions_at) {
            map[at.clone()].copy_from_slice(code);
        }
        // SAFETY: the range is the mapping's own, and nothing runs in it yet.
        let flushed = unsafe { icache::clear_cache(map.as_ptr().cast(), bytes) };
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::OutOfMemory => MemoryError::Exhausted { bytes, source },
            _ => MemoryError::Refused { bytes, source },
        };
        let map = flushed
            .and_then(|()| map.make_exec())
            .and_then(|map| icache::pipeline_flush_mt().map(|()| map))
            .map_err(refused)?;
        Ok(Self {
            map,
            functions: functions_at,
        })
    }

    /// Code that is mapped already, `functions` lying in it.
    ///
    /// # Panics
    /// When a function lies outside the mapping.
    pub fn of(map: Mmap, functions: Vec<Range<usize>>) -> Self {
        let inside = |f: &Range<usize>| f.start <= f.end && f.end <= map.len();
        assert!(functions.iter().all(inside), "functions in the mapping");
        Self { map, functions }
    }

    /// The code of function `i`, in the order given.
    pub fn code(&self, i: usize) -> &[u8] {
        &self.map[self.functions[i].clone()]
    }
}
