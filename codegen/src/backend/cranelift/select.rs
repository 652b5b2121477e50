//! What each op becomes. Most ops are one Cranelift instruction on every processor; the four that are not
//! (dot product, two multiply-add pairs, look-up) are a processor's own business: one impl of [`Select`] each.

mod aarch64;
mod riscv64;
mod x86_64;

use super::function::Emitter;
use super::target::Target;
use crate::isa::{Arch, Isa};
use crate::program::{Op, Value as Slot};
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};

const I8: Type = types::I8X16;
const I16: Type = types::I16X8;
const I32: Type = types::I32X4;
const F32: Type = types::F32X4;

/// Instruction selection of one processor.
pub trait Select: Sync {
    /// [`Op::DotU8I8`].
    fn dot_u8i8(&self, e: &mut Emitter<'_>, acc: Slot, u: Slot, s: Slot) -> Result<Value, String>;

    /// [`Op::MaddU8I8`].
    fn madd_u8i8(&self, e: &mut Emitter<'_>, u: Slot, s: Slot) -> Value;

    /// [`Op::MaddI16`].
    fn madd_i16(&self, e: &mut Emitter<'_>, a: Slot, b: Slot) -> Value;

    /// [`Op::Shuffle16`].
    fn shuffle16(&self, e: &mut Emitter<'_>, table: Slot, idx: Slot) -> Value;
}

/// The selection for `target`.
pub fn selector(target: &Target) -> &'static dyn Select {
    match (target.isa().arch(), target.isa()) {
        (Arch::Aarch64, Isa::Neon) => &aarch64::NEON,
        (Arch::Aarch64, Isa::Sdot) => &aarch64::SDOT,
        (Arch::Aarch64, _) => &aarch64::USDOT,
        (Arch::Riscv64, _) => &riscv64::Rvv,
        _ => &x86_64::X86,
    }
}

/// Lowers an op that neither touches memory nor is a constant.
///
/// # Errors
/// Why the op does not exist here.
pub fn op(select: &dyn Select, e: &mut Emitter<'_>, op: &Op) -> Result<Value, String> {
    Ok(match *op {
        Op::And(a, b) => binary(e, I8, a, b, |e, a, b| e.f.ins().band(a, b)),
        Op::Or(a, b) => binary(e, I8, a, b, |e, a, b| e.f.ins().bor(a, b)),
        Op::Xor(a, b) => binary(e, I8, a, b, |e, a, b| e.f.ins().bxor(a, b)),
        Op::Add8(a, b) => binary(e, I8, a, b, |e, a, b| e.f.ins().iadd(a, b)),
        Op::Sub8(a, b) => binary(e, I8, a, b, |e, a, b| e.f.ins().isub(a, b)),
        Op::SubSatU8(a, b) => binary(e, I8, a, b, |e, a, b| e.f.ins().usub_sat(a, b)),
        Op::MinU8(a, b) => binary(e, I8, a, b, |e, a, b| e.f.ins().umin(a, b)),
        Op::Add16(a, b) => binary(e, I16, a, b, |e, a, b| e.f.ins().iadd(a, b)),
        Op::Sub16(a, b) => binary(e, I16, a, b, |e, a, b| e.f.ins().isub(a, b)),
        Op::Add32(a, b) => binary(e, I32, a, b, |e, a, b| e.f.ins().iadd(a, b)),
        Op::Sub32(a, b) => binary(e, I32, a, b, |e, a, b| e.f.ins().isub(a, b)),
        Op::MulLo32(a, b) => binary(e, I32, a, b, |e, a, b| e.f.ins().imul(a, b)),
        Op::Shr16(a, s) => shift(e, I16, a, s, |e, a, n| e.f.ins().ushr(a, n)),
        Op::Shl16(a, s) => shift(e, I16, a, s, |e, a, n| e.f.ins().ishl(a, n)),
        Op::Sar16(a, s) => shift(e, I16, a, s, |e, a, n| e.f.ins().sshr(a, n)),
        Op::Shr32(a, s) => shift(e, I32, a, s, |e, a, n| e.f.ins().ushr(a, n)),
        Op::Shl32(a, s) => shift(e, I32, a, s, |e, a, n| e.f.ins().ishl(a, n)),
        Op::Sar32(a, s) => shift(e, I32, a, s, |e, a, n| e.f.ins().sshr(a, n)),
        Op::F32(a) => {
            let a = e.get(a, I32);
            e.f.ins().fcvt_from_sint(F32, a)
        }
        Op::AddF32(a, b) => binary(e, F32, a, b, |e, a, b| e.f.ins().fadd(a, b)),
        Op::MulF32(a, b) => binary(e, F32, a, b, |e, a, b| e.f.ins().fmul(a, b)),
        Op::DotU8I8 { acc, u, s } => select.dot_u8i8(e, acc, u, s)?,
        Op::MaddU8I8 { u, s } => select.madd_u8i8(e, u, s),
        Op::MaddI16(a, b) => select.madd_i16(e, a, b),
        Op::Shuffle16 { table, idx } => select.shuffle16(e, table, idx),
        Op::InterleaveLo8(a, b) => interleave(e, a, b, 1, 0),
        Op::InterleaveHi8(a, b) => interleave(e, a, b, 1, 8),
        Op::InterleaveLo16(a, b) => interleave(e, a, b, 2, 0),
        Op::InterleaveHi16(a, b) => interleave(e, a, b, 2, 8),
        Op::Lut64 { .. } | Op::Lut128 { .. } => {
            return Err("byte look-ups of 64 and 128 entries need 64-byte vectors".into());
        }
        Op::Splat8(_) | Op::Splat16(_) | Op::Splat32(_) => unreachable!("a constant"),
        Op::Load(_) | Op::LoadBcast32(_) | Op::LoadBcast128(_) | Op::Drain(_) => {
            unreachable!("reads memory")
        }
    })
}

fn binary(
    e: &mut Emitter<'_>,
    ty: Type,
    a: Slot,
    b: Slot,
    f: impl FnOnce(&mut Emitter<'_>, Value, Value) -> Value,
) -> Value {
    let (a, b) = (e.get(a, ty), e.get(b, ty));
    f(e, a, b)
}

fn shift(
    e: &mut Emitter<'_>,
    ty: Type,
    a: Slot,
    bits: u8,
    f: impl FnOnce(&mut Emitter<'_>, Value, Value) -> Value,
) -> Value {
    let a = e.get(a, ty);
    let n = e.f.ins().iconst(types::I32, i64::from(bits));
    f(e, a, n)
}

/// Elements of `unit` bytes from `a` and `b` in turns, beginning at byte `from` of each.
fn interleave(e: &mut Emitter<'_>, a: Slot, b: Slot, unit: u8, from: u8) -> Value {
    let (a, b) = (e.get(a, I8), e.get(b, I8));
    let mask: Vec<u8> = (0..16u8)
        .map(|i| {
            let (element, byte) = (i / unit, i % unit);
            from + element / 2 * unit + byte + 16 * (element % 2)
        })
        .collect();
    let mask = e.f.func.dfg.immediates.push(mask.into());
    e.f.ins().shuffle(a, b, mask)
}

/// A widening multiply of one half: which of the factors is unsigned, and whether it is the high half.
#[derive(Clone, Copy)]
enum Factors {
    /// `s` signed, then `u` unsigned: the order that x86-64's pattern wants.
    SignedUnsigned,
    /// `u` unsigned, then `s` signed: the order that aarch64's pattern wants.
    UnsignedSigned,
    /// Both signed: right if `u` is below 128.
    Signed,
}

/// i16 products of the low and of the high eight bytes. A product of a u8 and an i8 always fits.
fn products(e: &mut Emitter<'_>, factors: Factors, u: Slot, s: Slot) -> [Value; 2] {
    let (u, s) = (e.get(u, I8), e.get(s, I8));
    [false, true].map(|high| {
        let signed = |e: &mut Emitter<'_>, v| match high {
            false => e.f.ins().swiden_low(v),
            true => e.f.ins().swiden_high(v),
        };
        let unsigned = |e: &mut Emitter<'_>, v| match high {
            false => e.f.ins().uwiden_low(v),
            true => e.f.ins().uwiden_high(v),
        };
        let (a, b) = match factors {
            Factors::SignedUnsigned => (signed(e, s), unsigned(e, u)),
            Factors::UnsignedSigned => (unsigned(e, u), signed(e, s)),
            Factors::Signed => (signed(e, u), signed(e, s)),
        };
        e.f.ins().imul(a, b)
    })
}

/// The tree that Cranelift turns into one dot-product instruction where the target has it, and that is
/// exact, if slow, where it has not: nothing is narrowed.
fn dot_tree(e: &mut Emitter<'_>, factors: Factors, acc: Slot, u: Slot, s: Slot) -> Value {
    let acc = e.get(acc, I32);
    let [low, high] = products(e, factors, u, s).map(|p| pairs_i32(e, p));
    let sum = e.f.ins().iadd_pairwise(low, high);
    e.f.ins().iadd(sum, acc)
}

/// Sums of neighbouring i16, as i32.
fn pairs_i32(e: &mut Emitter<'_>, v: Value) -> Value {
    let (low, high) = (e.f.ins().swiden_low(v), e.f.ins().swiden_high(v));
    e.f.ins().iadd_pairwise(low, high)
}

/// i16 multiply-add pairs by widening.
fn madd_i16_wide(e: &mut Emitter<'_>, a: Slot, b: Slot) -> Value {
    for (x, one) in [(a, b), (b, a)] {
        if e.constant_in(one) == Some([1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]) {
            let x = e.get(x, I16);
            return pairs_i32(e, x);
        }
    }
    let (a, b) = (e.get(a, I16), e.get(b, I16));
    let (al, bl) = (e.f.ins().swiden_low(a), e.f.ins().swiden_low(b));
    let low = e.f.ins().imul(al, bl);
    let (ah, bh) = (e.f.ins().swiden_high(a), e.f.ins().swiden_high(b));
    let high = e.f.ins().imul(ah, bh);
    e.f.ins().iadd_pairwise(low, high)
}
