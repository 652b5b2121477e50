//! What a machine is, as far as its system tells without measuring: the identity that profiles are compared by.
//!
//! A hypervisor may give every CPU of a vendor one name ("AMD EPYC"), so the name alone identifies nothing: family,
//! model and caches do. Reading it all takes milliseconds.

use std::fs;
use std::path::Path;

/// One cache of the first core.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cache {
    /// 1, 2, 3, …
    pub level: u32,
    /// `Data`, `Instruction` or `Unified`.
    pub kind: String,
    /// Size.
    pub bytes: usize,
    /// Logical CPUs that share it, as the system writes it (`0-1`).
    pub shared_by: String,
}

/// A machine. Empty or `None` where the system, or an old profile, does not tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// The CPU's own name.
    pub cpu: String,
    /// Who made it (`AuthenticAMD`; the implementer's number on ARM).
    pub vendor: String,
    /// Its family (the architecture's number on ARM).
    pub family: Option<u32>,
    /// Its model (the part number on ARM).
    pub model: Option<u32>,
    /// Its stepping (the revision on ARM).
    pub stepping: Option<u32>,
    /// Caches of the first core, nearest first, instruction caches left out.
    pub caches: Vec<Cache>,
    /// Logical CPUs of the system.
    pub cpus: usize,
    /// Logical CPUs that share a core; 0 unknown.
    pub threads_per_core: usize,
    /// NUMA nodes; 0 unknown.
    pub numa_nodes: usize,
    /// Who made the virtual machine, if it is one.
    pub hypervisor: Option<String>,
    /// Release of the system's kernel.
    pub kernel: String,
    /// CPUs that a control group allows, if it limits them.
    pub quota_cpus: Option<f64>,
}

impl Machine {
    /// This machine.
    pub fn probe() -> Self {
        Self::read(Path::new("/"))
    }

    /// The machine whose `/proc` and `/sys` lie under `root`.
    fn read(root: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let line = |path: &str| text(path).trim().to_owned();
        let cpuinfo = text("proc/cpuinfo");
        let cpu0 = "sys/devices/system/cpu/cpu0";
        let siblings = line(&format!("{cpu0}/topology/thread_siblings_list"));
        let flags = field(&cpuinfo, "flags").unwrap_or_default();
        let is_guest = flags.split(' ').any(|f| f == "hypervisor");
        let maker = line("sys/class/dmi/id/sys_vendor");
        Self {
            cpu: named(&cpuinfo),
            vendor: ["vendor_id", "CPU implementer"]
                .into_iter()
                .find_map(|key| field(&cpuinfo, key))
                .unwrap_or_default(),
            family: number(&cpuinfo, &["cpu family", "CPU architecture"]),
            model: number(&cpuinfo, &["model", "CPU part"]),
            stepping: number(&cpuinfo, &["stepping", "CPU revision"]),
            caches: caches(&root.join(cpu0).join("cache")),
            cpus: cpuinfo
                .lines()
                .filter(|l| l.starts_with("processor"))
                .count(),
            threads_per_core: listed(&siblings),
            numa_nodes: listed(&line("sys/devices/system/node/online")),
            hypervisor: is_guest.then(|| match maker.as_str() {
                "" => "unknown".to_owned(),
                maker => maker.to_owned(),
            }),
            kernel: line("proc/sys/kernel/osrelease"),
            quota_cpus: quota(&line("sys/fs/cgroup/cpu.max")).or_else(|| {
                let v1 = |name: &str| line(&format!("sys/fs/cgroup/cpu/cpu.cfs_{name}_us"));
                quota(&format!("{} {}", v1("quota"), v1("period")))
            }),
        }
    }

    /// Size of the last-level cache, if known.
    pub fn last_level_bytes(&self) -> Option<usize> {
        self.caches.iter().map(|c| c.bytes).max()
    }

    /// Size of the first-level data cache, if known.
    pub fn l1_bytes(&self) -> Option<usize> {
        let first = self.caches.iter().find(|c| c.level == 1);
        first.map(|c| c.bytes)
    }

    /// `family 25, model 17`, for comparing two machines of one name.
    pub fn kind(&self) -> String {
        let part = |name: &str, v: Option<u32>| v.map(|v| format!(", {name} {v}"));
        let parts = [part("family", self.family), part("model", self.model)];
        self.cpu.clone() + &parts.into_iter().flatten().collect::<String>()
    }
}

