//! Emitted x86-64 code as text: where each instruction is, its bytes, and what a decoder makes of them.

use iced_x86::{
    Decoder, DecoderOptions, Formatter as _, InstructionInfoFactory, IntelFormatter, Mnemonic,
};
use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};

/// Constants on a line.
const BYTES_PER_LINE: usize = 16;

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Bytes from the start of the function.
    pub at: usize,
    /// Its encoding.
    pub bytes: Vec<u8>,
    /// In Intel's syntax.
    pub text: String,
}

/// A function, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disassembly {
    /// The instructions up to the return.
    pub lines: Vec<Line>,
    /// What follows it: padding and the constants that the code reads.
    pub data: Vec<u8>,
    /// Different vector registers that are named.
    pub vector_registers: usize,
    /// Different general registers that are named.
    pub general_registers: usize,
}

impl Disassembly {
    /// Decodes `code`, one function that ends with its only return.
    pub fn of(code: &[u8]) -> Self {
        let mut formatter = IntelFormatter::new();
        let options = formatter.options_mut();
        options.set_hex_prefix("0x");
        options.set_hex_suffix("");
        options.set_branch_leading_zeros(false);
        let mut info = InstructionInfoFactory::new();
        let (mut vector, mut general) = (BTreeSet::new(), BTreeSet::new());
        let mut lines = Vec::new();
        let mut end = 0;
        for instruction in Decoder::with_ip(64, code, 0, DecoderOptions::NONE) {
            let mut text = String::new();
            formatter.format(&instruction, &mut text);
            for used in info.info(&instruction).used_registers() {
                let register = used.register();
                if register.is_vector_register() {
                    vector.insert(register.number());
                } else if register.is_gpr() {
                    general.insert(register.number());
                }
            }
            let at = end;
            end += instruction.len();
            lines.push(Line {
                at,
                bytes: code[at..end].to_vec(),
                text,
            });
            if instruction.mnemonic() == Mnemonic::Ret {
                break;
            }
        }
        Self {
            lines,
            data: code[end..].to_vec(),
            vector_registers: vector.len(),
            general_registers: general.len(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Display for Disassembly {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{:5x}  {:22}  {}", line.at, hex(&line.bytes), line.text)?;
        }
        let start = self.lines.iter().map(|l| l.bytes.len()).sum::<usize>();
        for (i, row) in self.data.chunks(BYTES_PER_LINE).enumerate() {
            writeln!(f, "{:5x}  {}", start + i * BYTES_PER_LINE, hex(row))?;
        }
        Ok(())
    }
}
