//! `hybrid`: look-ups and dot products at the same time, on different rows of a panel. Prefill.
//!
//! ```text
//! for chunk of an i2s panel and group of 8 tokens:   (48 rows × 8 tokens: 24 accumulators in registers)
//!   build the tables of the next look-up step
//!   for turn in chunk:
//!     dot one i2s step (16 columns) of the chunk;  add the entries of 4 look-up rows        interleaved
//!   out[48 rows][8 tokens] += accumulators
//! the look-up steps that are left run alone, as in `vlut`
//! ```
//! Tricks: (1) a vector-LUT GEMM waits for load ports and leaves the arithmetic idle, a register-tiled dot
//! GEMM does the reverse: four look-up rows hide under 96 dot products completely (Zen 5, 11/2026: 12.5
//! cycles a quarter turn with and without the row); (2) the bytes stay 2-bit codes, for shift and mask are free as
//! well; (3) [`Split`] divides the rows so that both kinds of work end together.

use super::lookup::LookUpRows;
use super::place::Place;
use super::{OutOrder, Plan, Unsupported, Variant};
use crate::acts::ActsForm;
use crate::isa::Isa;
use crate::layout::i2s;
use crate::layout::lut::LUT4;
use crate::layout::mixed::{self, DOT_ROWS, Mixed, ROWS_PER_TURN, Split, TOKEN_GROUPS};
use crate::layout::{Layout as _, Panel, PanelShape};
use crate::program::{
    Addr, Builder, Counter, Element, Op, Operand, Program, Promise, Value, Width,
};
use crate::spec::{Axis, KernelSpec, Reason};

/// Tokens of a tile: the i16 of a vector.
const TOKENS: usize = 32;

/// Tokens of a group.
const GROUP: usize = TOKENS / TOKEN_GROUPS;

/// Vectors of 16 rows of an i2s panel.
const VECTORS: usize = DOT_ROWS / 16;

/// Columns of one dot product.
const QUAD: usize = 4;

/// The family.
pub struct Hybrid;

impl Variant for Hybrid {
    fn name(&self) -> &'static str {
        "hybrid"
    }

    fn about(&self) -> &'static str {
        "look-ups on some rows hidden under dot products on others; prefill with AVX-512"
    }

    fn layouts(&self) -> &'static [&'static str] {
        &["mixed"]
    }

    fn axes(&self, isa: Isa, m: usize) -> Result<Vec<Axis>, Unsupported> {
        supports(isa)?;
        Ok(vec![
            Axis {
                name: "mr",
                values: vec![TOKENS as u32],
            },
            Axis {
                name: "nr",
                values: match m {
                    // Most of a tile would be zero tokens: one spec, for completeness.
                    ..16 => vec![1280],
                    _ => vec![1280, 1728, 864, 1600, 2304, 1152, 640],
                },
            },
            Axis {
                name: "kr",
                values: vec![mixed::STEP_K as u32],
            },
            Axis {
                name: "pf",
                values: if m < 16 { vec![0] } else { vec![64, 0, 192] },
            },
        ])
    }

    fn plan(&self, spec: &KernelSpec, k: usize) -> Result<Plan, Unsupported> {
        supports(spec.isa)?;
        let shape = PanelShape {
            nr: spec.nr,
            k,
            kr: spec.kr,
        };
        if let Some(why) = Mixed.unsupported(shape) {
            return Err(Unsupported::new(spec, why));
        }
        if spec.mr != TOKENS {
            return Err(Unsupported::new(spec, format!("MR is not {TOKENS}")));
        }
        let Some(split) = Split::of(shape) else {
            return Err(Unsupported::new(spec, "NR is too small"));
        };
        let acts = ActsForm::ColumnPairsAndQuads {
            columns: split.lut_steps * mixed::STEP_K,
            block: TOKENS,
            quads: split.dot_steps() * i2s::STEP_K / QUAD,
            group: GROUP,
        };
        let panel = Panel::of_codes(&Mixed, shape);
        let micro = MicroKernel {
            spec,
            panel,
            split,
            rows: LookUpRows {
                layout: &LUT4,
                rows: split.lut_rows,
                kr: mixed::STEP_K,
                mr: TOKENS,
                unroll: 2,
                indices_ahead: 0,
                // A turn reads 32 bytes of indices and 192 bytes of codes.
                lines_ahead: (spec.knob("pf", 0) as usize).div_ceil(6),
            },
            acts_bytes: acts.tile_bytes(TOKENS, k),
        };
        Ok(Plan {
            spec: spec.clone(),
            groups: None,
            k,
            panel,
            acts,
            unpack: None,
            main: vec![(TOKENS, micro.program())],
            out: OutOrder::Split {
                rows: split.lut_rows,
            },
        })
    }
}

