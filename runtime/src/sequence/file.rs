//! A conversation as a file: [`Sequence::save`] and [`Sequence::load`].
//!
//! ```text
//! "bitnet sequence\n"                 16 bytes
//! version, type of keys and values    u32 each
//! digest of the model                 32 bytes
//! layers, KV heads, columns of a head u32 each
//! tokens                              u64, then a u32 each
//! keys and values                     for each layer, page, KV head and position: key, value, their scales
//! SHA-256 of all that                 32 bytes
//! ```
//!
//! Numbers are in the order of the machine, which the version tells. A conversation keeps its type of keys and
//! values. The length of the file follows from its head and is compared with the real one before
//! anything is allocated, so memory is taken for what is there and no more.

use super::{CacheShape, ContextError, KvCache, KvType, NoMemory, PAGE, Sequence, SequenceOptions};
use crate::network::{ModelDigest, Network};
use crate::new_file::NewFile;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 16] = b"bitnet sequence\n";
const VERSION: u32 = 1;

/// Bytes before the tokens.
const HEAD_BYTES: u64 = 16 + 4 + 4 + 32 + 3 * 4 + 8;

/// Bytes of the checksum.
const SUM_BYTES: u64 = 32;

/// Why a conversation cannot be saved or loaded.
#[derive(Debug, thiserror::Error)]
#[error("{}: {kind}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub kind: FileErrorKind,
}

/// What is wrong with a saved conversation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileErrorKind {
    /// The system's words.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Something else.
    #[error("it is not a saved conversation")]
    Magic,
    /// Of another version of this program.
    #[error("{field} is {got}, but this program reads {expected}: hold the conversation again")]
    Unknown {
        /// Which number of the head.
        field: &'static str,
        /// What it says.
        got: u32,
        /// What can be read.
        expected: String,
    },
    /// Of another model.
    #[error("it was held with another model: its digest is {got}, not {expected}")]
    Model {
        /// The file's model.
        got: ModelDigest,
        /// The network's.
        expected: ModelDigest,
    },
    /// A length that contradicts its head.
    #[error(
        "it has {got} bytes, not the {expected} that its head asks for: it is cut short or damaged"
    )]
    Length {
        /// The file's.
        got: u64,
        /// What its head asks for; `u64::MAX` where that is more than there can be.
        expected: u64,
    },
    /// The context cannot be as asked.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// More tokens than the context may hold.
    #[error("it holds {tokens} tokens, but the context may hold {n_ctx}: ask for a longer one")]
    TooLong {
        /// Its tokens.
        tokens: u64,
        /// What may be held.
        n_ctx: usize,
    },
    /// A token id beyond the vocabulary.
    #[error("token {index} is {id}, but the vocabulary has {n_vocab}: it is damaged")]
    Token {
        /// Its place.
        index: usize,
        /// The id.
        id: u32,
        /// Ids there are.
        n_vocab: usize,
    },
    /// Content that differs from what was saved.
    #[error("its checksum is wrong: it is damaged")]
    Checksum,
    /// No memory for the keys and values.
    #[error("no memory for its keys and values: {bytes} bytes more")]
    Memory {
        /// What the next page needs.
        bytes: usize,
    },
}

impl From<NoMemory> for FileErrorKind {
    fn from(e: NoMemory) -> Self {
        FileErrorKind::Memory { bytes: e.bytes }
    }
}

