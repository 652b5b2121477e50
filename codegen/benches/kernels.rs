#![expect(unsafe_code, reason = "asks for huge pages")]
//! What one thread gets out of each family on each instruction set: decode (M = 1) and prefill (M = 128) on
//! cold weights of a 2B-4T matrix, and how long emitting takes. Every kernel's answer is checked first.
//!
//! ```text
//! cargo bench -p bitnet-codegen                            all default specs
//! cargo bench -p bitnet-codegen -- 'decode/i2s'            a group and a family
//! SPEC=i2s-i2s-1x32c16-avx512vnni-f0-pf128-u2 cargo bench -p bitnet-codegen -- decode
//! ```
//! Throughput is in bytes of packed weights as they are read, padding included (decode), and in multiply-adds
//! of the N×K matrix, without the rows that fill the last panel (prefill).

use bitnet_codegen::acts::Activations;
use bitnet_codegen::isa::{Features, Isa};
use bitnet_codegen::kernel::{Kernel, KernelSet};
use bitnet_codegen::oracle;
use bitnet_codegen::problem::Problem;
use bitnet_codegen::spec::KernelSpec;
use bitnet_codegen::trit::TernaryMatrix;
use bitnet_codegen::variant::{VARIANTS, Variant, plan};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

/// The up and gate projections of the 2B-4T model.
const N: usize = 6912;
const K: usize = 2560;

/// More than any last-level cache that one thread fills.
const COLD_BYTES: usize = 256 << 20;

/// The first spec of each layout: all axes at their defaults, the first step length that fits.
fn defaults(family: &dyn Variant, isa: Isa, m: usize) -> Vec<KernelSpec> {
    let Ok(axes) = family.axes(isa, m) else {
        return vec![];
    };
    let values = |name: &str| axes.iter().find(|a| a.name == name).map(|a| &a.values[..]);
    let tile = |name| values(name).expect("an axis of every family")[0] as usize;
    let layouts = family.layouts().iter();
    layouts
        .filter_map(|layout| {
            values("kr").expect("an axis kr").iter().find_map(|&kr| {
                let (mr, nr) = (tile("mr"), tile("nr"));
                let mut spec = KernelSpec::new(family.name(), layout, mr, nr, kr as usize, isa);
                for a in axes
                    .iter()
                    .filter(|a| !["mr", "nr", "kr"].contains(&a.name))
                {
                    spec = spec.with(a.name, a.values[0]);
                }
                plan(&spec, K).is_ok().then_some(spec)
            })
        })
        .collect()
}

/// `$SPEC`, or the defaults of everything that this CPU runs.
fn specs(m: usize) -> Vec<KernelSpec> {
    if let Ok(spec) = std::env::var("SPEC") {
        return vec![spec.parse().unwrap_or_else(|e| panic!("{e}"))];
    }
    let cpu = Features::detect();
    let isas = Isa::ALL
        .iter()
        .filter(|i| **i != Isa::Interp && i.runs_on(cpu));
    isas.flat_map(|&isa| VARIANTS.iter().flat_map(move |v| defaults(*v, isa, m)))
        .collect()
}

fn build(spec: &KernelSpec) -> Option<Arc<Kernel>> {
    let plan = plan(spec, K).unwrap_or_else(|e| panic!("{e}"));
    match KernelSet::build(vec![plan], Features::detect()) {
        Ok(set) => Some(Arc::clone(&set.kernels()[0])),
        Err(why) => {
            eprintln!("left out: {why}");
            None
        }
    }
}

/// `len` zeros, on huge pages where the system grants them: with small ones a decode kernel would wait for
/// address translation, which the runtime's loader avoids in the same way.
fn huge_zeros(len: usize) -> Vec<u8> {
    let zeros = vec![0; len];
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 2 << 20;
        let skip = zeros.as_ptr().align_offset(PAGE).min(len);
        let rest = (len - skip) / PAGE * PAGE;
        let start = zeros[skip..].as_ptr().cast_mut().cast();
        // SAFETY: a hint on whole pages inside the vector's own memory; it changes no byte.
        unsafe { libc::madvise(start, rest, libc::MADV_HUGEPAGE) };
    }
    zeros
}

/// A kernel with what it works on: prepared tiles, and copies of some packed panels.
struct Job {
    kernel: Arc<Kernel>,
    tiles: Vec<(usize, Vec<u8>, Vec<i32>)>,
    panels: Vec<u8>,
    out: Vec<i32>,
}

