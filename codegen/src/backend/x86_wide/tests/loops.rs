//! Loops, addresses and registers: nests, carried values that rotate, table indices, working memory,
//! and what happens when registers run out.

use super::{Run, decode, emit, isas, runnable};
use crate::isa::Isa;
use crate::program::{Addr, Builder, Element, Op, Operand, Program, Promise, Value};
use iced_x86::Mnemonic;

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| super::noise(i, 5) as u8).collect()
}

fn run(program: &Program, isa: Isa, weights: &[u8], acts: &[u8]) {
    Run::new(program, isa)
        .unwrap_or_else(|e| panic!("{e}\n{program}"))
        .compare(weights, acts, &format!("{} {isa}", program.name));
}

fn start(name: &str, isa: Isa, weights: usize, out: usize) -> Builder {
    let mut b = Builder::new(name, isa.width());
    b.operand(Operand::Weights, weights, Promise::Bits);
    b.operand(Operand::Out, out, Promise::Bits);
    b
}

/// Every pair of strides over a nest of three loops, with one pointer stepped by the outer and inner loop only.
#[test]
fn nests_step_their_pointers() {
    for isa in runnable() {
        let w = isa.width().bytes();
        for (a, b_trip, c) in [
            (2, 3, 4),
            (1, 3, 2),
            (3, 1, 2),
            (2, 2, 1),
            (1, 1, 1),
            (5, 2, 7),
        ] {
            let mut b = start("nest", isa, 4096, a * b_trip * c * w);
            b.repeat(a, &[], |b, i, _| {
                b.repeat(b_trip, &[], |b, j, _| {
                    b.repeat(c, &[], |b, k, _| {
                        let x = b.op(Op::Load(
                            Addr::new(Operand::Weights, 3).step(i, 70).step(k, 9),
                        ));
                        let y = b.op(Op::Load(Addr::new(Operand::Weights, 200).step(j, 13)));
                        let z = b.op(Op::Load(
                            Addr::new(Operand::Weights, 7).step(j, 130).step(i, 1),
                        ));
                        let s = b.op(Op::Add8(x, y));
                        let s = b.op(Op::Xor(s, z));
                        let at = Addr::new(Operand::Out, 0)
                            .step(k, w)
                            .step(j, c * w)
                            .step(i, b_trip * c * w);
                        b.store(at, s);
                        vec![]
                    });
                    vec![]
                });
                vec![]
            });
            run(&b.finish(), isa, &bytes(4096), &[]);
        }
    }
}

/// Carried values that change places in every way of four, some of them used, some not.
#[test]
fn carried_values_rotate() {
    for isa in runnable() {
        let w = isa.width().bytes();
        for code in 0..256usize {
            for trip in [1, 2, 5] {
                let to: [usize; 4] = std::array::from_fn(|i| code >> (2 * i) & 3);
                let mut b = start("rotate", isa, 8 * w, 4 * w);
                let init: Vec<Value> = (0..4)
                    .map(|i| b.op(Op::Load(Addr::new(Operand::Weights, i * w))))
                    .collect();
                let out = b.repeat(trip, &init, |b, c, p| {
                    let x = b.op(Op::Load(Addr::new(Operand::Weights, w).step(c, 11)));
                    let mut next: Vec<Value> = to.iter().map(|&t| p[t]).collect();
                    next[code % 4] = b.op(Op::Add8(p[to[0]], x));
                    next
                });
                for (i, v) in out.into_iter().enumerate() {
                    b.store(Addr::new(Operand::Out, i * w), v);
                }
                run(&b.finish(), isa, &bytes(8 * w), &[]);
            }
        }
    }
}

/// Start values that are constants, that several parameters share, or that live on; next values from outside.
#[test]
fn start_values_are_shared_and_live_on() {
    for isa in runnable() {
        let w = isa.width().bytes();
        let mut b = start("shared", isa, 4 * w, 8 * w);
        let zero = b.zero();
        let ones = b.op(Op::Splat32(-1));
        let odd = b.op(Op::Splat16(0x0102));
        let x = b.op(Op::Load(Addr::new(Operand::Weights, 0)));
        let y = b.op(Op::Load(Addr::new(Operand::Weights, w)));
        let init = [zero, zero, ones, odd, x, x, y];
        let out = b.repeat(3, &init, |b, _, p| {
            let inner = b.repeat(2, &[p[0], x, p[4]], |b, c, q| {
                let s = b.op(Op::Load(Addr::new(Operand::Weights, 1).step(c, 5)));
                let s = b.op(Op::Add16(q[0], s));
                let t = b.op(Op::Sub8(q[1], q[2]));
                vec![s, t, odd]
            });
            let s = b.op(Op::Xor(p[6], inner[1]));
            let t = b.op(Op::Or(p[2], p[3]));
            vec![inner[0], zero, t, y, inner[2], p[4], s]
        });
        let both = b.op(Op::Add32(x, y));
        for (i, v) in out.into_iter().chain([both]).enumerate() {
            b.store(Addr::new(Operand::Out, i * w), v);
        }
        run(&b.finish(), isa, &bytes(4 * w), &[]);
    }
}

