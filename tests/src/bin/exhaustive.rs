//! Times every candidate of a model's products, for one token and for 128, tunes within a budget, and prints how near the
//! tuned winners come, product by product and for whole tokens:
//! `cargo run --release -p bitnet-tests --bin exhaustive -- --seconds 7200`.
//!
//! Hours of work: each product's recording is kept in `--folder`, none is begun that would not end within `--seconds`,
//! and another run goes on with the next. What is recorded is compared, however little it is.

use bitnet_codegen::{Features, KernelSpec, Problem};
use bitnet_runtime::graph::Product;
use bitnet_runtime::pool::Pool;
use bitnet_runtime::profile::{Entry, MBucket, Machine, Phase, Profile, find_shipped};
use bitnet_runtime::synth::Shape;
use bitnet_tests::tunes::{self, Burning};
use bitnet_tests::workspace;
use bitnet_tune::agreement::question;
use bitnet_tune::deadline::Deadline;
use bitnet_tune::landscape::Landscape;
use bitnet_tune::shapes::Shapes;
use bitnet_tune::space::model::Case;
use bitnet_tune::whole::{self, Build, Stack};
use clap::Parser;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Times everything, tunes, compares.
#[derive(Parser)]
struct Options {
    /// Whose shapes.
    #[arg(long, default_value = "2b-4t")]
    shapes: String,
    /// Numbers of threads.
    #[arg(short, long, value_delimiter = ',', default_values_t = [1, 2])]
    threads: Vec<usize>,
    /// Numbers of tokens.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 128])]
    m: Vec<usize>,
    /// Seconds for recording in this run.
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// Seconds of the tuning that is compared.
    #[arg(long, default_value_t = 120)]
    budget: u64,
    /// Cores that other processes burn while that tuning runs.
    #[arg(long, default_value_t = 0)]
    burn: usize,
    /// Where recordings and profiles are kept (`target/exhaustive`, unless given).
    #[arg(long)]
    folder: Option<PathBuf>,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    if let Some(code) = tunes::as_child() {
        return code;
    }
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
    }
}

fn run(o: &Options) -> Result<()> {
    let folder = o.folder.clone();
    let folder = folder.unwrap_or_else(|| workspace().join("target/exhaustive"));
    fs::create_dir_all(&folder)?;
    let shapes = Shapes::of_shape(Shape::find(&o.shapes)?);
    let products = &shapes.distinct;
    let recordings = record(o, &folder, products)?;
    if recordings.is_empty() {
        return Err("nothing is recorded yet; a larger --seconds lets the first end".into());
    }
    let tuned = tune(o, &folder)?;
    let exhaustive = table(&recordings, &tuned);
    for &threads in &o.threads {
        compare(threads, &shapes, products, [&tuned, &exhaustive])?;
    }
    Ok(())
}

/// The recordings, decoding first; those that are not there are made as far as time suffices.
fn record(o: &Options, folder: &Path, products: &[Product]) -> Result<Vec<Landscape>> {
    let (start, limit) = (Instant::now(), Duration::from_secs(o.seconds));
    let (mut recordings, mut longest) = (Vec::new(), Duration::ZERO);
    for &m in &o.m {
        for &threads in &o.threads {
            for product in products {
                let path = folder.join(format!("m{m}-{product}-t{threads}.toml"));
                if !path.exists() && start.elapsed() + longest < limit {
                    let args = format!(
                        "--record {} --shapes {} --product {product} --m {m} -t {threads}",
                        path.display(),
                        o.shapes
                    );
                    let args: Vec<String> = args.split(' ').map(str::to_owned).collect();
                    let took = tunes::tune(&args)?;
                    longest = longest.max(took);
                    println!("{}: {:.0} s", path.display(), took.as_secs_f64());
                }
                if path.exists() {
                    recordings.push(Landscape::parse(&fs::read_to_string(&path)?)?);
                } else {
                    println!("{}: not recorded yet", path.display());
                }
            }
        }
    }
    Ok(recordings)
}

/// The profile that is compared.
fn tune(o: &Options, folder: &Path) -> Result<Profile> {
    let (budget, threads) = (o.budget.to_string(), o.threads.iter());
    let threads: Vec<String> = threads.map(ToString::to_string).collect();
    let threads = threads.join(",");
    let mut args = vec!["--shapes", &o.shapes, "-t", &threads];
    args.extend(["--budget", &budget]);
    let burning = Burning::cores(o.burn)?;
    let path = folder.join(format!("tuned-{budget}s-{}-burnt.toml", o.burn));
    let profile = tunes::profile(&path, &args)?;
    drop(burning);
    for note in &profile.conditions.notes {
        println!("note: {note}");
    }
    Ok(profile)
}

