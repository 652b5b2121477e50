//! The interpreted kernel against the oracle, and executable memory: had where needed, freed with the last kernel.

use super::*;
use crate::acts::Activations;
use crate::isa::{Features, Isa};
use crate::oracle;
use crate::trit::TernaryMatrix;
use crate::variant::plan;

/// A whole product through a kernel, for one thread and without a runtime.
pub(crate) fn product(kernel: &Kernel, w: &TernaryMatrix, acts: &Activations) -> Vec<i32> {
    let packed = kernel.panel().pack_all(w);
    let (nr, form) = (kernel.panel().shape.nr, kernel.acts_form());
    let mut scratch = kernel.scratch();
    let mut y = vec![0; acts.m * w.n()];
    for (p, panel) in packed.chunks_exact(kernel.panel().bytes()).enumerate() {
        kernel.load_panel(panel, &mut scratch);
        for (first, mr) in kernel.tiles(acts.m) {
            let mut out = vec![0; kernel.out_len(mr)];
            let mut tile = vec![0; form.tile_bytes(mr, w.k())];
            let sums: Vec<i32> = (0..mr)
                .map(|t| acts.sums.get(first + t).copied().unwrap_or(0))
                .collect();
            if form.needs_preparing() {
                form.prepare(acts, first, mr, &mut tile);
            } else {
                tile.copy_from_slice(
                    &acts
                        .rows(first, mr)
                        .iter()
                        .map(|&q| q as u8)
                        .collect::<Vec<_>>(),
                );
            }
            kernel.run(mr, panel, &tile, &sums, &mut scratch, &mut out);
            for t in 0..mr.min(acts.m - first) {
                for r in 0..nr.min(w.n() - p * nr) {
                    y[(first + t) * w.n() + p * nr + r] =
                        out[kernel.out_order().index(t, r, mr, nr)];
                }
            }
        }
    }
    y
}

#[test]
fn interpreted_i2s_equals_the_oracle() {
    for k in [1, 15, 16, 17, 240, 241, 300] {
        for n in [1, 7, 8, 9] {
            for m in [1, 2, 3, 5] {
                let trits: Vec<i8> = (0..n * k)
                    .map(|i| ((i * 7 + i / 3) % 3) as i8 - 1)
                    .collect();
                let q: Vec<i8> = (0..m * k).map(|i| (i * 37 + 11) as i8).collect();
                let w = TernaryMatrix::from_trits(n, k, &trits, 1.0).unwrap();
                for f in [0, 1] {
                    let spec = KernelSpec::new("i2s", "i2s", 2, 8, 16, Isa::Interp)
                        .with("f", f)
                        .with("u", 2);
                    let set = KernelSet::build(vec![plan(&spec, k).unwrap()], Features::detect())
                        .unwrap();
                    let got = product(&set.kernels()[0], &w, &Activations::from_codes(m, k, &q));
                    assert_eq!(got, oracle::matmul(&w, &q), "{spec} m{m} n{n} k{k}");
                }
            }
        }
    }
}

/// The executable memory behind a kernel's first program.
fn memory(kernel: &Kernel) -> Option<std::sync::Weak<Executable>> {
    match &kernel.main[0].1.entry {
        Entry::Emitted(code) => Some(Arc::downgrade(&code.memory)),
        Entry::Interpreted(_) | Entry::Ahead(_) => None,
    }
}

#[test]
fn nothing_is_mapped_for_what_is_interpreted() {
    let spec = KernelSpec::new("i2s", "i2s", 1, 8, 16, Isa::Interp);
    let mut set = KernelSet::new(Features::detect());
    let kernels = set.add(vec![plan(&spec, 64).unwrap()]).unwrap();
    assert!(memory(&kernels[0]).is_none());
    assert_eq!(kernels[0].code_bytes(), 0);
}

#[test]
#[cfg(feature = "emit")]
fn a_set_grows_and_memory_is_freed_when_the_last_kernel_goes() {
    let cpu = Features::detect();
    let portable = Isa::ALL
        .iter()
        .find(|i| **i != Isa::Interp && i.width().bytes() == 16 && i.runs_on(cpu));
    let Some(&isa) = portable else {
        eprintln!("SKIPPED: nothing is emitted for this CPU");
        return;
    };
    let mut set = KernelSet::new(cpu);
    let mut add = |rows| {
        let spec = KernelSpec::new("i2s", "i2s", 1, rows, 16, isa);
        set.add(vec![plan(&spec, 64).unwrap()]).unwrap().remove(0)
    };
    let (first, second) = (add(4), add(8));
    assert!(first.code_bytes() > 0);
    let freed = [&first, &second].map(|k| memory(k).expect("emitted"));
    assert_eq!(set.kernels().len(), 2);
    drop(set);
    drop(first);
    assert!(freed[0].upgrade().is_none() && freed[1].upgrade().is_some());
    let w = TernaryMatrix::from_trits(8, 64, &[1; 8 * 64], 1.0).unwrap();
    let acts = Activations::from_codes(1, 64, &[3; 64]);
    assert_eq!(product(&second, &w, &acts), [3 * 64; 8]);
    drop(second);
    assert!(freed[1].upgrade().is_none());
}

