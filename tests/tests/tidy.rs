//! The house rules that a compiler does not know: which files may be unsafe, how long a file may grow, that every file
//! says what it is, that every dependency is used. Who may know whom is in `arrows.rs`.

use bitnet_tests::packages::{Package, packages};
use bitnet_tests::source::{Source, rust_files};
use bitnet_tests::workspace;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The only files with `unsafe`; each starts with `#![expect(unsafe_code, …)]` and gives a reason a block.
const UNSAFE_ROOMS: &[&str] = &[
    "codegen/src/kernel/build.rs",
    "codegen/src/kernel/library.rs",
    "codegen/src/kernel/memory.rs",
    "codegen/src/kernel/mod.rs",
    "runtime/src/format/map.rs",
    "runtime/src/lanes.rs",
    "runtime/cli/src/pack.rs",
    "runtime/src/memory.rs",
    "runtime/src/network/head/exact.rs",
    "runtime/src/network/head/loops.rs",
    "runtime/src/pack/mod.rs",
    "runtime/src/pool/mod.rs",
    "runtime/src/pool/parts.rs",
    "runtime/src/proven.rs",
    "runtime/src/step/attend.rs",
    "runtime/src/step/vector.rs",
    "tests/src/mdwe.rs",
];

/// A longer file says in its head why it is one room.
const MAX_LINES: usize = 500;

/// How it begins to.
const REASON: &str = "//! Longer than 500 lines: ";

/// What a library that others embed must not bring along: a command line, a terminal, signal handlers.
const NOT_IN_THE_LIBRARY: &[&str] = &[
    "clap",
    "ctrlc",
    "indicatif",
    "signal-hook",
    "tracing-subscriber",
];

fn sources() -> Vec<PathBuf> {
    let tops = ["codegen", "runtime", "tuner", "tests"];
    let out: Vec<PathBuf> = tops
        .iter()
        .flat_map(|top| rust_files(&workspace().join(top)))
        .collect();
    assert!(out.len() > 20, "the walk found the sources");
    out
}

fn name(path: &Path) -> String {
    path.strip_prefix(workspace())
        .expect("inside the workspace")
        .display()
        .to_string()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn is_test_code(name: &str) -> bool {
    name.contains("/tests/")
        || name.contains("/benches/")
        || name.ends_with("tests.rs")
        || name.contains("/examples/")
}

/// Whether a file is unsafe, or allows itself to be, in any way that a compiler would let pass.
fn is_unsafe(name: &str, text: &str) -> bool {
    Source::new("", name, text).is_unsafe()
}

#[test]
fn unsafe_stays_in_its_rooms() {
    let found: BTreeSet<String> = sources()
        .iter()
        .map(|path| (name(path), text(path)))
        .filter(|(name, text)| !is_test_code(name) && is_unsafe(name, text))
        .map(|(name, _)| name)
        .collect();
    let want: BTreeSet<String> = UNSAFE_ROOMS.iter().map(|s| (*s).to_owned()).collect();
    assert_eq!(
        found, want,
        "files that may be unsafe; a new one needs a line in UNSAFE_ROOMS and a reason"
    );
    for drawn in [
        "#![allow(unsafe_code)]",
        "#[allow(unsafe_code, reason = \"x\")] fn f() {}",
        "#![expect(\n    unsafe_code, reason = \"x\")]",
        "fn f() { unsafe { g() } }",
        "unsafe impl Send for X {}",
        "unsafe fn f() {}",
        "pub unsafe extern \"C\" fn f() {}",
    ] {
        assert!(is_unsafe("x.rs", drawn), "{drawn}");
    }
    for harmless in [
        "// unsafe_code",
        "fn f() { g(\"unsafe\") }",
        "type F = unsafe extern \"C\" fn(*const u8);",
    ] {
        assert!(!is_unsafe("x.rs", harmless), "{harmless}");
    }
}

#[test]
fn every_file_says_what_it_is() {
    for path in sources() {
        let head = text(&path).lines().take(12).any(|l| l.starts_with("//!"));
        assert!(head, "{} has no //! head", name(&path));
    }
}

#[test]
fn files_stay_short() {
    for path in sources() {
        let name = name(&path);
        let text = text(&path);
        let lines = text.lines().count();
        let says_why = text.lines().any(|line| line.starts_with(REASON));
        assert_eq!(
            lines > MAX_LINES,
            says_why,
            "{name} has {lines} lines: above {MAX_LINES} it says why in its head, after {REASON:?}, and only then"
        );
    }
}

/// The names that the sources of a package use: of its library, binaries, tests, benches and examples.
fn names_in(package: &Package) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for path in package.files() {
        // Tests within a file use dependencies as well: all of it counts.
        let text = text(&path).replace("#[cfg(test)]", "");
        names.extend(Source::new("", &name(&path), &text).names());
    }
    names
}

#[test]
fn every_dependency_is_used() {
    let mut unused = Vec::new();
    let mut asked_for = BTreeSet::new();
    for package in packages() {
        let names = names_in(&package);
        for dependency in &package.dependencies {
            asked_for.insert(dependency.clone());
            if !names.contains(&dependency.replace('-', "_")) {
                unused.push(format!("{} of {}", dependency, package.name));
            }
        }
    }
    let manifest = text(&workspace().join("Cargo.toml"));
    let listed = manifest
        .lines()
        .skip_while(|l| *l != "[workspace.dependencies]")
        .skip(1)
        .take_while(|l| !l.starts_with('['))
        .filter_map(|l| l.split_once(" = ").filter(|_| !l.starts_with('#')))
        .map(|(name, _)| name.trim());
    unused.extend(
        listed
            .filter(|name| !asked_for.contains(*name))
            .map(|name| format!("{name} of the workspace")),
    );
    assert!(
        unused.is_empty(),
        "dependencies that no source names: {unused:?}"
    );
}

#[test]
fn the_library_brings_no_command_line_along() {
    let tree = Command::new(env!("CARGO"))
        .current_dir(workspace())
        .args([
            "tree",
            "-p",
            "bitnet-runtime",
            "-e",
            "normal",
            "--prefix",
            "none",
        ])
        .arg("--offline")
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{tree:?}");
    let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
    let names: BTreeSet<&str> = tree.lines().filter_map(|l| l.split(' ').next()).collect();
    assert!(names.contains("bitnet-codegen"), "{tree}");
    for unwanted in NOT_IN_THE_LIBRARY {
        assert!(!names.contains(unwanted), "bitnet-runtime needs {unwanted}");
    }
    // Its own sources print nothing, either: the compiler sees to that where it is told to.
    for lib in ["codegen", "runtime", "tuner", "runtime/cli"] {
        let path = workspace().join(lib).join("src/lib.rs");
        let names = Source::new("", lib, &text(&path)).names();
        for lint in ["print_stdout", "print_stderr"] {
            assert!(names.contains(lint), "{lib}/src/lib.rs must deny {lint}");
        }
    }
}

#[test]
fn no_leftovers() {
    for path in sources() {
        let text = text(&path);
        for word in ["TODO", "FIXME", "XXX", "HACK"] {
            let marker = format!("// {word}");
            assert!(
                !text.contains(&marker),
                "{} has a {word}: finish it or file it",
                name(&path)
            );
        }
    }
}
