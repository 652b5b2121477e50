//! One model in every storage type and container is one model.
//!
//! Longer than 500 lines: a list of dialects.

use std::path::Path;

use super::*;
use crate::convert::GroupType;
use crate::format::dtype::TernaryType;
use crate::format::tests::micro::{Micro, Parts};
use crate::graph::architectures::{BITNET, BITNET_B158, LLAMA};
use crate::graph::{ARCHITECTURES, Norm, Weight};

fn tiles(kind: TernaryType) -> impl Fn(usize, usize) -> Option<Tiles> {
    move |_, _| match kind {
        TernaryType::TL1 => Some(Tiles {
            tile_rows: 128,
            tile_cols: 64,
            step_rows: 32,
        }),
        TernaryType::TL2 => Some(Tiles {
            tile_rows: 64,
            tile_cols: 96,
            step_rows: 32,
        }),
        _ => None,
    }
}

fn options(micro: &Micro, kind: TernaryType) -> OpenOptions {
    let mut options = OpenOptions::default();
    for id in micro.ids() {
        let (n, k) = micro.shape(id.projection);
        if let Some(t) = tiles(kind)(n, k) {
            options.tiles.set(n, k, t);
        }
    }
    options
}

/// The model has the weights it was made from.
fn assert_is(micro: &Micro, model: &Model, what: &str) {
    for id in micro.ids() {
        assert_eq!(
            model.ternary(id).unwrap_or_else(|e| panic!("{what}: {e}")),
            micro.matrix(id),
            "{what} {id}"
        );
    }
    for (norm, n) in micro.norms() {
        assert_eq!(
            model.norm(norm).unwrap(),
            micro.norm(norm, n),
            "{what} {norm}"
        );
    }
    let tables = [
        (model.embedding(), 1),
        (model.head(), if model.config().tied { 1 } else { 2 }),
    ];
    for (table, tag) in tables {
        let want = micro.table(tag);
        let mut row = vec![0f32; table.cols];
        for r in 0..table.rows {
            table.row_to_f32(r, &mut row);
            assert_eq!(row, want[r * table.cols..][..table.cols], "{what} row {r}");
        }
    }
}

#[test]
fn every_gguf_type_reads_the_same_and_converts_to_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    for &arch in ARCHITECTURES {
        let micro = Micro::wide(arch);
        let mut outputs = Vec::new();
        for kind in TernaryType::ALL
            .into_iter()
            .filter(|k| k.ggml_id().is_some())
        {
            let what = format!("{arch} {}", kind.name());
            let bytes = micro.gguf(kind, tiles(kind)).emit();
            let model =
                open_bytes(&what, bytes, &options(&micro, kind)).unwrap_or_else(|e| panic!("{e}"));
            assert_is(&micro, &model, &what);
            let path = dir.path().join("out.gguf");
            crate::convert::to_gguf(&model, &path, GroupType::default(), &mut |_, _| true).unwrap();
            assert_is(
                &micro,
                &open(&path, &OpenOptions::default()).unwrap(),
                &what,
            );
            outputs.push((what, std::fs::read(&path).unwrap()));
        }
        let (_, first) = &outputs[0];
        for (what, bytes) in &outputs {
            assert!(
                bytes == first,
                "{what} converts to the file that {} converts to",
                outputs[0].0
            );
        }
    }
}

#[test]
fn blocks_of_64_are_read_when_asked_for() {
    let micro = Micro::wide(BITNET_B158);
    let mut parts = micro.gguf(TernaryType::I2S, |_, _| None);
    for id in micro.ids() {
        let bytes = ternary::pack::pack(TernaryType::I2S, &micro.matrix(id), 64, None);
        parts.tensor(&format!("{id}.weight")).bytes = bytes;
    }
    let options = OpenOptions {
        i2s_block: I2sBlock::B64,
        ..OpenOptions::default()
    };
    assert_is(
        &micro,
        &open_bytes("b64", parts.emit(), &options).unwrap(),
        "blocks of 64",
    );
    let wrong = open_bytes("b64", parts.emit(), &OpenOptions::default()).unwrap();
    let id = micro.ids().next().unwrap();
    assert_ne!(
        wrong.ternary(id).unwrap(),
        micro.matrix(id),
        "nothing in the file tells"
    );
    assert_eq!(I2sBlock::from_codes(64), Some(I2sBlock::B64));
    assert_eq!(I2sBlock::from_codes(32), None);
}

