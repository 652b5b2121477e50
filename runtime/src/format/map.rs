#![expect(
    unsafe_code,
    reason = "mapping a file is unsafe: another process could change it"
)]
//! The bytes of a file, mapped; or bytes that are part of the program.

use std::fmt;
use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use super::error::LoadErrorKind;

/// Read-only bytes that live as long as the model.
pub(crate) enum Blob {
    Mapped(memmap2::Mmap),
    Static(&'static [u8]),
    Owned(Vec<u8>),
}

impl Blob {
    /// Maps a regular file.
    pub(crate) fn map(path: &Path) -> Result<Blob, LoadErrorKind> {
        let io = |action| move |reason| LoadErrorKind::Io { action, reason };
        // Asked before opening: a pipe would wait for a writer.
        let meta = std::fs::metadata(path).map_err(io("open"))?;
        if !meta.is_file() {
            return Err(super::error::unsupported(
                "input that is not a regular file",
                "give a file or a folder",
            ));
        }
        let file = File::open(path).map_err(io("open"))?;
        if file.metadata().map_err(io("read the size of"))?.len() == 0 {
            return Err(LoadErrorKind::Empty);
        }
        // SAFETY: the map is read-only and private to this process. A file that another process
        // changes while it is mapped yields other bytes, which every decoder accepts or refuses
        // by value (no reference into the map is trusted for more than bytes); one that is cut
        // short ends the process with SIGBUS, as with every reader that maps.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io("map"))?;
        Ok(Blob::Mapped(map))
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.len())
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Blob::Mapped(m) => m,
            Blob::Static(b) => b,
            Blob::Owned(v) => v,
        }
    }
}
