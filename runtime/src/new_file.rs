//! [`NewFile`]: a file that takes its name only when it is complete. Until then it lies under a hidden
//! name beside it, and whatever ends the writing early (an error, a full disk, Ctrl-C) removes it. What a killed
//! program left behind is removed by the next one that writes there: a lock tells the living from the dead.
//!
//! A file that is replaced keeps its permissions, and one that nobody may write is not replaced. A link stays a link:
//! what it points at is written, whether it is there already or not. A device or a pipe cannot be replaced, so it is
//! written as it is.

use std::fs::{File, Permissions};
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
        /// Those of the file that is replaced.
        permissions: Option<Permissions>,
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

/// How the hidden files are called.
const PREFIX: &str = ".bitnet-";
const SUFFIX: &str = ".part";

/// Links that lead to links beyond this are taken for a circle, as the system takes them.
const MAX_LINKS: usize = 40;

/// The folder in which a file is made.
fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Where `path` leads: through links, to what is there or is to be there.
fn followed(path: &Path) -> io::Result<PathBuf> {
    let mut at = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match std::fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_symlink() => at = folder(&at).join(std::fs::read_link(&at)?),
            _ => return Ok(at),
        }
    }
    Err(io::Error::other("its links lead in a circle"))
}

/// Removes what killed programs left in `folder`. Failures are none: there is only more left.
fn sweep(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let hidden = name
            .to_str()
            .is_some_and(|n| n.starts_with(PREFIX) && n.ends_with(SUFFIX));
        // Anything but a file (a pipe, say) is not ours, and opening it could block.
        if !hidden || !entry.file_type().is_ok_and(|t| t.is_file()) {
            continue;
        }
        // Who writes it holds its lock as long as it lives.
        if let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

impl NewFile {
    /// Starts the file `path`.
    ///
    /// # Errors
    /// What the system answers; a folder of that name and a file that may not be written are refused.
    pub fn create(path: &Path) -> io::Result<NewFile> {
        let path = followed(path)?;
        let Ok(there) = std::fs::metadata(&path) else {
            return Self::hidden(path, None);
        };
        if there.is_dir() {
            let kind = io::ErrorKind::IsADirectory;
            return Err(io::Error::new(kind, "it is a folder"));
        }
        // The folder alone decides whether a file can be replaced; whether it may be is for its own permissions.
        let file = File::options().write(true).open(&path)?;
        if !there.is_file() {
            let target = Target::Direct(BufWriter::with_capacity(BUFFER_BYTES, file));
            return Ok(NewFile { target });
        }
        if there.permissions().readonly() {
            let kind = io::ErrorKind::PermissionDenied;
            return Err(io::Error::new(kind, "it is read-only"));
        }
        Self::hidden(path, Some(there.permissions()))
    }

    fn hidden(path: PathBuf, permissions: Option<Permissions>) -> io::Result<NewFile> {
        if path.file_name().is_none() {
            let why = "it does not end in the name of a file";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        sweep(folder(&path));
        let file = locked_file_in(folder(&path))?;
        let target = Target::Hidden {
            _listed: Listed::new(file.path()),
            out: BufWriter::with_capacity(BUFFER_BYTES, file),
            name: path,
            permissions,
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
            Target::Hidden {
                out,
                name,
                permissions,
                ..
            } => {
                let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
                if let Some(permissions) = permissions {
                    file.as_file().set_permissions(permissions)?;
                }
                // A full disk may answer only here.
                file.as_file().sync_all()?;
                file.persist(name).map(drop).map_err(|e| e.error)
            }
        }
    }
}

/// A new file under a hidden name, locked.
fn locked_file_in(folder: &Path) -> io::Result<NamedTempFile> {
    // As any new file: what the umask leaves of rw for all.
    let make = |path: &Path| File::options().write(true).create_new(true).open(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    loop {
        let file = builder.make_in(folder, make)?;
        // Where a file system knows no locks nobody can sweep, either.
        let _ = file.as_file().lock();
        // Between its making and its lock another program may have taken it for a dead one's.
        if file.path().exists() {
            return Ok(file);
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
    fn permissions_are_those_of_any_new_file_or_of_the_one_replaced() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mode = |name: &str| std::fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
        let make = |name: &str| NewFile::create(&at(name)).and_then(NewFile::finish);
        std::fs::write(at("plain"), "").unwrap();
        make("ours").unwrap();
        assert_eq!(mode("ours"), mode("plain"));
        std::fs::set_permissions(at("ours"), Permissions::from_mode(0o640)).unwrap();
        make("ours").unwrap();
        assert_eq!(mode("ours"), 0o640);
        std::fs::set_permissions(at("ours"), Permissions::from_mode(0o444)).unwrap();
        let refused = make("ours").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{refused}");
        assert_eq!(names(dir.path()), ["ours", "plain"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link_and_what_it_points_at_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("folder")).unwrap();
        std::os::unix::fs::symlink("folder/file", at("link")).unwrap();
        std::os::unix::fs::symlink("round", at("round")).unwrap();
        for content in ["first", "second"] {
            let mut file = NewFile::create(&at("link")).unwrap();
            file.write_all(content.as_bytes()).unwrap();
            file.finish().unwrap();
            assert!(std::fs::symlink_metadata(at("link")).unwrap().is_symlink());
            let written = std::fs::read_to_string(at("folder/file")).unwrap();
            assert_eq!(written, content);
        }
        assert!(NewFile::create(&at("round")).is_err());
    }

    #[test]
    fn what_the_dead_left_is_swept_and_the_living_are_not_disturbed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at(".bitnet-dead.part"), "half").unwrap();
        std::fs::write(at(".bitnet-other"), "not ours").unwrap();
        let mut living = NewFile::create(&at("living")).unwrap();
        living.write_all(b"x").unwrap();
        assert!(!at(".bitnet-dead.part").exists());
        NewFile::create(&at("next"))
            .and_then(NewFile::finish)
            .unwrap();
        living.finish().unwrap();
        assert_eq!(names(dir.path()), [".bitnet-other", "living", "next"]);
    }

    #[test]
    fn errors_name_no_hidden_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = NewFile::create(&dir.path().join("no/such/x"))
            .err()
            .unwrap();
        assert!(!error.to_string().contains(PREFIX), "{error}");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
