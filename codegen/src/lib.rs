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
//!
//! Without the default feature `emit` there is no compiler in it: kernels are interpreted, or run code that was
//! compiled before ([`kernel::Library`]).
//!
//! # Words
//! | word | means |
//! |---|---|
//! | problem | `Y[M,N] = X[M,K] · W[N,K]ᵀ`: M tokens, N output features, K input features |
//! | spec | a kernel, completely described; its text is its name |
//! | family | a way to compute ([`variant`]); *layout*: a way to pack weights ([`layout`]) |
//! | panel | NR rows of packed weights, all of K |
//! | tile | MR tokens, or what is computed for them with one panel |
//! | micro-kernel | the program for one tile and one panel: what a call runs |
//! | step | KR columns of a panel: what the layout keeps together; `variant::place` says where one is |
//! | program | a micro-kernel as data ([`program`]); *stage*: one of a kernel's programs with its code |
//! | operand | what a program reads or writes; its *extent* is its bytes, its *promise* what is in them |
//! | element | one i8, i16 or i32 of a vector |
//! | lane | 16 bytes of a vector, of which look-ups and interleaves are defined |
//! | live | a value that is still to be read: live vectors need registers |

#![deny(missing_docs)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod abi;
pub mod acts;
pub mod ahead;
mod aligned;
pub mod backend;
pub mod coded;
#[cfg(feature = "emit")]
pub mod disassembly;
pub mod isa;
pub mod kernel;
pub mod key;
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
pub use kernel::{Kernel, KernelError, KernelSet, Library, Scratch};
pub use key::Key;
pub use problem::Problem;
pub use spec::{KernelSpec, Unsupported};
pub use trit::{Scales, TernaryMatrix};
pub use variant::groups::Groups;
pub use variant::{Plan, plan};
