//! [`CacheFile`]: one file of packed weights: named sections, each with sums that are checked as it is read.
//!
//! ```text
//! "bitnet packed 1\n"   16 bytes
//! length of the header   8 bytes, little-endian
//! XXH3 of the header     8 bytes
//! header                 JSON: the key, and of each section its name, place, length and the XXH3 of each RUN of it
//! sections               each at a multiple of PAGE
//! ```
//!
//! Sections are read, not mapped: a mapped file lies on pages of 4 KiB, which costs decoding a fifth of the
//! bandwidth, and what is read is checked on the way.

use crate::new_file::NewFile;
use crate::pool::{Chunks, Pool};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 16] = b"bitnet packed 1\n";

/// Bytes before the header.
const FRONT: u64 = 32;

/// Where sections begin.
const PAGE: u64 = 4096;

/// Bytes under one sum.
const RUN: usize = 1 << 20;

/// More than the header of any model.
const MAX_HEADER: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    key: String,
    sections: Vec<Section>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    name: String,
    offset: u64,
    len: u64,
    sums: Vec<u64>,
}

/// What a file is not, if it cannot serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum CacheError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no such file, or damaged.
    #[error("{0}")]
    Damaged(&'static str),
    /// It was made from another model, or by another version.
    #[error("it was packed from other weights")]
    Stale,
}

/// A file that can serve.
pub(super) struct CacheFile {
    path: PathBuf,
    file: File,
    sections: HashMap<String, Section>,
    /// What was found wrong with a section.
    spoiled: Mutex<Option<String>>,
}

impl CacheFile {
    /// Opens `path`, if it was made for `key`.
    pub fn open(path: &Path, key: &str) -> Result<Self, CacheError> {
        let mut file = File::open(path)?;
        let held = file.metadata()?.len();
        let mut front = [0; FRONT as usize];
        file.read_exact(&mut front)
            .map_err(|_| CacheError::Damaged("it is cut short"))?;
        let word = |at: usize| u64::from_le_bytes(front[at..at + 8].try_into().expect("8 bytes"));
        let (len, sum) = (word(16), word(24));
        if front[..16] != MAGIC[..] {
            return Err(CacheError::Damaged("it is no file of packed weights"));
        }
        if len > MAX_HEADER || len > held - FRONT {
            return Err(CacheError::Damaged("it is cut short"));
        }
        let mut header = vec![0; len as usize];
        file.read_exact(&mut header)?;
        if xxh3_64(&header) != sum {
            return Err(CacheError::Damaged("its header is damaged"));
        }
        let header: Header = serde_json::from_slice(&header)
            .map_err(|_| CacheError::Damaged("its header is of another version"))?;
        if header.key != key {
            return Err(CacheError::Stale);
        }
        let sound = |s: &Section| {
            let end = s.offset.checked_add(s.len);
            end.is_some_and(|end| end <= held) && s.sums.len() as u64 == s.len.div_ceil(RUN as u64)
        };
        if !header.sections.iter().all(sound) {
            return Err(CacheError::Damaged("it is cut short"));
        }
        let sections = header.sections.into_iter();
        Ok(Self {
            path: path.to_owned(),
            file,
            sections: sections.map(|s| (s.name.clone(), s)).collect(),
            spoiled: Mutex::default(),
        })
    }

    /// Fills `out` with section `name`; `false` where there is none of that length, or it is damaged.
    pub fn read(&self, pool: &Pool, name: &str, out: &mut [u8]) -> bool {
        let Some(section) = self.sections.get(name) else {
            return false;
        };
        if section.len != out.len() as u64 {
            return false;
        }
        let sound = AtomicBool::new(true);
        pool.each(Chunks::new(out, RUN), |_, i, run| {
            let at = section.offset + (i * RUN) as u64;
            if read_at(&self.file, run, at).is_err() || xxh3_64(run) != section.sums[i] {
                sound.store(false, Ordering::Relaxed);
            }
        });
        let sound = sound.into_inner();
        if !sound {
            let mut spoiled = self.spoiled.lock().unwrap_or_else(|e| e.into_inner());
            spoiled.get_or_insert_with(|| name.to_owned());
        }
        sound
    }

    /// What to say of it, if it was found damaged.
    pub fn complaint(&self) -> Option<String> {
        let spoiled = self.spoiled.lock().unwrap_or_else(|e| e.into_inner());
        let name = spoiled.as_ref()?;
        Some(format!("{}: {name} is damaged", self.path.display()))
    }

