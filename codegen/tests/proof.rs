//! The proof is tested: good programs are broken one by one and must be refused, and random mutants that are
//! accepted must run without leaving their buffers or breaking a contract, on extreme and random data.
//!
//! Longer than 500 lines: a list of programs that the proof must refuse.

use bitnet_codegen::abi::Operands;
use bitnet_codegen::backend::interp::run_strict;
use bitnet_codegen::program::{
    Addr, Builder, Checked, Element, Index, Loop, Op, Operand, Program, Promise, Stmt, Value, Width,
};
use bitnet_codegen::{Isa, plan, space, variant};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The first plan of a family: `unpack` (if any) and the main programs.
fn programs(family: &str, layout: &str, isa: Isa, m: usize, k: usize) -> Vec<Program> {
    let family = variant::by_name(family).expect("a family");
    let plan = space::specs(family, isa, m)
        .expect("the family runs there")
        .iter()
        .filter(|s| s.layout == layout)
        .find_map(|s| plan(s, k).ok())
        .expect("one spec exists");
    let main = plan.main.into_iter().map(|(_, p)| p);
    plan.unpack.into_iter().chain(main).collect()
}

fn main_program(family: &str, layout: &str, isa: Isa, m: usize, k: usize) -> Program {
    programs(family, layout, isa, m, k)
        .pop()
        .expect("a main program")
}

/// Calls `f` on every statement, inner ones after the loop that holds them.
fn visit(body: &mut [Stmt], f: &mut dyn FnMut(&mut Stmt)) {
    for stmt in body {
        f(stmt);
        if let Stmt::Loop(l) = stmt {
            visit(&mut l.body, f);
        }
    }
}

fn addr_of(stmt: &mut Stmt) -> Option<&mut Addr> {
    match stmt {
        Stmt::Let(_, Op::Load(a) | Op::LoadBcast32(a) | Op::LoadBcast128(a) | Op::Drain(a))
        | Stmt::LetIndex8(_, a)
        | Stmt::LetIndex16(_, a)
        | Stmt::LetIndices8 { addr: a, .. }
        | Stmt::Store(a, _)
        | Stmt::Accumulate(_, a, _) => Some(a),
        _ => None,
    }
}

/// `program` is good; after `break_it` it is refused, and the reason contains `why`.
fn refused(program: &Program, break_it: impl FnOnce(&mut Program), why: &str) {
    if let Err(e) = Checked::new(program.clone()) {
        panic!("good at first: {e}");
    }
    let mut broken = program.clone();
    break_it(&mut broken);
    assert!(
        broken != *program,
        "{}: nothing was broken ({why})",
        program.name
    );
    match Checked::new(broken) {
        Ok(_) => panic!("{}: accepted although {why}", program.name),
        Err(e) => assert!(e.to_string().contains(why), "wanted {why:?}: {e}"),
    }
}

/// One program of each family.
fn zoo(k: usize) -> Vec<Program> {
    let mut all = Vec::new();
    for &family in variant::VARIANTS {
        for layout in family.layouts() {
            for isa in [Isa::Ssse3, Isa::Avx512Vbmi, Isa::Interp] {
                for m in [1, 16] {
                    let exists = space::specs(family, isa, m)
                        .unwrap_or_default()
                        .iter()
                        .any(|s| s.layout == *layout && plan(s, k).is_ok());
                    if exists {
                        all.extend(programs(family.name(), layout, isa, m, k));
                    }
                }
            }
        }
    }
    all
}

#[test]
fn one_byte_less_is_refused() {
    for program in zoo(640) {
        for operand in [Operand::Weights, Operand::Out, Operand::Scratch0] {
            if program.bytes(operand) == 0 {
                continue;
            }
            let shorten = |p: &mut Program| {
                if let Some(e) = &mut p.extents[operand as usize] {
                    e.bytes -= 1;
                }
            };
            refused(&program, shorten, "which has");
        }
    }
}

#[test]
fn shifted_weights_are_refused() {
    for program in zoo(640) {
        let shift = |p: &mut Program| {
            visit(&mut p.body, &mut |s| {
                if let Some(a) = addr_of(s).filter(|a| a.operand == Operand::Weights) {
                    a.offset += 1;
                }
            });
        };
        refused(&program, shift, "which has");
    }
}

