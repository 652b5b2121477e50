//! The binary starts. That it is tested here has it built with the tests of the workspace, which run it.

use std::process::Command;

#[test]
fn it_tells_its_version() {
    let output = Command::new(env!("CARGO_BIN_EXE_bitnet-run"))
        .arg("--version")
        .output()
        .expect("it starts");
    assert!(output.status.success());
    assert!(output.stdout.starts_with(b"bitnet-run "));
}
