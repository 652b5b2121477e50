//! What a program asks of the machine: how often each kind of operation runs in one call, counted from the
//! [`Program`] without proving, emitting or running it.

use bitnet_codegen::program::{Op, Operand, Program, Stmt};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Operations of one call. A count is a number of vectors of the program's width, whatever that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Loads of each operand, in [`Operand::ALL`] order; a drain or an accumulation is one, too.
    pub loads: [u64; Operand::COUNT],
    /// Loads of some bytes that are repeated.
    pub bcasts: u64,
    /// Stores; a drain or an accumulation is one, too.
    pub stores: u64,
    /// `DotU8I8`.
    pub dots: u64,
    /// `MaddU8I8` and `MaddI16`.
    pub madds: u64,
    /// Byte shuffles and look-ups in registers.
    pub shuffles: u64,
    /// Everything else on vectors.
    pub adds: u64,
    /// Table indices read from memory.
    pub indices: u64,
    /// Prefetched lines.
    pub prefetches: u64,
    /// Turns of all loops.
    pub turns: u64,
}

impl Counts {
    /// Of one call of `program`.
    pub fn of(program: &Program) -> Self {
        let mut counts = Self::default();
        counts.body(&program.body, 1);
        counts
    }

    /// Loads of all operands, nothing repeated.
    pub fn all_loads(&self) -> u64 {
        self.loads.iter().sum()
    }

    fn body(&mut self, body: &[Stmt], times: u64) {
        for stmt in body {
            match stmt {
                Stmt::Let(_, op) => self.op(op, times),
                Stmt::LetIndex8(..) | Stmt::LetIndex16(..) => self.indices += times,
                Stmt::LetIndices8 { indices, .. } => self.indices += times * indices.len() as u64,
                Stmt::Store(..) => self.stores += times,
                Stmt::Accumulate(_, addr, _) => {
                    self.loads[addr.operand as usize] += times;
                    self.adds += times;
                    self.stores += times;
                }
                Stmt::Prefetch(_) => self.prefetches += times,
                Stmt::Loop(l) => {
                    let times = times * l.trip as u64;
                    self.turns += times;
                    self.body(&l.body, times);
                }
            }
        }
    }

    fn op(&mut self, op: &Op, times: u64) {
        match op {
            Op::Load(a) => self.loads[a.operand as usize] += times,
            Op::LoadBcast32(_) | Op::LoadBcast128(_) => self.bcasts += times,
            Op::Drain(a) => {
                self.loads[a.operand as usize] += times;
                self.stores += times;
            }
            Op::DotU8I8 { .. } => self.dots += times,
            Op::MaddU8I8 { .. } | Op::MaddI16(..) => self.madds += times,
            Op::Shuffle16 { .. }
            | Op::Lut64 { .. }
            | Op::Lut128 { .. }
            | Op::InterleaveLo8(..)
            | Op::InterleaveHi8(..)
            | Op::InterleaveLo16(..)
            | Op::InterleaveHi16(..) => self.shuffles += times,
            // Constants are made outside of loops.
            Op::Splat8(_) | Op::Splat16(_) | Op::Splat32(_) => {}
            _ => self.adds += times,
        }
    }
}

/// Bytes of memory that a call goes over again and again: everything but the weights, which stream.
pub fn working_bytes(program: &Program) -> usize {
    Operand::ALL
        .into_iter()
        .filter(|o| *o != Operand::Weights)
        .map(|o| program.bytes(o))
        .sum()
}

/// A number that programs with the same steps, constants and extents share; names do not count.
pub fn digest<'p>(programs: impl IntoIterator<Item = &'p Program>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for p in programs {
        (p.width, &p.body, &p.consts, &p.extents).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_codegen::{KernelSpec, plan};

    fn counts(spec: &str, k: usize) -> Counts {
        let spec: KernelSpec = spec.parse().expect("a spec");
        let plan = plan(&spec, k).expect("it exists");
        Counts::of(&plan.main[0].1)
    }

    #[test]
    fn a_decode_kernel_reads_each_code_once_and_dots_each_weight_once() {
        for k in [256, 2560] {
            let c = counts("i2s-i2s-1x32c16-avx512vnni-f0-pf0-u2", k);
            assert_eq!(c.dots, (32 * k / 64) as u64);
            assert_eq!(c.loads[Operand::Weights as usize], (32 * k / 4 / 64) as u64);
            assert_eq!((c.indices, c.prefetches), (0, 0));
        }
    }

    #[test]
    fn a_look_up_kernel_adds_once_for_four_weights_and_32_tokens() {
        let k = 2560;
        let c = counts("vlut-lut4-32x256c32-avx512vnni-a0-pf0-u8", k);
        assert_eq!(c.indices, (256 * k / 4) as u64);
        assert_eq!(c.dots, 0);
        let pf = counts("vlut-lut4-32x256c32-avx512vnni-a0-pf32-u8", k);
        assert!(pf.prefetches > 0);
        assert_eq!(
            Counts {
                prefetches: 0,
                ..pf
            },
            c
        );
    }

    #[test]
    fn the_digest_knows_a_twin_by_its_steps() {
        let of = |isa: &str| {
            let text = format!("vlut-lut4-32x256c32-{isa}-a0-pf0-u8");
            let spec: KernelSpec = text.parse().expect("a spec");
            digest(
                plan(&spec, 256)
                    .expect("it exists")
                    .main
                    .iter()
                    .map(|(_, p)| p),
            )
        };
        assert_eq!(of("avx512bw"), of("avx512vbmi"));
        assert_ne!(of("avx512bw"), of("avx2"));
    }
}
