//! The binary starts, names its subcommands, and every one of them has help with an example.

use std::process::Command;

fn run(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_bitnet-run"))
        .args(args)
        .output()
        .expect("the binary starts");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[test]
fn every_subcommand_has_help_with_an_example() {
    let (code, help) = run(&["--help"]);
    assert_eq!(code, Some(0));
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
    for name in names {
        let (code, help) = run(&[name, "--help"]);
        assert_eq!(code, Some(0), "{name}");
        assert!(
            help.contains("Example: bitnet-run"),
            "{name} has no example: {help}"
        );
    }
}

/// A list or a negative number is a text like any other.
#[test]
fn a_prompt_may_start_with_a_dash() {
    for text in ["- one", "-1 is", "--", "--prompt"] {
        let (code, ids) = run(&["tokenize", "-p", text, "--json"]);
        assert_eq!(code, Some(0), "{text}");
        assert!(ids.contains("\"ids\""), "{ids}");
        let (code, echoed) = run(&["generate", "-p", text, "-n", "1", "--temp", "0"]);
        assert_eq!(code, Some(0), "{text}");
        assert!(
            echoed.starts_with(text),
            "{echoed:?} does not go on from {text:?}"
        );
    }
}

/// Without a prompt the model begins by itself; a prompt that is given and empty is a mistake.
#[test]
fn generate_needs_no_prompt() {
    let (code, text) = run(&["generate", "-n", "8", "--temp", "0"]);
    assert_eq!(code, Some(0));
    assert!(text.trim().len() > 8, "{text:?}");
    assert_eq!(run(&["generate", "-p", "", "-n", "8"]).0, Some(1));
}