#[test]
fn a_spec_that_nothing_emits_says_so() {
    let cpu = Features::detect();
    let foreign = Isa::ALL.iter().find(|i| !i.runs_on(cpu));
    let isa = *foreign.expect("another processor's");
    let spec = KernelSpec::new("i2s", "i2s", 1, isa.width().bytes() / 4, 16, isa);
    let refused = KernelSet::build(vec![plan(&spec, 64).unwrap()], cpu).map(drop);
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("this CPU has no"), "{text}");
}

/// The kernels of a library are those that were emitted, and nothing else is in it.
#[test]
#[cfg(all(feature = "emit", unix))]
#[expect(unsafe_code, reason = "a library made of code of this process")]
fn a_library_gives_back_what_was_compiled_and_nothing_else() {
    use crate::abi::{PREFETCH_LINES, prefetch_stub};
    use crate::isa::Arch;
    use crate::key::Key;
    use library::{ALIGN, Function, LibraryError};

    let cpu = Features::detect();
    let isas = || {
        Isa::ALL
            .iter()
            .filter(|i| **i != Isa::Interp && i.runs_on(cpu))
    };
    let Some(&isa) = isas().next_back() else {
        eprintln!("SKIPPED: nothing is emitted for this CPU");
        return;
    };
    let rows = isa.width().bytes() / 4;
    let spec = |mr| KernelSpec::new("i2s", "i2s", mr, rows, 16, isa).with("f", 1);
    let ahead = KernelSet::ahead(cpu).add(vec![plan(&spec(2), 64).unwrap()]);
    let ahead = ahead.unwrap().remove(0);
    assert!(!ahead.is_callable() && ahead.code_bytes() > 0);
    let mut bytes: Vec<u8> = Vec::new();
    let mut functions = Vec::new();
    let mut put = |key, features, code: &[u8]| {
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        functions.push(Function {
            key,
            features,
            at: bytes.len()..bytes.len() + code.len(),
        });
        bytes.extend(code);
    };
    for lines in PREFETCH_LINES {
        let key = Key::of_stub(Arch::HOST, lines);
        put(key, Features::NONE, &prefetch_stub(Arch::HOST, lines));
    }
    for piece in ahead.pieces() {
        put(
            Key::of(piece.isa, piece.program),
            isa.needs(cpu),
            piece.code,
        );
    }
    let library = |functions: Vec<Function>| {
        let mut map = memmap2::MmapMut::map_anon(bytes.len()).expect("memory");
        map.copy_from_slice(&bytes);
        let map = map.make_exec().expect("executable memory");
        // SAFETY: nobody writes to the mapping, and the code was emitted above for a part of this CPU.
        unsafe { Library::new(map, functions) }
    };
    let whole = Arc::new(library(functions.clone()).expect("a library"));
    let of = |spec: &KernelSpec, cpu| {
        let mut set = KernelSet::of_library(cpu, Arc::clone(&whole));
        set.add(vec![plan(spec, 64).unwrap()])
            .map(|mut added| added.remove(0))
    };
    let kernel = of(&spec(2), cpu).expect("it was compiled");
    let emitted = KernelSet::build(vec![plan(&spec(2), 64).unwrap()], cpu).unwrap();
    assert_eq!(kernel.code_from(), CodeFrom::Library);
    assert_eq!(kernel.code_digest(), emitted.kernels()[0].code_digest());
    let w = TernaryMatrix::from_trits(rows, 64, &vec![1; rows * 64], 1.0).unwrap();
    let acts = Activations::from_codes(3, 64, &[5; 3 * 64]);
    assert_eq!(product(&kernel, &w, &acts), vec![5 * 64; 3 * rows]);
    // Another tile is another program, and a lesser CPU has no such code.
    for (spec, cpu) in [(spec(3), cpu), (spec(2).with("f", 0), cpu)] {
        assert!(
            matches!(of(&spec, cpu), Err(KernelError::NotCompiled(_))),
            "{spec}"
        );
    }
    let needs: Vec<_> = isa.needs(cpu).iter().collect();
    for feature in needs {
        assert!(of(&spec(2), cpu.without(feature)).is_err(), "{feature:?}");
    }
    let mut moved = functions.clone();
    moved[5].at.start += 1;
    let mut outside = functions.clone();
    outside[5].at.end = bytes.len() + 1;
    let mut overlapping = functions.clone();
    overlapping[0].at.end = functions[1].at.start + 1;
    let mut twice = functions.clone();
    twice[5].key = twice[4].key;
    for (bad, is) in [
        (moved, "Place"),
        (outside, "Place"),
        (overlapping, "Twice"),
        (twice, "Twice"),
        (functions[1..].to_vec(), "Stub"),
    ] {
        let why = library(bad).expect_err("refused");
        assert!(format!("{why:?}").starts_with(is), "{why:?}");
        assert!(!matches!(why, LibraryError::Place { .. }) || !why.to_string().is_empty());
    }
}
