//! Bad input through the binaries: one clear line, exit 1 or 2, no panic.

use bitnet_tests::{assert_fails, command, data, run};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn tiny() -> String {
    data().join("tiny/tiny_b158.gguf").display().to_string()
}

#[test]
fn files_that_are_not_models() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::write(at("empty.gguf"), b"").expect("written");
    fs::write(at("text.gguf"), b"hello, world; this is no model\n").expect("written");
    fs::create_dir(at("folder")).expect("made");
    for (path, word) in [
        (at("missing.gguf"), "missing.gguf"),
        (at("empty.gguf"), "empty.gguf"),
        (at("text.gguf"), "text.gguf"),
        (at("folder"), "config.json"),
    ] {
        for sub in [&["inspect"][..], &["generate", "-p", "x", "-n", "1"]] {
            let mut args = sub.to_vec();
            args.extend(["-m", &path]);
            assert_fails(&run("bitnet-run", &args), 1, &[word]);
        }
    }
}

#[test]
fn a_truncated_model_names_what_is_missing() {
    let whole = fs::read(tiny()).expect("the fixture");
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("cut.gguf");
    for cut in [
        3,
        4,
        7,
        8,
        15,
        16,
        23,
        24,
        30,
        100,
        1000,
        5000,
        7000,
        7424,
        8000,
        100_000,
        whole.len() - 1,
    ] {
        fs::write(&path, &whole[..cut]).expect("written");
        let output = run(
            "bitnet-run",
            &["inspect", "-m", path.to_str().expect("UTF-8")],
        );
        assert_fails(&output, 1, &["cut.gguf"]);
    }
}

#[test]
fn prompts_and_tokens_out_of_range() {
    let tiny = tiny();
    let long = "1,".repeat(5000) + "1";
    let out = tempfile::tempdir().expect("a folder");
    let npy = out.path().join("x.npy").display().to_string();
    let base = ["logits", "-m", &tiny, "-o", &npy, "--tokens"];
    for (tokens, words) in [("99999", &["99999", "272"][..]), (&long, &["context"][..])] {
        let mut args = base.to_vec();
        args.push(tokens);
        assert_fails(&run("bitnet-run", &args), 1, words);
        assert!(
            fs::read_dir(out.path()).expect("folder").next().is_none(),
            "nothing is written"
        );
    }
    for tokens in ["", "a", "-1", "4294967296"] {
        let argument = format!("--tokens={tokens}");
        let output = run(
            "bitnet-run",
            &["logits", "-m", &tiny, "-o", &npy, &argument],
        );
        assert!(
            matches!(output.status.code(), Some(1 | 2)),
            "{tokens:?}: {output:?}"
        );
        assert!(
            !String::from_utf8_lossy(&output.stderr).contains("panicked"),
            "{tokens:?}"
        );
    }
}

#[test]
fn a_prompt_that_is_not_utf8() {
    let output = command("bitnet-run")
        .args(["generate", "-n", "1", "-p"])
        .arg(OsStr::from_bytes(b"\xff\xfe"))
        .output()
        .expect("starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{stderr}");
    assert!(
        stderr.contains("UTF-8") && !stderr.contains("panicked"),
        "{stderr}"
    );
}

