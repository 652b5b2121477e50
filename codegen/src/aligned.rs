//! [`AlignedBytes`]: zeroed bytes that start on a cache line.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Zeroed bytes that start on a cache line.
#[derive(Debug, Default)]
pub struct AlignedBytes {
    store: Vec<u8>,
    offset: usize,
    len: usize,
}

impl AlignedBytes {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let store = vec![0u8; len + LINE - 1];
        // The store is never moved or grown, so the offset stays right.
        let offset = store.as_ptr().align_offset(LINE);
        Self { store, offset, len }
    }

    /// A copy of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut this = Self::zeroed(bytes.len());
        this.bytes_mut().copy_from_slice(bytes);
        this
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.store[self.offset..][..self.len]
    }

    /// The bytes, writable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.store[self.offset..][..self.len]
    }
}
