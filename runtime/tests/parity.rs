//! Models that are easily read wrongly give the logits that transformers gives: `tests/parity/generate.py` made them.
//!
//! The largest difference to transformers in float32 is at most ten times what transformers in float32 differs from
//! itself in float64, and the likeliest token is the same at every position.

#[path = "parity/text.rs"]
mod text;

use bitnet_codegen::Features;
use bitnet_runtime::convert::{GroupType, to_gguf};
use bitnet_runtime::embed::{self, Pooling};
use bitnet_runtime::engine::{Engine, EngineOptions};
use bitnet_runtime::format::{self, OpenOptions};
use bitnet_runtime::graph::Acts;
use bitnet_runtime::network::kernels::Kernels;
use bitnet_runtime::pool::Pool;
use bitnet_runtime::profile::Profile;
use bitnet_runtime::sequence::KvType;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn fixtures(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/parity")
        .join(folder);
    let entries = std::fs::read_dir(folder).expect("the fixtures are there");
    let mut all: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    all.sort();
    all
}

/// What transformers gives.
struct Expected {
    tokens: Vec<u32>,
    vocab: usize,
    logits: Vec<f32>,
    float32_minus_float64: f64,
}

impl Expected {
    fn of(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join("expected.json")).expect("expected.json");
        let json: Value = serde_json::from_str(&text).expect("JSON");
        let tokens = json["tokens"].as_array().expect("a list").iter();
        let hex = json["logits"].as_str().expect("hexadecimal").as_bytes();
        let byte = |pair: &[u8]| {
            let text = std::str::from_utf8(pair).expect("ASCII");
            u8::from_str_radix(text, 16).expect("hexadecimal")
        };
        let bytes: Vec<u8> = hex.chunks_exact(2).map(byte).collect();
        let (floats, _) = bytes.as_chunks::<4>();
        Self {
            tokens: tokens.map(|t| t.as_u64().expect("an id") as u32).collect(),
            vocab: json["vocab"].as_u64().expect("a number") as usize,
            logits: floats.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            float32_minus_float64: json["float32_minus_float64"].as_f64().expect("a number"),
        }
    }

    /// The largest difference, its ratio to transformers' own, and whether the likeliest tokens are the same.
    fn compare(&self, got: &[f32]) -> (f64, f64, bool) {
        let difference = largest_difference(got, &self.logits);
        let rows = |v: &[f32]| {
            v.chunks_exact(self.vocab)
                .map(likeliest)
                .collect::<Vec<_>>()
        };
        let same = rows(got) == rows(&self.logits);
        (difference, difference / self.float32_minus_float64, same)
    }
}

/// The logits of every position, and what was noted about the files.
fn logits(folder: &Path, options: &OpenOptions, tokens: &[u32]) -> (Vec<f32>, String) {
    let model = format::open(folder, options).unwrap_or_else(|e| panic!("{e}"));
    let notes = model.notes().join("\n");
    let pool = Arc::new(Pool::new(2).expect("threads"));
    let mut kernels = Kernels::new(Features::detect(), Profile::default());
    // The reference keeps keys and values in float32.
    let options = EngineOptions {
        kv: KvType::F32,
        ..EngineOptions::default()
    };
    let mut engine = Engine::new(Arc::new(model), pool, &mut kernels, &options).expect("an engine");
    let mut all = Vec::new();
    engine
        .run(tokens, 0, |_, row| all.extend_from_slice(row))
        .expect("logits");
    (all, notes)
}

fn likeliest(row: &[f32]) -> usize {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.expect("a vocabulary").0
}

fn largest_difference(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let differences = a
        .iter()
        .zip(b)
        .map(|(x, y)| (f64::from(*x) - f64::from(*y)).abs());
    differences.fold(0.0, f64::max)
}

