//! Which instruction an op becomes: VEX on 32-byte vectors, EVEX on 64-byte ones. Every code in this
//! file belongs to the instruction set it is chosen for; `tests.rs` decodes kernels to prove it.

use crate::isa::{Feature, Features, Isa};
use crate::program::{Op, Width};
use crate::spec::{Reason, Unsupported};
use iced_x86::{Code, Register};

/// What the emitter may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// The instruction set.
    pub isa: Isa,
    /// 64-byte vectors in EVEX encoding; otherwise 32-byte ones in VEX encoding.
    pub wide: bool,
    /// `vpdpbusd`, and whether its encoding takes a broadcast dword from memory.
    pub dot: Option<(Code, bool)>,
}

impl Target {
    /// The target of `isa`; where an instruction has two encodings, `cpu` decides.
    pub fn new(isa: Isa, cpu: Features) -> Self {
        let wide = isa.width() == Width::W64;
        let dot = isa
            .has_dot()
            .then(|| match (wide, cpu.has(Feature::AvxVnni)) {
                (true, _) => (Code::EVEX_Vpdpbusd_zmm_k1z_zmm_zmmm512b32, true),
                (false, true) => (Code::VEX_Vpdpbusd_ymm_ymm_ymmm256, false),
                (false, false) => (Code::EVEX_Vpdpbusd_ymm_k1z_ymm_ymmm256b32, true),
            });
        Self { isa, wide, dot }
    }

    /// Bytes of a vector.
    pub fn bytes(self) -> usize {
        if self.wide { 64 } else { 32 }
    }

    /// Vector register `n`.
    pub fn vector(self, n: usize) -> Register {
        let base = if self.wide {
            Register::ZMM0
        } else {
            Register::YMM0
        };
        // A number past the last register only occurs in an attempt that is thrown away.
        base + (n % self.isa.vector_registers()) as u32
    }

    /// `vex` or `evex`, as the width wants it.
    pub fn pick(self, vex: Code, evex: Code) -> Code {
        if self.wide { evex } else { vex }
    }
}

/// How an op is encoded. Memory may stand for the last source only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A constant.
    Splat,
    /// Memory to register.
    Load(Code),
    /// Memory to register, then zero to memory.
    Drain,
    /// `dst = code(inputs[first], inputs[1 − first])`.
    Two {
        code: Code,
        /// The input that comes first.
        first: usize,
        /// Whether the inputs may change places.
        commutes: bool,
        /// Whether the last source may be a broadcast dword.
        bcast: bool,
    },
    /// `dst = code(src)`.
    One(Code),
    /// `dst = code(src, imm)`; `memory`: whether the source may be memory.
    Shift { code: Code, imm: u32, memory: bool },
    /// `acc = code(acc, u, s)`.
    Dot { code: Code, bcast: bool },
    /// `vpermi2b` or `vpermt2b`.
    Lut128,
}

/// The dword that a splat repeats, if `op` is one.
pub(super) fn splat(op: &Op) -> Option<u32> {
    match *op {
        Op::Splat8(x) => Some(x as u32 * 0x0101_0101),
        Op::Splat16(x) => Some(x as u16 as u32 * 0x0001_0001),
        Op::Splat32(x) => Some(x as u32),
        _ => None,
    }
}

