//! Conversations that are kept and gone on with, and benchmarks that are set against earlier ones.

use bitnet_tests::{assert_fails, run, stdout};
use serde_json::Value;
use std::fs;
use std::path::Path;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

const GREEDY: [&str; 4] = ["generate", "--temp", "0", "--no-echo"];

fn generated(args: &[&str]) -> String {
    let said = stdout(&run("bitnet-run", &[&GREEDY[..], args].concat()));
    said.strip_suffix('\n').expect("a line").to_owned()
}

#[test]
fn a_text_goes_on_where_it_was_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let prompt = ["-p", "Once upon a time"];
    let whole = generated(&[&prompt[..], &["-n", "24"]].concat());
    let begun = generated(&[&prompt[..], &["-n", "9", "--save-session", text(&first)]].concat());
    let load = [
        "--load-session",
        text(&first),
        "--save-session",
        text(&second),
    ];
    let more = generated(&[&load[..], &["-n", "5"]].concat());
    let rest = generated(&["--load-session", text(&second), "-n", "10"]);
    assert_eq!(begun + &more + &rest, whole);
    // A text that is given comes behind what was kept: as if all of it had been the prompt.
    let kept = format!(
        "Once upon a time{}",
        generated(&[&prompt[..], &["-n", "9"]].concat())
    );
    let asked = [&kept, " The dog"].concat();
    let want = generated(&["-p", &asked, "-n", "8"]);
    let load = ["--load-session", text(&first), "-p", " The dog", "-n", "8"];
    assert_eq!(generated(&load), want);
}

#[test]
fn what_is_no_session_of_this_model_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("session");
    let load = ["generate", "-n", "1", "--load-session", text(&file)];
    assert_fails(&run("bitnet-run", &load), 1, &[text(&file)]);
    fs::write(&file, "no session").expect("written");
    assert_fails(&run("bitnet-run", &load), 1, &[text(&file)]);
    generated(&["-p", "Once", "-n", "2", "--save-session", text(&file)]);
    let other = dir.path().join("m.gguf");
    let synth = ["synth", "--shape", "tiny", "-o", text(&other)];
    stdout(&run("bitnet-run", &synth));
    let foreign = [&load[..], &["-m", text(&other), "-p", "x"]].concat();
    let refused = run("bitnet-run", &foreign);
    assert_fails(&refused, 1, &[text(&file), "another model"]);
    let nowhere = dir.path().join("missing/session");
    let save = ["generate", "-n", "1", "--save-session", text(&nowhere)];
    assert_fails(&run("bitnet-run", &save), 1, &[text(&nowhere)]);
}

fn bench(args: &[&str]) -> Value {
    let base = [
        "bench", "-p", "16", "-n", "4", "-r", "2", "-t", "1", "-o", "json",
    ];
    let told = run("bitnet-run", &[&base[..], args].concat());
    serde_json::from_str(&stdout(&told)).expect("JSON")
}

fn tests_of(rows: &Value) -> Vec<&str> {
    let rows = rows.as_array().expect("a list").iter();
    rows.map(|r| r["test"].as_str().expect("a name")).collect()
}

#[test]
fn a_benchmark_is_set_against_another() {
    let dir = tempfile::tempdir().expect("a folder");
    let (file, half) = (dir.path().join("other.json"), dir.path().join("half.json"));
    let mut other = bench(&[]);
    assert_eq!(tests_of(&other), ["pp16", "tg4", "ttft16", "load"]);
    for row in other.as_array().expect("a list") {
        let counts = ["pp16", "tg4"].contains(&row["test"].as_str().expect("a name"));
        assert_eq!(row["tokens_per_s"].is_object(), counts, "{row}");
        assert!(
            row["ms"]["median"].as_f64().is_some_and(|ms| ms > 0.0),
            "{row}"
        );
        assert!(row.get("compared").is_none(), "{row}");
    }
    // Another machine, very fast and without the last test.
    for row in other.as_array_mut().expect("a list") {
        row["host"] = "Another CPU".into();
        if row["tokens_per_s"].is_object() {
            row["tokens_per_s"]["median"] = 1e12.into();
        }
        row["ms"]["median"] = 1e-9.into();
    }
    other.as_array_mut().expect("a list").pop();
    fs::write(&file, other.to_string()).expect("written");
    let rows = bench(&["--compare", text(&file)]);
    for row in rows.as_array().expect("a list") {
        let speedup = row["compared"]["speedup"].as_f64();
        let known = row["test"] != "load";
        assert_eq!(speedup.is_some_and(|s| s > 0.0 && s < 1e-3), known, "{row}");
    }
    let base = [
        "bench",
        "-p",
        "8",
        "-n",
        "0",
        "-r",
        "1",
        "-t",
        "1",
        "--compare",
    ];
    let told = run("bitnet-run", &[&base[..], &[text(&file)]].concat());
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(said.contains("has no pp8"), "{said}");
    assert!(
        stdout(&told).contains("to the other") || said.contains("has no"),
        "{said}"
    );
    fs::write(&half, "[{\"test\": \"pp16\"").expect("written");
    let broken = run("bitnet-run", &[&base[..], &[text(&half)]].concat());
    assert_fails(&broken, 1, &["half.json", "bench -o json"]);
}

#[test]
fn a_benchmark_begins_at_a_depth() {
    let deep = bench(&["-d", "32"]);
    let names = tests_of(&deep);
    assert_eq!(names, ["pp16 @ d32", "tg4 @ d32", "ttft16 @ d32", "load"]);
    let bytes = |rows: &Value| rows[1]["bytes_per_token"].as_u64().expect("a number");
    // The longer the context, the more a token reads.
    assert!(bytes(&deep) > bytes(&bench(&[])));
    let beyond = run(
        "bitnet-run",
        &["bench", "-d", "100000", "-n", "1", "-p", "0"],
    );
    assert_fails(&beyond, 1, &["100000", "-d"]);
}
