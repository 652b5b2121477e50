#![expect(
    unsafe_code,
    reason = "maps anonymous memory with an alignment and page size that Vec cannot ask for"
)]
//! [`HugeBytes`]: zeroed memory for packed weights, on huge pages where the system has them.
//!
//! Decoding reads every weight once a token. With 4 KiB pages the page walks alone cost a fifth of the
//! bandwidth, so large buffers are mapped on 2 MiB boundaries and the kernel is asked for huge pages.

use std::ops::{Deref, DerefMut};

/// Size and alignment of a huge page.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A cache line: the alignment of small buffers.
const LINE_BYTES: usize = 64;

/// Zeroed bytes, aligned to a cache line; from 2 MiB on aligned to huge pages. Pages are committed on first touch.
pub struct HugeBytes {
    start: *mut u8,
    len: usize,
    /// The mapping that holds the bytes; `None` for heap memory.
    mapping: Option<Mapping>,
}

#[cfg_attr(not(unix), expect(dead_code, reason = "only Unix maps"))]
struct Mapping {
    base: *mut u8,
    bytes: usize,
}

// SAFETY: the memory is owned exclusively, like a `Vec<u8>`.
unsafe impl Send for HugeBytes {}
// SAFETY: shared access is read-only.
unsafe impl Sync for HugeBytes {}

impl HugeBytes {
    /// `len` zeros.
    ///
    /// # Panics
    /// When memory is exhausted, as `Vec` does.
    pub fn zeroed(len: usize) -> Self {
        Self::try_zeroed(len).unwrap_or_else(|| panic!("no memory for {len} bytes"))
    }

    /// `len` zeros, or `None` where the system has no such memory.
    pub fn try_zeroed(len: usize) -> Option<Self> {
        #[cfg(unix)]
        if len >= HUGE_PAGE_BYTES
            && let Some(this) = Self::map(len)
        {
            return Some(this);
        }
        let layout = Self::layout(len)?;
        // SAFETY: the layout has a size above zero.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        (!start.is_null()).then_some(Self {
            start,
            len,
            mapping: None,
        })
    }

    fn layout(len: usize) -> Option<std::alloc::Layout> {
        std::alloc::Layout::from_size_align(len.max(1), LINE_BYTES).ok()
    }

    /// Maps `len` bytes at a 2 MiB boundary; `None` leaves the heap to try.
    #[cfg(unix)]
    fn map(len: usize) -> Option<Self> {
        let bytes = len.checked_add(HUGE_PAGE_BYTES)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new private mapping at an address of the system's choice touches nothing that exists.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return None;
        }
        let skip = base.align_offset(HUGE_PAGE_BYTES);
        // SAFETY: `skip` is below the 2 MiB that were mapped beyond `len`.
        let start = unsafe { base.cast::<u8>().add(skip) };
        #[cfg(target_os = "linux")]
        // SAFETY: the range was just mapped; the advice changes no contents, and a refusal costs speed only.
        unsafe {
            libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE);
        }
        Some(Self {
            start,
            len,
            mapping: Some(Mapping {
                base: base.cast(),
                bytes,
            }),
        })
    }
}

impl Drop for HugeBytes {
    fn drop(&mut self) {
        match &self.mapping {
            None => {
                let layout = Self::layout(self.len).expect("the layout it was allocated with");
                // SAFETY: allocated in `try_zeroed` with this layout.
                unsafe { std::alloc::dealloc(self.start, layout) }
            }
            #[cfg(unix)]
            // SAFETY: `map` made this mapping, and nothing borrows from it any more.
            Some(m) => unsafe {
                libc::munmap(m.base.cast(), m.bytes);
            },
            #[cfg(not(unix))]
            Some(_) => {}
        }
    }
}

impl Deref for HugeBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` points to `len` initialised bytes that live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl DerefMut for HugeBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as `deref`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_zeroed_aligned_and_writable_to_its_ends() {
        for len in [
            0,
            1,
            63,
            4096,
            HUGE_PAGE_BYTES - 1,
            HUGE_PAGE_BYTES,
            3 * HUGE_PAGE_BYTES + 17,
        ] {
            let mut bytes = HugeBytes::zeroed(len);
            let align = if len >= HUGE_PAGE_BYTES && cfg!(unix) {
                HUGE_PAGE_BYTES
            } else {
                LINE_BYTES
            };
            assert_eq!(bytes.as_ptr().align_offset(align), 0, "{len} bytes");
            assert_eq!(bytes.len(), len);
            assert!(bytes.iter().all(|&b| b == 0), "{len} bytes");
            if let Some(last) = bytes.last_mut() {
                *last = 7;
                bytes[0] |= 1;
            }
        }
    }
}
