//! The demo model: a small trained ternary model inside the binary, used in place.

use crate::format::Model;
use crate::format::{self, LoadError, OpenOptions};

/// Keeps the file's bytes on a cache line, as a mapped file would be.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!("../assets/demo/demo.gguf"));

/// What the tools call it.
pub const NAME: &str = "demo model (embedded)";

/// The GGUF file.
pub fn bytes() -> &'static [u8] {
    &FILE.0
}

/// Opens it.
///
/// # Errors
/// As [`format::open_static`]: only if the options contradict the file.
pub fn open(options: &OpenOptions) -> Result<Model, LoadError> {
    format::open_static(NAME, bytes(), options)
}
