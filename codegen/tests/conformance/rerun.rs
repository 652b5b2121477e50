//! The line that a failure prints is run as it stands, for a spec of this CPU, for a foreign one, and for
//! one that does not exist.

use crate::product::rerun;
use crate::{Breadth, only, specs};
use bitnet_codegen::{Features, Isa, KernelSpec};
use std::process::{Command, Output};

/// Runs the line `rerun` prints for `spec`, with this test's own program in the place of what `cargo test` builds.
fn run_line(spec: &KernelSpec) -> Output {
    let line = rerun(spec);
    let words = line.strip_prefix("rerun: ").expect("a command");
    let (setting, command) = words.split_once(' ').expect("a setting and a command");
    let (name, value) = setting.split_once('=').expect("NAME=value");
    let (cargo, arguments) = command
        .split_once(" -- ")
        .expect("arguments of the test program");
    assert_eq!(
        cargo,
        "cargo test --release -p bitnet-codegen --test conformance"
    );
    Command::new(std::env::current_exe().expect("this program"))
        .env(name, value)
        .env_remove("BITNET_PARANOID")
        .args(arguments.split(' '))
        .output()
        .expect("it starts")
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|b| String::from_utf8_lossy(b))
        .concat()
}

/// The default of the first family for an instruction set that `wanted` keeps.
fn first(wanted: impl Fn(Isa) -> bool) -> KernelSpec {
    let isa = Isa::ALL
        .iter()
        .copied()
        .find(|&i| i != Isa::Interp && wanted(i));
    let isa = isa.expect("every CPU runs some and lacks some");
    specs(isa, Breadth::Defaults).remove(0)
}

#[test]
fn printed_lines_run_as_they_stand() {
    if only().is_some() {
        return;
    }
    let cpu = Features::detect();
    let passes = |spec: KernelSpec, says: &[&str]| {
        let output = run_line(&spec);
        let text = text(&output);
        assert!(output.status.success(), "{spec}:\n{text}");
        for words in says {
            assert!(text.contains(words), "{spec}: {words:?} is not in\n{text}");
        }
    };
    let host = first(|i| i.runs_on(cpu));
    let grid = format!(
        "{} products of {host} equal the oracle",
        crate::grid::count(&host)
    );
    passes(host, &[&grid, "nothing is foreign"]);
    let foreign = first(|i| !i.runs_on(cpu));
    let skipped = format!("SKIPPED: {foreign} does not run on this CPU");
    let isa = foreign.isa.name();
    passes(
        foreign,
        &[
            &skipped,
            &format!("programs of {isa} are emitted and proven, not run; 0 are refused"),
        ],
    );

    let absent = KernelSpec::new("i2s", "i2s", 1, 8, 17, Isa::Interp);
    let output = run_line(&absent);
    assert!(!output.status.success(), "{absent} does not exist");
    let text = text(&output);
    assert!(text.contains("i2s steps cover 16 columns"), "{text}");
}
