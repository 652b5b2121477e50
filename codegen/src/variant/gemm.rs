//! `gemm`: unpack a panel to bytes once, then a register-tiled int8 product over many tokens. Prefill.
//!
//! ```text
//! unpack: for step in K/16, field f, v:  bytes[4·step + f][v] = field f of panel[step][v]      once a panel
//! main:   for quad in K/4:                                                                   once a tile
//!   for v: w[v] = load bytes[quad][v];  for t: x = broadcast x[t][4·quad ..+4];  acc[t][v] += dot4(w[v], x)
//! out = acc − Σx                                        codes are trit + 1
//! ```
//! Tricks: (1) MR·NR accumulators fill the registers, so each load feeds many dot products; (2) without
//! a dot product, `pmaddubsw` pairs stay in i16 registers for `FLUSH_QUADS` quads and are then added
//! to the i32 result in memory, which leaves all registers to the i16 micro.

use super::groups::{GroupAt, Groups, act_rows, singles};
use super::place::Place;
use super::{OutOrder, Plan, Unsupported, Variant, tile_sizes};
use crate::acts::{self, ActsForm};
use crate::isa::Isa;
use crate::layout::i2s::{I2s, STEP_K};
use crate::layout::scales::{GroupScales, Stored};
use crate::layout::{Layout as _, Panel, PanelShape};
use crate::program::{Addr, Builder, Counter, Element, Op, Operand, Program, Promise, Value};
use crate::spec::{Axis, KernelSpec, Reason};

/// Quads of columns whose i16 pair sums are kept before widening: a quad adds two products of at most
/// 2·128 to each i16, so 60 quads stay within 30 720. A multiple of the four quads of a step.
const FLUSH_QUADS: usize = 60;

/// The same where codes may be 3, as among group scales: all quads of a group.
const FLUSH_GROUP_QUADS: usize = 40;

/// Columns that one dot product covers.
const QUAD: usize = 4;

/// The family.
pub struct Gemm;

impl Variant for Gemm {
    fn name(&self) -> &'static str {
        "gemm"
    }

    fn about(&self) -> &'static str {
        "panel unpacked to bytes once, then a register-tiled int8 product; prefill"
    }

    fn layouts(&self) -> &'static [&'static str] {
        &["i2s"]
    }

    fn axes(&self, isa: Isa, m: usize) -> Result<Vec<Axis>, Unsupported> {
        let rows = isa.width().bytes() as u32 / 4;
        let (vectors, tokens): (&[u32], &[u32]) = if isa.vector_registers() == 32 {
            (&[3, 2, 4], &[8, 14, 9, 12, 6])
        } else {
            (&[2, 3], &[6, 4])
        };
        let mut mr: Vec<u32> = tokens
            .iter()
            .copied()
            .filter(|&t| t as usize <= m)
            .collect();
        if mr.is_empty() {
            mr.push(m.max(1) as u32);
        }
        Ok(vec![
            Axis {
                name: "mr",
                values: mr,
            },
            Axis {
                name: "nr",
                values: vectors.iter().map(|v| v * rows).collect(),
            },
            Axis {
                name: "kr",
                values: vec![STEP_K as u32],
            },
            Axis {
                name: "u",
                values: if m == 1 { vec![4] } else { vec![4, 2] },
            },
            Axis {
                name: "pf",
                values: if m == 1 { vec![64] } else { vec![64, 0] },
            },
        ])
    }

    fn has_groups(&self) -> bool {
        true
    }

    fn plan(&self, spec: &KernelSpec, k: usize) -> Result<Plan, Unsupported> {
        let micro = MicroKernel::new(spec, k)?;
        let masks = usize::from(micro.masks());
        let live = micro.mr * micro.vectors + micro.vectors + 1 + usize::from(!micro.dot) + masks;
        if live > spec.isa.vector_registers() {
            let have = spec.isa.vector_registers();
            let needed = live;
            return Err(Unsupported::new(
                spec,
                Reason::VectorRegisters { needed, have },
            ));
        }
        Ok(Plan {
            spec: spec.clone(),
            groups: micro.groups,
            k,
            panel: micro.panel,
            acts: ActsForm::Rows,
            unpack: Some(micro.unpack()),
            main: tile_sizes(spec.mr)
                .into_iter()
                .map(|mr| {
                    let rows = act_rows(micro.groups, mr);
                    let micro = MicroKernel { mr: rows, ..micro };
                    let main = match micro.groups {
                        Some(groups) => micro.grouped(groups, mr),
                        None if micro.dot => micro.dots(),
                        None => micro.madds(),
                    };
                    (mr, main)
                })
                .collect(),
            out: OutOrder::TokenMajor,
        })
    }
}