/// The name that the system gives the CPU; `unknown` and the architecture where it gives none.
pub fn cpu_name() -> String {
    named(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

/// The first value of `key` in the text of `/proc/cpuinfo`.
fn field(cpuinfo: &str, key: &str) -> Option<String> {
    cpuinfo.lines().find_map(|line| {
        let (k, v) = line.split_once(':')?;
        (k.trim() == key && !v.trim().is_empty()).then(|| v.trim().to_owned())
    })
}

/// The name: `model name` on x86, other keys elsewhere.
fn named(cpuinfo: &str) -> String {
    ["model name", "Model", "Processor", "uarch"]
        .into_iter()
        .find_map(|key| field(cpuinfo, key))
        .unwrap_or_else(|| format!("unknown {}", std::env::consts::ARCH))
}

/// The first of `keys` that holds a number, decimal or `0x…`.
fn number(cpuinfo: &str, keys: &[&str]) -> Option<u32> {
    keys.iter().find_map(|key| {
        let text = field(cpuinfo, key)?;
        match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        }
    })
}

/// How many CPUs or nodes a list like `0-3,8` names; 0 for what is no list.
fn listed(text: &str) -> usize {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        Some((last + 1).saturating_sub(first))
    };
    text.split(',').filter_map(range).sum()
}

/// CPUs from the text of `cpu.max`: `200000 100000` is two, `max 100000` no limit.
fn quota(text: &str) -> Option<f64> {
    let (quota, period) = text.split_once(' ')?;
    let (quota, period) = (quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

fn caches(root: &Path) -> Vec<Cache> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let mut caches: Vec<Cache> = entries
        .flatten()
        .filter_map(|e| {
            let text = |name: &str| fs::read_to_string(e.path().join(name)).ok();
            let read = |name: &str| Some(text(name)?.trim().to_owned());
            Some(Cache {
                level: read("level")?.parse().ok()?,
                kind: read("type")?,
                bytes: size_bytes(&read("size")?)?,
                shared_by: read("shared_cpu_list").unwrap_or_default(),
            })
        })
        .filter(|c| c.kind != "Instruction")
        .collect();
    caches.sort_by(|a, b| (a.level, &a.kind).cmp(&(b.level, &b.kind)));
    caches
}

/// `48K`, `1M`, `512` in bytes.
fn size_bytes(text: &str) -> Option<usize> {
    let (number, unit) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(number) => (number, text.as_bytes()[text.len() - 1]),
        None => (text, b' '),
    };
    let shift = match unit {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        _ => 0,
    };
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_the_system_writes_them() {
        assert_eq!(
            named("processor\t: 0\nmodel name\t: AMD EPYC\n"),
            "AMD EPYC"
        );
        assert_eq!(named("Model\t\t: Raspberry Pi 5\n"), "Raspberry Pi 5");
        assert!(named("").starts_with("unknown"));
        assert!(!cpu_name().is_empty());
    }

    #[test]
    fn a_machine_is_read_from_its_files() {
        let root = tempfile::tempdir().expect("a folder");
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        let cpu = "processor: 0\nvendor_id: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name: AMD EPYC\n\
            stepping: 1\nflags: fpu hypervisor\n";
        put("proc/cpuinfo", &format!("{cpu}\nprocessor: 1\n"));
        put("proc/sys/kernel/osrelease", "6.1.0\n");
        put("sys/devices/system/node/online", "0-1\n");
        put("sys/fs/cgroup/cpu.max", "150000 100000\n");
        let cpu0 = "sys/devices/system/cpu/cpu0";
        put(&format!("{cpu0}/topology/thread_siblings_list"), "0,1\n");
        for (i, (level, kind, size)) in [
            ("1", "Data", "32K"),
            ("1", "Instruction", "32K"),
            ("2", "Unified", "1M"),
        ]
        .into_iter()
        .enumerate()
        {
            for (name, v) in [("level", level), ("type", kind), ("size", size)] {
                put(&format!("{cpu0}/cache/index{i}/{name}"), v);
            }
        }
        let m = Machine::read(root.path());
        assert_eq!(
            (m.family, m.model, m.stepping),
            (Some(25), Some(17), Some(1))
        );
        assert_eq!(
            (m.vendor.as_str(), m.cpus, m.threads_per_core, m.numa_nodes),
            ("AuthenticAMD", 2, 2, 2)
        );
        assert_eq!(
            (m.l1_bytes(), m.last_level_bytes()),
            (Some(32 << 10), Some(1 << 20))
        );
        assert_eq!((m.quota_cpus, m.kernel.as_str()), (Some(1.5), "6.1.0"));
        assert_eq!(m.hypervisor.as_deref(), Some("unknown"));
        assert_eq!(m.kind(), "AMD EPYC, family 25, model 17");
        let arm = "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd0b\n";
        assert_eq!(number(arm, &["model", "CPU part"]), Some(0xd0b));
        let nothing = Machine::read(Path::new("/nonexistent"));
        assert_eq!((nothing.family, nothing.caches.len()), (None, 0));
    }

    #[test]
    fn sizes_lists_and_quotas_are_read_as_the_system_writes_them() {
        assert_eq!(size_bytes("48K"), Some(49152));
        assert_eq!(size_bytes("512"), Some(512));
        assert_eq!(size_bytes("x"), None);
        assert_eq!(size_bytes(&format!("{}G", usize::MAX)), None);
        assert_eq!(
            (listed("0-3,8"), listed("0"), listed(""), listed("3-1")),
            (5, 1, 0, 0)
        );
        assert_eq!(
            (quota("max 100000"), quota("-1 100000"), quota(" ")),
            (None, None, None)
        );
    }
}
