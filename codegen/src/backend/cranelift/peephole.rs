//! One repair of finished x86-64 code: a load and a broadcast of the same register become one instruction.
//!
//! Cranelift merges a load into a broadcast only if the result has one reader, and an activation is read by
//! every weight vector. Merged, the broadcast needs no vector unit, of which a dot product leaves none idle.
//! Code is patched in place and filled up with a `nop`, so that no branch or constant moves.

use iced_x86::{Code, Decoder, DecoderOptions, Encoder, FlowControl, Instruction};

/// Merges every `vmovss x, [m]; vbroadcastss x, x`. The second overwrites the register, so nobody else can
/// have read the first.
pub fn merge_broadcasts(code: &mut [u8]) {
    for pair in instructions(code).windows(2) {
        let (load, broadcast) = (&pair[0], &pair[1]);
        let register = load.op0_register();
        let fits = load.code() == Code::VEX_Vmovss_xmm_m32
            && broadcast.code() == Code::VEX_Vbroadcastss_xmm_xmm
            && broadcast.op0_register() == register
            && broadcast.op1_register() == register;
        if !fits {
            continue;
        }
        let mut merged = *load;
        merged.set_code(Code::VEX_Vbroadcastss_xmm_m32);
        let (from, room) = (load.ip() as usize, load.len() + broadcast.len());
        let mut encoder = Encoder::new(64);
        let Ok(length) = encoder.encode(&merged, load.ip()) else {
            continue;
        };
        let mut bytes = encoder.take_buffer();
        if length <= room {
            bytes.extend(nop(room - length));
            code[from..from + room].copy_from_slice(&bytes);
        }
    }
}

/// The instructions up to where control flow ends; constants follow.
pub fn instructions(code: &[u8]) -> Vec<Instruction> {
    let mut list = Vec::new();
    let mut reached = 0;
    for i in &mut Decoder::with_ip(64, code, 0, DecoderOptions::NONE) {
        assert!(
            !i.is_invalid(),
            "byte {:#x} of emitted code does not decode",
            i.ip()
        );
        list.push(i);
        let ends = match i.flow_control() {
            FlowControl::UnconditionalBranch => {
                reached = reached.max(i.near_branch_target());
                true
            }
            FlowControl::ConditionalBranch => {
                reached = reached.max(i.near_branch_target());
                false
            }
            FlowControl::Return => true,
            _ => false,
        };
        if ends && reached < i.next_ip() {
            break;
        }
    }
    list
}

/// One `nop` of up to nine bytes, as the vendors' manuals recommend.
fn nop(bytes: usize) -> &'static [u8] {
    const NOPS: [&[u8]; 10] = [
        &[],
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
    NOPS[bytes]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `vmovss xmm14,[rdx+4]; vbroadcastss xmm14,xmm14; ret`, and the same into another register.
    #[test]
    fn only_the_same_register_is_merged() {
        let load = [0xC5, 0x7A, 0x10, 0x72, 0x04];
        let same = [0xC4, 0x42, 0x79, 0x18, 0xF6];
        let other = [0xC4, 0xC2, 0x79, 0x18, 0xCE];
        let mut code = [&load[..], &same, &[0xC3]].concat();
        merge_broadcasts(&mut code);
        let list = instructions(&code);
        assert_eq!(list[0].code(), Code::VEX_Vbroadcastss_xmm_m32);
        assert_eq!(list[0].memory_displacement64(), 4);
        assert_eq!(list.len(), 3, "broadcast, nop, return");
        let kept = [&load[..], &other, &[0xC3]].concat();
        let mut code = kept.clone();
        merge_broadcasts(&mut code);
        assert_eq!(code, kept);
    }
}
