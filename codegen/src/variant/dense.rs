//! `dense`: five trits a byte, decoded in registers and dotted. Decode, where the memory is the limit.
//!
//! ```text
//! for step in K/20, for v in NR/lanes:                 W bytes = W/4 rows × 20 columns
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
use super::i2s::combine;
use super::{OutOrder, Plan, Unsupported, Variant, tile_sizes};
use crate::acts::{self, ActsForm};
use crate::isa::Isa;
use crate::layout::base3::{Base3, STEP_K, digits};
use crate::layout::{Layout as _, Panel, PanelShape};
use crate::program::{Addr, Builder, Counter, Lanes, Op, Operand, Program, Promise, Value};
use crate::spec::{Axis, KernelSpec, Reason};

/// Steps whose i16 pair sums are kept before widening: five products of pairs a step, each at most
/// 2·3·128 (a proof sees two bits a code), so 8 steps stay within 30 720.
const FLUSH_STEPS: usize = 8;

/// Fields of a byte.
const FIELDS: usize = 5;

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
        let tile = Tile::new(spec, k)?;
        let live = tile.live();
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
            groups: tile.groups,
            k,
            panel: tile.panel,
            acts: ActsForm::Rows,
            unpack: None,
            main: tile_sizes(spec.mr)
                .into_iter()
                .map(|mr| {
                    let rows = act_rows(tile.groups, mr);
                    (mr, Tile { mr: rows, ..tile }.program(mr))
                })
                .collect(),
            out: OutOrder::TokenMajor,
        })
    }
}

/// The shape of one micro-kernel.
#[derive(Clone, Copy)]
struct Tile<'a> {
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

/// Constants that live in registers.
struct Consts {
    /// c4 and 84·c4 of `byte / 4`, in 64 entries.
    upper: [Value; 2],
    /// c0 to c3 as 2-bit fields of `byte − 84·c4`, in 128 entries.
    lower: [Value; 2],
    /// 0x03, then 0x0C, 0x30, 0xC0 where fields are masked in place.
    masks: Vec<Value>,
}

/// Constants of [`Form::Arithmetic`].
struct Small {
    p84: Value,
    p9: Value,
    bits: [Value; 3],
    /// 28·c3 and c3 of `rest / 4`.
    upper: [Value; 2],
    /// c1 and c0 of the rest below 9.
    lower: [Value; 2],
}

/// The constants of a form.
enum Digits {
    LookUp(Consts),
    Small(Small),
}

/// Where a step reads: loop counters with the steps that a turn covers, and a constant number of steps.
struct Place<'p> {
    counters: &'p [(Counter, usize)],
    at: usize,
}

impl Place<'_> {
    fn apply(&self, addr: Addr, step_bytes: usize) -> Addr {
        self.counters
            .iter()
            .fold(addr.plus(self.at * step_bytes), |a, &(c, steps)| {
                a.step(c, steps * step_bytes)
            })
    }
}

/// What a tile does with a code: `(builder, field, token, vector, codes, x)`.
type Each<'e> = &'e mut dyn FnMut(&mut Builder, usize, usize, usize, Value, Value);

