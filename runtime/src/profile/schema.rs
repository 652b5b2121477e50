//! The TOML form of a profile: its own types, versioned, apart from the core types.
//! A file is taken whole or not at all; unknown kernel names are kept aside, not guessed at.
//!
//! Longer than 500 lines: every version of the file, read and written side by side.

use super::{
    Cache, Conditions, Entry, Evidence, HostRecord, M_BUCKETS, MBucket, Machine, Phase, Profile,
};
use crate::new_file::NewFile;
use bitnet_codegen::{Groups, KernelSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The version that this build writes; it reads this and older ones.
const VERSION: u32 = 2;

/// Entries beyond this are not a profile but an attack on memory.
const MAX_ENTRIES: usize = 100_000;

/// Why a profile cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("cannot read profile {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write profile {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The text is not TOML of this schema.
    #[error("not a profile: {0}")]
    Syntax(String),
    /// A newer build wrote it.
    #[error(
        "profile version {got}, this build reads up to {VERSION}: use a newer bitnet-run, or tune again"
    )]
    Version {
        /// The file's version.
        got: u32,
    },
    /// A field holds what it cannot.
    #[error("field {field}: {why}")]
    Field {
        /// Where.
        field: String,
        /// What is wrong.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    generator: String,
    #[serde(default)]
    date: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    estimate: bool,
    host: FileHost,
    #[serde(default)]
    conditions: FileConditions,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    costs: BTreeMap<String, f64>,
    #[serde(default, rename = "phase", skip_serializing_if = "Vec::is_empty")]
    phases: Vec<FilePhase>,
    #[serde(default, rename = "kernel")]
    kernels: Vec<FileEntry>,
}

