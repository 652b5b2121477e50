//! `vlut`: look up partial sums of many tokens at once (vector-LUT GEMM). Prefill, without any multiply.
//!
//! ```text
//! for superblock, for step in superblock:             a step is G groups of g columns
//!   for group i:  T[i][index] = Σ_j w_j(index)·x[column j of i]     3^g vectors of i16, one element a token
//!   for row:      acc16[row] += Σ_i T[i][index of (row, i)]         one vector add for g weights × MR tokens
//! after each superblock, for row:  out[row] += widen(acc16[row]);  acc16[row] = 0
//! ```
//! Tricks: (1) an add of W bytes does g·W/2 multiply-adds, more than a dot product of the same width, and
//! needs no such instruction; (2) tables of a step stay in the L1 cache, the tall panel (NR in the hundreds)
//! spreads the cost of building them; (3) one load brings up to eight indices, for loads are the limit, and
//! `a` indices early, for an address that waits for a load costs slots; (4) a superblock ends before i16
//! could overflow. Source: arXiv 2512.06443.

use super::lookup::LookUpRows;
use super::place::Place;
use super::{OutOrder, Plan, Unsupported, Variant};
use crate::acts::{self, ActsForm};
use crate::isa::Isa;
use crate::layout::lut::{LUT3, LUT4, LUT5};
use crate::layout::{Layout as _, Panel, PanelShape};
use crate::program::{Addr, Builder, Op, Operand, Program, Promise};
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
        &["lut4", "lut5", "lut3"]
    }

    fn axes(&self, isa: Isa, m: usize) -> Result<Vec<Axis>, Unsupported> {
        let tokens = isa.width().bytes() as u32 / 2;
        let mr = [1, 2, 4]
            .map(|v| v * tokens)
            .into_iter()
            .filter(|&t| t == tokens || t as usize <= m.next_power_of_two())
            .collect();
        // Three to sixteen tables a step, as the width leaves room.
        let (kr, u, a) = match isa.width().bytes() {
            64 => (vec![32, 24, 16, 15], vec![8], vec![24, 0]),
            // CPUs that have no more than AVX2 have an L1 cache of 32 KiB: 26 KiB of tables by default.
            32 => (vec![40, 48, 30, 60, 32], vec![8], vec![16, 0]),
            _ => (vec![64, 48, 32, 40], vec![4, 2], vec![0, 16]),
        };
        // Most of a smaller tile would be zero tokens: one spec, for completeness.
        let few = m < 8;
        let axis = |name, many: Vec<u32>, one: u32| Axis {
            name,
            values: if few { vec![one] } else { many },
        };
        // What matters most comes last, so that it changes first.
        Ok(vec![
            axis("mr", mr, tokens),
            axis("u", u, 2),
            axis("a", a, 0),
            axis("pf", vec![32, 0], 0),
            Axis {
                name: "kr",
                values: kr,
            },
            axis("nr", vec![864, 2304, 2560, 1280, 640, 256], 256),
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
        let tokens = spec.isa.width().bytes() / 2;
        if !spec.mr.is_power_of_two() || spec.mr < tokens {
            return bad(format!(
                "MR is not a power of two from the {tokens} tokens of a vector on"
            ));
        }
        let unroll = spec.knob("u", 1) as usize;
        if unroll == 0 || !spec.nr.is_multiple_of(unroll) {
            return bad(format!("NR is not a multiple of u{unroll} rows"));
        }
        let rows = LookUpRows {
            layout,
            rows: spec.nr,
            kr: spec.kr,
            mr: spec.mr,
            unroll,
            indices_ahead: spec.knob("a", 0) as usize,
            lines_ahead: spec.knob("pf", 0) as usize,
        };
        if rows.tables_bytes() > TABLES_BYTES {
            return bad(format!(
                "tables of {} KiB, at most {}",
                rows.tables_bytes() >> 10,
                TABLES_BYTES >> 10
            ));
        }
        let panel = Panel::of_codes(layout, shape);
        let mut main = Vec::new();
        let mut mr = spec.mr;
        while mr >= tokens {
            let rows = LookUpRows { mr, ..rows };
            main.push((mr, MicroKernel { spec, panel, rows }.program()));
            mr /= 2;
        }
        Ok(Plan {
            spec: spec.clone(),
            groups: None,
            k,
            panel,
            acts: ActsForm::ColumnsI16 { block: tokens },
            unpack: None,
            main,
            out: OutOrder::RowMajor,
        })
    }
}

/// What one micro-kernel is built from.
#[derive(Clone, Copy)]
struct MicroKernel<'a> {
    spec: &'a KernelSpec,
    panel: Panel,
    rows: LookUpRows,
}

impl MicroKernel<'_> {
    fn program(&self) -> Program {
        let rows = &self.rows;
        let k = self.panel.shape.k;
        let steps = rows.layout.k_padded(self.panel.shape) / rows.kr;
        let mut b = Builder::new(
            format!("{}-k{k}-m{}", self.spec, rows.mr),
            self.spec.isa.width(),
        );
        b.operand(Operand::Weights, self.panel.bytes(), rows.layout.promise());
        b.operand(
            Operand::Acts,
            acts::row_bytes(k) * rows.mr * 2,
            Promise::I16(-128, 127),
        );
        let entry = rows.entry_max() as i16;
        b.operand(
            Operand::Scratch0,
            rows.tables_bytes(),
            Promise::I16(-entry, entry),
        );
        let most = (rows.superblock() * rows.groups() * rows.entry_max()) as i16;
        b.operand(
            Operand::Scratch1,
            rows.rows * rows.entry_bytes(),
            Promise::I16(-most, most),
        );
        b.operand(Operand::Out, rows.rows * rows.mr * 4, Promise::Bits);
        rows.clear(&mut b);
        let whole = rows.superblock();
        b.repeat(steps / whole, &[], |b, outer, _| {
            self.steps(b, &Place::at(0).and(outer, whole), whole);
            vec![]
        });
        let rest = steps % whole;
        if rest > 0 {
            self.steps(&mut b, &Place::at(steps - rest), rest);
        }
        b.finish()
    }

    /// A superblock: `steps` steps into i16, then everything into the result.
    fn steps(&self, b: &mut Builder, place: &Place, steps: usize) {
        let (rows, g) = (&self.rows, self.rows.layout.trits);
        b.repeat(steps, &[], |b, c, _| {
            let place = place.and(c, 1);
            rows.build(b, &|b, group, at| {
                (0..g)
                    .map(|j| {
                        let addr = Addr::new(Operand::Acts, j * rows.entry_bytes() + at)
                            .step(group, g * rows.entry_bytes());
                        b.op(Op::Load(place.apply(addr, rows.kr * rows.entry_bytes())))
                    })
                    .collect()
            });
            rows.add_rows(b, &place, 0);
            vec![]
        });
        rows.drain(b);
    }
}
