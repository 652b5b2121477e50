//! How `dense` takes five digits out of a byte: wide look-ups, or arithmetic and look-ups of 16 entries.

use super::{Form, MicroKernel};
use crate::layout::base3::{FIELD_WEIGHTS, MAX_BYTE, digits};
use crate::program::{Addr, Builder, Op, Operand, Value};
use crate::variant::place::Place;

/// Fields of a byte.
const FIELDS: usize = 5;

/// Constants that live in registers.
pub(super) struct Consts {
    /// c4 and 84·c4 of `byte / 4`, in 64 entries.
    upper: [Value; 2],
    /// c0 to c3 as 2-bit fields of `byte − 84·c4`, in 128 entries.
    lower: [Value; 2],
    /// 0x03, then 0x0C, 0x30, 0xC0 where fields are masked in place.
    masks: Vec<Value>,
}

/// Constants of [`Form::Arithmetic`].
pub(super) struct Small {
    p84: Value,
    p9: Value,
    bits: [Value; 3],
    /// 28·c3 and c3 of `rest / 4`.
    upper: [Value; 2],
    /// c1 and c0 of the rest below 9.
    lower: [Value; 2],
}

/// The constants of a form.
pub(super) enum Digits {
    LookUp(Consts),
    Small(Small),
}

/// What a micro-kernel does with a code: `(builder, field, token, vector, codes, x)`.
pub(super) type Each<'e> = &'e mut dyn FnMut(&mut Builder, usize, usize, usize, Value, Value);

