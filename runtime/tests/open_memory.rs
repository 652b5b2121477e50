#![expect(unsafe_code, reason = "a counting allocator is an unsafe trait")]
//! Opening a file, however damaged, takes less memory than the file has bytes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use bitnet_runtime::format::{OpenOptions, open_bytes};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged; the counters do not touch memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `at` came from `alloc` above, that is, from `System`, with the same layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory in use at once while `bytes` are opened, beyond what was in use before.
fn peak_of_open(bytes: Vec<u8>) -> usize {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = open_bytes("m.gguf", bytes, &OpenOptions::default());
    let peak = PEAK.load(Ordering::Relaxed) - before;
    drop(result);
    peak
}

#[test]
fn no_length_in_a_file_makes_the_reader_allocate_more_than_the_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/tiny/tiny_b158.gguf");
    let good = std::fs::read(path).unwrap();
    let name = b"blk.1.ffn_down.weight";
    let info = good.windows(name.len()).position(|w| w == name).unwrap();
    // Two dimensions, a type and an offset follow the name.
    let header = info + name.len() + 4 + 16 + 4 + 8;
    assert!(peak_of_open(good.clone()) < good.len());
    for length in [1u64 << 63, 1 << 40, 1 << 24, good.len() as u64 / 2] {
        for at in 0..header - 8 {
            let mut bytes = good.clone();
            bytes[at..at + 8].copy_from_slice(&length.to_le_bytes());
            let peak = peak_of_open(bytes);
            assert!(
                peak < good.len(),
                "{length} at byte {at}: {peak} bytes for a file of {}",
                good.len()
            );
        }
    }
}
