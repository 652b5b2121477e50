//! Weights packed for their kernels: immutable once built, shared by any number of sequences.

pub mod block;
pub mod head;
pub mod kernels;
pub mod linear;
pub mod product;
pub mod rope;