/// A loop that turns twice as often leaves an operand or overflows. (One turn more may do neither: a block
/// before the last may read into the next one, and 15 of 16 steps that fit an i16 are used.)
#[test]
fn twice_the_turns_are_refused() {
    for program in zoo(640) {
        // Operands that hold two kinds of data have room behind the first kind.
        if program.name.starts_with("hybrid") {
            continue;
        }
        let mut works = Vec::new();
        visit(&mut program.clone().body, &mut |s| {
            if let Stmt::Loop(l) = s {
                works.push(l.body.iter().any(|s| !matches!(s, Stmt::Prefetch(_))));
            }
        });
        for nth in (0..works.len()).filter(|&i| works[i]) {
            let mut broken = program.clone();
            let mut at = 0;
            visit(&mut broken.body, &mut |s| {
                if let Stmt::Loop(l) = s {
                    l.trip *= if at == nth { 2 } else { 1 };
                    at += 1;
                }
            });
            assert!(
                Checked::new(broken).is_err(),
                "{}: loop {nth} may turn twice as often",
                program.name
            );
        }
    }
}

#[test]
fn stores_to_read_only_operands_are_refused() {
    for program in zoo(640) {
        let redirect = |p: &mut Program| {
            let bytes = p.bytes(Operand::Out);
            if let Some(e) = &mut p.extents[Operand::Weights as usize] {
                e.bytes = e.bytes.max(bytes);
            }
            visit(&mut p.body, &mut |s| {
                if let Stmt::Store(a, _) = s {
                    a.operand = Operand::Weights;
                }
            });
        };
        refused(&program, redirect, "read only");
    }
}

#[test]
fn larger_indices_are_refused() {
    let vlut = main_program("vlut", "lut4", Isa::Avx512Bw, 128, 640);
    let promise = |p: &mut Program| {
        let e = p.extents[Operand::Weights as usize]
            .as_mut()
            .expect("weights");
        assert_eq!(e.promise, Promise::U8(0, 80));
        e.promise = Promise::U8(0, 81);
    };
    refused(&vlut, promise, "which has");
    // Weights that no packing made read behind the tables: the kernel's scratch has room there.
    let proven = Checked::new(vlut.clone()).expect("a good program");
    let tables = vlut.bytes(Operand::Scratch0);
    assert!(proven.reach(Operand::Scratch0) >= tables + (255 - 80) * 64);
    assert_eq!(
        proven.reach(Operand::Scratch1),
        vlut.bytes(Operand::Scratch1)
    );
    let tl1 = main_program("tl1", "tl1", Isa::Avx2, 1, 640);
    let mask = |p: &mut Program| {
        visit(&mut p.body, &mut |s| {
            if let Stmt::Let(_, Op::Splat8(m @ 15)) = s {
                *m = 31;
            }
        });
    };
    refused(&tl1, mask, "outside 0..=15");
}

#[test]
fn planes_in_the_wrong_order_are_refused() {
    for family in ["tl1", "tl2"] {
        let swap = |p: &mut Program| {
            visit(&mut p.body, &mut |s| {
                if let Stmt::Let(_, Op::InterleaveLo8(a, b)) = s {
                    std::mem::swap(a, b);
                }
            });
        };
        refused(
            &main_program(family, family, Isa::Avx2, 1, 640),
            swap,
            "outside",
        );
    }
}

#[test]
fn a_wider_mask_is_refused() {
    let madd = main_program("i2s", "i2s", Isa::Ssse3, 1, 640);
    let widen = |p: &mut Program| {
        visit(&mut p.body, &mut |s| {
            if let Stmt::Let(_, Op::Splat8(m @ 3)) = s {
                *m = 15;
            }
        });
    };
    refused(&madd, widen, "outside -32768..=32767");
}

