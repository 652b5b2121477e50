//! Every op on every instruction set: random and extreme vectors, whole results compared with the
//! interpreter's. Inputs come from registers, from memory operands and from broadcasts.

use super::{Run, isas, runnable};
use crate::backend::interp;
use crate::isa::Isa;
use crate::program::{Addr, Builder, Op, Operand, Promise, Value};

/// An op over values that are already defined.
type Make = fn(Value, Value, Value) -> Op;

/// Each op that neither is a constant nor touches memory.
const OPS: &[Make] = &[
    |a, b, _| Op::And(a, b),
    |a, b, _| Op::Or(a, b),
    |a, b, _| Op::Xor(a, b),
    |a, b, _| Op::Add8(a, b),
    |a, b, _| Op::Sub8(a, b),
    |a, b, _| Op::SubSatU8(a, b),
    |a, b, _| Op::MinU8(a, b),
    |a, b, _| Op::Add16(a, b),
    |a, b, _| Op::Sub16(a, b),
    |a, b, _| Op::Add32(a, b),
    |a, b, _| Op::Sub32(a, b),
    |a, b, _| Op::MulLo32(a, b),
    |a, _, _| Op::Shr16(a, 3),
    |a, _, _| Op::Shl16(a, 15),
    |a, _, _| Op::Sar16(a, 7),
    |a, _, _| Op::Shr32(a, 31),
    |a, _, _| Op::Shl32(a, 9),
    |a, _, _| Op::Sar32(a, 17),
    |a, _, _| Op::F32(a),
    |a, b, _| Op::AddF32(a, b),
    |a, b, _| Op::MulF32(a, b),
    |a, u, s| Op::DotU8I8 { acc: a, u, s },
    |u, s, _| Op::MaddU8I8 { u, s },
    |a, b, _| Op::MaddI16(a, b),
    |table, idx, _| Op::Shuffle16 { table, idx },
    |table, idx, _| Op::Lut64 { table, idx },
    |lo, hi, idx| Op::Lut128 { lo, hi, idx },
    |a, b, _| Op::InterleaveLo8(a, b),
    |a, b, _| Op::InterleaveHi8(a, b),
    |a, b, _| Op::InterleaveLo16(a, b),
    |a, b, _| Op::InterleaveHi16(a, b),
];

/// The name of an op, and how many inputs it has.
fn name_and_arity(make: Make) -> (&'static str, usize) {
    let op = make(Value(0), Value(1), Value(2));
    (op.name(), op.inputs().len())
}

/// What is left out of [`OPS`] is constants and memory: every other test is full of them.
#[test]
fn every_op_is_tried() {
    let tried = |name: &str| OPS.iter().any(|&make| name_and_arity(make).0 == name);
    let others: Vec<&str> = Op::NAMES.iter().copied().filter(|n| !tried(n)).collect();
    let constants = ["splat8", "splat16", "splat32"];
    let memory = ["load", "load_bcast32", "load_bcast128", "drain"];
    assert_eq!(others, [&constants[..], &memory].concat());
}

/// Whether `isa` has the op; the emitter must say the same.
fn exists(name: &str, isa: Isa) -> bool {
    match name {
        "dot_u8i8" => isa.has_dot(),
        "lut64" | "lut128" => isa.has_wide_lut(),
        _ => true,
    }
}

/// How an input reaches the op.
#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    /// A load that is used again, so it stays in a register.
    Register,
    /// A load that only this op uses.
    Memory,
    /// Four bytes, broadcast.
    Bcast32,
    /// Sixteen bytes, broadcast.
    Bcast128,
    /// A constant.
    Splat,
}

const FROMS: [From; 5] = [
    From::Register,
    From::Memory,
    From::Bcast32,
    From::Bcast128,
    From::Splat,
];

/// One op on three inputs read from `weights`; inputs that stay live are stored after the result.
fn program(make: Make, froms: [From; 3], twice: bool, isa: Isa) -> crate::program::Program {
    let w = isa.width().bytes();
    let mut b = Builder::new(format!("lanes-{isa}"), isa.width());
    b.operand(Operand::Weights, 3 * w, Promise::Bits);
    b.operand(Operand::Out, 4 * w, Promise::Bits);
    let inputs: Vec<Value> = froms
        .iter()
        .enumerate()
        .map(|(i, from)| {
            let at = Addr::new(Operand::Weights, i * w);
            match from {
                From::Register | From::Memory => b.op(Op::Load(at)),
                From::Bcast32 => b.op(Op::LoadBcast32(at)),
                From::Bcast128 => b.op(Op::LoadBcast128(at)),
                From::Splat => b.op(Op::Splat8(7)),
            }
        })
        .collect();
    let (x, y, z) = if twice {
        (inputs[0], inputs[0], inputs[0])
    } else {
        (inputs[0], inputs[1], inputs[2])
    };
    let r = b.op(make(x, y, z));
    b.store(Addr::new(Operand::Out, 0), r);
    for (i, (&v, from)) in inputs.iter().zip(froms).enumerate() {
        if from == From::Register {
            b.store(Addr::new(Operand::Out, (i + 1) * w), v);
        }
    }
    b.finish()
}

