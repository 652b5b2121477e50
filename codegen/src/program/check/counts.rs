//! What one run of a program executes, by kind: the raw material of an estimate that needs no clock.

use super::Checked;
use crate::program::{Op, Operand, Stmt};

/// Operations and bytes of one run, loops multiplied out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Loads of vectors and broadcasts.
    pub loads: u64,
    /// Bytes that the loads bring, from any operand.
    pub load_bytes: u64,
    /// Bytes that come from the weights (loads and indices).
    pub weight_bytes: u64,
    /// Loads of table indices; several indices by one load count once.
    pub index_loads: u64,
    /// Stores of vectors, and accumulations and drains, which also store.
    pub stores: u64,
    /// Four-way dot products into i32.
    pub dots: u64,
    /// Pairwise multiply-adds.
    pub madds: u64,
    /// Byte look-ups in registers.
    pub look_ups: u64,
    /// Everything else that computes.
    pub others: u64,
    /// Prefetches.
    pub prefetches: u64,
}

impl Checked {
    /// Counts one run.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        counts.body(&self.body, 1, self.width.bytes() as u64);
        counts
    }
}

impl Counts {
    fn body(&mut self, body: &[Stmt], times: u64, width: u64) {
        for stmt in body {
            match stmt {
                Stmt::Let(_, op) => self.op(op, times, width),
                Stmt::LetIndex8(_, a) => self.index(a.operand, times, 1),
                Stmt::LetIndex16(_, a) => self.index(a.operand, times, 2),
                Stmt::LetIndices8 { indices, addr, .. } => {
                    self.index(addr.operand, times, indices.len() as u64);
                }
                Stmt::Store(..) => self.stores += times,
                Stmt::Accumulate(_, a, _) => {
                    self.load(a.operand, times, width);
                    self.others += times;
                    self.stores += times;
                }
                Stmt::Prefetch(_) => self.prefetches += times,
                Stmt::Loop(l) => {
                    self.body(&l.body, times.saturating_mul(l.trip as u64), width);
                }
            }
        }
    }

    fn load(&mut self, from: Operand, times: u64, bytes: u64) {
        self.loads += times;
        self.load_bytes += times * bytes;
        if from == Operand::Weights {
            self.weight_bytes += times * bytes;
        }
    }

    fn index(&mut self, from: Operand, times: u64, bytes: u64) {
        self.index_loads += times;
        if from == Operand::Weights {
            self.weight_bytes += times * bytes;
        }
    }

    fn op(&mut self, op: &Op, times: u64, width: u64) {
        match op {
            Op::Load(a) => self.load(a.operand, times, width),
            Op::LoadBcast32(a) => self.load(a.operand, times, 4),
            Op::LoadBcast128(a) => self.load(a.operand, times, 16),
            Op::Drain(a) => {
                self.load(a.operand, times, width);
                self.stores += times;
            }
            Op::DotU8I8 { .. } => self.dots += times,
            Op::MaddU8I8 { .. } | Op::MaddI16(..) => self.madds += times,
            Op::Shuffle16 { .. } | Op::Lut64 { .. } | Op::Lut128 { .. } => self.look_ups += times,
            _ => self.others += times,
        }
    }
}
