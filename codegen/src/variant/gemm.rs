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
//! to the i32 result in memory, which leaves all registers to the i16 tile.

use super::{OutOrder, Plan, Unsupported, Variant, tile_sizes};
use crate::acts::{self, ActsForm};
use crate::isa::Isa;
use crate::layout::i2s::{I2s, STEP_K};
use crate::layout::{Layout as _, Panel, PanelShape};
use crate::program::{Addr, Builder, Counter, Lanes, Op, Operand, Program, Promise, Value};
use crate::spec::{Axis, KernelSpec};

/// Quads of columns whose i16 pair sums are kept before widening: a quad adds two products of at most
/// 2·128 to each i16, so 60 quads stay within 30 720. A multiple of the four quads of a step.
const FLUSH_QUADS: usize = 60;

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

    fn plan(&self, spec: &KernelSpec, k: usize) -> Result<Plan, Unsupported> {
        let bad = |why: String| Unsupported::new(spec, why);
        let tile = Tile::new(spec, k)?;
        let live = tile.mr * tile.vectors + tile.vectors + 1 + usize::from(!tile.dot);
        if live > spec.isa.vector_registers() {
            return Err(bad(format!(
                "{live} live vectors, {} registers",
                spec.isa.vector_registers()
            )));
        }
        Ok(Plan {
            spec: spec.clone(),
            k,
            panel: tile.panel,
            acts: ActsForm::Rows,
            unpack: Some(tile.unpack()),
            main: tile_sizes(spec.mr)
                .into_iter()
                .map(|mr| {
                    let tile = Tile { mr, ..tile };
                    (mr, if tile.dot { tile.dots() } else { tile.madds() })
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
    panel: Panel,
    mr: usize,
    vectors: usize,
    quads: usize,
    unroll: usize,
    dot: bool,
}

impl<'a> Tile<'a> {
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
        Ok(Self {
            spec,
            k,
            panel: Panel {
                layout: &I2s,
                shape,
            },
            mr: spec.mr,
            vectors: spec.nr / rows,
            quads: I2s.k_padded(shape) / QUAD,
            unroll,
            dot: spec.isa.has_dot(),
        })
    }

    /// Bytes of the unpacked panel that one quad of columns takes.
    fn quad_bytes(&self) -> usize {
        self.spec.nr * QUAD
    }

    fn unpacked_bytes(&self) -> usize {
        self.quads * self.quad_bytes()
    }

    /// Four codes in a byte to four bytes.
    fn unpack(&self) -> Program {
        let mut b = Builder::new(
            format!("{}-k{}-unpack", self.spec, self.k),
            self.spec.isa.width(),
        );
        let w = b.width_bytes();
        b.operand(Operand::Weights, self.panel.bytes(), I2s.promise());
        b.operand(Operand::Out, self.unpacked_bytes(), Promise::U8(0, 2));
        let mask = b.op(Op::Splat8(3));
        let two = b.op(Op::Splat8(2));
        let step_bytes = self.quad_bytes();
        let lines_ahead = self.spec.knob("pf", 0) as usize;
        b.repeat(self.quads * QUAD / STEP_K, &[], |b, step, _| {
            for line in 0..step_bytes.div_ceil(64) {
                if lines_ahead > 0 {
                    let addr = Addr::new(Operand::Weights, 64 * (lines_ahead + line));
                    b.prefetch(addr.step(step, step_bytes));
                }
            }
            for v in 0..self.vectors {
                let word = b.op(Op::Load(
                    Addr::new(Operand::Weights, v * w).step(step, step_bytes),
                ));
                for f in 0..STEP_K / QUAD {
                    // Bits of the neighbouring byte shift in above bit 7 − 2f: the mask drops them.
                    let low = match f {
                        0 => word,
                        f => b.op(Op::Shr16(word, 2 * f as u8)),
                    };
                    let field = b.op(Op::And(low, mask));
                    // Packing never writes a 3; the minimum lets the proof of `main` know.
                    let codes = b.op(Op::MinU8(field, two));
                    let to = Addr::new(Operand::Out, f * step_bytes + v * w);
                    b.store(to.step(step, STEP_K / QUAD * step_bytes), codes);
                }
            }
            vec![]
        });
        b.finish()
    }

    fn builder(&self) -> Builder {
        let k = self.k as i32;
        let mut b = Builder::new(
            format!("{}-k{}-m{}", self.spec, self.k, self.mr),
            self.spec.isa.width(),
        );
        b.operand(Operand::Weights, self.unpacked_bytes(), Promise::U8(0, 2));
        b.operand(
            Operand::Acts,
            self.mr * acts::row_bytes(self.k),
            Promise::I8(-128, 127),
        );
        b.operand(Operand::Sums, self.mr * 4, Promise::I32(-128 * k, 127 * k));
        b.operand(Operand::Out, self.mr * self.spec.nr * 4, Promise::Bits);
        b
    }

    /// One quad of columns, `at` quads after the loop's place.
    fn quad(
        &self,
        b: &mut Builder,
        place: &[(Counter, usize)],
        at: usize,
        each: &mut dyn FnMut(&mut Builder, usize, Value, Value),
    ) {
        let w = b.width_bytes();
        let there = |addr: Addr, quad_bytes: usize| {
            place
                .iter()
                .fold(addr.plus(at * quad_bytes), |a, &(c, quads)| {
                    a.step(c, quads * quad_bytes)
                })
        };
        let words: Vec<Value> = (0..self.vectors)
            .map(|v| {
                let addr = Addr::new(Operand::Weights, v * w);
                b.op(Op::Load(there(addr, self.quad_bytes())))
            })
            .collect();
        for t in 0..self.mr {
            let addr = Addr::new(Operand::Acts, t * acts::row_bytes(self.k));
            let x = b.op(Op::LoadBcast32(there(addr, QUAD)));
            for (v, &u) in words.iter().enumerate() {
                each(b, t * self.vectors + v, u, x);
            }
        }
    }

    /// Straight to i32 registers.
    fn dots(&self) -> Program {
        let mut b = self.builder();
        let w = b.width_bytes();
        let zero = b.zero();
        let init = vec![zero; self.mr * self.vectors];
        let accs = b.repeat(self.quads / self.unroll, &init, |b, c, params| {
            let mut accs = params.to_vec();
            for at in 0..self.unroll {
                self.quad(b, &[(c, self.unroll)], at, &mut |b, i, u, s| {
                    accs[i] = b.op(Op::DotU8I8 { acc: accs[i], u, s });
                });
            }
            accs
        });
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
            let zero = b.zero();
            let init = vec![zero; self.mr * self.vectors];
            let pairs = b.repeat(quads / self.unroll, &init, |b, c, params| {
                let mut pairs = params.to_vec();
                let mut place = vec![(c, self.unroll)];
                place.extend(outer.map(|c| (c, FLUSH_QUADS)));
                for at in 0..self.unroll {
                    self.quad(b, &place, from + at, &mut |b, i, u, s| {
                        let p = b.op(Op::MaddU8I8 { u, s });
                        pairs[i] = b.op(Op::Add16(pairs[i], p));
                    });
                }
                pairs
            });
            let ones = b.op(Op::Splat16(1));
            for (i, &p) in pairs.iter().enumerate() {
                let wide = b.op(Op::MaddI16(p, ones));
                b.accumulate(Lanes::I32, Addr::new(Operand::Out, i * w), wide);
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