/// Stores the projections as floats: `trit · value`.
fn as_floats(micro: &Micro, parts: &mut Parts, value: impl Fn(f32) -> f32) {
    for id in micro.ids() {
        let m = micro.matrix(id);
        let bitnet_codegen::trit::Scales::Tensor(scale) = *m.scales() else {
            panic!("one scale")
        };
        let values = (0..m.n()).flat_map(|r| (0..m.k()).map(move |c| (r, c)));
        let bytes = values
            .flat_map(|(r, c)| (m.trit(r, c) as f32 * value(scale)).to_le_bytes())
            .collect();
        let t = parts.tensor(&format!("{id}.weight"));
        (t.type_id, t.bytes) = (0, bytes);
    }
}

#[test]
fn float_projections_are_kept_exactly_where_they_are_ternary() {
    let micro = Micro::new(BITNET);
    let mut parts = micro.gguf(TernaryType::I2S, |_, _| None);
    as_floats(&micro, &mut parts, |scale| scale);
    assert_is(
        &micro,
        &open_bytes("floats", parts.emit(), &OpenOptions::default()).unwrap(),
        "floats",
    );
    // Signs, with the scale in a tensor of its own.
    as_floats(&micro, &mut parts, |_| 1.0);
    for id in micro.ids() {
        let bitnet_codegen::trit::Scales::Tensor(scale) = *micro.matrix(id).scales() else {
            panic!("one scale")
        };
        parts.push_f32(&format!("{id}.scale"), &[scale]);
    }
    assert_is(
        &micro,
        &open_bytes("signs", parts.emit(), &OpenOptions::default()).unwrap(),
        "signs",
    );
    // As convert_hf_to_gguf.py writes it: a scalar without dimensions.
    for id in micro.ids() {
        parts.tensor(&format!("{id}.scale")).dims.clear();
    }
    assert_is(
        &micro,
        &open_bytes("scalars", parts.emit(), &OpenOptions::default()).unwrap(),
        "scalars",
    );
}

#[test]
fn a_scale_tensor_multiplies_the_stored_scale() {
    let micro = Micro::new(BITNET);
    let mut parts = micro.gguf(TernaryType::I2S, |_, _| None);
    parts.push_f32("blk.0.attn_q.scale", &[3.0]);
    let model = open_bytes("scaled", parts.emit(), &OpenOptions::default()).unwrap();
    let id = micro.ids().next().unwrap();
    let mut want = micro.matrix(id);
    want.scales_mut().scale_by(3.0);
    assert_eq!(model.ternary(id).unwrap(), want);
}

/// A Hugging Face folder: `scale(multiplier)` is what is stored, `None` for master weights.
pub(super) fn folder(
    dir: &Path,
    micro: &Micro,
    config: &str,
    scale: Option<fn(f32) -> f32>,
    n_shards: usize,
) {
    use ::safetensors::{Dtype as D, tensor::TensorView};
    let bytes_of = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    // The last of several names: 1bitLLM's, where there is one.
    let named = |weight| micro.arch.hf(weight).last().unwrap() + ".weight";
    let mut tensors: Vec<(String, D, Vec<usize>, Vec<u8>)> = Vec::new();
    let table = vec![micro.vocab, micro.hidden];
    tensors.push((
        named(Weight::Embedding),
        D::F32,
        table.clone(),
        bytes_of(&micro.table(1)),
    ));
    if micro.arch == LLAMA {
        tensors.push((
            named(Weight::Head),
            D::F32,
            table,
            bytes_of(&micro.table(2)),
        ));
    }
    for (norm, n) in micro.norms() {
        let name = named(Weight::Norm(norm));
        tensors.push((name, D::F32, vec![n], bytes_of(&micro.norm(norm, n))));
    }
    for id in micro.ids() {
        let m = micro.matrix(id);
        let name = named(Weight::Projection(id));
        let bitnet_codegen::trit::Scales::Tensor(s) = *m.scales() else {
            panic!("one scale")
        };
        match scale {
            Some(stored) => {
                let bytes = ternary::pack::pack(TernaryType::HfPacked, &m, 0, None);
                tensors.push((
                    format!("{name}_scale"),
                    D::F32,
                    vec![1],
                    bytes_of(&[stored(s)]),
                ));
                tensors.push((name, D::U8, vec![m.n().div_ceil(4), m.k()], bytes));
            }
            None => {
                let w: Vec<f32> = master(&m);
                tensors.push((name, D::F32, vec![m.n(), m.k()], bytes_of(&w)));
            }
        }
    }
    std::fs::write(dir.join("config.json"), config).unwrap();
    let mut map = serde_json::Map::new();
    for shard in 0..n_shards {
        let file = match n_shards {
            1 => "model.safetensors".to_string(),
            n => format!("model-{:05}-of-{n:05}.safetensors", shard + 1),
        };
        let mine = tensors
            .iter()
            .enumerate()
            .filter(|(i, _)| i % n_shards == shard)
            .map(|(_, t)| t);
        let views: Vec<_> = mine
            .map(|(name, d, shape, bytes)| {
                map.insert(name.clone(), file.clone().into());
                (
                    name.clone(),
                    TensorView::new(*d, shape.clone(), bytes).unwrap(),
                )
            })
            .collect();
        std::fs::write(
            dir.join(file),
            ::safetensors::serialize(views, None).unwrap(),
        )
        .unwrap();
    }
    if n_shards > 1 {
        let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
        std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    }
}

