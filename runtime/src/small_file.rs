//! Reading files that are small by nature (texts, tokenizers, profiles) into memory: a limit keeps a wrong path,
//! such as a model or `/dev/zero`, from filling it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// More than any text, tokenizer or vocabulary has.
pub const MAX_TEXT_BYTES: u64 = 256 << 20;

/// The bytes of `path`.
///
/// # Errors
/// What the system answers, or that there are more than `most_bytes`.
pub fn read(path: &Path, most_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    let too_large = || {
        let why = format!("it has more than {most_bytes} bytes, which no file of this kind has");
        io::Error::new(io::ErrorKind::FileTooLarge, why)
    };
    if file.metadata()?.len() > most_bytes {
        return Err(too_large());
    }
    // A device or a pipe has no length; one byte more tells that there is more.
    file.take(most_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most_bytes {
        return Err(too_large());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_the_limit_and_no_further() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        let error = read(&path, 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{error}");
        assert!(read(dir.path(), 5).is_err(), "a folder");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_without_end_has_too_many_bytes() {
        let error = read(Path::new("/dev/zero"), 1000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{error}");
    }
}
