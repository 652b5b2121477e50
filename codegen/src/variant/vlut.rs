//! `vlut`: look up partial sums of many tokens at once (vector-LUT GEMM). Prefill, without any multiply.
//!
//! ```text
//! for superblock, for step in superblock:             a step is G groups of g columns
//!   for group i:  T[i][index] = Σ_j w_j(index)·x[column j of i]     3^g vectors of i16, one lane a token
//!   for row:      acc16[row] += Σ_i T[i][index of (row, i)]         one vector add for g weights × MR tokens
//! after each superblock, for row:  out[row] += widen(acc16[row]);  acc16[row] = 0
//! ```
//! Tricks: (1) an add of W bytes does g·W/2 multiply-adds, more than a dot product of the same width, and
//! needs no such instruction; (2) tables of a step stay in the L1 cache, the tall panel (NR in the hundreds)
//! spreads the cost of building them; (3) one load brings up to eight indices, for loads are the limit;
//! (4) a superblock ends before i16 could overflow. Source: arXiv 2512.06443.

use super::{OutOrder, Plan, Unsupported, Variant};
use crate::acts::{self, ActsForm};
use crate::isa::Isa;
use crate::layout::lut::{LUT3, LUT4, LUT5, Lut};
use crate::layout::{Layout as _, Panel, PanelShape};
use crate::program::{Addr, Builder, Counter, Lanes, Op, Operand, Program, Promise, Value};
use crate::spec::{Axis, KernelSpec};

/// Tables larger than this leave no room in any first-level cache that we know.
const TABLES_BYTES: usize = 48 << 10;

/// The family.
pub struct Vlut;

impl Variant for Vlut {
    fn name(&self) -> &'static str {
        "vlut"
    }

    fn about(&self) -> &'static str {
        "tables of partial sums across tokens, one vector add for 3 to 5 weights; prefill"
    }

    fn layouts(&self) -> &'static [&'static str] {
        &["lut4", "lut3", "lut5"]
    }

    fn axes(&self, isa: Isa, m: usize) -> Result<Vec<Axis>, Unsupported> {
        let lanes = isa.width().bytes() as u32 / 2;
        let mr = [1, 2, 4]
            .map(|v| v * lanes)
            .into_iter()
            .filter(|&t| t == lanes || t as usize <= m.next_power_of_two())
            .collect();
        // Four to sixteen tables a step, as the width leaves room.
        let kr = match isa.width().bytes() {
            64 => vec![32, 24, 16, 15],
            32 => vec![48, 32, 64, 20],
            _ => vec![64, 48, 32, 40],
        };
        Ok(vec![
            Axis {
                name: "mr",
                values: if m == 1 { vec![lanes] } else { mr },
            },
            Axis {
                name: "nr",
                values: match m {
                    1 => vec![256],
                    _ => vec![864, 640, 1280, 2304, 256],
                },
            },
            Axis {
                name: "kr",
                values: kr,
            },
            Axis {
                name: "u",
                values: if m == 1 { vec![2] } else { vec![2, 4, 1] },
            },
        ])
    }

    fn plan(&self, spec: &KernelSpec, k: usize) -> Result<Plan, Unsupported> {
        let bad = |why: String| Err(Unsupported::new(spec, why));
        let Some(layout) = [&LUT3, &LUT4, &LUT5]
            .into_iter()
            .find(|l| l.name == spec.layout)
        else {
            return bad(format!("reads lut3, lut4, lut5, not {}", spec.layout));
        };
        let shape = PanelShape {
            nr: spec.nr,
            k,
            kr: spec.kr,
        };
        if let Some(why) = layout.unsupported(shape) {
            return bad(why);
        }
        let lanes = spec.isa.width().bytes() / 2;
        if !spec.mr.is_power_of_two() || spec.mr < lanes {
            return bad(format!(
                "MR is not a power of two from the {lanes} tokens of a vector on"
            ));
        }
        let unroll = spec.knob("u", 1) as usize;
        if unroll == 0 || !spec.nr.is_multiple_of(unroll) {
            return bad(format!("NR is not a multiple of u{unroll} rows"));
        }
        let tile = Tile {
            spec,
            layout,
            panel: Panel { layout, shape },
            k,
            mr: spec.mr,
            unroll,
        };
        if tile.tables_bytes() > TABLES_BYTES {
            return bad(format!(
                "tables of {} KiB, at most {}",
                tile.tables_bytes() >> 10,
                TABLES_BYTES >> 10
            ));
        }
        let mut main = Vec::new();
        let mut mr = spec.mr;
        while mr >= lanes {
            main.push((mr, Tile { mr, ..tile }.program()));
            mr /= 2;
        }
        Ok(Plan {
            spec: spec.clone(),
            k,
            panel: tile.panel,
            acts: ActsForm::ColumnsI16 { block: lanes },
            unpack: None,
            main,
            out: OutOrder::RowMajor,
        })
    }
}

