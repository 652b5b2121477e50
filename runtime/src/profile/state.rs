//! How a profile fits a machine: exact, compatible, stale or foreign, from the whole fingerprint. The same answer
//! for `bitnet-tune check` and for whoever loads a model.

use super::{GENERATOR, Machine, Profile};
use bitnet_codegen::{Feature, Features, Isa};

/// How a profile fits this machine and build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// This CPU, these features, this generator.
    Exact,
    /// The same family and model, other details; or a profile too old to tell, of a CPU that looks the same; or an
    /// estimate for machines that run the same instruction sets.
    Compatible,
    /// This CPU, but another generator, kernels that are gone, or other circumstances (quota, number of CPUs).
    Stale,
    /// Another CPU, or kernels that this CPU cannot run.
    Foreign,
}

impl State {
    /// The word that the tools print.
    pub fn name(self) -> &'static str {
        match self {
            State::Exact => "exact",
            State::Compatible => "compatible",
            State::Stale => "stale",
            State::Foreign => "foreign",
        }
    }
}

impl Profile {
    /// How the profile fits `here`, a machine whose kernels may use `features`, and why.
    pub fn state(&self, here: &Machine, features: Features) -> (State, String) {
        if let Some(e) = self.entries.iter().find(|e| !e.spec.isa.runs_on(features)) {
            let why = format!("{} needs {}, which this CPU lacks", e.spec, e.spec.isa);
            return (State::Foreign, why);
        }
        let other = match self.is_estimate {
            true => self.other_kind(features),
            false => self.other_cpu(here),
        };
        if let Some(why) = other {
            return (State::Foreign, why);
        }
        if let Some(why) = self.outdated(here) {
            return (State::Stale, why);
        }
        if self.is_estimate {
            let kind = &self.host.machine.cpu;
            let why = format!(
                "an estimate for {kind}, which runs the same instruction sets; nothing in it was measured"
            );
            return (State::Compatible, why);
        }
        if let Some(why) = self.other_details(here, features) {
            return (State::Compatible, why);
        }
        (State::Exact, format!("measured on this {}", here.kind()))
    }

    /// What makes it another CPU.
    fn other_cpu(&self, here: &Machine) -> Option<String> {
        let there = &self.host.machine;
        let differ = |a: &Option<u32>, b: &Option<u32>| a.is_some() && b.is_some() && a != b;
        let vendors = !there.vendor.is_empty() && !here.vendor.is_empty();
        if there.cpu != here.cpu
            || (vendors && there.vendor != here.vendor)
            || differ(&there.family, &here.family)
            || differ(&there.model, &here.model)
        {
            return Some(format!(
                "measured on {:?}, this is {:?}",
                there.kind(),
                here.kind()
            ));
        }
        // A name that many CPUs share: their caches tell them apart.
        let sizes = |m: &Machine| m.caches.iter().map(|c| c.bytes).collect::<Vec<_>>();
        let (a, b) = (sizes(there), sizes(here));
        (!a.is_empty() && !b.is_empty() && a != b).then(|| {
            format!(
                "measured on {:?} with caches of {a:?} bytes, these are {b:?}",
                there.cpu
            )
        })
    }

    /// An estimate is of a kind of machine, not of one: what makes this one of another kind.
    fn other_kind(&self, features: Features) -> Option<String> {
        let described = Feature::ALL.iter().copied();
        let described = described.filter(|f| self.host.features.iter().any(|n| n == f.name()));
        let best = |cpu: Features| Isa::ALL.iter().rev().find(|isa| isa.runs_on(cpu)).copied();
        let (there, here) = (best(described.collect()), best(features));
        (there != here).then(|| {
            let name = |isa: Option<Isa>| isa.map_or("nothing", |isa| isa.name());
            format!(
                "an estimate for {}, whose best instruction set is {}; that of this CPU is {}",
                self.host.machine.cpu,
                name(there),
                name(here)
            )
        })
    }

    /// What has changed since.
    fn outdated(&self, here: &Machine) -> Option<String> {
        if let Some(name) = self.unknown.first() {
            return Some(format!(
                "kernel {name} is not known to generator {GENERATOR}"
            ));
        }
        if self.generator != GENERATOR {
            return Some(format!(
                "made by generator {}, this is {GENERATOR}",
                self.generator
            ));
        }
        let there = &self.host.machine;
        if there.cpus > 0 && here.cpus > 0 && there.cpus != here.cpus {
            return Some(format!(
                "measured with {} CPUs, here are {}",
                there.cpus, here.cpus
            ));
        }
        let told = |q: Option<f64>| q.map_or("no limit".to_owned(), |q| format!("{q} CPUs"));
        (there.cpus > 0 && there.quota_cpus != here.quota_cpus).then(|| {
            let (a, b) = (told(there.quota_cpus), told(here.quota_cpus));
            format!("measured under a quota of {a}, here it is {b}")
        })
    }

