//! The products of a model that are worth a kernel of their own: the shapes of its ternary layers as the network
//! stacks and splits them.

use bitnet_runtime::format::{LoadError, Model};
use bitnet_runtime::graph::Product;
use bitnet_runtime::synth::Shape;
use std::cmp::Reverse;

/// The distinct products of a model, largest first, and how many weights all of them have together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shapes {
    /// Distinct products.
    pub distinct: Vec<Product>,
    /// Ternary weights of the whole model.
    pub weights: usize,
}

impl Shapes {
    /// Of an opened model.
    ///
    /// # Errors
    /// When the scales of a projection cannot be read.
    pub fn of_model(model: &Model) -> Result<Self, LoadError> {
        Ok(Self::new(model.products()?.into_iter()))
    }

    /// Of a published model that need not be here.
    pub fn of_shape(shape: &Shape) -> Self {
        Self::new(shape.products().into_iter())
    }

    fn new(products: impl Iterator<Item = Product>) -> Self {
        let mut distinct: Vec<Product> = products.collect();
        let weights = distinct.iter().map(|p| p.n * p.k).sum();
        distinct.sort_unstable_by_key(|p| (Reverse(p.n * p.k), p.n, p.groups));
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
        let plain = [(13824, 2560), (2560, 6912), (3840, 2560), (2560, 2560)];
        let groups = None;
        let plain = plain.map(|(n, k)| Product { n, k, groups });
        assert_eq!(shapes.distinct, plain);
        assert_eq!(shapes.weights, 2_084_044_800);
    }
}
