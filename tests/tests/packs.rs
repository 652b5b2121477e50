#![cfg(unix)]
//! Kernels compiled ahead, through the binaries: a pack gives the text and the logits that emitted code gives, whatever
//! is wrong with it costs a line and nothing else, and it runs where code must not be made.

use bitnet_tests::mdwe::without_executable_memory;
use bitnet_tests::{assert_fails, command, run, stdout};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// What is asked for with and without a pack.
const STORY: [&str; 7] = [
    "generate",
    "-p",
    "Once upon a time",
    "-n",
    "24",
    "--temp",
    "0",
];

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn compile(out: &Path, extra: &[&str]) -> Output {
    let args = [&["compile", "-o", text(out)], extra].concat();
    run("bitnet-tune", &args)
}

fn generate(pack: &Path) -> Command {
    let mut command = command("bitnet-run");
    command.args(STORY);
    command.args(["--threads", "2", "--pack", text(pack)]);
    command
}

fn notes(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    let notes = text.lines().filter(|l| l.starts_with("note: "));
    notes.map(str::to_owned).collect()
}

/// What emitted kernels say.
fn emitted() -> String {
    stdout(&run("bitnet-run", &STORY))
}

#[test]
fn a_pack_gives_the_logits_that_emitted_kernels_give() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let told = compile(&at("k.pack"), &["-t", "1,2", "--json"]);
    let report: Value = serde_json::from_str(&stdout(&told)).expect("JSON");
    assert_eq!(report["verified"], Value::Bool(true));
    assert_eq!(report["interpreted"], 0);
    stdout(&compile(&at("again.pack"), &["-t", "1,2"]));
    let read = |name: &str| fs::read(at(name)).expect("a file");
    assert_eq!(
        read("k.pack"),
        read("again.pack"),
        "the same bytes each time"
    );
    for threads in ["1", "2"] {
        let logits = |name: &str, extra: &[&str]| {
            let out = at(name);
            let tokens = (1..60).map(|t| t.to_string()).collect::<Vec<_>>().join(",");
            let base = [
                "logits",
                "--tokens",
                &tokens,
                "-t",
                threads,
                "-o",
                text(&out),
            ];
            let output = run("bitnet-run", &[&base[..], extra].concat());
            stdout(&output);
            (read(name), notes(&output))
        };
        let pack = at("k.pack");
        let (want, _) = logits("emitted.npy", &[]);
        let (got, notes) = logits("pack.npy", &["--pack", text(&pack)]);
        assert_eq!(got, want, "{threads} threads");
        let about = notes.iter().find(|n| n.contains("pack has no"));
        assert!(about.is_none(), "{notes:?}");
    }
    let pack = at("k.pack");
    let bench = [
        "bench", "-p", "16", "-n", "4", "-r", "1", "-t", "2", "-o", "json", "--pack",
    ];
    let rows = run("bitnet-run", &[&bench[..], &[text(&pack)]].concat());
    let rows: Value = serde_json::from_str(&stdout(&rows)).expect("JSON");
    let code = rows[0]["code"].as_object().expect("a map");
    assert!(
        !code.is_empty() && code.values().all(|c| c == "pack"),
        "{rows}"
    );
    let shown = stdout(&run("bitnet-tune", &["show", text(&pack)]));
    for kernel in report["kernels"].as_array().expect("a list") {
        let spec = kernel["spec"].as_str().expect("a name");
        assert!(shown.contains(spec), "{spec} is not in {shown}");
    }
}

/// Coded heads, two layers of a real shape and its profile, too.
#[test]
fn a_pack_serves_a_model_with_a_screened_head() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let (model, pack) = (at("m.gguf"), at("k.pack"));
    let shape = [
        "synth",
        "--shape",
        "large",
        "--layers",
        "1",
        "-o",
        text(&model),
    ];
    stdout(&run("bitnet-run", &shape));
    stdout(&compile(&pack, &["-m", text(&model)]));
    let json = |extra: &[&str]| {
        let base = [
            "generate",
            "-m",
            text(&model),
            "-n",
            "6",
            "--temp",
            "0",
            "--json",
        ];
        let base = [&base[..], &["--ignore-eos", "-p", "a b c"]].concat();
        let output = run("bitnet-run", &[&base[..], extra].concat());
        let value: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
        (value["ids"].clone(), notes(&output))
    };
    let (want, _) = json(&[]);
    let (got, notes) = json(&["--pack", text(&pack)]);
    assert_eq!(got, want);
    assert!(
        !notes.iter().any(|n| n.contains("pack has no")),
        "{notes:?}"
    );
    let bench = [
        "bench",
        "-m",
        text(&model),
        "-p",
        "0",
        "-n",
        "2",
        "-r",
        "1",
        "-o",
        "json",
        "--pack",
    ];
    let rows = run("bitnet-run", &[&bench[..], &[text(&pack)]].concat());
    let rows: Value = serde_json::from_str(&stdout(&rows)).expect("JSON");
    assert_ne!(rows[0]["head_form"], "exact", "{rows}");
    assert_eq!(rows[0]["head_code"], "pack", "{rows}");
}

