//! What is emitted: a pattern that Cranelift misses is silent, so instructions are counted.

use crate::backend::cranelift::peephole::instructions;
use crate::backend::cranelift::{Compiled, Target, compile};
use crate::isa::{Feature, Features, Isa};
use crate::program::{Checked, Op, Program, Stmt};
use crate::spec::KernelSpec;
use crate::variant::{VARIANTS, plan};
use iced_x86::{EncodingKind, Formatter, Instruction, IntelFormatter, Mnemonic, Register};

/// A CPU with everything that code can be emitted for.
fn every_feature() -> Features {
    Feature::ALL.iter().copied().collect()
}

fn emitted(program: &Program, isa: Isa, cpu: Features) -> Compiled {
    let checked = Checked::new(program.clone()).unwrap_or_else(|e| panic!("{e}"));
    let target = Target::new(isa, cpu).expect("a portable instruction set");
    compile(&checked, &target, true).unwrap_or_else(|e| panic!("{isa}: {e}"))
}

fn text(list: &[Instruction]) -> String {
    let mut formatter = IntelFormatter::new();
    list.iter()
        .map(|i| {
            let mut line = String::new();
            formatter.format(i, &mut line);
            format!("{:4x} {line}\n", i.ip())
        })
        .collect()
}

/// How often `wanted` is emitted, once for each time it stands in the program's text.
fn count_ops(body: &[Stmt], wanted: &dyn Fn(&Op) -> bool) -> usize {
    body.iter()
        .map(|stmt| match stmt {
            Stmt::Let(_, op) => usize::from(wanted(op)),
            Stmt::Loop(l) => count_ops(&l.body, wanted),
            _ => 0,
        })
        .sum()
}

fn is_dot(op: &Op) -> bool {
    matches!(op, Op::DotU8I8 { .. })
}

fn programs(spec: &str, k: usize) -> Vec<Program> {
    let spec: KernelSpec = spec.parse().expect("a spec");
    let plan = plan(&spec, k).unwrap_or_else(|e| panic!("{e}"));
    plan.main.into_iter().map(|(_, p)| p).collect()
}

/// Spilled registers: vectors on the stack anywhere, or anything of the stack in an innermost loop. Saving the
/// caller's integer registers on entry, or a pointer of an outer loop, is no spill that counts.
fn spills(list: &[Instruction]) -> usize {
    let stack = |i: &&Instruction| matches!(i.memory_base(), Register::RSP | Register::RBP);
    let vector = |i: &Instruction| (0..i.op_count()).any(|o| i.op_register(o).is_vector_register());
    let loops: Vec<(u64, u64)> = list
        .iter()
        .filter(|i| i.near_branch_target() != 0 && i.near_branch_target() < i.ip())
        .map(|i| (i.near_branch_target(), i.ip()))
        .collect();
    assert!(!loops.is_empty(), "{}", text(list));
    let inside = |ip: u64, l: &(u64, u64)| (l.0..=l.1).contains(&ip);
    let innermost = |l: &&(u64, u64)| !loops.iter().any(|m| m != *l && inside(m.0, l));
    let innermost: Vec<_> = loops.iter().filter(innermost).collect();
    let in_loop = |i: &Instruction| innermost.iter().any(|l| inside(i.ip(), l));
    list.iter()
        .filter(stack)
        .filter(|i| vector(i) || in_loop(i))
        .count()
}

#[test]
fn each_dot_product_is_one_instruction() {
    let evex = every_feature().without(Feature::AvxVnni);
    for cpu in [every_feature(), evex] {
        for spec in [
            "i2s-i2s-1x8c16-vnni128-f0-u2",
            "i2s-i2s-2x8c16-vnni128-f1-u2",
        ] {
            for program in programs(spec, 640) {
                let list = instructions(&emitted(&program, Isa::Vnni128, cpu).bytes);
                let dots = list
                    .iter()
                    .filter(|i| i.mnemonic() == Mnemonic::Vpdpbusd)
                    .count();
                assert_eq!(
                    dots,
                    count_ops(&program.body, &is_dot),
                    "{}\n{}",
                    program.name,
                    text(&list)
                );
            }
        }
    }
}

#[test]
fn shipped_kernels_keep_everything_in_registers() {
    for spec in [
        "i2s-i2s-1x8c16-vnni128-f0-u4-pf64",
        "i2s-i2s-1x16c16-vnni128-f2-u2-pf64",
        "i2s-i2s-1x16c16-vnni128-f1-u4",
        "i2s-i2s-2x8c16-vnni128-f1-u2",
        "i2s-i2s-4x8c16-vnni128-f1-u2",
        "i2s-i2s-12x4c16-vnni128-f1-u1",
        "i2s-i2s-4x4c16-avx128-f1",
        "i2s-i2s-1x8c16-avx128-f1-pf64",
        "i2s-i2s-1x8c16-ssse3-f1-pf64",
    ] {
        let isa = spec.parse::<KernelSpec>().expect("a spec").isa;
        for program in programs(spec, 2560) {
            let list = instructions(&emitted(&program, isa, every_feature()).bytes);
            assert_eq!(spills(&list), 0, "{}\n{}", program.name, text(&list));
        }
    }
}

