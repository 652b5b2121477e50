//! What the FFN multiplies its two halves with: each output by itself.

use super::exp;

leveled! {
    /// `out = max(gate, 0)² · up`.
    pub fn relu2_gate(gate: &[f32], up: &[f32], out: &mut [f32]) {
        assert!(gate.len() == up.len() && up.len() == out.len(), "lengths of a gate");
        for ((o, &g), &u) in out.iter_mut().zip(gate).zip(up) {
            // A comparison, not `max`: a NaN must stay one.
            let g = if g < 0.0 { 0.0 } else { g };
            *o = g * g * u;
        }
    }
}

leveled! {
    /// `out = gate / (1 + e^−gate) · up`.
    pub fn silu_gate(gate: &[f32], up: &[f32], out: &mut [f32]) {
        assert!(gate.len() == up.len() && up.len() == out.len(), "lengths of a gate");
        for ((o, &g), &u) in out.iter_mut().zip(gate).zip(up) {
            *o = g / (1.0 + exp(-g)) * u;
        }
    }
}

leveled! {
    /// `out = gate / 2 · (1 + tanh(√(2/π) · (gate + 0.044715 · gate³))) · up`.
    pub fn gelu_gate(gate: &[f32], up: &[f32], out: &mut [f32]) {
        assert!(gate.len() == up.len() && up.len() == out.len(), "lengths of a gate");
        for ((o, &g), &u) in out.iter_mut().zip(gate).zip(up) {
            // (1 + tanh z) / 2 = 1 / (1 + e^−2z).
            let z = 1.595_769_2 * (g + 0.044_715 * g * g * g);
            *o = g / (1.0 + exp(-z)) * u;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_is_close_to_the_exact_one() {
        for i in -2000..=2000 {
            let x = i as f32 / 100.0;
            let mut got = [0.0];
            gelu_gate(&[x], &[1.0], &mut got);
            let x = f64::from(x);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            let want = 0.5 * x * (1.0 + inner.tanh());
            let error = (f64::from(got[0]) - want).abs();
            assert!(
                error <= 2e-6 * want.abs().max(1e-3),
                "{x}: {} of {want}",
                got[0]
            );
        }
    }
}
