//! The house rules that a compiler does not know: which files may be unsafe, who may depend on whom,
//! how long a file may grow, and that every file says what it is.

use bitnet_tests::workspace;
use std::fs;
use std::path::{Path, PathBuf};

/// The only files with `unsafe`; each starts with `#![expect(unsafe_code, …)]` and gives a reason a block.
const UNSAFE_ROOMS: &[&str] = &[
    "codegen/src/kernel/build.rs",
    "codegen/src/kernel/memory.rs",
    "codegen/src/kernel/mod.rs",
    "runtime/src/format/map.rs",
    "runtime/src/lanes.rs",
    "runtime/src/memory.rs",
    "runtime/src/network/head/mod.rs",
    "runtime/src/pool/mod.rs",
    "runtime/src/pool/parts.rs",
    "runtime/src/step/attend.rs",
];

/// Longer files, each with the reason why it is one room.
const LONG_FILES: &[(&str, &str)] = &[(
    "runtime/src/network/linear.rs",
    "the blocked product and the packed weights that it reads",
)];

const MAX_LINES: usize = 560;

fn sources() -> Vec<PathBuf> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir)
            .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
            .flatten()
        {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if name != "target" && name != ".git" && name != "data" {
                    walk(&path, out);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let mut out = Vec::new();
    for top in ["codegen", "runtime", "tuner", "tests"] {
        walk(&workspace().join(top), &mut out);
    }
    out.sort();
    assert!(out.len() > 20, "the walk found the sources");
    out
}

fn name(path: &Path) -> String {
    path.strip_prefix(workspace())
        .expect("inside the workspace")
        .display()
        .to_string()
}

fn is_test_code(name: &str) -> bool {
    name.contains("/tests/")
        || name.contains("/benches/")
        || name.ends_with("tests.rs")
        || name.contains("/examples/")
}

#[test]
fn unsafe_stays_in_its_rooms() {
    let mut found = Vec::new();
    for path in sources() {
        let (name, text) = (
            name(&path),
            fs::read_to_string(&path).expect("readable source"),
        );
        let named =
            text.contains("expect(\n    unsafe_code") || text.contains("expect(unsafe_code");
        if named && !is_test_code(&name) {
            found.push(name);
        }
    }
    let mut want: Vec<String> = UNSAFE_ROOMS.iter().map(|s| (*s).to_owned()).collect();
    want.sort();
    assert_eq!(
        found, want,
        "files that may be unsafe; a new one needs a line in UNSAFE_ROOMS and a reason"
    );
}

#[test]
fn every_file_says_what_it_is() {
    for path in sources() {
        let text = fs::read_to_string(&path).expect("readable source");
        let head = text.lines().take(12).any(|l| l.starts_with("//!"));
        assert!(head, "{} has no //! head", name(&path));
    }
}

#[test]
fn files_stay_short() {
    for path in sources() {
        let name = name(&path);
        let lines = fs::read_to_string(&path)
            .expect("readable source")
            .lines()
            .count();
        let allowed = LONG_FILES.iter().any(|(f, _)| *f == name) || is_test_code(&name);
        assert!(
            allowed || lines <= MAX_LINES,
            "{name} has {lines} lines: split it, or say why not in LONG_FILES"
        );
    }
    for (file, _) in LONG_FILES {
        assert!(
            workspace().join(file).exists(),
            "{file} is gone: drop it from LONG_FILES"
        );
    }
}

#[test]
fn crates_depend_in_one_direction() {
    let order = ["codegen", "runtime", "runtime/cli", "tuner", "tests"];
    let krate = [
        "bitnet-codegen",
        "bitnet-runtime",
        "bitnet-cli",
        "bitnet-tune",
        "bitnet-tests",
    ];
    for (i, top) in order.iter().enumerate() {
        let manifest =
            fs::read_to_string(workspace().join(top).join("Cargo.toml")).expect("a manifest");
        for later in &krate[i + 1..] {
            let line = format!("{later}.workspace");
            assert!(
                !manifest.contains(&line),
                "{top} must not depend on {later}"
            );
        }
    }
    for path in sources()
        .iter()
        .filter(|p| name(p).starts_with("codegen/src") && !is_test_code(&name(p)))
    {
        let text = fs::read_to_string(path).expect("readable source");
        for forbidden in [
            "std::fs",
            "std::env::var",
            "Instant::now",
            "thread::spawn",
            "SystemTime",
        ] {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            assert!(
                !code.contains(forbidden),
                "{}: codegen is a function; {forbidden} belongs elsewhere",
                name(path)
            );
        }
    }
}

#[test]
fn no_leftovers() {
    for path in sources() {
        let text = fs::read_to_string(&path).expect("readable source");
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
