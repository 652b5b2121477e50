//! Damaged and foreign Hugging Face folders.

use std::path::Path;

use super::*;
use crate::format::tests::bad_gguf::use_all;

/// A copy of the fixture that can be spoiled.
fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(data("tiny/tiny_b158_hf").join(name), dir.path().join(name)).unwrap();
    }
    dir
}

fn fails(dir: &Path, fragments: &[&str]) -> LoadError {
    let error = match open(dir, &OpenOptions::default()).and_then(|m| use_all(&m).map(|()| m)) {
        Ok(_) => panic!("accepted, not refused with {fragments:?}"),
        Err(error) => error,
    };
    let line = error.to_string();
    assert!(
        line.starts_with(&dir.display().to_string()) && !line.contains('\n'),
        "{line}"
    );
    // Printing the chain of causes must not say it twice.
    assert!(std::error::Error::source(&error).is_none(), "{line}");
    for fragment in fragments {
        assert!(
            line.contains(fragment),
            "{line:?} does not say {fragment:?}"
        );
    }
    error
}

#[test]
fn folders_without_their_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    fails(dir.path(), &["config.json is missing", "Hugging Face"]);
    std::fs::write(dir.path().join("model.gguf"), "x").unwrap();
    fails(dir.path(), &["config.json is missing", "model.gguf"]);
    let dir = copy();
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    fails(dir.path(), &["model.safetensors is missing", "*.bin"]);
    std::fs::write(dir.path().join("model.safetensors"), "").unwrap();
    fails(dir.path(), &["model.safetensors: the file is empty"]);
    let missing = dir.path().join("nowhere");
    fails(&missing, &["cannot open", "No such file"]);
    if cfg!(unix) {
        fails(
            Path::new("/dev/null"),
            &["unsupported input that is not a regular file"],
        );
    }
    let dir = copy();
    std::fs::remove_file(dir.path().join("config.json")).unwrap();
    std::fs::create_dir(dir.path().join("config.json")).unwrap();
    fails(
        dir.path(),
        &["config.json: unsupported input that is not a regular file"],
    );
    let text = dir.path().join("a.txt");
    std::fs::write(&text, "hello").unwrap();
    fails(&text, &["not a model file: it starts with \"hello\""]);
}

#[test]
fn configurations_are_checked() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("{\n", "[\n", &["config.json is not valid JSON"]),
        (
            "\"hidden_size\": 128,",
            "",
            &[
                "config.json is not valid JSON",
                "missing field `hidden_size`",
            ],
        ),
        (
            "\"hidden_size\": 128",
            "\"hidden_size\": \"128\"",
            &["invalid type: string", "line"],
        ),
        (
            "\"hidden_size\": 128",
            "\"hidden_size\": -1",
            &["invalid value: integer `-1`"],
        ),
        (
            "\"hidden_size\": 128",
            "\"hidden_size\": 9223372036854775808",
            &["hidden width: expected"],
        ),
        (
            "\"hidden_size\": 128",
            "\"hidden_size\": 256",
            &[
                "shape of tensor model.embed_tokens.weight: expected 272x256",
                "got 272x128",
            ],
        ),
        (
            "\"num_attention_heads\": 4",
            "\"num_attention_heads\": 3",
            &["hidden_size and num_attention_heads", "128 and 3"],
        ),
        (
            "\"num_attention_heads\": 4",
            "\"num_attention_heads\": 0",
            &["128 and 0"],
        ),
        (
            "\"num_key_value_heads\": 2",
            "\"num_key_value_heads\": 3",
            &["heads and key-value heads"],
        ),
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 3",
            &["tensor model.layers.2.input_layernorm.weight is missing"],
        ),
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 1",
            &["unsupported tensor model.layers.1."],
        ),
        (
            "\"vocab_size\": 272",
            "\"vocab_size\": 271",
            &["expected 271x128", "got 272x128"],
        ),
        (
            "BitNetForCausalLM",
            "MambaForCausalLM",
            &[
                "unsupported architecture \"MambaForCausalLM\"",
                "LlamaForCausalLM",
            ],
        ),
        ("relu2", "gelu", &["unsupported hidden_act \"gelu\""]),
        (
            "\"quant_method\": \"bitnet\"",
            "\"quant_method\": \"gptq\"",
            &["unsupported quant_method \"gptq\""],
        ),
        (
            "autobitlinear",
            "tribitlinear",
            &["unsupported linear_class \"tribitlinear\""],
        ),
        (
            "\"rope_theta\": 10000.0",
            "\"rope_theta\": 0",
            &["rope_theta in config.json", "above 0"],
        ),
        (
            "\"rope_theta\": 10000.0",
            "\"rope_scaling\": {\"type\": \"su\"}",
            &["unsupported rope_scaling type \"su\""],
        ),
        (
            "\"rope_theta\": 10000.0",
            "\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1, 0]}",
            &["rope_scaling.short_factor", "numbers above 0"],
        ),
        (
            "\"rope_theta\": 10000.0",
            "\"rope_scaling\": {\"type\": \"yarn\"}",
            &["rope_scaling.factor"],
        ),
        (
            "\"rope_theta\": 10000.0",
            "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, \"mscale\": 1.0}",
            &["unsupported rope_scaling yarn with mscale"],
        ),
        (
            "\"rope_theta\": 10000.0",
            "\"rope_scaling\": {\"type\": \"linear\"}",
            &["rope_scaling.factor"],
        ),
        (
            "\"tie_word_embeddings\": true",
            "\"tie_word_embeddings\": false",
            &["tensor lm_head.weight is missing"],
        ),
        (
            "\"rms_norm_eps\": 1e-05",
            "\"rms_norm_eps\": -1",
            &["rms_norm_eps in config.json"],
        ),
        (
            "\"offline\"",
            "\"online\"",
            &["unsupported model.layers.0.self_attn.q_proj.weight_scale"],
        ),
        (
            "\"quantization_config\"",
            "\"x\"",
            &["multiplies or divides"],
        ),
        (
            "\"quantization_mode\"",
            "\"use_rms_norm\": true, \"quantization_mode\"",
            &["q_proj.rms_norm.weight is missing"],
        ),
    ];
    let text = std::fs::read_to_string(data("tiny/tiny_b158_hf/config.json")).unwrap();
    for (from, to, fragments) in cases {
        assert!(text.contains(from), "{from} is in the fixture");
        let dir = copy();
        std::fs::write(dir.path().join("config.json"), text.replacen(from, to, 1)).unwrap();
        fails(dir.path(), fragments);
    }
}