#[test]
fn options_that_make_no_sense_are_usage_errors() {
    for args in [
        &["generate", "-t", "0", "-p", "x"][..],
        &["generate", "-t", "10000", "-p", "x"],
        &["generate", "-p", "x", "--temp", "-1"],
        &["generate", "-p", "x", "--temp", "NaN"],
        &["generate", "-p", "x", "--temp", "inf"],
        &["generate", "-p", "x", "--top-p", "7"],
        &["generate", "-p", "x", "--min-p", "-0.5"],
        &["generate", "-p", "x", "--repeat-penalty", "0"],
        &["generate", "-p", "x", "-n", "many"],
        &["generate", "-p", "x", "--seed", "1.5"],
        &["generate", "-p", "x", "--ctx", "0"],
        &["bench", "-t", "1,0"],
        &["bench", "-r", "0"],
        &["synth", "--shape", "nonsense", "-o", "/nonexistent/x"],
        &["logits", "--tokens", "1"],
        &["nonsense"],
        &[],
    ] {
        let output = run("bitnet-run", args);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let output = run(
        "bitnet-run",
        &["generate", "-p", "x", "--kernel", "nonsense"],
    );
    assert!(matches!(output.status.code(), Some(1 | 2)));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nonsense"));
}

#[test]
fn a_broken_profile_costs_speed_and_is_said_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("p.toml");
    let args = |p: &Path| {
        [
            "generate",
            "-p",
            "Once",
            "-n",
            "4",
            "--temp",
            "0",
            "--profile",
        ]
        .map(String::from)
        .into_iter()
        .chain([p.display().to_string()])
        .collect::<Vec<_>>()
    };
    let want = run(
        "bitnet-run",
        &["generate", "-p", "Once", "-n", "4", "--temp", "0"],
    );
    assert!(
        want.status.success(),
        "{}",
        String::from_utf8_lossy(&want.stderr)
    );
    for text in [
        "",
        "not toml at all [",
        "version = 999\n",
        "[host]\ncpu = \"something else\"\n",
    ] {
        fs::write(&path, text).expect("written");
        let args = args(&path);
        let got = run(
            "bitnet-run",
            &args.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        let stderr = String::from_utf8_lossy(&got.stderr);
        assert!(got.status.success(), "{text:?}: {stderr}");
        assert_eq!(got.stdout, want.stdout, "a profile never changes the text");
        assert_eq!(
            stderr.lines().filter(|l| l.contains("p.toml")).count(),
            1,
            "said once: {stderr}"
        );
    }
}

/// What is asked for is refused before anything of an answer is printed.
#[test]
fn requests_that_cannot_be_met_are_refused_before_the_answer() {
    let dir = tempfile::tempdir().expect("a folder");
    let empty = dir.path().join("empty.txt").display().to_string();
    fs::write(&empty, "").expect("written");
    let long = "once upon a time ".repeat(2000);
    let missing = dir.path().join("missing").display().to_string();
    let folder = dir.path().display().to_string();
    for (args, words) in [
        (&["generate", "-p", ""][..], &["prompt is empty"][..]),
        (&["generate", "-f", &empty], &["prompt is empty"]),
        (&["generate", "-f", &missing], &["missing", "No such file"]),
        (&["generate", "-f", &folder], &["directory"]),
        (&["generate", "-p", &long], &["context holds"]),
        (
            &["generate", "-p", "a b c", "--ctx", "2"],
            &["context holds 2"],
        ),
        (
            &["generate", "-p", "x", "--ctx", "99999999999"],
            &["99999999999", "expected 1 to"],
        ),
        (&["generate", "-p", "x", "-m", &missing], &["missing"]),
        (&["perplexity", "-f", &missing], &["missing"]),
        (&["perplexity", "-f", &empty], &["tokens"]),
        (&["bench", "-p", "0", "-n", "0"], &["nothing to measure"]),
        (&["bench", "-p", "9999999"], &["9999999", "context"]),
        (
            &["synth", "--shape", "tiny", "--layers", "99", "-o", &missing],
            &["99 layers", "1 to 2"],
        ),
        (&["convert", &folder, "-o", &missing], &["config.json"]),
        (&["convert", &empty, "-o", &missing], &["empty"]),
    ] {
        let output = run("bitnet-run", args);
        assert_fails(&output, 1, words);
        // The system's reason is said once.
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.matches("os error").count() <= 1, "{stderr}");
    }
    for args in [["show", &missing], ["check", &folder], ["explain", &empty]] {
        let output = run("bitnet-tune", &args);
        assert_fails(&output, 1, &[args[1]]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.matches("os error").count() <= 1, "{stderr}");
    }
}

/// A path that is no profile costs a note: a model, a folder, a device without end.
#[test]
fn what_is_no_profile_is_said_and_passed_over() {
    let args = ["generate", "-p", "Once", "-n", "4", "--temp", "0"];
    let want = run("bitnet-run", &args).stdout;
    let mut paths = vec![tiny(), data().display().to_string()];
    if cfg!(target_os = "linux") {
        paths.push("/dev/zero".to_owned());
    }
    for path in &paths {
        let got = run("bitnet-run", &[&args[..], &["--profile", path]].concat());
        let stderr = String::from_utf8_lossy(&got.stderr);
        assert!(got.status.success(), "{stderr}");
        assert_eq!(got.stdout, want, "a profile never changes the text");
        let said = stderr.lines().filter(|l| l.contains(path.as_str()));
        assert_eq!(said.count(), 1, "said once: {stderr}");
    }
}

/// Questions come through a pipe: empty lines, bytes that are no text, one that does not fit, and no line end at all.
#[test]
fn a_conversation_through_a_pipe_survives_what_comes() {
    use std::io::Write;
    let long = "hello there ".repeat(2000);
    let mut asked = b"Hi\n\n   \n\xff\xfe\n/reset\n".to_vec();
    asked.extend(long.as_bytes());
    asked.extend(b"\nHi");
    let mut child = command("bitnet-run")
        .args(["chat", "--temp", "0", "-n", "4", "--json"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(&asked).expect("it listens");
    drop(stdin);
    let output = child.wait_with_output().expect("ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let turns: serde_json::Value =
        serde_json::from_str(&bitnet_tests::stdout(&output)).expect("JSON");
    let turns = turns.as_array().expect("a list");
    assert_eq!(turns.len(), 2, "{turns:?} {stderr}");
    assert_eq!(turns[0]["ids"], turns[1]["ids"], "/reset forgets");
    for word in ["not UTF-8", "context holds"] {
        assert!(stderr.contains(word), "{word:?} is not in: {stderr}");
    }
}
