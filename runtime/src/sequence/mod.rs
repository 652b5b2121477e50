//! What one conversation holds.

pub mod cache;

pub use cache::KvCache;
