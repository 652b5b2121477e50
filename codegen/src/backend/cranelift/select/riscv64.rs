//! riscv64 V at 128 bits. Sums of neighbours are expensive (two compressions each), so pairs are taken apart
//! by shifts inside wider lanes instead: no byte changes its lane.

use super::{I8, I16, I32, Select, Slot};
use crate::backend::cranelift::function::Emitter;
use cranelift_codegen::ir::{InstBuilder, Value, types};

/// The selection.
pub struct Rvv;

impl Select for Rvv {
    fn dot_u8i8(&self, e: &mut Emitter<'_>, acc: Slot, u: Slot, s: Slot) -> Result<Value, String> {
        let acc = e.get(acc, I32);
        let mut sum = acc;
        for p in products(e, u, s) {
            let p = e.cast(p, I32);
            for part in halves_signed(e, p, 16) {
                sum = e.f.ins().iadd(sum, part);
            }
        }
        Ok(sum)
    }

    fn madd_u8i8(&self, e: &mut Emitter<'_>, u: Slot, s: Slot) -> Value {
        let [even, odd] = products(e, u, s);
        e.f.ins().iadd(even, odd)
    }

    fn madd_i16(&self, e: &mut Emitter<'_>, a: Slot, b: Slot) -> Value {
        let (a, b) = (e.get(a, I32), e.get(b, I32));
        let ([a0, a1], [b0, b1]) = (halves_signed(e, a, 16), halves_signed(e, b, 16));
        let (even, odd) = (e.f.ins().imul(a0, b0), e.f.ins().imul(a1, b1));
        e.f.ins().iadd(even, odd)
    }

    fn shuffle16(&self, e: &mut Emitter<'_>, table: Slot, idx: Slot) -> Value {
        let (table, idx) = (e.get(table, I8), e.get(idx, I8));
        e.f.ins().swizzle(table, idx)
    }
}

/// i16 products of the even and of the odd bytes: a u8 times an i8 always fits.
fn products(e: &mut Emitter<'_>, u: Slot, s: Slot) -> [Value; 2] {
    let (u, s) = (e.get(u, I16), e.get(s, I16));
    let [s0, s1] = halves_signed(e, s, 8);
    let n = shift_count(e, 8);
    let up = e.f.ins().ishl(u, n);
    let (u0, u1) = (e.f.ins().ushr(up, n), e.f.ins().ushr(u, n));
    [e.f.ins().imul(u0, s0), e.f.ins().imul(u1, s1)]
}

/// The low and the high half of each lane, sign-extended.
fn halves_signed(e: &mut Emitter<'_>, v: Value, bits: i64) -> [Value; 2] {
    let n = shift_count(e, bits);
    let up = e.f.ins().ishl(v, n);
    [e.f.ins().sshr(up, n), e.f.ins().sshr(v, n)]
}

fn shift_count(e: &mut Emitter<'_>, bits: i64) -> Value {
    e.f.ins().iconst(types::I32, bits)
}