/// What one micro-kernel is built from.
#[derive(Clone, Copy)]
struct MicroKernel<'a> {
    spec: &'a KernelSpec,
    k: usize,
    groups: Option<Groups>,
    panel: Panel,
    /// Rows of activations.
    mr: usize,
    vectors: usize,
    quads: usize,
    unroll: usize,
    dot: bool,
    /// The group of columns at hand.
    at: GroupAt,
}

impl<'a> MicroKernel<'a> {
    fn new(spec: &'a KernelSpec, k: usize) -> Result<Self, Unsupported> {
        let shape = PanelShape {
            nr: spec.nr,
            k,
            kr: spec.kr,
        };
        if let Some(why) = I2s.unsupported(shape) {
            return Err(Unsupported::new(spec, why));
        }
        let rows = spec.isa.width().bytes() / 4;
        if !spec.nr.is_multiple_of(rows) {
            return Err(Unsupported::new(
                spec,
                format!("NR is not a multiple of the {rows} rows of a vector"),
            ));
        }
        let unroll = spec.knob("u", 4) as usize;
        if !matches!(unroll, 1 | 2 | 4) {
            return Err(Unsupported::new(spec, "u is not 1, 2 or 4 quads"));
        }
        let groups = Groups::of(spec)?;
        let dot = spec.isa.has_dot();
        if let Some(g) = groups
            && !dot
            && g.scales.k > FLUSH_GROUP_QUADS * QUAD
        {
            let why = format!("pairs of {} columns overflow an i16", g.scales.k);
            return Err(Unsupported::new(spec, why));
        }
        Ok(Self {
            spec,
            k,
            groups,
            panel: Panel {
                layout: &I2s,
                shape,
                scales: groups.map(|g| g.scales),
            },
            mr: act_rows(groups, spec.mr),
            vectors: spec.nr / rows,
            quads: I2s.k_padded(shape) / QUAD,
            unroll,
            dot,
            at: GroupAt::default(),
        })
    }

    /// Bytes of the unpacked panel that one quad of columns takes.
    fn quad_bytes(&self) -> usize {
        self.spec.nr * QUAD
    }

    fn unpacked_bytes(&self) -> usize {
        let scales = self.groups.map_or(0, |g| g.count(self.k));
        self.quads * self.quad_bytes() + scales * self.spec.nr * 4
    }

    /// Unpacked bytes from one group to the next: its quads, then its scales as f32.
    fn group_bytes(&self) -> usize {
        let bytes = |g: Groups| g.scales.k / QUAD * self.quad_bytes() + self.spec.nr * 4;
        self.groups.map_or(0, bytes)
    }

    /// Quads of a group of `k` columns.
    fn quads_of(k: usize) -> usize {
        k.next_multiple_of(STEP_K) / QUAD
    }

    /// Whether codes are masked once more when they are read: among scales the proof takes bytes for anything, and
    /// these forms want them small.
    fn masks(&self) -> bool {
        let small = |g: Groups| !self.spec.isa.dot_reads_u8() || g.planes * g.scales.k > 256;
        self.groups.is_some_and(small)
    }

    /// What the unpacked bytes are: codes alone or, with scales among them, anything.
    fn unpacked_promise(&self) -> Promise {
        match self.groups {
            None => Promise::U8(0, 2),
            Some(_) => Promise::Bits,
        }
    }

    /// Four codes in a byte to four bytes, halves to singles.
    fn unpack(&self) -> Program {
        let mut b = Builder::new(
            format!("{}-k{}-unpack", self.spec, self.k),
            self.spec.isa.width(),
        );
        b.operand(Operand::Weights, self.panel.bytes(), self.panel.promise());
        b.operand(Operand::Out, self.unpacked_bytes(), self.unpacked_promise());
        let Some(groups) = self.groups else {
            self.unpack_codes(&mut b, self.quads);
            return b.finish();
        };
        groups
            .scaling(1, self.spec.nr, self.k)
            .each(&mut b, |b, at| {
                let micro = MicroKernel { at, ..*self };
                micro.unpack_codes(b, Self::quads_of(at.k));
                micro.unpack_scales(b, groups.scales);
            });
        b.finish()
    }

