//! Whole-system tests: files in, text out, through the binaries. This library holds what several of them share:
//! where the workspace is, and how the binaries are run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The top of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace")
}

/// The folder of test data: reference vectors and tiny models.
pub fn data() -> PathBuf {
    workspace().join("tests/data")
}

/// The path of a binary of the workspace, built in the profile of the running test.
///
/// # Panics
/// When cargo cannot build it.
pub fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let this = std::env::current_exe().expect("a test binary has a path");
        let profile = this.parent().and_then(Path::parent).expect("target/<profile>/deps").to_owned();
        let release = profile.ends_with("release");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(workspace()).args(["build", "--workspace", "--bins", "--quiet"]);
        if release {
            cargo.arg("--release");
        }
        let target = profile.parent().expect("target folder");
        let status = cargo.arg("--target-dir").arg(target).status().expect("cargo runs");
        assert!(status.success(), "cargo build --bins");
        profile
    });
    folder.join(name)
}

/// Runs a binary with an empty profile search (no user's files) and returns what it printed.
///
/// # Panics
/// When it cannot be started.
pub fn run(name: &str, args: &[&str]) -> Output {
    command(name).args(args).stdin(Stdio::null()).output().expect("the binary starts")
}

/// A command for a binary that sees no user's configuration.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(binary(name));
    command.env_remove("BITNET_PROFILE").env("XDG_CONFIG_HOME", "/nonexistent").env("HOME", "/nonexistent");
    command
}

/// Standard output as text.
///
/// # Panics
/// When the command failed or printed no UTF-8.
pub fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "exit {:?}: {}", output.status.code(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("output is UTF-8")
}