    /// Writes `sections` for `key`; how many bytes.
    pub fn write(path: &Path, key: &str, sections: &[(String, &[u8])]) -> io::Result<u64> {
        let mut header = Header {
            key: key.to_owned(),
            sections: sections
                .iter()
                .map(|(name, bytes)| section(name, bytes))
                .collect(),
        };
        // With room for the offsets, which are not known yet.
        let longest = serde_json::to_vec(&header)?.len() as u64 + 20 * sections.len() as u64;
        let mut end = (FRONT + longest).next_multiple_of(PAGE);
        for section in &mut header.sections {
            section.offset = end;
            end = (end + section.len).next_multiple_of(PAGE);
        }
        let header_bytes = serde_json::to_vec(&header)?;
        let mut out = NewFile::create(path)?;
        out.write_all(MAGIC)?;
        out.write_all(&(header_bytes.len() as u64).to_le_bytes())?;
        out.write_all(&xxh3_64(&header_bytes).to_le_bytes())?;
        out.write_all(&header_bytes)?;
        let mut at = FRONT + header_bytes.len() as u64;
        for (section, (_, bytes)) in header.sections.iter().zip(sections) {
            io::copy(&mut io::repeat(0).take(section.offset - at), &mut out)?;
            out.write_all(bytes)?;
            at = section.offset + section.len;
        }
        out.finish()?;
        Ok(at)
    }
}

fn section(name: &str, bytes: &[u8]) -> Section {
    Section {
        name: name.to_owned(),
        offset: 0,
        len: bytes.len() as u64,
        sums: bytes.chunks(RUN).map(xxh3_64).collect(),
    }
}

/// Fills `out` from `at` on, whoever else reads the file.
#[cfg(unix)]
fn read_at(file: &File, out: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, at)
}

/// As above.
#[cfg(windows)]
fn read_at(file: &File, mut out: &mut [u8], mut at: u64) -> io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                out = &mut out[n..];
                at += n as u64;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.packed");
        let long: Vec<u8> = (0..RUN + 4097).map(|i| (i * 7 % 251) as u8).collect();
        let sections = [
            ("a".to_owned(), &b"abc"[..]),
            ("b".to_owned(), &long[..]),
            ("c".to_owned(), &[][..]),
        ];
        let bytes = CacheFile::write(&path, "key", &sections).expect("it is written");
        assert_eq!(bytes, std::fs::metadata(&path).expect("it is there").len());
        (folder, path, long)
    }

    #[test]
    fn what_is_written_is_read() {
        let (_folder, path, long) = written();
        let pool = Pool::new(2).expect("threads");
        let file = CacheFile::open(&path, "key").expect("it opens");
        let mut out = vec![0; long.len()];
        assert!(file.read(&pool, "b", &mut out) && out == long);
        assert!(file.read(&pool, "a", &mut out[..3]) && out[..3] == *b"abc");
        assert!(file.read(&pool, "c", &mut []));
        assert!(!file.read(&pool, "a", &mut out[..4]) && !file.read(&pool, "d", &mut []));
        assert_eq!(file.complaint(), None);
        assert!(matches!(
            CacheFile::open(&path, "other"),
            Err(CacheError::Stale)
        ));
    }

    #[test]
    fn a_file_cut_anywhere_or_with_a_flipped_bit_never_gives_other_bytes() {
        let (_folder, path, long) = written();
        let pool = Pool::new(1).expect("threads");
        let whole = std::fs::read(&path).expect("it is there");
        let check = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("it is written");
            let Ok(file) = CacheFile::open(&path, "key") else {
                return false;
            };
            let (mut a, mut b) = ([0; 3], vec![0; long.len()]);
            let read = file.read(&pool, "b", &mut b) && file.read(&pool, "a", &mut a);
            assert_eq!(!read, file.complaint().is_some());
            assert!(!read || (a == *b"abc" && b == long), "other bytes");
            read
        };
        for part in 0..64 {
            assert!(
                !check(&whole[..whole.len() * part / 64]),
                "cut at {part}/64"
            );
        }
        let mut served = 0;
        for noise in bitnet_codegen::noise::Noise::new(1).take(300) {
            let bit = ((u64::from(noise) * 8 * whole.len() as u64) >> 32) as usize;
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Only a bit between two sections changes nothing.
            served += usize::from(check(&flipped));
        }
        assert!(served < 10, "{served} flipped bits changed nothing");
    }
}