#[test]
fn logits_are_those_of_transformers() {
    let mut failures = Vec::new();
    let all = fixtures("fixtures");
    assert!(all.len() >= 8, "{} fixtures", all.len());
    for folder in all {
        let name = folder
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let expected = Expected::of(&folder);
        let (got, notes) = logits(&folder, &OpenOptions::default(), &expected.tokens);
        let (difference, ratio, same) = expected.compare(&got);
        println!("{name}: differs by {difference:.2e}, {ratio:.2} of transformers' own; {notes}");
        if ratio > 10.0 || !same {
            failures.push(format!(
                "{name}: {difference:.2e} ({ratio:.1}), argmax same: {same}"
            ));
        }
        assert_eq!(
            notes.contains("weight-only"),
            name.starts_with('3') || name.starts_with('2'),
            "{name}: {notes}"
        );
        let kept = ["1-not-converted", "1-packed", "1-tied-head-converted"].contains(&&*name);
        assert_eq!(
            notes.contains("projections run in float"),
            kept,
            "{name}: {notes}"
        );
        assert_eq!(
            notes.contains("the head is quantised"),
            name.contains("head-converted"),
            "{name}: {notes}"
        );
        assert_eq!(
            notes.contains("two different tables"),
            name.starts_with('2'),
            "{name}: {notes}"
        );
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Two planes are finer than one and coarser than three: what `--acts` costs is said in figures.
#[test]
fn every_plane_brings_logits_closer() {
    for folder in fixtures("fixtures") {
        let expected = Expected::of(&folder);
        let name = folder
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if !name.starts_with('3') {
            continue;
        }
        let differences = Acts::ALL.map(|acts| {
            let options = OpenOptions {
                acts: Some(acts),
                ..OpenOptions::default()
            };
            let (got, notes) = logits(&folder, &options, &expected.tokens);
            assert!(
                notes.contains(if acts == Acts::I8 {
                    "as asked"
                } else {
                    acts.name()
                }),
                "{notes}"
            );
            largest_difference(&got, &expected.logits)
        });
        let [i8, i16, i24] = differences;
        println!("{name}: i8 differs by {i8:.1e}, i16 by {i16:.1e}, i24 by {i24:.1e}");
        assert!(
            differences.is_sorted_by(|a, b| a > b),
            "{name}: {differences:?}"
        );
    }
}

/// What reading the same files wrongly gives: were it within the bound, the test above would prove nothing.
#[test]
fn the_bound_tells_a_wrong_reading() {
    let dir = tempfile::tempdir().expect("a folder");
    for folder in fixtures("fixtures") {
        let name = folder
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let expected = Expected::of(&folder);
        let mut options = OpenOptions::default();
        let mut read = folder.clone();
        if name.starts_with('3') || name.starts_with('2') {
            options.acts = Some(Acts::I8);
        } else if name != "1-packed" {
            // The list ignored. A packed file read so is refused.
            read = dir.path().join(&name);
            std::fs::create_dir(&read).expect("made");
            let model = "model.safetensors";
            std::fs::copy(folder.join(model), read.join(model)).expect("copied");
            let text = std::fs::read_to_string(folder.join("config.json")).expect("config.json");
            let mut config: Value = serde_json::from_str(&text).expect("JSON");
            config["quantization_config"]["modules_to_not_convert"] = Value::Null;
            std::fs::write(read.join("config.json"), config.to_string()).expect("written");
        } else {
            continue;
        }
        let (got, _) = logits(&read, &options, &expected.tokens);
        let difference = largest_difference(&got, &expected.logits);
        let ratio = difference / expected.float32_minus_float64;
        println!(
            "{name}: read wrongly it differs by {difference:.2e}, {ratio:.0} of transformers' own"
        );
        assert!(ratio > 100.0, "{name}: {difference:.2e}, {ratio:.1}");
    }
}

/// Qwen3 with a scale for each group of columns, embedding and head included, from every way that files store it, and
/// MiniCPM with such projections: `tests/parity/qwen3.py` and `minicpm.py` made them. 16-bit inputs are within a thousandth of the logits' standard deviation, and the
/// likeliest token is the same at every position; 8-bit inputs are within an eighth.
#[test]
fn group_scaled_models_give_the_logits_of_transformers() {
    let all = [fixtures("qwen3"), fixtures("minicpm")].concat();
    assert!(all.len() >= 9, "{} fixtures", all.len());
    let mut failures = Vec::new();
    for folder in all {
        let name = folder
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let expected = Expected::of(&folder);
        let gguf = folder.join("model.gguf");
        let path = if gguf.exists() { &gguf } else { &folder };
        let mean = expected.logits.iter().map(|&v| f64::from(v)).sum::<f64>()
            / expected.logits.len() as f64;
        let squares = expected
            .logits
            .iter()
            .map(|&v| (f64::from(v) - mean).powi(2));
        let spread = (squares.sum::<f64>() / expected.logits.len() as f64).sqrt();
        for (acts, most) in [(Acts::I16, 1e-3), (Acts::I8, 0.125)] {
            let options = OpenOptions {
                acts: (acts == Acts::I8).then_some(acts),
                ..OpenOptions::default()
            };
            let (got, notes) = logits(path, &options, &expected.tokens);
            let difference = largest_difference(&got, &expected.logits) / spread;
            let rows = |v: &[f32]| {
                v.chunks_exact(expected.vocab)
                    .map(likeliest)
                    .collect::<Vec<_>>()
            };
            let same = rows(&got) == rows(&expected.logits);
            println!(
                "{name} {}: {difference:.2e} of the spread, argmax same: {same}; {notes}",
                acts.name()
            );
            if difference > most || (acts == Acts::I16 && !same) {
                failures.push(format!(
                    "{name} {}: {difference:.2e}, argmax same: {same}",
                    acts.name()
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Models that embed, projections with input norms of their own: the vectors that transformers gives, from
/// `tests/parity/embed.py`.
#[test]
fn vectors_of_texts_are_those_of_transformers() {
    let all = fixtures("embed");
    assert_eq!(all.len(), 2, "qwen3 and gemma3");
    for folder in all {
        let text = std::fs::read_to_string(folder.join("expected.json")).expect("expected.json");
        let json: Value = serde_json::from_str(&text).expect("JSON");
        let list = |v: &Value| v.as_array().expect("a list").clone();
        let model = format::open(&folder.join("model.gguf"), &OpenOptions::default());
        let model = model.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(Pooling::of(&model), Pooling::Last);
        for batch in [128, 3] {
            let mut kernels = Kernels::new(Features::detect(), Profile::default());
            let pool = Arc::new(Pool::new(2).expect("threads"));
            let options = EngineOptions {
                kv: KvType::F32,
                batch: Some(batch),
                ..EngineOptions::default()
            };
            let model = format::open(&folder.join("model.gguf"), &OpenOptions::default());
            let model = Arc::new(model.expect("as above"));
            let mut engine = Engine::new(model, pool, &mut kernels, &options).expect("an engine");
            for (ids, want) in list(&json["texts"]).iter().zip(list(&json["vectors"])) {
                let ids: Vec<u32> = list(ids)
                    .iter()
                    .map(|id| id.as_u64().expect("an id") as u32)
                    .collect();
                let got = embed::embed(&mut engine, &ids).expect("a vector");
                let want: Vec<f64> = list(&want)
                    .iter()
                    .map(|v| v.as_f64().expect("a number"))
                    .collect();
                assert_eq!(got.len(), want.len());
                let cosine: f64 = got.iter().zip(&want).map(|(a, b)| f64::from(*a) * b).sum();
                println!(
                    "{}: {} tokens, cosine {cosine}",
                    folder.display(),
                    ids.len()
                );
                assert!(cosine >= 0.9999, "{}: {cosine}", folder.display());
            }
        }
    }
}

/// Whatever the blocks, of folders of floats as well: the bits of the logits stay.
#[test]
fn converted_group_scaled_models_keep_their_logits() {
    let dir = tempfile::tempdir().expect("a folder");
    for folder in fixtures("qwen3") {
        let one_a_row = folder.ends_with("floats-yarn");
        let tokens = Expected::of(&folder).tokens;
        let gguf = folder.join("model.gguf");
        let path = if gguf.exists() { &gguf } else { &folder };
        let (want, _) = logits(path, &OpenOptions::default(), &tokens);
        let model = format::open(path, &OpenOptions::default()).expect("the fixture opens");
        let mut sizes = Vec::new();
        for groups in [GroupType::PQ2_0, GroupType::PTQ1_0] {
            let out = dir.path().join(format!("{groups:?}.gguf"));
            let done = to_gguf(&model, &out, groups, &mut |_, _| true);
            if one_a_row {
                // Rows of 128 columns have one scale, which is no group to be seen.
                let e = done.expect_err("a scale for each row").to_string();
                assert!(e.contains("its scale differs between rows"), "{e}");
                continue;
            }
            let done = done.unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
            let (got, _) = logits(&out, &OpenOptions::default(), &tokens);
            let same = got
                .iter()
                .map(|v| v.to_bits())
                .eq(want.iter().map(|v| v.to_bits()));
            assert!(same, "{} as {groups:?}", folder.display());
            sizes.push(done.tensor_bytes);
        }
        let has_128 = !one_a_row && !folder.ends_with("q2-g64");
        assert_eq!(
            sizes.windows(2).any(|s| s[0] > s[1]),
            has_128,
            "{}: {sizes:?}",
            folder.display()
        );
    }
}