/// Master weights that absmean maps to the trits of `m`.
fn master(m: &bitnet_codegen::trit::TernaryMatrix) -> Vec<f32> {
    let value =
        |r: usize, c: usize| m.trit(r, c) as f32 * (0.02 + ((r * 7 + c) % 5) as f32 / 1000.0);
    (0..m.n())
        .flat_map(|r| (0..m.k()).map(move |c| value(r, c)))
        .collect()
}

pub(super) fn config(micro: &Micro, class: &str, rest: &str) -> String {
    format!(
        r#"{{"architectures": ["{class}"], "hidden_size": {}, "intermediate_size": {}, "num_hidden_layers": {},
        "num_attention_heads": {}, "num_key_value_heads": {}, "head_dim": {}, "vocab_size": {},
        "max_position_embeddings": 64, "rope_theta": 10000.0, "rms_norm_eps": 1e-05 {rest}}}"#,
        micro.hidden,
        micro.ffn,
        micro.layers,
        micro.heads,
        micro.kv_heads,
        micro.head_dim,
        micro.vocab,
    )
}

pub(super) const MULTIPLY: &str = r#", "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}"#;
const DIVIDE: &str =
    r#", "quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": null}"#;
const ONLINE: &str = r#", "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}"#;

#[test]
fn folders_say_which_way_scales_go_and_may_be_sharded() {
    for (arch, class) in [
        (BITNET_B158, "BitNetForCausalLM"),
        (LLAMA, "LlamaForCausalLM"),
    ] {
        let micro = Micro {
            layers: 2,
            ..Micro::new(arch)
        };
        for (rest, stored) in [(MULTIPLY, (|s| s) as fn(f32) -> f32), (DIVIDE, |s| 1.0 / s)] {
            for n_shards in [1, 3] {
                let dir = tempfile::tempdir().unwrap();
                folder(
                    dir.path(),
                    &micro,
                    &config(&micro, class, rest),
                    Some(stored),
                    n_shards,
                );
                let model =
                    open(dir.path(), &OpenOptions::default()).unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(model.config().architecture, arch);
                assert_is(&micro, &model, &format!("{class} {n_shards} shards {rest}"));
            }
        }
    }
}

