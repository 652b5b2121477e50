//! What a model computes, as data: no file, no weight, no kernel.

pub mod architectures;
pub(crate) mod config;
pub mod products;
pub mod tensors;

pub use architectures::{ARCHITECTURES, Architecture, RotaryRows};
pub use config::{
    Activation, Acts, Local, ModelConfig, Multipliers, Norm, Projection, Rope, TensorId, Weight,
    Yarn,
};
pub use products::{Product, ScaleShape};
