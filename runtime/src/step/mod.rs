//! One pass of rows through a network.

pub mod attend;
pub mod attention;