/// `steps` pair sums of `u·s` in i16, then widened.
fn pair_sums(steps: usize, u: Promise, s: Promise) -> Program {
    let mut b = Builder::new("pairs", Width::W16);
    b.operand(Operand::Weights, 16 * steps, u);
    b.operand(Operand::Acts, 16 * steps, s);
    b.operand(Operand::Out, 16, Promise::Bits);
    let (zero, ones) = (b.zero(), b.op(Op::Splat16(1)));
    let sums = b.repeat(steps, &[zero], |b, c, sums| {
        let u = b.op(Op::Load(Addr::new(Operand::Weights, 0).step(c, 16)));
        let s = b.op(Op::Load(Addr::new(Operand::Acts, 0).step(c, 16)));
        let p = b.op(Op::MaddU8I8 { u, s });
        vec![b.op(Op::Add16(sums[0], p))]
    });
    let wide = b.op(Op::MaddI16(sums[0], ones));
    b.store(Addr::new(Operand::Out, 0), wide);
    b.finish()
}

/// The bounds are exact: 64 pairs of 2·2·128 reach −32768, one more does not fit.
#[test]
fn flush_intervals_are_exact() {
    let accepted = |steps, u, s| Checked::new(pair_sums(steps, Promise::U8(0, u), s)).is_ok();
    let (all, symmetric) = (Promise::I8(-128, 127), Promise::I8(-127, 127));
    assert!(accepted(64, 2, all));
    assert!(!accepted(65, 2, all));
    assert!(accepted(43, 3, symmetric), "43·2·3·127 = 32766");
    assert!(!accepted(43, 3, all), "−128 overflows");
    assert!(!accepted(1, 255, all), "one pair saturates");
    assert!(accepted(1, 128, symmetric));
}

/// A small program to break: a table, a loop, scratch that is drained.
fn small() -> Program {
    let mut b = Builder::new("small", Width::W16);
    b.operand(Operand::Weights, 64, Promise::U8(0, 3));
    b.operand(Operand::Acts, 4096, Promise::I16(-100, 100));
    b.operand(Operand::Scratch0, 32, Promise::I16(-400, 400));
    b.operand(Operand::Out, 32, Promise::Bits);
    let at = Addr::new;
    let zero = b.zero();
    for half in 0..2 {
        b.store(at(Operand::Out, 16 * half), zero);
    }
    b.repeat(2, &[], |b, outer, _| {
        b.repeat(4, &[], |b, inner, _| {
            let i = b.index8(at(Operand::Weights, 0).step(inner, 2).step(outer, 8));
            let x = b.op(Op::Load(at(Operand::Acts, 0).entry(i, 16)));
            b.accumulate(Element::I16, at(Operand::Scratch0, 0), x);
            b.accumulate(Element::I16, at(Operand::Scratch0, 16), x);
            vec![]
        });
        b.repeat(2, &[], |b, half, _| {
            let v = b.op(Op::Drain(at(Operand::Scratch0, 0).step(half, 16)));
            let v = b.op(Op::Sar32(v, 16));
            b.accumulate(Element::I32, at(Operand::Out, 0).step(half, 16), v);
            vec![]
        });
        vec![]
    });
    b.finish()
}

/// The loop at `path` (positions in each body).
fn at_path<'p>(p: &'p mut Program, path: &[usize]) -> &'p mut Loop {
    let mut body = &mut p.body;
    let (last, outer) = path.split_last().expect("a path");
    for &i in outer {
        let Stmt::Loop(l) = &mut body[i] else {
            panic!("no loop at {i}")
        };
        body = &mut l.body;
    }
    match &mut body[*last] {
        Stmt::Loop(l) => l,
        other => panic!("no loop: {other:?}"),
    }
}

#[test]
fn accumulators_in_memory_are_followed() {
    let good = small();
    refused(
        &good,
        |p| at_path(p, &[3, 0]).trip = 5,
        "outside -400..=400",
    );
    refused(
        &good,
        |p| drop(at_path(p, &[3]).body.remove(1)),
        "outside -400..=400",
    );
    refused(
        &good,
        |p| at_path(p, &[3, 1]).trip = 1,
        "outside -400..=400",
    );
    refused(&good, |p| drop(p.body.remove(1)), "nothing has written");
    refused(
        &good,
        |p| {
            p.extents[Operand::Scratch0 as usize]
                .as_mut()
                .expect("scratch")
                .promise = Promise::I32(0, 9)
        },
        "no promise of accumulators",
    );
    // Without the outer turns nothing overflows, but the sums stay.
    refused(
        &good,
        |p| {
            at_path(p, &[3]).trip = 1;
            at_path(p, &[3]).body.remove(1);
        },
        "not drained to zero",
    );
}

