//! Loads ternary models and generates text with tuned kernels.
//!
//! ```no_run
//! use bitnet_runtime::{GenerateParams, Sampler, SamplerParams, Session, Setup};
//! use std::sync::atomic::AtomicBool;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let setup = Setup { model: Some("model.gguf".into()), ..Setup::default() };
//! let model = setup.open_model()?;
//! let tokenizer = setup.tokenizer(&model)?;
//! let mut engine = setup.ready(model)?.engine;
//! let prompt = tokenizer.encode_prompt("Once upon a time")?;
//! let mut sampler = Sampler::new(SamplerParams::greedy(), tokenizer.n_vocab())?;
//! let cancel = AtomicBool::new(false);
//! let text = Session::new(&mut engine, &tokenizer)
//!     .generate(&prompt, &GenerateParams::new(120), &mut sampler, &cancel, &mut |_piece| Ok(()))?
//!     .text;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/` holds three programs that run as they stand: `generate` (the above, streamed), `two_conversations`
//! (one network, two sequences, one step) and `logits`.
//!
//! # The ten types
//!
//! | type | is |
//! |---|---|
//! | [`Setup`] | what to load and how: file, threads, profile, context; the demo model where no file is named |
//! | [`Model`] | an opened file: its configuration and its weights by role, not yet packed |
//! | [`Tokenizer`] | text to ids and back |
//! | [`ChatTemplate`] | a conversation to a prompt, in the model's own words |
//! | [`Network`] | packed weights, kernels and LM head: immutable, shared by any number of conversations |
//! | [`Sequence`] | one conversation: tokens, keys and values; it can be forked, truncated, saved and loaded |
//! | [`Step`] | takes new tokens of any sequences through a network in one pass |
//! | [`Engine`] | the simple face for one conversation: a network, one sequence, one step |
//! | [`Session`] | generates with an engine: prompt, sampling, stop tokens, streamed text |
//! | [`Sampler`] | chooses the next token |
//!
//! Weights are shared, sequences hold state, steps do the work. The logits are the same bits for every kernel, tile,
//! number of threads and batch, and whoever else is in the pass.
//!
//! This is a library for other programs: it knows no command line and no terminal, installs no signal handler and
//! prints nothing; what there is to say it hands back as notes. Rooms that only its own parts need are private; the
//! others ([`mod@format`], [`graph`], [`network`], [`pool`], [`profile`], …) are documented, each at its head.
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
//! | lane | one of the partial sums of a reduction in a fixed order (`lanes`); a kernel's lanes are its vectors' |
//! | page | [`sequence::PAGE`] positions of keys and values, the unit in which a cache grows and is shared |

#![deny(missing_docs, unnameable_types)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

#[cfg(test)]
mod bounded;
pub mod chat;
pub mod convert;
pub mod date;
pub mod decoder;
pub mod demo;
pub mod embed;
pub mod engine;
pub mod format;
pub mod generate;
pub mod graph;
pub mod inspect;
pub(crate) mod lanes;
pub mod logits;
pub mod memory;
pub mod network;
pub mod new_file;
pub mod pack;
pub mod perplexity;
pub mod pool;
pub mod profile;
pub mod proven;
pub mod sample;
pub(crate) mod search;
pub mod sequence;
pub mod setup;
pub mod small_file;
pub mod step;
pub(crate) mod stream;
pub mod synth;
pub mod tokenizer;
pub mod vocab;

pub use chat::ChatTemplate;
pub use engine::Engine;
pub use format::Model;
pub use generate::{GenerateParams, Session};
pub use network::Network;
pub use sample::{Sampler, SamplerParams};
pub use sequence::Sequence;
pub use setup::Setup;
pub use step::Step;
pub use tokenizer::Tokenizer;
