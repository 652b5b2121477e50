//! `dense`: five trits a byte, decoded in registers and dotted. Decode, where the memory is the limit.
//!
//! ```text
//! for step in K/20, for v in 4·NR/W:                   W bytes = W/4 rows × 20 columns
//!   b = load panel;  (c0 … c4) = digits of b           b = c0 + 3·c1 + 9·c2 + 28·c3 + 84·c4
//!   for f in 0..5:  acc[t][v] += dot4(cf, broadcast x[t][20·step + 4f ..+4])
//! out = acc − Σx                                       codes are trit + 1
//! ```
//! Tricks: (1) with byte look-ups in 64 and 128 entries (VBMI), `b >> 2` looks up c4 and 84·c4, and the
//! other four digits are one look-up of the rest, as 2-bit fields that are masked in place as in
//! [`super::i2s`]: 14 operations for 5·W weights. Dotting 84·c4 itself would spare one look-up, but costs
//! an accumulator. (2) Elsewhere `min(b, b − p)` twice is `b mod p`, and 16-entry look-ups do the rest:
//! 27 operations.

use super::groups::{GroupAt, Groups, act_rows};
mod digits;

use super::i2s::combine;
use super::place::Place;
use super::{OutOrder, Plan, Unsupported, Variant, tile_sizes};
use crate::acts::{self, ActsForm};
use crate::isa::Isa;
use crate::layout::base3::{Base3, STEP_K};
use crate::layout::{Layout as _, Panel, PanelShape};
use crate::program::{Addr, Builder, Counter, Element, Op, Operand, Program, Promise, Value};
use crate::spec::{Axis, KernelSpec, Reason};
use digits::Digits;

/// Steps whose i16 pair sums are kept before widening: five products of pairs a step, each at most
/// 2·3·128 (a proof sees two bits a code), so 8 steps stay within 30 720.
const FLUSH_STEPS: usize = 8;

/// The family.
pub struct Dense;

/// How digits are taken out of bytes.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// Wide look-ups, fields masked in place: an accumulator for each mask, c4 with c0.
    LutMask,
    /// Wide look-ups, fields shifted down: one accumulator.
    LutShift,
    /// Byte arithmetic and 16-entry look-ups, one accumulator.
    Arithmetic,
}

