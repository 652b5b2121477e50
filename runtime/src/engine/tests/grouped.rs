//! Models with a scale for each group of columns: one digest over kernels, threads and batches.

use super::{every_kernel_gives, other_digests, specs};
use crate::format::{self, Model, OpenOptions};
use crate::graph::Acts;
use bitnet_codegen::Groups;
use bitnet_codegen::layout::scales::{GroupScales, Stored};
use std::path::Path;
use std::sync::Arc;

/// A file of `tests/parity/qwen3`, columns that share a scale, how fine inputs are, and the digest of its logits. A change
/// of a digest is a change of every logit that anyone has recorded.
const DIGESTS: [(&str, usize, Acts, &str); 4] = [
    (
        "q2-g64",
        64,
        Acts::I16,
        "60ccfa4cfde1d07bb10412f688d0b30f277d27147064c65648880059e392879a",
    ),
    (
        "q2-g128",
        128,
        Acts::I16,
        "f48dc6b499d721cc08d8c18d392608b7a83b480b1c4d8ad19a5152afe12c59d4",
    ),
    (
        "q2-g128",
        128,
        Acts::I8,
        "c2fe67bf2a210a559f3446921f97ea72c98fccf52dd2188c39111c58b8a676cd",
    ),
    (
        "pq2-yarn",
        128,
        Acts::I16,
        "ec6b755c6824904bcafe305f3a1884ae0328d7804148a656a03eb4b84418f2d7",
    ),
];

fn open(name: &str, acts: Acts) -> Arc<Model> {
    let parity = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/parity/qwen3");
    let options = OpenOptions {
        acts: Some(acts),
        ..OpenOptions::default()
    };
    let model = format::open(&parity.join(name).join("model.gguf"), &options);
    Arc::new(model.unwrap_or_else(|e| panic!("{name}: {e}")))
}

#[test]
fn group_scaled_logits_are_the_recorded_bits_for_every_thread_count_and_batch() {
    let all = DIGESTS.map(|(name, _, acts, want)| {
        let told = format!("{name} {}", acts.name());
        other_digests(&told, &open(name, acts), want)
    });
    let wrong = all.concat();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Kernels that must have run on any CPU: the interpreter's, of each family that scales groups.
const LEAST_KERNELS: usize = 3;

#[test]
fn group_scaled_logits_are_the_recorded_bits_for_every_kernel() {
    for (name, k, acts, want) in DIGESTS {
        let scales = GroupScales {
            k,
            stored: Stored::F16,
        };
        let planes = acts.planes();
        let specs = specs(Some(Groups { scales, planes }));
        every_kernel_gives(name, &open(name, acts), &specs, LEAST_KERNELS, want);
    }
}
