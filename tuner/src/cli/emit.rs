//! `bitnet-tune emit`: one kernel as text: its program, what is proven of it, and its machine code.

use super::dimension;
use anyhow::Result;
use bitnet_cli::args::kernel_spec;
use bitnet_cli::terminal::Terminal;
use bitnet_codegen::backend::{self, Code, cranelift};
use bitnet_codegen::disassembly::Disassembly;
use bitnet_codegen::isa::{Arch, Feature};
use bitnet_codegen::program::check::Facts;
use bitnet_codegen::program::{Checked, Program};
use bitnet_codegen::{Features, Isa, KernelSpec, plan};
use clap::Args;
use serde::Serialize;
use std::fmt::Write as _;

/// What to emit, and what of it to show: program, facts and code unless told otherwise.
#[derive(Args)]
pub struct Options {
    /// The kernel's name, as `bitnet-tune list` prints it; this CPU need not run it.
    #[arg(value_parser = kernel_spec)]
    spec: KernelSpec,
    /// Input features.
    #[arg(long, default_value_t = 2560, value_parser = dimension)]
    k: usize,
    /// Only the program and what is proven of it.
    #[arg(long, conflicts_with = "asm")]
    program: bool,
    /// Only the machine code.
    #[arg(long)]
    asm: bool,
}

/// One operand of a program.
#[derive(Serialize)]
struct OperandRow {
    operand: String,
    touched_bytes: usize,
    bytes: usize,
}

/// The sum that comes closest to wrapping.
#[derive(Serialize)]
struct Sum {
    value: String,
    least: i64,
    greatest: i64,
}

/// What is proven of a program.
#[derive(Serialize)]
struct FactsRow {
    peak_live_vectors: usize,
    operands: Vec<OperandRow>,
    widest_i16: Option<Sum>,
    widest_i32: Option<Sum>,
}

/// One instruction.
#[derive(Serialize)]
struct Instruction {
    at: usize,
    bytes: String,
    text: String,
}

/// The code of a program.
#[derive(Serialize)]
struct CodeRow {
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector_registers: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    general_registers: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    instructions: Vec<Instruction>,
    /// The compiler's own listing, for processors that nothing here decodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    listing: Option<String>,
    #[serde(skip)]
    text: String,
}

/// One stage of a kernel.
#[derive(Serialize)]
struct Stage {
    name: String,
    /// Tokens of the tile; none for the stage that unpacks a panel.
    tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<FactsRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<CodeRow>,
    #[serde(skip)]
    facts_text: String,
}

#[derive(Serialize)]
struct Report {
    spec: String,
    k: usize,
    registers: usize,
    stages: Vec<Stage>,
}

/// Shows.
///
/// # Errors
/// When the kernel does not exist for K, or the output cannot be written.
pub fn run(terminal: &Terminal, options: &Options) -> Result<()> {
    let (spec, k) = (&options.spec, options.k);
    let here = Features::detect();
    // What this CPU would run, where it can; else the encodings of one that has everything.
    let cpu = if spec.isa.runs_on(here) {
        here
    } else {
        Feature::ALL.iter().copied().collect()
    };
    let plan = plan(spec, k)?;
    let main = plan.main.into_iter().map(|(mr, p)| (Some(mr), p));
    let programs = plan.unpack.into_iter().map(|p| (None, p)).chain(main);
    let report = Report {
        spec: spec.to_string(),
        k,
        registers: spec.isa.vector_registers(),
        stages: programs
            .map(|(tokens, program)| stage(tokens, program, spec.isa, cpu, options))
            .collect::<Result<_>>()?,
    };
    terminal.print(&report, || report.stages.iter().map(words).collect())
}

fn stage(
    tokens: Option<usize>,
    program: Program,
    isa: Isa,
    cpu: Features,
    options: &Options,
) -> Result<Stage> {
    let checked = Checked::new(program)?;
    let facts = checked.facts();
    Ok(Stage {
        name: checked.name.clone(),
        tokens,
        program: (!options.asm).then(|| checked.annotated().to_string()),
        facts: (!options.asm).then(|| facts_row(&facts)),
        facts_text: facts.to_string(),
        code: if options.program {
            None
        } else {
            code(&checked, isa, cpu)?
        },
    })
}

fn facts_row(facts: &Facts) -> FactsRow {
    let sum = |(v, range): &(_, bitnet_codegen::program::check::Range)| Sum {
        value: format!("{v}"),
        least: range.lo,
        greatest: range.hi,
    };
    FactsRow {
        peak_live_vectors: facts.peak_live,
        operands: facts
            .touched
            .iter()
            .map(|(operand, touched, bytes)| OperandRow {
                operand: operand.to_string(),
                touched_bytes: *touched,
                bytes: *bytes,
            })
            .collect(),
        widest_i16: facts.widest_i16.as_ref().map(sum),
        widest_i32: facts.widest_i32.as_ref().map(sum),
    }
}

/// The code of `program`; `None` where it is interpreted.
fn code(program: &Checked, isa: Isa, cpu: Features) -> Result<Option<CodeRow>> {
    let Code::Machine(bytes) = backend::for_isa(isa)?.emit(program, isa, cpu)? else {
        return Ok(None);
    };
    if isa.arch() != Arch::X86_64 {
        let target = cranelift::Target::new(isa, cpu)?;
        let listing = cranelift::compile(program, &target, true)?.listing;
        return Ok(Some(CodeRow {
            bytes: bytes.len(),
            vector_registers: None,
            general_registers: None,
            instructions: Vec::new(),
            text: listing.clone().unwrap_or_default(),
            listing,
        }));
    }
    let code = Disassembly::of(&bytes);
    Ok(Some(CodeRow {
        bytes: bytes.len(),
        vector_registers: Some(code.vector_registers),
        general_registers: Some(code.general_registers),
        text: code.to_string(),
        instructions: code
            .lines
            .into_iter()
            .map(|line| Instruction {
                at: line.at,
                bytes: line.bytes.iter().map(|b| format!("{b:02x}")).collect(),
                text: line.text,
            })
            .collect(),
        listing: None,
    }))
}

fn words(stage: &Stage) -> String {
    let mut out = String::new();
    if let Some(program) = &stage.program {
        let _ = write!(out, "{program}\nproven:\n");
        for line in stage.facts_text.lines() {
            let _ = writeln!(out, "  {line}");
        }
    }
    match &stage.code {
        Some(code) => {
            let _ = write!(out, "\n{}: {} bytes of code", stage.name, code.bytes);
            if let (Some(vector), Some(general)) = (code.vector_registers, code.general_registers) {
                let _ = write!(out, ", {vector} vector and {general} general registers");
            }
            let _ = write!(out, "\n{}", code.text);
        }
        None if stage.program.is_none() => {
            let _ = writeln!(out, "{}: interpreted, there is no code", stage.name);
        }
        None => {}
    }
    out + "\n"
}
