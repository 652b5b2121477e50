//! Tuning as the programs that judge the tuner run it: `bitnet-tune tune` in a process of its own, each result in a file
//! that is kept, so that hours of work can be cut short and gone on with.

use bitnet_runtime::profile::{self, Profile};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// The first argument of a process that tunes, and of one that burns a core: the programs start themselves anew, so that
/// what tunes is what they were built with.
const TUNE: &str = "tune";
const SPIN: &str = "--spin";

/// What this process was started for by itself, done; `None` in a process that a person started.
pub fn as_child() -> Option<ExitCode> {
    match std::env::args().nth(1)?.as_str() {
        TUNE => Some(bitnet_tune::cli::main()),
        SPIN => spin(),
        _ => None,
    }
}

/// This program, for `purpose`.
fn again(purpose: &str) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(purpose)
        .env_remove("BITNET_PROFILE")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    Ok(command)
}

/// Runs `bitnet-tune tune` with `args` in a process of its own, its notes on standard error; how long it took.
///
/// # Errors
/// What it ended with, if not well.
pub fn tune(args: &[String]) -> Result<Duration, String> {
    let start = Instant::now();
    let status = again(TUNE).and_then(|mut c| c.args(args).status());
    let status = status.map_err(|e| format!("this program cannot be started again: {e}"))?;
    match status.success() {
        true => Ok(start.elapsed()),
        false => Err(format!("bitnet-tune tune {}: {status}", args.join(" "))),
    }
}

/// The profile at `path`; made by `bitnet-tune tune` with `args` if it is not there.
///
/// # Errors
/// What stood in the way.
pub fn profile(path: &Path, args: &[&str]) -> Result<Profile, String> {
    if !path.exists() {
        let file = path.display().to_string();
        let own = ["-o", &file];
        let all = args.iter().chain(&own).map(|a| (*a).to_owned());
        let took = tune(&all.collect::<Vec<_>>())?;
        println!("{file}: tuned in {:.1} s", took.as_secs_f64());
    }
    profile::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Other processes that burn a core each, until they are dropped.
pub struct Burning(Vec<Child>);

impl Burning {
    /// Burns `cores`.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn cores(cores: usize) -> std::io::Result<Self> {
        let mut burning = Self(Vec::new());
        for _ in 0..cores {
            burning.0.push(again(SPIN)?.spawn()?);
        }
        Ok(burning)
    }
}

impl Drop for Burning {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended already burns nothing.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Uses all of a core, for an hour if nobody ends it before.
fn spin() -> ! {
    let start = Instant::now();
    let most = Duration::from_secs(3600);
    while start.elapsed() < most {
        std::hint::spin_loop();
    }
    std::process::exit(0)
}
