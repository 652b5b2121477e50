//! [`PackedCache`]: packed weights, kept from one start to the next.
//!
//! Packing reads every code of a model; what comes out depends on the model and on the panels that its kernels read.
//! So each packed matrix is a section of a file, named after its product, its panel and what the panel makes of some
//! noise: a layout that packs otherwise than the one that wrote a file finds nothing there. The file is of one model:
//! its key covers [`ModelDigest`] and size and time of the model's files, since the digest looks at samples alone.
//! Every byte read is checked; what is missing or damaged is packed as if there were no file.
//!
//! Other kernels read other panels (another profile, another number of threads), so a model may have up to three files.

mod file;

use crate::format::Model;
use crate::network::ModelDigest;
use crate::pool::Pool;
use crate::profile::path_in_environment;
use bitnet_codegen::layout::Panel;
use bitnet_codegen::noise::Noise;
use bitnet_codegen::{Scales, TernaryMatrix};
use file::{CacheError, CacheFile};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Files of one model.
const MAX_FILES: usize = 3;

/// Weights that are packed in a blink are not kept.
const MIN_BYTES: usize = 64 << 20;

const SUFFIX: &str = ".packed";

/// A packed matrix, or what belongs to one, by name.
pub(crate) type Sections<'n> = Vec<(String, &'n [u8])>;

/// What is kept of one model.
pub struct PackedCache {
    folder: PathBuf,
    /// What names of the model's files begin with.
    stem: String,
    key: String,
    files: Vec<CacheFile>,
    /// Files that serve no more.
    stale: Vec<PathBuf>,
    notes: Vec<String>,
    missed: AtomicBool,
    min_bytes: usize,
    /// What panels make of noise.
    prints: Mutex<HashMap<String, u64>>,
}

