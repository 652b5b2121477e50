//! Loads ternary models and generates text with tuned kernels.

pub mod chat;
pub mod convert;
pub mod format;
pub mod generate;
pub mod inspect;
pub mod lanes;
pub mod linear;
pub mod memory;
pub mod model;
pub mod perplexity;
pub mod pool;
pub mod profile;
pub mod sample;
pub mod stream;
pub mod synth;
pub mod tokenizer;
