//! `bitnet-tune compile`: the kernels of a model and a profile as a file that runs where no compiler does; and what
//! `show` says of such a file.

use super::explain::read;
use crate::compile::{Compiled, Cpu, Request};
use anyhow::{Context as _, Result, bail};
use bitnet_cli::args::{HeadChoice, head_form, thread_count};
use bitnet_cli::cpu::features;
use bitnet_cli::terminal::Terminal;
use bitnet_codegen::Features;
use bitnet_codegen::isa::{Arch, Feature};
use bitnet_runtime::new_file::NewFile;
use bitnet_runtime::pack::{PackFile, Row};
use bitnet_runtime::profile::{self, Machine, Profile};
use bitnet_runtime::setup::Setup;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// What to compile, and for what.
#[derive(Args)]
pub struct Options {
    /// The profile that chooses the kernels (the one that `bitnet-run` would use here, unless given).
    profile: Option<PathBuf>,
    /// The model whose products are to run: GGUF file or Hugging Face folder (the demo model, unless given).
    #[arg(short, long)]
    model: Option<PathBuf>,
    /// The file to write.
    #[arg(short, long)]
    out: PathBuf,
    /// Numbers of threads to choose kernels for (those that the profile was tuned for, unless given).
    #[arg(short, long, value_delimiter = ',', value_parser = thread_count)]
    threads: Vec<usize>,
    /// The machine: a target triple, or the processor family alone (this one, unless given).
    #[arg(long, value_name = "TRIPLE", value_parser = arch)]
    target: Option<Arch>,
    /// CPU features that code may use (those of a named profile's machine, else of this one, unless given).
    #[arg(long, value_delimiter = ',', value_parser = feature)]
    features: Vec<Feature>,
    /// How the likeliest tokens will be worked out: auto, native, i8 or i4.
    #[arg(long, value_name = "FORM", default_value = "auto", value_parser = head_form)]
    head: HeadChoice,
}

/// The family of a target triple.
fn arch(text: &str) -> Result<Arch, String> {
    let family = text.split('-').next().unwrap_or_default();
    let family = match family {
        "arm64" => "aarch64",
        riscv if riscv.starts_with("riscv64") => "riscv64",
        other => other,
    };
    let known = Arch::EMITTED.into_iter().find(|a| a.name() == family);
    known.ok_or_else(|| {
        let names = Arch::EMITTED.map(Arch::name).join(", ");
        format!("no code is emitted for it: expected a triple of {names}")
    })
}

fn feature(text: &str) -> Result<Feature, String> {
    Feature::by_name(text).ok_or_else(|| {
        let names: Vec<_> = Feature::ALL.iter().map(|f| f.name()).collect();
        format!("expected some of {}", names.join(", "))
    })
}

/// The document of `compile --json` and of `show --json` for a pack.
#[derive(Serialize)]
struct Report {
    path: String,
    file_bytes: usize,
    code_bytes: usize,
    target: String,
    abi: String,
    generator: String,
    features: Vec<String>,
    threads: Vec<usize>,
    /// Whether the kernels were compared with the oracle when this was written; absent in `show`.
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<bool>,
    /// What chose the kernels.
    chosen_by: String,
    interpreted: usize,
    kernels: Vec<Row>,
    notes: Vec<String>,
}

/// The features that `profile` says its machine has.
fn of_machine(profile: &Profile) -> Features {
    let names = profile.host.features.iter();
    names.filter_map(|name| Feature::by_name(name)).collect()
}

/// The CPU to compile for: as asked, else that of the profile that was named, else this one, else the least of its
/// family.
fn cpu(terminal: &Terminal, options: &Options, profile: &Profile) -> Result<Cpu> {
    // A profile that was found, not named, is only the nearest to this machine.
    let theirs = match options.profile {
        Some(_) => of_machine(profile),
        None => Features::NONE,
    };
    let first = options.features.first().map(|f| f.arch());
    let arch = (options.target.or(first))
        .or(theirs.iter().next().map(|f| f.arch()))
        .unwrap_or(Arch::HOST);
    let own = |features: Features| features.iter().all(|f| f.arch() == arch);
    let asked: Features = options.features.iter().copied().collect();
    if !own(asked) {
        bail!("--features: {asked} are not all of {}", arch.name());
    }
    let features = if asked != Features::NONE {
        asked
    } else if theirs != Features::NONE && own(theirs) {
        theirs
    } else if arch == Arch::HOST {
        features(terminal)
    } else {
        Cpu::least(arch).features
    };
    Ok(Cpu { arch, features })
}

/// The profile that was named, else the one that would be used here; for other machines none.
fn chosen(terminal: &Terminal, options: &Options) -> Result<Profile> {
    if let Some(path) = &options.profile {
        return read(path);
    }
    let foreign = options.target.is_some_and(|a| a != Arch::HOST) || !options.features.is_empty();
    if foreign {
        return Ok(Profile::default());
    }
    let found = profile::find(None, &Machine::probe(), features(terminal));
    if let Some(note) = &found.note {
        terminal.note(&format!("note: {note}"));
    }
    Ok(found.profile)
}

