//! Loads ternary models and generates text with tuned kernels.

pub mod attention;
pub mod chat;
pub mod cli;
pub mod convert;
pub mod demo;
pub mod engine;
pub mod format;
pub mod generate;
pub mod head;
pub mod inspect;
pub mod kernels;
pub mod lanes;
pub mod layers;
pub mod linear;
pub mod memory;
pub mod model;
pub mod new_file;
pub mod perplexity;
pub mod pool;
pub mod profile;
pub mod sample;
pub mod setup;
pub mod small_file;
pub mod stream;
pub mod synth;
pub mod tokenizer;
