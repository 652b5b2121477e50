//! Whole files: the fixtures open, and say the same in every dialect.

mod bad_gguf;
mod bad_hf;
mod dialects;
mod fuzz;
mod made_up;
pub(crate) mod micro;

use std::path::PathBuf;

use super::*;
use crate::convert::GroupType;
use crate::graph::{Norm, Projection, TensorId};
use crate::vocab::{GgufVocab, VocabSource};

/// A file of `tests/data`.
pub(crate) fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data")
        .join(name)
}

#[test]
fn the_gguf_fixtures_open() {
    for (name, layers_with_sub_norms) in [("b158", true), ("llama", false)] {
        let model = open(
            &data(&format!("tiny/tiny_{name}.gguf")),
            &OpenOptions::default(),
        )
        .unwrap();
        let c = model.config();
        assert_eq!(
            (c.hidden, c.ffn, c.n_layers, c.n_heads, c.n_kv_heads),
            (128, 384, 2, 4, 2),
            "{name}"
        );
        assert_eq!(
            (c.head_dim, c.vocab, c.context_len, c.sub_norms()),
            (32, 272, 64, layers_with_sub_norms),
            "{name}"
        );
        assert_eq!(c.tied, layers_with_sub_norms);
        for id in model.linear_ids() {
            let m = model.ternary(id).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((m.n(), m.k()), c.linear_shape(id.projection), "{id}");
        }
        assert_eq!(model.norm(Norm::Output).unwrap().len(), 128);
        let id = TensorId {
            layer: 1,
            projection: Projection::FfnDown,
        };
        assert_eq!(model.ternary_info(id).0.name, "blk.1.ffn_down.weight");
    }
}

/// The tokenizer's keys in a GGUF file.
fn keys(model: &Model) -> Option<Box<GgufVocab>> {
    match model.vocabulary().unwrap() {
        VocabSource::Keys { vocab, .. } => vocab,
        VocabSource::Folder(_) => None,
    }
}

/// Two models say the same: configuration up to names, ternary matrices, norms, tables.
fn assert_same(a: &Model, b: &Model) {
    let (mut ca, mut cb) = (a.config().clone(), b.config().clone());
    (ca.name, cb.name) = (String::new(), String::new());
    assert_eq!(ca, cb);
    for id in a.linear_ids() {
        assert_eq!(a.ternary(id).unwrap(), b.ternary(id).unwrap(), "{id}");
    }
    for &norm in a.norms.keys() {
        assert_eq!(a.norm(norm).unwrap(), b.norm(norm).unwrap(), "{norm}");
    }
    for (x, y) in [(a.embedding(), b.embedding()), (a.head(), b.head())] {
        let (mut rx, mut ry) = (vec![0f32; x.cols], vec![0f32; y.cols]);
        for row in 0..x.rows {
            x.row_to_f32(row, &mut rx);
            y.row_to_f32(row, &mut ry);
            assert_eq!(rx, ry, "row {row}");
        }
    }
}

#[test]
fn a_gguf_file_and_its_folder_are_the_same_model() {
    for name in ["b158", "llama"] {
        let gguf = open(
            &data(&format!("tiny/tiny_{name}.gguf")),
            &OpenOptions::default(),
        )
        .unwrap();
        let folder = data(&format!("tiny/tiny_{name}_hf"));
        let hf = open(&folder, &OpenOptions::default()).unwrap();
        assert_same(&gguf, &hf);
        let file = open(&folder.join("model.safetensors"), &OpenOptions::default()).unwrap();
        assert_same(&gguf, &file);
    }
}

#[test]
fn conversion_changes_nothing_but_the_storage() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "tiny_b158.gguf",
        "tiny_llama.gguf",
        "tiny_b158_hf",
        "tiny_llama_hf",
    ] {
        let source = open(&data("tiny").join(name), &OpenOptions::default()).unwrap();
        let path = dir.path().join(format!("{name}.out"));
        let report =
            crate::convert::to_gguf(&source, &path, GroupType::default(), &mut |_, _| true)
                .unwrap();
        assert_eq!(
            report.notes.is_empty(),
            name.ends_with(".gguf"),
            "a folder without tokenizer is noted"
        );
        let back = open(&path, &OpenOptions::default()).unwrap();
        assert_same(&source, &back);
        assert_eq!(keys(&source), keys(&back), "{name}");
        // The order of heads is that of other engines: the projections are the fixture's bytes.
        if let Some(stem) = name.strip_suffix("_hf") {
            let other = open(
                &data("tiny").join(format!("{stem}.gguf")),
                &OpenOptions::default(),
            )
            .unwrap();
            for id in back.linear_ids() {
                let bytes = |m: &Model| m.store.bytes(m.ternary_info(id).1.tensor).to_vec();
                assert_eq!(bytes(&back), bytes(&other), "{name} {id}");
            }
        }
    }
}
