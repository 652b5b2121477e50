//! Loads ternary models and generates text with tuned kernels.

pub mod generate;
pub mod tokenizer;
