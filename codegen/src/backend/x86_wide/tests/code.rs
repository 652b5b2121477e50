//! What the code of shipped specs is: as many dot products as the program has, no move in hot loops,
//! nothing outside the instruction set, `vzeroupper` before every return.

use super::{decode, emit, emit_for, isas, listing};
use crate::isa::{Feature, Features, Isa};
use crate::program::{Op, Program, Stmt};
use crate::spec::KernelSpec;
use crate::variant::tests::specs;
use crate::variant::{VARIANTS, plan};
use iced_x86::{CpuidFeature, EncodingKind, FlowControl, Instruction, Mnemonic, OpKind, Register};

/// The programs of one spec.
fn programs(spec: &KernelSpec, k: usize) -> Vec<Program> {
    let plan = plan(spec, k).unwrap_or_else(|e| panic!("{e}"));
    plan.unpack
        .into_iter()
        .chain(plan.main.into_iter().map(|(_, p)| p))
        .collect()
}

/// Calls `each` with every program of every spec that fits the registers, and its code.
fn every_kernel(cpu: Features, each: impl Fn(Isa, &Program, &[u8])) {
    for &isa in isas() {
        let mut n = 0;
        for family in VARIANTS {
            for m in [1, 40] {
                for spec in specs(*family, isa, m, 300) {
                    for p in programs(&spec, 300) {
                        if let Ok(code) = emit_for(&p, isa, cpu) {
                            each(isa, &p, &code);
                            n += 1;
                        }
                    }
                }
            }
        }
        assert!(n > 20, "only {n} kernels on {isa}");
    }
}

fn all() -> Features {
    Feature::ALL.iter().copied().collect()
}

/// The features that `isa` promises on `cpu`, as the decoder names them.
fn promised(isa: Isa, cpu: Features) -> Vec<CpuidFeature> {
    use CpuidFeature::*;
    // Baseline x86-64, and prefetching, which every x86-64 has.
    let mut list = vec![
        INTEL8086,
        INTEL186,
        INTEL386,
        INTEL486,
        X64,
        SSE,
        PREFETCHW,
        MULTIBYTENOP,
        AVX,
        AVX2,
    ];
    if isa == Isa::AvxVnni {
        if cpu.has(Feature::AvxVnni) {
            list.push(AVX_VNNI);
        } else {
            list.extend([AVX512F, AVX512VL, AVX512_VNNI]);
        }
    }
    if matches!(isa, Isa::Avx512Bw | Isa::Avx512Vnni | Isa::Avx512Vbmi) {
        list.extend([AVX512F, AVX512BW]);
    }
    if matches!(isa, Isa::Avx512Vnni | Isa::Avx512Vbmi) {
        list.push(AVX512_VNNI);
    }
    if isa == Isa::Avx512Vbmi {
        list.push(AVX512_VBMI);
    }
    list
}

/// Whether the instruction names a vector register past 15.
fn high_register(i: &Instruction) -> bool {
    (0..i.op_count()).any(|o| {
        i.op_kind(o) == OpKind::Register && {
            let r = i.op_register(o);
            r.is_vector_register() && r.number() > 15
        }
    })
}

fn check_code(isa: Isa, cpu: Features, p: &Program, code: &[u8]) {
    let promised = promised(isa, cpu);
    let all = decode(code);
    let context = || format!("{}\n{}", p.name, listing(code));
    for (n, i) in all.iter().enumerate() {
        for &f in i.cpuid_features() {
            assert!(
                promised.contains(&f),
                "{i} needs {f:?}, which {isa} does not promise\n{}",
                context()
            );
        }
        if i.encoding() == EncodingKind::VEX {
            assert!(
                !high_register(i),
                "{i}: VEX reaches registers 0 to 15\n{}",
                context()
            );
        }
        if i.flow_control() == FlowControl::Return {
            assert_eq!(all[n - 1].mnemonic(), Mnemonic::Vzeroupper, "{}", context());
        }
        if i.flow_control() == FlowControl::ConditionalBranch {
            assert!(
                all.iter().any(|j| j.ip() == i.near_branch_target()),
                "{i} jumps into an instruction\n{}",
                context()
            );
        }
    }
    // The stack and the saved registers come back.
    let count = |m| all.iter().filter(|i| i.mnemonic() == m).count();
    assert_eq!(count(Mnemonic::Push), count(Mnemonic::Pop), "{}", context());
    let saved: Vec<Register> = all
        .iter()
        .filter(|i| i.mnemonic() == Mnemonic::Push)
        .map(|i| i.op0_register())
        .collect();
    for r in [
        Register::RBX,
        Register::RBP,
        Register::R12,
        Register::R13,
        Register::R14,
        Register::R15,
    ] {
        let written = all.iter().any(|i| {
            i.mnemonic() != Mnemonic::Pop
                && i.mnemonic() != Mnemonic::Push
                && i.op_count() > 0
                && i.op0_kind() == OpKind::Register
                && i.op0_register().full_register() == r
        });
        assert!(
            !written || saved.contains(&r),
            "{r:?} is changed and not saved\n{}",
            context()
        );
    }
}

