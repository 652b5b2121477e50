//! The wide backend against the interpreter and the oracle, and against its promises on the code itself.
//! On a CPU without an instruction set the code is still emitted and decoded; only the run is left out,
//! and said so.

mod code;
mod conformance;
mod lanes;
mod loops;
mod random;

use super::X86Wide;
use crate::acts::ActsForm;
use crate::backend::{Backend, Code};
use crate::isa::{Feature, Features, Isa};
use crate::kernel::{Kernel, KernelSet};
use crate::layout::{Panel, PanelShape, i2s};
use crate::program::{Checked, Operand, Program};
use crate::spec::KernelSpec;
use crate::variant::{OutOrder, Plan, Unsupported};
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter};
use std::sync::Arc;

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

/// A cheap hash.
fn noise(i: usize, seed: u64) -> u64 {
    let x = (i as u64 ^ seed << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (x ^ x >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 33
}

/// The code for a CPU that has everything.
fn emit(program: &Program, isa: Isa) -> Result<Vec<u8>, Unsupported> {
    emit_for(program, isa, Feature::ALL.iter().copied().collect())
}

fn emit_for(program: &Program, isa: Isa, cpu: Features) -> Result<Vec<u8>, Unsupported> {
    match X86Wide.emit(&Checked::unproven(program.clone()), isa, cpu)? {
        Code::Machine(bytes) => Ok(bytes),
        Code::Interpreted(_) => panic!("{}: no machine code", program.name),
    }
}

/// One program, emitted and interpreted.
struct Run {
    emitted: Arc<Kernel>,
    interpreted: Arc<Kernel>,
    program: Program,
}

impl Run {
    /// Builds both.
    fn new(program: &Program, isa: Isa) -> Result<Self, Unsupported> {
        emit_for(program, isa, Features::detect())?;
        let kernel = |isa: Isa| {
            let shape = PanelShape {
                nr: 4,
                k: 16,
                kr: 16,
            };
            let plan = Plan {
                spec: KernelSpec::new("test", "i2s", 1, 4, 16, isa),
                k: 16,
                panel: Panel {
                    scales: None,
                    layout: &i2s::I2s,
                    shape,
                },
                groups: None,
                acts: ActsForm::Rows,
                unpack: None,
                main: vec![(1, program.clone())],
                out: OutOrder::TokenMajor,
            };
            let set = KernelSet::build_unproven(vec![plan], Features::detect())
                .unwrap_or_else(|e| panic!("{e}\n{program}"));
            Arc::clone(&set.kernels()[0])
        };
        Ok(Self {
            emitted: kernel(isa),
            interpreted: kernel(Isa::Interp),
            program: program.clone(),
        })
    }

    /// Runs both twice (what a program leaves in scratch is the next call's) and compares all that they wrote.
    fn compare(&self, weights: &[u8], acts: &[u8], what: &str) {
        let run = |kernel: &Kernel| {
            let words = self.program.bytes(Operand::Out).div_ceil(4).max(4);
            let mut out = vec![0x5A5A_5A5Ai32; words];
            let mut scratch = kernel.scratch();
            kernel.run(1, weights, acts, &[], &mut scratch, &mut out);
            let first = out.clone();
            kernel.run(1, weights, acts, &[], &mut scratch, &mut out);
            (first, out)
        };
        let (want, got) = (run(&self.interpreted), run(&self.emitted));
        if want != got {
            let code = emit_for(&self.program, self.emitted.spec().isa, Features::detect());
            panic!(
                "{what}: emitted code differs from the interpreter\n{}\n{}\nwant {:x?}\ngot  {:x?}",
                self.program,
                listing(&code.unwrap()),
                want,
                got
            );
        }
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
