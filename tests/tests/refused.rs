//! What the system refuses: threads. Each command ends with one error, at once, or does without.
#![cfg(target_os = "linux")]

use bitnet_tests::{assert_fails, command};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A command that gets no thread beside its first: as a user who already runs as many processes as are allowed.
/// Root is above such limits, so it becomes nobody.
fn single_threaded(binary: &str) -> Command {
    let mut command = command(binary);
    let lower = || {
        let one = libc::rlimit {
            rlim_cur: 1,
            rlim_max: 1,
        };
        #[expect(unsafe_code, reason = "the standard library sets no limits")]
        // SAFETY: a plain system call on a local structure, which may be made between fork and exec.
        let set = unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &one) };
        match set {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    #[expect(unsafe_code, reason = "asks who we are")]
    // SAFETY: it cannot fail and changes nothing.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(65534);
    }
    #[expect(unsafe_code, reason = "what happens between fork and exec is unsafe")]
    // SAFETY: the closure makes system calls alone.
    unsafe {
        command.pre_exec(lower);
    }
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// Runs it, or ends it after a minute: what hangs must not hang the tests.
fn ended(mut command: Command) -> Output {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let start = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if start.elapsed() > Duration::from_secs(60) {
            child.kill().expect("killed");
            panic!("it hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("ended")
}

#[test]
fn threads_that_are_refused_are_one_error() {
    let profile = std::env::temp_dir().join(format!("refused-{}.toml", std::process::id()));
    let profile = profile.to_str().expect("UTF-8");
    let kernel = ["kernel", "--n", "64", "--k", "256", "--hot", "-t", "3"];
    for (binary, args) in [
        ("bitnet-tune", &["host", "-t", "4"][..]),
        ("bitnet-tune", &kernel),
        (
            "bitnet-tune",
            &["tune", "--budget", "1", "-t", "2", "-o", profile],
        ),
        ("bitnet-run", &["generate", "-p", "Once", "-t", "2"]),
        ("bitnet-run", &["bench", "-p", "8", "-n", "1", "-t", "2"]),
    ] {
        let mut command = single_threaded(binary);
        command.args(args);
        let output = ended(command);
        assert_fails(&output, 1, &["thread", "-t"]);
    }
    assert!(!std::path::Path::new(profile).exists());
}

#[test]
fn one_thread_is_enough_for_a_text() {
    let mut command = single_threaded("bitnet-run");
    command.args([
        "generate",
        "-p",
        "Once upon a time",
        "-n",
        "8",
        "--temp",
        "0",
        "-t",
        "1",
    ]);
    let output = ended(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(output.stdout.starts_with(b"Once upon a time"), "{said}");
}
