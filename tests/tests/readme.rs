//! What the README says of the tree, the lists and the subcommands is so.

use bitnet_codegen::variant::VARIANTS;
use bitnet_runtime::format::FORMATS;
use bitnet_runtime::graph::ARCHITECTURES;
use bitnet_tests::{run, stdout, workspace};
use std::fs;

fn readme() -> String {
    fs::read_to_string(workspace().join("README.md")).expect("the README")
}

/// The part below a heading.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text
        .find(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("no {heading}"));
    let body = &text[start + heading.len() + 2..];
    let level = heading.split(' ').next().expect("hashes");
    body.split(&format!("\n{level} ")).next().expect("a part")
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The cells of the rows of a table, its head aside.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|l| l.starts_with("| ") || l.starts_with("|  "))
        .map(|l| l.trim_matches('|').split('|').map(str::trim).collect())
        .skip(1)
}

#[test]
fn every_room_of_the_code_map_is_there() {
    let text = readme();
    let (mut krate, mut found) = (String::new(), 0);
    for row in rows(section(&text, "## Code map")) {
        if let Some(name) = quoted(row[0]).next() {
            krate = name.to_owned();
        }
        for room in quoted(row[1]) {
            let path = workspace().join(&krate).join("src").join(room);
            assert!(path.exists(), "{krate}: {room} is not there");
            found += 1;
        }
    }
    assert!(found > 20, "{found} rooms");
}

#[test]
fn every_place_where_things_are_added_is_there() {
    let text = readme();
    let mut found = 0;
    for row in rows(section(&text, "## Where things are added")) {
        for place in quoted(row[1]).filter(|p| p.contains('/')) {
            let folder = place.split('<').next().expect("a beginning");
            // A path below a crate's sources, or from the top.
            let at = |top: &str| workspace().join(top).join(folder).exists();
            assert!(at("") || at("runtime/src"), "{place} is not there");
            found += 1;
        }
    }
    assert!(found > 8, "{found} places");
}

#[test]
fn every_family_architecture_and_format_is_told_of() {
    let text = readme();
    let families = section(&text, "### Kernel families");
    for family in VARIANTS {
        let named = quoted(families).any(|q| q == family.name());
        assert!(named, "the family {}", family.name());
    }
    let loads = section(&text, "### What it loads");
    for architecture in ARCHITECTURES {
        let named = quoted(loads).any(|q| q == architecture.name);
        assert!(named, "the architecture {}", architecture.name);
    }
    for format in FORMATS {
        assert!(loads.contains(format.name), "the format {}", format.name);
    }
}

/// Each subcommand has help with an example that runs as it stands, and the tour names no other.
#[test]
fn every_subcommand_has_help_with_an_example() {
    let text = readme();
    for binary in ["bitnet-run", "bitnet-tune"] {
        let help = stdout(&run(binary, &["--help"]));
        let commands = help
            .split("Commands:")
            .nth(1)
            .and_then(|t| t.split("Options:").next())
            .expect("a list of commands");
        let names: Vec<&str> = commands
            .lines()
            .filter(|l| l.starts_with("  ") && !l.starts_with("   "))
            .filter_map(|l| l.split_whitespace().next())
            .filter(|n| *n != "help")
            .collect();
        assert!(names.len() >= 9, "{names:?}");
        for name in &names {
            let help = stdout(&run(binary, &[name, "--help"]));
            let example = format!("Example: {binary}");
            assert!(help.contains(&example), "{name} has no example: {help}");
        }
        let called = format!("\n{binary} ");
        for line in text.split(&called).skip(1) {
            let name = line.split_whitespace().next().unwrap_or_default();
            assert!(names.contains(&name), "{binary} has no {name}");
        }
    }
}