    /// The scales of the group at hand, as f32.
    fn unpack_scales(&self, b: &mut Builder, scales: GroupScales) {
        let w = b.width_bytes();
        let k = self.at.k;
        let from = Addr::new(Operand::Weights, self.panel.code_bytes(k));
        let from = self.at.of(from, self.panel.run_bytes(scales.k));
        let to = Addr::new(Operand::Out, Self::quads_of(k) * self.quad_bytes());
        let to = self.at.of(to, self.group_bytes());
        let values = match scales.stored {
            Stored::F16 => singles(b, &from, self.vectors, self.spec.nr),
            Stored::F32 => (0..self.vectors)
                .map(|v| b.op(Op::Load(from.clone().plus(v * w))))
                .collect(),
        };
        for (v, value) in values.into_iter().enumerate() {
            b.store(to.clone().plus(v * w), value);
        }
    }

    fn unpack_codes(&self, b: &mut Builder, quads: usize) {
        let w = b.width_bytes();
        let mask = b.op(Op::Splat8(3));
        let two = b.op(Op::Splat8(2));
        let step_bytes = self.quad_bytes();
        let packed_bytes = self.panel.scales.map_or(0, |s| self.panel.run_bytes(s.k));
        let lines_ahead = self.spec.knob("pf", 0) as usize;
        b.repeat(quads * QUAD / STEP_K, &[], |b, step, _| {
            let place = Place::at(0).and(step, 1);
            let weights = self.at.of(Addr::new(Operand::Weights, 0), packed_bytes);
            for line in place.ahead(weights, lines_ahead, 1, step_bytes) {
                b.prefetch(line);
            }
            for v in 0..self.vectors {
                let from = Addr::new(Operand::Weights, v * w).step(step, step_bytes);
                let word = b.op(Op::Load(self.at.of(from, packed_bytes)));
                for f in 0..STEP_K / QUAD {
                    // Bits of the neighbouring byte shift in above bit 7 − 2f: the mask drops them.
                    let low = match f {
                        0 => word,
                        f => b.op(Op::Shr16(word, 2 * f as u8)),
                    };
                    let field = b.op(Op::And(low, mask));
                    // Packing never writes a 3 where there are no groups; the minimum lets the proof of
                    // `main` know.
                    let codes = match self.groups {
                        None => b.op(Op::MinU8(field, two)),
                        Some(_) => field,
                    };
                    let to = Addr::new(Operand::Out, f * step_bytes + v * w);
                    let to = to.step(step, STEP_K / QUAD * step_bytes);
                    b.store(self.at.of(to, self.group_bytes()), codes);
                }
            }
            vec![]
        });
    }

    fn builder(&self) -> Builder {
        let k = self.k as i32;
        let mut b = Builder::new(
            format!("{}-k{}-m{}", self.spec, self.k, self.mr),
            self.spec.isa.width(),
        );
        b.operand(
            Operand::Weights,
            self.unpacked_bytes(),
            self.unpacked_promise(),
        );
        b.operand(
            Operand::Acts,
            self.mr * acts::row_bytes(self.k),
            Promise::I8(-128, 127),
        );
        if self.groups.is_none() {
            b.operand(Operand::Sums, self.mr * 4, Promise::I32(-128 * k, 127 * k));
            b.operand(Operand::Out, self.mr * self.spec.nr * 4, Promise::Bits);
        }
        b
    }

    /// `mr` tokens, group by group.
    fn grouped(&self, groups: Groups, mr: usize) -> Program {
        let mut b = self.builder();
        // Unpacked scales are f32, whatever the panel stores.
        let stored = Stored::F32;
        let unpacked = Groups {
            scales: GroupScales {
                stored,
                ..groups.scales
            },
            ..groups
        };
        let scaling = unpacked.scaling(mr, self.spec.nr, self.k);
        scaling.begin(&mut b);
        scaling.each(&mut b, |b, at| {
            let micro = MicroKernel { at, ..*self };
            let quads = Self::quads_of(at.k);
            let accs = if self.dot {
                micro.dot_sums(b, quads)
            } else {
                micro.madd_sums(b, quads)
            };
            let scales = Addr::new(Operand::Weights, quads * self.quad_bytes());
            scaling.add(b, at, at.of(scales, self.group_bytes()), &accs);
        });
        b.finish()
    }

