//! What goes on around a measurement: other processes, other guests of the machine, limits. Each makes timings
//! doubtful, so each is detected, said and kept in the profile.

use bitnet_runtime::profile::Machine;
use std::fs;

/// Ticks that CPUs have spent, since the machine was started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Ticks {
    /// Of all CPUs together, idle ones included.
    all: f64,
    /// Doing nothing.
    idle: f64,
    /// Taken by other guests of the machine.
    stolen: f64,
    /// In this process.
    own: f64,
}

impl Ticks {
    fn now() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self::read(&text("/proc/stat"), &text("/proc/self/stat"))
    }

    /// From the texts of `/proc/stat` and `/proc/self/stat`.
    fn read(stat: &str, own: &str) -> Self {
        let line = stat.lines().next().unwrap_or_default();
        // user nice system idle iowait irq softirq steal; what follows is counted in user already.
        let v: Vec<f64> = line
            .split_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|t| t.parse().ok())
            .collect();
        let at = |i: usize| v.get(i).copied().unwrap_or(0.0);
        // The name, in parentheses, may hold anything.
        let after = own.rsplit_once(')').map_or("", |(_, rest)| rest);
        let own = after.split_whitespace().skip(11).take(2);
        Self {
            all: v.iter().sum(),
            idle: at(3) + at(4),
            stolen: at(7),
            own: own.filter_map(|t| t.parse::<f64>().ok()).sum(),
        }
    }
}

/// Shares of all CPUs between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Taken by other processes.
    pub others: f64,
    /// Taken by other guests.
    pub stolen: f64,
}

/// Shares from here on are worth a word.
const WORTH_A_WORD: f64 = 0.05;

/// A look at the machine that later looks are compared with.
pub struct Watch(Ticks);

impl Watch {
    /// Begins to watch.
    pub fn start() -> Self {
        Self(Ticks::now())
    }

    /// What others took since.
    pub fn load(&self) -> Load {
        self.until(Ticks::now())
    }

    fn until(&self, now: Ticks) -> Load {
        let before = self.0;
        let all = now.all - before.all;
        if all <= 0.0 {
            return Load::default();
        }
        let stolen = now.stolen - before.stolen;
        let own = now.own - before.own;
        let others = all - (now.idle - before.idle) - stolen - own;
        Load {
            others: (others / all).clamp(0.0, 1.0),
            stolen: (stolen / all).clamp(0.0, 1.0),
        }
    }
}

/// What makes timings on `machine` doubtful, one line each.
pub fn doubts(machine: &Machine, load: Load, noise: f64, threads: usize) -> Vec<String> {
    let percent = |share: f64| (share * 100.0).round();
    let mut doubts = Vec::new();
    if load.others >= WORTH_A_WORD {
        let share = percent(load.others);
        doubts.push(format!("other processes took {share} % of the CPUs"));
    }
    if load.stolen >= WORTH_A_WORD {
        let share = percent(load.stolen);
        doubts.push(format!(
            "other guests of the machine took {share} % of the CPUs"
        ));
    }
    if noise >= WORTH_A_WORD {
        let share = percent(noise);
        doubts.push(format!(
            "the same loop takes {share} % more or less from one time to the next"
        ));
    }
    if let Some(quota) = machine.quota_cpus
        && quota < threads as f64
    {
        doubts.push(format!(
            "a control group allows {quota} CPUs, fewer than the {threads} threads measured: threads are stopped in between"
        ));
    }
    if let Some(maker) = &machine.hypervisor {
        doubts.push(format!(
            "a virtual machine ({maker}): caches and memory are shared with guests that nobody sees"
        ));
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_all_cpus_and_own_work_is_not_others() {
        let own = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 300 100 0 0";
        let a = Ticks::read(
            "cpu  100 0 0 900 0 0 0 0 0 0\ncpu0 1",
            "7 (x) S 1 2 3 4 5 6 7 8 9 10 0 0 0 0",
        );
        let b = Ticks::read("cpu  800 0 0 1100 0 0 0 100 0 0\n", own);
        assert_eq!(b.own, 400.0);
        let load = Watch(a).until(b);
        assert_eq!(
            load,
            Load {
                others: 0.3,
                stolen: 0.1
            }
        );
        assert_eq!(Watch(b).until(b), Load::default());
        assert_eq!(Ticks::read("", ""), Ticks::default());
    }

    #[test]
    fn every_doubt_is_said() {
        let machine = Machine {
            hypervisor: Some("KVM".into()),
            quota_cpus: Some(1.5),
            ..Machine::default()
        };
        let load = Load {
            others: 0.5,
            stolen: 0.06,
        };
        let said = doubts(&machine, load, 0.2, 2).join("\n");
        for word in ["50 %", "6 %", "20 %", "1.5 CPUs", "KVM"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert!(doubts(&Machine::default(), Load::default(), 0.01, 2).is_empty());
    }

    #[test]
    fn a_busy_neighbour_is_seen() {
        let watch = Watch::start();
        let load = watch.load();
        assert!(load.others <= 1.0 && load.stolen <= 1.0);
    }
}
