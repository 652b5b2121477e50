//! From probe to text through the binaries: tune, look at the profile, generate with it.

use bitnet_codegen::variant::VARIANTS;
use bitnet_tests::{run, stdout};
use serde_json::Value;
use std::fs;

fn json(name: &str, args: &[&str]) -> Value {
    let mut all = args.to_vec();
    all.push("--json");
    serde_json::from_str(&stdout(&run(name, &all)))
        .unwrap_or_else(|e| panic!("{name} {all:?}: {e}"))
}

#[track_caller]
fn has(value: &Value, keys: &[&str]) {
    for key in keys {
        assert!(value.get(key).is_some(), "no {key} in {value}");
    }
}

#[test]
fn the_demo_tells_the_whole_story() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("p.toml");
    let p = path.to_str().expect("UTF-8");
    let told = run("bitnet-tune", &["demo", "-o", p, "--budget", "6"]);
    let text = stdout(&told);
    for word in [
        "Once upon a time",
        p,
        "tuned",
        "untuned",
        "scalar",
        "of roofline",
    ] {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }

    let checked = json("bitnet-tune", &["check", p]);
    assert_eq!(checked["state"], "exact", "{checked}");
    let verified = json("bitnet-tune", &["verify", p]);
    let rows = verified.as_array().expect("a list");
    assert!(
        !rows.is_empty() && rows.iter().all(|r| r["exact"] == true),
        "{verified}"
    );
    let shown = json("bitnet-tune", &["show", p]);
    has(
        &shown["kernels"][0],
        &["n", "k", "tokens", "spec", "median_ns", "roofline_fraction"],
    );
    let explained = stdout(&run("bitnet-tune", &["explain", p]));
    assert!(explained.contains(" won with "), "{explained}");

    let args = [
        "generate",
        "-p",
        "Once upon a time",
        "-n",
        "64",
        "--temp",
        "0",
    ];
    let plain = stdout(&run("bitnet-run", &args));
    let tuned = run("bitnet-run", &[&args[..], &["--profile", p]].concat());
    assert_eq!(stdout(&tuned), plain, "a profile never changes the text");
    let said = String::from_utf8_lossy(&tuned.stderr).into_owned();
    assert!(
        !said.contains("profile"),
        "an exact profile is not worth a word: {said}"
    );
    let bench = json(
        "bitnet-run",
        &["bench", "-p", "32", "-n", "8", "-r", "1", "--profile", p],
    );
    let row = &bench[0];
    has(
        row,
        &[
            "test",
            "threads",
            "n_tokens",
            "bytes_per_token",
            "gb_per_s",
            "roofline_fraction",
            "peak_rss_bytes",
        ],
    );
    has(
        row,
        &["load_s", "profile", "kernels", "head", "model", "host"],
    );
    has(&row["tokens_per_s"], &["median", "min", "max"]);
    assert_eq!(row["profile"]["state"], "exact");
    for (row, test, reads) in [(&bench[0], "pp32", false), (&bench[1], "tg8", true)] {
        assert_eq!(row["test"], test);
        assert!(row["roofline_fraction"].is_number(), "{row}");
        // A prompt reads its weights once for many tokens: what that is a token is not known, and not made up.
        for key in ["bytes_per_token", "gb_per_s"] {
            assert_eq!(row[key].as_f64().is_some_and(|v| v > 0.0), reads, "{row}");
            assert_eq!(row[key].is_null(), !reads, "{row}");
        }
    }
}

#[test]
fn tuning_can_stop_and_go_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("p.toml");
    let p = path.to_str().expect("UTF-8");
    let one = json(
        "bitnet-tune",
        &["tune", "-o", p, "--budget", "2", "--m", "1"],
    );
    has(&one, &["path", "entries", "complete"]);
    let entries = |v: &Value| v["entries"].as_u64().expect("a count");
    let more = json(
        "bitnet-tune",
        &["tune", "-o", p, "--budget", "2", "--m", "1,128", "--resume"],
    );
    assert!(entries(&more) > entries(&one), "{one} then {more}");
    let again = json(
        "bitnet-tune",
        &["tune", "-o", p, "--budget", "3", "--m", "1", "--check"],
    );
    has(&again, &["agree", "of", "entries"]);
    assert!(again["of"].as_u64().is_some_and(|n| n >= 1), "{again}");
    fs::write(&path, "version = 1\n").expect("written");
    let broken = run(
        "bitnet-tune",
        &["tune", "-o", p, "--budget", "1", "--resume"],
    );
    assert_eq!(
        broken.status.code(),
        Some(1),
        "a profile that cannot be read is not overwritten by --resume"
    );
    assert_eq!(
        fs::read_to_string(&path).expect("still there"),
        "version = 1\n"
    );
}

