#![cfg(target_os = "linux")]
//! Where memory for code is refused, or address space is scarce: the same text, interpreted if need be, and one
//! note that says so.

use bitnet_tests::mdwe::without_executable_memory;
use bitnet_tests::{assert_fails, command, stdout};
use std::process::{Command, Output, Stdio};

const GENERATE: &[&str] = &[
    "generate",
    "-p",
    "The ",
    "-n",
    "8",
    "--temp",
    "0",
    "--threads",
    "2",
];

fn run(mut command: Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

/// `bitnet-run generate` on the demo model, with `extra` arguments.
fn generate(extra: &[&str]) -> Command {
    let mut command = command("bitnet-run");
    command.args(GENERATE).args(extra);
    command
}

fn notes(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    let about = text.lines().filter(|l| l.contains("interpreted"));
    about.map(str::to_owned).collect()
}

#[test]
fn refused_executable_memory_costs_speed_alone() {
    let want = stdout(&run(generate(&[])));
    let Some(output) = without_executable_memory(generate(&[])) else {
        return;
    };
    assert_eq!(stdout(&output), want);
    let notes = notes(&output);
    assert_eq!(notes.len(), 1, "{notes:?}");
    for told in ["memory executable", "bitnet-tune compile", "--pack"] {
        assert!(notes[0].contains(told), "{told:?} is not in {notes:?}");
    }
    // An interpreted kernel asks for none, so nothing is refused.
    let interpreted = ["--kernel", "i2s-i2s-1x16c16-interp-f1"];
    let output = without_executable_memory(generate(&interpreted)).expect("as before");
    assert_eq!(stdout(&output), want);
    assert!(output.stderr.is_empty() || self::notes(&output).is_empty());
    // Who insists on a kernel that is code hears why it cannot be had.
    let emitted = if cfg!(target_arch = "x86_64") {
        "i2s-i2s-1x4c16-ssse3-f1"
    } else {
        "i2s-i2s-1x4c16-neon-f1"
    };
    let output = without_executable_memory(generate(&["--kernel", emitted])).expect("as before");
    assert_fails(&output, 1, &[emitted, "memory executable"]);
}

/// From less than the program itself takes to as much as it ever maps: the text, or one clear error.
#[test]
fn scarce_address_space_gives_the_text_or_one_error() {
    let want = stdout(&run(generate(&[])));
    let mut answered = 0;
    for megabytes in [50, 64, 80, 100, 150, 200, 400, 800, 1500] {
        let mut limited = Command::new("sh");
        let binary = generate(&[]);
        limited
            .arg("-c")
            .arg(format!(
                "ulimit -v {} && exec \"$0\" \"$@\"",
                megabytes * 1024
            ))
            .arg(binary.get_program())
            .args(binary.get_args())
            .envs(binary.get_envs().filter_map(|(k, v)| Some((k, v?))))
            .env_remove("BITNET_PROFILE");
        let output = run(limited);
        let stderr = String::from_utf8_lossy(&output.stderr);
        println!("{megabytes} MB: {:?} {stderr}", output.status.code());
        if output.status.success() {
            assert_eq!(stdout(&output), want, "{megabytes} MB");
            answered += 1;
        } else {
            assert_fails(&output, 1, &[]);
        }
    }
    assert!(answered >= 4, "{answered} limits were enough");
}
