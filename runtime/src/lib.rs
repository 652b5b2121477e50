//! Loads ternary models and generates text with tuned kernels.

pub mod chat;
pub mod convert;
pub mod demo;
pub mod engine;
pub mod format;
pub mod generate;
pub mod graph;
pub mod inspect;
pub mod lanes;
pub mod memory;
pub mod network;
pub mod new_file;
pub mod perplexity;
pub mod pool;
pub mod profile;
pub mod sample;
pub mod sequence;
pub mod setup;
pub mod small_file;
pub mod step;
pub mod stream;
pub mod synth;
pub mod tokenizer;
pub mod vocab;