/// Random bytes, then each extreme; indices of a shuffle stay below 16, and floats are numbers: which NaN comes of
/// a NaN is open.
fn data(w: usize, round: usize, name: &str) -> Vec<u8> {
    let extremes = [0x00, 0xFF, 0x80, 0x7F, 0x01];
    let mut bytes: Vec<u8> = (0..3 * w)
        .map(|i| match extremes.get(round) {
            Some(&e) if i % 3 != round % 3 => e,
            _ => super::noise(i, round as u64) as u8,
        })
        .collect();
    if name == "shuffle16" {
        bytes.iter_mut().for_each(|b| *b &= 15);
    }
    if matches!(name, "add_f32" | "mul_f32") {
        // Bit 6 of the top byte is the exponent's uppermost: without it magnitudes stay below 2.
        bytes.iter_mut().skip(3).step_by(4).for_each(|b| *b &= 0xBF);
    }
    bytes
}

#[test]
fn every_op_equals_the_interpreter() {
    for isa in runnable() {
        let w = isa.width().bytes();
        for &make in OPS {
            let (name, arity) = name_and_arity(make);
            if !exists(name, isa) {
                continue;
            }
            let mut variants = vec![([From::Register; 3], true), ([From::Memory; 3], true)];
            for a in FROMS {
                for b in FROMS {
                    variants.push(([a, b, From::Register], false));
                    if arity == 3 {
                        variants.extend(FROMS.map(|c| ([a, b, c], false)));
                    }
                }
            }
            for (froms, twice) in variants {
                let run = Run::new(&program(make, froms, twice, isa), isa).unwrap();
                for round in 0..8 {
                    let weights = data(w, round, name);
                    run.compare(
                        &weights,
                        &[],
                        &format!("{name} {froms:?} {isa} round {round}"),
                    );
                }
            }
        }
    }
}

/// The interpreter's own meaning, once by hand: the comparison above is only as good as its oracle.
#[test]
fn the_oracle_of_a_dot_product_is_right() {
    let mut v = [[0u8; 64]; 3];
    v[0][4..8].copy_from_slice(&(-5i32).to_le_bytes());
    v[1][4..8].copy_from_slice(&[255, 1, 0, 2]);
    v[2][4..8].copy_from_slice(&[0x80, 3, 9, 0xFF]);
    let op = Op::DotU8I8 {
        acc: Value(0),
        u: Value(1),
        s: Value(2),
    };
    let got = i32::from_le_bytes(interp::eval(&op, &v)[4..8].try_into().unwrap());
    assert_eq!(got, -5 + 255 * -128 + 3 - 2);
}

#[test]
fn what_an_instruction_set_lacks_is_refused_with_a_reason() {
    for &isa in isas() {
        for &make in OPS {
            let name = name_and_arity(make).0;
            let made = super::emit(&program(make, [From::Register; 3], false, isa), isa);
            assert_eq!(made.is_ok(), exists(name, isa), "{name} on {isa}");
            if let Err(e) = made {
                assert!(e.why.to_string().len() > 10, "{e}");
            }
        }
    }
}

/// A shift by a number of bits.
type Shift = fn(Value, u8) -> Op;

/// Every shift by every amount; a shift by the whole element is refused.
#[test]
fn shifts_by_every_amount() {
    let ops: [(Shift, u8); 6] = [
        (Op::Shr16, 16),
        (Op::Shl16, 16),
        (Op::Sar16, 16),
        (Op::Shr32, 32),
        (Op::Shl32, 32),
        (Op::Sar32, 32),
    ];
    for isa in runnable() {
        let w = isa.width().bytes();
        for (op, bits) in ops {
            for by in 0..=bits {
                for stays in [false, true] {
                    let mut b = Builder::new("shift", isa.width());
                    b.operand(Operand::Weights, w, Promise::Bits);
                    b.operand(Operand::Out, 2 * w, Promise::Bits);
                    let x = b.op(Op::Load(Addr::new(Operand::Weights, 0)));
                    let y = b.op(op(x, by));
                    b.store(Addr::new(Operand::Out, 0), y);
                    if stays {
                        b.store(Addr::new(Operand::Out, w), x);
                    }
                    match Run::new(&b.finish(), isa) {
                        Ok(run) => {
                            run.compare(&data(w, 9, ""), &[], &format!("{:?} {isa}", op(x, by)))
                        }
                        Err(e) => assert!(by == bits, "{e}"),
                    }
                }
            }
        }
    }
}
