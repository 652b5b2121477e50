//! `bitnet-tune`: measures a machine and finds its fastest exact ternary kernels.
//!
//! ```text
//! host, peaks ──▶ space (candidates, best guess first) ──▶ search (one product) ◀── campaign (all, one budget)
//! what the            model: counts · costs                 │ Bench                     │
//! machine gives       learn: what it misses                 ▼                           ▼
//!                                            lab (build, verify, time)      tuning ──▶ profile with evidence
//!                                            landscape (replay, no clock)
//! ```
//! The only crate whose decisions use a clock. Kernels are timed through the runtime's own linear
//! layer, so what is measured is what runs; nothing is timed before it equalled the oracle.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod agreement;
pub mod bound;
pub mod campaign;
pub mod cli;
pub mod compile;
pub mod deadline;
pub mod described;
pub mod estimate;
pub mod host;
pub mod lab;
pub mod landscape;
pub mod peaks;
pub mod report;
pub mod sampler;
pub mod search;
pub mod shapes;
pub mod space;
pub mod surroundings;
pub mod tuning;
pub mod whole;
