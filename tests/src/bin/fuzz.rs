//! Runs the fuzz targets: `cargo run --release -p bitnet-tests --bin fuzz -- --seconds 120`.
//!
//! Executions happen in child processes that note each seed before they use it, so that an abort, a stack overflow or
//! a hang is a finding with a seed like any other.

use bitnet_tests::fuzz::{self, LIMIT, TARGETS, Target};
use clap::Parser;
use peak_alloc::PeakAlloc;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Spoils documents of every kind that the programs read, and looks for what they cannot take.
#[derive(Parser, Clone)]
struct Options {
    /// One target (all, in their shares, unless given).
    #[arg(long)]
    target: Option<String>,
    /// Executions of all targets together.
    #[arg(long)]
    executions: Option<u64>,
    /// Wall time of all targets together.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Processes side by side.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs one seed of `--target` here, to look at it.
    #[arg(long)]
    seed: Option<u64>,
    /// What a child process notes its seeds in.
    #[arg(long, hide = true)]
    progress: Option<PathBuf>,
}

/// A process without a new seed for this long hangs.
const HANG: Duration = Duration::from_secs(20);

/// Findings of a target after which it is left.
const MOST_FINDINGS: usize = 10;

fn main() -> ExitCode {
    let options = Options::parse();
    let chosen: Vec<&Target> = match &options.target {
        None => TARGETS.iter().collect(),
        Some(name) => match fuzz::by_name(name) {
            Some(target) => vec![target],
            None => {
                let known: Vec<_> = TARGETS.iter().map(|t| t.name).collect();
                eprintln!("error: no target {name:?}; there are {}", known.join(", "));
                return ExitCode::from(2);
            }
        },
    };
    if let Some(seed) = options.seed {
        let found = execute(chosen[0], seed);
        println!("{} seed {seed}: {found:?}", chosen[0].name);
        return if found.is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    if let Some(progress) = &options.progress {
        return work(chosen[0], &options, progress);
    }
    let findings = campaign(&chosen, &options);
    match findings {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// All targets in their shares; how many findings there were.
fn campaign(chosen: &[&'static Target], options: &Options) -> usize {
    let weights: u32 = chosen.iter().map(|t| t.weight).sum();
    let (mut all, mut findings, start) = (0, 0, Instant::now());
    for target in chosen {
        let share = f64::from(target.weight) / f64::from(weights);
        // Time is shared evenly: a rare target needs it as much.
        let seconds = match options.executions {
            Some(_) => f64::INFINITY,
            None => options.seconds as f64 / chosen.len() as f64,
        };
        let executions = options
            .executions
            .map_or(u64::MAX, |n| (n as f64 * share).ceil() as u64);
        let began = Instant::now();
        let (done, found) = side_by_side(target, options, executions, seconds);
        let took = began.elapsed().as_secs_f64();
        println!(
            "{:12} {done:>10} executions in {took:>7.1} s, {found} findings",
            target.name
        );
        all += done;
        findings += found;
    }
    println!(
        "{all} executions in {:.1} minutes, {findings} findings",
        start.elapsed().as_secs_f64() / 60.0
    );
    findings
}

/// One target in `jobs` processes with seeds of their own.
fn side_by_side(
    target: &'static Target,
    options: &Options,
    executions: u64,
    seconds: f64,
) -> (u64, usize) {
    let each = executions.div_ceil(options.jobs);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.jobs)
            .map(|job| {
                scope.spawn(move || supervise(target, options.from + (job << 48), each, seconds))
            })
            .collect();
        threads.into_iter().fold((0, 0), |(done, found), thread| {
            let (d, f) = thread.join().expect("a supervisor");
            (done + d, found + f)
        })
    })
}

/// Starts processes until all seeds from `first` on are done, one anew after each finding.
fn supervise(target: &Target, first: u64, executions: u64, seconds: f64) -> (u64, usize) {
    let (start, mut next, mut found) = (Instant::now(), first, 0);
    let notes =
        std::env::temp_dir().join(format!("bitnet-fuzz-{}-{first}.seed", std::process::id()));
    while next - first < executions && found < MOST_FINDINGS {
        let left = seconds - start.elapsed().as_secs_f64();
        if left <= 0.0 {
            break;
        }
        let mut file = File::create(&notes).expect("a file for seeds");
        file.write_all(&next.to_le_bytes()).expect("written");
        let mut child = spawn(target, next, executions - (next - first), left, &notes);
        let how = watch(&mut child, &notes);
        let seed = read_seed(&notes);
        match how {
            None => next = seed,
            Some(how) => {
                found += 1;
                println!(
                    "FOUND {how}\n      cargo run --release -p bitnet-tests --bin fuzz -- --target {} --seed {seed}",
                    target.name
                );
                next = seed + 1;
            }
        }
    }
    let _ = std::fs::remove_file(&notes);
    (next - first, found)
}

fn spawn(target: &Target, from: u64, executions: u64, seconds: f64, notes: &Path) -> Child {
    let seconds = seconds.min(1e9).ceil() as u64;
    Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--target",
            target.name,
            "--from",
            &from.to_string(),
            "--executions",
            &executions.to_string(),
        ])
        .args(["--seconds", &seconds.to_string(), "--progress"])
        .arg(notes)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a child process")
}