/// Table entries of every size, addressed by indices of one and two bytes and by several from one load.
#[test]
fn indices_address_tables() {
    for isa in runnable() {
        let w = isa.width().bytes();
        for scale in [1, 2, 3, 4, 8, 16, 24, 64, 96] {
            for shift in [0, 1, 3, 6] {
                let table = (255 << shift) * scale + w;
                let mut b = start("indices", isa, table, 16 * w);
                b.operand(Operand::Acts, 64, Promise::Bits);
                let acts = |o| Addr::new(Operand::Acts, o);
                let entry = |i, s: usize| Addr::new(Operand::Weights, 0).entry(i, s);
                let zero = b.zero();
                let sums = b.repeat(2, &[zero; 3], |b, c, p| {
                    let i = b.index8(acts(5).step(c, 3));
                    let many = b.indices8(8, acts(8).step(c, 8), shift);
                    let few = b.indices8(4, acts(1).step(c, 4), shift);
                    let x = b.op(Op::Load(entry(i, scale)));
                    let mut next = vec![b.op(Op::Add16(p[0], x)), p[1], p[2]];
                    // In order, out of order, and one index twice with two scales.
                    for &i in many.iter().chain(&few) {
                        let x = b.op(Op::Load(entry(i, scale)));
                        next[1] = b.op(Op::Add8(next[1], x));
                    }
                    for j in [3, 0, 5, 5] {
                        let x = b.op(Op::Load(entry(many[j], 1)));
                        let y = b.op(Op::LoadBcast32(entry(many[j], scale)));
                        let x = b.op(Op::Xor(x, y));
                        next[2] = b.op(Op::Add8(next[2], x));
                    }
                    // An index that a nested loop uses.
                    let late = b.repeat(2, &[next[2]], |b, d, q| {
                        let x = b.op(Op::Load(entry(few[2], scale).step(d, 1)));
                        vec![b.op(Op::Add8(q[0], x))]
                    });
                    next[2] = late[0];
                    next
                });
                let wide = b.index16(acts(40));
                let x = b.op(Op::Load(entry(wide, 1)));
                for (i, v) in sums.into_iter().chain([x]).enumerate() {
                    b.store(Addr::new(Operand::Out, i * w), v);
                }
                let mut program = b.finish();
                // The nested loop reads one byte further.
                if let Some(e) = &mut program.extents[0] {
                    e.bytes += 1;
                }
                let mut indices = bytes(64);
                indices[40..42].copy_from_slice(&((table - w) as u16).min(300).to_le_bytes());
                run(&program, isa, &bytes(table + 1), &indices);
            }
        }
    }
}

/// A load is not moved past a store to the same operand; drains and sums in memory keep their order.
#[test]
fn working_memory_keeps_its_order() {
    for isa in runnable() {
        let w = isa.width().bytes();
        let mut b = start("memory", isa, 4 * w, 4 * w);
        b.operand(Operand::Scratch0, 2 * w, Promise::Bits);
        b.operand(Operand::Scratch1, 2 * w, Promise::Bits);
        let (s0, s1) = (
            |o| Addr::new(Operand::Scratch0, o),
            |o| Addr::new(Operand::Scratch1, o),
        );
        let x = b.op(Op::Load(Addr::new(Operand::Weights, 0)));
        let y = b.op(Op::Load(Addr::new(Operand::Weights, w)));
        let before = b.op(Op::Load(s0(0)));
        let small = b.op(Op::Splat16(0x0F));
        let (x, y) = (b.op(Op::And(x, small)), b.op(Op::And(y, small)));
        b.store(s0(0), x);
        let seen = b.op(Op::Add8(before, y));
        b.accumulate(Element::I16, s0(2), y);
        b.accumulate(Element::I32, s1(0), x);
        b.accumulate(Element::I32, s1(2), x);
        let kept = b.op(Op::Load(s1(2)));
        let drained = b.op(Op::Drain(s1(2)));
        let sum = b.op(Op::Sub16(kept, drained));
        let rest = b.op(Op::Load(s1(0)));
        let all = b.op(Op::Load(s0(1)));
        let twice = b.op(Op::Xor(rest, all));
        b.op(Op::Drain(s1(0)));
        for (i, v) in [seen, sum, twice, drained].into_iter().enumerate() {
            b.store(Addr::new(Operand::Out, i * w), v);
        }
        run(&b.finish(), isa, &bytes(4 * w), &[]);
    }
}