/// Prints the share of the best that each winner reaches; `tuned` with the best kernels instead.
fn table(recordings: &[Landscape], tuned: &Profile) -> Profile {
    let mut exhaustive = tuned.clone();
    println!(
        "   M       N x      K  threads  candidates   best us  tuned us   share  best / tuned"
    );
    for recording in recordings {
        let Case {
            problem: Problem { m, n, k },
            threads,
            ..
        } = recording.case;
        let Some((best, best_ns)) = recording.best() else {
            continue;
        };
        let of_product = |e: &&mut Entry| {
            let q = question(e);
            let own = (n, k, MBucket::of(m).first, threads, recording.case.groups);
            (q.n, q.k, q.m, q.threads, q.groups) == own
        };
        let head = format!(
            "{m:>4}  {n:>6} x {k:>6}  {threads:>7}  {:>10}  {:>8.1}",
            recording.samples.len(),
            best_ns / 1e3
        );
        let Some(entry) = exhaustive.entries.iter_mut().find(of_product) else {
            println!("{head}  not tuned");
            continue;
        };
        let won_ns = recorded_ns(recording, &entry.spec);
        let told = won_ns.map_or("not recorded".to_owned(), |ns| {
            format!("{:>8.1}  {:>5.1} %", ns / 1e3, best_ns / ns * 100.0)
        });
        println!("{head}  {told}  {best} / {}", entry.spec);
        entry.spec = best.clone();
    }
    exhaustive
}

/// What a kernel took in a recording, under whatever name it stands there.
fn recorded_ns(recording: &Landscape, spec: &KernelSpec) -> Option<f64> {
    let space = recording.space();
    let id = space.find(spec)?;
    recording.median_ns(&space.candidates()[id].spec)
}

/// Seconds for comparing whole tokens on one number of threads.
const WHOLE: Duration = Duration::from_secs(60);

/// Rounds of that.
const ROUNDS: usize = 31;

/// Prints what whole tokens take under four sets of kernels.
fn compare(
    threads: usize,
    shapes: &Shapes,
    products: &[Product],
    [tuned, exhaustive]: [&Profile; 2],
) -> Result<()> {
    let (clock, features, here) = (Instant::now(), Features::detect(), Machine::probe());
    let deadline = Deadline::new(&clock, WHOLE);
    let (untuned, shipped) = (Profile::default(), find_shipped(&here, features).profile);
    let pool = Arc::new(Pool::new(threads)?);
    let matrices = whole::matrices(products, deadline);
    let bytes = 2 * here.last_level_bytes().unwrap_or(32 << 20);
    let sets = [
        ("tuned", tuned),
        ("exhaustive", exhaustive),
        ("untuned", &untuned),
        ("shipped", &shipped),
    ];
    let builds = sets.map(|(name, profile)| {
        let (matrices, pool) = (&matrices, &pool);
        let build: Build<'_, Box<dyn Error>> = Box::new(move || {
            let kernels = (profile, features);
            Ok(Box::new(Stack::new(
                matrices,
                shapes.weights,
                bytes,
                pool,
                kernels,
            )?))
        });
        (name, build)
    });
    let mut all = whole::gather(builds.into(), deadline)?;
    let phases = whole::judge(&mut all, threads, ROUNDS, deadline);
    for phase in phases.map_err(|e| e as Box<dyn Error>)? {
        println!("{}", against_the_best(&phase));
    }
    Ok(())
}

fn against_the_best(phase: &Phase) -> String {
    let speed = |name: &str| phase.tokens_per_s.get(name).copied().unwrap_or(f64::NAN);
    let best = phase.tokens_per_s.values().copied().fold(0.0, f64::max);
    let all = phase.tokens_per_s.iter();
    let all: Vec<String> = all.map(|(name, s)| format!("{name} {s:.1}")).collect();
    format!(
        "{} on {} threads, products alone, tokens/s: {}; tuned is {:.3} of the best",
        phase.name,
        phase.threads,
        all.join(", "),
        speed("tuned") / best
    )
}
