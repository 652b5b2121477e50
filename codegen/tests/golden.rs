//! Kernels as text, kept as files: a change to a family or to an emitter is seen in review as a diff.
//!
//! A wanted change is accepted with
//! `INSTA_UPDATE=always cargo test --release -p bitnet-codegen --test golden`; the files are in `tests/golden/`.
//! Programs are small and code is for a CPU that has every feature, so the text is the same on every host.

use bitnet_codegen::backend::{self, BACKENDS, Code};
use bitnet_codegen::disassembly::Disassembly;
use bitnet_codegen::isa::Feature;
use bitnet_codegen::program::Checked;
use bitnet_codegen::variant::VARIANTS;
use bitnet_codegen::{Features, Isa, KernelSpec, plan};

/// One spec and K of each family, and one that scales groups of columns.
const PROGRAMS: &[(&str, usize)] = &[
    ("i2s-i2s-1x4c16-ssse3-f1-u1", 32),
    ("i2s-i2s-1x4c16-ssse3-f1-g32-p1-s16-u1", 64),
    ("tl1-tl1-1x64c4-ssse3-u1", 8),
    ("tl2-tl2-1x64c24-ssse3-u1", 48),
    ("dense-base3-1x16c20-avx512vbmi-f0-u1", 40),
    ("gemm-i2s-2x4c16-ssse3-u1", 32),
    ("vlut-lut3-8x4c6-ssse3-u2", 12),
    ("hybrid-mixed-32x640c32-avx512vnni", 64),
];

/// One spec and K of each emitter.
const CODE: &[(&str, usize)] = &[
    ("i2s-i2s-1x4c16-ssse3-f1-u1", 32),
    ("i2s-i2s-2x16c16-avx512vnni-f1-u1", 32),
];

/// Compares with the file of that name.
fn golden(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_description(
        "accept a wanted change: INSTA_UPDATE=always cargo test --release -p bitnet-codegen --test golden",
    );
    settings.bind(|| insta::assert_snapshot!(name, text));
}

fn programs(spec: &KernelSpec, k: usize) -> Vec<Checked> {
    let plan = plan(spec, k).unwrap_or_else(|e| panic!("{e}"));
    let main = plan.main.into_iter().map(|(_, p)| p);
    plan.unpack
        .into_iter()
        .chain(main)
        .map(|p| Checked::new(p).unwrap_or_else(|e| panic!("{e}")))
        .collect()
}

#[test]
fn the_program_of_each_family() {
    for (name, k) in PROGRAMS {
        let spec: KernelSpec = name.parse().expect("a spec");
        let text: Vec<String> = programs(&spec, *k)
            .iter()
            .map(|p| format!("{}\n{}", p.annotated(), p.facts()))
            .collect();
        golden(&format!("program-{name}-k{k}"), &text.join("\n"));
    }
    for family in VARIANTS {
        let prefix = format!("{}-", family.name());
        assert!(
            PROGRAMS.iter().any(|(spec, _)| spec.starts_with(&prefix)),
            "{} has no golden program",
            family.name()
        );
    }
}

#[test]
fn the_code_of_each_emitter() {
    let cpu: Features = Feature::ALL.iter().copied().collect();
    let mut emitters = Vec::new();
    for (name, k) in CODE {
        let spec: KernelSpec = name.parse().expect("a spec");
        let emitter = backend::for_isa(spec.isa).expect("an emitter");
        emitters.push(emitter.name());
        let mut text = String::new();
        for program in programs(&spec, *k) {
            let Ok(Code::Machine(code)) = emitter.emit(&program, spec.isa, cpu) else {
                panic!("{}: no code", program.name);
            };
            text += &format!("{}\n{}\n", program.name, Disassembly::of(&code));
        }
        golden(&format!("code-{name}-k{k}"), &text);
    }
    for backend in BACKENDS.iter().filter(|b| !b.isas().contains(&Isa::Interp)) {
        let name = backend.name();
        assert!(emitters.contains(&name), "{name} has no golden code");
    }
}