/// `n` values that are all alive at once.
fn crowd(n: usize, isa: Isa) -> Program {
    let w = isa.width().bytes();
    let mut b = start("crowd", isa, 4 * w + n, (n + 1) * w);
    let zero = b.zero();
    let accs = b.repeat(3, &vec![zero; n], |b, c, p| {
        let x = b.op(Op::Load(Addr::new(Operand::Weights, 0).step(c, 1)));
        let mask = b.op(Op::Splat8(0x33));
        let x = b.op(Op::And(x, mask));
        p.iter().map(|&p| b.op(Op::Add8(p, x))).collect()
    });
    for (i, v) in accs.into_iter().enumerate() {
        b.store(Addr::new(Operand::Out, i * w), v);
    }
    b.finish()
}

/// All registers but one can be accumulators: the constant then comes from memory. One more is an answer.
#[test]
fn out_of_vector_registers_is_an_answer() {
    for &isa in isas() {
        let all = isa.vector_registers();
        assert!(emit(&crowd(all - 2, isa), isa).is_ok());
        let tight = crowd(all - 1, isa);
        let code = emit(&tight, isa).unwrap_or_else(|e| panic!("{e}"));
        assert!(
            decode(&code)
                .iter()
                .any(|i| i.is_ip_rel_memory_operand() && i.mnemonic() != Mnemonic::Vpbroadcastd),
            "the mask is read from memory on {isa}"
        );
        if runnable().contains(&isa) {
            run(&tight, isa, &bytes(4096), &[]);
        }
        let why = emit(&crowd(all, isa), isa).unwrap_err().why.to_string();
        assert!(
            why.contains(&format!("needs {} vector registers", all + 1)),
            "{why}"
        );
    }
}

/// `depth` loops around `tables` operands stepped by each of them.
fn deep(depth: usize, indices: usize, isa: Isa) -> Program {
    fn level(b: &mut Builder, left: usize, indices: usize, terms: Addr, acc: Value) -> Value {
        if left > 0 {
            let stride = left;
            return b.repeat(2, &[acc], |b, c, p| {
                vec![level(
                    b,
                    left - 1,
                    indices,
                    terms.clone().step(c, stride),
                    p[0],
                )]
            })[0];
        }
        let at = |o: Operand| Addr {
            operand: o,
            ..terms.clone()
        };
        let all: Vec<_> = (0..indices)
            .map(|i| b.index8(at(Operand::Acts).plus(i)))
            .collect();
        let mut acc = acc;
        for &i in all.iter().rev() {
            let x = b.op(Op::Load(at(Operand::Weights).entry(i, 1)));
            acc = b.op(Op::Add8(acc, x));
        }
        acc
    }
    let w = isa.width().bytes();
    let mut b = start("deep", isa, 1024, w);
    b.operand(Operand::Acts, 512, Promise::Bits);
    let zero = b.zero();
    let acc = level(&mut b, depth, indices, Addr::new(Operand::Weights, 0), zero);
    b.store(Addr::new(Operand::Out, 0), acc);
    b.finish()
}

/// Counters of outer loops move to the stack; saved registers come back; then the answer is a count.
#[test]
fn out_of_general_registers_is_an_answer() {
    for isa in runnable() {
        for (depth, indices) in [(1, 2), (3, 8), (6, 8), (9, 10), (11, 11), (20, 1)] {
            run(
                &deep(depth.min(11), indices, isa),
                isa,
                &bytes(1024),
                &bytes(512),
            );
        }
        assert!(emit(&deep(20, 4, isa), isa).is_ok());
        let why = emit(&deep(6, 14, isa), isa).unwrap_err().why.to_string();
        assert!(why.contains("general registers"), "{why}");
    }
}
