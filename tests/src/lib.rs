//! Whole-system tests: files in, text out, through the binaries. This library holds what several of them share:
//! where the workspace is, and how the binaries are run.

pub mod dialects;
pub mod fuzz;
pub mod mdwe;
pub mod packages;
pub mod source;
pub mod tunes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

/// The top of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace")
}

/// The folder of test data: reference vectors and tiny models.
pub fn data() -> PathBuf {
    workspace().join("tests/data")
}

/// The path of a binary of the workspace, in the profile of the running test; built if it is older than a source.
///
/// `cargo test --workspace` builds both binaries before any test runs (each has an integration test of its own),
/// so the build here only serves runs of this package alone.
///
/// # Panics
/// When cargo cannot build it.
pub fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let this = std::env::current_exe().expect("a test binary has a path");
        let folder = this
            .parent()
            .and_then(Path::parent)
            .expect("target/<profile>/deps")
            .to_owned();
        let built = ["bitnet-run", "bitnet-tune"]
            .map(|b| fs::metadata(folder.join(b)).and_then(|m| m.modified()).ok());
        let newest =
            ["codegen", "runtime", "tuner"].map(|krate| newest_source(&workspace().join(krate)));
        let newest = newest.into_iter().max().expect("three crates");
        if built.iter().any(|b| b.is_none_or(|b| b < newest)) {
            build(&folder);
        }
        folder
    });
    folder.join(name)
}

fn newest_source(folder: &Path) -> SystemTime {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries
        .flatten()
        .fold(SystemTime::UNIX_EPOCH, |newest, entry| {
            let path = entry.path();
            let is_test = ["tests", "benches", "examples"]
                .iter()
                .any(|d| path.ends_with(d));
            let here = if path.is_dir() {
                if is_test {
                    SystemTime::UNIX_EPOCH
                } else {
                    newest_source(&path)
                }
            } else if path
                .extension()
                .is_some_and(|e| e == "rs" || e == "toml" || e == "gguf")
            {
                entry
                    .metadata()
                    .and_then(|m| m.modified())
                    .unwrap_or(SystemTime::UNIX_EPOCH)
            } else {
                SystemTime::UNIX_EPOCH
            };
            newest.max(here)
        })
}

fn build(folder: &Path) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(workspace())
        .args(["build", "--workspace", "--bins", "--quiet"]);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let target = folder
        .parent()
        .expect("a profile lies in the target folder");
    let status = cargo
        .arg("--target-dir")
        .arg(target)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "cargo build --bins");
}

/// Runs a binary with an empty profile search (no user's files) and returns what it printed.
///
/// # Panics
/// When it cannot be started.
pub fn run(name: &str, args: &[&str]) -> Output {
    command(name)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

/// A command for a binary that sees no user's configuration.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(binary(name));
    command
        .env_remove("BITNET_PROFILE")
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .env("HOME", "/nonexistent");
    command
}

/// Standard output as text.
///
/// # Panics
/// When the command failed or printed no UTF-8.
pub fn stdout(output: &Output) -> String {
    assert!(
        output.status.success(),
        "exit {:?}: {}",
        output.status.code(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).expect("output is UTF-8")
}

/// A failure is one line on stderr that says what is wrong; stdout stays empty; nobody panicked.
///
/// # Panics
/// When it is anything else, or a word is not said.
#[track_caller]
pub fn assert_fails(output: &Output, code: i32, words: &[&str]) {
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
