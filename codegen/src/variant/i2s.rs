//! `i2s`: mask 2-bit codes out of bytes and multiply them with int8 activations. Decode, small batches, prefill.
//!
//! ```text
//! for step in K/16, for v in NR/lanes:                 W bytes = W/4 rows × 16 columns
//!   w = load panel
//!   for f in 0..4:  acc[t][v] += dot4(field f of w, broadcast x[t][16·step + 4f ..+4])
//! out = acc − Σx                                       codes are trit + 1
//! ```
//! Tricks: (1) one i32 lane is one row, so no horizontal sums and one linear stream of weights;
//! (2) form 0 masks the fields in place (0x03, 0x0C, 0x30, 0xC0), one accumulator each, and divides by
//! 1, 4, 16, 64 once at the end: no shifts in the loop; form 1 shifts first and keeps one accumulator,
//! for tiles of many tokens; (3) without a dot product, `pmaddubsw` pairs stay in i16 for `FLUSH_STEPS`
//! steps before they are widened.

use super::{OutOrder, Plan, Unsupported, Variant, tile_sizes};
use crate::acts::{self, ActsForm};
use crate::isa::Isa;
use crate::layout::i2s::STEP_K;
use crate::layout::{Layout as _, Panel, PanelShape, i2s};
use crate::program::{Addr, Builder, Counter, Op, Operand, Program, Promise, Value};
use crate::spec::{Axis, KernelSpec};

/// Steps whose i16 pair sums are kept before widening: each step adds four pairs of at most
/// 2·2·128 = 512, so 15 steps stay within 30 720.
const FLUSH_STEPS: usize = 15;

/// The family.
pub struct I2s;

/// How fields are taken out of bytes.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// Masked in place, one accumulator for each field.
    Mask,
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
            _ => vec![4, 8, 6, 12, 2],
        };
        let forms = match (isa.has_dot(), m) {
            (true, 1) => vec![0, 1],
            (true, _) => vec![1, 0],
            (false, _) => vec![1],
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
                values: vec![2, 1, 4],
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

    fn plan(&self, spec: &KernelSpec, k: usize) -> Result<Plan, Unsupported> {
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
            0 => Form::Mask,
            1 => Form::Shift,
            other => return Err(bad(format!("form f{other}: 0 masks, 1 shifts"))),
        };
        let vectors = spec.nr / rows;
        let sizes = tile_sizes(spec.mr);
        let fields = if form == Form::Mask { 4 } else { 1 };
        let live = spec.mr * vectors * if form == Form::Madd { 2 } else { fields } + 3;
        if live > spec.isa.vector_registers() {
            return Err(bad(format!(
                "{live} live vectors, {} registers",
                spec.isa.vector_registers()
            )));
        }
        let main = sizes
            .into_iter()
            .map(|mr| (mr, program(spec, k, mr, form)))
            .collect();
        let panel = Panel {
            layout: &i2s::I2s,
            shape,
        };
        Ok(Plan {
            spec: spec.clone(),
            k,
            panel,
            acts: ActsForm::Rows,
            unpack: None,
            main,
            out: OutOrder::TokenMajor,
        })
    }
}

/// The shape of one micro-kernel while it is built.
struct Tile<'a> {
    spec: &'a KernelSpec,
    mr: usize,
    vectors: usize,
    k_stride: usize,
    form: Form,
    /// Masks: one for each field, or 0x03 alone.
    masks: Vec<Value>,
}

fn program(spec: &KernelSpec, k: usize, mr: usize, form: Form) -> Program {
    let width = spec.isa.width();
    let shape = PanelShape {
        nr: spec.nr,
        k,
        kr: spec.kr,
    };
    let steps = i2s::I2s.k_padded(shape) / STEP_K;
    let k_stride = acts::row_bytes(k);
    let mut b = Builder::new(format!("{spec}-k{k}-m{mr}"), width);
    b.operand(
        Operand::Weights,
        i2s::I2s.panel_bytes(shape),
        i2s::I2s.promise(),
    );
    b.operand(Operand::Acts, mr * k_stride, Promise::I8(-128, 127));
    b.operand(
        Operand::Sums,
        mr * 4,
        Promise::I32(-128 * k as i32, 127 * k as i32),
    );
    b.operand(Operand::Out, mr * spec.nr * 4, Promise::Bits);
    let fields: &[u8] = if form == Form::Mask {
        &[0x03, 0x0C, 0x30, 0xC0]
    } else {
        &[0x03]
    };
    let masks = fields.iter().map(|&m| b.op(Op::Splat8(m))).collect();
    let tile = Tile {
        spec,
        mr,
        vectors: spec.nr / (width.bytes() / 4),
        k_stride,
        form,
        masks,
    };
    let accs = match form {
        Form::Madd => tile.madd_loops(&mut b, steps),
        _ => tile.dot_loops(&mut b, steps),
    };
    tile.store(&mut b, &accs);
    b.finish()
}