    /// One quad of columns.
    fn quad(
        &self,
        b: &mut Builder,
        place: &Place,
        each: &mut dyn FnMut(&mut Builder, usize, Value, Value),
    ) {
        let w = b.width_bytes();
        let there = |addr: Addr, quad_bytes: usize, group_bytes: usize| {
            place.apply(self.at.of(addr, group_bytes), quad_bytes)
        };
        let words: Vec<Value> = (0..self.vectors)
            .map(|v| {
                let addr = Addr::new(Operand::Weights, v * w);
                let load = Op::Load(there(addr, self.quad_bytes(), self.group_bytes()));
                let codes = b.op(load);
                if !self.masks() {
                    return codes;
                }
                let mask = b.op(Op::Splat8(3));
                b.op(Op::And(codes, mask))
            })
            .collect();
        for t in 0..self.mr {
            let addr = Addr::new(Operand::Acts, t * acts::row_bytes(self.k));
            let group_k = self.groups.map_or(0, |g| g.scales.k);
            let x = b.op(Op::LoadBcast32(there(addr, QUAD, group_k)));
            for (v, &u) in words.iter().enumerate() {
                each(b, t * self.vectors + v, u, x);
            }
        }
    }

    /// The sums over `quads`, in i32 registers.
    fn dot_sums(&self, b: &mut Builder, quads: usize) -> Vec<Value> {
        let zero = b.zero();
        let init = vec![zero; self.mr * self.vectors];
        b.repeat(quads / self.unroll, &init, |b, c, params| {
            let mut accs = params.to_vec();
            let place = Place::at(0).and(c, self.unroll);
            for at in 0..self.unroll {
                self.quad(b, &place.plus(at), &mut |b, i, u, s| {
                    accs[i] = b.op(Op::DotU8I8 { acc: accs[i], u, s });
                });
            }
            accs
        })
    }

    /// The sums over the quads of a group: pairs in i16 registers, widened at the end.
    fn madd_sums(&self, b: &mut Builder, quads: usize) -> Vec<Value> {
        let pairs = self.pair_sums(b, None, 0, quads);
        let ones = b.op(Op::Splat16(1));
        pairs
            .into_iter()
            .map(|p| b.op(Op::MaddI16(p, ones)))
            .collect()
    }

    /// i16 sums of pairs over `quads` from `from` on; `outer` counts blocks of [`FLUSH_QUADS`].
    fn pair_sums(
        &self,
        b: &mut Builder,
        outer: Option<Counter>,
        from: usize,
        quads: usize,
    ) -> Vec<Value> {
        let zero = b.zero();
        let init = vec![zero; self.mr * self.vectors];
        b.repeat(quads / self.unroll, &init, |b, c, params| {
            let mut pairs = params.to_vec();
            let mut place = Place::at(from).and(c, self.unroll);
            place.counters.extend(outer.map(|c| (c, FLUSH_QUADS)));
            for at in 0..self.unroll {
                self.quad(b, &place.plus(at), &mut |b, i, u, s| {
                    let p = b.op(Op::MaddU8I8 { u, s });
                    pairs[i] = b.op(Op::Add16(pairs[i], p));
                });
            }
            pairs
        })
    }

    /// Straight to i32 registers.
    fn dots(&self) -> Program {
        let mut b = self.builder();
        let w = b.width_bytes();
        let accs = self.dot_sums(&mut b, self.quads);
        for t in 0..self.mr {
            let sum = b.op(Op::LoadBcast32(Addr::new(Operand::Sums, 4 * t)));
            for v in 0..self.vectors {
                let i = t * self.vectors + v;
                let y = b.op(Op::Sub32(accs[i], sum));
                b.store(Addr::new(Operand::Out, i * w), y);
            }
        }
        b.finish()
    }

    /// Through i16 registers to i32 memory.
    fn madds(&self) -> Program {
        let mut b = self.builder();
        let w = b.width_bytes();
        let zero = b.zero();
        for t in 0..self.mr {
            let sum = b.op(Op::LoadBcast32(Addr::new(Operand::Sums, 4 * t)));
            let start = b.op(Op::Sub32(zero, sum));
            for v in 0..self.vectors {
                b.store(Addr::new(Operand::Out, (t * self.vectors + v) * w), start);
            }
        }
        let block = |b: &mut Builder, outer: Option<Counter>, from: usize, quads: usize| {
            let pairs = self.pair_sums(b, outer, from, quads);
            let ones = b.op(Op::Splat16(1));
            for (i, &p) in pairs.iter().enumerate() {
                let wide = b.op(Op::MaddI16(p, ones));
                b.accumulate(Element::I32, Addr::new(Operand::Out, i * w), wide);
            }
        };
        let (blocks, rest) = (self.quads / FLUSH_QUADS, self.quads % FLUSH_QUADS);
        b.repeat(blocks, &[], |b, c, _| {
            block(b, Some(c), 0, FLUSH_QUADS);
            vec![]
        });
        if rest > 0 {
            block(&mut b, None, blocks * FLUSH_QUADS, rest);
        }
        b.finish()
    }
}
