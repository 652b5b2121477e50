//! NumPy files (format 1.0) of f32 matrices, whole or not at all.

use bitnet_runtime::new_file::NewFile;
use std::io::{self, Write};
use std::path::Path;

/// Writes `values` as f32 `[rows, cols]`, row-major.
///
/// # Errors
/// What the system answers; nothing is left of the file then.
pub fn write(path: &Path, rows: usize, cols: usize, values: &[f32]) -> io::Result<()> {
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {cols}), }}");
    // Magic, version and length take 10 bytes; the data starts at a multiple of 64.
    let len = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.extend(std::iter::repeat_n(' ', len - 1 - header.len()));
    header.push('\n');
    let mut out = NewFile::create(path)?;
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(header.len() as u16).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for v in values {
        out.write_all(&v.to_le_bytes())?;
    }
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_an_aligned_header_and_replace_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x.npy");
        write(&path, 2, 3, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).expect("written");
        let bytes = std::fs::read(&path).expect("read");
        let header = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
        assert_eq!((10 + header) % 64, 0);
        assert_eq!(bytes.len(), 10 + header + 24);
        assert!(String::from_utf8_lossy(&bytes[10..10 + header]).contains("'shape': (2, 3)"));
        assert_eq!(&bytes[10 + header..][..4], &1f32.to_le_bytes());
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1);
        assert!(
            write(dir.path(), 1, 1, &[0.0]).is_err(),
            "a folder is not replaced"
        );
    }
}
