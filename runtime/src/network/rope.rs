//! Rotary embedding: angles in f64, rotation of the NEOX pairs `(x[i], x[i + head_dim/2])`.

use crate::graph::{Rope, Yarn};

/// Frequencies of the rotary embedding.
pub struct RopeTable {
    /// Angle of one position for each pair.
    frequencies: Vec<f64>,
    /// What cosines and sines are multiplied by.
    attention: f64,
}

impl RopeTable {
    /// `theta^(−2i/head_dim) / factor_i / linear` for each pair i, in f64.
    pub fn new(rope: &Rope, head_dim: usize) -> Self {
        let frequency = |i: usize| {
            let factor = rope.factors.as_ref().map_or(1.0, |f| f[i] as f64);
            let exponent = -2.0 * i as f64 / head_dim as f64;
            (rope.theta as f64).powf(exponent) / factor / rope.linear as f64
        };
        let kept = |i: usize| {
            let yarn = rope.yarn?;
            let (low, high) = between(&yarn, rope.theta as f64, head_dim);
            let stretched = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            Some((yarn.factor as f64, 1.0 - stretched))
        };
        let stretch = |i: usize| match kept(i) {
            Some((factor, kept)) => frequency(i) * ((1.0 - kept) / factor + kept),
            None => frequency(i),
        };
        Self {
            frequencies: (0..head_dim / 2).map(stretch).collect(),
            attention: rope.yarn.map_or(1.0, |y| y.attention as f64),
        }
    }

    /// Cosines, then sines of `position`: `[head_dim / 2]` each.
    pub fn fill(&self, position: usize, out: &mut [f32]) {
        let (cos, sin) = out.split_at_mut(self.frequencies.len());
        for ((c, s), f) in cos.iter_mut().zip(sin).zip(&self.frequencies) {
            let (sine, cosine) = (position as f64 * f).sin_cos();
            let scaled = |v: f64| (v * self.attention) as f32;
            (*c, *s) = (scaled(cosine), scaled(sine));
        }
    }
}

/// The pairs between which frequencies are partly stretched: those that turn `beta_fast` and `beta_slow` times over
/// the original positions.
fn between(yarn: &Yarn, theta: f64, head_dim: usize) -> (f64, f64) {
    let pair = |turns: f32| {
        let wavelength = yarn.original as f64 / (turns as f64 * std::f64::consts::TAU);
        head_dim as f64 * wavelength.ln() / (2.0 * theta.ln())
    };
    let low = pair(yarn.beta_fast).floor().max(0.0);
    let high = pair(yarn.beta_slow).ceil().min(head_dim as f64 - 1.0);
    // Where both are one pair the slope is steep, not infinite.
    (low, if high > low { high } else { low + 0.001 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes;

    #[test]
    fn rotation_keeps_lengths_and_depends_on_distance_only() {
        for head_dim in [32, 96, 100, 128, 256] {
            let rope = Rope {
                theta: 10_000.0,
                linear: 1.0,
                factors: None,
                yarn: None,
            };
            let table = RopeTable::new(&rope, head_dim);
            let head = |seed: usize| -> Vec<f32> {
                (0..head_dim)
                    .map(|i| ((i * seed) % 17) as f32 / 8.0 - 1.0)
                    .collect()
            };
            let at = |x: &[f32], position: usize| {
                let (mut cos_sin, mut out) = (vec![0f32; head_dim], vec![0f32; head_dim]);
                table.fill(position, &mut cos_sin);
                lanes::rotate(x, &cos_sin, &mut out);
                out
            };
            let (q, k) = (head(5), head(7));
            let near = lanes::dot(&at(&q, 3), &at(&k, 1));
            let far = lanes::dot(&at(&q, 1003), &at(&k, 1001));
            assert!(
                (near - far).abs() < 1e-3,
                "{near} at 3-1, {far} at 1003-1001"
            );
            assert!((lanes::dot(&at(&q, 77), &at(&q, 77)) - lanes::dot(&q, &q)).abs() < 1e-3);
            assert_eq!(at(&q, 0), q);
        }
    }

    #[test]
    fn factors_and_linear_scaling_divide_the_angle() {
        let plain = Rope {
            theta: 500_000.0,
            linear: 1.0,
            factors: None,
            yarn: None,
        };
        let slow = Rope {
            theta: 500_000.0,
            linear: 4.0,
            factors: Some(vec![2.0; 64]),
            yarn: None,
        };
        let (mut a, mut b) = (vec![0f32; 128], vec![0f32; 128]);
        RopeTable::new(&plain, 128).fill(3, &mut a);
        RopeTable::new(&slow, 128).fill(24, &mut b);
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
