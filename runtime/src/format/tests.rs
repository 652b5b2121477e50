//! Whole files: the fixtures open, and say the same in every dialect.

use std::path::PathBuf;

use super::*;
use crate::model::{Norm, Role, TensorId};

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
            (c.head_dim, c.vocab, c.context_len, c.sub_norms),
            (32, 272, 64, layers_with_sub_norms),
            "{name}"
        );
        assert_eq!(c.tied, layers_with_sub_norms);
        for id in model.linear_ids() {
            let m = model.ternary(id).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((m.n(), m.k()), c.linear_shape(id.role), "{id}");
        }
        assert_eq!(model.norm(Norm::Output).unwrap().len(), 128);
        let id = TensorId {
            layer: 1,
            role: Role::FfnDown,
        };
        assert_eq!(model.ternary_info(id).0.name, "blk.1.ffn_down.weight");
    }
}
