//! One row of `bench`: a test with one number of threads, and what follows from its times.

use bitnet_codegen::kernel::CodeFrom;
use bitnet_runtime::network::head::{Head, HeadForm};
use bitnet_runtime::profile::{HostRecord, M_BUCKETS, MBucket, State};
use bitnet_runtime::setup::Ready;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// The middle of some figures, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of `values`, of which there is one at least.
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        };
        Self {
            median,
            min: values[0],
            max: values[values.len() - 1],
        }
    }
}

#[derive(Serialize)]
struct ProfileUse {
    path: String,
    state: Option<&'static str>,
}

/// The same test of another run.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// The other run's file.
    pub path: String,
    /// Its figure: tokens a second, or milliseconds where there are none.
    pub other: f64,
    /// How many times as fast this run was.
    pub speedup: f64,
}

/// What was measured.
pub struct Test {
    /// What it is called: `pp512`, `tg128 @ d1024`, `ttft512`, `load`.
    pub name: String,
    /// The model's name.
    pub model: String,
    /// Threads.
    pub threads: usize,
    /// Tokens of the test; none where the model is loaded.
    pub tokens: usize,
    /// Tokens held before.
    pub depth: usize,
}

/// One test with one number of threads.
#[derive(Serialize)]
pub struct Row {
    pub test: String,
    pub threads: usize,
    pub n_tokens: usize,
    pub depth: usize,
    /// Of tests whose tokens all count alike: not of what is waited for.
    pub tokens_per_s: Option<Spread>,
    /// The whole test, in milliseconds.
    pub ms: Spread,
    /// What decoding a token reads; a prompt reads its weights once for many tokens.
    pub bytes_per_token: Option<usize>,
    pub gb_per_s: Option<f64>,
    pub gmac_per_s: Option<f64>,
    pub roofline_fraction: Option<f64>,
    pub peak_rss_bytes: Option<u64>,
    pub load_s: f64,
    profile: ProfileUse,
    kernels: BTreeMap<String, String>,
    /// Where the code of each of them comes from: `pack`, `emitted` or `interpreted`.
    code: BTreeMap<String, &'static str>,
    /// The file of kernels compiled ahead, if one is used.
    pack: Option<String>,
    /// How the head is stored: a float type, or `ternary`, multiplied like a projection.
    head: String,
    /// How it finds the likeliest tokens: `native` and the like, or `exact`.
    head_form: &'static str,
    /// The kernel of that, where the form is not exact.
    head_kernel: Option<String>,
    /// Where its code comes from.
    head_code: Option<&'static str>,
    pub model: String,
    pub host: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared: Option<Compared>,
}

impl Row {
    /// Of a test and its times, of which there is one at least.
    pub fn new(ready: &Ready, test: Test, times: &[Duration]) -> Self {
        let seconds = times.iter().map(Duration::as_secs_f64);
        let head = ready.engine.head();
        Self {
            test: test.name,
            threads: test.threads,
            n_tokens: test.tokens,
            depth: test.depth,
            tokens_per_s: None,
            ms: Spread::of(seconds.map(|s| s * 1e3).collect()),
            bytes_per_token: None,
            gb_per_s: None,
            gmac_per_s: None,
            roofline_fraction: None,
            peak_rss_bytes: peak_rss_bytes(),
            load_s: ready.load.as_secs_f64(),
            profile: ProfileUse {
                path: ready.found.source.to_string(),
                state: ready.found.state.map(State::name),
            },
            kernels: BTreeMap::new(),
            code: BTreeMap::new(),
            pack: ready.pack.as_ref().map(|p| p.path().display().to_string()),
            head: head
                .map_or("ternary", |head| head.dtype().name())
                .to_owned(),
            head_form: head.map_or(HeadForm::Exact, Head::form).name(),
            head_kernel: head.and_then(Head::kernel).map(ToString::to_string),
            head_code: head.and_then(Head::code_from).map(CodeFrom::name),
            model: test.model,
            host: bitnet_runtime::profile::cpu_name(),
            compared: None,
        }
    }

    /// With what follows for a prompt: its work against the dot-product peak.
    pub fn of_prefill(mut self, ready: &Ready) -> Self {
        let macs = ready.engine.prompt_macs(self.n_tokens) as f64 / self.n_tokens as f64;
        let speed = self.speed();
        let gmac_per_s = macs * speed / 1e9;
        self.gmac_per_s = Some(gmac_per_s);
        self.roofline_fraction =
            peak(ready, |h| &h.peak_gmac_per_s, self.threads).map(|peak| gmac_per_s / peak);
        let tokens = self.n_tokens.min(bitnet_runtime::engine::BATCH);
        self.with_kernels(ready, MBucket::of(tokens).index())
    }

    /// With what follows for single tokens: what they read against the read bandwidth.
    pub fn of_decode(mut self, ready: &Ready) -> Self {
        // On average half of the tokens are held while decoding.
        let bytes = ready.engine.bytes_per_token(self.depth + self.n_tokens / 2);
        let speed = self.speed();
        let gb_per_s = bytes as f64 * speed / 1e9;
        self.bytes_per_token = Some(bytes);
        self.gb_per_s = Some(gb_per_s);
        self.gmac_per_s = Some(ready.engine.macs_per_token() as f64 * speed / 1e9);
        self.roofline_fraction =
            peak(ready, |h| &h.read_gb_per_s, self.threads).map(|peak| gb_per_s / peak);
        self.with_kernels(ready, 0)
    }

    /// The median of the tokens a second, which is noted.
    fn speed(&mut self) -> f64 {
        let per_s = |ms: f64| self.n_tokens as f64 / ms * 1e3;
        let speed = Spread {
            median: per_s(self.ms.median),
            min: per_s(self.ms.max),
            max: per_s(self.ms.min),
        };
        self.tokens_per_s = Some(speed);
        speed.median
    }

    fn with_kernels(mut self, ready: &Ready, bucket: usize) -> Self {
        let kernels = ready.engine.kernels().iter();
        for ((p, b), choice) in kernels.filter(|((_, b), _)| *b == bucket) {
            let product = format!("{}x{}x{}", p.n, p.k, M_BUCKETS[*b]);
            self.code.insert(product.clone(), choice.code.name());
            self.kernels.insert(product, choice.spec.to_string());
        }
        self
    }
}

/// A peak of this machine for a number of threads, where the profile is of this very machine.
fn peak(
    ready: &Ready,
    of: impl Fn(&HostRecord) -> &BTreeMap<String, f64>,
    threads: usize,
) -> Option<f64> {
    let here = ready.found.state == Some(State::Exact);
    let peaks = of(&ready.found.profile.host);
    here.then(|| peaks.get(&threads.to_string()).copied())
        .flatten()
}

/// The most memory that this process has held, where the system tells.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_of_figures_lies_between_two() {
        let spread = |v: &[f64]| Spread::of(v.to_vec());
        assert_eq!(spread(&[3.0, 1.0, 2.0]).median, 2.0);
        let even = spread(&[4.0, 1.0, 2.0, 3.0]);
        assert_eq!((even.median, even.min, even.max), (2.5, 1.0, 4.0));
    }
}
