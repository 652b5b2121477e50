//! Every op, lane by lane, on random and extreme inputs that keep its contract; then every kind of statement
//! against the interpreter.

use super::{Inputs, Noise, run, runnable};
use crate::backend::interp;
use crate::isa::Isa;
use crate::program::{Addr, Builder, Element, Op, Operand, Program, Promise, Value, Width};

const CASES: usize = 64;
const A: Value = Value(0);
const B: Value = Value(1);
const C: Value = Value(2);

/// An op on `A` (from the weights), `B` (from the activations) and `C` (from the sums), and what those are.
struct Case {
    op: Op,
    a: Promise,
    b: Promise,
    c: Promise,
}

fn case(op: Op, a: Promise, b: Promise) -> Case {
    Case {
        op,
        a,
        b,
        c: Promise::I32(0, 0),
    }
}

fn cases() -> Vec<Case> {
    use Promise::{I8, I16, I32, U8};
    let any = U8(0, 255);
    let any16 = I16(i16::MIN, i16::MAX);
    let any32 = I32(i32::MIN, i32::MAX);
    let half16 = I16(-16_384, 16_383);
    let half32 = I32(-(1 << 30), (1 << 30) - 1);
    let mut list = vec![
        case(Op::And(A, B), any, any),
        case(Op::Or(A, B), any, any),
        case(Op::Xor(A, B), any, any),
        case(Op::Add8(A, B), U8(0, 127), U8(0, 128)),
        case(Op::Add8(A, B), I8(-64, 63), I8(-64, 63)),
        case(Op::Sub8(A, B), I8(-64, 63), I8(-64, 63)),
        case(Op::Sub8(A, B), U8(128, 255), U8(0, 128)),
        case(Op::SubSatU8(A, B), any, any),
        case(Op::MinU8(A, B), any, any),
        case(Op::Add16(A, B), half16, half16),
        case(Op::Sub16(A, B), half16, half16),
        case(Op::Add32(A, B), half32, half32),
        case(Op::Sub32(A, B), half32, half32),
        case(Op::MulLo32(A, B), any32, any32),
        case(Op::F32(A), any32, any32),
        // As bits these are numbers below 2, subnormal ones and zero among them.
        case(Op::AddF32(A, B), I32(0, 0x3FFF_FFFF), I32(0, 0x3FFF_FFFF)),
        case(Op::MulF32(A, B), I32(0, 0x3FFF_FFFF), I32(0, 0x3FFF_FFFF)),
        // 2·127·128 fits an i16; 255 meets a smaller factor.
        case(Op::MaddU8I8 { u: A, s: B }, U8(0, 127), I8(-128, 127)),
        case(Op::MaddU8I8 { u: A, s: B }, any, I8(-64, 64)),
        case(Op::MaddI16(A, B), I16(-32_767, 32_767), any16),
        case(Op::Shuffle16 { table: A, idx: B }, any, U8(0, 15)),
        case(Op::InterleaveLo8(A, B), any, any),
        case(Op::InterleaveHi8(A, B), any, any),
        case(Op::InterleaveLo16(A, B), any, any),
        case(Op::InterleaveHi16(A, B), any, any),
    ];
    for s in [0, 1, 7, 8, 15] {
        list.push(case(Op::Shr16(A, s), any, any));
        list.push(case(Op::Shl16(A, s), any, any));
        list.push(case(Op::Sar16(A, s), any, any));
    }
    for s in [0, 1, 6, 16, 31] {
        list.push(case(Op::Shr32(A, s), any, any));
        list.push(case(Op::Shl32(A, s), any, any));
        list.push(case(Op::Sar32(A, s), any, any));
    }
    for (a, b) in [(U8(0, 255), I8(-128, 127)), (U8(0, 127), I8(-128, 127))] {
        list.push(Case {
            op: Op::DotU8I8 { acc: C, u: A, s: B },
            a,
            b,
            c: I32(-1_000_000_000, 1_000_000_000),
        });
    }
    list
}

