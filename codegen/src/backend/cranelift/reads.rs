//! As elements of which type each value is read first: a load takes that type, so that it can merge into its
//! reader.

use crate::program::{Element, Op, Stmt, Value as Slot};
use cranelift_codegen::ir::{Type, types};

/// Element type of accumulated memory.
pub fn vector_type(element: Element) -> Type {
    match element {
        Element::I16 => types::I16X8,
        Element::I32 => types::I32X4,
    }
}

/// The lane types in which `op` reads its inputs, in the order of [`Op::inputs`].
fn input_type(op: &Op) -> Type {
    match op {
        Op::Add16(..)
        | Op::Sub16(..)
        | Op::Shr16(..)
        | Op::Shl16(..)
        | Op::Sar16(..)
        | Op::MaddI16(..) => types::I16X8,
        Op::Add32(..)
        | Op::Sub32(..)
        | Op::MulLo32(..)
        | Op::Shr32(..)
        | Op::Shl32(..)
        | Op::Sar32(..)
        | Op::F32(..) => types::I32X4,
        Op::AddF32(..) | Op::MulF32(..) => types::F32X4,
        _ => types::I8X16,
    }
}

/// Notes the first reader's type of every value in `body`, nested loops included; `None` where none cares.
pub fn first_reads(body: &[Stmt], firsts: &mut [Option<Type>]) {
    for stmt in body {
        match stmt {
            Stmt::Let(_, Op::DotU8I8 { acc, u, s }) => {
                read(firsts, *acc, types::I32X4);
                read(firsts, *u, types::I8X16);
                read(firsts, *s, types::I8X16);
            }
            Stmt::Let(_, op) => {
                for slot in op.inputs() {
                    read(firsts, slot, input_type(op));
                }
            }
            Stmt::Store(_, slot) => read(firsts, *slot, types::I8X16),
            Stmt::Accumulate(element, _, slot) => read(firsts, *slot, vector_type(*element)),
            Stmt::Loop(l) => first_reads(&l.body, firsts),
            Stmt::LetIndex8(..)
            | Stmt::LetIndex16(..)
            | Stmt::LetIndices8 { .. }
            | Stmt::Prefetch(_) => {}
        }
    }
}

fn read(firsts: &mut [Option<Type>], slot: Slot, ty: Type) {
    firsts[slot.0 as usize].get_or_insert(ty);
}
