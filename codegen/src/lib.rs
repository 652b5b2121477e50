//! `bitnet-codegen`: ternary matmul kernels as data, and the emitters that turn them into code.
//!
//! The pipeline on one page:
//!
//! ```text
//! Problem ─▶ KernelSpec ─▶ variant::plan ─▶ Plan { Panel, ActsForm, Program… }
//!                                             │
//!            TernaryMatrix ─▶ Panel::pack ────┤         Activations ─▶ ActsForm::prepare
//!                                             ▼                              │
//!                          program::Checked ─▶ Backend::emit ─▶ KernelSet    │
//!                                                                  │         │
//!                                                       Kernel::run(panel, tile) ─▶ i32 sums
//! ```
//! A family ([`variant`]) knows no instruction set, a backend ([`backend`]) knows no family, a layout
//! ([`layout`]) knows neither. Every kernel's i32 sums equal [`oracle::matmul`] bit for bit.
//! This crate reads no files, clocks, threads or environment: same spec, same bytes.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod abi;
pub mod acts;
pub mod ahead;
mod aligned;
pub mod backend;
pub mod coded;
pub mod isa;
pub mod kernel;
pub mod layout;
pub mod noise;
pub mod oracle;
pub mod problem;
pub mod program;
pub mod space;
pub mod spec;
pub mod trit;
pub mod variant;

pub use abi::OutOrder;
pub use acts::{Activations, ActsForm, GroupedActs};
pub use isa::{Feature, Features, Isa};
pub use kernel::{Kernel, KernelError, KernelSet, Scratch};
pub use problem::Problem;
pub use spec::{KernelSpec, Unsupported};
pub use trit::{Scales, TernaryMatrix};
pub use variant::groups::Groups;
pub use variant::{Plan, plan};
