//! The wide backend against the interpreter and the oracle, and against its promises on the code itself.
//! On a CPU without an instruction set the code is still emitted and decoded; only the run is left out,
//! and said so.

mod conformance;

use super::X86Wide;
use crate::backend::{Backend, Code};
use crate::isa::{Features, Isa};
use crate::program::{Checked, Program};
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter};

/// The instruction sets of this backend.
fn isas() -> &'static [Isa] {
    X86Wide.isas()
}

/// The instruction sets that this CPU runs; says which it does not.
fn runnable() -> Vec<Isa> {
    let cpu = Features::detect();
    let (run, skip): (Vec<Isa>, Vec<Isa>) = isas().iter().partition(|isa| isa.runs_on(cpu));
    for isa in skip {
        eprintln!("skipped: this CPU does not run {isa}; its code was not executed");
    }
    run
}

fn machine_code(program: &Program, isa: Isa, cpu: Features) -> Vec<u8> {
    let checked = Checked::new(program.clone()).unwrap();
    match X86Wide.emit(&checked, isa, cpu).unwrap() {
        Code::Machine(bytes) => bytes,
        Code::Interpreted => panic!("{}: no machine code", program.name),
    }
}

/// The instructions up to the return; constants may follow it.
fn decode(code: &[u8]) -> Vec<Instruction> {
    let mut all = Vec::new();
    for i in Decoder::with_ip(64, code, 0, DecoderOptions::NONE) {
        all.push(i);
        if i.mnemonic() == iced_x86::Mnemonic::Ret {
            return all;
        }
    }
    panic!("code without a return");
}

/// A readable listing.
fn listing(code: &[u8]) -> String {
    let mut formatter = IntelFormatter::new();
    let mut text = String::new();
    for i in decode(code) {
        let mut line = String::new();
        formatter.format(&i, &mut line);
        text += &format!("{:5x}  {line}\n", i.ip());
    }
    text
}
