//! Bad input through the binaries: one clear line, exit 1 or 2, nothing half-written, no panic.

use bitnet_tests::{command, data, run};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Output, Stdio};

fn tiny() -> String {
    data().join("tiny/tiny_b158.gguf").display().to_string()
}

/// A failure is one line on stderr that says what is wrong; stdout stays empty; nobody panicked.
#[track_caller]
fn assert_fails(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "stderr: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert!(
        output.stdout.is_empty(),
        "stdout: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in: {stderr}");
    }
    let errors = stderr.lines().filter(|l| l.starts_with("error")).count();
    assert_eq!(errors, 1, "one line of error: {stderr}");
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
        &["generate", "-p", "x", "--temp", "-1"],
        &["generate", "-p", "x", "--top-p", "7"],
        &["generate", "-p", "x", "-n", "many"],
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
fn output_paths_that_cannot_be_written() {
    let tiny = tiny();
    for path in ["/nonexistent/x.npy", "/dev/full", "/"] {
        let output = run(
            "bitnet-run",
            &["logits", "-m", &tiny, "--tokens", "1,2", "-o", path],
        );
        assert_fails(&output, 1, &[path]);
    }
    let output = run(
        "bitnet-run",
        &[
            "synth",
            "--shape",
            "large",
            "--layers",
            "1",
            "-o",
            "/nonexistent/m.gguf",
        ],
    );
    assert_fails(&output, 1, &["/nonexistent/m.gguf"]);
    let output = run(
        "bitnet-run",
        &["convert", &tiny, "-o", "/nonexistent/m.gguf"],
    );
    assert_fails(&output, 1, &["/nonexistent/m.gguf"]);
}

/// A full disk: a small file system in memory where the machine lets us mount one.
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(dir.path())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success());
    if !mounted {
        println!("SKIPPED: mounting a small tmpfs needs privileges that this user lacks");
        return;
    }
    let target = dir.path().join("m.gguf");
    let output = run(
        "bitnet-run",
        &["convert", &tiny(), "-o", target.to_str().expect("UTF-8")],
    );
    let left: Vec<_> = fs::read_dir(dir.path())
        .expect("folder")
        .flatten()
        .map(|e| e.file_name())
        .collect();
    let unmounted = std::process::Command::new("umount")
        .arg(dir.path())
        .status()
        .is_ok_and(|s| s.success());
    assert!(unmounted, "umount {}", dir.path().display());
    assert_fails(&output, 1, &["m.gguf"]);
    assert!(left.is_empty(), "left behind: {left:?}");
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

#[test]
fn a_closed_pipe_ends_quietly() {
    let mut child = command("bitnet-run")
        .args(["generate", "-p", "Once upon a time", "-n", "200"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut stderr)
        .expect("read");
    child.wait().expect("ends");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn ctrl_c_stops_generating_and_tuning_cleanly() {
    let dir = tempfile::tempdir().expect("a folder");
    let profile = dir.path().join("p.toml");
    let profile_arg = profile.display().to_string();
    for (binary, args) in [
        (
            "bitnet-run",
            vec![
                "generate",
                "-p",
                "Once upon a time",
                "-n",
                "1000000",
                "--temp",
                "1",
                "--ignore-eos",
            ],
        ),
        (
            "bitnet-tune",
            vec!["tune", "-o", &profile_arg, "--budget", "600"],
        ),
    ] {
        let mut child = command(binary)
            .args(&args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        std::thread::sleep(std::time::Duration::from_millis(1500));
        #[expect(
            unsafe_code,
            reason = "there is no safe way to send SIGINT from the standard library"
        )]
        // SAFETY: a plain system call on a child that is still ours to wait for.
        let sent = unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
        assert_eq!(sent, 0);
        let mut stderr = String::new();
        child
            .stderr
            .take()
            .expect("piped")
            .read_to_string(&mut stderr)
            .expect("read");
        let status = child.wait().expect("ends");
        assert!(!stderr.contains("panicked"), "{binary}: {stderr}");
        assert!(
            matches!(status.code(), Some(0 | 1 | 130)),
            "{binary}: {status:?} {stderr}"
        );
    }
    let left: Vec<_> = fs::read_dir(dir.path())
        .expect("folder")
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert!(
        left.is_empty() || left == ["p.toml"],
        "no temporary files: {left:?}"
    );
    if profile.exists() {
        let shown = run("bitnet-tune", &["show", &profile_arg]);
        assert!(
            shown.status.success(),
            "a profile that was written is whole"
        );
    }
}