#[test]
fn master_weights_are_quantised_by_absmean() {
    let master_of = |m: &_| bitnet_codegen::trit::absmean(32, 64, &master(m)).unwrap();
    for (class, rest, arch) in [
        ("BitNetForCausalLM", ONLINE, BITNET_B158),
        // 1bitLLM says nothing, its class does.
        (
            "BitnetForCausalLM",
            r#", "hidden_act": "silu", "weight_bits": 1"#,
            BITNET,
        ),
    ] {
        let micro = Micro::new(arch);
        let dir = tempfile::tempdir().unwrap();
        folder(dir.path(), &micro, &config(&micro, class, rest), None, 1);
        let model = open(dir.path(), &OpenOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(model.config().architecture, arch);
        let id = TensorId {
            layer: 0,
            projection: Projection::FfnDown,
        };
        assert_eq!(
            model.ternary(id).unwrap(),
            master_of(&micro.matrix(id)),
            "{class}"
        );
    }
    // A llama folder without a word about it is not ternary, until the caller says so.
    let micro = Micro::new(LLAMA);
    let dir = tempfile::tempdir().unwrap();
    folder(
        dir.path(),
        &micro,
        &config(&micro, "LlamaForCausalLM", ""),
        None,
        1,
    );
    let e = open(dir.path(), &OpenOptions::default()).unwrap_err();
    assert!(
        e.is_unsupported() && e.to_string().contains("--absmean"),
        "{e}"
    );
    let forced = open(
        dir.path(),
        &OpenOptions {
            absmean: true,
            ..OpenOptions::default()
        },
    )
    .unwrap();
    let id = TensorId {
        layer: 0,
        projection: Projection::FfnDown,
    };
    assert_eq!(forced.ternary(id).unwrap(), master_of(&micro.matrix(id)));
}

#[test]
fn rows_that_no_multiple_of_four_fills_are_dropped_from_packed_weights() {
    let micro = Micro {
        vocab: 24,
        ffn: 66,
        ..Micro::new(BITNET_B158)
    };
    let dir = tempfile::tempdir().unwrap();
    folder(
        dir.path(),
        &micro,
        &config(&micro, "BitNetForCausalLM", MULTIPLY),
        Some(|s| s),
        1,
    );
    let model = open(dir.path(), &OpenOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_is(&micro, &model, "66 rows");
    // I2_S cannot hold 66x32 weights: refused before anything is written.
    let out = dir.path().join("out.gguf");
    let e =
        crate::convert::to_gguf(&model, &out, GroupType::default(), &mut |_, _| true).unwrap_err();
    assert!(e.to_string().contains("not a multiple of 128"), "{e}");
    assert!(!out.exists());
}

#[test]
fn head_width_rope_and_input_norms_are_honoured() {
    // key_length is not hidden / heads, positions are stretched, frequencies have factors.
    let micro = Micro {
        head_dim: 24,
        ..Micro::new(LLAMA)
    };
    let mut parts = micro.gguf(TernaryType::I2S, |_, _| None);
    parts.u32("llama.attention.key_length", 24);
    parts.u32("llama.attention.value_length", 24);
    parts.str("llama.rope.scaling.type", "linear");
    parts.f32("llama.rope.scaling.factor", 4.0);
    let factors: Vec<f32> = (1..=12).map(|i| i as f32).collect();
    parts.push_f32("rope_freqs.weight", &factors);
    for id in micro.ids() {
        let n = micro.shape(id.projection).1;
        parts.push_f32(
            &format!("{id}_norm_in.weight"),
            &micro.norm(Norm::Input(id), n),
        );
    }
    let model = open_bytes("wide heads", parts.emit(), &OpenOptions::default()).unwrap();
    assert_is(&micro, &model, "wide heads");
    let c = model.config();
    assert_eq!(
        (c.head_dim, c.rope.linear, c.input_norm_eps),
        (24, 4.0, Some(1e-6))
    );
    assert_eq!(c.rope.factors.as_deref(), Some(&factors[..]));
    let id = TensorId {
        layer: 0,
        projection: Projection::FfnDown,
    };
    assert_eq!(
        model.norm(Norm::Input(id)).unwrap(),
        micro.norm(Norm::Input(id), 64)
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.gguf");
    crate::convert::to_gguf(&model, &path, GroupType::default(), &mut |_, _| true).unwrap();
    assert_same(&model, &open(&path, &OpenOptions::default()).unwrap());
}

#[test]
fn llama3_factors_are_those_of_the_reference_formula() {
    let micro = Micro {
        head_dim: 16,
        ..Micro::new(LLAMA)
    };
    let rest = format!(
        r#"{DIVIDE}, "rope_scaling": {{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}"#
    );
    let dir = tempfile::tempdir().unwrap();
    let config = config(&micro, "LlamaForCausalLM", &rest).replace("10000.0", "500000.0");
    folder(dir.path(), &micro, &config, Some(|s| 1.0 / s), 1);
    let model = open(dir.path(), &OpenOptions::default()).unwrap();
    let factors = model.config().rope.factors.clone().unwrap();
    // Wavelengths 2π·500000^(i/8): below 2048 kept, above 8192 stretched by 8, between mixed.
    assert_eq!(factors[..4], [1.0; 4]);
    assert_eq!(factors[6..], [8.0; 2]);
    let wavelength = std::f64::consts::TAU * 500_000f64.powf(4.0 / 8.0);
    let smooth = (8192.0 / wavelength - 1.0) / 3.0;
    let want = 1.0 / ((1.0 - smooth) / 8.0 + smooth);
    assert!(
        (factors[4] as f64 - want).abs() < 1e-4,
        "{} and {want}",
        factors[4]
    );
}

#[test]
fn what_i2s_cannot_hold_is_not_converted() {
    let micro = Micro::wide(BITNET);
    let mut parts = micro.gguf(TernaryType::IQ2BN, |_, _| None);
    // The second row gets a scale of its own.
    parts.tensor("blk.0.attn_q.weight").bytes[68..72].copy_from_slice(&9f32.to_le_bytes());
    let model = open_bytes("rows", parts.emit(), &OpenOptions::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.gguf");
    let e =
        crate::convert::to_gguf(&model, &path, GroupType::default(), &mut |_, _| true).unwrap_err();
    assert!(
        e.to_string().contains("blk.0.attn_q") && e.to_string().contains("scale differs"),
        "{e}"
    );
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing is left behind"
    );
}

/// A byte-level tokenizer of 24 tokens, in the files of a folder.
fn write_tokenizer(dir: &Path) {
    let mut tokens: Vec<String> = "abcdefghilnoprstuĠ".chars().map(String::from).collect();
    tokens.extend(["Ġt", "he", "Ġthe"].map(String::from));
    let vocab: serde_json::Map<_, _> = tokens
        .iter()
        .enumerate()
        .map(|(i, t)| (t.clone(), i.into()))
        .collect();
    let special = |id: usize, text: &str| {
        serde_json::json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let llama3 = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": [special(21, "<|begin_of_text|>"), special(22, "<|eot_id|>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": llama3}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": vocab, "merges": [["Ġ", "t"], ["h", "e"], ["Ġt", "he"]]},
    });
    std::fs::write(dir.join("tokenizer.json"), json.to_string()).unwrap();
    let config = serde_json::json!({"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "add_bos_token": true,
        "chat_template": "{{ messages[0]['content'] }}"});
    std::fs::write(dir.join("tokenizer_config.json"), config.to_string()).unwrap();
}

#[test]
fn conversion_takes_the_tokenizer_along() {
    use crate::tokenizer::Tokenizer;
    let micro = Micro::new(LLAMA);
    let dir = tempfile::tempdir().unwrap();
    folder(
        dir.path(),
        &micro,
        &config(&micro, "LlamaForCausalLM", DIVIDE),
        Some(|s| 1.0 / s),
        1,
    );
    write_tokenizer(dir.path());
    let source = open(dir.path(), &OpenOptions::default()).unwrap();
    let path = dir.path().join("out.gguf");
    let report =
        crate::convert::to_gguf(&source, &path, GroupType::default(), &mut |_, _| true).unwrap();
    assert_eq!(report.notes, Vec::<String>::new());
    let back = open(&path, &OpenOptions::default()).unwrap();
    // 23 tokens for 24 rows: the last row gets a name.
    assert_eq!(keys(&back).unwrap().tokens[23], "[PAD23]");
    let [a, b] = [&source, &back].map(|m| crate::setup::tokenizer(m, None).unwrap());
    for text in [
        "the theatre is the other",
        "the<|eot_id|>  nut",
        "ones and onions",
    ] {
        let ids = |t: &Tokenizer| t.encode_prompt(text).map_err(|e| e.to_string());
        assert_eq!(ids(&a), ids(&b), "{text:?}");
    }
    assert!(
        a.encode_prompt("on the hen").unwrap().contains(&20),
        "Ġthe or he are merged"
    );
    assert_eq!((a.bos(), a.eos(), a.stops()), (b.bos(), b.eos(), b.stops()));
    assert_eq!(a.chat_template(), b.chat_template());
}

#[test]
fn bytes_of_the_program_are_used_in_place() {
    let bytes: &'static [u8] = Micro::new(BITNET_B158)
        .gguf(TernaryType::I2S, |_, _| None)
        .emit()
        .leak();
    let model = open_static("built in", bytes, &OpenOptions::default()).unwrap();
    assert!(
        bytes
            .as_ptr_range()
            .contains(&model.embedding().bytes.as_ptr())
    );
    assert_eq!(model.path(), "built in");
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&model);
}
