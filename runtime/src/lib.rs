//! Loads ternary models and generates text with tuned kernels.
//!
//! Weights are shared, sequences hold state, steps do the work: a [`network::Network`] is immutable and serves any
//! number of conversations, a [`sequence::Sequence`] is one of them, and a [`step::Step`] takes new tokens of any of
//! them through the network in one pass. [`engine::Engine`] is the simple face for one conversation.
//!
//! # Vocabulary
//!
//! | word | means |
//! |---|---|
//! | token | a number below the vocabulary |
//! | position | the place of a token in its sequence, from 0 |
//! | row | one token at one position of one sequence on its way through a pass; in a matrix, a row |
//! | append | the tokens that one pass adds to one sequence |
//! | pass | all rows that go through all layers together |
//! | batch | the most rows of a prompt that go into one pass |
//! | layer, block | one transformer block; a block of *keys* is [`sequence::KEY_BLOCK`] positions |
//! | head | of attention: a slice of `head_dim` columns; a *KV head* is shared by some query heads |
//! | LM head | the matrix from the last hidden state to the logits |
//! | projection | one of a block's seven ternary matrices |
//! | product | projections of one input, stacked and run as one multiplication |
//! | lane | one of the partial sums of a reduction in a fixed order ([`lanes`]); a kernel's lanes are its vectors' |
//! | page | [`sequence::PAGE`] positions of keys and values, the unit in which a cache grows and is shared |

#[cfg(test)]
mod bounded;
pub mod chat;
pub mod convert;
pub mod decoder;
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
