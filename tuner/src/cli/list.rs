//! `bitnet-tune list`: the kernels of a problem on this machine, and why the others are not.

use super::Shape;
use anyhow::Result;
use bitnet_cli::cpu::features;
use bitnet_cli::terminal::Terminal;
use bitnet_codegen::backend;
use bitnet_codegen::program::Checked;
use bitnet_codegen::space;
use bitnet_codegen::variant::{self, VARIANTS};
use bitnet_codegen::{Features, Isa, KernelSpec};
use clap::Args;
use serde::Serialize;

/// What to list.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    shape: Shape,
    /// Only the default spec of each family and instruction set.
    #[arg(long)]
    defaults: bool,
    /// Also the specs that do not run here, with the reason.
    #[arg(long)]
    all: bool,
}

/// One kernel.
#[derive(Serialize)]
struct Row {
    spec: String,
    family: String,
    isa: &'static str,
    backend: &'static str,
    runs: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<String>,
}

/// One family, in a line.
#[derive(Serialize)]
struct Family {
    name: &'static str,
    about: &'static str,
    kernels: usize,
}

#[derive(Serialize)]
struct Report {
    m: usize,
    n: usize,
    k: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<usize>,
    families: Vec<Family>,
    kernels: Vec<Row>,
    absent: Vec<String>,
}

/// Why `spec` cannot be emitted on this CPU, if so.
fn refusal(spec: &KernelSpec, k: usize, cpu: Features) -> Option<String> {
    if !spec.isa.runs_on(cpu) {
        return Some(format!("this CPU has no {}", spec.isa));
    }
    let plan = match variant::plan(spec, k) {
        Ok(plan) => plan,
        Err(e) => return Some(e.why.to_string()),
    };
    let backend = match backend::for_isa(spec.isa) {
        Ok(backend) => backend,
        Err(e) => return Some(e.to_string()),
    };
    for program in plan
        .unpack
        .into_iter()
        .chain(plan.main.into_iter().map(|(_, p)| p))
    {
        let emitted = match Checked::new(program) {
            Ok(checked) => backend
                .emit(&checked, spec.isa, cpu)
                .map_err(|e| e.why.to_string()),
            Err(e) => Err(e.to_string()),
        };
        if let Err(why) = emitted {
            return Some(why);
        }
    }
    None
}

/// Lists.
///
/// # Errors
/// When the output cannot be written.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    let (problem, groups) = (options.shape.problem()?, options.shape.groups()?);
    let cpu = features(terminal);
    let wanted = |isa: Isa| options.all || isa.runs_on(cpu);
    let mut kernels = Vec::new();
    let mut absent: Vec<String> = Vec::new();
    if options.defaults {
        for &family in VARIANTS {
            for &isa in Isa::ALL.iter().filter(|&&i| wanted(i)) {
                match space::of_product(family, isa, problem.m, groups) {
                    Ok(specs) => {
                        // The first spec that runs stands for the family; its very first if none does.
                        let runs = specs.iter().find(|s| refusal(s, problem.k, cpu).is_none());
                        kernels.extend(runs.or(specs.first()).map(|s| row(s, problem.k, cpu)));
                    }
                    Err(e) => absent.push(e.to_string()),
                }
            }
        }
    } else {
        let found = space::candidates(problem, groups, wanted);
        kernels.extend(
            found
                .candidates
                .iter()
                .map(|c| row(&c.spec, problem.k, cpu)),
        );
        absent.extend(found.absent.iter().map(ToString::to_string));
    }
    if !options.all {
        kernels.retain(|r| r.runs || options.defaults);
    }
    let families = VARIANTS
        .iter()
        .map(|v| Family {
            name: v.name(),
            about: v.about(),
            kernels: kernels
                .iter()
                .filter(|r| r.family == v.name() && r.runs)
                .count(),
        })
        .collect();
    let report = Report {
        m: problem.m,
        n: problem.n,
        k: problem.k,
        group: groups.map(|g| g.scales.k),
        families,
        kernels,
        absent,
    };
    terminal.print(&report, || text(&report))
}

fn row(spec: &KernelSpec, k: usize, cpu: Features) -> Row {
    let why_not = refusal(spec, k, cpu);
    Row {
        spec: spec.to_string(),
        family: spec.variant.clone(),
        isa: spec.isa.name(),
        backend: backend::for_isa(spec.isa).map_or("none", |b| b.name()),
        runs: why_not.is_none(),
        why_not,
    }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    for row in &report.kernels {
        match &row.why_not {
            None => out += &format!("{}\n", row.spec),
            Some(why) => out += &format!("{}  -- {why}\n", row.spec),
        }
    }
    for why in &report.absent {
        out += &format!("-- {why}\n");
    }
    for f in &report.families {
        out += &format!("# {:<6} {:>4} kernels  {}\n", f.name, f.kernels, f.about);
    }
    out
}