    /// What differs without making it another CPU.
    fn other_details(&self, here: &Machine, features: Features) -> Option<String> {
        let there = &self.host.machine;
        let names: Vec<String> = features.iter().map(|f| f.name().to_owned()).collect();
        let told = [
            (
                self.host.features != names,
                "the same CPU with other features",
            ),
            (
                there.family.is_none() && here.family.is_some(),
                "made by a version that did not record family and model; the name is the same",
            ),
            (
                there.stepping != here.stepping,
                "the same model in another stepping",
            ),
            (
                there.hypervisor != here.hypervisor,
                "the same CPU under another hypervisor",
            ),
            (
                there.threads_per_core != here.threads_per_core
                    || there.numa_nodes != here.numa_nodes,
                "the same CPU with cores and memory divided otherwise",
            ),
        ];
        told.into_iter()
            .find(|(differs, _)| *differs)
            .map(|(_, why)| why.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Cache, HostRecord};

    /// Two CPUs that both call themselves AMD EPYC.
    fn zen(family: u32, model: u32, l1_kib: usize) -> Machine {
        let cache = |level, kib: usize| Cache {
            level,
            kind: "Data".into(),
            bytes: kib << 10,
            shared_by: "0".into(),
        };
        Machine {
            cpu: "AMD EPYC".into(),
            vendor: "AuthenticAMD".into(),
            family: Some(family),
            model: Some(model),
            stepping: Some(1),
            caches: vec![cache(1, l1_kib), cache(2, 1024)],
            cpus: 2,
            threads_per_core: 1,
            numa_nodes: 1,
            hypervisor: Some("KVM".into()),
            kernel: "6.1".into(),
            quota_cpus: None,
        }
    }

    fn profile(machine: Machine) -> Profile {
        Profile {
            generator: GENERATOR.into(),
            host: HostRecord {
                machine,
                ..HostRecord::default()
            },
            ..Profile::default()
        }
    }

    fn state(p: &Profile, here: &Machine) -> State {
        let (state, why) = p.state(here, Features::NONE);
        println!("{}: {why}", state.name());
        state
    }

    #[test]
    fn another_family_or_model_of_the_same_name_is_foreign_both_ways() {
        let (zen4, zen5) = (zen(25, 17, 32), zen(26, 2, 48));
        assert_eq!(state(&profile(zen5.clone()), &zen4), State::Foreign);
        assert_eq!(state(&profile(zen4.clone()), &zen5), State::Foreign);
        assert_eq!(state(&profile(zen4.clone()), &zen4), State::Exact);
        assert_eq!(state(&profile(zen(25, 97, 32)), &zen4), State::Foreign);
    }

    #[test]
    fn an_old_profile_is_told_by_its_caches_and_never_exact() {
        let old = |l1_kib| Machine {
            vendor: String::new(),
            family: None,
            model: None,
            stepping: None,
            cpus: 0,
            ..zen(0, 0, l1_kib)
        };
        let here = zen(25, 17, 32);
        assert_eq!(state(&profile(old(48)), &here), State::Foreign);
        assert_eq!(state(&profile(old(32)), &here), State::Compatible);
    }

    #[test]
    fn details_make_it_compatible_and_circumstances_stale() {
        let here = zen(25, 17, 32);
        let with = |change: fn(&mut Machine)| {
            let mut m = here.clone();
            change(&mut m);
            state(&profile(m), &here)
        };
        assert_eq!(with(|m| m.stepping = Some(2)), State::Compatible);
        assert_eq!(with(|m| m.hypervisor = None), State::Compatible);
        assert_eq!(with(|m| m.kernel = "7.0".into()), State::Exact);
        assert_eq!(with(|m| m.cpus = 64), State::Stale);
        assert_eq!(with(|m| m.quota_cpus = Some(1.5)), State::Stale);
        assert_eq!(with(|m| m.cpu = "Other CPU".into()), State::Foreign);
        assert_eq!(with(|m| m.vendor = "GenuineIntel".into()), State::Foreign);
        let mut p = profile(here.clone());
        p.host.features = vec!["avx4096".into()];
        assert_eq!(state(&p, &here), State::Compatible);
    }

    #[test]
    fn another_generator_or_an_unknown_kernel_is_stale() {
        let here = zen(25, 17, 32);
        let mut p = profile(here.clone());
        p.generator = "0.0.1".into();
        assert_eq!(state(&p, &here), State::Stale);
        let mut p = profile(here.clone());
        p.unknown.push("warp-i2s-1x1c1-avx4096".into());
        assert_eq!(state(&p, &here), State::Stale);
    }

    #[test]
    fn an_estimate_is_never_exact() {
        let avx2 = Features::from([Feature::Ssse3, Feature::Sse41, Feature::Avx, Feature::Avx2]);
        let mut p = profile(zen(25, 17, 32));
        p.is_estimate = true;
        p.host.features = avx2.iter().map(|f| f.name().to_owned()).collect();
        p.host.machine.cpus = 0;
        let here = zen(25, 17, 32);
        // The very machine that was described, another one of its kind, and two of other kinds.
        let fits = |machine: &Machine, features| p.state(machine, features).0;
        assert_eq!(fits(&here, avx2), State::Compatible);
        assert_eq!(fits(&zen(6, 142, 32), avx2), State::Compatible);
        assert_eq!(fits(&here, avx2.without(Feature::Avx2)), State::Foreign);
        let wide = [Feature::Avx512F, Feature::Avx512Bw].into_iter();
        assert_eq!(
            fits(&here, avx2.iter().chain(wide).collect()),
            State::Foreign
        );
        p.generator = "0.0.1".into();
        assert_eq!(p.state(&here, avx2).0, State::Stale);
    }

    #[test]
    fn the_answer_comes_within_fifty_milliseconds() {
        let start = std::time::Instant::now();
        let (fits, _) = profile(Machine::probe()).state(&Machine::probe(), Features::NONE);
        assert_eq!(fits, State::Exact);
        assert!(start.elapsed().as_millis() < 50, "{:?}", start.elapsed());
    }
}