/// `CASES` vectors that keep `promise`.
fn bytes(promise: Promise, noise: &mut Noise) -> Vec<u8> {
    let mut v = Vec::new();
    while v.len() < CASES * 16 {
        match promise {
            Promise::I16(lo, hi) => {
                v.extend((noise.between(lo.into(), hi.into()) as i16).to_le_bytes())
            }
            Promise::I32(lo, hi) => {
                v.extend((noise.between(lo.into(), hi.into()) as i32).to_le_bytes())
            }
            Promise::U8(lo, hi) => v.push(noise.between(lo.into(), hi.into()) as u8),
            Promise::I8(lo, hi) => v.push(noise.between(lo.into(), hi.into()) as u8),
            _ => v.push(noise.next() as u8),
        }
    }
    v
}

fn program(case: &Case) -> Program {
    let mut b = Builder::new(format!("lanes {:?}", case.op), Width::W16);
    let all = CASES * 16;
    b.operand(Operand::Weights, all, case.a);
    b.operand(Operand::Acts, all, case.b);
    b.operand(Operand::Sums, all, case.c);
    b.operand(Operand::Out, all, Promise::Bits);
    b.repeat(CASES, &[], |b, i, _| {
        let at = |o| Addr::new(o, 0).step(i, 16);
        let values =
            [Operand::Weights, Operand::Acts, Operand::Sums].map(|o| b.op(Op::Load(at(o))));
        assert_eq!(values, [A, B, C]);
        let v = b.op(case.op.clone());
        b.store(at(Operand::Out), v);
        vec![]
    });
    b.finish()
}

#[test]
fn every_op_equals_the_interpreter_lane_by_lane() {
    let mut noise = Noise(0x5EED);
    for case in cases() {
        let (a, b, c) = (
            bytes(case.a, &mut noise),
            bytes(case.b, &mut noise),
            bytes(case.c, &mut noise),
        );
        let lane = |bytes: &[u8], i: usize| *bytes[16 * i..].first_chunk::<16>().expect("a lane");
        let inputs = Inputs {
            weights: a.clone(),
            acts: b.clone(),
            sums: words(&c),
        };
        for isa in runnable() {
            let program = program(&case);
            let got = run(&program, isa, &inputs, 1);
            for i in 0..CASES {
                let by_id = [lane(&a, i), lane(&b, i), lane(&c, i)];
                let want = interp::eval(&case.op, &by_id);
                assert_eq!(
                    got[4 * i..][..4],
                    words(&want),
                    "{isa}: {:?} on {by_id:02x?}",
                    case.op,
                );
            }
        }
    }
}

/// What has no case: constants and memory, which are statements below, and look-ups that need wider vectors.
#[test]
fn every_op_has_a_case() {
    let cases = cases();
    let has_case = |name: &str| cases.iter().any(|c| c.op.name() == name);
    let without: Vec<&str> = Op::NAMES.iter().copied().filter(|n| !has_case(n)).collect();
    let constants = ["splat8", "splat16", "splat32"];
    let memory = ["load", "load_bcast32", "load_bcast128", "drain"];
    let wide = ["lut64", "lut128"];
    assert_eq!(without, [&constants[..], &memory, &wide].concat());
}

fn words(bytes: &[u8]) -> Vec<i32> {
    bytes
        .chunks_exact(4)
        .map(|c| i32::from_le_bytes(c.try_into().expect("four bytes")))
        .collect()
}

/// Each kind of statement: called twice, so that what a call leaves in scratch counts, too.
#[test]
fn every_statement_equals_the_interpreter() {
    let mut noise = Noise(77);
    let inputs = Inputs {
        weights: (0..8192).map(|_| noise.next() as u8).collect(),
        acts: (0..8192).map(|_| noise.next() as u8 & 0x3F).collect(),
        sums: (0..64).map(|_| noise.next() as i32 >> 8).collect(),
    };
    let words = Inputs {
        weights: inputs.weights.clone(),
        acts: vec![],
        sums: (0..64)
            .map(|_| (noise.next() & 0x003F_003F) as i32)
            .collect(),
    };
    let want = run(&wide_indices(), Isa::Interp, &words, 1);
    for isa in runnable() {
        assert_eq!(run(&wide_indices(), isa, &words, 1), want, "{isa}");
    }
    let programs = [
        constants(),
        broadcasts(),
        scratch(),
        indices(),
        nested(),
        swapped(),
        prefetches(),
        far(),
    ];
    for program in &programs {
        let want = run(program, Isa::Interp, &inputs, 2);
        for isa in runnable() {
            let got = run(program, isa, &inputs, 2);
            assert_eq!(got, want, "{isa}: {program}");
        }
    }
}

