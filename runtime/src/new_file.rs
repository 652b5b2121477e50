//! [`NewFile`]: a file that takes its name only when it is complete. Until then it lies under a hidden
//! name beside it, and whatever ends the writing early (an error, a full disk, Ctrl-C) removes it.
//!
//! A device or a pipe cannot be replaced, so it is written as it is.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::NamedTempFile;

/// Hidden files that are being written, for [`remove_unfinished`].
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

const BUFFER_BYTES: usize = 1 << 20;

/// A file in the making; dropped before [`NewFile::finish`], nothing of it is left.
pub struct NewFile {
    target: Target,
}

enum Target {
    /// The file under its hidden name, and the name to take.
    Hidden {
        out: BufWriter<NamedTempFile>,
        name: PathBuf,
        _listed: Listed,
    },
    /// A device or a pipe.
    Direct(BufWriter<File>),
}

/// An entry of [`UNFINISHED`].
struct Listed(PathBuf);

impl Listed {
    fn new(path: &Path) -> Self {
        let mut list = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(path.to_path_buf());
        Self(path.to_path_buf())
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut list = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|path| *path != self.0);
    }
}

/// Removes every file that is still being written, for a program that ends without unwinding.
pub fn remove_unfinished() {
    let mut list = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    for path in list.drain(..) {
        // Nothing better can be done about a failure than to end, as was asked.
        let _ = std::fs::remove_file(path);
    }
}

/// The folder in which a file is made.
fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

impl NewFile {
    /// Starts the file `path`.
    ///
    /// # Errors
    /// What the system answers; a folder of that name is refused.
    pub fn create(path: &Path) -> io::Result<NewFile> {
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => Err(io::Error::new(
                io::ErrorKind::IsADirectory,
                "it is a folder",
            )),
            Ok(meta) if !meta.is_file() => {
                let file = File::options().write(true).open(path)?;
                let target = Target::Direct(BufWriter::with_capacity(BUFFER_BYTES, file));
                Ok(NewFile { target })
            }
            // A link stays a link: what it points at is replaced.
            Ok(_) => Self::hidden(std::fs::canonicalize(path)?),
            Err(_) => Self::hidden(path.to_path_buf()),
        }
    }

    fn hidden(path: PathBuf) -> io::Result<NewFile> {
        if path.file_name().is_none() {
            let why = "it does not end in the name of a file";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".bitnet-").suffix(".part");
        #[cfg(unix)]
        {
            // As any new file: what the umask leaves of rw for all.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file = builder.tempfile_in(folder(&path))?;
        let target = Target::Hidden {
            _listed: Listed::new(file.path()),
            out: BufWriter::with_capacity(BUFFER_BYTES, file),
            name: path,
        };
        Ok(NewFile { target })
    }

    /// Completes the file and gives it its name.
    ///
    /// # Errors
    /// What the system answers; nothing is left then, and a file that had the name before is as it was.
    pub fn finish(self) -> io::Result<()> {
        match self.target {
            Target::Direct(mut out) => out.flush(),
            Target::Hidden { out, name, .. } => {
                let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
                // A full disk may answer only here.
                file.as_file().sync_all()?;
                file.persist(name).map(drop).map_err(|e| e.error)
            }
        }
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.target {
            Target::Hidden { out, .. } => out.write(bytes),
            Target::Direct(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::Hidden { out, .. } => out.flush(),
            Target::Direct(out) => out.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "old").unwrap();
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        file.flush().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        let all = names(dir.path());
        assert!(all.len() == 2 && all[0].starts_with(".bitnet-"), "{all:?}");
        drop(file);
        assert_eq!(names(dir.path()), ["x"], "dropped early, nothing is left");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        file.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["x"]);
    }

    #[test]
    fn places_that_cannot_be_written_are_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for path in [
            dir.path().to_path_buf(),
            at("no/such/x"),
            at(".."),
            PathBuf::from("/"),
            PathBuf::new(),
        ] {
            assert!(NewFile::create(&path).is_err(), "{}", path.display());
        }
        assert!(names(dir.path()).is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_device_is_written_and_never_replaced() {
        use std::os::unix::fs::FileTypeExt;
        let path = Path::new("/dev/full");
        let mut file = NewFile::create(path).unwrap();
        file.write_all(b"x").unwrap();
        let error = file.finish().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
        let kind = std::fs::metadata(path).unwrap().file_type();
        assert!(kind.is_char_device(), "/dev/full is still a device");
    }

    #[cfg(unix)]
    #[test]
    fn new_files_have_the_permissions_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = |name: &str| {
            let meta = std::fs::metadata(dir.path().join(name)).unwrap();
            meta.permissions().mode() & 0o777
        };
        std::fs::write(dir.path().join("plain"), "").unwrap();
        NewFile::create(&dir.path().join("ours"))
            .and_then(NewFile::finish)
            .unwrap();
        assert_eq!(mode("ours"), mode("plain"));
    }
}
