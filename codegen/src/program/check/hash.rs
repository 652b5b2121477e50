//! The hash of the proof's tables: fast, for keys that no adversary chooses.

use std::hash::{BuildHasherDefault, Hasher};

/// A hash map for keys that no adversary chooses; the standard hash took a tenth of a proof.
pub(super) type HashMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<Mix>>;

/// Multiply and rotate, eight bytes at a time.
#[derive(Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, v: u8) {
        self.write_u64(v as u64);
    }

    fn write_u32(&mut self, v: u32) {
        self.write_u64(v as u64);
    }

    fn write_u64(&mut self, v: u64) {
        self.0 = (self.0.rotate_left(5) ^ v).wrapping_mul(0x517C_C1B7_2722_0A95);
    }

    fn write_usize(&mut self, v: usize) {
        self.write_u64(v as u64);
    }
}
