//! Instructions to bytes in one pass: loops only jump backwards, so every target is known. Hot loop heads
//! are aligned; constants follow the code and are patched in.

use iced_x86::{Code, Encoder, Instruction, MemoryOperand, Register};

/// One piece of code.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item {
    /// An instruction.
    Plain(Instruction),
    /// An instruction whose memory operand is a constant: `rip` plus what is patched in.
    Constant(Instruction, usize),
    /// The head of a loop, and its alignment in bytes.
    Head(usize, usize),
    /// `jne` to the head of a loop.
    Back(usize),
}

/// A memory operand `[base + index·scale + displacement]`.
pub(super) fn memory(
    base: Register,
    index: Option<(Register, u32)>,
    displacement: i64,
    bcast: bool,
) -> MemoryOperand {
    let (index, scale) = index.unwrap_or((Register::None, 1));
    let size = if displacement == 0 { 0 } else { 1 };
    MemoryOperand::new(
        base,
        index,
        scale,
        displacement,
        size,
        bcast,
        Register::None,
    )
}

/// The operand of [`Item::Constant`].
pub(super) fn constant(bcast: bool) -> MemoryOperand {
    MemoryOperand::new(
        Register::RIP,
        Register::None,
        1,
        0,
        8,
        bcast,
        Register::None,
    )
}

/// `nop`s of one to nine bytes, as both vendors recommend them.
const NOPS: [&[u8]; 9] = [
    &[0x90],
    &[0x66, 0x90],
    &[0x0F, 0x1F, 0x00],
    &[0x0F, 0x1F, 0x40, 0x00],
    &[0x0F, 0x1F, 0x44, 0x00, 0x00],
    &[0x66, 0x0F, 0x1F, 0x44, 0x00, 0x00],
    &[0x0F, 0x1F, 0x80, 0x00, 0x00, 0x00, 0x00],
    &[0x0F, 0x1F, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
    &[0x66, 0x0F, 0x1F, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
];

/// Encodes `items`; `patterns` are the dwords of the constants and `repeat` how many bytes each fills.
///
/// # Panics
/// When an instruction cannot be encoded: a bug in the selection.
pub(super) fn encode(items: &[Item], patterns: &[u32], repeat: usize) -> Vec<u8> {
    let mut encoder = Encoder::new(64);
    let mut heads: Vec<u64> = Vec::new();
    // (position of the displacement, end of the instruction, constant)
    let mut patches: Vec<(usize, usize, usize)> = Vec::new();
    let mut at = 0u64;
    for item in items {
        match *item {
            Item::Plain(instruction) => at += put(&mut encoder, &instruction, at),
            Item::Constant(mut instruction, id) => {
                // Any target near by: the true one is patched in.
                instruction.set_memory_displacement64(at);
                let start = at as usize;
                at += put(&mut encoder, &instruction, at);
                let field = encoder.get_constant_offsets().displacement_offset();
                patches.push((start + field, at as usize, id));
            }
            Item::Head(l, align) => {
                let mut pad = (at.next_multiple_of(align as u64) - at) as usize;
                while pad > 0 {
                    let n = pad.min(NOPS.len());
                    for &byte in NOPS[n - 1] {
                        encoder.write_u8(byte);
                    }
                    pad -= n;
                    at += n as u64;
                }
                if heads.len() <= l {
                    heads.resize(l + 1, 0);
                }
                heads[l] = at;
            }
            Item::Back(l) => {
                // A short `jne` is two bytes long and reaches 128 back from its end.
                let near = at + 2 - heads[l] <= 128;
                let code = if near {
                    Code::Jne_rel8_64
                } else {
                    Code::Jne_rel32_64
                };
                let jump = Instruction::with_branch(code, heads[l]).expect("a branch");
                at += put(&mut encoder, &jump, at);
            }
        }
    }
    let mut bytes = encoder.take_buffer();
    if !patches.is_empty() {
        let pool = bytes.len().next_multiple_of(64);
        bytes.resize(pool, 0xCC);
        for pattern in patterns {
            for _ in 0..repeat / 4 {
                bytes.extend(pattern.to_le_bytes());
            }
        }
        for (field, end, id) in patches {
            let displacement = (pool + id * repeat) as i32 - end as i32;
            bytes[field..field + 4].copy_from_slice(&displacement.to_le_bytes());
        }
    }
    bytes
}

fn put(encoder: &mut Encoder, instruction: &Instruction, at: u64) -> u64 {
    encoder
        .encode(instruction, at)
        .unwrap_or_else(|e| panic!("{:?} cannot be encoded: {e}", instruction.code())) as u64
}
