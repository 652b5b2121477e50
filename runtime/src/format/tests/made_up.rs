//! A graph that nobody made is read, written, converted, inspected and run by its entry alone.

use super::dialects::{MULTIPLY, config, folder};
use super::*;
use crate::convert::GroupType;
use crate::engine::{Engine, EngineOptions};
use crate::format::dtype::TernaryType;
use crate::format::tests::micro::Micro;
use crate::graph::architectures::tests::MADE_UP;
use crate::network::kernels::Kernels;
use crate::pool::Pool;
use crate::profile::Profile;
use std::path::Path;
use std::sync::Arc;

/// The bits of the logits after each of a few tokens.
fn logits(path: &Path) -> Vec<u32> {
    let model = open(path, &OpenOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(model.config().architecture, MADE_UP);
    let mut kernels = Kernels::new(bitnet_codegen::Features::detect(), Profile::default());
    let pool = Arc::new(Pool::new(1).unwrap());
    let mut engine = Engine::new(
        Arc::new(model),
        pool,
        &mut kernels,
        &EngineOptions::default(),
    )
    .unwrap();
    let mut bits = Vec::new();
    let mut take = |_, row: &[f32]| bits.extend(row.iter().map(|v| v.to_bits()));
    engine.run(&[1, 5, 17, 2, 9], 0, &mut take).unwrap();
    bits
}

#[test]
fn a_new_entry_is_all_that_a_new_graph_needs() {
    let dir = tempfile::tempdir().unwrap();
    let micro = Micro {
        layers: 2,
        ..Micro::wide(MADE_UP)
    };
    let gguf = dir.path().join("made-up.gguf");
    std::fs::write(&gguf, micro.gguf(TernaryType::TQ1_0, |_, _| None).emit()).unwrap();
    let hf = dir.path().join("made-up");
    std::fs::create_dir(&hf).unwrap();
    let said = config(&micro, "MadeUpForCausalLM", MULTIPLY);
    folder(&hf, &micro, &said, Some(|s| s), 1);
    let (a, b) = (logits(&gguf), logits(&hf));
    assert!(a.iter().all(|&bits| f32::from_bits(bits).is_finite()));
    assert_eq!(a, b, "both formats are one model");
    for source in [&gguf, &hf] {
        let out = dir.path().join("converted.gguf");
        let model = open(source, &OpenOptions::default()).unwrap();
        crate::convert::to_gguf(&model, &out, GroupType::default(), &mut |_, _| true).unwrap();
        assert_eq!(logits(&out), a, "{}", source.display());
        let seen = crate::inspect::inspect(&open(&out, &OpenOptions::default()).unwrap());
        let first = seen.tensors.iter().find(|t| t.name == "stage.1.wq.weight");
        assert_eq!(
            first.expect("by its own name").used_as,
            "blk.1.attn_q, blocks of 128, rows interleaved"
        );
    }
}

#[test]
fn a_new_entry_can_be_synthesised() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("synth.gguf");
    let sizes = [256, 640, 2, 4, 2, 64, 512, 256];
    let shape = crate::synth::shape("made-up", MADE_UP, sizes, 10_000.0, true);
    crate::synth::write(&path, &shape, 3, None, Default::default(), &mut |_, _| true).unwrap();
    assert_eq!(logits(&path).len(), 5 * 512);
}