fn supports(isa: Isa) -> Result<(), Unsupported> {
    if isa.has_dot() && isa.width() == Width::W64 {
        return Ok(());
    }
    Err(Unsupported::new(
        format!("hybrid on {isa}"),
        Reason::Instructions("needs 32 registers of 64 bytes and a dot product".into()),
    ))
}

/// What the micro-kernel is built from.
struct MicroKernel<'a> {
    spec: &'a KernelSpec,
    panel: Panel,
    split: Split,
    rows: LookUpRows,
    acts_bytes: usize,
}

/// Which part of the dot products a turn works on.
struct Job {
    panel: Counter,
    /// Groups of tokens that a turn of each loop moves on.
    groups: [(Counter, usize); 2],
    chunk: Counter,
}

impl MicroKernel<'_> {
    fn program(&self) -> Program {
        let (rows, split, k) = (&self.rows, &self.split, self.panel.shape.k);
        let name = format!("{}-k{k}-m{TOKENS}", self.spec);
        let mut b = Builder::new(name, self.spec.isa.width());
        b.operand(Operand::Weights, self.panel.bytes(), Mixed.promise());
        b.operand(Operand::Acts, self.acts_bytes, Promise::I8(-128, 127));
        let sums = Promise::I32(-128 * k as i32, 127 * k as i32);
        b.operand(Operand::Sums, TOKENS * 4, sums);
        let entry = rows.entry_max() as i16;
        // An index is a byte of the packed panel, and the promise on those covers the codes, too: the
        // last table is lengthened, so that no byte that keeps the promise could select past the end.
        let tables = rows.tables_bytes() + (0xAA + 1 - LUT4.entries()) * rows.entry_bytes();
        b.operand(Operand::Scratch0, tables, Promise::I16(-entry, entry));
        let most = (rows.superblock() * rows.groups() * rows.entry_max()) as i16;
        b.operand(
            Operand::Scratch1,
            rows.rows * rows.entry_bytes(),
            Promise::I16(-most, most),
        );
        b.operand(Operand::Out, self.spec.nr * TOKENS * 4, Promise::Bits);
        self.start(&mut b);
        self.paired(&mut b);
        let paired = split.panels * TOKEN_GROUPS * split.chunks;
        self.alone(&mut b, paired, split.lut_steps - paired);
        b.finish()
    }

    /// Zero for the look-up rows, −Σx for the others, whose codes are trit + 1.
    fn start(&self, b: &mut Builder) {
        self.rows.clear(b);
        let zero = b.zero();
        for t in 0..TOKENS {
            let sum = b.op(Op::LoadBcast32(Addr::new(Operand::Sums, 4 * t)));
            let start = b.op(Op::Sub32(zero, sum));
            b.repeat(self.split.panels * VECTORS, &[], |b, v, _| {
                b.store(self.dot_out(t).step(v, 64), start);
                vec![]
            });
        }
        let zero = b.zero();
        let tables = self.rows.tables_bytes();
        b.repeat(0xAA + 1 - LUT4.entries(), &[], |b, i, _| {
            let at = Addr::new(Operand::Scratch0, tables);
            b.store(at.step(i, self.rows.entry_bytes()), zero);
            vec![]
        });
    }

    /// The first row of the i2s panels for token `t`.
    fn dot_out(&self, t: usize) -> Addr {
        let at = self.split.lut_rows * TOKENS + t * self.split.panels * DOT_ROWS;
        Addr::new(Operand::Out, 4 * at)
    }

    /// Every chunk of every i2s panel and group of tokens, each with a look-up step.
    fn paired(&self, b: &mut Builder) {
        let split = &self.split;
        // As many chunks go by between two flushes of the i16 sums as are sure to fit.
        let together = (self.rows.superblock() / split.chunks).clamp(1, TOKEN_GROUPS);
        let together = if together == 3 { 2 } else { together };
        b.repeat(split.panels, &[], |b, panel, _| {
            b.repeat(TOKEN_GROUPS / together, &[], |b, outer, _| {
                b.repeat(together, &[], |b, inner, _| {
                    b.repeat(split.chunks, &[], |b, chunk, _| {
                        self.pair(
                            b,
                            &Job {
                                panel,
                                groups: [(outer, together), (inner, 1)],
                                chunk,
                            },
                        );
                        vec![]
                    });
                    vec![]
                });
                self.rows.drain(b);
                vec![]
            });
            vec![]
        });
    }

    /// One chunk and one look-up step.
    fn pair(&self, b: &mut Builder, job: &Job) {
        let chunks = self.split.chunks;
        let mut place = Place {
            counters: vec![(job.panel, TOKEN_GROUPS * chunks), (job.chunk, 1)],
            at: 0,
        };
        for (counter, groups) in job.groups {
            place = place.and(counter, groups * chunks);
        }
        self.build(b, &place);
        let zero = b.zero();
        let mask = b.op(Op::Splat8(3));
        let accs = b.repeat(
            self.split.turns,
            &[zero; GROUP * VECTORS],
            |b, turn, params| {
                let mut accs = params.to_vec();
                self.prefetch(b, job, turn);
                self.rows.prefetch(b, &place, (turn, ROWS_PER_TURN), 0);
                for f in 0..ROWS_PER_TURN {
                    self.quad(b, job, turn, f, mask, &mut accs);
                    self.rows
                        .add_turn(b, &place, (turn, ROWS_PER_TURN), f..f + 1);
                }
                accs
            },
        );
        for (i, acc) in accs.into_iter().enumerate() {
            let (t, v) = (i / VECTORS, i % VECTORS);
            let token_bytes = self.split.panels * DOT_ROWS * 4;
            let mut to = self.dot_out(t).plus(64 * v).step(job.panel, DOT_ROWS * 4);
            for (counter, groups) in job.groups {
                to = to.step(counter, groups * GROUP * token_bytes);
            }
            b.accumulate(Element::I32, to, acc);
        }
        self.rows
            .add_rows(b, &place, ROWS_PER_TURN * self.split.turns);
    }

    /// Brings codes near that will be read soon.
    fn prefetch(&self, b: &mut Builder, job: &Job, turn: Counter) {
        let lines_ahead = self.spec.knob("pf", 0) as usize;
        for line in 0..DOT_ROWS * 4 / 64 {
            if lines_ahead > 0 {
                b.prefetch(self.codes(job, turn, 64 * (lines_ahead + line)));
            }
        }
    }

    /// Byte `at` of what a turn reads of the i2s panel.
    fn codes(&self, job: &Job, turn: Counter, at: usize) -> Addr {
        let (split, step_bytes) = (&self.split, DOT_ROWS * 4);
        Addr::new(Operand::Weights, split.lut_bytes() + at)
            .step(job.panel, split.dot_bytes())
            .step(job.chunk, split.turns * step_bytes)
            .step(turn, step_bytes)
    }

    /// Four columns of a turn: field `f` of the panel's bytes.
    fn quad(
        &self,
        b: &mut Builder,
        job: &Job,
        turn: Counter,
        f: usize,
        mask: Value,
        accs: &mut [Value],
    ) {
        let split = &self.split;
        let codes: Vec<Value> = (0..VECTORS)
            .map(|v| {
                let word = b.op(Op::Load(self.codes(job, turn, 64 * v)));
                // Bits of the neighbouring byte shift in above bit 7 − 2f: the mask drops them.
                let low = match f {
                    0 => word,
                    f => b.op(Op::Shr16(word, 2 * f as u8)),
                };
                b.op(Op::And(low, mask))
            })
            .collect();
        let turn_bytes = i2s::STEP_K * GROUP;
        let group_bytes = split.dot_steps() * turn_bytes;
        for t in 0..GROUP {
            let columns = split.lut_steps * mixed::STEP_K * TOKENS;
            let mut addr = Addr::new(Operand::Acts, columns + QUAD * (f * GROUP + t))
                .step(job.chunk, split.turns * turn_bytes)
                .step(turn, turn_bytes);
            for (counter, groups) in job.groups {
                addr = addr.step(counter, groups * group_bytes);
            }
            let x = b.op(Op::LoadBcast32(addr));
            for (v, &u) in codes.iter().enumerate() {
                let acc = &mut accs[t * VECTORS + v];
                *acc = b.op(Op::DotU8I8 { acc: *acc, u, s: x });
            }
        }
    }

    /// The look-up steps from `from` on without dot products.
    fn alone(&self, b: &mut Builder, from: usize, steps: usize) {
        let whole = self.rows.superblock();
        let block = |b: &mut Builder, place: Place, steps: usize| {
            b.repeat(steps, &[], |b, c, _| {
                let place = place.and(c, 1);
                self.build(b, &place);
                self.rows.add_rows(b, &place, 0);
                vec![]
            });
            self.rows.drain(b);
        };
        let start = Place::at(from);
        b.repeat(steps / whole, &[], |b, outer, _| {
            block(b, start.and(outer, whole), whole);
            vec![]
        });
        let rest = steps % whole;
        if rest > 0 {
            block(b, start.plus(steps - rest), rest);
        }
    }

    /// The tables of a look-up step. Columns come in pairs, one in the low bytes and one in the high bytes.
    fn build(&self, b: &mut Builder, place: &Place) {
        let pair_bytes = 2 * TOKENS;
        self.rows.build(b, &|b, group, at| {
            (0..LUT4.trits / 2)
                .flat_map(|pair| {
                    let addr = Addr::new(Operand::Acts, pair * pair_bytes + at)
                        .step(group, LUT4.trits / 2 * pair_bytes);
                    let both = b.op(Op::Load(place.apply(addr, mixed::STEP_K / 2 * pair_bytes)));
                    let up = b.op(Op::Shl16(both, 8));
                    [b.op(Op::Sar16(up, 8)), b.op(Op::Sar16(both, 8))]
                })
                .collect()
        });
    }
}