/// A file that was written.
pub struct Kept {
    /// Where.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// `bitnet-tune/packed` in the user's folder for caches.
pub fn user_folder() -> Option<PathBuf> {
    let env = path_in_environment;
    let base = if cfg!(windows) {
        env("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        env("HOME").map(|h| h.join("Library/Caches"))
    } else {
        env("XDG_CACHE_HOME").or_else(|| env("HOME").map(|h| h.join(".cache")))
    };
    Some(base?.join("bitnet-tune/packed"))
}

impl PackedCache {
    /// What `folder` keeps of `model`, which was read from `path`. A folder that is not there keeps nothing.
    ///
    /// # Errors
    /// When the model's own files cannot be looked at.
    pub fn open(folder: &Path, path: &Path, model: &Model) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let mut key = Sha256::new();
        key.update(ModelDigest::of(model).0);
        for (name, len, nanos) in stamps(&path)? {
            key.update(format!("{name} {len} {nanos}\n"));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let place = xxh3_64(path.as_os_str().as_encoded_bytes());
        let mut this = Self {
            folder: folder.to_owned(),
            stem: format!("{name}-{place:016x}-"),
            key: format!("{:x}", key.finalize()),
            files: Vec::new(),
            stale: Vec::new(),
            notes: Vec::new(),
            missed: AtomicBool::new(false),
            min_bytes: MIN_BYTES,
            prints: Mutex::default(),
        };
        for path in this.of_this_model() {
            match CacheFile::open(&path, &this.key) {
                Ok(file) => this.files.push(file),
                Err(CacheError::Stale) => this.stale.push(path),
                Err(why) => {
                    let note = format!(
                        "packed weights {}: {why}; they are packed anew",
                        path.display()
                    );
                    this.notes.push(note);
                    this.stale.push(path);
                }
            }
        }
        Ok(this)
    }

    /// The same that keeps weights from `bytes` on, instead of 64 MiB.
    pub fn from_bytes_on(self, bytes: usize) -> Self {
        Self {
            min_bytes: bytes,
            ..self
        }
    }

    /// This, if there is any file to read from: without one nobody need ask for each product.
    pub(crate) fn with_files(&self) -> Option<&Self> {
        (!self.files.is_empty()).then_some(self)
    }

    /// Whether all that was asked for was there.
    pub fn has_served(&self) -> bool {
        !self.files.is_empty() && !self.missed.load(Ordering::Relaxed)
    }

    /// Files of the model, the oldest first.
    fn of_this_model(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten();
        let mut files: Vec<_> = entries
            .filter(|e| {
                let name = e.file_name();
                let name = name.to_string_lossy();
                name.starts_with(&self.stem) && name.ends_with(SUFFIX)
            })
            .map(|e| (e.metadata().and_then(|m| m.modified()).ok(), e.path()))
            .collect();
        files.sort();
        files.into_iter().map(|(_, path)| path).collect()
    }

    /// What is to be said of the files.
    pub fn notes(&self) -> Vec<String> {
        let complaints = self.files.iter().filter_map(CacheFile::complaint);
        let told = complaints.map(|c| format!("packed weights {c}; it is packed anew"));
        self.notes.iter().cloned().chain(told).collect()
    }

    /// Fills `out` with section `name`; `false` where no file has it, whole and of this length.
    pub(crate) fn read(&self, pool: &Pool, name: &str, out: &mut [u8]) -> bool {
        let found = self.files.iter().any(|file| file.read(pool, name, out));
        if !found {
            self.missed.store(true, Ordering::Relaxed);
        }
        found
    }

    /// What was read is not what it should be: it is written anew.
    pub(crate) fn distrust(&self) {
        self.missed.store(true, Ordering::Relaxed);
    }

    /// The name of what `panel` holds of `product`.
    pub(crate) fn section(&self, product: &str, panel: Panel) -> String {
        let shape = panel.shape;
        let kind = format!(
            "{} {}x{} by {} {:?}",
            panel.layout.name(),
            shape.nr,
            shape.k,
            shape.kr,
            panel.scales
        );
        let mut prints = self.prints.lock().unwrap_or_else(|e| e.into_inner());
        let print = match prints.get(&kind) {
            Some(print) => *print,
            None => *prints.entry(kind.clone()).or_insert(print(panel)),
        };
        format!("{product} {kind} {print:016x}")
    }

    /// Writes `sections`, all that a network packed, where some were not read from here and all are worth a file.
    /// Files of the model that serve no more, or are too many, go.
    ///
    /// # Errors
    /// When it cannot be written; nothing is left of it then.
    pub(crate) fn keep(&self, sections: &Sections<'_>) -> io::Result<Option<Kept>> {
        let bytes: usize = sections.iter().map(|(_, bytes)| bytes.len()).sum();
        if self.has_served() || bytes < self.min_bytes {
            return Ok(None);
        }
        std::fs::create_dir_all(&self.folder)?;
        let mut names = Xxh3::new();
        for (name, _) in sections {
            names.update(name.as_bytes());
        }
        let name = format!("{}{:016x}{SUFFIX}", self.stem, names.digest());
        let path = self.folder.join(name);
        for old in self.stale.iter().filter(|old| **old != path) {
            std::fs::remove_file(old)?;
        }
        let mut others = self.of_this_model();
        others.retain(|old| *old != path);
        for old in others.iter().rev().skip(MAX_FILES - 1) {
            std::fs::remove_file(old)?;
        }
        let bytes = CacheFile::write(&path, &self.key, sections)?;
        Ok(Some(Kept { path, bytes }))
    }
}

/// Name, length and time of change of the files at `path`, in order of names.
fn stamps(path: &Path) -> io::Result<Vec<(String, u64, u128)>> {
    let mut files = match path.is_dir() {
        false => vec![path.to_owned()],
        true => std::fs::read_dir(path)?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<io::Result<_>>()?,
    };
    files.sort();
    let stamp = |path: &PathBuf| {
        let about = path.metadata()?;
        let since = about.modified()?.duration_since(UNIX_EPOCH);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let nanos = since.map_or(0, |d| d.as_nanos());
        Ok((name.into_owned(), about.len(), nanos))
    };
    files.iter().map(stamp).collect()
}

/// What `panel` makes of noise: other bytes mean another packing.
fn print(panel: Panel) -> u64 {
    let (n, k) = (panel.shape.nr, panel.shape.k);
    let scales = match panel.scales {
        None => Scales::Tensor(1.0),
        Some(groups) => Scales::Group {
            group_k: groups.k,
            // Halves hold them all.
            scales: (0..n * k.div_ceil(groups.k))
                .map(|i| 1.0 + (i % 1024) as f32 / 1024.0)
                .collect(),
        },
    };
    let mut noise = Noise::new(1);
    let codes = |_: usize, codes: &mut [u8]| {
        for (code, noise) in codes.iter_mut().zip(&mut noise) {
            *code = ((noise >> 16) % 3) as u8;
        }
        Ok::<_, bitnet_codegen::trit::TritError>(())
    };
    let matrix = TernaryMatrix::from_rows(n, k, scales, codes).expect("codes below three");
    let mut out = vec![0; panel.bytes()];
    panel.pack_rows(|r| Some((&matrix, r)), &mut out);
    xxh3_64(&out)
}

#[cfg(test)]
mod tests;