/// The encoding of `op` on `t`.
///
/// # Errors
/// [`Unsupported`] when the instruction set has no such instruction.
pub(super) fn shape(op: &Op, t: Target) -> Result<Shape, Unsupported> {
    use Code::*;
    let two = |vex, evex, commutes, bcast: bool| Shape::Two {
        code: t.pick(vex, evex),
        first: 0,
        commutes,
        bcast: bcast && t.wide,
    };
    Ok(match op {
        Op::Splat8(_) | Op::Splat16(_) | Op::Splat32(_) => Shape::Splat,
        Op::Load(_) => Shape::Load(t.pick(VEX_Vmovdqu_ymm_ymmm256, EVEX_Vmovdqu64_zmm_k1z_zmmm512)),
        Op::LoadBcast32(_) => Shape::Load(t.pick(
            VEX_Vpbroadcastd_ymm_xmmm32,
            EVEX_Vpbroadcastd_zmm_k1z_xmmm32,
        )),
        Op::LoadBcast128(_) => Shape::Load(t.pick(
            VEX_Vbroadcasti128_ymm_m128,
            EVEX_Vbroadcasti32x4_zmm_k1z_m128,
        )),
        Op::Drain(_) => Shape::Drain,
        Op::And(..) => two(
            VEX_Vpand_ymm_ymm_ymmm256,
            EVEX_Vpandd_zmm_k1z_zmm_zmmm512b32,
            true,
            true,
        ),
        Op::Or(..) => two(
            VEX_Vpor_ymm_ymm_ymmm256,
            EVEX_Vpord_zmm_k1z_zmm_zmmm512b32,
            true,
            true,
        ),
        Op::Xor(..) => two(
            VEX_Vpxor_ymm_ymm_ymmm256,
            EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32,
            true,
            true,
        ),
        Op::Add8(..) => two(
            VEX_Vpaddb_ymm_ymm_ymmm256,
            EVEX_Vpaddb_zmm_k1z_zmm_zmmm512,
            true,
            false,
        ),
        Op::Sub8(..) => two(
            VEX_Vpsubb_ymm_ymm_ymmm256,
            EVEX_Vpsubb_zmm_k1z_zmm_zmmm512,
            false,
            false,
        ),
        Op::SubSatU8(..) => two(
            VEX_Vpsubusb_ymm_ymm_ymmm256,
            EVEX_Vpsubusb_zmm_k1z_zmm_zmmm512,
            false,
            false,
        ),
        Op::MinU8(..) => two(
            VEX_Vpminub_ymm_ymm_ymmm256,
            EVEX_Vpminub_zmm_k1z_zmm_zmmm512,
            true,
            false,
        ),
        Op::Add16(..) => two(
            VEX_Vpaddw_ymm_ymm_ymmm256,
            EVEX_Vpaddw_zmm_k1z_zmm_zmmm512,
            true,
            false,
        ),
        Op::Sub16(..) => two(
            VEX_Vpsubw_ymm_ymm_ymmm256,
            EVEX_Vpsubw_zmm_k1z_zmm_zmmm512,
            false,
            false,
        ),
        Op::Add32(..) => two(
            VEX_Vpaddd_ymm_ymm_ymmm256,
            EVEX_Vpaddd_zmm_k1z_zmm_zmmm512b32,
            true,
            true,
        ),
        Op::Sub32(..) => two(
            VEX_Vpsubd_ymm_ymm_ymmm256,
            EVEX_Vpsubd_zmm_k1z_zmm_zmmm512b32,
            false,
            true,
        ),
        Op::MulLo32(..) => two(
            VEX_Vpmulld_ymm_ymm_ymmm256,
            EVEX_Vpmulld_zmm_k1z_zmm_zmmm512b32,
            true,
            true,
        ),
        Op::F32(_) => Shape::One(t.pick(
            VEX_Vcvtdq2ps_ymm_ymmm256,
            EVEX_Vcvtdq2ps_zmm_k1z_zmmm512b32_er,
        )),
        Op::AddF32(..) => two(
            VEX_Vaddps_ymm_ymm_ymmm256,
            EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er,
            true,
            true,
        ),
        Op::MulF32(..) => two(
            VEX_Vmulps_ymm_ymm_ymmm256,
            EVEX_Vmulps_zmm_k1z_zmm_zmmm512b32_er,
            true,
            true,
        ),
        Op::MaddU8I8 { .. } => two(
            VEX_Vpmaddubsw_ymm_ymm_ymmm256,
            EVEX_Vpmaddubsw_zmm_k1z_zmm_zmmm512,
            false,
            false,
        ),
        Op::MaddI16(..) => two(
            VEX_Vpmaddwd_ymm_ymm_ymmm256,
            EVEX_Vpmaddwd_zmm_k1z_zmm_zmmm512,
            true,
            false,
        ),
        Op::Shuffle16 { .. } => two(
            VEX_Vpshufb_ymm_ymm_ymmm256,
            EVEX_Vpshufb_zmm_k1z_zmm_zmmm512,
            false,
            false,
        ),
        Op::InterleaveLo8(..) => two(
            VEX_Vpunpcklbw_ymm_ymm_ymmm256,
            EVEX_Vpunpcklbw_zmm_k1z_zmm_zmmm512,
            false,
            false,
        ),
        Op::InterleaveHi8(..) => two(
            VEX_Vpunpckhbw_ymm_ymm_ymmm256,
            EVEX_Vpunpckhbw_zmm_k1z_zmm_zmmm512,
            false,
            false,
        ),
        Op::InterleaveLo16(..) => two(
            VEX_Vpunpcklwd_ymm_ymm_ymmm256,
            EVEX_Vpunpcklwd_zmm_k1z_zmm_zmmm512,
            false,
            false,
        ),
        Op::InterleaveHi16(..) => two(
            VEX_Vpunpckhwd_ymm_ymm_ymmm256,
            EVEX_Vpunpckhwd_zmm_k1z_zmm_zmmm512,
            false,
            false,
        ),
        Op::Shr16(..)
        | Op::Shl16(..)
        | Op::Sar16(..)
        | Op::Shr32(..)
        | Op::Shl32(..)
        | Op::Sar32(..) => shift(op, t)?,
        Op::DotU8I8 { .. } => {
            let (code, bcast) = t.dot.ok_or_else(|| {
                Unsupported::new(
                    t.isa,
                    Reason::Instructions(
                        "it has no dot product; the family's MaddU8I8 form fits it".into(),
                    ),
                )
            })?;
            Shape::Dot { code, bcast }
        }
        Op::Lut64 { .. } | Op::Lut128 { .. } if !t.isa.has_wide_lut() => {
            return Err(Unsupported::new(
                t.isa,
                Reason::Instructions("it has no byte look-up across 64 bytes".into()),
            ));
        }
        Op::Lut64 { .. } => Shape::Two {
            code: EVEX_Vpermb_zmm_k1z_zmm_zmmm512,
            first: 1,
            commutes: false,
            bcast: false,
        },
        Op::Lut128 { .. } => Shape::Lut128,
    })
}