impl Sequence {
    /// Writes the conversation to `path`, which has its name only when it is complete.
    ///
    /// # Errors
    /// [`FileError`] with what the system answers.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        self.write(path).map_err(|e| FileError {
            path: path.to_owned(),
            kind: e.into(),
        })
    }

    /// Reads a conversation with `network` from `path`.
    ///
    /// # Errors
    /// [`FileError`] for anything but a whole file that [`Self::save`] wrote of a conversation with this model.
    pub fn load(
        network: &Arc<Network>,
        path: &Path,
        options: &SequenceOptions,
    ) -> Result<Self, FileError> {
        Self::read(network, path, options).map_err(|kind| FileError {
            path: path.to_owned(),
            kind,
        })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut out = Hashed::new(NewFile::create(path)?);
        let shape = self.cache.shape();
        out.write_all(MAGIC)?;
        out.write_all(&VERSION.to_ne_bytes())?;
        out.write_all(&shape.head.kv().id().to_ne_bytes())?;
        out.write_all(&self.network.digest().0)?;
        for number in [shape.layers, shape.kv_heads, shape.head.head_dim()] {
            out.write_all(&(number as u32).to_ne_bytes())?;
        }
        out.write_all(&(self.position() as u64).to_ne_bytes())?;
        for token in &self.tokens {
            out.write_all(&token.to_ne_bytes())?;
        }
        let mut row = vec![0; shape.head.row_bytes()];
        for layer in 0..shape.layers {
            for first in (0..self.position()).step_by(PAGE) {
                let positions = first..self.position().min(first + PAGE);
                for head in 0..shape.kv_heads {
                    let cache = self.cache.head(layer, head);
                    for position in positions.clone() {
                        shape.head.save(cache.slot(position), position, &mut row);
                        out.write_all(&row)?;
                    }
                }
            }
        }
        let Hashed { mut inner, hash } = out;
        inner.write_all(&hash.finalize())?;
        inner.finish()
    }

    fn read(
        network: &Arc<Network>,
        path: &Path,
        options: &SequenceOptions,
    ) -> Result<Self, FileErrorKind> {
        let mut this = Self::new(network, options)?;
        // A pipe would be waited for, and a device has no length.
        if !std::fs::metadata(path)?.is_file() {
            return Err(FileErrorKind::Magic);
        }
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let mut file = Hashed::new(BufReader::with_capacity(1 << 20, file));
        let tokens = this.read_head(&mut file, len)?;
        for index in 0..tokens {
            let id = u32::from_ne_bytes(file.take()?);
            let n_vocab = network.config().vocab;
            if id as usize >= n_vocab {
                return Err(FileErrorKind::Token { index, id, n_vocab });
            }
            this.tokens.push(id);
        }
        this.read_cache(&mut file)?;
        let Hashed { mut inner, hash } = file;
        let mut sum = [0; SUM_BYTES as usize];
        inner.read_exact(&mut sum)?;
        if sum != *hash.finalize() {
            return Err(FileErrorKind::Checksum);
        }
        Ok(this)
    }

    /// The number of tokens, once everything before them was found to be as it must.
    fn read_head(
        &mut self,
        file: &mut Hashed<impl Read>,
        len: u64,
    ) -> Result<usize, FileErrorKind> {
        if len < HEAD_BYTES + SUM_BYTES || file.take()? != *MAGIC {
            return Err(FileErrorKind::Magic);
        }
        file.expect("the version", VERSION)?;
        let id = u32::from_ne_bytes(file.take()?);
        let known = KvType::ALL.into_iter().find(|kv| kv.id() == id);
        let kv = known.ok_or(FileErrorKind::Unknown {
            field: "the type of keys and values",
            got: id,
            expected: "0 to 2".into(),
        })?;
        let shape = CacheShape::of(self.network.config(), kv);
        self.cache = KvCache::new(shape);
        let (got, expected) = (ModelDigest(file.take()?), self.network.digest());
        if got != expected {
            return Err(FileErrorKind::Model { got, expected });
        }
        file.expect("the number of layers", shape.layers as u32)?;
        file.expect("the number of KV heads", shape.kv_heads as u32)?;
        file.expect("the width of a head", shape.head.head_dim() as u32)?;
        let tokens = u64::from_ne_bytes(file.take()?);
        let expected = tokens
            .checked_mul(4 + shape.position_bytes() as u64)
            .and_then(|bytes| bytes.checked_add(HEAD_BYTES + SUM_BYTES))
            .unwrap_or(u64::MAX);
        if len != expected {
            return Err(FileErrorKind::Length { got: len, expected });
        }
        match usize::try_from(tokens) {
            Ok(tokens) if tokens <= self.n_ctx => Ok(tokens),
            _ => Err(FileErrorKind::TooLong {
                tokens,
                n_ctx: self.n_ctx,
            }),
        }
    }

    /// Keys and values of all tokens.
    fn read_cache(&mut self, file: &mut Hashed<impl Read>) -> Result<(), FileErrorKind> {
        let (shape, positions) = (self.cache.shape(), self.tokens.len());
        self.cache.make_room(0..positions)?;
        let mut row = vec![0; shape.head.row_bytes()];
        for layer in 0..shape.layers {
            for (i, slot) in self.cache.slots(layer, 0..positions).enumerate() {
                let first = i / shape.kv_heads * PAGE;
                for position in first..positions.min(first + PAGE) {
                    file.read_exact(&mut row)?;
                    shape.head.restore(slot, position, &row);
                }
            }
        }
        Ok(())
    }
}

/// A file whose bytes are hashed as they pass.
struct Hashed<F> {
    inner: F,
    hash: Sha256,
}

impl<F> Hashed<F> {
    fn new(inner: F) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
        }
    }
}

impl<F: Write> Hashed<F> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.inner.write_all(bytes)
    }
}

impl<F: Read> Hashed<F> {
    fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(bytes)?;
        self.hash.update(bytes);
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn expect(&mut self, field: &'static str, expected: u32) -> Result<(), FileErrorKind> {
        let got = u32::from_ne_bytes(self.take()?);
        if got == expected {
            Ok(())
        } else {
            Err(FileErrorKind::Unknown {
                field,
                got,
                expected: expected.to_string(),
            })
        }
    }
}

#[cfg(test)]
mod tests;
