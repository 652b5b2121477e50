//! `tl1`: look up the sum of two activations for each pair of weights. Decode on CPUs without dot products.
//!
//! ```text
//! for step in K/4, for v in NR/W:                        W bytes = W rows × 4 columns
//!   idx0, idx1 = low and high nibbles of panel[step][v]
//!   acc16[t][v] += i16 table[t][2·step + i][idx_i]       for i in 0..2; widened every FLUSH_STEPS steps
//! ```
//! Tricks: (1) 9 sums of a pair are 16 bytes of low halves and 16 of high halves, so a byte shuffle is an
//! exact look-up; (2) the tables are made once a token and used by all rows; (3) Σ w·x itself is summed,
//! there is no Σx to subtract.

use super::planes::{self, MicroKernel};
use super::{OutOrder, Plan, Unsupported, Variant, tile_sizes};
use crate::acts::ActsForm;
use crate::isa::Isa;
use crate::layout::tl1::{STEP_K, Tl1};
use crate::layout::{Panel, PanelShape};
use crate::program::{Addr, Op, Operand, Program, Value};
use crate::spec::{Axis, KernelSpec};

/// Two entries of at most 2·128 a step: 60 steps stay within 30 720 (128 pairs would reach 2¹⁵).
const FLUSH_STEPS: usize = 60;

/// Registers besides sums and indices: the nibble mask, a table's planes, two look-ups, a spare.
const WORK: usize = 6;

/// The family.
pub struct Tl1Lut;

impl Variant for Tl1Lut {
    fn name(&self) -> &'static str {
        "tl1"
    }

    fn about(&self) -> &'static str {
        "sums of pairs by byte shuffles; decode without dot products"
    }

    fn layouts(&self) -> &'static [&'static str] {
        &["tl1"]
    }

    fn axes(&self, _: Isa, m: usize) -> Result<Vec<Axis>, Unsupported> {
        Ok(planes::axes(m, STEP_K, vec![2, 1, 4]))
    }

    fn plan(&self, spec: &KernelSpec, k: usize) -> Result<Plan, Unsupported> {
        let shape = PanelShape {
            nr: spec.nr,
            k,
            kr: spec.kr,
        };
        let panel = Panel::of_codes(&Tl1, shape);
        let micro = MicroKernel::new(spec, panel, spec.nr, FLUSH_STEPS, WORK)?;
        Ok(Plan {
            spec: spec.clone(),
            groups: None,
            k,
            panel,
            acts: ActsForm::PairTables,
            unpack: None,
            main: tile_sizes(spec.mr)
                .into_iter()
                .map(|mr| (mr, program(&MicroKernel { mr, ..micro })))
                .collect(),
            out: OutOrder::TokenMajor,
        })
    }
}

fn program(micro: &MicroKernel<'_>) -> Program {
    let form = ActsForm::PairTables;
    let mut b = micro.builder((form.tile_bytes(micro.mr, micro.k), 256));
    let w = b.width_bytes();
    let nibble = b.op(Op::Splat8(15));
    micro.run(&mut b, &|b, place, sums| {
        for pair in 0..2 {
            let mut indices: Vec<Option<Value>> = vec![None; micro.vectors];
            for t in 0..micro.mr {
                let at = t * form.tile_bytes(1, micro.k) + 32 * pair;
                let table = micro.table(b, place.apply(Addr::new(Operand::Acts, at), 64));
                for (v, index) in indices.iter_mut().enumerate() {
                    let idx = *index.get_or_insert_with(|| {
                        let addr = Addr::new(Operand::Weights, v * w);
                        let bytes = b.op(Op::Load(place.apply(addr, micro.step_bytes)));
                        let low = match pair {
                            0 => bytes,
                            // Bits of the neighbouring byte shift in above bit 3: the mask drops them.
                            _ => b.op(Op::Shr16(bytes, 4)),
                        };
                        b.op(Op::And(low, nibble))
                    });
                    let entries = micro.look_up(b, table, idx);
                    for (half, x) in entries.into_iter().enumerate() {
                        let sum = &mut sums[2 * (t * micro.vectors + v) + half];
                        *sum = b.op(Op::Add16(*sum, x));
                    }
                }
            }
        }
    });
    b.finish()
}