#[test]
fn whatever_is_wrong_with_a_pack_is_one_line_and_the_same_text() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let good = at("k.pack");
    stdout(&compile(&good, &[]));
    let bytes = fs::read(&good).expect("a pack");
    let want = emitted();
    let told = |name: &str, words: &[&str]| {
        let output = generate(&at(name)).output().expect("it starts");
        assert_eq!(stdout(&output), want, "{name}");
        let all = notes(&output);
        let about: Vec<_> = all.iter().filter(|n| n.contains(name)).collect();
        assert_eq!(about.len(), 1, "{name}: {all:?}");
        for word in words {
            assert!(about[0].contains(word), "{word:?} is not in {about:?}");
        }
    };
    told("missing.pack", &["cannot read", "not used"]);
    fs::write(at("cut.pack"), &bytes[..bytes.len() / 2]).expect("written");
    told("cut.pack", &["it was cut"]);
    let mut flipped = bytes.clone();
    flipped[bytes.len() - 1] ^= 4;
    fs::write(at("flipped.pack"), &flipped).expect("written");
    told("flipped.pack", &["damaged"]);
    fs::write(at("text.pack"), "hello").expect("written");
    told("text.pack", &["no kernel pack"]);
    let foreign = if cfg!(target_arch = "aarch64") {
        "x86_64"
    } else {
        "aarch64"
    };
    let triple = format!("{foreign}-unknown-linux-gnu");
    let report = stdout(&compile(&at("foreign.pack"), &["--target", &triple]));
    assert!(report.contains("not run on this machine"), "{report}");
    told("foreign.pack", &["it is for", foreign]);
    for name in ["cut.pack", "flipped.pack"] {
        assert_fails(&run("bitnet-tune", &["show", text(&at(name))]), 1, &[name]);
    }
    stdout(&run("bitnet-tune", &["show", text(&at("foreign.pack"))]));
}

#[test]
fn a_pack_cannot_be_written_where_it_must_not_or_of_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("no/such/k.pack");
    assert_fails(&compile(&out, &[]), 1, &["k.pack"]);
    let out = dir.path().join("k.pack");
    assert_fails(
        &compile(&out, &["--target", "x86_64", "--features", "neon"]),
        1,
        &["neon"],
    );
    assert_fails(
        &compile(&out, &["--target", "x86_64", "--features", "fma"]),
        1,
        &["no code"],
    );
    let left = fs::read_dir(dir.path()).expect("a folder").count();
    assert_eq!(left, 0, "nothing is left of what failed");
    let usage = compile(&out, &["--target", "z80-unknown-none"]);
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
}

/// Where nothing may become executable, a pack gives the text that emitted code gives, without a word.
#[cfg(target_os = "linux")]
#[test]
fn a_pack_runs_where_code_must_not_be_made() {
    let dir = tempfile::tempdir().expect("a folder");
    let pack = dir.path().join("k.pack");
    stdout(&compile(&pack, &["-t", "2"]));
    let Some(output) = without_executable_memory(generate(&pack)) else {
        return;
    };
    assert_eq!(stdout(&output), emitted());
    let about: Vec<_> = notes(&output)
        .into_iter()
        .filter(|n| n.contains("interpreted"))
        .collect();
    assert!(about.is_empty(), "{about:?}");
    // It can be written there, too, and is the same.
    let again = dir.path().join("again.pack");
    let mut compile = command("bitnet-tune");
    compile.args(["compile", "-t", "2", "-o", text(&again)]);
    let told = without_executable_memory(compile).expect("as before");
    assert!(
        stdout(&told).contains("not run on this machine"),
        "{told:?}"
    );
    assert_eq!(
        fs::read(&again).expect("a pack"),
        fs::read(&pack).expect("a pack")
    );
}