#[test]
fn the_listing_names_every_family() {
    for m in ["1", "128"] {
        let listed = json(
            "bitnet-tune",
            &[
                "list",
                "--n",
                "6912",
                "--k",
                "2560",
                "--m",
                m,
                "--defaults",
                "--all",
            ],
        );
        let rows = listed["kernels"].as_array().expect("a list");
        for family in VARIANTS {
            let of_family = |r: &&Value| r["family"] == family.name();
            let known = rows.iter().filter(of_family);
            assert!(known.count() > 0, "{} at m {m}", family.name());
        }
        for row in rows.iter().filter(|r| r["runs"] == false) {
            assert!(
                !row["why_not"].as_str().unwrap_or_default().is_empty(),
                "{row}"
            );
        }
    }
}

/// What `list` names for an instruction set, `kernel` finds there.
#[test]
fn a_lesser_instruction_set_has_kernels_of_its_own() {
    let listed = json("bitnet-tune", &["list", "--n", "64", "--k", "256"]);
    let rows = listed["kernels"].as_array().expect("a list");
    let isas: std::collections::BTreeSet<&str> = rows
        .iter()
        .map(|r| r["isa"].as_str().expect("a name"))
        .filter(|isa| *isa != "interp")
        .collect();
    for isa in isas {
        let mut args = vec!["kernel", "--n", "64", "--k", "256", "--hot"];
        args.extend(["-t", "1", "--samples", "3", "--budget", "1", "--isa", isa]);
        let found = json("bitnet-tune", &args);
        let spec = found["spec"].as_str().expect("a name");
        assert!(spec.contains(&format!("-{isa}")), "{spec} for {isa}");
    }
}

/// The budget is wall time for everything; what there is no time for is said, and left to another run.
#[test]
fn tuning_keeps_to_its_budget() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("p.toml");
    let start = std::time::Instant::now();
    let args = ["tune", "--budget", "1", "-o", path.to_str().expect("UTF-8")];
    let told = run("bitnet-tune", &args);
    let took = start.elapsed().as_secs_f64();
    stdout(&told);
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    println!("{took:.1} s");
    // A machine that does other things as well takes longer over the search at hand; the twenty seconds that
    // enumerating alone once took are beyond that.
    assert!(took < 8.0, "{took:.1} s for a budget of 1 s: {said}");
}

#[test]
fn one_kernel_is_verified_then_timed() {
    let k = json(
        "bitnet-tune",
        &[
            "kernel",
            "--m",
            "1",
            "--n",
            "320",
            "--k",
            "256",
            "--budget",
            "1",
            "--hot",
            "--samples",
            "5",
        ],
    );
    has(
        &k,
        &[
            "spec",
            "m",
            "n",
            "k",
            "threads",
            "verified",
            "cold",
            "median_ns",
            "gb_per_s",
            "gmac_per_s",
            "roofline_fraction",
        ],
    );
    assert_eq!(
        (&k["verified"], &k["cold"]),
        (&Value::Bool(true), &Value::Bool(false))
    );
    let spec = k["spec"].as_str().expect("a name");
    let again = json(
        "bitnet-tune",
        &[
            "kernel",
            "--n",
            "320",
            "--k",
            "256",
            "--spec",
            spec,
            "--samples",
            "3",
        ],
    );
    assert_eq!(again["spec"], spec);
    let none = run(
        "bitnet-tune",
        &["kernel", "--spec", "i2s-i2s-1x3c16-interp"],
    );
    assert_eq!(
        none.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&none.stderr)
    );
}

#[test]
fn the_host_is_told_as_json() {
    let host = json("bitnet-tune", &["host"]);
    has(
        &host,
        &[
            "cpu",
            "features",
            "caches",
            "read_gb_per_s",
            "peak_gmac_per_s",
        ],
    );
    assert!(
        host["read_gb_per_s"]["1"].as_f64().is_some_and(|v| v > 0.0),
        "{host}"
    );
    assert!(
        host["peak_gmac_per_s"]["1"]
            .as_f64()
            .is_some_and(|v| v > 0.0),
        "{host}"
    );
}

#[test]
fn generate_and_tokenize_speak_json() {
    let said = json(
        "bitnet-run",
        &[
            "generate",
            "-p",
            "Once upon a time",
            "-n",
            "8",
            "--temp",
            "0",
        ],
    );
    has(
        &said,
        &[
            "text",
            "ids",
            "prompt_tokens",
            "tokens",
            "prefill_tokens_per_s",
            "decode_tokens_per_s",
        ],
    );
    has(&said, &["ttft_ms", "p50_ms", "p95_ms", "p99_ms"]);
    let ids = json("bitnet-run", &["tokenize", "-p", "Once upon a time"]);
    assert_eq!(
        ids["ids"].as_array().map(Vec::len),
        said["prompt_tokens"].as_u64().map(|n| n as usize)
    );
}
