//! `bitnet-tune check` and `verify`: does a profile fit this machine, and are its kernels right here.

use super::explain::read;
use crate::host::Host;
use crate::lab::{Lab, interpreted};
use crate::search::Rejection;
use crate::space::Space;
use crate::space::model::Case;
use anyhow::{Result, bail};
use bitnet_cli::cpu::features;
use bitnet_cli::signals;
use bitnet_cli::terminal::Terminal;
use bitnet_codegen::{KernelSpec, plan};
use bitnet_runtime::graph::Product;
use bitnet_runtime::pool::Pool;
use serde::Serialize;
use std::collections::HashMap;
use std::path::Path;

/// The document of `check --json`.
#[derive(Serialize)]
struct State {
    path: String,
    state: &'static str,
    why: String,
    kernels: usize,
    measured_on: String,
    this_cpu: String,
}

/// Tells how a profile fits.
///
/// # Errors
/// When the file is no profile.
pub fn run(terminal: &Terminal, path: &Path) -> Result<()> {
    let profile = read(path)?;
    let host = Host::probe(features(terminal));
    let (state, why) = profile.state(&host.machine, host.features);
    let report = State {
        path: path.display().to_string(),
        state: state.name(),
        why,
        kernels: profile.entries.len(),
        measured_on: profile.host.machine.kind(),
        this_cpu: host.machine.kind(),
    };
    terminal.print(&report, || {
        format!(
            "{}: {} ({} kernels; {})\n",
            report.path, report.state, report.kernels, report.why
        )
    })
}

/// One kernel's verdict.
#[derive(Serialize)]
struct Verdict {
    n: usize,
    k: usize,
    m: usize,
    spec: String,
    exact: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// Input features of the products that interpreted kernels are checked on: no whole number of anybody's steps.
const SMALL_K: usize = 140;

/// Compares a kernel with the oracle.
type Judge = Box<dyn FnMut(&KernelSpec, usize) -> std::result::Result<(), Rejection>>;

/// Runs the kernels as they are emitted here.
fn native(host: &Host) -> Result<Judge> {
    let mut lab = Lab::new(host.features, plan, host.threads, host.last_level_bytes());
    let (n, k, groups) = (1, 1, None);
    let case = Case::new(Product { n, k, groups }, 1, host.threads, false);
    lab.open(&Space::of(case, Vec::new()))?;
    Ok(Box::new(move |spec, k| lab.verify(spec, k)))
}

/// Runs the kernels' programs by the interpreter, on fewer input features, each kernel once.
fn by_interpreter(host: &Host) -> Result<Judge> {
    let pool = Pool::new(host.threads)?;
    let mut known = HashMap::new();
    Ok(Box::new(move |spec, k| {
        let k = k.min(SMALL_K);
        let verdict = known.entry((spec.clone(), k));
        let verdict = verdict.or_insert_with(|| interpreted::verify(&pool, spec, k));
        verdict.clone()
    }))
}

/// Runs every kernel of a profile against the oracle, as it is emitted here or by the interpreter.
///
/// # Errors
/// When the file is no profile, or a kernel is not exact or does not run here.
pub fn verify(terminal: &Terminal, path: &Path, interpret: bool) -> Result<()> {
    let profile = read(path)?;
    let host = Host::probe(features(terminal));
    let mut judge = match interpret {
        true => by_interpreter(&host)?,
        false => native(&host)?,
    };
    let mut verdicts = Vec::new();
    let _watch = signals::watch();
    for e in &profile.entries {
        if signals::asked() {
            bail!(
                "stopped after {} of {} kernels",
                verdicts.len(),
                profile.entries.len()
            );
        }
        let m = e.evidence.m;
        let result = judge(&e.spec, e.k);
        let why = result.err().map(|r| r.to_string());
        verdicts.push(Verdict {
            n: e.n,
            k: e.k,
            m,
            spec: e.spec.to_string(),
            exact: why.is_none(),
            why,
        });
    }
    terminal.print(&verdicts, || {
        verdicts
            .iter()
            .map(|v| match &v.why {
                None => format!("exact  {} x {} x {}  {}\n", v.m, v.n, v.k, v.spec),
                Some(why) => format!("FAILED {} x {} x {}  {}: {why}\n", v.m, v.n, v.k, v.spec),
            })
            .collect()
    })?;
    let failed = verdicts.iter().filter(|v| !v.exact).count();
    if failed > 0 {
        bail!("{failed} of {} kernels failed", verdicts.len());
    }
    Ok(())
}
