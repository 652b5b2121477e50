//! The container: three parts behind a head that says how long the file is and what its hash is.
//!
//! ```text
//!   0  magic, 16 bytes
//!  16  u32 format version    20  u32 zero    24  u64 bytes of the file
//!  32  SHA-256 of the file with these 32 bytes left out
//!  64  (u64 offset, u64 bytes) of the manifest, the profile, the code; zeros up to 128
//! ```
//! Numbers are little endian. Anything but these bytes in these places is refused, so nothing unhashed is ever read but
//! the head's own first fields.

use super::Refusal;
use sha2::{Digest, Sha256};
use std::ops::Range;

/// What a pack begins with: no text, no other format, and damaged by a transfer that changes line ends.
pub(super) const MAGIC: [u8; 16] = *b"\x8Fbitnet pack\r\n\x1A\n";

/// The version that this build writes and reads.
pub(super) const VERSION: u32 = 1;

const HASH_AT: usize = 32;
const HASH_END: usize = 64;
const HEAD_BYTES: usize = 128;

/// Where code begins: on a page, so that no text is mapped among it on most systems.
const CODE_ALIGN: usize = 4096;

/// The parts of a pack.
pub(super) struct Parts<'b> {
    pub manifest: &'b str,
    pub profile: &'b str,
    /// Of the file.
    pub code: Range<usize>,
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(&bytes[..HASH_AT]);
    hash.update(&bytes[HASH_END..]);
    hash.finalize().into()
}

/// A file of these parts.
pub(super) fn seal(manifest: &str, profile: &str, code: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEAD_BYTES];
    for (i, (part, align)) in [
        (manifest.as_bytes(), 1),
        (profile.as_bytes(), 1),
        (code, CODE_ALIGN),
    ]
    .into_iter()
    .enumerate()
    {
        bytes.resize(bytes.len().next_multiple_of(align), 0);
        let at = 64 + 16 * i;
        let offset = bytes.len() as u64;
        bytes[at..at + 8].copy_from_slice(&offset.to_le_bytes());
        bytes[at + 8..at + 16].copy_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend(part);
    }
    bytes[..16].copy_from_slice(&MAGIC);
    bytes[16..20].copy_from_slice(&VERSION.to_le_bytes());
    let length = bytes.len() as u64;
    bytes[24..32].copy_from_slice(&length.to_le_bytes());
    sign(&mut bytes);
    bytes
}

/// Puts the hash of the rest in its place.
pub(super) fn sign(bytes: &mut [u8]) {
    let hash = hash(bytes);
    bytes[HASH_AT..HASH_END].copy_from_slice(&hash);
}

/// The parts of the file in `bytes`, whose hash was found to be right.
pub(super) fn open(bytes: &[u8]) -> Result<Parts<'_>, Refusal> {
    if !bytes.starts_with(&MAGIC) {
        return Err(Refusal::NotAPack);
    }
    let have = bytes.len() as u64;
    let cut = |want| Refusal::Length { want, have };
    if bytes.len() < HEAD_BYTES {
        return Err(cut(HEAD_BYTES as u64));
    }
    let u64_at = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    let version = u64_at(16) as u32;
    if version != VERSION {
        let want = VERSION;
        return Err(Refusal::Version { got: version, want });
    }
    if u64_at(24) != have {
        return Err(cut(u64_at(24)));
    }
    if bytes[HASH_AT..HASH_END] != hash(bytes) {
        return Err(Refusal::Damaged);
    }
    let range = |i: usize, part| {
        let (at, length) = (u64_at(64 + 16 * i), u64_at(72 + 16 * i));
        let end = at.checked_add(length).filter(|end| *end <= have);
        let bad = || Refusal::Part {
            part,
            why: format!("{length} bytes from {at} on do not lie in the file"),
        };
        end.map(|end| at as usize..end as usize).ok_or_else(bad)
    };
    let text = |i, part| {
        let bytes = &bytes[range(i, part)?];
        std::str::from_utf8(bytes).map_err(|e| Refusal::Part {
            part,
            why: e.to_string(),
        })
    };
    Ok(Parts {
        manifest: text(0, "manifest")?,
        profile: text(1, "profile")?,
        code: range(2, "code")?,
    })
}
