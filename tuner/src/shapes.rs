//! The products of a model: the shapes of its ternary layers as the engine stacks them.

use bitnet_runtime::graph::{ModelConfig, Projection};
use bitnet_runtime::synth::Shape;

/// The distinct (N, K) of a model's layers, largest first, and the weights of one layer stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shapes {
    /// Distinct shapes.
    pub distinct: Vec<(usize, usize)>,
    /// Ternary weights of the whole model.
    pub weights: usize,
}

impl Shapes {
    /// Of an opened model.
    pub fn of_model(config: &ModelConfig) -> Self {
        Self::new(
            config.n_layers,
            config.input_norm_eps.is_none(),
            |projection| config.linear_shape(projection),
        )
    }

    /// Of a published model that need not be here.
    pub fn of_shape(shape: &Shape) -> Self {
        Self::new(shape.n_layers, true, |projection| {
            shape.linear_shape(projection)
        })
    }

    /// `stacked`: q|k|v and gate|up share their input and run as one product each.
    fn new(n_layers: usize, stacked: bool, of: impl Fn(Projection) -> (usize, usize)) -> Self {
        let groups: &[&[Projection]] = if stacked {
            &[
                &[Projection::AttnQ, Projection::AttnK, Projection::AttnV],
                &[Projection::AttnOut],
                &[Projection::FfnGate, Projection::FfnUp],
                &[Projection::FfnDown],
            ]
        } else {
            &[
                &[Projection::AttnQ],
                &[Projection::AttnK],
                &[Projection::AttnV],
                &[Projection::AttnOut],
                &[Projection::FfnGate],
                &[Projection::FfnUp],
                &[Projection::FfnDown],
            ]
        };
        let mut distinct: Vec<(usize, usize)> = groups
            .iter()
            .map(|g| (g.iter().map(|&r| of(r).0).sum(), of(g[0]).1))
            .collect();
        let weights = n_layers * distinct.iter().map(|(n, k)| n * k).sum::<usize>();
        distinct.sort_unstable_by_key(|&(n, k)| (std::cmp::Reverse(n * k), n));
        distinct.dedup();
        Self { distinct, weights }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_2b_model_has_four_products_a_layer() {
        let shapes = Shapes::of_shape(Shape::find("2b-4t").expect("a published shape"));
        assert_eq!(
            shapes.distinct,
            [(13824, 2560), (2560, 6912), (3840, 2560), (2560, 2560)]
        );
        assert_eq!(shapes.weights, 2_084_044_800);
    }
}