fn builder(name: &str, out_bytes: usize) -> Builder {
    let mut b = Builder::new(name, Width::W16);
    b.operand(Operand::Weights, 8192, Promise::Bits);
    b.operand(Operand::Acts, 8192, Promise::U8(0, 63));
    b.operand(Operand::Sums, 256, Promise::I32(-(1 << 24), 1 << 24));
    b.operand(Operand::Out, out_bytes, Promise::Bits);
    b
}

fn constants() -> Program {
    let mut b = builder("constants", 16 * 8);
    let values = [
        Op::Splat8(0x81),
        Op::Splat16(-2),
        Op::Splat16(1),
        Op::Splat32(0x1234_5678),
        Op::Splat32(-1),
        Op::Splat8(0),
        Op::Splat32(0),
    ]
    .map(|op| b.op(op));
    for (i, v) in values.into_iter().enumerate() {
        b.store(Addr::new(Operand::Out, 16 * i), v);
    }
    let x = b.op(Op::Load(Addr::new(Operand::Acts, 3)));
    let y = b.op(Op::MaddI16(x, values[2]));
    b.store(Addr::new(Operand::Out, 16 * 7), y);
    b.finish()
}

fn broadcasts() -> Program {
    let mut b = builder("broadcasts", 16 * 16);
    b.repeat(4, &[], |b, i, _| {
        let x = b.op(Op::LoadBcast32(Addr::new(Operand::Acts, 1).step(i, 7)));
        let y = b.op(Op::LoadBcast128(Addr::new(Operand::Acts, 5).step(i, 16)));
        let out = Addr::new(Operand::Out, 0).step(i, 64);
        let sum = b.op(Op::Add8(x, y));
        let three = b.op(Op::Splat8(3));
        let more = b.op(Op::Add8(x, three));
        for (j, v) in [x, y, sum, more].into_iter().enumerate() {
            b.store(out.clone().plus(16 * j), v);
        }
        vec![]
    });
    b.finish()
}

/// Stores, accumulates and drains; the second call must find zeros again.
fn scratch() -> Program {
    let mut b = builder("scratch", 16 * 8);
    b.operand(Operand::Scratch0, 64, Promise::I16(-8192, 8192));
    b.operand(Operand::Scratch1, 64, Promise::I32(-(1 << 28), 1 << 28));
    let (s0, s1) = (
        Addr::new(Operand::Scratch0, 0),
        Addr::new(Operand::Scratch1, 0),
    );
    b.repeat(4, &[], |b, i, _| {
        let x = b.op(Op::Load(Addr::new(Operand::Acts, 32).step(i, 16)));
        let small = b.op(Op::Shr16(x, 8));
        let ones = b.op(Op::Splat16(1));
        let wide = b.op(Op::MaddI16(small, ones));
        b.repeat(3, &[], |b, _, _| {
            b.accumulate(Element::I16, s0.clone().step(i, 16), small);
            b.accumulate(Element::I32, s1.clone().step(i, 16), wide);
            vec![]
        });
        vec![]
    });
    b.repeat(4, &[], |b, i, _| {
        for (j, s) in [&s0, &s1].into_iter().enumerate() {
            let v = b.op(Op::Drain(s.clone().step(i, 16)));
            b.store(Addr::new(Operand::Out, 64 * j).step(i, 16), v);
        }
        vec![]
    });
    b.finish()
}

fn indices() -> Program {
    let mut b = builder("indices", 9 * 32 * 16);
    b.repeat(9, &[], |b, i, _| {
        let at = |o: usize| Addr::new(Operand::Acts, o).step(i, 5);
        let mut entries = Vec::new();
        let byte = b.index8(at(11));
        entries.extend([1, 2, 8, 16, 24, 64].map(|scale| (byte, scale)));
        for (count, shift) in [(4, 0), (4, 5), (8, 3), (8, 6)] {
            let indices = b.indices8(count, at(200 + count), shift);
            entries.extend(indices.into_iter().map(|index| (index, 1)));
        }
        for (j, entry) in entries.into_iter().enumerate() {
            let (index, scale) = entry;
            let v = b.op(Op::Load(Addr::new(Operand::Weights, 7).entry(index, scale)));
            b.store(Addr::new(Operand::Out, 16 * j).step(i, 512), v);
        }
        vec![]
    });
    b.finish()
}

