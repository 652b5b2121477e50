//! Writing GGUF files: keys and tensor list first, then the tensors one after the other as they are
//! made, into a [`NewFile`].

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::gguf::{DEFAULT_ALIGNMENT, MAGIC};
use super::metadata::ValueType;
use crate::new_file::NewFile;

/// A file that could not be written. No part of it is left behind.
#[derive(Debug, Error)]
#[error("cannot {action} {path}: {reason}; nothing was written")]
pub struct WriteError {
    /// The file asked for.
    pub path: String,
    /// What was being done.
    pub action: &'static str,
    /// The system's answer.
    pub reason: io::Error,
}

impl WriteError {
    fn new(path: &Path, action: &'static str, reason: io::Error) -> Self {
        Self {
            path: path.display().to_string(),
            action,
            reason,
        }
    }
}

/// A file to be: keys, and the names and sizes of tensors.
#[derive(Debug, Default)]
pub struct GgufWriter {
    keys: Vec<u8>,
    n_keys: u64,
    infos: Vec<u8>,
    sizes: Vec<u64>,
    next: u64,
}

fn put_string(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

impl GgufWriter {
    fn key(&mut self, key: &str, kind: ValueType, value: &[u8]) {
        let mut raw = kind.id().to_le_bytes().to_vec();
        raw.extend(value);
        self.raw(key, &raw);
    }

    /// A key with its type id and value as they stand in another file.
    pub fn raw(&mut self, key: &str, raw: &[u8]) {
        put_string(&mut self.keys, key);
        self.keys.extend(raw);
        self.n_keys += 1;
    }

    /// A string.
    pub fn str(&mut self, key: &str, value: &str) {
        let mut raw = Vec::new();
        put_string(&mut raw, value);
        self.key(key, ValueType::String, &raw);
    }

    /// A count.
    ///
    /// # Panics
    /// When it does not fit in 32 bits.
    pub fn u32(&mut self, key: &str, value: usize) {
        let value = u32::try_from(value).unwrap_or_else(|_| panic!("{key}: {value} as u32"));
        self.key(key, ValueType::U32, &value.to_le_bytes());
    }

    /// A number.
    pub fn f32(&mut self, key: &str, value: f32) {
        self.key(key, ValueType::F32, &value.to_le_bytes());
    }

    /// A flag.
    pub fn bool(&mut self, key: &str, value: bool) {
        self.key(key, ValueType::Bool, &[value as u8]);
    }

    fn array(&mut self, key: &str, element: ValueType, n: usize, values: &[u8]) {
        let mut raw = element.id().to_le_bytes().to_vec();
        raw.extend((n as u64).to_le_bytes());
        raw.extend(values);
        self.key(key, ValueType::Array, &raw);
    }

    /// An array of strings.
    pub fn strings<S: AsRef<str>>(&mut self, key: &str, values: &[S]) {
        let mut raw = Vec::new();
        values.iter().for_each(|s| put_string(&mut raw, s.as_ref()));
        self.array(key, ValueType::String, values.len(), &raw);
    }

    /// An array of numbers.
    pub fn f32s(&mut self, key: &str, values: &[f32]) {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.array(key, ValueType::F32, values.len(), &raw);
    }

    /// An array of integers.
    pub fn i32s(&mut self, key: &str, values: &[i32]) {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.array(key, ValueType::I32, values.len(), &raw);
    }

    /// Declares the next tensor; `dims` outermost first.
    pub fn tensor(&mut self, name: &str, dims: &[usize], type_id: u32, n_bytes: usize) {
        put_string(&mut self.infos, name);
        self.infos.extend((dims.len() as u32).to_le_bytes());
        dims.iter()
            .rev()
            .for_each(|&d| self.infos.extend((d as u64).to_le_bytes()));
        self.infos.extend(type_id.to_le_bytes());
        self.infos.extend(self.next.to_le_bytes());
        self.sizes.push(n_bytes as u64);
        self.next += (n_bytes as u64).next_multiple_of(DEFAULT_ALIGNMENT as u64);
    }

    /// Bytes of all tensors.
    pub fn data_bytes(&self) -> u64 {
        self.next
    }

    /// Everything before the tensors' data.
    pub fn header(&self) -> Vec<u8> {
        let mut header = MAGIC.to_vec();
        header.extend(3u32.to_le_bytes());
        header.extend((self.sizes.len() as u64).to_le_bytes());
        header.extend(self.n_keys.to_le_bytes());
        header.extend(&self.keys);
        header.extend(&self.infos);
        header.resize(header.len().next_multiple_of(DEFAULT_ALIGNMENT), 0);
        header
    }

    /// Starts the file: everything but the tensors' data.
    ///
    /// # Errors
    /// When the file cannot be created beside its final name.
    pub fn create(self, path: &Path) -> Result<GgufFile, WriteError> {
        let header = self.header();
        let new = NewFile::create(path).map_err(|e| WriteError::new(path, "create", e))?;
        let mut file = GgufFile {
            path: path.to_path_buf(),
            file: new,
            sizes: self.sizes,
            done: 0,
        };
        file.write(|w| w.write_all(&header))?;
        Ok(file)
    }
}

/// A file whose tensors are being written, in the order they were declared.
pub struct GgufFile {
    path: PathBuf,
    file: NewFile,
    sizes: Vec<u64>,
    done: usize,
}

/// Counts what passes through.
struct Counter<'a> {
    sink: &'a mut dyn Write,
    n: u64,
}

impl Write for Counter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.sink.write(bytes)?;
        self.n += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

impl GgufFile {
    fn write(
        &mut self,
        body: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), WriteError> {
        body(&mut self.file).map_err(|reason| WriteError::new(&self.path, "write", reason))
    }

    /// Writes the data of the next tensor.
    ///
    /// # Errors
    /// What the system answers to writing; the unfinished file is removed.
    ///
    /// # Panics
    /// When `body` writes another number of bytes than was declared.
    pub fn tensor(
        &mut self,
        body: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), WriteError> {
        let want = self.sizes[self.done];
        self.done += 1;
        self.write(|sink| {
            let mut counter = Counter { sink, n: 0 };
            body(&mut counter)?;
            assert_eq!(counter.n, want, "bytes of a tensor");
            let padding = want.next_multiple_of(DEFAULT_ALIGNMENT as u64) - want;
            counter.write_all(&[0; DEFAULT_ALIGNMENT][..padding as usize])
        })
    }

    /// Completes the file and gives it its name.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    ///
    /// # Panics
    /// When a declared tensor was not written.
    pub fn finish(self) -> Result<(), WriteError> {
        assert_eq!(self.done, self.sizes.len(), "tensors written");
        let finished = self.file.finish();
        finished.map_err(|reason| WriteError::new(&self.path, "write", reason))
    }
}