#[test]
fn unwritten_memory_is_refused() {
    let tables = main_program("vlut", "lut4", Isa::Avx2, 16, 640);
    let forget = |p: &mut Program| {
        let mut dropped = false;
        visit(&mut p.body, &mut |s| {
            let is_table = matches!(s, Stmt::Store(a, _) if a.operand == Operand::Scratch0);
            if is_table && !std::mem::replace(&mut dropped, true) {
                *s = Stmt::Prefetch(Addr::new(Operand::Weights, 0));
            }
        });
    };
    refused(&tables, forget, "read before it is written");
    let dot = main_program("i2s", "i2s", Isa::Avx2, 1, 640);
    refused(
        &dot,
        |p| {
            let last = p.body.pop();
            assert!(matches!(last, Some(Stmt::Store(..))));
        },
        "never written",
    );
}

/// Breaks the shape of the small program in every way.
#[test]
fn malformed_programs_are_refused() {
    let good = small();
    refused(&good, |p| at_path(p, &[3]).trip = 0, "never turns");
    refused(&good, |p| p.body.swap(0, 1), "before its definition");
    refused(
        &good,
        |p| p.body.insert(1, p.body[0].clone()),
        "defined twice",
    );
    refused(&good, |p| p.n_values = 1, "no number");
    refused(
        &good,
        |p| {
            let inner = at_path(p, &[3]).body.remove(0);
            p.body.push(inner);
        },
        "not the counter of an open loop",
    );
    refused(
        &good,
        |p| {
            let Stmt::Loop(outer) = &mut p.body[3] else {
                panic!("a loop")
            };
            let escaped = Stmt::Store(Addr::new(Operand::Out, 0), Value(1));
            outer.body.insert(1, escaped);
        },
        "outside the loop that defines it",
    );
    refused(
        &good,
        |p| {
            let stray = Addr::new(Operand::Acts, 0).entry(Index(0), 1);
            at_path(p, &[3]).body.insert(1, Stmt::Prefetch(stray));
        },
        "outside the loop that reads it",
    );
    for (op, why) in [
        (Op::Shr16(Value(0), 16), "shifted by 16"),
        (Op::Sar32(Value(0), 32), "shifted by 32"),
        (
            Op::Lut64 {
                table: Value(0),
                idx: Value(0),
            },
            "width 64 only",
        ),
    ] {
        refused(
            &good,
            |p| {
                let fresh = Value(p.n_values);
                p.n_values += 1;
                p.body.push(Stmt::Let(fresh, op));
            },
            why,
        );
    }
}

#[test]
fn stores_keep_promises() {
    let gemm = programs("gemm", "i2s", Isa::Avx2, 16, 640).swap_remove(0);
    let promise = |p: &mut Program| {
        let out = p.extents[Operand::Out as usize].as_mut().expect("out");
        out.promise = Promise::U8(0, 1);
    };
    refused(&gemm, promise, "does not keep");
}

/// Decoders are followed through remainders and look-ups: a digit of a byte of five trits takes two bits.
/// (A byte that packing never makes may decode to a 3.)
#[test]
fn digits_are_proven_to_take_two_bits() {
    for (isa, form) in [(Isa::Avx512Vbmi, 1), (Isa::Interp, 2)] {
        let family = variant::by_name("dense").expect("a family");
        let spec = space::specs(family, isa, 1)
            .expect("it runs there")
            .into_iter()
            .find(|s| s.knob("f", 9) == form)
            .expect("the form exists");
        let (_, program) = plan(&spec, 640).expect("it plans").main.swap_remove(0);
        let checked = Checked::new(program).expect("a good program");
        let mut codes = 0;
        visit(&mut checked.body.clone(), &mut |s| {
            if let Stmt::Let(_, Op::DotU8I8 { u, .. }) = s {
                assert!(checked.range(*u).u8.hi <= 3, "{spec}: v{}", u.0);
                codes += 1;
            }
        });
        assert!(codes >= 5, "{codes} dot products");
        assert!(checked.counts().dots >= codes && checked.counts().weight_bytes > 0);
    }
}

