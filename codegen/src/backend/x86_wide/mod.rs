//! The wide x86 backend: whole micro-kernels in AVX2, AVX-VNNI and AVX-512 from one walk over a program.
//!
//! Steps: flatten (`order`), look at values (`values`) and addresses (`pointers`), give out registers
//! while listing instructions (`emit`, `carry`, `indices`, `select`, `regs`), encode (`encode`).
//! Nothing is ever spilled: a program that needs more vector registers is refused with the number it needs.
//!
//! # Notes
//! Zen 5 (2 vCPUs shared with other work, so the best of many runs), 20 Nov 2026, one thread, N = 6912,
//! K = 2560, cold weights on huge pages; `cargo bench -p bitnet-codegen` measures the same.
//!
//! | idea | result | kept |
//! |---|---|---|
//! | broadcast activations inside `vpdpbusd`, one use | decode 1x16: 41 GB/s of 42 | yes |
//! | the same by a register, two uses (1x32) | 42 GB/s, fewer loads | yes |
//! | hints 8 KiB ahead | `avx512vnni` 37 (2 KiB) → 41, `avx512bw` 36 (4 KiB) → 41 GB/s | axis `pf` |
//! | unroll two steps of decode | within noise | axis `u` |
//! | masks in place instead of shifts (`f0`, `f1`) | decode 41 against 32 GB/s | axis `f` |
//! | 12 tokens × 2 vectors in registers, shifts (`i2s`, M = 120) | 499 GMAC/s of 540 | default |
//! | two unrolled steps of that tile (8 KiB of code) | 476 GMAC/s | axis `u` |
//! | 8 × 3 vectors | 486 GMAC/s | axes |
//! | 14 × 2 vectors: fits only if the mask and every broadcast are read from memory | 448 GMAC/s | no |
//! | AVX-VNNI: 12 × 1, 5 × 2, 4 × 2, 8 × 1 vectors | 252, 246, 224, 224 GMAC/s of 270 | 5 × 2 by default |
//! | wide byte look-ups (`dense`, VBMI) | 42 GB/s, that is 1.27 × the weights of `i2s` | yes |
//! | indices taken out of one 8-byte load when first used | one register at a time instead of eight | yes |
//! | AMX (`tdpbusd`) | see below | no |
//!
//! AMX does not fit the seam: a tile is sixteen rows with a configuration that the thread loads and the
//! operating system must permit first, while a program's values are single vectors and its emitters ask
//! nobody. It would take tile values, strided tile loads and a permission in [`crate::isa::Features`].

mod carry;
mod emit;
mod encode;
mod indices;
mod order;
mod pointers;
mod regs;
mod select;
#[cfg(test)]
mod tests;
mod values;

use super::{Backend, Code};
use crate::isa::{Features, Isa};
use crate::program::Checked;
use crate::spec::{Reason, Unsupported};
use emit::Emitter;
use order::Order;
use pointers::Pointers;
use select::Target;
use values::{Effort, Values};

/// The backend.
pub struct X86Wide;

impl Backend for X86Wide {
    fn name(&self) -> &'static str {
        "x86-wide"
    }

    fn isas(&self) -> &'static [Isa] {
        &[
            Isa::Avx2,
            Isa::AvxVnni,
            Isa::Avx512Bw,
            Isa::Avx512Vnni,
            Isa::Avx512Vbmi,
        ]
    }

    fn emit(&self, program: &Checked, isa: Isa, cpu: Features) -> Result<Code, Unsupported> {
        if program.width != isa.width() {
            return Err(Unsupported::new(
                &program.name,
                Reason::Instructions(format!(
                    "its vectors have {} bytes, those of {isa} {}",
                    program.width.bytes(),
                    isa.width().bytes()
                )),
            ));
        }
        let target = Target::new(isa, cpu);
        let order = Order::new(program);
        if let Some(span) = order.loops.iter().find(|s| s.stmt.trip > i32::MAX as usize) {
            return Err(Unsupported::new(
                &program.name,
                Reason::TooFar(format!("a loop of {} turns", span.stmt.trip)),
            ));
        }
        let mut effort = Effort::default();
        loop {
            let values = Values::new(program, &order, target, effort)?;
            let pointers = Pointers::new(program, &order, &values)?;
            let attempt = Emitter::attempt(&order, &values, &pointers, target, effort);
            let vectors = attempt.vectors <= isa.vector_registers();
            let generals = attempt.generals <= regs::GENERAL_COUNT;
            if vectors && generals {
                let code = encode::encode(&attempt.items, &values.patterns, target.bytes());
                return Ok(Code::Machine(code));
            }
            let next = effort.harder(!vectors, !generals);
            if next == effort {
                return Err(out_of_registers(program, isa, &attempt));
            }
            effort = next;
        }
    }
}

impl Effort {
    /// The next thing to give up, if any is left.
    fn harder(self, vectors: bool, generals: bool) -> Self {
        let mut next = self;
        if vectors && !self.constants_in_memory {
            next.constants_in_memory = true;
        } else if vectors {
            next.repeat_broadcasts = true;
        }
        if generals {
            next.counters_on_stack = true;
        }
        next
    }
}

fn out_of_registers(program: &Checked, isa: Isa, attempt: &emit::Attempt) -> Unsupported {
    let why = if attempt.vectors > isa.vector_registers() {
        Reason::VectorRegisters {
            needed: attempt.vectors,
            have: isa.vector_registers(),
        }
    } else {
        Reason::GeneralRegisters {
            needed: attempt.generals,
            free: regs::GENERAL_COUNT,
        }
    };
    Unsupported::new(&program.name, why)
}