/// Fields past `peak_gmac_per_s` are version 2's.
#[derive(Serialize, Deserialize)]
struct FileHost {
    cpu: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    vendor: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    family: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stepping: Option<u32>,
    #[serde(default)]
    features: Vec<String>,
    #[serde(default)]
    caches_bytes: Vec<usize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    caches_shared_by: Vec<String>,
    #[serde(default)]
    cpus: usize,
    #[serde(default)]
    threads_per_core: usize,
    #[serde(default)]
    numa_nodes: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hypervisor: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    kernel: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quota_cpus: Option<f64>,
    #[serde(default)]
    read_gb_per_s: BTreeMap<String, f64>,
    #[serde(default)]
    peak_gmac_per_s: BTreeMap<String, f64>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct FileConditions {
    budget_s: f64,
    noise: f64,
    other_load: f64,
    notes: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct FilePhase {
    name: String,
    threads: usize,
    batch: usize,
    chosen: String,
    #[serde(default)]
    tokens_per_s: BTreeMap<String, f64>,
}

/// `interval_ns`, `predicted_ns`, `regret`, `tied` and `code` are version 2's. The groups of columns that a product has
/// scales for stand in `spec`, and nowhere else.
#[derive(Serialize, Deserialize)]
struct FileEntry {
    n: usize,
    k: usize,
    m_from: usize,
    spec: String,
    m: usize,
    threads: usize,
    cold: bool,
    median_ns: f64,
    mad_ns: f64,
    #[serde(default)]
    interval_ns: [f64; 2],
    samples: usize,
    gb_per_s: f64,
    gmac_per_s: f64,
    roofline_fraction: f64,
    #[serde(default)]
    predicted_ns: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    regret: Option<[f64; 2]>,
    timed: usize,
    unsupported: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    runner_up: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    runner_up_median_ns: Option<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tied: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(default)]
    end: String,
}

/// Just the version, so that a newer file is told from a broken one.
#[derive(Deserialize)]
struct FileVersion {
    version: Option<u32>,
}

/// Reads a profile's text.
///
/// # Errors
/// [`ProfileError`]; nothing of a bad file is used.
pub fn parse(text: &str) -> Result<Profile, ProfileError> {
    let syntax =
        |e: toml::de::Error| ProfileError::Syntax(e.to_string().trim_end().replace('\n', " "));
    let version: FileVersion = toml::from_str(text).map_err(syntax)?;
    match version.version {
        None => return Err(ProfileError::Syntax("it has no version".into())),
        Some(got) if got > VERSION => return Err(ProfileError::Version { got }),
        Some(_) => {}
    }
    let file: File = toml::from_str(text).map_err(syntax)?;
    if file.kernels.len() > MAX_ENTRIES {
        let why = format!(
            "{} entries, at most {MAX_ENTRIES} expected",
            file.kernels.len()
        );
        return Err(ProfileError::Field {
            field: "kernel".into(),
            why,
        });
    }
    let mut profile = Profile {
        generator: file.generator,
        date: file.date,
        is_estimate: file.estimate,
        host: host(file.host),
        conditions: Conditions {
            budget_s: file.conditions.budget_s,
            noise: file.conditions.noise,
            other_load: file.conditions.other_load,
            notes: file.conditions.notes,
        },
        costs: file.costs,
        phases: file.phases.into_iter().map(phase).collect(),
        ..Profile::default()
    };
    for (i, e) in file.kernels.into_iter().enumerate() {
        // Groups that this build does not have are as unknown as a family that it does not have.
        match e.spec.parse::<KernelSpec>() {
            Ok(spec) if Groups::of(&spec).is_ok() => profile.entries.push(entry(i, e, spec)?),
            _ => profile.unknown.push(e.spec),
        }
    }
    Ok(profile)
}

/// Caches are written as sizes, nearest first, for so did version 1; which level each is follows from its place.
fn host(h: FileHost) -> HostRecord {
    let caches = h
        .caches_bytes
        .into_iter()
        .enumerate()
        .map(|(i, bytes)| Cache {
            level: i as u32 + 1,
            kind: if i == 0 { "Data" } else { "Unified" }.into(),
            bytes,
            shared_by: h.caches_shared_by.get(i).cloned().unwrap_or_default(),
        });
    HostRecord {
        machine: Machine {
            cpu: h.cpu,
            vendor: h.vendor,
            family: h.family,
            model: h.model,
            stepping: h.stepping,
            caches: caches.collect(),
            cpus: h.cpus,
            threads_per_core: h.threads_per_core,
            numa_nodes: h.numa_nodes,
            hypervisor: h.hypervisor,
            kernel: h.kernel,
            quota_cpus: h.quota_cpus,
        },
        features: h.features,
        read_gb_per_s: h.read_gb_per_s,
        peak_gmac_per_s: h.peak_gmac_per_s,
    }
}

fn phase(p: FilePhase) -> Phase {
    Phase {
        name: p.name,
        threads: p.threads,
        batch: p.batch,
        chosen: p.chosen,
        tokens_per_s: p.tokens_per_s,
    }
}

fn entry(i: usize, e: FileEntry, spec: KernelSpec) -> Result<Entry, ProfileError> {
    let bad = |field: &str, why: String| ProfileError::Field {
        field: format!("kernel[{i}].{field}"),
        why,
    };
    if e.n == 0 || e.k == 0 || e.m == 0 || e.k > bitnet_codegen::problem::MAX_K {
        return Err(bad(
            "n, k, m",
            format!("{} x {} for {} tokens is no product", e.n, e.k, e.m),
        ));
    }
    let Some(bucket) = M_BUCKETS.iter().copied().find(|b| b.first == e.m_from) else {
        let known: Vec<String> = M_BUCKETS.iter().map(|b| b.first.to_string()).collect();
        return Err(bad(
            "m_from",
            format!("{} is not one of {}", e.m_from, known.join(", ")),
        ));
    };
    if !(e.median_ns.is_finite() && e.median_ns > 0.0) {
        return Err(bad("median_ns", format!("{} is no time", e.median_ns)));
    }
    let runner_up = match (e.runner_up, e.runner_up_median_ns) {
        (Some(name), Some(ns)) => name.parse().ok().map(|s: KernelSpec| (s, ns)),
        _ => None,
    };
    let evidence = Evidence {
        m: e.m,
        threads: e.threads,
        cold: e.cold,
        median_ns: e.median_ns,
        mad_ns: e.mad_ns,
        interval_ns: (e.interval_ns[0], e.interval_ns[1]),
        samples: e.samples,
        gb_per_s: e.gb_per_s,
        gmac_per_s: e.gmac_per_s,
        roofline_fraction: e.roofline_fraction,
        predicted_ns: e.predicted_ns,
        regret: e.regret.map(|[first, eight]| (first, eight)),
        timed: e.timed,
        unsupported: e.unsupported,
        runner_up,
        tied: e.tied.iter().filter_map(|s| s.parse().ok()).collect(),
        code: e.code.and_then(|hex| u64::from_str_radix(&hex, 16).ok()),
        end: e.end,
    };
    Ok(Entry {
        n: e.n,
        k: e.k,
        bucket: MBucket {
            first: bucket.first,
        },
        spec,
        evidence,
    })
}

/// The text of a profile.
///
/// # Panics
/// Never: every field has a TOML form.
pub fn render(profile: &Profile) -> String {
    let (h, c) = (&profile.host, &profile.conditions);
    let m = &h.machine;
    let file = File {
        version: VERSION,
        generator: profile.generator.clone(),
        date: profile.date.clone(),
        estimate: profile.is_estimate,
        host: FileHost {
            cpu: m.cpu.clone(),
            vendor: m.vendor.clone(),
            family: m.family,
            model: m.model,
            stepping: m.stepping,
            features: h.features.clone(),
            caches_bytes: m.caches.iter().map(|c| c.bytes).collect(),
            caches_shared_by: m.caches.iter().map(|c| c.shared_by.clone()).collect(),
            cpus: m.cpus,
            threads_per_core: m.threads_per_core,
            numa_nodes: m.numa_nodes,
            hypervisor: m.hypervisor.clone(),
            kernel: m.kernel.clone(),
            quota_cpus: m.quota_cpus,
            read_gb_per_s: h.read_gb_per_s.clone(),
            peak_gmac_per_s: h.peak_gmac_per_s.clone(),
        },
        conditions: FileConditions {
            budget_s: c.budget_s,
            noise: c.noise,
            other_load: c.other_load,
            notes: c.notes.clone(),
        },
        costs: profile.costs.clone(),
        phases: profile.phases.iter().map(file_phase).collect(),
        kernels: profile.entries.iter().map(file_entry).collect(),
    };
    let body = toml::to_string(&file).expect("a profile has a TOML form");
    let head = match profile.is_estimate {
        false => {
            "Kernels that won on this machine, with their evidence. Written by `bitnet-tune tune`."
        }
        true => {
            "Kernels that the cost model expects most of on such a machine; nothing here was measured.\n\
            # Written by `bitnet-tune tune --for`."
        }
    };
    format!("# {head}\n{body}")
}

fn file_phase(p: &Phase) -> FilePhase {
    FilePhase {
        name: p.name.clone(),
        threads: p.threads,
        batch: p.batch,
        chosen: p.chosen.clone(),
        tokens_per_s: p.tokens_per_s.clone(),
    }
}

fn file_entry(e: &Entry) -> FileEntry {
    let v = &e.evidence;
    FileEntry {
        n: e.n,
        k: e.k,
        m_from: e.bucket.first,
        spec: e.spec.to_string(),
        m: v.m,
        threads: v.threads,
        cold: v.cold,
        median_ns: v.median_ns,
        mad_ns: v.mad_ns,
        interval_ns: [v.interval_ns.0, v.interval_ns.1],
        samples: v.samples,
        gb_per_s: v.gb_per_s,
        gmac_per_s: v.gmac_per_s,
        roofline_fraction: v.roofline_fraction,
        predicted_ns: v.predicted_ns,
        regret: v.regret.map(|(first, eight)| [first, eight]),
        timed: v.timed,
        unsupported: v.unsupported,
        runner_up: v.runner_up.as_ref().map(|(s, _)| s.to_string()),
        runner_up_median_ns: v.runner_up.as_ref().map(|(_, ns)| *ns),
        tied: v.tied.iter().map(ToString::to_string).collect(),
        code: v.code.map(|digest| format!("{digest:016x}")),
        end: v.end.clone(),
    }
}

/// Writes a profile into a folder that is there, whole or not at all, so that a reader never sees half of one.
///
/// # Errors
/// [`ProfileError::Write`].
pub fn save(profile: &Profile, path: &Path) -> Result<(), ProfileError> {
    let error = |source| ProfileError::Write {
        path: path.to_owned(),
        source,
    };
    let mut file = NewFile::create(path).map_err(error)?;
    file.write_all(render(profile).as_bytes())
        .and_then(|()| file.finish())
        .map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = r#"
version = 1
generator = "0.1.0"
[host]
cpu = "x"
[[kernel]]
n = 64
k = 64
m_from = 1
spec = "i2s-i2s-1x32c16-interp"
m = 1
threads = 1
cold = true
median_ns = 10.0
mad_ns = 1.0
samples = 3
gb_per_s = 1.0
gmac_per_s = 1.0
roofline_fraction = 0.5
timed = 1
unsupported = 0
"#;

    #[test]
    fn a_small_file_is_read_and_wrong_fields_are_named() {
        assert_eq!(parse(GOOD).expect("good").entries.len(), 1);
        for (from, to, want) in [
            ("version = 1", "version = 3", "version 3"),
            ("version = 1", "", "no version"),
            ("n = 64", "n = 0", "kernel[0]"),
            ("n = 64", "n = -1", "not a profile"),
            ("m_from = 1", "m_from = 3", "m_from"),
            ("median_ns = 10.0", "median_ns = nan", "median_ns"),
            ("cpu = \"x\"", "", "cpu"),
        ] {
            let e = parse(&GOOD.replacen(from, to, 1))
                .expect_err(to)
                .to_string();
            assert!(e.contains(want), "{to:?}: {e}");
            assert!(!e.contains('\n'), "one line: {e}");
        }
    }

    #[test]
    fn an_unknown_kernel_is_kept_aside() {
        for name in ["sse9", "interp-g100"] {
            let p = parse(&GOOD.replace("interp", name)).expect("read");
            let unknown = format!("i2s-i2s-1x32c16-{name}");
            assert_eq!((p.entries.len(), &p.unknown[..]), (0, &[unknown][..]));
        }
    }

    #[test]
    fn the_groups_of_a_product_stand_in_the_name_of_its_kernel() {
        let of = |name: &str| {
            let p = parse(&GOOD.replace("interp", name)).expect("read");
            p.entries[0].product().to_string()
        };
        assert_eq!(of("interp"), "64x64");
        assert_eq!(of("interp-g64-p2-s16"), "64x64-g64");
    }

    #[test]
    fn every_truncation_is_refused_or_whole() {
        for cut in 0..GOOD.len() {
            if let Ok(p) = parse(&GOOD[..cut]) {
                let whole = GOOD[cut..].trim().is_empty();
                assert!(p.entries.is_empty() || whole, "half an entry at {cut}");
            }
        }
    }

    #[test]
    fn saving_replaces_whole_files_and_leaves_no_other() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("p.toml");
        let p = parse(GOOD).expect("good");
        save(&p, &path).expect("saved");
        save(&p, &path).expect("saved again");
        assert_eq!(
            parse(&std::fs::read_to_string(&path).expect("read")).expect("whole"),
            p
        );
        assert_eq!(
            std::fs::read_dir(path.parent().expect("folder"))
                .expect("listed")
                .count(),
            1
        );
        assert!(matches!(
            save(&p, Path::new("/proc/nowhere/p.toml")),
            Err(ProfileError::Write { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_without_panic(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn any_damage_is_refused_or_read(at in 0..GOOD.len(), byte in 32u8..127) {
            let mut bytes = GOOD.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = parse(std::str::from_utf8(&bytes).expect("ASCII"));
        }
    }
}
