//! `bitnet-codegen`: ternary matmul kernels as data, and the emitters that turn them into code.
pub mod oracle;
pub mod problem;
pub mod trit;
