//! Models through the binaries: synthetic shapes, conversion, and what inspecting tells.

use bitnet_runtime::synth::SHAPES;
use bitnet_tests::{data, run, stdout};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// What a file system has left; nothing where the system does not tell.
fn free_bytes(path: &Path) -> Option<u64> {
    let out = std::process::Command::new("df")
        .args(["-Pk"])
        .arg(path)
        .output()
        .ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    let kib = text.lines().nth(1)?.split_whitespace().nth(3)?;
    Some(kib.parse::<u64>().ok()? * 1024)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// One layer of every published shape: written, inspected, run.
#[test]
fn every_shape_is_written_and_loads() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("m.gguf");
    let mut written = 0;
    for shape in SHAPES {
        let tables = if shape.config.tied { 1 } else { 2 };
        let need = (shape.config.vocab * shape.config.hidden * 2 * tables) as u64 + (1 << 30);
        // Where nobody tells how much there is, writing tells.
        if free_bytes(dir.path()).is_some_and(|free| free < need) {
            println!("SKIPPED {}: needs {need} bytes of disk", shape.name);
            continue;
        }
        written += 1;
        stdout(&run(
            "bitnet-run",
            &[
                "synth",
                "--shape",
                shape.name,
                "--layers",
                "1",
                "-o",
                text(&path),
            ],
        ));
        let inspected: Value = serde_json::from_str(&stdout(&run(
            "bitnet-run",
            &["inspect", "-m", text(&path), "--json"],
        )))
        .expect("JSON");
        let config = &inspected["config"];
        let is = |key: &str, want: usize| {
            assert_eq!(
                config[key].as_u64(),
                Some(want as u64),
                "{} {key}: {config}",
                shape.name
            )
        };
        is("hidden", shape.config.hidden);
        is("ffn", shape.config.ffn);
        is("vocab", shape.config.vocab);
        let said = run(
            "bitnet-run",
            &[
                "generate",
                "-m",
                text(&path),
                "-p",
                "hello there",
                "-n",
                "3",
                "--temp",
                "0",
                "--json",
            ],
        );
        let said: Value = serde_json::from_str(&stdout(&said)).expect("JSON");
        assert_eq!(said["tokens"].as_u64(), Some(3), "{}: {said}", shape.name);
        fs::remove_file(&path).expect("removed");
    }
    // The small ones fit wherever this workspace was built.
    assert!(written >= 3, "{written} of {} shapes", SHAPES.len());
}

/// `logits` of a model, as the bytes of the file.
fn logits(model: &Path, extra: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("l.npy");
    let mut args = vec![
        "logits",
        "-m",
        text(model),
        "--tokens",
        "1,40,77,200,5,131,256,17",
        "-o",
        text(&out),
    ];
    args.extend(extra);
    let done = run("bitnet-run", &args);
    stdout(&done);
    fs::read(out).expect("written")
}

/// Folders and files in other dialects become I2_S, and every logit stays the same bit.
#[test]
fn conversion_keeps_every_bit_of_the_logits() {
    let dir = tempfile::tempdir().expect("a folder");
    let tiny = data().join("tiny");
    let mut sources = vec![
        tiny.join("tiny_b158.gguf"),
        tiny.join("tiny_llama.gguf"),
        tiny.join("tiny_b158_hf"),
        tiny.join("tiny_llama_hf"),
    ];
    sources.extend(bitnet_tests::dialects::write_all(dir.path()));
    for source in sources {
        let out = dir.path().join("converted.gguf");
        stdout(&run(
            "bitnet-run",
            &["convert", text(&source), "-o", text(&out)],
        ));
        let inspected: Value = serde_json::from_str(&stdout(&run(
            "bitnet-run",
            &["inspect", "-m", text(&out), "--json"],
        )))
        .expect("JSON");
        let i2s = inspected["tensors"]
            .as_array()
            .expect("tensors")
            .iter()
            .filter(|t| t["dtype"] == "I2_S")
            .count();
        let layers = inspected["config"]["layers"]
            .as_u64()
            .expect("a number of layers") as usize;
        assert_eq!(
            i2s,
            7 * layers,
            "{}: seven projections a layer",
            source.display()
        );
        assert_eq!(
            logits(&source, &[]),
            logits(&out, &[]),
            "{}",
            source.display()
        );
    }
}
