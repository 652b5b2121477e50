#![expect(unsafe_code, reason = "asks for huge pages")]
//! What one thread gets out of coded products for one token: panels from memory (cold) and one panel again and again
//! (hot), in bytes of packed codes a second. The tests of `coded` check the answers.
//!
//! ```text
//! cargo bench -p bitnet-codegen --bench coded                 the default spec of each form, all instruction sets
//! cargo bench -p bitnet-codegen --bench coded -- 'cold/.*b6s16.*avx512vnni'
//! SPEC=coded-b6s16-2x32c16-avx512vnni-pf64 cargo bench -p bitnet-codegen --bench coded
//! ```

use bitnet_codegen::coded::{self, CodedKernel, FORMS, PLANE_MAX, Planes};
use bitnet_codegen::isa::{Features, Isa};
use bitnet_codegen::kernel::KernelSet;
use bitnet_codegen::spec::KernelSpec;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;

/// Columns of the 2B-4T model's head.
const K: usize = 2560;

/// More than any last-level cache that one thread fills.
const COLD_BYTES: usize = 256 << 20;

fn specs() -> Vec<KernelSpec> {
    if let Ok(spec) = std::env::var("SPEC") {
        return vec![spec.parse().unwrap_or_else(|e| panic!("{e}"))];
    }
    let cpu = Features::detect();
    let isas = Isa::ALL
        .iter()
        .filter(|i| **i != Isa::Interp && i.runs_on(cpu));
    isas.flat_map(|&isa| FORMS.iter().map(move |f| coded::default_spec(f, isa)))
        .collect()
}

/// `len` bytes of no particular value, on huge pages where the system grants them.
fn huge_bytes(len: usize) -> Vec<u8> {
    let mut bytes = vec![0u8; len];
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 2 << 20;
        let skip = bytes.as_ptr().align_offset(PAGE).min(len);
        let rest = (len - skip) / PAGE * PAGE;
        let start = bytes[skip..].as_ptr().cast_mut().cast();
        // SAFETY: a hint on whole pages inside the vector's own memory; it changes no byte.
        unsafe { libc::madvise(start, rest, libc::MADV_HUGEPAGE) };
    }
    for (i, b) in bytes.iter_mut().enumerate() {
        *b = (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()[7];
    }
    bytes
}

fn products(c: &mut Criterion) {
    let memory = huge_bytes(COLD_BYTES);
    for spec in specs() {
        let plan = coded::plan(&spec, K).unwrap_or_else(|e| panic!("{e}"));
        let kernel = match CodedKernel::build(plan, &KernelSet::new(Features::detect())) {
            Ok(kernel) => kernel,
            Err(why) => {
                eprintln!("left out: {why}");
                continue;
            }
        };
        let packing = kernel.packing();
        let mut planes = Planes::new(packing.form, K, 1, 0);
        let q: Vec<i16> = (0..K as i32)
            .map(|i| (i * 7919 % PLANE_MAX) as i16)
            .collect();
        planes.set(0, &q);
        let mut out = vec![0; kernel.out_len(1)];
        let panels: Vec<&[u8]> = memory.chunks_exact(packing.bytes()).collect();
        let count = (16 << 20) / packing.bytes();
        for (name, of) in [("cold", panels.len()), ("hot", 1)] {
            let mut group = c.benchmark_group(name);
            group
                .sample_size(20)
                .warm_up_time(Duration::from_millis(200))
                .measurement_time(Duration::from_secs(1))
                .throughput(Throughput::Bytes((count * packing.bytes()) as u64));
            let mut at = 0;
            group.bench_function(BenchmarkId::from_parameter(&spec), |b| {
                b.iter(|| {
                    for _ in 0..count {
                        kernel.run(panels[at % of], &planes, &mut out);
                        at += 1;
                    }
                    black_box(&out);
                });
            });
            group.finish();
        }
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
