//! What a path turned out to be, before any format is asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::LoadErrorKind;
use super::map::Blob;

/// A file's bytes, or a folder.
pub(super) enum Source {
    File {
        /// For messages.
        path: String,
        /// Where it lies on disk; none for bytes that are part of the program.
        on_disk: Option<PathBuf>,
        bytes: Arc<Blob>,
    },
    Folder {
        path: PathBuf,
    },
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Source, LoadErrorKind> {
        let meta = std::fs::metadata(path).map_err(|reason| LoadErrorKind::Io {
            action: "open",
            reason,
        })?;
        if meta.is_dir() {
            return Ok(Source::Folder {
                path: path.to_path_buf(),
            });
        }
        let bytes = Arc::new(Blob::map(path)?);
        Ok(Source::File {
            path: path.display().to_string(),
            on_disk: Some(path.to_path_buf()),
            bytes,
        })
    }

    /// The first bytes of a file.
    pub(super) fn magic(&self) -> &[u8] {
        match self {
            Source::File { bytes, .. } => &bytes[..bytes.len().min(16)],
            Source::Folder { .. } => &[],
        }
    }
}
