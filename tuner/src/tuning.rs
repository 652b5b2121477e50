//! Tuning a model's shapes: one search for each shape and range of token counts, and the profile they make.

use crate::bound;
use crate::host::{Host, Measured};
use crate::measure::{KernelBench, Setting};
use crate::search::{Effort, End, Outcome, search};
use bitnet_codegen::program::Program;
use bitnet_codegen::space;
use bitnet_codegen::variant::VARIANTS;
use bitnet_codegen::{Features, Isa, KernelSpec, Plan, Problem, plan};
use bitnet_runtime::date::civil;
use bitnet_runtime::pool::Pool;
use bitnet_runtime::profile::{Entry, Evidence, GENERATOR, HostRecord, M_BUCKETS, Profile};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What makes two specs comparable: only within one kind can a spec be the twin of another.
type Kind = (String, String, [usize; 3], usize, bool);

/// Every spec of the space that is `wanted` and can be planned on this CPU, best guesses first, so that a short search
/// has looked at what usually wins: the defaults of every family and layout, wide vectors before narrow ones, then the
/// further values of all of them in turn. Each is planned when it is asked for, and no sooner: a search that has no
/// time for thousands of specs does not spend it on their plans. Specs that make the same program as an earlier one on
/// vectors of the same kind are left out.
pub struct Candidates {
    k: usize,
    ranked: std::vec::IntoIter<KernelSpec>,
    /// The interpreter's, for where there is nothing else.
    last_resort: std::vec::IntoIter<KernelSpec>,
    seen: HashMap<Kind, Vec<Plan>>,
}