impl Job {
    /// Packs one panel, checks its product, and repeats it until the weights are cold.
    fn new(kernel: Arc<Kernel>, m: usize) -> Self {
        let nr = kernel.panel().shape.nr;
        let noise = |i: usize| (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        let trits: Vec<i8> = (0..nr * K).map(|i| (noise(i) % 3) as i8 - 1).collect();
        let q: Vec<i8> = (0..m * K).map(|i| noise(i + 5) as i8).collect();
        let w = TernaryMatrix::from_trits(nr, K, &trits, 1.0).expect("trits");
        let acts = Activations::from_codes(m, K, &q);
        let form = kernel.acts_form();
        let tiles = kernel.tiles(m).into_iter().map(|(first, mr)| {
            let mut tile = vec![0; form.tile_bytes(mr, K)];
            if form.needs_preparing() {
                form.prepare(&acts, first, mr, &mut tile);
            } else {
                let rows = acts.rows(first, mr.min(m - first));
                tile.iter_mut().zip(rows).for_each(|(to, &x)| *to = x as u8);
            }
            let sums = (first..first + mr).map(|t| acts.sums.get(t).copied().unwrap_or(0));
            (mr, tile, sums.collect())
        });
        let tiles: Vec<_> = tiles.collect();
        let panel = kernel.panel().pack_all(&w);
        let copies = (COLD_BYTES / panel.len()).max(1);
        let mut panels = huge_zeros(copies * panel.len());
        for copy in panels.chunks_exact_mut(panel.len()) {
            copy.copy_from_slice(&panel);
        }
        let most = tiles.iter().map(|t| t.0).max().expect("a tile");
        let out = vec![0; kernel.out_len(most)];
        let mut this = Self {
            kernel,
            tiles,
            panels,
            out,
        };
        this.check(m, nr, &oracle::matmul(&w, &q));
        this
    }

    fn check(&mut self, m: usize, nr: usize, want: &[i32]) {
        let mut scratch = self.kernel.scratch();
        let panel = &self.panels[..self.kernel.panel().bytes()];
        self.kernel.load_panel(panel, &mut scratch);
        for ((first, _), (mr, tile, sums)) in self.kernel.tiles(m).into_iter().zip(&self.tiles) {
            self.kernel
                .run(*mr, panel, tile, sums, &mut scratch, &mut self.out);
            for t in 0..(*mr).min(m - first) {
                for r in 0..nr {
                    let got = self.out[self.kernel.out_order().index(t, r, *mr, nr)];
                    let want = want[(first + t) * nr + r];
                    assert_eq!(
                        got,
                        want,
                        "{} token {} row {r}",
                        self.kernel.spec(),
                        first + t
                    );
                }
            }
        }
    }
}

/// Times one pass over a matrix; the next pass reads other memory.
fn group(c: &mut Criterion, name: &str, m: usize) {
    let mut group = c.benchmark_group(name);
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    for spec in specs(m) {
        let Some(kernel) = build(&spec) else { continue };
        let panel_bytes = kernel.panel().bytes();
        let count = kernel.panel().count(N);
        let work = match m {
            1 => Throughput::Bytes((count * panel_bytes) as u64),
            _ => Throughput::Elements(Problem::new(m, N, K).macs()),
        };
        // Packing is done only for what the filter on the command line lets through.
        let mut job: Option<Job> = None;
        let mut at = 0;
        group.throughput(work);
        group.bench_function(BenchmarkId::from_parameter(&spec), |b| {
            let Job {
                kernel,
                tiles,
                panels,
                out,
            } = job.get_or_insert_with(|| Job::new(Arc::clone(&kernel), m));
            let mut scratch = kernel.scratch();
            let copies = panels.len() / panel_bytes;
            b.iter(|| {
                for _ in 0..count {
                    let panel = &panels[at % copies * panel_bytes..][..panel_bytes];
                    at += 1;
                    kernel.load_panel(panel, &mut scratch);
                    for (mr, tile, sums) in tiles.iter() {
                        kernel.run(*mr, panel, tile, sums, &mut scratch, out);
                    }
                }
                black_box(&out);
            });
        });
    }
    group.finish();
}

fn decode(c: &mut Criterion) {
    group(c, "decode", 1);
}

fn prefill(c: &mut Criterion) {
    group(c, "prefill", 128);
}

/// From a spec to callable code: plan, proof, emission, executable memory.
fn emit(c: &mut Criterion) {
    let mut group = c.benchmark_group("emit");
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500));
    for m in [1, 128] {
        for spec in specs(m) {
            if build(&spec).is_some() {
                group.bench_function(BenchmarkId::new(format!("m{m}"), &spec), |b| {
                    b.iter(|| black_box(build(&spec)));
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, decode, prefill, emit);
criterion_main!(benches);