/// Small deterministic numbers.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// One of `lo..=hi`; `bias` 1 and 2 take an end.
    fn between(&mut self, lo: i64, hi: i64, bias: usize) -> i64 {
        match bias {
            1 => lo,
            2 => hi,
            _ => lo + (self.next() % (hi - lo + 1) as u64) as i64,
        }
    }
}

/// Bytes that keep `promise`: random, all at the lower end, or all at the upper end.
fn keeping(promise: Promise, bytes: usize, noise: &mut Noise, bias: usize) -> Vec<u8> {
    let mut out = vec![0u8; bytes];
    let mut fill = |size: usize, lo: i64, hi: i64| {
        for chunk in out.chunks_mut(size) {
            let v = noise.between(lo, hi, bias).to_le_bytes();
            chunk.copy_from_slice(&v[..chunk.len()]);
        }
    };
    match promise {
        Promise::Bits => fill(1, 0, 255),
        Promise::U8(lo, hi) => fill(1, lo as i64, hi as i64),
        Promise::I8(lo, hi) => fill(1, lo as i64, hi as i64),
        Promise::U16(lo, hi) => fill(2, lo as i64, hi as i64),
        Promise::I16(lo, hi) => fill(2, lo as i64, hi as i64),
        Promise::I32(lo, hi) => fill(4, lo as i64, hi as i64),
        Promise::Codes2 => {
            for b in &mut out {
                *b = (0..4).fold(0, |b, f| b | (noise.between(0, 2, bias) as u8) << (2 * f));
            }
        }
        Promise::I16Planes(lo, hi) => {
            for record in out.chunks_mut(32) {
                for i in 0..record.len() / 2 {
                    let [l, h, ..] = noise.between(lo as i64, hi as i64, bias).to_le_bytes();
                    record[i] = l;
                    record[record.len() / 2 + i] = h;
                }
            }
        }
    }
    out
}

/// Runs `program` once with buffers of exactly its extents.
fn run(program: &Program, noise: &mut Noise, bias: usize) {
    let mut fill = |o: Operand, bias| match program.extent(o) {
        Some(e) => keeping(e.promise, e.bytes, noise, bias),
        None => vec![],
    };
    // Weights high meet activations low and high.
    let weights = fill(Operand::Weights, bias.min(1) * 2);
    let acts = fill(Operand::Acts, bias);
    let sums = fill(Operand::Sums, 3 - bias.max(1));
    let mut out = fill(Operand::Out, 0);
    let scales = fill(Operand::Scales, 0);
    let mut scratch = [Operand::Scratch0, Operand::Scratch1].map(|o| match program.keeps_zero(o) {
        true => vec![0; program.bytes(o)],
        // Another program's leavings.
        false => vec![0xA7; program.bytes(o)],
    });
    let [a, b] = &mut scratch;
    let mut memory = Operands {
        weights: &weights,
        acts: &acts,
        sums: &sums,
        consts: &program.consts,
        scratch: [a, b],
        out: &mut out,
        scales: &scales,
    };
    run_strict(program, &mut memory);
    for (o, bytes) in [Operand::Scratch0, Operand::Scratch1]
        .into_iter()
        .zip(&scratch)
    {
        let zero = bytes.iter().all(|b| *b == 0);
        assert!(zero || !program.keeps_zero(o), "{o:?} is not zero again");
    }
}

/// Changes one thing.
fn mutate(p: &mut Program, noise: &mut Noise) {
    let mut count = 0;
    visit(&mut p.body, &mut |_| count += 1);
    let target = noise.below(count + 4);
    let n_values = p.n_values as usize;
    if target >= count {
        return mutate_extent(p, noise);
    }
    let mut at = 0;
    visit(&mut p.body, &mut |s| {
        if at == target {
            mutate_stmt(s, n_values, noise);
        }
        at += 1;
    });
}