fn read_seed(notes: &Path) -> u64 {
    let mut bytes = [0; 8];
    let read = File::open(notes).and_then(|mut f| f.read_exact(&mut bytes));
    read.expect("the child's seed");
    u64::from_le_bytes(bytes)
}

/// Waits for the process; `Some` says how it failed.
fn watch(child: &mut Child, notes: &Path) -> Option<String> {
    let (mut seed, mut since) = (read_seed(notes), Instant::now());
    let status = loop {
        match child.try_wait().expect("a child process") {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(50)),
        }
        let now = read_seed(notes);
        if now != seed {
            (seed, since) = (now, Instant::now());
        } else if since.elapsed() > HANG {
            let _ = child.kill();
            let _ = child.wait();
            return Some(format!("no answer within {HANG:?}"));
        }
    };
    if status.success() {
        return None;
    }
    let mut said = String::new();
    if let Some(stderr) = &mut child.stderr {
        let _ = stderr.read_to_string(&mut said);
    }
    let last = said
        .trim_end()
        .lines()
        .last()
        .unwrap_or_default()
        .to_owned();
    Some(format!("{status}: {last}"))
}

/// What a child process does.
fn work(target: &'static Target, options: &Options, progress: &Path) -> ExitCode {
    let mut notes = File::options()
        .write(true)
        .open(progress)
        .expect("the parent's file");
    notes.seek(SeekFrom::Start(0)).expect("a regular file");
    let (start, limit) = (Instant::now(), Duration::from_secs(options.seconds));
    let executions = options.executions.unwrap_or(u64::MAX);
    let mut seed = options.from;
    std::panic::set_hook(Box::new(|_| ()));
    while seed - options.from < executions && start.elapsed() < limit {
        notes.write_all_at(&seed.to_le_bytes(), 0).expect("noted");
        if let Err(found) = execute(target, seed) {
            eprintln!("{}", found.replace('\n', " "));
            fuzz::hugging_face::clean();
            return ExitCode::FAILURE;
        }
        seed += 1;
    }
    notes.write_all_at(&seed.to_le_bytes(), 0).expect("noted");
    fuzz::hugging_face::clean();
    ExitCode::SUCCESS
}

/// One execution, with its panic and its peak of memory.
fn execute(target: &Target, seed: u64) -> Result<(), String> {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let result = catch_unwind(AssertUnwindSafe(|| target.execute(seed)));
    let peak = HEAP.peak_usage().saturating_sub(before);
    match result {
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(format!("a panic: {}", text.unwrap_or_default()))
        }
        Ok(Err(found)) => Err(found),
        Ok(Ok(())) if peak > LIMIT.heap_bytes => Err(format!("{peak} bytes of memory at once")),
        Ok(Ok(())) => Ok(()),
    }
}
