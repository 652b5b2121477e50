#![expect(
    unsafe_code,
    reason = "maps a file as code, and passes on the word of whoever names it"
)]
//! [`Pack`]: kernels compiled ahead, in one file that is mapped as code, for systems that let nobody make code, builds
//! without a compiler, and a quick start.
//!
//! ```text
//! magic · format version · length · SHA-256 of everything else      (container.rs)
//! manifest   target, ABI, generator, CPU features, the table of kernels, what each piece of code is   (manifest.rs)
//! profile    the choice that goes with the code: a profile as `bitnet-tune tune` writes it
//! code       position independent, without relocations, at multiples of 64 bytes
//! ```
//! **A pack is code and is trusted like a program.** The hash finds damage, not malice: who can write the file can write
//! a hash that fits. What is found out before anything runs: length and hash, format, ABI, target, CPU features, where
//! functions lie. What is found out by running, before a kernel is used: that it answers a known product exactly.

mod container;
mod manifest;
mod write;

pub use manifest::{Code, Manifest, Row};
pub use write::{Builder, Empty};

use crate::profile::{self, Profile, ProfileError};
use crate::small_file;
use bitnet_codegen::abi::ABI;
use bitnet_codegen::isa::Arch;
use bitnet_codegen::kernel::library::LibraryError;
use bitnet_codegen::{Features, Library};
use memmap2::MmapOptions;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// No pack is larger.
const MAX_BYTES: u64 = 1 << 30;

/// Why a pack is not used: one line, and the next source of code is asked.
#[derive(Debug, thiserror::Error)]
#[error("pack {}: {why}", path.display())]
pub struct PackError {
    /// The file.
    pub path: PathBuf,
    /// The reason.
    pub why: Refusal,
}

/// What is wrong with a pack, or with it on this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The file cannot be read.
    #[error("cannot read it: {0}")]
    Read(io::Error),
    /// The file system or the system's rules let nobody run what is in the file.
    #[error("the system does not map it as code: {0}")]
    Map(io::Error),
    /// It is something else.
    #[error("it is no kernel pack: `bitnet-tune compile` writes one")]
    NotAPack,
    /// Another build's format.
    #[error("format version {got}, this build reads {want}: compile it again")]
    Version {
        /// The file's.
        got: u32,
        /// This build's.
        want: u32,
    },
    /// It is shorter or longer than it says.
    #[error("it says that it has {want} bytes and has {have}: it was cut or added to")]
    Length {
        /// Bytes it says.
        want: u64,
        /// Bytes it has.
        have: u64,
    },
    /// Its hash is another.
    #[error("its SHA-256 is not that of its bytes: it is damaged")]
    Damaged,
    /// A part that cannot be.
    #[error("its {part}: {why}")]
    Part {
        /// Which.
        part: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The profile in it.
    #[error("its profile: {0}")]
    Profile(ProfileError),
    /// Another convention of calls.
    #[error("its code is called as {got} says, this build calls as {ABI} says: compile it again")]
    Abi {
        /// The file's.
        got: String,
    },
    /// Another processor family.
    #[error("it is for {got}, this is {}", Arch::HOST.name())]
    Target {
        /// The file's.
        got: String,
    },
    /// A lesser CPU, or one whose features are not used.
    #[error("it needs {missing}, which this CPU has not")]
    Features {
        /// What is missing.
        missing: Features,
    },
    /// Functions that lie where none may.
    #[error(transparent)]
    Code(LibraryError),
}

/// What a pack says of itself, without running anything.
#[derive(Clone, Debug)]
pub struct PackFile {
    /// What is in it.
    pub manifest: Manifest,
    /// The choice that goes with the code; without entries where kernels were estimated.
    pub profile: Profile,
    /// Bytes of the file.
    pub file_bytes: usize,
}

impl PackFile {
    /// Reads and checks a pack of any machine.
    ///
    /// # Errors
    /// [`PackError`].
    pub fn read(path: &Path) -> Result<Self, PackError> {
        let bytes = small_file::read(path, MAX_BYTES).map_err(Refusal::Read);
        let parsed = bytes.and_then(|bytes| Ok(Self::parse(&bytes)?.0));
        parsed.map_err(|why| refused(path, why))
    }

    /// Whether the file begins like a pack.
    pub fn is_one(path: &Path) -> bool {
        let mut head = [0; container::MAGIC.len()];
        let is_file = std::fs::metadata(path).is_ok_and(|m| m.is_file());
        let read = |mut file: File| file.read_exact(&mut head);
        is_file && File::open(path).and_then(read).is_ok() && head == container::MAGIC
    }

    /// The file in `bytes`, and where its code begins.
    fn parse(bytes: &[u8]) -> Result<(Self, usize), Refusal> {
        let parts = container::open(bytes)?;
        let file = Self {
            manifest: Manifest::parse(parts.manifest, parts.code.len())?,
            profile: profile::parse(parts.profile).map_err(Refusal::Profile)?,
            file_bytes: bytes.len(),
        };
        Ok((file, parts.code.start))
    }
}

/// Kernels compiled ahead, ready to be called on this machine.
#[derive(Debug)]
pub struct Pack {
    path: PathBuf,
    file: PackFile,
    library: Arc<Library>,
}

impl Pack {
    /// Maps the pack in `path` for a CPU with the features `cpu`, a subset of what this CPU has.
    ///
    /// # Errors
    /// [`PackError`]; nothing of it has run then.
    ///
    /// # Safety
    /// The file is code that the caller trusts as it trusts this program: each function in it was emitted from the
    /// program that its key names. Nobody changes or shortens the file while the pack or a kernel of it lives.
    pub unsafe fn open(path: &Path, cpu: Features) -> Result<Self, PackError> {
        // SAFETY: passed on.
        let opened = unsafe { Self::map(path, cpu) };
        opened.map_err(|why| refused(path, why))
    }

    /// # Safety
    /// As [`Self::open`].
    unsafe fn map(path: &Path, cpu: Features) -> Result<Self, Refusal> {
        // Asked before opening: a pipe would wait for a writer.
        let there = std::fs::metadata(path).map_err(Refusal::Read)?;
        if !there.is_file() || there.len() > MAX_BYTES || there.len() == 0 {
            return Err(Refusal::NotAPack);
        }
        let file = File::open(path).map_err(Refusal::Read)?;
        // Read before it is mapped as code, so that what is wrong with a file is told also where nothing may run.
        let bytes = small_file::read(path, MAX_BYTES).map_err(Refusal::Read)?;
        let (said, _) = PackFile::parse(&bytes)?;
        said.manifest.fits(cpu)?;
        drop(bytes);
        // SAFETY: nobody changes the file, says the caller.
        let map = unsafe { MmapOptions::new().map_exec(&file) }.map_err(Refusal::Map)?;
        // The very bytes that will run: the file may have been replaced in between.
        let (file, code_at) = PackFile::parse(&map)?;
        let functions = file.manifest.fits(cpu)?.functions(code_at);
        // SAFETY: mapped as code above, never written by this process; the rest is what the caller vouches for.
        let library = unsafe { Library::new(map, functions) }.map_err(Refusal::Code)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            library: Arc::new(library),
        })
    }

    /// Where it was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of itself.
    pub fn file(&self) -> &PackFile {
        &self.file
    }

    /// Its code.
    pub fn library(&self) -> &Arc<Library> {
        &self.library
    }
}

fn refused(path: &Path, why: Refusal) -> PackError {
    PackError {
        path: path.to_owned(),
        why,
    }
}

#[cfg(test)]
mod tests;