/// Compiles and writes.
///
/// # Errors
/// When the model or the profile cannot be read, or the file cannot be written; nothing is left of it then.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    let cannot = || format!("cannot write {}", options.out.display());
    let mut file = NewFile::create(&options.out).with_context(cannot)?;
    let setup = Setup {
        model: options.model.clone(),
        ..Setup::default()
    };
    let model = setup.open_model()?;
    for note in setup.notes(&model) {
        terminal.note(&format!("note: {note}"));
    }
    let mut profile = chosen(terminal, options)?;
    let cpu = cpu(terminal, options, &profile)?;
    if !options.features.is_empty() || cpu.arch != Arch::HOST {
        // What cannot run there chooses nothing there.
        profile.entries.retain(|e| e.spec.isa.runs_on(cpu.features));
    }
    let mut threads: BTreeSet<usize> = options.threads.iter().copied().collect();
    if threads.is_empty() {
        threads = profile.entries.iter().map(|e| e.evidence.threads).collect();
    }
    if threads.is_empty() {
        // Estimates are the same for any number.
        threads.insert(1);
    }
    let threads: Vec<usize> = threads.into_iter().collect();
    let request = Request {
        model: &model,
        profile: &profile,
        threads: &threads,
        cpu,
        head: options.head.0,
    };
    let compiled = request.compile()?;
    file.write_all(&compiled.bytes).with_context(cannot)?;
    file.finish().with_context(cannot)?;
    let report = report(&options.out, compiled, &profile);
    terminal.print(&report, || summary(&report))
}

fn report(path: &Path, compiled: Compiled, profile: &Profile) -> Report {
    let Compiled {
        bytes,
        manifest,
        code_bytes,
        interpreted,
        verified,
        notes,
    } = compiled;
    Report {
        path: path.display().to_string(),
        file_bytes: bytes.len(),
        code_bytes,
        target: manifest.target,
        abi: manifest.abi,
        generator: manifest.generator,
        features: manifest.features,
        threads: manifest.threads,
        verified: Some(verified),
        chosen_by: chosen_by(profile),
        interpreted,
        kernels: manifest.kernels,
        notes,
    }
}

/// Whether somebody measured, and where.
fn chosen_by(profile: &Profile) -> String {
    let machine = profile.host.machine.kind();
    match profile.entries.is_empty() {
        true => "the estimate: nothing was measured".to_owned(),
        false if profile.is_estimate => {
            format!("a profile that is an estimate for {machine}: nothing was measured")
        }
        false => format!("a profile measured on {machine}"),
    }
}

/// What a pack holds.
///
/// # Errors
/// When the file is no pack, or damaged.
pub fn show(terminal: &Terminal, path: &Path) -> Result<()> {
    let PackFile {
        manifest,
        profile,
        file_bytes,
    } = PackFile::read(path)?;
    let report = Report {
        path: path.display().to_string(),
        file_bytes,
        code_bytes: manifest.codes.iter().map(|c| c.length).sum(),
        target: manifest.target,
        abi: manifest.abi,
        generator: manifest.generator,
        features: manifest.features,
        threads: manifest.threads,
        verified: None,
        chosen_by: chosen_by(&profile),
        interpreted: 0,
        kernels: manifest.kernels,
        notes: Vec::new(),
    };
    terminal.print(&report, || summary(&report) + &table(&report))
}

fn summary(r: &Report) -> String {
    let specs: BTreeSet<(&str, usize)> = r.kernels.iter().map(|k| (&k.spec[..], k.k)).collect();
    let threads: Vec<String> = r.threads.iter().map(usize::to_string).collect();
    let mut out = format!(
        "{}: {} kernels for {} choices on {} threads, {} bytes of code in {}, for {} with {} (ABI {}, bitnet-tune {})\n",
        r.path,
        specs.len(),
        r.kernels.len(),
        threads.join(", "),
        r.code_bytes,
        r.file_bytes,
        r.target,
        r.features.join(", "),
        r.abi,
        r.generator,
    );
    out += &format!("chosen by {}\n", r.chosen_by);
    match r.verified {
        Some(true) => out += "every kernel equalled the oracle on this machine\n",
        Some(false) => out += "not run on this machine: who loads it compares before use\n",
        None => {}
    }
    if r.interpreted > 0 {
        let n = r.interpreted;
        out += &format!("{n} choices are interpreted and not in it\n");
    }
    for note in &r.notes {
        out += &format!("note: {note}\n");
    }
    out
}

fn table(r: &Report) -> String {
    let mut out = format!(
        "{:>7} {:>6} {:>7} {:>7} {:>9} {:>8}  {:8} spec\n",
        "N", "K", "tokens", "threads", "offset", "length", "origin"
    );
    for k in &r.kernels {
        let threads = k.threads.map_or("any".to_owned(), |t| t.to_string());
        out += &format!(
            "{:>7} {:>6} {:>7} {:>7} {:>9} {:>8}  {:8} {}\n",
            k.n,
            k.k,
            k.tokens(),
            threads,
            k.offset,
            k.length,
            k.origin,
            k.spec
        );
    }
    out
}
