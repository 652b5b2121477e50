//! The products of a model that are worth a kernel of their own: the shapes of its ternary layers as the network
//! stacks and splits them.

use bitnet_runtime::format::{LoadError, Model};
use bitnet_runtime::graph::{Product, ScaleShape, TensorId, products};
use bitnet_runtime::synth::Shape;

/// The distinct (N, K) of a model's products, largest first, and how many weights they have together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shapes {
    /// Distinct shapes.
    pub distinct: Vec<(usize, usize)>,
    /// Ternary weights of the whole model.
    pub weights: usize,
}

impl Shapes {
    /// Of an opened model.
    ///
    /// # Errors
    /// When the scales of a projection cannot be read.
    pub fn of_model(model: &Model) -> Result<Self, LoadError> {
        let scales = model
            .linear_ids()
            .map(|id| Ok((id, model.scale_shape(id)?)))
            .collect::<Result<std::collections::HashMap<TensorId, ScaleShape>, LoadError>>()?;
        let head = model.ternary_head_shape();
        let head = head.map(|(n, k)| Product {
            n,
            k,
            group_k: None,
        });
        let blocks = products::products(model.config(), |id| scales[&id]);
        Ok(Self::new(blocks.into_iter().chain(head)))
    }

    /// Of a published model that need not be here.
    pub fn of_shape(shape: &Shape) -> Self {
        Self::new(products::products(&shape.config, |_| ScaleShape::Rows).into_iter())
    }

    fn new(products: impl Iterator<Item = Product>) -> Self {
        let mut distinct: Vec<(usize, usize)> = products.map(|p| (p.n, p.k)).collect();
        let weights = distinct.iter().map(|(n, k)| n * k).sum();
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
