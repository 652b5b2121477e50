//! Damaged and foreign GGUF files: each gives one clear line, none a panic.
//!
//! Longer than 500 lines: a list of kinds of damage.

use super::*;
use crate::format::dtype::TernaryType;
use crate::format::metadata::ValueType;
use crate::format::tests::micro::{Micro, Parts};
use crate::graph::architectures::{BITNET_B158, LLAMA};

fn parts() -> Parts {
    Micro::new(BITNET_B158).gguf(TernaryType::I2S, |_, _| None)
}

fn open_default(bytes: Vec<u8>) -> Result<Model, LoadError> {
    open_bytes("m.gguf", bytes, &OpenOptions::default())
}

/// Everything a model is asked for, so that damage anywhere is met.
pub(super) fn use_all(model: &Model) -> Result<(), LoadError> {
    for id in model.linear_ids() {
        model.ternary(id)?;
    }
    for &norm in model.norms.keys() {
        model.norm(norm)?;
    }
    let mut row = vec![0f32; model.config().hidden];
    model.embed(0, &mut row);
    model.embed(model.config().vocab - 1, &mut row);
    match model.ternary_head_shape() {
        Some(_) => drop(model.ternary_head()?),
        None => model.head().row_to_f32(model.config().vocab - 1, &mut row),
    }
    model.vocabulary()?;
    assert!(!crate::inspect::inspect(model).to_string().is_empty());
    Ok(())
}

