//! [`ModelDigest`]: what tells one model from another, in milliseconds.
//!
//! It is the SHA-256 of the configuration, of how each projection is read, of every tensor's name, type and shape in file order, and of the first,
//! the last and up to `SAMPLES` evenly spaced blocks of `BLOCK_BYTES` of every tensor's bytes. Two files that agree
//! in all this are taken for the same model. That holds for models that were trained, quantised or fine-tuned apart,
//! and for files cut short; it does not notice a single changed bit between two samples, so it is no proof against
//! damage or malice. Another file format is another model, and a program that reads more of a configuration than
//! this one may compute another digest: what was saved is then refused, never misread.

use crate::format::Model;
use sha2::{Digest, Sha256};
use std::fmt;

/// Bytes of one sample.
const BLOCK_BYTES: usize = 1024;

/// Samples between the first and the last block of a tensor.
const SAMPLES: usize = 6;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelDigest(pub [u8; 32]);

impl ModelDigest {
    /// The digest of `model`.
    pub fn of(model: &Model) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"bitnet model 1\n");
        hash.update(format!("{:?}\n", model.config()));
        // What config.json says of single layers.
        for id in model.linear_ids() {
            hash.update(format!("{:?}\n", model.ternary_info(id).1));
        }
        hash.update(format!("{:?}\n", model.ternary_head));
        for (info, bytes) in model.tensors().iter().zip(model.tensor_bytes()) {
            let line = format!(
                "{:?} {} {} {}\n",
                info.name,
                info.dtype,
                info.shape(),
                bytes.len()
            );
            hash.update(line);
            for sample in samples(bytes) {
                hash.update(sample);
            }
        }
        Self(hash.finalize().into())
    }
}

/// The first and the last block of `bytes` and some between; all of it where it is short.
fn samples(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let last = bytes.len().saturating_sub(BLOCK_BYTES);
    let steps = if last == 0 { 0 } else { SAMPLES + 1 };
    (0..=steps).map(move |i| {
        // In u128, since a product of two sizes may exceed one.
        let start = (last as u128 * i as u128 / steps.max(1) as u128) as usize;
        &bytes[start..bytes.len().min(start + BLOCK_BYTES)]
    })
}

impl fmt::Display for ModelDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ModelDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelDigest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo;
    use crate::format::{OpenOptions, open_bytes};

    fn of(bytes: Vec<u8>) -> ModelDigest {
        let model = open_bytes("m.gguf", bytes, &OpenOptions::default()).expect("it opens");
        ModelDigest::of(&model)
    }

    #[test]
    fn a_digest_is_the_models_and_not_the_files_name() {
        let bytes = demo::bytes().to_vec();
        let first = of(bytes.clone());
        let demo = demo::open(&OpenOptions::default()).expect("it opens");
        assert_eq!(first, ModelDigest::of(&demo));
        assert_eq!(first.to_string().len(), 64);
        // The last weight of the file.
        let last = demo
            .tensors()
            .iter()
            .max_by_key(|t| t.bytes.end)
            .expect("tensors");
        let mut changed = bytes;
        changed[last.bytes.end - 1] ^= 1;
        assert_ne!(first, of(changed));
    }

    #[test]
    fn samples_reach_from_the_first_to_the_last_byte() {
        for len in [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES, 1 << 20] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8).collect();
            let all: Vec<&[u8]> = samples(&bytes).collect();
            assert!(bytes.starts_with(all[0]) && bytes.ends_with(all[all.len() - 1]));
            assert!(
                all.len() == 1 || all.len() == SAMPLES + 2,
                "{len}: {}",
                all.len()
            );
            assert!(all.iter().all(|s| s.len() == len.min(BLOCK_BYTES)));
        }
    }
}
