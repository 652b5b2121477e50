//! Prefetching on x86-64. Cranelift has no prefetch instruction, so runs of consecutive lines become calls of
//! the stubs in [`Args::prefetch`], under a convention that keeps every register: nothing is spilled.
//! An unused load instead of a prefetch gained nothing: it has to retire.

use super::function::{Emitter, memory};
use crate::abi::{Args, PREFETCH_LINES};
use crate::isa::Arch;
use crate::program::{Addr, Stmt};
use cranelift_codegen::ir::{AbiParam, InstBuilder, Signature, types};
use cranelift_codegen::isa::CallConv;
use std::mem::offset_of;

const LINE_BYTES: usize = 64;

/// The prefetches that `body` starts with.
pub fn run(body: &[Stmt]) -> Vec<&Addr> {
    body.iter()
        .map_while(|stmt| match stmt {
            Stmt::Prefetch(addr) => Some(addr),
            _ => None,
        })
        .collect()
}

/// Emits `addrs`, consecutive lines together. Other processors than x86-64 are left to their hardware.
pub fn emit(e: &mut Emitter<'_>, addrs: &[&Addr]) {
    if e.arch != Arch::X86_64 {
        return;
    }
    let mut rest = addrs;
    while let Some(&first) = rest.first() {
        let lines = consecutive(rest);
        let stub = PREFETCH_LINES
            .iter()
            .rposition(|&n| n <= lines)
            .expect("the smallest stub touches one line");
        call(e, first, stub);
        rest = &rest[PREFETCH_LINES[stub]..];
    }
}

/// How many of the first addresses are neighbouring lines.
fn consecutive(addrs: &[&Addr]) -> usize {
    let same = |a: &Addr, b: &Addr| {
        (a.operand, &a.terms, a.index) == (b.operand, &b.terms, b.index)
            && b.offset == a.offset + LINE_BYTES
    };
    1 + addrs
        .windows(2)
        .take_while(|pair| same(pair[0], pair[1]))
        .count()
}

fn call(e: &mut Emitter<'_>, addr: &Addr, stub: usize) {
    let signature = e.stub.unwrap_or_else(|| {
        let mut signature = Signature::new(CallConv::PreserveAll);
        signature.params.push(AbiParam::new(types::I64));
        e.f.import_signature(signature)
    });
    e.stub = Some(signature);
    let args = e.args.expect("the entry block has run");
    let (p, offset) = e.address(addr);
    let line = e.f.ins().iadd_imm_s(p, i64::from(offset));
    let at = offset_of!(Args, prefetch) + 8 * stub;
    let code = e.f.ins().load(types::I64, memory(), args, at as i32);
    e.f.ins().call_indirect(signature, code, &[line]);
}