fn shift(op: &Op, t: Target) -> Result<Shape, Unsupported> {
    use Code::*;
    let (vex, evex, by, bits) = match *op {
        Op::Shr16(_, s) => (
            VEX_Vpsrlw_ymm_ymm_imm8,
            EVEX_Vpsrlw_zmm_k1z_zmmm512_imm8,
            s,
            16,
        ),
        Op::Shl16(_, s) => (
            VEX_Vpsllw_ymm_ymm_imm8,
            EVEX_Vpsllw_zmm_k1z_zmmm512_imm8,
            s,
            16,
        ),
        Op::Sar16(_, s) => (
            VEX_Vpsraw_ymm_ymm_imm8,
            EVEX_Vpsraw_zmm_k1z_zmmm512_imm8,
            s,
            16,
        ),
        Op::Shr32(_, s) => (
            VEX_Vpsrld_ymm_ymm_imm8,
            EVEX_Vpsrld_zmm_k1z_zmmm512b32_imm8,
            s,
            32,
        ),
        Op::Shl32(_, s) => (
            VEX_Vpslld_ymm_ymm_imm8,
            EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8,
            s,
            32,
        ),
        Op::Sar32(_, s) => (
            VEX_Vpsrad_ymm_ymm_imm8,
            EVEX_Vpsrad_zmm_k1z_zmmm512b32_imm8,
            s,
            32,
        ),
        _ => unreachable!("{op:?} is no shift"),
    };
    if by >= bits {
        return Err(Unsupported::new(
            t.isa,
            Reason::Instructions(format!("a shift by {by} of {bits}-bit elements")),
        ));
    }
    Ok(Shape::Shift {
        code: t.pick(vex, evex),
        imm: by as u32,
        memory: t.wide,
    })
}
