//! [`KvCache`]: keys and values of one layer.
//!
//! Everything is f32: squared ReLU makes values of 1e6, which f16 cannot hold, and an f32 cache keeps a prompt
//! that is processed at once equal to one processed token by token without a rule for when to round.

use crate::memory::HugeBytes;

/// Keys and values of one layer, each head's positions contiguous: values `[kv_heads, n_ctx, head_dim]`, keys in
/// the blocks of [`crate::step::attend`].
pub struct KvCache {
    keys: HugeBytes,
    values: HugeBytes,
}

impl KvCache {
    /// Room for `elements` keys and as many values; `None` where the system has no such memory.
    pub fn new(elements: usize) -> Option<Self> {
        let bytes = elements.checked_mul(4)?;
        Some(Self {
            keys: HugeBytes::try_zeroed(bytes)?,
            values: HugeBytes::try_zeroed(bytes)?,
        })
    }

    /// Keys and values.
    pub fn get(&self) -> (&[f32], &[f32]) {
        (
            bytemuck::cast_slice(&self.keys),
            bytemuck::cast_slice(&self.values),
        )
    }

    /// Keys and values, writable.
    pub fn get_mut(&mut self) -> (&mut [f32], &mut [f32]) {
        (
            bytemuck::cast_slice_mut(&mut self.keys),
            bytemuck::cast_slice_mut(&mut self.values),
        )
    }
}