impl Tile<'_> {
    fn weights(&self, step: Option<(Counter, usize)>, at_step: usize, v: usize, w: usize) -> Addr {
        let step_bytes = self.spec.nr * 4;
        let addr = Addr::new(Operand::Weights, at_step * step_bytes + v * w);
        match step {
            Some((c, per_turn)) => addr.step(c, per_turn * step_bytes),
            None => addr,
        }
    }

    /// One dword of activations for field `f` of token `t`.
    fn acts(&self, step: Option<(Counter, usize)>, at_step: usize, t: usize, f: usize) -> Addr {
        let addr = Addr::new(Operand::Acts, t * self.k_stride + at_step * STEP_K + 4 * f);
        match step {
            Some((c, per_turn)) => addr.step(c, per_turn * STEP_K),
            None => addr,
        }
    }

    /// Field `f` of each weight vector, as unsigned bytes (scaled by 4^f in the mask form).
    fn field(&self, b: &mut Builder, words: &[Value], f: usize) -> Vec<Value> {
        words
            .iter()
            .map(|&w| match (self.form, f) {
                (Form::Mask, f) => b.op(Op::And(w, self.masks[f])),
                (_, 0) => b.op(Op::And(w, self.masks[0])),
                // Bits of the neighbouring byte shift in above bit 7 − 2f: the mask drops them.
                (_, f) => {
                    let s = b.op(Op::Shr16(w, 2 * f as u8));
                    b.op(Op::And(s, self.masks[0]))
                }
            })
            .collect()
    }

    /// One step of 16 columns. `each(b, field, token, vector, codes, x)` uses the operands.
    fn step(
        &self,
        b: &mut Builder,
        at: Option<(Counter, usize)>,
        at_step: usize,
        each: &mut dyn FnMut(&mut Builder, usize, usize, usize, Value, Value),
    ) {
        let w = b.width_bytes();
        let words: Vec<Value> = (0..self.vectors)
            .map(|v| b.op(Op::Load(self.weights(at, at_step, v, w))))
            .collect();
        for f in 0..4 {
            let codes = self.field(b, &words, f);
            for t in 0..self.mr {
                let x = b.op(Op::LoadBcast32(self.acts(at, at_step, t, f)));
                for (v, &c) in codes.iter().enumerate() {
                    each(b, f, t, v, c, x);
                }
            }
        }
    }

    fn prefetch(&self, b: &mut Builder, c: Counter, per_turn: usize) {
        let lines_ahead = self.spec.knob("pf", 0) as usize;
        if lines_ahead == 0 {
            return;
        }
        let bytes = per_turn * self.spec.nr * 4;
        for line in 0..bytes.div_ceil(64) {
            let addr = self
                .weights(Some((c, per_turn)), 0, 0, 0)
                .plus(64 * (lines_ahead + line));
            b.prefetch(addr);
        }
    }

    /// Straight to i32: returns one accumulator for each (token, vector).
    fn dot_loops(&self, b: &mut Builder, steps: usize) -> Vec<Value> {
        let fields = self.masks.len();
        let count = self.mr * self.vectors * fields;
        let zero = b.zero();
        let slot = |f: usize, t: usize, v: usize| (t * self.vectors + v) * fields + f % fields;
        let unroll = (self.spec.knob("u", 1) as usize).clamp(1, steps.max(1));
        let turn = |b: &mut Builder,
                    at: Option<(Counter, usize)>,
                    from: usize,
                    n: usize,
                    accs: &mut Vec<Value>| {
            for s in 0..n {
                self.step(b, at, from + s, &mut |b, f, t, v, u, x| {
                    let acc = &mut accs[slot(f, t, v)];
                    *acc = b.op(Op::DotU8I8 { acc: *acc, u, s: x });
                });
            }
        };
        let mut accs = b.repeat(steps / unroll, &vec![zero; count], |b, c, params| {
            let mut accs = params.to_vec();
            self.prefetch(b, c, unroll);
            turn(b, Some((c, unroll)), 0, unroll, &mut accs);
            accs
        });
        turn(b, None, steps - steps % unroll, steps % unroll, &mut accs);
        accs.chunks(fields).map(|a| combine(b, a)).collect()
    }

    /// Through i16 pair sums, widened every [`FLUSH_STEPS`] steps.
    fn madd_loops(&self, b: &mut Builder, steps: usize) -> Vec<Value> {
        let count = self.mr * self.vectors;
        let zero = b.zero();
        let ones = b.op(Op::Splat16(1));
        let mut accs = vec![zero; count];
        let (blocks, rest) = (steps / FLUSH_STEPS, steps % FLUSH_STEPS);
        let block =
            |b: &mut Builder, outer: Option<Counter>, from: usize, n: usize, accs: &[Value]| {
                let pairs = b.repeat(n, &vec![zero; count], |b, c, params| {
                    let mut pairs = params.to_vec();
                    let w = b.width_bytes();
                    self.prefetch(b, c, 1);
                    let (mut wsteps, mut xsteps) = (Vec::new(), Vec::new());
                    for v in 0..self.vectors {
                        wsteps.push(nested(
                            self.weights(Some((c, 1)), from, v, w),
                            outer,
                            self.spec.nr * 4,
                        ));
                    }
                    for f in 0..4 {
                        for t in 0..self.mr {
                            xsteps.push(nested(self.acts(Some((c, 1)), from, t, f), outer, STEP_K));
                        }
                    }
                    let words: Vec<Value> = wsteps.into_iter().map(|a| b.op(Op::Load(a))).collect();
                    for f in 0..4 {
                        let codes = self.field(b, &words, f);
                        for t in 0..self.mr {
                            let x = b.op(Op::LoadBcast32(xsteps[f * self.mr + t].clone()));
                            for (v, &u) in codes.iter().enumerate() {
                                let p = b.op(Op::MaddU8I8 { u, s: x });
                                let acc = &mut pairs[t * self.vectors + v];
                                *acc = b.op(Op::Add16(*acc, p));
                            }
                        }
                    }
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
            block(b, Some(c), 0, FLUSH_STEPS, params)
        });
        if rest > 0 {
            block(b, None, blocks * FLUSH_STEPS, rest, &accs)
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

/// Adds the outer block's part of an address.
fn nested(addr: Addr, outer: Option<Counter>, step_bytes: usize) -> Addr {
    match outer {
        Some(c) => addr.step(c, FLUSH_STEPS * step_bytes),
        None => addr,
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
