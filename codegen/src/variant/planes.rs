//! What `tl1` and `tl2` share: exact i16 table entries looked up as two planes of bytes, for strips of 64 rows.
//!
//! ```text
//! lo = shuffle(low bytes, idx);  hi = shuffle(high bytes, idx);  i16 = interleave(lo, hi)
//! after each flush bound:  out[t][row] += widen(acc)
//! ```
//! The i16 sums stay in registers, the i32 sums in the result: a vector of W rows takes two registers
//! a token, where i32 sums in registers would take four more.

use super::Unsupported;
use super::place::Place;
use crate::layout::Panel;
use crate::layout::strip::STRIP;
use crate::program::{Addr, Builder, Element, Op, Operand, Promise, Value};
use crate::spec::{Axis, KernelSpec, Reason};

/// What one micro-kernel is built from.
#[derive(Clone, Copy)]
pub(super) struct MicroKernel<'a> {
    pub spec: &'a KernelSpec,
    pub k: usize,
    pub panel: Panel,
    pub mr: usize,
    /// Vectors of W rows.
    pub vectors: usize,
    /// Steps of the padded K.
    pub steps: usize,
    /// Steps of a turn.
    pub unroll: usize,
    /// Steps whose sums fit an i16.
    pub flush: usize,
    /// Packed bytes of a step.
    pub step_bytes: usize,
}

/// What one step does to the i16 sums, `[mr][vectors][low or high half]`.
pub(super) type Step<'s> = &'s dyn Fn(&mut Builder, &Place, &mut Vec<Value>);

/// The axes of both families; tokens beyond what the registers hold are refused by [`MicroKernel::new`].
pub(super) fn axes(m: usize, kr: usize, unroll: Vec<u32>) -> Vec<Axis> {
    let axis = |name, values| Axis { name, values };
    vec![
        axis(
            "mr",
            match m {
                1 => vec![1],
                2..=3 => vec![1, 2],
                _ => vec![1, 2, 4],
            },
        ),
        axis("nr", vec![STRIP as u32, 2 * STRIP as u32]),
        axis("kr", vec![kr as u32]),
        axis("u", unroll),
        axis(
            "pf",
            if m == 1 {
                vec![64, 0, 32, 128]
            } else {
                vec![0, 32]
            },
        ),
    ]
}

impl<'a> MicroKernel<'a> {
    /// One of `step_bytes` a step that flushes every `flush` steps and needs `work` registers besides sums.
    pub fn new(
        spec: &'a KernelSpec,
        panel: Panel,
        step_bytes: usize,
        flush: usize,
        work: usize,
    ) -> Result<Self, Unsupported> {
        if let Some(why) = panel.layout.unsupported(panel.shape) {
            return Err(Unsupported::new(spec, why));
        }
        let vectors = spec.nr / spec.isa.width().bytes();
        let live = 2 * spec.mr * vectors + work + if spec.mr > 1 { vectors } else { 1 };
        if live > spec.isa.vector_registers() {
            let have = spec.isa.vector_registers();
            let needed = live;
            return Err(Unsupported::new(
                spec,
                Reason::VectorRegisters { needed, have },
            ));
        }
        let unroll = spec.knob("u", 1) as usize;
        if unroll == 0 || unroll > flush {
            return Err(Unsupported::new(
                spec,
                format!("u is not 1 to {flush} steps"),
            ));
        }
        Ok(Self {
            spec,
            k: panel.shape.k,
            panel,
            mr: spec.mr,
            vectors,
            steps: panel.layout.k_padded(panel.shape) / panel.shape.kr,
            unroll,
            flush,
            step_bytes,
        })
    }

    /// A builder with the operands declared; `tables` is the bytes of the tile's tables and the bound of an entry.
    pub fn builder(&self, (tables, entry): (usize, i16)) -> Builder {
        let name = format!("{}-k{}-m{}", self.spec, self.k, self.mr);
        let mut b = Builder::new(name, self.spec.isa.width());
        b.operand(
            Operand::Weights,
            self.panel.bytes(),
            self.panel.layout.promise(),
        );
        b.operand(Operand::Acts, tables, Promise::I16Planes(-entry, entry));
        b.operand(Operand::Out, self.mr * self.spec.nr * 4, Promise::Bits);
        b
    }

    /// The two planes of a table of 32 bytes.
    pub fn table(&self, b: &mut Builder, addr: Addr) -> [Value; 2] {
        let high = addr.clone().plus(16);
        [addr, high].map(|a| b.op(Op::LoadBcast128(a)))
    }

    /// The i16 entries of `idx`: bytes 0 to 7 of each lane, then bytes 8 to 15.
    pub fn look_up(&self, b: &mut Builder, table: [Value; 2], idx: Value) -> [Value; 2] {
        let [lo, hi] = table.map(|table| b.op(Op::Shuffle16 { table, idx }));
        [
            b.op(Op::InterleaveLo8(lo, hi)),
            b.op(Op::InterleaveHi8(lo, hi)),
        ]
    }

    /// All of K: i16 sums in registers, widened into the result in time.
    pub fn run(&self, b: &mut Builder, step: Step<'_>) {
        let zero = b.zero();
        let w = b.width_bytes();
        for at in (0..self.mr * self.spec.nr * 4).step_by(w) {
            b.store(Addr::new(Operand::Out, at), zero);
        }
        let blocks = self.steps / self.flush;
        b.repeat(blocks, &[], |b, c, _| {
            self.block(b, &Place::at(0).and(c, self.flush), self.flush, step);
            vec![]
        });
        if blocks * self.flush < self.steps {
            let from = blocks * self.flush;
            self.block(b, &Place::at(from), self.steps - from, step);
        }
    }

    fn block(&self, b: &mut Builder, start: &Place, steps: usize, step: Step<'_>) {
        let zero = b.zero();
        let init = vec![zero; 2 * self.mr * self.vectors];
        let unroll = self.unroll.min(steps);
        let mut sums = b.repeat(steps / unroll, &init, |b, c, params| {
            let mut sums = params.to_vec();
            let place = start.and(c, unroll);
            let lines_ahead = self.spec.knob("pf", 0) as usize;
            let weights = Addr::new(Operand::Weights, 0);
            for line in place.ahead(weights, lines_ahead, unroll, self.step_bytes) {
                b.prefetch(line);
            }
            for at in 0..unroll {
                step(b, &place.plus(at), &mut sums);
            }
            sums
        });
        for at in steps - steps % unroll..steps {
            step(b, &start.plus(at), &mut sums);
        }
        self.flush(b, &sums);
    }

    /// Adds the i16 sums to the i32 result.
    fn flush(&self, b: &mut Builder, sums: &[Value]) {
        let w = b.width_bytes();
        for (i, &sum) in sums.iter().enumerate() {
            let (half, v, t) = (i % 2, i / 2 % self.vectors, i / 2 / self.vectors);
            let sign = b.op(Op::Sar16(sum, 15));
            let quarters = [
                b.op(Op::InterleaveLo16(sum, sign)),
                b.op(Op::InterleaveHi16(sum, sign)),
            ];
            let (strip, lane) = (v * w / STRIP, v * w % STRIP / 16);
            for (q, wide) in quarters.into_iter().enumerate() {
                let row = strip * STRIP + 16 * (2 * half + q) + 4 * lane;
                let to = Addr::new(Operand::Out, (t * self.spec.nr + row) * 4);
                b.accumulate(Element::I32, to, wide);
            }
        }
    }
}