fn mutate_extent(p: &mut Program, noise: &mut Noise) {
    let operand = Operand::ALL[noise.below(7)];
    let Some(e) = &mut p.extents[operand as usize] else {
        return;
    };
    let more = noise.below(3) as u8;
    match noise.below(3) {
        0 => e.bytes = e.bytes.saturating_sub(1 << noise.below(7)),
        1 if operand != Operand::Consts => e.bytes += 1 << noise.below(7),
        _ => {
            e.promise = match e.promise {
                Promise::U8(lo, hi) => Promise::U8(lo, hi.saturating_add(more)),
                Promise::Codes2 => Promise::U8(0, 0xAA + more),
                Promise::I16(lo, hi) => Promise::I16(
                    lo.saturating_sub(more as i16),
                    hi.saturating_add(more as i16 * 64),
                ),
                Promise::I16Planes(lo, hi) => Promise::I16Planes(
                    lo.saturating_mul(1 + more as i16),
                    hi.saturating_add(more as i16),
                ),
                other => other,
            }
        }
    }
}

fn mutate_addr(a: &mut Addr, noise: &mut Noise) {
    let by = [1, 2, 4, 16, 32, 64][noise.below(6)];
    match noise.below(6) {
        0 => a.offset += by,
        1 => a.offset = a.offset.saturating_sub(by),
        2 | 3 if !a.terms.is_empty() => {
            let i = noise.below(a.terms.len());
            let stride = &mut a.terms[i].1;
            *stride = match noise.below(4) {
                0 => *stride + by,
                1 => stride.saturating_sub(by),
                2 => *stride / 2,
                _ => 0,
            };
        }
        4 => {
            if let Some((_, scale)) = &mut a.index {
                *scale = scale.saturating_sub(noise.below(*scale));
            }
        }
        _ => a.operand = Operand::ALL[noise.below(7)],
    }
}

fn mutate_stmt(s: &mut Stmt, n_values: usize, noise: &mut Noise) {
    let some = Value(noise.below(n_values) as u32);
    if noise.below(2) == 0
        && let Some(a) = addr_of(s)
    {
        return mutate_addr(a, noise);
    }
    match s {
        Stmt::Let(_, op) => mutate_op(op, some, noise),
        Stmt::LetIndices8 { shift, .. } => *shift = noise.below(8) as u8,
        Stmt::Store(a, v) if noise.below(2) == 0 => {
            *s = Stmt::Accumulate(Element::I32, a.clone(), *v);
        }
        Stmt::Accumulate(_, a, v) if noise.below(2) == 0 => *s = Stmt::Store(a.clone(), *v),
        Stmt::Store(_, v) | Stmt::Accumulate(_, _, v) => *v = some,
        Stmt::Loop(l) => match noise.below(5) {
            0 => l.trip += 1,
            1 => l.trip = (l.trip - 1).max(1),
            2 => l.trip *= 2,
            3 if !l.body.is_empty() => drop(l.body.remove(noise.below(l.body.len()))),
            _ => {
                if !l.carried.is_empty() {
                    let i = noise.below(l.carried.len());
                    let c = &mut l.carried[i];
                    match noise.below(2) {
                        0 => c.next = some,
                        _ => c.init = some,
                    }
                }
            }
        },
        _ => {}
    }
}

