//! `i2s`: mask 2-bit codes out of bytes and multiply them with int8 activations. Decode, small batches, prefill.
//!
//! ```text
//! for step in K/16, for v in 4·NR/W:                   W bytes = W/4 rows × 16 columns
//!   w = load panel
//!   for f in 0..4:  acc[t][v] += dot4(field f of w, broadcast x[t][16·step + 4f ..+4])
//! out = acc − Σx                                       codes are trit + 1
//! ```
//! Tricks: (1) one i32 element is one row, so no horizontal sums and one linear stream of weights;
//! (2) form 0 masks the fields in place (0x03, 0x0C, 0x30, 0xC0), one accumulator each, and divides by
//! 1, 4, 16, 64 once at the end: no shifts in the loop; form 1 shifts first and keeps one accumulator,
//! for tiles of many tokens; form 2 shifts once, by 4, and keeps two; (3) without a dot product, `pmaddubsw` pairs stay in i16 for `FLUSH_STEPS`
//! steps before they are widened.

use super::groups::{GroupAt, Groups, act_rows};
use super::place::Place;
use super::{OutOrder, Plan, Unsupported, Variant, tile_sizes};
use crate::acts::{self, ActsForm};
use crate::isa::Isa;
use crate::layout::i2s::STEP_K;
use crate::layout::{Layout as _, Panel, PanelShape, i2s};
use crate::program::{Addr, Builder, Counter, Op, Operand, Program, Promise, Value, Width};
use crate::spec::{Axis, KernelSpec, Reason};

/// Steps whose i16 pair sums are kept before widening: each step adds four pairs of at most
/// 2·2·128 = 512, so 15 steps stay within 30 720. Among group scales a code may be 3: 10 steps.
const FLUSH_STEPS: usize = 15;
const FLUSH_GROUP_STEPS: usize = 10;

impl Form {
    /// Masks that take the fields out; as many accumulators add them up.
    fn masks(self) -> &'static [u8] {
        match self {
            Form::Mask => &[0x03, 0x0C, 0x30, 0xC0],
            Form::Half => &[0x03, 0x0C],
            Form::Shift | Form::Madd => &[0x03],
        }
    }

    /// Bits that field `f` is shifted down before it is masked ([`Form::Half`] shifts the words, once).
    fn shift(self, f: usize) -> u8 {
        match self {
            Form::Mask | Form::Half => 0,
            Form::Shift | Form::Madd => 2 * f as u8,
        }
    }

    /// Vectors that live at once in the loop of a tile of `mr` tokens and `vectors` vectors of rows.
    fn live(self, mr: usize, vectors: usize) -> usize {
        let (tile, masks) = (mr * vectors, self.masks().len());
        let step = vectors + mr.min(vectors) + 1;
        match self {
            // Pair sums, the wide sums around them, the constant that widens, and a product.
            Form::Madd => 2 * tile + masks + step + 2,
            _ => tile * masks + masks + step,
        }
    }
}

/// The family.
pub struct I2s;

/// How fields are taken out of bytes.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// Masked in place, one accumulator for each field.
    Mask,
    /// Shifted down by 0 or 4, two masks, two accumulators.
    Half,
    /// Shifted down, one accumulator.
    Shift,
    /// Shifted down, multiplied by pairs into i16.
    Madd,
}

