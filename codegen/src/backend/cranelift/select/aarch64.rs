//! aarch64: `sdot`, `usdot`, `smull` pairs, `tbl`.

use super::{Factors, I8, Select, Slot, dot_tree, madd_i16_wide, products};
use crate::backend::cranelift::function::Emitter;
use cranelift_codegen::ir::{InstBuilder, Value};

/// NEON with what dot products the target has.
pub struct Aarch64 {
    dot: Dot,
}

#[derive(Clone, Copy, PartialEq)]
enum Dot {
    None,
    Signed,
    Mixed,
}

/// Without dot products.
pub const NEON: Aarch64 = Aarch64 { dot: Dot::None };
/// With `sdot`.
pub const SDOT: Aarch64 = Aarch64 { dot: Dot::Signed };
/// With `sdot` and `usdot`.
pub const USDOT: Aarch64 = Aarch64 { dot: Dot::Mixed };

/// Signed factors are shorter (`smull`, `sdot`) but right only if `u` stays below 128.
fn factors(e: &Emitter<'_>, u: Slot) -> Factors {
    if e.below_128(u) {
        Factors::Signed
    } else {
        Factors::UnsignedSigned
    }
}

impl Select for Aarch64 {
    fn dot_u8i8(&self, e: &mut Emitter<'_>, acc: Slot, u: Slot, s: Slot) -> Result<Value, String> {
        let factors = factors(e, u);
        if self.dot == Dot::Signed && !matches!(factors, Factors::Signed) {
            return Err(format!(
                "sdot multiplies signed bytes, and v{} is not proven to stay below 128",
                u.0
            ));
        }
        Ok(dot_tree(e, factors, acc, u, s))
    }

    fn madd_u8i8(&self, e: &mut Emitter<'_>, u: Slot, s: Slot) -> Value {
        let factors = factors(e, u);
        let [low, high] = products(e, factors, u, s);
        e.f.ins().iadd_pairwise(low, high)
    }

    fn madd_i16(&self, e: &mut Emitter<'_>, a: Slot, b: Slot) -> Value {
        madd_i16_wide(e, a, b)
    }

    fn shuffle16(&self, e: &mut Emitter<'_>, table: Slot, idx: Slot) -> Value {
        let (table, idx) = (e.get(table, I8), e.get(idx, I8));
        e.f.ins().swizzle(table, idx)
    }
}