impl Variant for Dense {
    fn name(&self) -> &'static str {
        "dense"
    }

    fn about(&self) -> &'static str {
        "five trits a byte (1.6 bits a weight) decoded in registers; decode when bandwidth is scarce"
    }

    fn layouts(&self) -> &'static [&'static str] {
        &["base3"]
    }

    fn axes(&self, isa: Isa, m: usize) -> Result<Vec<Axis>, Unsupported> {
        let rows = isa.width().bytes() as u32 / 4;
        let (forms, nr) = match (isa.has_wide_lut(), m) {
            (true, 1) => (vec![0, 1], vec![2 * rows, rows, 4 * rows]),
            (true, _) => (vec![1, 0], vec![2 * rows, rows, 4 * rows]),
            (false, _) => (vec![2], vec![rows, 2 * rows]),
        };
        Ok(vec![
            Axis {
                name: "mr",
                values: match m {
                    1 => vec![1],
                    2..=3 => vec![2, 1],
                    _ => vec![4, 2, 6],
                },
            },
            Axis {
                name: "nr",
                values: nr,
            },
            Axis {
                name: "kr",
                values: vec![STEP_K as u32],
            },
            Axis {
                name: "f",
                values: forms,
            },
            Axis {
                name: "u",
                values: if isa.has_dot() {
                    vec![2, 1, 4]
                } else {
                    vec![1]
                },
            },
            Axis {
                name: "pf",
                values: if m == 1 {
                    vec![64, 0, 32, 128]
                } else {
                    vec![0, 32]
                },
            },
        ])
    }

    fn has_groups(&self) -> bool {
        true
    }

    fn plan(&self, spec: &KernelSpec, k: usize) -> Result<Plan, Unsupported> {
        let micro = MicroKernel::new(spec, k)?;
        let live = micro.live();
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
            unpack: None,
            main: tile_sizes(spec.mr)
                .into_iter()
                .map(|mr| {
                    let rows = act_rows(micro.groups, mr);
                    (mr, MicroKernel { mr: rows, ..micro }.program(mr))
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
    unroll: usize,
    form: Form,
    /// The group of columns at hand.
    at: GroupAt,
}

impl<'a> MicroKernel<'a> {
    fn new(spec: &'a KernelSpec, k: usize) -> Result<Self, Unsupported> {
        let bad = |why: String| Err(Unsupported::new(spec, why));
        let shape = PanelShape {
            nr: spec.nr,
            k,
            kr: spec.kr,
        };
        if let Some(why) = Base3.unsupported(shape) {
            return bad(why);
        }
        let rows = spec.isa.width().bytes() / 4;
        if !spec.nr.is_multiple_of(rows) {
            return bad(format!(
                "NR is not a multiple of the {rows} rows of a vector"
            ));
        }
        let form = match spec.knob("f", if spec.isa.has_wide_lut() { 0 } else { 2 }) {
            0 | 1 if !spec.isa.has_wide_lut() => {
                return bad(format!("{} has no byte look-ups in 128 entries", spec.isa));
            }
            0 => Form::LutMask,
            1 => Form::LutShift,
            2 => Form::Arithmetic,
            other => return bad(format!("form f{other}: 0 masks, 1 shifts, 2 arithmetic")),
        };
        let groups = Groups::of(spec)?;
        if let Some(g) = groups
            && !spec.isa.has_dot()
            && g.scales.k > FLUSH_STEPS * STEP_K
        {
            return bad(format!("pairs of {} columns overflow an i16", g.scales.k));
        }
        Ok(Self {
            spec,
            k,
            groups,
            panel: Panel {
                layout: &Base3,
                shape,
                scales: groups.map(|g| g.scales),
            },
            mr: act_rows(groups, spec.mr),
            vectors: spec.nr / rows,
            unroll: spec.knob("u", 1) as usize,
            form,
            at: GroupAt::default(),
        })
    }

    /// Accumulators of one token and vector.
    fn accs(&self) -> usize {
        match self.form {
            Form::LutMask => 4,
            Form::LutShift | Form::Arithmetic => 1,
        }
    }

    fn live(&self) -> usize {
        let consts = match self.form {
            Form::LutMask => 8 + 2 * self.vectors,
            Form::LutShift => 5 + 2 * self.vectors + 1,
            Form::Arithmetic => 9 + 3,
        };
        self.mr * self.vectors * self.accs() + consts + 1
    }

    /// The program of `mr` tokens.
    fn program(&self, mr: usize) -> Program {
        let mut b = Builder::new(
            format!("{}-k{}-m{}", self.spec, self.k, self.mr),
            self.spec.isa.width(),
        );
        let k = self.k as i32;
        b.operand(Operand::Weights, self.panel.bytes(), self.panel.promise());
        b.operand(
            Operand::Acts,
            self.mr * acts::row_bytes(self.k),
            Promise::I8(-128, 127),
        );
        if let Some(groups) = self.groups {
            self.grouped(&mut b, groups, mr);
            return b.finish();
        }
        b.operand(Operand::Sums, self.mr * 4, Promise::I32(-128 * k, 127 * k));
        b.operand(Operand::Out, self.mr * self.spec.nr * 4, Promise::Bits);
        if self.spec.isa.has_dot() {
            let digits = self.digits(&mut b);
            self.dots(&mut b, &digits);
        } else {
            self.madds(&mut b);
        }
        b.finish()
    }

    /// Steps of `k` columns.
    fn steps_of(k: usize) -> usize {
        k.div_ceil(STEP_K)
    }

    /// `mr` tokens, group by group.
    fn grouped(&self, b: &mut Builder, groups: Groups, mr: usize) {
        let scaling = groups.scaling(mr, self.spec.nr, self.k);
        scaling.begin(b);
        let digits = self.digits(b);
        scaling.each(b, |b, at| {
            let micro = MicroKernel { at, ..*self };
            let steps = Self::steps_of(at.k);
            let accs = if self.spec.isa.has_dot() {
                micro.dot_sums(b, &digits, steps)
            } else {
                let pairs = micro.pair_sums(b, &digits, None, 0, steps);
                let ones = b.op(Op::Splat16(1));
                pairs
                    .into_iter()
                    .map(|p| b.op(Op::MaddI16(p, ones)))
                    .collect()
            };
            let scales = Addr::new(Operand::Weights, self.panel.code_bytes(at.k));
            let scales = at.of(scales, self.group_bytes());
            let lines_ahead = self.spec.knob("pf", 0) as usize;
            if lines_ahead > 0 {
                b.prefetch(scales.clone().plus(64 * lines_ahead));
            }
            scaling.add(b, at, scales, &accs);
        });
    }

    /// Bytes from one group to the next; irrelevant where there is one.
    fn group_bytes(&self) -> usize {
        self.panel.scales.map_or(0, |s| self.panel.run_bytes(s.k))
    }

    fn load(&self, b: &mut Builder, place: &Place, v: usize) -> Value {
        let addr = Addr::new(Operand::Weights, v * b.width_bytes());
        let addr = self.at.of(addr, self.group_bytes());
        b.op(Op::Load(place.apply(addr, self.spec.nr * 4)))
    }

    /// One dword of activations for field `f` of token `t`.
    fn x(&self, b: &mut Builder, place: &Place, t: usize, f: usize) -> Value {
        let addr = Addr::new(Operand::Acts, t * acts::row_bytes(self.k) + 4 * f);
        let group_k = self.panel.scales.map_or(0, |s| s.k);
        let addr = self.at.of(addr, group_k);
        b.op(Op::LoadBcast32(place.apply(addr, STEP_K)))
    }

    fn prefetch(&self, b: &mut Builder, place: &Place, steps: usize) {
        let lines = self.spec.knob("pf", 0) as usize;
        let weights = self
            .at
            .of(Addr::new(Operand::Weights, 0), self.group_bytes());
        for line in place.ahead(weights, lines, steps, self.spec.nr * 4) {
            b.prefetch(line);
        }
    }

    /// The sums over `steps`, in i32 registers: one for each row of activations and vector.
    fn dot_sums(&self, b: &mut Builder, digits: &Digits, steps: usize) -> Vec<Value> {
        let n = self.accs();
        let unroll = self.unroll.clamp(1, steps);
        let zero = b.zero();
        let init = vec![zero; self.mr * self.vectors * n];
        // With four accumulators, c4 is a plain code and joins c0.
        let slot = |f: usize, t: usize, v: usize| (t * self.vectors + v) * n + f % n;
        let one = |b: &mut Builder, place: &Place, accs: &mut Vec<Value>| {
            self.step(b, digits, place, &mut |b, f, t, v, u, s| {
                let acc = &mut accs[slot(f, t, v)];
                *acc = b.op(Op::DotU8I8 { acc: *acc, u, s });
            });
        };
        let mut accs = b.repeat(steps / unroll, &init, |b, c, params| {
            let mut accs = params.to_vec();
            let place = Place::at(0).and(c, unroll);
            self.prefetch(b, &place, unroll);
            for step in 0..unroll {
                one(b, &place.plus(step), &mut accs);
            }
            accs
        });
        for at in steps - steps % unroll..steps {
            one(b, &Place::at(at), &mut accs);
        }
        accs.chunks(n).map(|fields| combine(b, fields)).collect()
    }

    /// Straight to i32 registers.
    fn dots(&self, b: &mut Builder, digits: &Digits) {
        let accs = self.dot_sums(b, digits, Self::steps_of(self.k));
        let w = b.width_bytes();
        for t in 0..self.mr {
            let sum = b.op(Op::LoadBcast32(Addr::new(Operand::Sums, 4 * t)));
            for v in 0..self.vectors {
                let i = t * self.vectors + v;
                let y = b.op(Op::Sub32(accs[i], sum));
                b.store(Addr::new(Operand::Out, i * w), y);
            }
        }
    }

    /// i16 sums of pairs over `steps` from `from` on; `outer` counts blocks of [`FLUSH_STEPS`].
    fn pair_sums(
        &self,
        b: &mut Builder,
        digits: &Digits,
        outer: Option<Counter>,
        from: usize,
        steps: usize,
    ) -> Vec<Value> {
        let zero = b.zero();
        let init = vec![zero; self.mr * self.vectors];
        b.repeat(steps, &init, |b, c, params| {
            let mut pairs = params.to_vec();
            let mut place = Place::at(from).and(c, 1);
            place.counters.extend(outer.map(|c| (c, FLUSH_STEPS)));
            self.prefetch(b, &place, 1);
            self.step(b, digits, &place, &mut |b, _, t, v, u, s| {
                let p = b.op(Op::MaddU8I8 { u, s });
                let i = t * self.vectors + v;
                pairs[i] = b.op(Op::Add16(pairs[i], p));
            });
            pairs
        })
    }

    /// Through i16 registers to i32 memory.
    fn madds(&self, b: &mut Builder) {
        let w = b.width_bytes();
        let zero = b.zero();
        for t in 0..self.mr {
            let sum = b.op(Op::LoadBcast32(Addr::new(Operand::Sums, 4 * t)));
            let start = b.op(Op::Sub32(zero, sum));
            for v in 0..self.vectors {
                b.store(Addr::new(Operand::Out, (t * self.vectors + v) * w), start);
            }
        }
        let digits = self.digits(b);
        let block = |b: &mut Builder, outer: Option<Counter>, from: usize, steps: usize| {
            let pairs = self.pair_sums(b, &digits, outer, from, steps);
            let ones = b.op(Op::Splat16(1));
            for (i, &p) in pairs.iter().enumerate() {
                let wide = b.op(Op::MaddI16(p, ones));
                b.accumulate(Element::I32, Addr::new(Operand::Out, i * w), wide);
            }
        };
        let steps = Self::steps_of(self.k);
        let (blocks, rest) = (steps / FLUSH_STEPS, steps % FLUSH_STEPS);
        b.repeat(blocks, &[], |b, c, _| {
            block(b, Some(c), 0, FLUSH_STEPS);
            vec![]
        });
        if rest > 0 {
            block(b, None, blocks * FLUSH_STEPS, rest);
        }
    }
}
