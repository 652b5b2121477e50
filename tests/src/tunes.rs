//! Tuning as the programs that judge the tuner run it: `bitnet-tune tune` in a process of its own, each result in a file
//! that is kept, so that hours of work can be cut short and gone on with.

use crate::command;
use bitnet_runtime::profile::{self, Profile};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs `bitnet-tune tune` with `args`, its notes on standard error; how long it took.
///
/// # Errors
/// What it ended with, if not well.
pub fn tune(args: &[String]) -> Result<Duration, String> {
    let start = Instant::now();
    let status = command("bitnet-tune")
        .arg("tune")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|e| format!("bitnet-tune: {e}"))?;
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

/// The argument that makes a program spin until it is killed.
pub const SPIN: &str = "--spin";

/// Other processes that burn a core each, until they are dropped.
pub struct Burning(Vec<Child>);

impl Burning {
    /// Burns `cores`; the program must call [`spin`] when its only argument is [`SPIN`].
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn cores(cores: usize) -> std::io::Result<Self> {
        let this = std::env::current_exe()?;
        let mut burning = Self(Vec::new());
        for _ in 0..cores {
            burning.0.push(Command::new(&this).arg(SPIN).spawn()?);
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

/// Uses all of a core; ends when its parent does not.
pub fn spin() -> ! {
    let start = Instant::now();
    let most = Duration::from_secs(3600);
    while start.elapsed() < most {
        std::hint::spin_loop();
    }
    std::process::exit(0)
}
