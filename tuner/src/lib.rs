//! `bitnet-tune`: measures a machine and finds its fastest exact ternary kernels.
//!
//! ```text
//! host (what the machine can do) ─▶ space (which specs exist) ─▶ measure (verify, then time)
//!        │                                                          │
//!        └──────────────▶ bound (roofline) ◀──── search ◀───────────┘ ─▶ profile with evidence
//! ```
//! The only crate whose decisions use a clock. Kernels are timed through the runtime's own linear
//! layer, so what is measured is what runs; nothing is timed before it equalled the oracle.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod bound;
pub mod cli;
pub mod host;
pub mod measure;
pub mod peaks;
pub mod sampler;
pub mod search;
pub mod shapes;
pub mod tuning;
