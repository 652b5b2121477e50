//! Tunes one model's shapes over and over and prints which tunings agree:
//! `cargo run --release -p bitnet-tests --bin agreement -- --tunes 10`.
//!
//! Each tuning begins anew, from what is shipped. Profiles are kept in `--folder`, and those that are there are not made
//! again.

use bitnet_runtime::profile::Entry;
use bitnet_tests::{tunes, workspace};
use bitnet_tune::agreement::Matrix;
use clap::Parser;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

/// The share of entries that must have the same winner, or a tie, in all tunings.
const WANTED: f64 = 0.95;

/// Tunes several times, compares the winners.
#[derive(Parser)]
struct Options {
    /// Whose shapes.
    #[arg(long, default_value = "2b-4t")]
    shapes: String,
    /// Tunings.
    #[arg(long, default_value_t = 10)]
    tunes: usize,
    /// Seconds of each.
    #[arg(long, default_value_t = 120)]
    budget: u64,
    /// Numbers of threads.
    #[arg(short, long, default_value = "1,2")]
    threads: String,
    /// Where the profiles are kept (`target/agreement`, unless given).
    #[arg(long)]
    folder: Option<PathBuf>,
}

fn main() -> ExitCode {
    if let Some(code) = tunes::as_child() {
        return code;
    }
    match run(&Options::parse()) {
        Ok(agreement) if agreement >= WANTED => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
    }
}

fn run(o: &Options) -> Result<f64, String> {
    let folder = o.folder.clone();
    let folder = folder.unwrap_or_else(|| workspace().join("target/agreement"));
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let budget = o.budget.to_string();
    let mut args = vec!["--shapes", &o.shapes, "-t", &o.threads];
    args.extend(["--budget", &budget]);
    let mut tunings: Vec<Vec<Entry>> = Vec::new();
    for i in 1..=o.tunes {
        let path = folder.join(format!("{}-{budget}s-{i:02}.toml", o.shapes));
        let profile = tunes::profile(&path, &args)?;
        let load = profile.conditions.other_load * 100.0;
        let thin = profile.entries.iter().filter(|e| e.evidence.is_thin());
        println!(
            "{}: {} entries, {} thin, {load:.0} % of the CPUs taken by others",
            path.display(),
            profile.entries.len(),
            thin.count()
        );
        tunings.push(profile.entries);
    }
    let matrix = Matrix::of(&tunings);
    print!("{matrix}");
    Ok(matrix.agreement())
}