impl Variant for I2s {
    fn name(&self) -> &'static str {
        "i2s"
    }

    fn about(&self) -> &'static str {
        "2-bit codes unpacked in registers and dotted with int8 activations"
    }

    fn layouts(&self) -> &'static [&'static str] {
        &["i2s"]
    }

    fn axes(&self, isa: Isa, m: usize) -> Result<Vec<Axis>, Unsupported> {
        let rows = isa.width().bytes() as u32 / 4;
        let mr = match m {
            1 => vec![1],
            2..=3 => vec![2, 1],
            // Two vectors of rows with twelve tokens fill 32 registers, with five 16; what M does not fill
            // is left out.
            _ if isa.has_dot() && isa.width() != Width::W16 => {
                let tokens: [u32; 5] = if isa.width() == Width::W64 {
                    [12, 8, 6, 4, 2]
                } else {
                    [5, 12, 8, 4, 2]
                };
                tokens.into_iter().filter(|&t| t as usize <= m).collect()
            }
            _ if isa.has_dot() => vec![4, 8, 6, 12, 2],
            _ => vec![2, 4, 1],
        };
        let forms = match (isa.has_dot(), isa.dot_reads_u8(), m) {
            (true, true, 1) => vec![0, 2, 1],
            (true, true, _) => vec![1, 2, 0],
            (true, false, 1) => vec![2, 1],
            (true, false, _) => vec![1, 2],
            (false, _, _) => vec![1],
        };
        Ok(vec![
            Axis {
                name: "mr",
                values: mr,
            },
            Axis {
                name: "nr",
                values: vec![2 * rows, rows, 4 * rows],
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
                values: if m == 1 { vec![2, 1, 4] } else { vec![1, 2] },
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

    fn grouped_axes(&self, isa: Isa, m: usize, planes: usize) -> Result<Vec<Axis>, Unsupported> {
        let rows = if m == 1 { 1 } else { m * planes };
        let mut axes = super::fewer_tokens(self.axes(isa, rows)?, m, planes);
        // Accumulators are joined once a group, so two are better than four.
        for axis in axes.iter_mut().filter(|a| a.name == "f") {
            axis.values.sort_by_key(|&f| f == 0);
        }
        Ok(axes)
    }

    fn plan(&self, spec: &KernelSpec, k: usize) -> Result<Plan, Unsupported> {
        let groups = Groups::of(spec)?;
        let bad = |why: String| Unsupported::new(spec, why);
        let shape = PanelShape {
            nr: spec.nr,
            k,
            kr: spec.kr,
        };
        if let Some(why) = i2s::I2s.unsupported(shape) {
            return Err(bad(why));
        }
        let rows = spec.isa.width().bytes() / 4;
        if !spec.nr.is_multiple_of(rows) {
            return Err(bad(format!(
                "NR is not a multiple of the {rows} rows of a vector"
            )));
        }
        let form = match spec.knob("f", 0) {
            _ if !spec.isa.has_dot() => Form::Madd,
            0 if !spec.isa.dot_reads_u8() => {
                return Err(bad(format!(
                    "form f0 multiplies codes of up to 0x80, the dot product of {} is signed; f2 is like it",
                    spec.isa
                )));
            }
            0 => Form::Mask,
            1 => Form::Shift,
            2 => Form::Half,
            other => {
                return Err(bad(format!(
                    "form f{other}: 0 masks, 1 shifts, 2 does both"
                )));
            }
        };
        let vectors = spec.nr / rows;
        let sizes = tile_sizes(spec.mr);
        let live = form.live(act_rows(groups, spec.mr), vectors);
        if live > spec.isa.vector_registers() {
            let have = spec.isa.vector_registers();
            let needed = live;
            return Err(Unsupported::new(
                spec,
                Reason::VectorRegisters { needed, have },
            ));
        }
        let panel = Panel {
            layout: &i2s::I2s,
            shape,
            scales: groups.map(|g| g.scales),
        };
        let main = sizes
            .into_iter()
            .map(|mr| (mr, program(spec, panel, groups, mr, form)))
            .collect();
        Ok(Plan {
            spec: spec.clone(),
            groups,
            k,
            panel,
            acts: ActsForm::Rows,
            unpack: None,
            main,
            out: OutOrder::TokenMajor,
        })
    }
}

/// What one micro-kernel is built from.
#[derive(Clone)]
struct MicroKernel<'a> {
    spec: &'a KernelSpec,
    panel: Panel,
    /// Rows of activations.
    mr: usize,
    vectors: usize,
    k_stride: usize,
    form: Form,
    /// The form's masks.
    masks: Vec<Value>,
    /// Steps whose i16 pair sums are kept.
    flush: usize,
    /// The group of columns that is summed up.
    at: GroupAt,
}

fn program(
    spec: &KernelSpec,
    panel: Panel,
    groups: Option<Groups>,
    mr: usize,
    form: Form,
) -> Program {
    let width = spec.isa.width();
    let k = panel.shape.k;
    let k_stride = acts::row_bytes(k);
    let rows = act_rows(groups, mr);
    let mut b = Builder::new(format!("{spec}-k{k}-m{mr}"), width);
    b.operand(Operand::Weights, panel.bytes(), panel.promise());
    b.operand(Operand::Acts, rows * k_stride, Promise::I8(-128, 127));
    let masks = form.masks().iter().map(|&m| b.op(Op::Splat8(m))).collect();
    let micro = MicroKernel {
        spec,
        panel,
        mr: rows,
        vectors: spec.nr / (width.bytes() / 4),
        k_stride,
        form,
        masks,
        flush: groups.map_or(FLUSH_STEPS, |_| FLUSH_GROUP_STEPS),
        at: GroupAt::default(),
    };
    let Some(groups) = groups else {
        let sum = Promise::I32(-128 * k as i32, 127 * k as i32);
        b.operand(Operand::Sums, mr * 4, sum);
        b.operand(Operand::Out, mr * spec.nr * 4, Promise::Bits);
        let accs = micro.sums(&mut b, k);
        micro.store(&mut b, &accs);
        return b.finish();
    };
    let scaling = groups.scaling(mr, spec.nr, k);
    scaling.begin(&mut b);
    scaling.each(&mut b, |b, at| {
        let micro = MicroKernel {
            at,
            ..micro.clone()
        };
        let accs = micro.sums(b, at.k);
        let codes = Addr::new(Operand::Weights, panel.code_bytes(at.k));
        let scales = at.of(codes, micro.group_bytes());
        micro.prefetch_line(b, scales.clone());
        scaling.add(b, at, scales, &accs);
    });
    b.finish()
}

impl MicroKernel<'_> {
    /// The sums over the group at hand, one for each (row of activations, vector).
    fn sums(&self, b: &mut Builder, k: usize) -> Vec<Value> {
        let steps = k.div_ceil(STEP_K);
        match self.form {
            Form::Madd => self.madd_loops(b, steps),
            _ => self.dot_loops(b, steps),
        }
    }

    /// Bytes from one group to the next; irrelevant where there is one.
    fn group_bytes(&self) -> usize {
        self.panel.scales.map_or(0, |s| self.panel.run_bytes(s.k))
    }

    /// Bytes of activations from one group to the next.
    fn group_k(&self) -> usize {
        self.panel.scales.map_or(0, |s| s.k)
    }

    /// The weight vectors of a step.
    fn words(&self, b: &mut Builder, place: &Place) -> Vec<Value> {
        let w = b.width_bytes();
        let load = |v| {
            let addr = self
                .at
                .of(Addr::new(Operand::Weights, v * w), self.group_bytes());
            b.op(Op::Load(place.apply(addr, self.spec.nr * 4)))
        };
        (0..self.vectors).map(load).collect()
    }

    /// One dword of activations for field `f` of token `t`.
    fn x(&self, b: &mut Builder, place: &Place, t: usize, f: usize) -> Value {
        let addr = Addr::new(Operand::Acts, t * self.k_stride + 4 * f);
        let addr = self.at.of(addr, self.group_k());
        b.op(Op::LoadBcast32(place.apply(addr, STEP_K)))
    }

    /// Field `f` of a weight vector, as unsigned bytes times the power of two where the mask leaves it.
    fn field(&self, b: &mut Builder, word: Value, f: usize) -> Value {
        // Bits of the neighbouring byte shift in above the field: the mask drops them.
        let word = match self.form.shift(f) {
            0 => word,
            bits => b.op(Op::Shr16(word, bits)),
        };
        b.op(Op::And(word, self.masks[f % self.masks.len()]))
    }

    /// One step of 16 columns. `each(b, field, token, vector, codes, x)` uses the operands. What is fewer,
    /// tokens or vectors, is kept in registers for a field, so that the other needs one at a time.
    fn step(
        &self,
        b: &mut Builder,
        place: &Place,
        each: &mut dyn FnMut(&mut Builder, usize, usize, usize, Value, Value),
    ) {
        let mut words = self.words(b, place);
        for f in 0..4 {
            if self.form == Form::Half && f == 2 {
                words = words.into_iter().map(|w| b.op(Op::Shr16(w, 4))).collect();
            }
            if self.mr <= self.vectors {
                let xs: Vec<Value> = (0..self.mr).map(|t| self.x(b, place, t, f)).collect();
                for (v, &w) in words.iter().enumerate() {
                    let c = self.field(b, w, f);
                    for (t, &x) in xs.iter().enumerate() {
                        each(b, f, t, v, c, x);
                    }
                }
            } else {
                let codes: Vec<Value> = words.iter().map(|&w| self.field(b, w, f)).collect();
                for t in 0..self.mr {
                    let x = self.x(b, place, t, f);
                    for (v, &c) in codes.iter().enumerate() {
                        each(b, f, t, v, c, x);
                    }
                }
            }
        }
    }

    /// Hints at the weights that a turn far ahead reads.
    fn prefetch(&self, b: &mut Builder, place: &Place, steps: usize) {
        let lines = self.spec.knob("pf", 0) as usize;
        let weights = self
            .at
            .of(Addr::new(Operand::Weights, 0), self.group_bytes());
        for line in place.ahead(weights, lines, steps, self.spec.nr * 4) {
            b.prefetch(line);
        }
    }

    /// The same for the line of scales at `addr`.
    fn prefetch_line(&self, b: &mut Builder, addr: Addr) {
        let lines_ahead = self.spec.knob("pf", 0) as usize;
        if lines_ahead > 0 {
            b.prefetch(addr.plus(64 * lines_ahead));
        }
    }

    /// Straight to i32: returns one accumulator for each (token, vector).
    fn dot_loops(&self, b: &mut Builder, steps: usize) -> Vec<Value> {
        let fields = self.masks.len();
        let count = self.mr * self.vectors * fields;
        let zero = b.zero();
        let slot = |f: usize, t: usize, v: usize| (t * self.vectors + v) * fields + f % fields;
        let unroll = (self.spec.knob("u", 1) as usize).clamp(1, steps.max(1));
        let turn = |b: &mut Builder, place: &Place, n: usize, accs: &mut Vec<Value>| {
            for step in 0..n {
                self.step(b, &place.plus(step), &mut |b, f, t, v, u, x| {
                    let acc = &mut accs[slot(f, t, v)];
                    *acc = b.op(Op::DotU8I8 { acc: *acc, u, s: x });
                });
            }
        };
        let mut accs = b.repeat(steps / unroll, &vec![zero; count], |b, c, params| {
            let mut accs = params.to_vec();
            let place = Place::at(0).and(c, unroll);
            self.prefetch(b, &place, unroll);
            turn(b, &place, unroll, &mut accs);
            accs
        });
        let rest = steps % unroll;
        turn(b, &Place::at(steps - rest), rest, &mut accs);
        accs.chunks(fields).map(|a| combine(b, a)).collect()
    }

    /// Through i16 pair sums, widened every few steps.
    fn madd_loops(&self, b: &mut Builder, steps: usize) -> Vec<Value> {
        let count = self.mr * self.vectors;
        let zero = b.zero();
        let ones = b.op(Op::Splat16(1));
        let mut accs = vec![zero; count];
        let (blocks, rest) = (steps / self.flush, steps % self.flush);
        let block =
            |b: &mut Builder, outer: Option<Counter>, from: usize, n: usize, accs: &[Value]| {
                let pairs = b.repeat(n, &vec![zero; count], |b, c, params| {
                    let mut pairs = params.to_vec();
                    let mut place = Place::at(from).and(c, 1);
                    place.counters.extend(outer.map(|c| (c, self.flush)));
                    self.prefetch(b, &place, 1);
                    self.step(b, &place, &mut |b, _, t, v, u, x| {
                        let p = b.op(Op::MaddU8I8 { u, s: x });
                        let acc = &mut pairs[t * self.vectors + v];
                        *acc = b.op(Op::Add16(*acc, p));
                    });
                    pairs
                });
                let wide = pairs
                    .iter()
                    .map(|&p| b.op(Op::MaddI16(p, ones)))
                    .collect::<Vec<_>>();
                accs.iter()
                    .zip(wide)
                    .map(|(&a, p)| b.op(Op::Add32(a, p)))
                    .collect::<Vec<_>>()
            };
        accs = b.repeat(blocks, &accs, |b, c, params| {
            block(b, Some(c), 0, self.flush, params)
        });
        if rest > 0 {
            block(b, None, blocks * self.flush, rest, &accs)
        } else {
            accs
        }
    }

    /// `out[t][row] = acc − Σx`.
    fn store(&self, b: &mut Builder, accs: &[Value]) {
        let w = b.width_bytes();
        for t in 0..self.mr {
            let sum = b.op(Op::LoadBcast32(Addr::new(Operand::Sums, 4 * t)));
            for v in 0..self.vectors {
                let y = b.op(Op::Sub32(accs[t * self.vectors + v], sum));
                b.store(Addr::new(Operand::Out, t * self.spec.nr * 4 + v * w), y);
            }
        }
    }
}

/// `a0 + (a1 >> 2) + (a2 >> 4) + (a3 >> 6)`: each sum is an exact multiple of its divisor.
pub(super) fn combine(b: &mut Builder, accs: &[Value]) -> Value {
    let mut sum = accs[0];
    for (f, &a) in accs.iter().enumerate().skip(1) {
        let part = b.op(Op::Sar32(a, 2 * f as u8));
        sum = b.op(Op::Add32(sum, part));
    }
    sum
}