/// The candidates of `problem`; nothing is planned yet.
pub fn candidates(
    problem: Problem,
    features: Features,
    wanted: impl Fn(&KernelSpec) -> bool,
) -> Candidates {
    let specs = |isa: Isa| -> Vec<KernelSpec> {
        let families = VARIANTS.iter();
        families
            .flat_map(|&family| space::specs(family, isa, problem.m).unwrap_or_default())
            // Tiles of more tokens than there are would only run their tails.
            .filter(|spec| spec.mr <= problem.m.next_power_of_two() && wanted(spec))
            .collect()
    };
    let runs = |isa: &Isa| isa.runs_on(features) && *isa != Isa::Interp;
    let widest_first = Isa::ALL.iter().rev().copied().filter(runs);
    let mut ranked: Vec<(usize, KernelSpec)> = Vec::new();
    for (narrower, isa) in widest_first.enumerate() {
        let mut places: HashMap<(String, String), usize> = HashMap::new();
        for spec in specs(isa) {
            let family = (spec.variant.clone(), spec.layout.clone());
            let place = places.entry(family).or_default();
            *place += 1;
            ranked.push((*place * (1 + 2 * narrower), spec));
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    let ranked: Vec<KernelSpec> = ranked.into_iter().map(|(_, spec)| spec).collect();
    Candidates {
        k: problem.k,
        ranked: ranked.into_iter(),
        last_resort: specs(Isa::Interp).into_iter(),
        seen: HashMap::new(),
    }
}

impl Iterator for Candidates {
    type Item = KernelSpec;

    fn next(&mut self) -> Option<KernelSpec> {
        while let Some(spec) = self.ranked.next() {
            if self.is_new(&spec) {
                return Some(spec);
            }
        }
        if !self.seen.is_empty() {
            return None;
        }
        let spec = self.last_resort.find(|spec| plan(spec, self.k).is_ok());
        self.last_resort = Vec::new().into_iter();
        spec
    }
}

impl Candidates {
    /// Whether `spec` can be planned and no earlier one has the same programs, name aside: an instruction set that a
    /// family has no use for (byte look-ups, say) changes nothing in the code.
    fn is_new(&mut self, spec: &KernelSpec) -> bool {
        let Ok(plan) = plan(spec, self.k) else {
            return false;
        };
        let tile = [spec.mr, spec.nr, spec.kr];
        let kind = (
            spec.variant.clone(),
            spec.layout.clone(),
            tile,
            spec.isa.width().bytes(),
            spec.isa.has_dot(),
        );
        let alike = self.seen.entry(kind).or_default();
        let twin = alike.iter().any(|other| same_programs(other, &plan));
        if !twin {
            alike.push(plan);
        }
        !twin
    }
}

fn same_programs(a: &Plan, b: &Plan) -> bool {
    let parts = |p: &Plan| -> Vec<Program> {
        p.unpack
            .iter()
            .chain(p.main.iter().map(|(_, m)| m))
            .cloned()
            .collect()
    };
    let (a, b) = (parts(a), parts(b));
    a.len() == b.len()
        && a.iter()
            .zip(&b)
            .all(|(a, b)| a.body == b.body && a.consts == b.consts && a.extents == b.extents)
}

/// What to tune.
#[derive(Clone, Debug)]
pub struct Task {
    /// Distinct (N, K) of the model's layers.
    pub shapes: Vec<(usize, usize)>,
    /// Token counts: indices into [`M_BUCKETS`].
    pub buckets: Vec<usize>,
    /// Whether the model is larger than the caches, so that decoding streams it from memory.
    pub cold: bool,
    /// Threads.
    pub threads: usize,
    /// Wall-clock limit for all searches together, planning and verifying included.
    pub budget: Duration,
}

/// Told after each search: its problem, its outcome, and how many are left.
pub type Progress<'a> = dyn FnMut(Problem, &Outcome<KernelSpec>, usize) + 'a;

/// Runs the searches that `done` does not already answer and returns the profile with all entries.
/// Stops early, keeping what is known, when `stop` is set.
pub fn tune(
    host: &Host,
    measured: &Measured,
    task: &Task,
    pool: &Pool,
    stop: &AtomicBool,
    done: Vec<Entry>,
    progress: &mut Progress<'_>,
) -> Profile {
    let start = Instant::now();
    let mut entries = done;
    let mut open: Vec<(usize, usize, usize)> = Vec::new();
    for &bucket in &task.buckets {
        for &(n, k) in &task.shapes {
            let first = M_BUCKETS[bucket].first;
            if !entries
                .iter()
                .any(|e| (e.n, e.k, e.bucket.first) == (n, k, first))
            {
                open.push((bucket, n, k));
            }
        }
    }
    for (i, &(bucket, n, k)) in open.iter().enumerate() {
        // However little time there is, one search begins.
        let spent = i > 0 && start.elapsed() >= task.budget;
        if spent || stop.load(Ordering::Relaxed) {
            break;
        }
        // What one search leaves over, the next ones may use.
        let left = task.budget.saturating_sub(start.elapsed());
        let budget = left / (open.len() - i) as u32;
        let problem = Problem::new(M_BUCKETS[bucket].first, n, k);
        let setting = Setting {
            problem,
            cold: task.cold,
            last_level_bytes: host.last_level_bytes(),
            features: host.features,
            peaks: measured.peaks(task.threads),
        };
        let mut bench = KernelBench::new(setting, pool, stop);
        let outcome = search(
            &mut bench,
            candidates(problem, host.features, |_| true),
            Effort {
                budget,
                ..Effort::default()
            },
        );
        progress(problem, &outcome, open.len() - i - 1);
        if outcome.end == End::Stopped {
            break;
        }
        entries.extend(entry(&setting, task.threads, bucket, &outcome, &bench));
    }
    Profile {
        generator: GENERATOR.into(),
        date: today(),
        host: record(host, measured),
        entries,
        unknown: Vec::new(),
    }
}

fn entry(
    setting: &Setting,
    threads: usize,
    bucket: usize,
    outcome: &Outcome<KernelSpec>,
    bench: &KernelBench<'_>,
) -> Option<Entry> {
    let winner = outcome.winner()?;
    let s = winner.summary?;
    let bytes = bench.weight_bytes(&winner.candidate);
    let problem = setting.problem;
    let fraction = setting.peaks.map_or(0.0, |p| {
        bound::fraction(bound::floor(problem, bytes, setting.cold, p), s.median_ns)
    });
    let timed = outcome
        .trials
        .iter()
        .filter(|t| t.summary.is_some())
        .count();
    Some(Entry {
        n: problem.n,
        k: problem.k,
        bucket: M_BUCKETS[bucket],
        spec: winner.candidate.clone(),
        evidence: Evidence {
            m: problem.m,
            threads,
            cold: setting.cold,
            median_ns: s.median_ns,
            mad_ns: s.mad_ns,
            samples: s.samples,
            gb_per_s: bytes as f64 / s.median_ns,
            gmac_per_s: problem.macs() as f64 / s.median_ns,
            roofline_fraction: fraction,
            timed,
            unsupported: outcome.trials.len() - timed,
            runner_up: outcome
                .runner_up()
                .and_then(|t| Some((t.candidate.clone(), t.summary?.median_ns))),
            end: format!("{:?}", outcome.end).to_lowercase(),
        },
    })
}

/// The machine as a profile records it.
pub fn record(host: &Host, measured: &Measured) -> HostRecord {
    HostRecord {
        cpu: host.cpu.clone(),
        features: host.features.iter().map(|f| f.name().to_owned()).collect(),
        caches_bytes: host
            .caches
            .iter()
            .filter(|c| c.kind != "Instruction")
            .map(|c| c.bytes)
            .collect(),
        read_gb_per_s: measured.read_gb_per_s.clone(),
        peak_gmac_per_s: measured.peak_gmac_per_s.clone(),
    }
}

/// Today's date as `YYYY-MM-DD`, UTC.
fn today() -> String {
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(m: usize, cpu: Features) -> Vec<KernelSpec> {
        candidates(Problem::new(m, 256, 256), cpu, |_| true).collect()
    }

    #[test]
    fn candidates_run_here_and_start_with_every_family_on_the_widest() {
        let cpu = Features::detect();
        let specs = all(1, cpu);
        assert!(specs.iter().all(|s| s.isa.runs_on(cpu) && s.mr == 1));
        if let Some(first) = specs.first().filter(|s| s.isa != Isa::Interp) {
            assert!(specs.iter().all(|s| s.isa <= first.isa));
        }
        let twice: std::collections::HashSet<_> = specs.iter().collect();
        assert_eq!(twice.len(), specs.len());
        // Whatever family runs at all for a long prompt is looked at among the first.
        let specs = all(128, cpu);
        let families: std::collections::HashSet<_> = specs.iter().map(|s| &s.variant).collect();
        let early: std::collections::HashSet<_> = specs
            .iter()
            .take(8 * families.len())
            .map(|s| &s.variant)
            .collect();
        assert_eq!(early, families);
        let bare = all(1, Features::NONE);
        assert_eq!(bare.len(), 1, "the interpreter is the last resort");
    }

    /// Twins are dropped among what is wanted: one that is not wanted must not stand for one that is.
    #[test]
    fn every_instruction_set_that_runs_here_has_candidates_of_its_own() {
        let cpu = Features::detect();
        for &isa in Isa::ALL
            .iter()
            .filter(|i| i.runs_on(cpu) && **i != Isa::Interp)
        {
            let problem = Problem::new(1, 256, 256);
            let of_isa = candidates(problem, cpu, |spec| spec.isa == isa);
            assert!(of_isa.count() > 0, "{isa}");
        }
    }
}