/// Two-byte indices into a table of 64 entries of 100 bytes.
fn wide_indices() -> Program {
    let mut b = Builder::new("wide indices", Width::W16);
    b.operand(Operand::Weights, 8192, Promise::Bits);
    b.operand(Operand::Sums, 256, Promise::U16(0, 63));
    b.operand(Operand::Out, 10 * 32, Promise::Bits);
    b.repeat(10, &[], |b, i, _| {
        let index = b.index16(Addr::new(Operand::Sums, 4).step(i, 6));
        for (j, scale) in [100, 4].into_iter().enumerate() {
            let v = b.op(Op::Load(Addr::new(Operand::Weights, 9).entry(index, scale)));
            b.store(Addr::new(Operand::Out, 16 * j).step(i, 32), v);
        }
        vec![]
    });
    b.finish()
}

/// Three loops, addresses with any of their counters, and loops of one turn among them.
fn nested() -> Program {
    let mut b = builder("nested", 5 * 3 * 16);
    b.repeat(5, &[], |b, i, _| {
        b.repeat(1, &[], |b, once, _| {
            b.repeat(3, &[], |b, j, _| {
                let zero = b.zero();
                let sum = b.repeat(7, &[zero], |b, k, acc| {
                    let at = Addr::new(Operand::Acts, 4).step(i, 320).step(j, 112);
                    let x = b.op(Op::Load(at.clone().step(k, 16)));
                    let y = b.op(Op::Load(at.step(once, 9999)));
                    let z = b.op(Op::Load(Addr::new(Operand::Acts, 0).step(k, 4).step(k, 12)));
                    let u = b.op(Op::DotU8I8 {
                        acc: acc[0],
                        u: x,
                        s: y,
                    });
                    vec![b.op(Op::DotU8I8 { acc: u, u: z, s: x })]
                });
                b.store(Addr::new(Operand::Out, 0).step(i, 48).step(j, 16), sum[0]);
                vec![]
            });
            vec![]
        });
        vec![]
    });
    b.finish()
}

/// Carried values that trade places, stay, or come from outside.
fn swapped() -> Program {
    let mut b = builder("swapped", 16 * 12);
    for (loop_at, trip) in [(0, 3), (96, 1)] {
        let init: Vec<Value> = (0..4)
            .map(|i| b.op(Op::Load(Addr::new(Operand::Acts, 16 * i + loop_at))))
            .collect();
        let outside = b.op(Op::Splat8(9));
        let last = b.repeat(trip, &init, |_, _, p| vec![p[1], p[0], p[2], outside]);
        let sum = b.op(Op::Xor(last[0], last[3]));
        for (j, v) in [last[0], last[1], last[2], last[3], sum]
            .into_iter()
            .enumerate()
        {
            b.store(Addr::new(Operand::Out, 16 * j + loop_at), v);
        }
    }
    b.finish()
}

/// Runs of lines of every length, also past the operand; live values around them stay.
fn prefetches() -> Program {
    let mut b = builder("prefetches", 16 * 12);
    let kept: Vec<Value> = (0..12)
        .map(|i| b.op(Op::Load(Addr::new(Operand::Acts, 16 * i))))
        .collect();
    for lines in 0..20 {
        for line in 0..lines {
            b.prefetch(Addr::new(Operand::Weights, 64 * (line + 40 * lines)));
        }
        b.prefetch(Addr::new(Operand::Acts, 1 << 20));
    }
    b.repeat(3, &[], |b, c, _| {
        b.prefetch(Addr::new(Operand::Weights, 4096).step(c, 64));
        vec![]
    });
    for (i, v) in kept.into_iter().enumerate() {
        b.store(Addr::new(Operand::Out, 16 * i), v);
    }
    b.finish()
}

/// Displacements that need more than the shortest encoding.
fn far() -> Program {
    let mut b = builder("far", 64);
    for (i, at) in [0, 15, 4080, 8175].into_iter().enumerate() {
        let v = b.op(Op::Load(Addr::new(Operand::Weights, at)));
        b.store(Addr::new(Operand::Out, 16 * i), v);
    }
    b.finish()
}
