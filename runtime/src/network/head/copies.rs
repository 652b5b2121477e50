//! Coarser copies of float rows: 8 bits with one scale a row, rounded to nearest; 4 bits with a scale for 32 columns,
//! rounded up or down at random so that each value is right on average.

use super::{CodedRow, loops};
use bitnet_codegen::coded::{self, Form};
use half::f16;

/// The code of the 8-bit copy that stands for 0.
pub(super) const ZERO_8: i32 = 128;

/// The code of the 4-bit copy that stands for 0.
pub(super) const ZERO_4: i32 = 8;

/// The largest magnitudes of the two.
const MOST_8: f32 = 127.0;
const MOST_4: f32 = 7.0;

/// How far a copy is from the row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Distance {
    /// `‖ŵ‖²`.
    pub copy_squared: f64,
    /// `‖w − ŵ‖²`; where rounding is random, of the expected `ŵ`.
    pub error_squared: f64,
}

/// The form of the 8-bit copy.
pub(super) fn form_8() -> &'static Form {
    coded::by_name("b8").expect("a form of the list")
}

/// The form of the 4-bit copy.
pub(super) fn form_4() -> &'static Form {
    coded::by_name("b4x32").expect("a form of the list")
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m: f32, v| m.max(v.abs()))
}

/// Rounds `values` to 8 bits. The scale of the row goes to `row.scale`.
pub(super) fn code_8(values: &[f32], row: &mut CodedRow) -> Distance {
    row.scale = largest(values) / MOST_8;
    row.codes.fill(ZERO_8 as u8);
    let [copy_squared, error_squared] =
        loops::round(values, row.scale, ZERO_8, MOST_8, &mut row.codes);
    Distance {
        copy_squared,
        error_squared,
    }
}

/// The chances of a block of 32 values, the same in every run (splitmix64 from the block's place).
fn chances(row: usize, block: usize) -> [u16; 32] {
    let mut chances = [0; 32];
    for (i, chances) in (0..).zip(chances.chunks_exact_mut(4)) {
        let at = (row as u64) << 32 | (block as u64) << 3 | i;
        let mut x = (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        for (j, chance) in chances.iter_mut().enumerate() {
            *chance = (x >> (16 * j)) as u16;
        }
    }
    chances
}

/// Rounds `values`, row `index` of the table, to 4 bits at random. The expected copy of a value is the value, to 2⁻¹⁶
/// of a step (chances have 16 bits, f32 divisions 24), and it is never more than a step, its block's unit, away. What
/// is left of the error on average is the distance.
pub(super) fn code_4(values: &[f32], index: usize, row: &mut CodedRow) -> Distance {
    row.codes.fill(ZERO_4 as u8);
    let (mut copy_squared, mut steps_squared) = (0.0, 0.0);
    let blocks = values.chunks(32).zip(row.codes.chunks_exact_mut(32));
    for (b, ((values, codes), unit)) in blocks.zip(&mut row.units).enumerate() {
        let half = at_least(largest(values) / MOST_4);
        *unit = half.to_bits();
        let (step, chances) = (half.to_f32(), chances(index, b));
        let sum = loops::round_by_chance(values, step, &chances, ZERO_4, MOST_4, codes);
        let step_squared = f64::from(step) * f64::from(step);
        copy_squared += step_squared * f64::from(sum);
        steps_squared += step_squared * values.len() as f64;
    }
    Distance {
        copy_squared,
        error_squared: steps_squared * 2f64.powi(-32),
    }
}

/// The smallest half that is not below `v`, which is not negative.
fn at_least(v: f32) -> f16 {
    let half = f16::from_f32(v);
    if half.to_f32() < v {
        f16::from_bits(half.to_bits() + 1)
    } else {
        half
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::tests::noise as values;

    #[test]
    fn halves_are_rounded_up() {
        for v in [0.0, 1.0, 1.0001, 3e-8, 1e-9, 6e-5, 65504.0] {
            let up = at_least(v);
            assert!(up.to_f32() >= v, "{v}");
            assert!(
                v == 0.0 || f16::from_bits(up.to_bits() - 1).to_f32() < v,
                "{v}"
            );
        }
        assert_eq!(at_least(70_000.0), f16::INFINITY);
    }

    #[test]
    fn four_bits_are_right_on_average_and_never_a_step_away() {
        let (k, rows) = (64, 4000);
        let row_values = values(k, 3);
        let mut row = CodedRow::new(form_4(), k);
        let mut mean = vec![0f64; k];
        for index in 0..rows {
            code_4(&row_values, index, &mut row);
            for (i, mean) in mean.iter_mut().enumerate() {
                let step = f16::from_bits(row.units[i / 32]).to_f64();
                let copy = step * f64::from(i32::from(row.codes[i]) - ZERO_4);
                let off = (copy - f64::from(row_values[i])).abs();
                assert!(off < step * 1.000_01, "column {i}");
                *mean += copy / rows as f64;
            }
        }
        for (mean, &v) in mean.iter().zip(&row_values) {
            // A step is at most 1/7, its deviation at most half of that: five deviations of the mean.
            assert!(
                (mean - f64::from(v)).abs() < 5.0 * 0.072 / (rows as f64).sqrt(),
                "{mean} {v}"
            );
        }
    }

    #[test]
    fn eight_bits_are_within_half_a_step() {
        for k in [1, 100] {
            let row_values = values(k, 5);
            let mut row = CodedRow::new(form_8(), k);
            let distance = code_8(&row_values, &mut row);
            let mut error = 0.0;
            for (&code, &v) in row.codes.iter().zip(&row_values) {
                let copy = f64::from(row.scale) * f64::from(i32::from(code) - ZERO_8);
                assert!((copy - f64::from(v)).abs() <= 0.500_001 * f64::from(row.scale));
                error += (copy - f64::from(v)).powi(2);
            }
            assert!((error - distance.error_squared).abs() < 1e-12);
        }
    }
}
