//! How far a screened logit can be from the exact one: the proof, and the numbers of one token.
//!
//! Notation, for one row: `w` its decoded values (f32), `v` the values of the packed codes in real arithmetic, `x` the
//! activations, `q` their 16-bit codes, `s` the step, `u = 2⁻²⁴`, `γ(n) = n·u / (1 − n·u)`.
//!
//! ```text
//! exact    = fl(Σ w·x)                 K/32 + 6 roundings deep:  |exact − Σ w·x|     ≤ γ(K/32 + 6) · ‖w‖·‖x‖
//! codes    Σ v·x for Σ w·x             native: one rounding      |Σ w·x − Σ v·x|     ≤ 2u · ‖w‖·‖x‖
//!                                      `i8`: Cauchy–Schwarz      |Σ w·x − Σ v·x|     ≤ ‖w − v‖·‖x‖
//!                                      `i4`: Hoeffding           see below
//! planes   Σ v·s·q for Σ v·x           Cauchy–Schwarz            |Σ v·x − s·Σ v·q|   ≤ ‖v‖·‖x − s·q‖
//! screened = fl(s·Σ v·q)               integers are exact; at most 2 blocks + 10 roundings deep (the last two for
//!                                      adding the radius to it):                     ≤ γ(2B + 10) · ‖g‖·p
//! ```
//! `g` are the magnitudes of which `v` is made (where a minimum is subtracted, larger than `|v|`) and
//! `p = ‖s·q‖ + 256·s·√K` bounds what both planes add up to. Sums of squares are f64 and rounded up.
//!
//! `i4`: but for an error on average that is bounded as that of `i8`, each `w − v` is random, independent, zero on average and within an interval of a step `d`; `x` does not
//! depend on how the roundings fell, since what was generated before is what the exact head chooses. So
//! `P(|Σ (w−v)·x| ≥ t) ≤ 2·exp(−2t² / Σ d²x²)`, which is 10⁻¹⁸ for `t` = [`HOEFFDING`] · √(Σ d²x²).
//!
//! So a row's radius is `norm · a + extra · b + c`, of two numbers of the row and three of the token.

use bitnet_codegen::coded::PLANE_MAX;

/// `√(ln(2·10¹⁸) / 2)`, rounded up.
pub(super) const HOEFFDING: f32 = 4.592;

/// A unit roundoff.
const U: f64 = 1.0 / (1 << 24) as f64;

/// Makes up for all roundings of f64 sums and f32 products on the way to a radius.
const UP: f64 = 1.0 + 1e-5;

/// `γ(n)`.
fn gamma(n: usize) -> f64 {
    n as f64 * U / (1.0 - n as f64 * U)
}

/// What is known of a table's rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// Columns.
    pub k: usize,
    /// Blocks of a row.
    pub blocks: usize,
    /// Whether the codes are the stored ones: then `extra` is `‖g‖`; else it is `‖w − v‖` and `norm` bounds both
    /// `‖w‖` and `‖v‖`, which is `‖g‖`.
    pub native: bool,
    /// The largest of all norms and extras; infinite if one is not finite.
    pub largest: f32,
}

/// A token: its codes and what multiplies a row's numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    /// The step of a code.
    pub step: f32,
    /// Multiplies `norm`.
    pub a: f32,
    /// Multiplies `extra`.
    pub b: f32,
    /// Products too small to be normal numbers.
    pub c: f32,
}

impl Token {
    /// Codes `x` in 16 bits; `None` where no bound holds: something is not finite, or might overflow on the way.
    pub fn new(facts: &Facts, x: &[f32], q: &mut [i16]) -> Option<Self> {
        assert_eq!(
            (x.len(), q.len()),
            (facts.k, facts.k),
            "features of a token"
        );
        let largest = x.iter().fold(0f32, |m, v| m.max(v.abs()));
        let finite = x.iter().all(|v| v.is_finite());
        let step = largest / PLANE_MAX as f32;
        // Below, reciprocals and squares leave the range of normal numbers.
        if !finite || !(1e-15..1e15).contains(&step) {
            return None;
        }
        let inverse = 1.0 / step;
        let (mut x_squared, mut e_squared) = (0f64, 0f64);
        for (q, &x) in q.iter_mut().zip(x) {
            let code = (x * inverse).round_ties_even();
            *q = code.clamp(-PLANE_MAX as f32, PLANE_MAX as f32) as i16;
            let (x, copy) = (f64::from(x), f64::from(step) * f64::from(*q));
            x_squared += x * x;
            e_squared += (x - copy) * (x - copy);
        }
        let (x_norm, e_norm) = (x_squared.sqrt(), e_squared.sqrt());
        let planes = x_norm + e_norm + 256.0 * f64::from(step) * (facts.k as f64).sqrt();
        // Every partial sum, before and after it is multiplied by the step, stays far below the largest f32.
        let most = f64::from(facts.largest) * planes * f64::max(1.0, 1.0 / f64::from(step));
        if most.is_nan() || most >= f64::from(f32::MAX) / 1024.0 {
            return None;
        }
        let exact = gamma(facts.k.div_ceil(32) + 6) * x_norm;
        let screened = gamma(2 * facts.blocks + 10) * planes;
        let (a, b) = if facts.native {
            (e_norm + exact + 2.0 * U * x_norm, screened)
        } else {
            (e_norm + exact + screened, x_norm)
        };
        Some(Self {
            step,
            a: (a * UP) as f32,
            b: (b * UP) as f32,
            // 2⁻¹⁴⁹ for each of a few operations a column, the later ones multiplied by the step.
            c: facts.k as f32 * 1e-40 * step.max(1.0),
        })
    }
}

/// `√squared`, rounded up to an f32.
pub(super) fn norm(squared: f64) -> f32 {
    let norm = (squared.sqrt() * (1.0 + 1e-9)) as f32;
    norm * (1.0 + f32::EPSILON) + f32::MIN_POSITIVE
}

/// The sums of squares of runs of 32 activations, rounded up.
pub(super) fn squares_of_32(x: &[f32], out: &mut [f32]) {
    for (x, out) in x.chunks(32).zip(out) {
        let sum: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        *out = (sum * UP) as f32;
    }
}
