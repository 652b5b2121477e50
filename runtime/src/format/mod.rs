//! From files to a [`Model`]: the list of formats, and opening by what a file starts with.
//!
//! A reader checks every count, offset and shape before it trusts them; it allocates no more than
//! the file's own size. Nothing outside this room knows a file dialect.

use std::path::Path;
use std::sync::Arc;

mod assemble;
pub mod dtype;
mod error;
pub mod float;
mod gguf;
pub(crate) mod gguf_config;
mod gguf_model;
mod hf;
mod hf_config;
mod hf_modules;
mod map;
pub mod metadata;
pub(crate) mod model;
mod projection;
mod safetensors;
mod source;
pub(crate) mod store;
pub mod ternary;
pub(crate) mod vocab;
mod write;

use crate::graph::Acts;
pub use error::{LoadError, LoadErrorKind};
use map::Blob;
pub use model::{FloatTensor, Model, TokenizerSource};
use source::Source;
pub use store::TensorInfo;
pub use ternary::{TileConfig, TileError, Tiles};
pub use write::{GgufFile, GgufWriter, WriteError};

/// One way models come.
pub struct Format {
    /// The name, as [`Model::format`] gives it.
    pub name: &'static str,
    /// What it starts with, for messages.
    pub starts_with: &'static str,
    detect: fn(&Source) -> bool,
    open: fn(Source, &OpenOptions) -> Result<Model, LoadErrorKind>,
}

/// Every format; the only list. The first that claims a file opens it.
pub const FORMATS: &[Format] = &[
    Format {
        name: "GGUF",
        starts_with: "\"GGUF\"",
        detect: |s| s.magic().starts_with(&gguf::MAGIC),
        open: gguf_model::open,
    },
    Format {
        name: "safetensors",
        starts_with: "a header length and \"{\"",
        detect: hf::detect,
        open: hf::open,
    },
];

/// The block of an I2_S file, which the file does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum I2sBlock {
    /// 128 codes: x86 builds of bitnet.cpp, every official file.
    #[default]
    B128,
    /// 64 codes: ARM builds of bitnet.cpp since November 2025.
    B64,
}

impl I2sBlock {
    /// Codes of a block.
    pub fn codes(self) -> usize {
        match self {
            I2sBlock::B128 => 128,
            I2sBlock::B64 => 64,
        }
    }

    /// From the number people type.
    pub fn from_codes(codes: usize) -> Option<Self> {
        [I2sBlock::B128, I2sBlock::B64]
            .into_iter()
            .find(|b| b.codes() == codes)
    }
}

/// What a file cannot say about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpenOptions {
    /// The block of I2_S tensors.
    pub i2s_block: I2sBlock,
    /// Tile sizes of TL1 and TL2 tensors.
    pub tiles: TileConfig,
    /// Quantise float projections by absmean even where the file does not ask for it.
    pub absmean: bool,
    /// How finely inputs of ternary products are quantised, against what the file says.
    pub acts: Option<Acts>,
}

/// Opens a GGUF file, a `.safetensors` file beside its `config.json`, or a Hugging Face folder.
///
/// # Errors
/// [`LoadError`]: what is wrong with the file, or what is not supported.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Model, LoadError> {
    let result = Source::open(path).and_then(|source| open_source(source, options));
    result.map_err(|kind| LoadError::new(path.display().to_string(), kind))
}

/// Opens a file that is part of the program, in place.
///
/// # Errors
/// As [`open`].
pub fn open_static(
    name: &str,
    bytes: &'static [u8],
    options: &OpenOptions,
) -> Result<Model, LoadError> {
    open_blob(name, Blob::Static(bytes), options)
}

/// Opens a file that was read into memory.
///
/// # Errors
/// As [`open`].
pub fn open_bytes(name: &str, bytes: Vec<u8>, options: &OpenOptions) -> Result<Model, LoadError> {
    open_blob(name, Blob::Owned(bytes), options)
}

fn open_blob(name: &str, blob: Blob, options: &OpenOptions) -> Result<Model, LoadError> {
    let source = Source::File {
        path: name.to_string(),
        on_disk: None,
        bytes: Arc::new(blob),
    };
    open_source(source, options).map_err(|kind| LoadError::new(name, kind))
}

fn open_source(source: Source, options: &OpenOptions) -> Result<Model, LoadErrorKind> {
    if let Source::File { bytes, .. } = &source
        && bytes.is_empty()
    {
        return Err(LoadErrorKind::Empty);
    }
    match FORMATS.iter().find(|f| (f.detect)(&source)) {
        Some(format) => (format.open)(source, options),
        None => {
            let known: Vec<_> = FORMATS
                .iter()
                .map(|f| format!("{} for {}", f.starts_with, f.name))
                .collect();
            Err(LoadErrorKind::UnknownFormat {
                got: printable(source.magic()),
                expected: known.join(", "),
            })
        }
    }
}

/// The first bytes of a file as text where they are, else in hex.
fn printable(bytes: &[u8]) -> String {
    match bytes.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
        true => format!("{:?}", String::from_utf8_lossy(bytes)),
        false => bytes
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

#[cfg(test)]
mod tests;