impl<'a> Tile<'a> {
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
            let tile = Tile { at, ..*self };
            let steps = Self::steps_of(at.k);
            let accs = if self.spec.isa.has_dot() {
                tile.dot_sums(b, &digits, steps)
            } else {
                let pairs = tile.pair_sums(b, &digits, None, 0, steps);
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

    /// The constants of the form.
    fn digits(&self, b: &mut Builder) -> Digits {
        match self.form {
            Form::Arithmetic => Digits::Small(small(b)),
            _ => Digits::LookUp(self.consts(b)),
        }
    }

    /// One step: its digits, handed to `each`.
    fn step(&self, b: &mut Builder, digits: &Digits, place: &Place<'_>, each: Each<'_>) {
        match digits {
            Digits::Small(c) => self.arithmetic(b, c, place, each),
            Digits::LookUp(c) => self.look_up(b, c, place, each),
        }
    }

    fn consts(&self, b: &mut Builder) -> Consts {
        let c4: Vec<u8> = (0..64).map(|i| (i / 21).min(2)).collect();
        let times84: Vec<u8> = c4.iter().map(|c| 84 * c).collect();
        let lower: Vec<u8> = (0..128)
            .map(|r| {
                let c = digits(r);
                c[0] | c[1] << 2 | c[2] << 4 | (c[3] & 3) << 6
            })
            .collect();
        let mut table = |bytes: &[u8]| {
            let at = b.consts(bytes);
            b.op(Op::Load(Addr::new(Operand::Consts, at)))
        };
        let upper = [table(&c4), table(&times84)];
        let lower = [table(&lower[..64]), table(&lower[64..])];
        let fields: &[u8] = match self.form {
            Form::LutMask => &[0x03, 0x0C, 0x30, 0xC0],
            _ => &[0x03],
        };
        let masks = fields.iter().map(|&m| b.op(Op::Splat8(m))).collect();
        Consts {
            upper,
            lower,
            masks,
        }
    }

    fn load(&self, b: &mut Builder, place: &Place<'_>, v: usize) -> Value {
        let addr = Addr::new(Operand::Weights, v * b.width_bytes());
        let addr = place.apply(addr, self.spec.nr * 4);
        b.op(Op::Load(self.at.of(addr, self.group_bytes())))
    }

    /// One dword of activations for field `f` of token `t`.
    fn x(&self, b: &mut Builder, place: &Place<'_>, t: usize, f: usize) -> Value {
        let addr = Addr::new(Operand::Acts, t * acts::row_bytes(self.k) + 4 * f);
        let group_k = self.panel.scales.map_or(0, |s| s.k);
        let addr = self.at.of(place.apply(addr, STEP_K), group_k);
        b.op(Op::LoadBcast32(addr))
    }

    /// One step by wide look-ups; in the mask form, fields 1 to 3 come multiplied by 4, 16, 64.
    fn look_up(&self, b: &mut Builder, c: &Consts, place: &Place<'_>, each: Each<'_>) {
        let mut upper = Vec::new();
        let mut lower = Vec::new();
        for v in 0..self.vectors {
            let bytes = self.load(b, place, v);
            // Bits of the neighbouring byte shift in above bit 5: the look-up ignores them.
            let idx = b.op(Op::Shr16(bytes, 2));
            let [c4, times84] = c.upper.map(|table| b.op(Op::Lut64 { table, idx }));
            let rest = b.op(Op::SubSatU8(bytes, times84));
            let [lo, hi] = c.lower;
            lower.push(b.op(Op::Lut128 { lo, hi, idx: rest }));
            upper.push(c4);
        }
        for f in 0..FIELDS {
            let codes: Vec<Value> = (0..self.vectors)
                .map(|v| match (f, self.form) {
                    (4, _) => upper[v],
                    (0, _) => b.op(Op::And(lower[v], c.masks[0])),
                    (f, Form::LutMask) => b.op(Op::And(lower[v], c.masks[f])),
                    (f, _) => {
                        let low = b.op(Op::Shr16(lower[v], 2 * f as u8));
                        b.op(Op::And(low, c.masks[0]))
                    }
                })
                .collect();
            for t in 0..self.mr {
                let x = self.x(b, place, t, f);
                for (v, &u) in codes.iter().enumerate() {
                    each(b, f, t, v, u, x);
                }
            }
        }
    }

    /// One step by arithmetic; every field comes as a code.
    fn arithmetic(&self, b: &mut Builder, c: &Small, place: &Place<'_>, each: Each<'_>) {
        let [three, fifteen, sixty_three] = c.bits;
        for v in 0..self.vectors {
            let bytes = self.load(b, place, v);
            let mut emit = |b: &mut Builder, f: usize, u: Value| {
                for t in 0..self.mr {
                    let x = self.x(b, place, t, f);
                    each(b, f, t, v, u, x);
                }
            };
            let rest = modulo(b, bytes, c.p84);
            let q = b.op(Op::Sub8(bytes, rest));
            // 84 >> 2 ends in 01, 168 >> 2 in 10.
            let q = b.op(Op::Shr16(q, 2));
            let c4 = b.op(Op::And(q, three));
            emit(b, 4, c4);
            let quarter = b.op(Op::Shr16(rest, 2));
            let quarter = b.op(Op::And(quarter, sixty_three));
            let idx = b.op(Op::MinU8(quarter, fifteen));
            let q = b.op(Op::Shuffle16 {
                table: c.upper[0],
                idx,
            });
            let c3 = b.op(Op::Shuffle16 {
                table: c.upper[1],
                idx,
            });
            let rest = b.op(Op::Sub8(rest, q));
            emit(b, 3, c3);
            let least = modulo(b, rest, c.p9);
            let q = b.op(Op::Sub8(rest, least));
            let c2 = b.op(Op::And(q, three));
            emit(b, 2, c2);
            let idx = b.op(Op::And(least, fifteen));
            for f in [1, 0] {
                let table = c.lower[1 - f];
                let u = b.op(Op::Shuffle16 { table, idx });
                emit(b, f, u);
            }
        }
    }

    fn prefetch(&self, b: &mut Builder, counters: &[(Counter, usize)], at: usize, steps: usize) {
        let lines_ahead = self.spec.knob("pf", 0) as usize;
        if lines_ahead == 0 {
            return;
        }
        let step_bytes = self.spec.nr * 4;
        for line in 0..(steps * step_bytes).div_ceil(64) {
            let addr = Addr::new(Operand::Weights, 64 * (lines_ahead + line));
            let addr = Place { counters, at }.apply(addr, step_bytes);
            b.prefetch(self.at.of(addr, self.group_bytes()));
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
        let one = |b: &mut Builder, place: &Place<'_>, accs: &mut Vec<Value>| {
            self.step(b, digits, place, &mut |b, f, t, v, u, s| {
                let acc = &mut accs[slot(f, t, v)];
                *acc = b.op(Op::DotU8I8 { acc: *acc, u, s });
            });
        };
        let mut accs = b.repeat(steps / unroll, &init, |b, c, params| {
            let mut accs = params.to_vec();
            let counters = &[(c, unroll)];
            self.prefetch(b, counters, 0, unroll);
            for at in 0..unroll {
                one(b, &Place { counters, at }, &mut accs);
            }
            accs
        });
        for at in steps - steps % unroll..steps {
            one(b, &Place { counters: &[], at }, &mut accs);
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
            let mut counters = vec![(c, 1)];
            counters.extend(outer.map(|c| (c, FLUSH_STEPS)));
            self.prefetch(b, &counters, from, 1);
            let place = Place {
                counters: &counters,
                at: from,
            };
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
                b.accumulate(Lanes::I32, Addr::new(Operand::Out, i * w), wide);
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

/// `v mod p` for `v < 3p`: the difference wraps to a large byte where it would be negative.
fn modulo(b: &mut Builder, v: Value, p: Value) -> Value {
    let mut rest = v;
    for _ in 0..2 {
        let less = b.op(Op::Sub8(rest, p));
        rest = b.op(Op::MinU8(rest, less));
    }
    rest
}

fn small(b: &mut Builder) -> Small {
    let mut table = |f: &dyn Fn(u8) -> u8| {
        let bytes: Vec<u8> = (0..16).map(f).collect();
        let at = b.consts(&bytes);
        b.op(Op::LoadBcast128(Addr::new(Operand::Consts, at)))
    };
    let upper = [table(&|i| 28 * (i / 7).min(2)), table(&|i| (i / 7).min(2))];
    let lower = [table(&|i| i.min(8) / 3), table(&|i| i.min(8) % 3)];
    Small {
        p84: b.op(Op::Splat8(84)),
        p9: b.op(Op::Splat8(9)),
        bits: [3, 15, 63].map(|m| b.op(Op::Splat8(m))),
        upper,
        lower,
    }
}