impl MicroKernel<'_> {
    /// The constants of the form.
    pub(super) fn digits(&self, b: &mut Builder) -> Digits {
        match self.form {
            Form::Arithmetic => Digits::Small(small(b)),
            _ => Digits::LookUp(self.consts(b)),
        }
    }

    /// One step: its digits, handed to `each`.
    pub(super) fn step(&self, b: &mut Builder, digits: &Digits, place: &Place, each: Each<'_>) {
        match digits {
            Digits::Small(c) => self.arithmetic(b, c, place, each),
            Digits::LookUp(c) => self.look_up(b, c, place, each),
        }
    }

    fn consts(&self, b: &mut Builder) -> Consts {
        // Of a byte that keeps the promise, `byte >> 2` decides the upper digits.
        let c4: Vec<u8> = (0..64).map(|i| digits((4 * i).min(MAX_BYTE))[4]).collect();
        let times84: Vec<u8> = c4.iter().map(|c| FIELD_WEIGHTS[4] * c).collect();
        let lower: Vec<u8> = (0..128)
            .map(|r| {
                let c = digits(r);
                c[0] | c[1] << 2 | c[2] << 4 | (c[3] & 3) << 6
            })
            .collect();
        let mut table = |bytes: &[u8]| {
            let at = b.consts(bytes);
            b.op(Op::Load(Addr::new(Operand::Consts, at)))
        };
        let upper = [table(&c4), table(&times84)];
        let lower = [table(&lower[..64]), table(&lower[64..])];
        let fields: &[u8] = match self.form {
            Form::LutMask => &[0x03, 0x0C, 0x30, 0xC0],
            _ => &[0x03],
        };
        let masks = fields.iter().map(|&m| b.op(Op::Splat8(m))).collect();
        Consts {
            upper,
            lower,
            masks,
        }
    }

    /// One step by wide look-ups; in the mask form, fields 1 to 3 come multiplied by 4, 16, 64.
    fn look_up(&self, b: &mut Builder, c: &Consts, place: &Place, each: Each<'_>) {
        let mut upper = Vec::new();
        let mut lower = Vec::new();
        for v in 0..self.vectors {
            let bytes = self.load(b, place, v);
            // Bits of the neighbouring byte shift in above bit 5: the look-up ignores them.
            let idx = b.op(Op::Shr16(bytes, 2));
            let [c4, times84] = c.upper.map(|table| b.op(Op::Lut64 { table, idx }));
            let rest = b.op(Op::SubSatU8(bytes, times84));
            let [lo, hi] = c.lower;
            lower.push(b.op(Op::Lut128 { lo, hi, idx: rest }));
            upper.push(c4);
        }
        for f in 0..FIELDS {
            let codes: Vec<Value> = (0..self.vectors)
                .map(|v| match (f, self.form) {
                    (4, _) => upper[v],
                    (0, _) => b.op(Op::And(lower[v], c.masks[0])),
                    (f, Form::LutMask) => b.op(Op::And(lower[v], c.masks[f])),
                    (f, _) => {
                        let low = b.op(Op::Shr16(lower[v], 2 * f as u8));
                        b.op(Op::And(low, c.masks[0]))
                    }
                })
                .collect();
            for t in 0..self.mr {
                let x = self.x(b, place, t, f);
                for (v, &u) in codes.iter().enumerate() {
                    each(b, f, t, v, u, x);
                }
            }
        }
    }

    /// One step by arithmetic; every field comes as a code.
    fn arithmetic(&self, b: &mut Builder, c: &Small, place: &Place, each: Each<'_>) {
        let [three, fifteen, sixty_three] = c.bits;
        for v in 0..self.vectors {
            let bytes = self.load(b, place, v);
            let mut emit = |b: &mut Builder, f: usize, u: Value| {
                for t in 0..self.mr {
                    let x = self.x(b, place, t, f);
                    each(b, f, t, v, u, x);
                }
            };
            let rest = modulo(b, bytes, c.p84);
            let q = b.op(Op::Sub8(bytes, rest));
            // 84 >> 2 ends in 01, 168 >> 2 in 10.
            let q = b.op(Op::Shr16(q, 2));
            let c4 = b.op(Op::And(q, three));
            emit(b, 4, c4);
            let quarter = b.op(Op::Shr16(rest, 2));
            let quarter = b.op(Op::And(quarter, sixty_three));
            let idx = b.op(Op::MinU8(quarter, fifteen));
            let q = b.op(Op::Shuffle16 {
                table: c.upper[0],
                idx,
            });
            let c3 = b.op(Op::Shuffle16 {
                table: c.upper[1],
                idx,
            });
            let rest = b.op(Op::Sub8(rest, q));
            emit(b, 3, c3);
            let least = modulo(b, rest, c.p9);
            let q = b.op(Op::Sub8(rest, least));
            let c2 = b.op(Op::And(q, three));
            emit(b, 2, c2);
            let idx = b.op(Op::And(least, fifteen));
            for f in [1, 0] {
                let table = c.lower[1 - f];
                let u = b.op(Op::Shuffle16 { table, idx });
                emit(b, f, u);
            }
        }
    }
}

/// `v mod p` for `v < 3p`: the difference wraps to a large byte where it would be negative.
fn modulo(b: &mut Builder, v: Value, p: Value) -> Value {
    let mut rest = v;
    for _ in 0..2 {
        let less = b.op(Op::Sub8(rest, p));
        rest = b.op(Op::MinU8(rest, less));
    }
    rest
}

fn small(b: &mut Builder) -> Small {
    let mut table = |f: &dyn Fn(u8) -> u8| {
        let bytes: Vec<u8> = (0..16).map(f).collect();
        let at = b.consts(&bytes);
        b.op(Op::LoadBcast128(Addr::new(Operand::Consts, at)))
    };
    let c3 = |i: u8| digits(4 * i)[3];
    let upper = [table(&|i| FIELD_WEIGHTS[3] * c3(i)), table(&c3)];
    let lower = [1, 0].map(|f| table(&|i| digits(i.min(8))[f]));
    Small {
        p84: b.op(Op::Splat8(FIELD_WEIGHTS[4])),
        p9: b.op(Op::Splat8(FIELD_WEIGHTS[2])),
        bits: [3, 15, 63].map(|m| b.op(Op::Splat8(m))),
        upper,
        lower,
    }
}