#[test]
fn safetensors_files_are_checked() {
    let bytes = std::fs::read(data("tiny/tiny_b158_hf/model.safetensors")).unwrap();
    let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + header_len])
        .unwrap()
        .trim_end()
        .to_string();
    let with_header = |header: &str| {
        let dir = copy();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(&bytes[8 + header_len..]);
        std::fs::write(dir.path().join("model.safetensors"), file).unwrap();
        dir
    };
    use_all(&open(with_header(&header).path(), &OpenOptions::default()).unwrap()).unwrap();
    for (from, to, fragments) in [
        ("\"BF16\"", "\"Q9\"", &["model.safetensors", "Q9"][..]),
        ("\"BF16\"", "\"F32\"", &["model.safetensors: header"]),
        ("[0,", "[2,", &["model.safetensors: header"]),
        (
            "[272,128]",
            "[9223372036854775808,4]",
            &["model.safetensors: header"],
        ),
        ("[272,128]", "[-1]", &["model.safetensors: header"]),
        (
            "[272,128]",
            "[128,272]",
            &["expected 272x128", "got 128x272"],
        ),
        (
            "\"shape\":[128]",
            "\"shape\":[64,2]",
            &["expected 128 values", "got 64x2"],
        ),
        (
            "mlp.down_proj.weight_scale",
            "mlp.down_proj.weight_skale",
            &["weight_scale is missing"],
        ),
        ("{", "[", &["model.safetensors: header"]),
    ] {
        assert!(header.contains(from), "{from} is in the header");
        fails(with_header(&header.replacen(from, to, 1)).path(), fragments);
    }
    let dir = copy();
    let path = dir.path().join("model.safetensors");
    let mut three = bytes.clone();
    let packed = header.find("q_proj.weight\":{\"dtype\":\"U8\"").unwrap();
    let start = header[packed..].find("data_offsets\":[").unwrap() + packed + 15;
    let start: usize = header[start..].split(',').next().unwrap().parse().unwrap();
    three[8 + header_len + start] = 0xff;
    std::fs::write(&path, three).unwrap();
    fails(
        dir.path(),
        &["self_attn.q_proj.weight (U8): code 3 at row 0, column 0"],
    );
    for len in [1u64 << 63, u64::MAX, 100_000_001, bytes.len() as u64] {
        let mut long = bytes.clone();
        long[..8].copy_from_slice(&len.to_le_bytes());
        std::fs::write(&path, long).unwrap();
        fails(dir.path(), &["model.safetensors"]);
    }
    let mut more = bytes.clone();
    more.push(0);
    std::fs::write(&path, more).unwrap();
    fails(dir.path(), &["model.safetensors", "surplus bytes"]);
    // Every cut of the header, and some of the data.
    for len in (0..8 + header_len)
        .step_by(7)
        .chain((8 + header_len..bytes.len()).step_by(4999))
    {
        std::fs::write(&path, &bytes[..len]).unwrap();
        fails(dir.path(), &["model.safetensors"]);
    }
}

#[test]
fn shard_indexes_are_checked() {
    for (map, fragments) in [
        (
            r#"{"weight_map": {"x": "../model.safetensors"}}"#,
            &["weight_map", "names of files in the folder"][..],
        ),
        (
            r#"{"weight_map": {"x": "other.safetensors"}}"#,
            &["other.safetensors: cannot open"],
        ),
        (
            r#"{"weight_map": {"x": "model.safetensors"}}"#,
            &["tensor x in model.safetensors is missing"],
        ),
        (
            r#"{"weight_map": []}"#,
            &["model.safetensors.index.json is not valid JSON"],
        ),
    ] {
        let dir = copy();
        std::fs::write(dir.path().join("model.safetensors.index.json"), map).unwrap();
        fails(dir.path(), fragments);
    }
    let dir = copy();
    std::fs::copy(
        dir.path().join("model.safetensors"),
        dir.path().join("more.safetensors"),
    )
    .unwrap();
    std::fs::rename(
        dir.path().join("model.safetensors"),
        dir.path().join("one.safetensors"),
    )
    .unwrap();
    fails(
        dir.path(),
        &[
            "expected one file to hold it",
            "it in more.safetensors and one.safetensors",
        ],
    );
}