/// One line that starts with the path and contains every fragment.
fn assert_line(what: &str, error: &LoadError, fragments: &[&str]) {
    let line = error.to_string();
    assert!(
        line.starts_with("m.gguf: ") && !line.contains('\n'),
        "{what}: {line}"
    );
    for fragment in fragments {
        assert!(
            line.contains(fragment),
            "{what}: {line:?} does not say {fragment:?}"
        );
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = parts().emit();
    // The last tensor ends the file, so that every byte of it counts.
    for len in 0..bytes.len() {
        let error = match open_default(bytes[..len].to_vec()) {
            Err(error) => error,
            Ok(_) => panic!(
                "{len} of {} bytes are taken for the whole file",
                bytes.len()
            ),
        };
        let line = error.to_string();
        assert!(
            line.starts_with("m.gguf: ") && !line.contains('\n'),
            "cut at {len}: {line}"
        );
    }
    use_all(&open_default(bytes).unwrap()).unwrap();
}

/// What is changed, how, and what the line must say.
type Case = (&'static str, fn(&mut Parts), &'static [&'static str]);

const CASES: &[Case] = &[
    (
        "no architecture",
        |p| p.remove("general.architecture"),
        &["key general.architecture is missing"],
    ),
    (
        "unknown architecture",
        |p| p.str("general.architecture", "mamba"),
        &["\"mamba\"", "bitnet-b1.58 bitnet-25 bitnet llama"],
    ),
    (
        "window of an architecture without",
        |p| p.u32("bitnet-b1.58.attention.sliding_window", 8),
        &["unsupported", "sliding_window of 8"],
    ),
    (
        "recurrent model",
        |p| p.str("general.architecture", "qwen35"),
        &["unsupported", "\"qwen35\"", "gated delta net layers"],
    ),
    (
        "architecture of another type",
        |p| p.u32("general.architecture", 3),
        &["general.architecture: expected a string, got 3"],
    ),
    (
        "no layers key",
        |p| p.remove("bitnet-b1.58.block_count"),
        &["key bitnet-b1.58.block_count is missing"],
    ),
    (
        "no width",
        |p| p.remove("bitnet-b1.58.embedding_length"),
        &["embedding_length is missing"],
    ),
    (
        "no eps",
        |p| p.remove("bitnet-b1.58.attention.layer_norm_rms_epsilon"),
        &["layer_norm_rms_epsilon is missing"],
    ),
    (
        "no heads",
        |p| p.remove("bitnet-b1.58.attention.head_count"),
        &["head_count is missing"],
    ),
    (
        "no context",
        |p| p.remove("bitnet-b1.58.context_length"),
        &["context_length is missing"],
    ),
    (
        "no ffn",
        |p| p.remove("bitnet-b1.58.feed_forward_length"),
        &["feed_forward_length is missing"],
    ),
    (
        "width as text",
        |p| p.str("bitnet-b1.58.embedding_length", "32"),
        &["embedding_length: expected an integer", "\"32\""],
    ),
    (
        "negative width",
        |p| {
            p.set(
                "bitnet-b1.58.embedding_length",
                ValueType::I32,
                &(-32i32).to_le_bytes(),
            )
        },
        &["got -32"],
    ),
    (
        "width of 2^63",
        |p| {
            p.set(
                "bitnet-b1.58.embedding_length",
                ValueType::U64,
                &(1u64 << 63).to_le_bytes(),
            )
        },
        &["9223372036854775808"],
    ),
    (
        "zero layers",
        |p| p.u32("bitnet-b1.58.block_count", 0),
        &["layers: expected a number from 1"],
    ),
    (
        "too many layers",
        |p| p.u32("bitnet-b1.58.block_count", 4_000_000),
        &["layers: expected at most"],
    ),
    (
        "one layer too many",
        |p| p.u32("bitnet-b1.58.block_count", 2),
        &["tensor blk.1.attn_norm.weight is missing"],
    ),
    (
        "a layer of another model",
        |p| p.push_f32("blk.1.attn_norm.weight", &[1.0]),
        &["unsupported tensor blk.1.attn_norm.weight"],
    ),
    (
        "a bias",
        |p| p.push_f32("blk.0.attn_q.bias", &[1.0]),
        &[
            "unsupported tensor blk.0.attn_q.bias",
            "not part of the bitnet-b1.58 graph",
        ],
    ),
    (
        "heads that do not divide",
        |p| p.u32("bitnet-b1.58.attention.head_count_kv", 3),
        &["heads and key-value heads", "got 2 and 3"],
    ),
    (
        "zero kv heads",
        |p| p.u32("bitnet-b1.58.attention.head_count_kv", 0),
        &["key-value heads: expected"],
    ),
    (
        "width no multiple of heads",
        |p| p.u32("bitnet-b1.58.attention.head_count", 5),
        &["multiple of the head count", "32 and 5"],
    ),
    (
        "zero heads",
        |p| p.u32("bitnet-b1.58.attention.head_count", 0),
        &["got 32 and 0"],
    ),
    (
        "odd head width",
        |p| p.u32("bitnet-b1.58.attention.key_length", 15),
        &["rope.dimension_count of 16", "known is 15"],
    ),
    (
        "eps of zero",
        |p| p.f32("bitnet-b1.58.attention.layer_norm_rms_epsilon", 0.0),
        &["expected a finite number above 0, got 0"],
    ),
    (
        "eps not a number",
        |p| p.f32("bitnet-b1.58.attention.layer_norm_rms_epsilon", f32::NAN),
        &["got NaN"],
    ),
    (
        "theta below zero",
        |p| p.f32("bitnet-b1.58.rope.freq_base", -1.0),
        &["rope.freq_base", "got -1"],
    ),
    (
        "unknown scaling of angles",
        |p| p.str("bitnet-b1.58.rope.scaling.type", "su"),
        &["unsupported", "\"su\"", "none, linear, yarn and longrope"],
    ),
    (
        "longrope without factors",
        |p| p.str("bitnet-b1.58.rope.scaling.type", "longrope"),
        &["tensor rope_factors_short.weight is missing"],
    ),
    (
        "yarn without a factor",
        |p| p.str("bitnet-b1.58.rope.scaling.type", "yarn"),
        &["rope.scaling.factor is missing"],
    ),
    (
        "another vocabulary size",
        |p| p.u32("bitnet-b1.58.vocab_size", 25),
        &[
            "shape of tensor token_embd.weight: expected 25x32",
            "got 24x32",
        ],
    ),
    (
        "too few tokens",
        |p| p.strings("tokenizer.ggml.tokens", &["a".into()]),
        &["tokenizer.ggml.tokens: expected 24 tokens", "got 1"],
    ),
    (
        "alignment of 0",
        |p| p.u32("general.alignment", 0),
        &["general.alignment: expected a power of two", "got 0"],
    ),
    (
        "alignment of 24",
        |p| p.u32("general.alignment", 24),
        &["power of two", "got 24"],
    ),
    (
        "alignment of 64",
        |p| p.u32("general.alignment", 64),
        &["offset of tensor", "multiple of 64"],
    ),
    (
        "one part of many",
        |p| p.u32("split.count", 3),
        &["unsupported GGUF file that is one of 3 parts", "--merge"],
    ),
    (
        "more keys than a model has",
        |p| (0..1 << 14).for_each(|i| p.keys.push((i.to_string(), vec![0, 0, 0, 0, 0]))),
        &["key count: expected at most 16384"],
    ),
    (
        "bool of 2",
        |p| p.set("x", ValueType::Bool, &[2]),
        &["key x: expected a bool of 0 or 1, got 2"],
    ),
    (
        "array of arrays",
        |p| p.set("x", ValueType::Array, &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        &["array of arrays in key x"],
    ),
    (
        "unknown value type",
        |p| p.keys.push(("x".into(), vec![13, 0, 0, 0])),
        &["type of key x", "got 13"],
    ),
    (
        "a key twice",
        |p| p.keys.push(p.keys[0].clone()),
        &["key general.architecture: expected one value"],
    ),
    (
        "array of 2^63 strings",
        |p| {
            p.set(
                "x",
                ValueType::Array,
                &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80],
            )
        },
        &["truncated at 9223372036854775808 entries of x"],
    ),
    (
        "array of 2^63 numbers",
        |p| {
            p.set(
                "x",
                ValueType::Array,
                &[10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80],
            )
        },
        &["truncated at"],
    ),
    (
        "string of 2^63 bytes",
        |p| p.set("x", ValueType::String, &(1u64 << 63).to_le_bytes()),
        &["truncated at 9223372036854775808 entries of x"],
    ),
    (
        "a tensor twice",
        |p| p.tensors.push(p.tensors[1].clone()),
        &["tensor output_norm.weight: expected one tensor"],
    ),
    (
        "no dimensions",
        |p| p.tensor("output_norm.weight").dims.clear(),
        &["tensor output_norm.weight: expected ", "got 1 F32"],
    ),
    (
        "five dimensions",
        |p| p.tensor("output_norm.weight").dims = vec![1; 5],
        &["dimensions of tensor output_norm.weight", "got 5"],
    ),
    (
        "a length of zero",
        |p| p.tensor("output_norm.weight").dims = vec![0],
        &["shape of tensor output_norm.weight"],
    ),
    (
        "lengths that overflow",
        |p| p.tensor("output_norm.weight").dims = vec![1 << 62, 1 << 62],
        &["shape of tensor output_norm.weight"],
    ),
    (
        "a length of 2^60",
        |p| p.tensor("output_norm.weight").dims = vec![1 << 60],
        &["truncated at tensor output_norm.weight"],
    ),
    (
        "a norm of another length",
        |p| p.tensor("output_norm.weight").dims = vec![16],
        &[
            "tensor output_norm.weight: expected 32 values",
            "got 16 F32",
        ],
    ),
    (
        "a norm of another type",
        |p| p.tensor("output_norm.weight").type_id = 26,
        &["tensor output_norm.weight", "got 32 I32"],
    ),
    (
        "a norm that is not finite",
        |p| p.tensor("output_norm.weight").bytes[4..8].fill(0xff),
        &["output_norm.weight: expected finite", "NaN at index 1"],
    ),
    (
        "no embedding",
        |p| p.drop_tensor("token_embd.weight"),
        &["tensor token_embd.weight is missing"],
    ),
    (
        "no projection",
        |p| p.drop_tensor("blk.0.ffn_up.weight"),
        &["tensor blk.0.ffn_up.weight is missing"],
    ),
    (
        "no sub-norm",
        |p| p.drop_tensor("blk.0.ffn_sub_norm.weight"),
        &["tensor blk.0.ffn_sub_norm.weight is missing"],
    ),
    (
        "a transposed projection",
        |p| p.tensor("blk.0.ffn_up.weight").dims = vec![32, 64],
        &[
            "shape of tensor blk.0.ffn_up.weight: expected 64x32",
            "got 32x64",
        ],
    ),
    (
        "a ternary embedding without rows",
        |p| {
            let table = p.tensor("token_embd.weight");
            let shape = (table.dims[0], table.dims[1]);
            let bytes = TernaryType::TL1.n_bytes(shape.0, shape.1);
            (table.type_id, table.bytes) = (38, vec![0; bytes.expect("a size")]);
        },
        &[
            "unsupported type TL1 of tensor token_embd.weight",
            "known are I2_S",
        ],
    ),
    (
        "unknown type",
        |p| p.tensor("blk.0.ffn_up.weight").type_id = 77,
        &[
            "type id 77 of tensor blk.0.ffn_up.weight",
            "I2_S TQ1_0 TQ2_0",
        ],
    ),
    (
        "removed type",
        |p| p.tensor("blk.0.ffn_up.weight").type_id = 37,
        &["type id 37 of tensor blk.0.ffn_up.weight"],
    ),
    (
        "MXFP4, not TL2",
        |p| {
            let t = p.tensor("blk.0.ffn_up.weight");
            (t.type_id, t.bytes) = (39, vec![0; 64 * 17]);
        },
        &["unsupported type MXFP4 of tensor blk.0.ffn_up.weight"],
    ),
    (
        "code 3",
        |p| p.tensor("blk.0.ffn_up.weight").bytes[100] = 0xc0,
        &["blk.0.ffn_up.weight (I2_S): code 3", "--i2s-block 64"],
    ),
    (
        "scale of zero",
        |p| p.tensor("blk.0.ffn_up.weight").bytes[512..516].fill(0),
        &["weight scale 0 is 0"],
    ),
    (
        "scale not a number",
        |p| p.tensor("blk.0.ffn_up.weight").bytes[512..516].fill(0xff),
        &["weight scale 0 is NaN"],
    ),
    (
        "scale tensor of zero",
        |p| p.push_f32("blk.0.ffn_up.scale", &[0.0]),
        &["tensor blk.0.ffn_up.scale", "above 0"],
    ),
    (
        "scale tensor of two",
        |p| p.push_f32("blk.0.ffn_up.scale", &[1.0, 1.0]),
        &["tensor blk.0.ffn_up.scale: expected one float"],
    ),
    (
        "bad rope factors",
        |p| p.push_f32("rope_freqs.weight", &[1.0; 7]),
        &["tensor rope_freqs.weight: expected 8 float"],
    ),
    (
        "zero rope factor",
        |p| p.push_f32("rope_freqs.weight", &[0.0; 8]),
        &["rope_freqs.weight", "above 0"],
    ),
    (
        "head counts by layer",
        |p| {
            let two = [5, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0];
            p.set(
                "bitnet-b1.58.attention.head_count_kv",
                ValueType::Array,
                &two,
            );
        },
        &["unsupported", "head_count_kv that differs between layers"],
    ),
    (
        "tokens that are numbers",
        |p| {
            p.set(
                "tokenizer.ggml.tokens",
                ValueType::Array,
                &[[0, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0].as_slice(), &[0; 24]].concat(),
            )
        },
        &["tokenizer.ggml.tokens: expected an array of strings"],
    ),
    (
        "tokens that are not text",
        |p| {
            let token = [1, 0, 0, 0, 0, 0, 0, 0, 0xff];
            let raw = [
                [8, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0].as_slice(),
                &token.repeat(24),
            ]
            .concat();
            p.set("tokenizer.ggml.tokens", ValueType::Array, &raw);
        },
        &["tokenizer.ggml.tokens[0]: expected UTF-8"],
    ),
];

#[test]
fn every_kind_of_damage_has_its_line() {
    for &(what, edit, fragments) in CASES {
        let mut parts = parts();
        edit(&mut parts);
        match open_default(parts.emit()).and_then(|model| use_all(&model)) {
            Ok(()) => panic!("{what}: accepted"),
            Err(error) => assert_line(what, &error, fragments),
        }
    }
}

#[test]
fn unsupported_is_told_from_damaged() {
    let mut foreign = parts();
    foreign.str("general.architecture", "mamba");
    assert!(open_default(foreign.emit()).unwrap_err().is_unsupported());
    let mut damaged = parts();
    damaged.remove("general.architecture");
    assert!(!open_default(damaged.emit()).unwrap_err().is_unsupported());
}

#[test]
fn the_first_form_of_q2_0_is_told_by_its_size() {
    let micro = Micro::wide(BITNET_B158);
    let id = TernaryType::Q2_0.ggml_id().expect("a GGUF type");
    let mut parts = micro.gguf(TernaryType::PQ2_0, |_, _| None);
    for tensor in micro.ids().map(|id| format!("{id}.weight")) {
        parts.tensor(&tensor).type_id = id;
    }
    let old = open_default(parts.emit()).expect("blocks of 128 under the id of blocks of 64");
    let new = micro.gguf(TernaryType::PQ2_0, |_, _| None);
    let new = open_default(new.emit()).expect("blocks of 128 under their own id");
    for id in old.linear_ids() {
        assert_eq!(old.ternary(id).unwrap(), new.ternary(id).unwrap(), "{id}");
        assert_eq!(old.ternary_info(id).0.dtype.name(), "PQ2_0");
    }
}

#[test]
fn heads_and_versions_of_files_are_checked() {
    let good = parts().emit();
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        open_default(file).unwrap_err()
    };
    assert_line(
        "magic",
        &with(0, b"GGML"),
        &["not a model file", "\"GGUF\" for GGUF"],
    );
    assert_line(
        "version 1",
        &with(4, &[1, 0, 0, 0]),
        &["unsupported GGUF version 1"],
    );
    assert_line(
        "version 4",
        &with(4, &[4, 0, 0, 0]),
        &["unsupported GGUF version 4", "2 and 3"],
    );
    assert_line("other endianness", &with(4, &[0, 0, 0, 3]), &["big-endian"]);
    for at in [8, 16] {
        for n in [1u64 << 63, u64::MAX, 1 << 40, good.len() as u64] {
            assert_line("a count", &with(at, &n.to_le_bytes()), &["truncated at"]);
        }
    }
    assert_line(
        "a key's length",
        &with(24, &(1u64 << 63).to_le_bytes()),
        &["truncated at"],
    );
    assert_line(
        "empty",
        &open_default(Vec::new()).unwrap_err(),
        &["the file is empty"],
    );
    let mut two = good.clone();
    two[4] = 2;
    use_all(&open_default(two).unwrap()).unwrap();
}

#[test]
fn tensors_lie_apart_and_aligned() {
    let file = parts().emit();
    // The offset of the second tensor follows its name, one dimension and the type.
    let name = b"output_norm.weight";
    let at = file.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 8 + 4;
    let with = |offset: u64| {
        let mut file = file.clone();
        file[at..at + 8].copy_from_slice(&offset.to_le_bytes());
        open_default(file).unwrap_err()
    };
    assert_line(
        "misaligned",
        &with(33),
        &["offset of tensor output_norm.weight: expected a multiple of 32, got 33"],
    );
    assert_line(
        "overlapping",
        &with(32),
        &[
            "offset of tensor output_norm.weight",
            "an offset inside token_embd.weight",
        ],
    );
    assert_line("same place", &with(0), &["offset", "an offset inside"]);
    assert_line(
        "outside",
        &with(1 << 40),
        &["truncated at tensor output_norm.weight"],
    );
    assert_line(
        "far outside",
        &with(u64::MAX - 31),
        &["truncated at tensor output_norm.weight"],
    );
}

#[test]
fn blocks_that_rows_cut_are_refused_where_weights_would_be_lost() {
    let mut parts = parts();
    parts.u32("bitnet-b1.58.feed_forward_length", 66);
    for t in parts.tensors.iter_mut().filter(|t| t.name.contains("ffn_")) {
        let shape: Vec<usize> = t
            .dims
            .iter()
            .map(|&d| if d == 64 { 66 } else { d })
            .collect();
        let n: usize = shape.iter().product();
        t.bytes = vec![0x55; if shape.len() == 2 { n / 4 + 32 } else { 4 * n }];
        t.dims = shape;
    }
    let error = open_default(parts.emit()).unwrap_err();
    assert_line(
        "66x32",
        &error,
        &[
            "tensor blk.0.ffn_gate.weight (I2_S)",
            "multiple of 128",
            "got 2112",
        ],
    );
}

#[test]
fn tiled_files_need_the_right_tile_sizes() {
    let micro = Micro::wide(LLAMA);
    let right = Tiles {
        tile_rows: 64,
        tile_cols: 96,
        step_rows: 32,
    };
    let bytes = micro.gguf(TernaryType::TL2, |_, _| Some(right)).emit();
    let with = |tiles: Option<Tiles>| {
        let mut options = OpenOptions::default();
        for id in micro.ids() {
            let (n, k) = micro.shape(id.projection);
            tiles.into_iter().for_each(|t| options.tiles.set(n, k, t));
        }
        open_bytes("m.gguf", bytes.clone(), &options)
    };
    use_all(&with(Some(right)).unwrap()).unwrap();
    let none = with(None).unwrap_err();
    assert!(none.is_unsupported());
    assert_line(
        "none",
        &none,
        &[
            "TL2 tensor blk.0.attn_q.weight (256x256) without its tile sizes",
            "--tl-config",
            "shapes given: none",
        ],
    );
    let misfit = with(Some(Tiles {
        tile_rows: 96,
        ..right
    }))
    .unwrap_err();
    assert_line(
        "misfit",
        &misfit,
        &["bm 96 bk 96 bmm 32 does not tile a 256x256 TL2 tensor"],
    );
    let narrow = with(Some(Tiles {
        tile_cols: 528,
        ..right
    }))
    .unwrap_err();
    assert_line("too many pairs", &narrow, &["tile sizes that need at most"]);
}

#[test]
fn an_ordinary_llama_is_told_apart() {
    let micro = Micro::new(LLAMA);
    let mut parts = micro.gguf(TernaryType::I2S, |_, _| None);
    for id in micro.ids() {
        let t = parts.tensor(&format!("{id}.weight"));
        let n: usize = t.dims.iter().product();
        (t.type_id, t.bytes) = (
            0,
            (0..n)
                .flat_map(|i| (i as f32 / 64.0).to_le_bytes())
                .collect(),
        );
    }
    let error = open_default(parts.emit()).unwrap_err();
    assert!(error.is_unsupported());
    assert_line(
        "floats",
        &error,
        &[
            "float weights in tensor blk.0.attn_q.weight (F32)",
            "ordinary model",
        ],
    );
    parts.tensor("blk.0.attn_q.weight").type_id = 12;
    parts.tensor("blk.0.attn_q.weight").dims = vec![32, 32];
    assert!(
        open_default(parts.emit()).is_err(),
        "Q4_K needs rows of 256"
    );
}
