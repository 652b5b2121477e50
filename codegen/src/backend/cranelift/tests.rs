//! Tests of the portable emitter: lanes of every op, whole programs against the interpreter, i2s against the
//! oracle, and what the emitted instructions are.

mod conformance;
mod lanes;
mod listing;

use super::Cranelift;
use crate::acts::ActsForm;
use crate::backend::Backend as _;
use crate::isa::{Arch, Features, Isa};
use crate::kernel::{Kernel, KernelSet};
use crate::layout::{Panel, PanelShape, i2s};
use crate::program::{Operand, Program};
use crate::spec::KernelSpec;
use crate::variant::{OutOrder, Plan};
use std::io::Write as _;
use std::sync::{Arc, Once};

/// The portable instruction sets that run here, and once a loud line for those that do not.
fn runnable() -> Vec<Isa> {
    static SAID: Once = Once::new();
    let cpu = Features::detect();
    let (yes, no): (Vec<Isa>, Vec<Isa>) = Cranelift.isas().iter().partition(|i| i.runs_on(cpu));
    assert!(
        !yes.is_empty() || Arch::HOST == Arch::Any,
        "nothing runs on {cpu:?}"
    );
    SAID.call_once(|| {
        let no: Vec<_> = no.iter().map(|i| i.name()).collect();
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED on this CPU: lanes and tails of {}; tests/ahead.rs runs foreign ones emulated",
            no.join(", ")
        );
    });
    yes
}

/// A kernel that runs one program as it is.
fn kernel(program: &Program, isa: Isa) -> Arc<Kernel> {
    let plan = Plan {
        spec: KernelSpec::new("test", "i2s", 1, 4, 16, isa),
        k: 16,
        panel: Panel {
            scales: None,
            layout: &i2s::I2s,
            shape: PanelShape {
                nr: 4,
                k: 16,
                kr: 16,
            },
        },
        groups: None,
        acts: ActsForm::Rows,
        unpack: None,
        main: vec![(1, program.clone())],
        out: OutOrder::TokenMajor,
    };
    let set = KernelSet::build_unproven(vec![plan], Features::detect())
        .unwrap_or_else(|e| panic!("{isa}: {e}\n{program}"));
    Arc::clone(&set.kernels()[0])
}

/// What a program reads.
struct Inputs {
    weights: Vec<u8>,
    acts: Vec<u8>,
    sums: Vec<i32>,
}

/// Runs `program` on `isa` `calls` times with the same scratch and returns what it wrote last.
fn run(program: &Program, isa: Isa, inputs: &Inputs, calls: usize) -> Vec<i32> {
    let kernel = kernel(program, isa);
    let mut scratch = kernel.scratch();
    let mut out = vec![-1; program.bytes(Operand::Out).div_ceil(4).max(4)];
    for _ in 0..calls {
        kernel.run(
            1,
            &inputs.weights,
            &inputs.acts,
            &inputs.sums,
            &mut scratch,
            &mut out,
        );
    }
    out
}

/// Repeatable noise.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number of `lo..=hi`; each end one time in four.
    fn between(&mut self, lo: i64, hi: i64) -> i64 {
        match self.next() >> 13 & 3 {
            0 => lo,
            1 => hi,
            _ => lo + ((self.next() >> 8) % (hi - lo + 1) as u64) as i64,
        }
    }
}
