//! x86-64: `vpdpbusd`, `pmaddubsw`, `pmaddwd`, `pshufb`.

use super::{Factors, I8, Select, Slot, dot_tree, madd_i16_wide};
use crate::backend::cranelift::function::Emitter;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Every x86-64 instruction set: Cranelift chooses by the target's flags.
pub struct X86;

impl Select for X86 {
    fn dot_u8i8(&self, e: &mut Emitter<'_>, acc: Slot, u: Slot, s: Slot) -> Result<Value, String> {
        Ok(dot_tree(e, Factors::SignedUnsigned, acc, u, s))
    }

    fn madd_u8i8(&self, e: &mut Emitter<'_>, u: Slot, s: Slot) -> Value {
        let (u, s) = (e.get(u, I8), e.get(s, I8));
        e.f.ins().x86_pmaddubsw(s, u)
    }

    fn madd_i16(&self, e: &mut Emitter<'_>, a: Slot, b: Slot) -> Value {
        madd_i16_wide(e, a, b)
    }

    fn shuffle16(&self, e: &mut Emitter<'_>, table: Slot, idx: Slot) -> Value {
        let (table, idx) = (e.get(table, I8), e.get(idx, I8));
        e.f.ins().x86_pshufb(table, idx)
    }
}