fn mutate_op(op: &mut Op, some: Value, noise: &mut Noise) {
    use Op::*;
    let bit = noise.below(8);
    *op = match (op.clone(), noise.below(4)) {
        (Splat8(x), _) => Splat8(x ^ 1 << bit),
        (Splat16(x), _) => Splat16(x ^ 1 << (2 * bit)),
        (Splat32(x), _) => Splat32(x ^ 1 << (4 * bit)),
        (Load(a), 0) => LoadBcast128(a),
        (Load(a), 1) => LoadBcast32(a),
        (LoadBcast128(a) | LoadBcast32(a), _) => Load(a),
        (Shr16(v, s), 0) => Shr16(v, (s + bit as u8) % 16),
        (Shr16(v, s), 1) => Sar16(v, s),
        (Shr16(v, s), 2) => Shl16(v, s),
        (Shr16(v, s), _) => Shr32(v, s),
        (Sar32(v, s), 0) => Shr32(v, s),
        (Sar32(v, s), _) => Sar32(v, (s + bit as u8) % 32),
        (Shl32(v, s), _) => Shl32(v, (s + bit as u8) % 32),
        (And(a, b), 0) => Or(a, b),
        (And(a, b), 1) => Xor(a, b),
        (And(_, b), 2) => And(some, b),
        (And(a, _), _) => And(a, some),
        (Add16(a, b), 0) => Sub16(a, b),
        (Add16(a, b), 1) => Add8(a, b),
        (Add16(a, b), 2) => Add32(a, b),
        (Add16(a, _), _) => Add16(a, some),
        (Sub16(a, b), 0) => Add16(a, b),
        (Sub16(_, b), _) => Sub16(some, b),
        (Add32(a, _), 0) => Add32(a, some),
        (Add32(a, b), 1) => MulLo32(a, b),
        (Add32(a, b), _) => Sub32(a, b),
        (MinU8(a, b), 0) => SubSatU8(a, b),
        (MinU8(a, b), _) => Sub8(b, a),
        (Sub8(a, b), 0) => Add8(a, b),
        (Sub8(_, b), _) => Sub8(some, b),
        (Xor(a, b), 0) => And(a, b),
        (Xor(a, _), _) => Xor(a, some),
        (DotU8I8 { acc, u, s }, 0) => DotU8I8 { acc, u: s, s: u },
        (DotU8I8 { acc, s, .. }, 1) => DotU8I8 { acc, u: some, s },
        (DotU8I8 { u, s, .. }, _) => DotU8I8 { acc: some, u, s },
        (MaddU8I8 { u, s }, 0) => MaddU8I8 { u: s, s: u },
        (MaddU8I8 { s, .. }, 1) => MaddU8I8 { u: some, s },
        (MaddU8I8 { u, .. }, _) => MaddU8I8 { u, s: some },
        (MaddI16(a, _), _) => MaddI16(a, some),
        (Shuffle16 { table, .. }, 0) => Shuffle16 { table, idx: some },
        (Shuffle16 { idx, .. }, 1) => Shuffle16 { table: some, idx },
        (InterleaveLo8(a, b), 0) => InterleaveHi8(a, b),
        (InterleaveLo8(a, b), 1) => InterleaveLo16(a, b),
        (InterleaveLo8(a, b), _) => InterleaveLo8(b, a),
        (Lut64 { table, .. }, _) => Lut64 { table, idx: some },
        (other, _) => other,
    };
}

/// Whatever the proof accepts runs within bounds and contracts. `BITNET_MUTANTS` sets how many are tried.
#[test]
fn accepted_mutants_run_clean() {
    let count = std::env::var("BITNET_MUTANTS").map_or(30, |n| n.parse().expect("a number"));
    let zoo = zoo(77);
    let (mut accepted, mut refused) = (0, 0);
    let mut broken = None;
    'all: for (z, program) in zoo.iter().enumerate() {
        for seed in 0..count {
            let mut noise = Noise((z * 1_000_003 + seed) as u64);
            let mut mutant = program.clone();
            for _ in 0..=noise.below(2) {
                mutate(&mut mutant, &mut noise);
            }
            if Checked::new(mutant.clone()).is_err() {
                refused += 1;
                continue;
            }
            accepted += 1;
            for bias in 0..3 {
                if catch_unwind(AssertUnwindSafe(|| run(&mutant, &mut noise, bias))).is_err() {
                    broken = Some((mutant, bias, z, seed));
                    break 'all;
                }
            }
        }
    }
    if let Some((mutant, bias, z, seed)) = broken {
        println!("program {z} seed {seed} bias {bias}:\n{mutant}");
        run(&mutant, &mut Noise(seed as u64), bias);
        panic!(
            "an accepted mutant of {} breaks with some data",
            mutant.name
        );
    }
    println!("{accepted} mutants accepted and run, {refused} refused");
    assert!(accepted > count && refused > count, "{accepted}, {refused}");
}
