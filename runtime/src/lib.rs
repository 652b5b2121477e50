//! Loads ternary models and generates text with tuned kernels.

pub mod format;
pub mod generate;
pub mod model;
pub mod synth;
pub mod tokenizer;