/// The shape of one micro-kernel.
#[derive(Clone, Copy)]
struct Tile<'a> {
    spec: &'a KernelSpec,
    layout: &'static Lut,
    panel: Panel,
    k: usize,
    mr: usize,
    unroll: usize,
}

/// Loop counters with the steps that a turn covers, and a constant number of steps.
#[derive(Clone)]
struct Place {
    counters: Vec<(Counter, usize)>,
    at: usize,
}

impl Place {
    fn apply(&self, addr: Addr, step_bytes: usize) -> Addr {
        self.counters
            .iter()
            .fold(addr.plus(self.at * step_bytes), |a, &(c, steps)| {
                a.step(c, steps * step_bytes)
            })
    }
}

impl Tile<'_> {
    /// Groups of a step, G.
    fn groups(&self) -> usize {
        self.spec.kr / self.layout.trits
    }

    /// The largest entry, as an absolute value: q = −128 for all trits.
    fn entry_max(&self) -> usize {
        128 * self.layout.trits
    }

    fn entry_bytes(&self) -> usize {
        2 * self.mr
    }

    fn table_bytes(&self) -> usize {
        self.layout.entries() * self.entry_bytes()
    }

    fn tables_bytes(&self) -> usize {
        self.groups() * self.table_bytes()
    }

    /// Steps whose sums fit an i16.
    fn superblock(&self) -> usize {
        i16::MAX as usize / self.entry_max() / self.groups()
    }

    fn program(&self) -> Program {
        let (nr, steps) = (
            self.spec.nr,
            self.layout.k_padded(self.panel.shape) / self.spec.kr,
        );
        let mut b = Builder::new(
            format!("{}-k{}-m{}", self.spec, self.k, self.mr),
            self.spec.isa.width(),
        );
        b.operand(Operand::Weights, self.panel.bytes(), self.layout.promise());
        b.operand(
            Operand::Acts,
            acts::row_bytes(self.k) * self.mr * 2,
            Promise::I16(-128, 127),
        );
        let entry = self.entry_max() as i16;
        b.operand(
            Operand::Scratch0,
            self.tables_bytes(),
            Promise::I16(-entry, entry),
        );
        let most = (self.superblock() * self.groups() * self.entry_max()) as i16;
        b.operand(
            Operand::Scratch1,
            nr * self.entry_bytes(),
            Promise::I16(-most, most),
        );
        b.operand(Operand::Out, nr * self.mr * 4, Promise::Bits);
        self.clear(&mut b);
        let whole = self.superblock();
        b.repeat(steps / whole, &[], |b, outer, _| {
            let place = Place {
                counters: vec![(outer, whole)],
                at: 0,
            };
            self.steps(b, &place, whole);
            vec![]
        });
        if !steps.is_multiple_of(whole) {
            let place = Place {
                counters: vec![],
                at: steps - steps % whole,
            };
            self.steps(&mut b, &place, steps % whole);
        }
        b.finish()
    }

    fn clear(&self, b: &mut Builder) {
        let zero = b.zero();
        let (w, row_bytes) = (b.width_bytes(), self.mr * 4);
        b.repeat(self.spec.nr, &[], |b, row, _| {
            for at in (0..row_bytes).step_by(w) {
                b.store(Addr::new(Operand::Out, at).step(row, row_bytes), zero);
            }
            vec![]
        });
    }

    /// A superblock: `steps` steps into i16, then everything into the result.
    fn steps(&self, b: &mut Builder, place: &Place, steps: usize) {
        b.repeat(steps, &[], |b, c, _| {
            let mut place = place.clone();
            place.counters.push((c, 1));
            self.build(b, &place);
            self.add_rows(b, &place);
            vec![]
        });
        self.drain(b);
    }

    /// The tables of a step: depth first over the digits, an add or none for each.
    fn build(&self, b: &mut Builder, place: &Place) {
        let (w, g) = (b.width_bytes(), self.layout.trits);
        b.repeat(self.groups(), &[], |b, group, _| {
            for at in (0..self.entry_bytes()).step_by(w) {
                let x: Vec<Value> = (0..g)
                    .map(|j| {
                        let addr = Addr::new(Operand::Acts, j * self.entry_bytes() + at)
                            .step(group, g * self.entry_bytes());
                        b.op(Op::Load(
                            place.apply(addr, self.spec.kr * self.entry_bytes()),
                        ))
                    })
                    .collect();
                let zero = b.zero();
                self.digits(b, &x, zero, None, 0, &mut |b, index, sum| {
                    let to = Addr::new(Operand::Scratch0, index * self.entry_bytes() + at);
                    b.store(to.step(group, self.table_bytes()), sum);
                });
            }
            vec![]
        });
    }

    /// All entries whose digits above `x.len()` sum up to `sum` (nothing yet if `None`). Adding to the sum
    /// of the digits chosen so far, instead of stepping from entry to entry, keeps every bound provable.
    fn digits(
        &self,
        b: &mut Builder,
        x: &[Value],
        zero: Value,
        sum: Option<Value>,
        index: usize,
        store: &mut dyn FnMut(&mut Builder, usize, Value),
    ) {
        let Some((&last, rest)) = x.split_last() else {
            return store(b, index, sum.unwrap_or(zero));
        };
        for code in 0..3 {
            let sum = match (code, sum) {
                (1, sum) => sum,
                (0, sum) => Some(b.op(Op::Sub16(sum.unwrap_or(zero), last))),
                (_, None) => Some(last),
                (_, Some(sum)) => Some(b.op(Op::Add16(sum, last))),
            };
            let index = index + code * 3usize.pow(rest.len() as u32);
            self.digits(b, rest, zero, sum, index, store);
        }
    }

    /// For each row the entries of its indices, added up in registers and then to memory.
    fn add_rows(&self, b: &mut Builder, place: &Place) {
        let (w, nr, groups) = (b.width_bytes(), self.spec.nr, self.groups());
        let shift = self.entry_bytes().trailing_zeros() as u8;
        b.repeat(nr / self.unroll, &[], |b, row, _| {
            for r in 0..self.unroll {
                let mut sums: Vec<Option<Value>> = vec![None; self.entry_bytes() / w];
                let mut i = 0;
                while i < groups {
                    let count = if groups - i >= 8 { 8 } else { 4 };
                    let addr =
                        Addr::new(Operand::Weights, r * groups + i).step(row, self.unroll * groups);
                    let addr = place.apply(addr, nr * groups);
                    let indices = if groups - i >= 4 {
                        b.indices8(count, addr, shift)
                    } else {
                        // The last one to three; their scale does what the shift does above.
                        vec![b.index8(addr)]
                    };
                    let scale = if indices.len() == 1 { 1 << shift } else { 1 };
                    for index in indices {
                        for (v, sum) in sums.iter_mut().enumerate() {
                            let entry =
                                Addr::new(Operand::Scratch0, i * self.table_bytes() + v * w);
                            let x = b.op(Op::Load(entry.entry(index, scale)));
                            *sum = Some(match *sum {
                                Some(sum) => b.op(Op::Add16(sum, x)),
                                None => x,
                            });
                        }
                        i += 1;
                    }
                }
                for (v, sum) in sums.into_iter().enumerate() {
                    let to = Addr::new(Operand::Scratch1, r * self.entry_bytes() + v * w)
                        .step(row, self.unroll * self.entry_bytes());
                    b.accumulate(Lanes::I16, to, sum.expect("a step has a group"));
                }
            }
            vec![]
        });
    }

    /// i16 sums to the i32 result. Even and odd i16 of a vector are the two halves of a block of tokens
    /// ([`ActsForm::ColumnsI16`]), so shifts alone restore the order.
    fn drain(&self, b: &mut Builder) {
        let w = b.width_bytes();
        b.repeat(self.spec.nr, &[], |b, row, _| {
            for at in (0..self.entry_bytes()).step_by(w) {
                let from = Addr::new(Operand::Scratch1, at).step(row, self.entry_bytes());
                let both = b.op(Op::Drain(from));
                let up = b.op(Op::Shl32(both, 16));
                let even = b.op(Op::Sar32(up, 16));
                let odd = b.op(Op::Sar32(both, 16));
                for (half, sums) in [even, odd].into_iter().enumerate() {
                    let to = Addr::new(Operand::Out, 2 * at + half * w)
                        .step(row, 2 * self.entry_bytes());
                    b.accumulate(Lanes::I32, to, sums);
                }
            }
            vec![]
        });
    }
}
