//! Tests of what a file may cost: their bodies run in a child process that gets little and dies of too much.

use std::process::Command;

/// Kilobytes of data, with what a test binary needs itself.
const DATA_KB: u32 = (256 + 40) << 10;

/// Kilobytes of the first stack: what the caller has must not matter.
const STACK_KB: u32 = 1024;

/// Seconds of processor time, with those of starting; code that is not optimised takes its time.
const CPU_SECONDS: u32 = if cfg!(debug_assertions) { 20 } else { 1 };

const NAME: &str = "BITNET_BOUNDED_TEST";

/// Runs the body of the test called `path` within the limits.
///
/// # Panics
/// When the body panics, or the limits end it.
pub fn run(path: &str, body: impl FnOnce()) {
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    if std::env::var(NAME).is_ok_and(|wanted| wanted == name) || !cfg!(target_os = "linux") {
        return body();
    }
    let limits = format!("ulimit -s {STACK_KB}; ulimit -d {DATA_KB}; ulimit -t {CPU_SECONDS}");
    let output = Command::new("sh")
        .args(["-c", &format!("{limits}; ulimit -c 0; exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().expect("the test binary has a path"))
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(NAME, name)
        .output()
        .expect("sh starts");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let ran = out.contains("1 passed");
    assert!(
        output.status.success() && ran,
        "{}\n{}\n{}",
        output.status,
        &out[..out.len().min(2000)],
        &err[..err.len().min(2000)]
    );
}

/// Tests, each a name and a body, that run within the limits.
macro_rules! bounded_tests {
    ($($(#[$meta:meta])* fn $name:ident() $body:block)*) => {
        $(
            $(#[$meta])*
            #[test]
            fn $name() {
                crate::bounded::run(concat!(module_path!(), "::", stringify!($name)), || $body);
            }
        )*
    };
}

pub(crate) use bounded_tests;
