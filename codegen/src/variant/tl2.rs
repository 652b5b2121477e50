//! `tl2`: look up the sum of three activations for each triple of weights, mirrored. Decode when bandwidth
//! is scarce and there are no wide byte look-ups.
//!
//! ```text
//! for step in K/24, for v in NR/W:                       5·W bytes = W rows × 24 columns
//!   for t in 0..8:  idx = nibble t;  m = −(sign bit t)
//!     acc16[v] += (table[8·step + t][idx] ^ m) − m       widened every FLUSH_STEPS steps
//! ```
//! Tricks: (1) of the 27 sums of a triple 14 are stored, the others are their negatives; (2) a sign word holds
//! the bits of eight triples for two halves of a lane, in the order of the interleaved entries, so a shift
//! up and an arithmetic shift down make the mask.

use super::planes::{self, MicroKernel};
use super::{OutOrder, Plan, Unsupported, Variant, tile_sizes};
use crate::acts::ActsForm;
use crate::isa::Isa;
use crate::layout::strip::STRIP;
use crate::layout::tl2::{SIGNS_AT, STEP_BYTES, STEP_K, TRIPLES, Tl2};
use crate::layout::{Panel, PanelShape};
use crate::program::{Addr, Builder, Op, Operand, Program, Value};
use crate::spec::{Axis, KernelSpec};

/// Eight entries of at most 3·128 a step, and one more while the sign is applied: 10 steps stay within 30 800.
const FLUSH_STEPS: usize = 10;

/// Registers besides sums and indices: the nibble mask, a table's planes, look-ups, a sign mask, a spare.
const WORK: usize = 7;

/// The family.
pub struct Tl2Lut;

impl Variant for Tl2Lut {
    fn name(&self) -> &'static str {
        "tl2"
    }

    fn about(&self) -> &'static str {
        "sums of triples by mirrored byte shuffles (1.67 bits a weight); decode when bandwidth is scarce"
    }

    fn layouts(&self) -> &'static [&'static str] {
        &["tl2"]
    }

    fn axes(&self, _: Isa, m: usize) -> Result<Vec<Axis>, Unsupported> {
        Ok(planes::axes(m, STEP_K, vec![1, 2]))
    }

    fn plan(&self, spec: &KernelSpec, k: usize) -> Result<Plan, Unsupported> {
        let shape = PanelShape {
            nr: spec.nr,
            k,
            kr: spec.kr,
        };
        let panel = Panel::of_codes(&Tl2, shape);
        let step_bytes = spec.nr / STRIP * STEP_BYTES;
        let micro = MicroKernel::new(spec, panel, step_bytes, FLUSH_STEPS, WORK)?;
        Ok(Plan {
            spec: spec.clone(),
            groups: None,
            k,
            panel,
            acts: ActsForm::TripleTables,
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
    let form = ActsForm::TripleTables;
    let mut b = micro.builder((form.tile_bytes(micro.mr, micro.k), 384));
    let w = b.width_bytes();
    let nibble = b.op(Op::Splat8(15));
    // Vectors lie inside strips, strips one after another.
    let start = |v: usize| v * w / STRIP * STEP_BYTES + v * w % STRIP;
    micro.run(&mut b, &|b, place, sums| {
        let load = |b: &mut Builder, at: usize| {
            let addr = Addr::new(Operand::Weights, at);
            b.op(Op::Load(place.apply(addr, micro.step_bytes)))
        };
        for triple in 0..TRIPLES {
            let mut indices: Vec<Option<Value>> = vec![None; micro.vectors];
            for t in 0..micro.mr {
                let at = t * form.tile_bytes(1, micro.k) + 32 * triple;
                let table = Addr::new(Operand::Acts, at);
                let table = micro.table(b, place.apply(table, 32 * TRIPLES));
                for (v, index) in indices.iter_mut().enumerate() {
                    let idx = *index.get_or_insert_with(|| {
                        let bytes = load(b, start(v) + triple / 2 * STRIP);
                        let low = match triple % 2 {
                            0 => bytes,
                            // Bits of the neighbouring byte shift in above bit 3: the mask drops them.
                            _ => b.op(Op::Shr16(bytes, 4)),
                        };
                        b.op(Op::And(low, nibble))
                    });
                    let entries = micro.look_up(b, table, idx);
                    for (half, x) in entries.into_iter().enumerate() {
                        let signs = load(b, start(v) + SIGNS_AT);
                        // Bit `triple` of the low or high byte to bit 15, then everywhere.
                        let top = match 15 - 8 * half - triple {
                            0 => signs,
                            shift => b.op(Op::Shl16(signs, shift as u8)),
                        };
                        let mask = b.op(Op::Sar16(top, 15));
                        let flipped = b.op(Op::Xor(x, mask));
                        let x = b.op(Op::Sub16(flipped, mask));
                        let sum = &mut sums[2 * (t * micro.vectors + v) + half];
                        *sum = b.op(Op::Add16(*sum, x));
                    }
                }
            }
        }
    });
    b.finish()
}
