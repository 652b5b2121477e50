//! `bitnet-tune host`: what this machine is and what it was measured to do.

use super::{MEASURING, thread_counts};
use crate::host::{Host, Measured};
use anyhow::Result;
use bitnet_cli::cpu::features;
use bitnet_cli::terminal::Terminal;
use serde::Serialize;

/// The document of `host --json`.
#[derive(Serialize)]
struct Report<'a> {
    cpu: &'a str,
    features: Vec<&'static str>,
    isa: &'static str,
    threads: usize,
    vendor: &'a str,
    family: Option<u32>,
    model: Option<u32>,
    stepping: Option<u32>,
    caches: Vec<Cache<'a>>,
    cpus: usize,
    threads_per_core: usize,
    numa_nodes: usize,
    hypervisor: Option<&'a str>,
    kernel: &'a str,
    quota_cpus: Option<f64>,
    #[serde(flatten)]
    measured: &'a Measured,
}

/// One cache.
#[derive(Serialize)]
struct Cache<'a> {
    level: u32,
    kind: &'a str,
    bytes: usize,
    shared_by: &'a str,
}

/// Measures and prints.
///
/// # Errors
/// When the probing loops cannot be emitted or the output cannot be written.
pub fn run(terminal: &Terminal, threads: Option<usize>) -> Result<()> {
    let host = Host::probe(features(terminal));
    terminal.note(&format!(
        "measuring {} (about {} s)",
        host.machine.kind(),
        4
    ));
    let measured = host.measure(&thread_counts(&host, threads), MEASURING)?;
    let m = &host.machine;
    let caches = m.caches.iter().map(|c| Cache {
        level: c.level,
        kind: &c.kind,
        bytes: c.bytes,
        shared_by: &c.shared_by,
    });
    let report = Report {
        cpu: &m.cpu,
        vendor: &m.vendor,
        family: m.family,
        model: m.model,
        stepping: m.stepping,
        cpus: m.cpus,
        threads_per_core: m.threads_per_core,
        numa_nodes: m.numa_nodes,
        hypervisor: m.hypervisor.as_deref(),
        kernel: &m.kernel,
        quota_cpus: m.quota_cpus,
        features: host.features.iter().map(|f| f.name()).collect(),
        isa: host.isa.name(),
        threads: host.threads,
        caches: caches.collect(),
        measured: &measured,
    };
    terminal.print(&report, || text(&host, &measured))
}

fn text(host: &Host, measured: &Measured) -> String {
    let mut out = format!("cpu       {}\n", host.machine.kind());
    let features: Vec<_> = host.features.iter().map(|f| f.name()).collect();
    out += &format!("features  {}\n", features.join(" "));
    out += &format!("best isa  {}\n", host.isa);
    out += &format!("threads   {}\n", host.threads);
    for c in &host.machine.caches {
        out += &format!(
            "cache     L{} {} {} KiB, shared by CPU {}\n",
            c.level,
            c.kind,
            c.bytes >> 10,
            c.shared_by
        );
    }
    for (threads, read) in &measured.read_gb_per_s {
        let peak = measured
            .peak_gmac_per_s
            .get(threads)
            .copied()
            .unwrap_or(f64::NAN);
        out +=
            &format!("{threads:>2} threads read {read:6.1} GB/s   dot product {peak:7.1} GMAC/s\n");
    }
    out
}
