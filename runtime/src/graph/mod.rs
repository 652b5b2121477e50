//! What a model computes, as data: no file, no weight, no kernel.

pub mod config;

pub use config::{Activation, Architecture, ModelConfig, Norm, Projection, Rope, TensorId};
