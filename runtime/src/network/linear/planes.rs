//! Products of inputs finer than int8: a value of several bytes is several tokens of one byte.
//!
//! An input is `Σ_p 256^p · plane_p`, each plane int8. The kernels take the planes as tokens of their own, which makes
//! their sums as exact as ever; the sums of a token's planes are then put together exactly and rounded once.

use super::{Linear, Workspace};
use crate::lanes;
use crate::pool::{Columns, Pool};
use bitnet_codegen::Activations;

/// The most planes of an input.
pub const MAX_PLANES: usize = 3;

/// Outputs that one claim puts together.
const COLUMNS: usize = 2048;

impl Linear {
    /// `y[t][first + n] = (Σ_k w[n][k] · Σ_p 256^p · q[t · planes + p][k]) / s[t · planes] · ws[n]`.
    ///
    /// # Shapes
    /// `acts`: `[m · planes, k]`, the planes of a token one after the other, lowest first; `y`: `[m, stride]`, of
    /// which the columns `first..first + n` are written.
    pub fn forward_planes(
        &self,
        pool: &Pool,
        work: &mut Workspace,
        (acts, planes): (&Activations, usize),
        y: &mut [f32],
        stride: usize,
        first: usize,
    ) {
        assert!(
            (1..=MAX_PLANES).contains(&planes) && acts.m.is_multiple_of(planes),
            "{} tokens of {planes} planes",
            acts.m
        );
        assert_eq!(acts.k, self.k, "K of the activations and of the layer");
        let (m, n) = (acts.m / planes, self.n);
        if m == 0 {
            return;
        }
        let mut wide = std::mem::take(&mut work.wide);
        super::grow(&mut wide, acts.m * n);
        for (index, part) in self.parts.iter().enumerate() {
            let sums = (&mut wide[..acts.m * n], n, 0);
            self.part_product(part, pool, work, acts, sums, |tile, wide| {
                tile.each(wide, |sums, slot| slot.copy_from_slice(sums));
            });
            let wide = &wide[..];
            let out = Columns::new(y, m, stride, first, n, COLUMNS);
            pool.each(out, |_, _, mut block| {
                let (from, width) = (block.first(), block.width());
                let ws = &part.row_scales[from..from + width];
                for t in 0..m {
                    let plane = |p: usize| match p < planes {
                        true => &wide[(t * planes + p) * n + from..][..width],
                        false => &[],
                    };
                    let all: [&[i32]; MAX_PLANES] = std::array::from_fn(plane);
                    let s = acts.scales[t * planes];
                    lanes::rescale_planes(&all[..planes], s, ws, block.row(t), index > 0);
                }
            });
        }
        work.wide = wide;
    }
}