/// The default spec of every layout of every family.
#[test]
fn every_family_keeps_everything_in_registers() {
    for isa in [Isa::Ssse3, Isa::Avx128, Isa::Vnni128] {
        for family in VARIANTS {
            for (m, layout) in [1, 32]
                .into_iter()
                .flat_map(|m| family.layouts().iter().map(move |l| (m, l)))
            {
                let Ok(axes) = family.axes(isa, m) else {
                    continue;
                };
                let value = |name: &str| {
                    axes.iter()
                        .find(|a| a.name == name)
                        .map_or(0, |a| a.values[0])
                };
                let [mr, nr, kr] = ["mr", "nr", "kr"].map(|n| value(n) as usize);
                let mut spec = KernelSpec::new(family.name(), layout, mr, nr, kr, isa);
                for axis in axes
                    .iter()
                    .filter(|a| !["mr", "nr", "kr"].contains(&a.name))
                {
                    spec = spec.with(axis.name, axis.values[0]);
                }
                let Ok(plan) = plan(&spec, 640) else { continue };
                for (_, program) in plan.main {
                    let list = instructions(&emitted(&program, isa, every_feature()).bytes);
                    assert_eq!(spills(&list), 0, "{}\n{}", program.name, text(&list));
                }
            }
        }
    }
}

#[test]
fn activations_are_loaded_and_broadcast_by_one_instruction() {
    for program in programs("i2s-i2s-1x16c16-vnni128-f2-u2", 640) {
        let list = instructions(&emitted(&program, Isa::Vnni128, every_feature()).bytes);
        let of = |m: Mnemonic| list.iter().filter(|i| i.mnemonic() == m).count();
        let broadcasts = count_ops(&program.body, &|op| matches!(op, Op::LoadBcast32(_)));
        assert_eq!(of(Mnemonic::Vbroadcastss), broadcasts, "{}", text(&list));
        assert_eq!(of(Mnemonic::Vmovss), 0, "{}", text(&list));
    }
}

#[test]
fn ssse3_code_has_no_vex_encoding() {
    for program in programs("i2s-i2s-2x4c16-ssse3-f1-u2-pf8", 640) {
        let list = instructions(&emitted(&program, Isa::Ssse3, every_feature()).bytes);
        assert!(
            list.iter()
                .all(|i| i.code().encoding() == EncodingKind::Legacy),
            "{}",
            text(&list)
        );
    }
}

#[test]
fn neighbouring_lines_share_a_prefetch_call() {
    // 4 steps of 8 rows are 128 bytes: one call of the two-line stub a turn.
    let program = &programs("i2s-i2s-1x8c16-avx128-f1-u4-pf64", 640)[0];
    assert!(program.to_string().contains("prefetch weights"));
    let list = instructions(&emitted(program, Isa::Avx128, every_feature()).bytes);
    let calls = list.iter().filter(|i| i.mnemonic() == Mnemonic::Call);
    assert!((1..=2).contains(&calls.count()), "{}", text(&list));
}

#[test]
fn emitting_twice_gives_the_same_bytes() {
    for isa in [Isa::Vnni128, Isa::Neon, Isa::Rvv] {
        let spec = format!("i2s-i2s-1x8c16-{isa}-f1-u2");
        for program in programs(&spec, 300) {
            let [a, b] = [0, 1].map(|_| emitted(&program, isa, every_feature()).bytes);
            assert_eq!(a, b, "{spec}");
        }
    }
}

/// On aarch64 by Cranelift's own listing, since iced reads x86 only.
#[test]
fn each_dot_product_is_one_instruction_on_aarch64() {
    // Only codes above 127, a quarter of those that form 0 masks, need the mixed instruction.
    for (spec, mixed) in [
        ("i2s-i2s-1x16c16-sdot-f2-u2", 0),
        ("i2s-i2s-4x8c16-sdot-f1-u2", 0),
        ("i2s-i2s-1x16c16-usdot-f0-u2", 4),
        ("i2s-i2s-4x8c16-usdot-f1", 0),
    ] {
        let isa = spec.parse::<KernelSpec>().expect("a spec").isa;
        for program in programs(spec, 640) {
            let listing = emitted(&program, isa, every_feature()).listing;
            let listing = listing.expect("asked for");
            let count = |m: &str| {
                let first = |line: &str| line.split_whitespace().next() == Some(m);
                listing.lines().filter(|l| first(l)).count()
            };
            let dots = count_ops(&program.body, &is_dot);
            let usdot = dots.checked_div(mixed).unwrap_or(0);
            assert_eq!(
                (count("sdot"), count("usdot")),
                (dots - usdot, usdot),
                "{}\n{listing}",
                program.name
            );
            // Vector registers on the stack would show as `[sp`.
            let spilled = |line: &&str| {
                line.contains("[sp") && line.trim().starts_with(['l', 's']) && line.contains(" q")
            };
            assert_eq!(
                listing.lines().filter(spilled).count(),
                0,
                "{}\n{listing}",
                program.name
            );
        }
    }
}

#[test]
fn a_signed_dot_product_refuses_unsigned_codes() {
    let program = &programs("i2s-i2s-1x16c16-usdot-f0", 64)[0];
    let checked = Checked::new(program.clone()).expect("a right program");
    let target = Target::new(Isa::Sdot, every_feature()).expect("a portable instruction set");
    let why = compile(&checked, &target, false)
        .expect_err("codes of 0x80")
        .to_string();
    assert!(why.contains("below 128"), "{why}");
}