#[test]
fn no_instruction_is_outside_the_instruction_set() {
    let lesser = all().without(Feature::AvxVnni);
    for cpu in [all(), lesser] {
        every_kernel(cpu, |isa, p, code| check_code(isa, cpu, p, code));
    }
}

fn dots(body: &[Stmt]) -> usize {
    body.iter()
        .map(|s| match s {
            Stmt::Let(_, Op::DotU8I8 { .. }) => 1,
            Stmt::Loop(l) => dots(&l.body),
            _ => 0,
        })
        .sum()
}

#[test]
fn every_dot_product_is_one_instruction() {
    every_kernel(all(), |_, p, code| {
        let found = decode(code)
            .iter()
            .filter(|i| i.mnemonic() == Mnemonic::Vpdpbusd)
            .count();
        assert_eq!(found, dots(&p.body), "{}\n{}", p.name, listing(code));
    });
}

/// The instructions of the innermost loop with the most of them.
fn hot_loop(code: &[u8]) -> Vec<Instruction> {
    let all = decode(code);
    let mut loops: Vec<Vec<Instruction>> = Vec::new();
    for i in &all {
        if i.flow_control() == FlowControl::ConditionalBranch {
            let (from, to) = (i.near_branch_target(), i.ip());
            let body: Vec<Instruction> = all
                .iter()
                .filter(|j| (from..=to).contains(&j.ip()))
                .copied()
                .collect();
            let inner = body
                .iter()
                .filter(|j| j.flow_control() == FlowControl::ConditionalBranch)
                .count();
            if inner == 1 {
                loops.push(body);
            }
        }
    }
    loops
        .into_iter()
        .max_by_key(Vec::len)
        .expect("a kernel has a loop")
}

fn count(code: &[Instruction], m: Mnemonic) -> usize {
    code.iter().filter(|i| i.mnemonic() == m).count()
}

/// The hot loop of a decode kernel: one load, four masks and four dot products with broadcast operands
/// for each vector of weights, a prefetch a line, and nothing else but two pointers and the counter.
#[test]
fn the_decode_loop_has_nothing_to_spare() {
    let spec: KernelSpec = "i2s-i2s-1x16c16-avx512vnni-f0-pf64-u2".parse().unwrap();
    let code = emit(&programs(&spec, 2560)[0], spec.isa).unwrap();
    let hot = hot_loop(&code);
    assert_eq!(count(&hot, Mnemonic::Vpdpbusd), 8, "{}", listing(&code));
    assert_eq!(count(&hot, Mnemonic::Vpandd), 8, "{}", listing(&code));
    assert_eq!(count(&hot, Mnemonic::Vmovdqu64), 2, "{}", listing(&code));
    assert_eq!(count(&hot, Mnemonic::Prefetcht0), 2, "{}", listing(&code));
    assert_eq!(hot.len(), 8 + 8 + 2 + 2 + 2 + 2, "{}", listing(&code));
    let broadcast = hot.iter().filter(|i| i.is_broadcast()).count();
    assert_eq!(
        broadcast,
        8,
        "each activation is an embedded broadcast\n{}",
        listing(&code)
    );
    assert_eq!(
        hot[0].ip() % 64,
        0,
        "the loop starts on a cache line\n{}",
        listing(&code)
    );
}

/// No hot loop of any family copies a vector register or touches the stack.
#[test]
fn hot_loops_neither_move_nor_spill() {
    every_kernel(all(), |_, p, code| {
        if !p.name.starts_with("i2s") && !p.name.starts_with("gemm") {
            return;
        }
        if decode(code)
            .iter()
            .all(|i| i.flow_control() != FlowControl::ConditionalBranch)
        {
            return;
        }
        for i in hot_loop(code) {
            let moves = matches!(i.mnemonic(), Mnemonic::Vmovdqa | Mnemonic::Vmovdqa64);
            let stack = i.memory_base() == Register::RSP;
            assert!(!moves && !stack, "{i}\n{}", listing(code));
        }
    });
}

#[test]
fn avx_vnni_is_encoded_as_the_cpu_wants_it() {
    let spec: KernelSpec = "i2s-i2s-1x16c16-avxvnni-f0-pf0-u1".parse().unwrap();
    let p = &programs(&spec, 640)[0];
    let lesser = all().without(Feature::AvxVnni);
    for (cpu, encoding) in [(all(), EncodingKind::VEX), (lesser, EncodingKind::EVEX)] {
        let code = emit_for(p, spec.isa, cpu).unwrap();
        let dots: Vec<_> = decode(&code)
            .into_iter()
            .filter(|i| i.mnemonic() == Mnemonic::Vpdpbusd)
            .collect();
        assert!(!dots.is_empty());
        assert!(
            dots.iter().all(|i| i.encoding() == encoding),
            "{}",
            listing(&code)
        );
    }
}

/// The same program gives the same bytes.
#[test]
fn emission_is_deterministic() {
    every_kernel(all(), |isa, p, code| {
        assert_eq!(emit(p, isa).unwrap(), code, "{}", p.name);
    });
}
