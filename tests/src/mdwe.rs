#![cfg(target_os = "linux")]
#![expect(
    unsafe_code,
    reason = "a child process gives up executable memory before it starts the binary"
)]
//! Running a binary as hardened services run: nothing that was writable becomes executable (`PR_SET_MDWE`).

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

/// `PR_SET_MDWE` (Linux 6.3) and its flag that refuses to make memory executable.
const PR_SET_MDWE: libc::c_int = 65;
const PR_MDWE_REFUSE_EXEC_GAIN: libc::c_ulong = 1;

/// Lets nothing in the child become executable that was writable; `None` where the system cannot.
///
/// # Panics
/// When the binary cannot be started.
pub fn without_executable_memory(mut command: Command) -> Option<Output> {
    let refuse = || {
        let zero: libc::c_ulong = 0;
        // SAFETY: a system call on this process's own attributes, between fork and exec; it touches no memory.
        let failed =
            unsafe { libc::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, zero, zero, zero) };
        match failed {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(refuse) };
    match command.stdin(Stdio::null()).output() {
        Ok(output) => Some(output),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            eprintln!("SKIPPED: this kernel has no PR_SET_MDWE (Linux 6.3)");
            None
        }
        Err(e) => panic!("the binary starts: {e}"),
    }
}
