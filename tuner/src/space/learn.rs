//! What the cost model misses, learned while timing: a sum of effects, one for each axis value, on the
//! logarithm of measured over predicted time.
//!
//! ```text
//! ln(measured / predicted) ≈ Σ effect(feature)        features: family, layout, instruction set, tile, knobs, …
//! ```
//! Ridge regression by Gauss-Seidel sweeps: an effect with little evidence stays near 0. Effects are shared by all
//! products, with more of their own for each: what one product taught about a family, the next starts from.

use bitnet_codegen::KernelSpec;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};

/// Evidence that an effect of its own product must outweigh, in observations.
const OWN_RIDGE: f64 = 1.5;

/// The same for effects that all products share.
const SHARED_RIDGE: f64 = 0.5;

/// What an effect may be, on the logarithm of time, before anything is known of it.
const UNKNOWN: f64 = 0.08;

/// Sweeps over all effects for each refit; the effects start where the last refit left them.
const SWEEPS: usize = 2;

/// The features of one candidate of one product.
pub type Features = Vec<u32>;

/// One feature: how much it adds, and what stands behind it.
struct Effect {
    value: f64,
    ridge: f64,
    seen_by: Vec<u32>,
}

/// Effects and the observations that they come from.
#[derive(Default)]
pub struct Learner {
    numbers: HashMap<u64, u32>,
    effects: Vec<Effect>,
    observations: Vec<(Features, f64)>,
    known: HashMap<(usize, usize), usize>,
}

impl Learner {
    /// The features of `spec` in product number `product`, which is one of `m` tokens.
    pub fn features(&mut self, product: usize, m: usize, spec: &KernelSpec) -> Features {
        let width = spec.isa.width().bytes();
        let (family, layout, isa) = (&spec.variant, &spec.layout, spec.isa);
        let mut all = vec![
            self.number(("product", product), OWN_RIDGE),
            self.number(("family", family, width), SHARED_RIDGE),
            self.number(("line", family, layout, isa), SHARED_RIDGE),
            self.number(("family", product, family, width), OWN_RIDGE),
            self.number(("line", product, layout, isa), OWN_RIDGE),
            self.number(("tile", family, width, spec.mr, spec.nr), SHARED_RIDGE),
        ];
        let tile = [("mr", spec.mr), ("nr", spec.nr), ("kr", spec.kr)];
        let knobs = spec.knobs.iter();
        let knobs = knobs.map(|(name, &v)| (name.as_str(), v as usize));
        for (axis, value) in tile.into_iter().chain(knobs) {
            all.push(self.number(("axis", family, width, axis, value), SHARED_RIDGE));
            all.push(self.number(("axis", m, family, width, axis, value), SHARED_RIDGE));
            all.push(self.number(("axis", product, family, axis, value), OWN_RIDGE));
        }
        all
    }

    fn number(&mut self, feature: impl Hash, ridge: f64) -> u32 {
        let mut hasher = DefaultHasher::new();
        feature.hash(&mut hasher);
        let next = self.effects.len() as u32;
        let number = *self.numbers.entry(hasher.finish()).or_insert(next);
        if number == next {
            self.effects.push(Effect {
                value: 0.0,
                ridge,
                seen_by: Vec::new(),
            });
        }
        number
    }

    /// What to multiply a prediction with.
    pub fn factor(&self, features: &Features) -> f64 {
        self.sum(features).exp()
    }

    /// By how much the factor may be off, on its logarithm: much where little was seen of the features.
    pub fn doubt(&self, features: &Features) -> f64 {
        let effects = features.iter().map(|&f| &self.effects[f as usize]);
        let left = effects.map(|e| 1.0 / (e.ridge + e.seen_by.len() as f64));
        UNKNOWN * left.sum::<f64>().sqrt()
    }

    fn sum(&self, features: &Features) -> f64 {
        let values = features.iter().map(|&f| self.effects[f as usize].value);
        values.sum()
    }

    /// Candidate `id` of product `product` took `measured_ns` where `predicted_ns` were predicted. A second
    /// observation of the same candidate replaces the first.
    pub fn observe(
        &mut self,
        (product, id): (usize, usize),
        features: &Features,
        predicted_ns: f64,
        measured_ns: f64,
    ) {
        let ratio = (measured_ns / predicted_ns).ln();
        if !ratio.is_finite() {
            return;
        }
        if let Some(&at) = self.known.get(&(product, id)) {
            self.observations[at].1 = ratio;
            return;
        }
        let at = self.observations.len();
        for &f in features {
            self.effects[f as usize].seen_by.push(at as u32);
        }
        self.known.insert((product, id), at);
        self.observations.push((features.clone(), ratio));
    }

    /// Fits the effects of `features` and of whatever was seen together with them.
    pub fn refit(&mut self) {
        let mut left: Vec<f64> = self
            .observations
            .iter()
            .map(|(features, ratio)| ratio - self.sum(features))
            .collect();
        for _ in 0..SWEEPS {
            for effect in self.effects.iter_mut().filter(|e| !e.seen_by.is_empty()) {
                let seen = effect.seen_by.iter();
                let sum: f64 = seen.map(|&i| left[i as usize] + effect.value).sum();
                let value = sum / (effect.seen_by.len() as f64 + effect.ridge);
                for &i in &effect.seen_by {
                    left[i as usize] -= value - effect.value;
                }
                effect.value = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(nr: usize, pf: u32) -> KernelSpec {
        let text = format!("i2s-i2s-1x{nr}c16-avx2-pf{pf}");
        text.parse().expect("a spec")
    }

    #[test]
    fn effects_of_axes_are_told_apart_and_carried_over() {
        let mut learner = Learner::default();
        // Tall panels cost 20 % more, prefetching spares 30 %.
        let truth = |nr: usize, pf: u32| {
            100.0 * if nr == 32 { 1.2 } else { 1.0 } * if pf > 0 { 0.7 } else { 1.0 }
        };
        let mut observe = |product, id, nr, pf| {
            let s = spec(nr, pf);
            let features = learner.features(product, 1, &s);
            learner.observe((product, id), &features, 100.0, truth(nr, pf));
            learner.refit();
        };
        for product in 0..3 {
            observe(product, 0, 8, 0);
            observe(product, 1, 32, 0);
            observe(product, 2, 8, 64);
        }
        let mut factor = |product, nr, pf| {
            let features = learner.features(product, 1, &spec(nr, pf));
            learner.factor(&features)
        };
        let unseen = factor(0, 32, 64);
        assert!((0.75..0.95).contains(&unseen), "{unseen}: truth is 0.84");
        assert!(factor(0, 8, 64) < factor(0, 8, 0));
        assert!(
            factor(9, 8, 64) < factor(9, 32, 0),
            "a new product starts from it"
        );
        let mut doubt = |product, nr, pf| {
            let features = learner.features(product, 1, &spec(nr, pf));
            learner.doubt(&features)
        };
        assert!(doubt(0, 8, 64) < doubt(0, 16, 64) && doubt(0, 16, 64) < doubt(9, 16, 128));
    }

    #[test]
    fn an_observation_is_replaced_and_nonsense_is_left_out() {
        let mut learner = Learner::default();
        let features = learner.features(0, 1, &spec(8, 0));
        learner.observe((0, 0), &features, 100.0, 400.0);
        learner.observe((0, 0), &features, 100.0, 100.0);
        learner.observe((0, 1), &features, 100.0, 0.0);
        learner.refit();
        assert!((learner.factor(&features) - 1.0).abs() < 1e-9);
    }
}
