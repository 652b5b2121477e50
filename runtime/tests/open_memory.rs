#![expect(unsafe_code, reason = "a counting allocator is an unsafe trait")]
//! Opening a file, however damaged, takes less memory than the file has bytes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use bitnet_runtime::format::Model;
use bitnet_runtime::format::{LoadError, OpenOptions, open, open_bytes};

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

/// The most memory in use at once while a model is opened, beyond what was in use before.
fn peak_of(open: impl FnOnce() -> Result<Model, LoadError>) -> usize {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = open();
    let peak = PEAK.load(Ordering::Relaxed) - before;
    drop(result);
    peak
}

fn peak_of_open(bytes: Vec<u8>) -> usize {
    peak_of(|| open_bytes("m.gguf", bytes, &OpenOptions::default()))
}

fn fixture(name: &str) -> Vec<u8> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/tiny");
    std::fs::read(data.join(name)).unwrap()
}

/// Both kinds of file in one test: the counters are the process's, and tests run side by side.
#[test]
fn no_length_in_a_file_makes_the_reader_allocate_more_than_the_file() {
    gguf();
    safetensors();
}

fn gguf() {
    let good = fixture("tiny_b158.gguf");
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

fn safetensors() {
    let good = fixture("tiny_b158_hf/model.safetensors");
    let config = fixture("tiny_b158_hf/config.json");
    let dir = tempfile::tempdir().unwrap();
    let (model_file, config_file) = (
        dir.path().join("model.safetensors"),
        dir.path().join("config.json"),
    );
    std::fs::write(&config_file, &config).unwrap();
    let check = |what: String| {
        let peak = peak_of(|| open(dir.path(), &OpenOptions::default()));
        assert!(
            peak < good.len(),
            "{what}: {peak} bytes for a file of {}",
            good.len()
        );
    };
    let len = u64::from_le_bytes(*good.first_chunk().unwrap());
    for declared in [1 << 63, u64::MAX, 99_999_999, 1 << 24, len + 1, len - 1, 0] {
        std::fs::write(
            &model_file,
            [&declared.to_le_bytes()[..], &good[8..]].concat(),
        )
        .unwrap();
        check(format!("a header of {declared} bytes"));
    }
    // Every number of the header and of the configuration becomes a large one.
    let header = String::from_utf8(good[8..8 + len as usize].to_vec()).unwrap();
    for (start, end) in numbers(&header).into_iter().step_by(5) {
        for large in ["9223372036854775808", "999999999"] {
            let text = [&header[..start], large, &header[end..]].concat();
            let length = (text.len() as u64).to_le_bytes();
            let file = [&length[..], text.as_bytes(), &good[8 + len as usize..]].concat();
            std::fs::write(&model_file, file).unwrap();
            check(format!("{large} at byte {start} of the header"));
        }
    }
    std::fs::write(&model_file, &good).unwrap();
    let config = String::from_utf8(config).unwrap();
    for (start, end) in numbers(&config) {
        for large in ["9223372036854775808", "16777216"] {
            let text = [&config[..start], large, &config[end..]].concat();
            std::fs::write(&config_file, text).unwrap();
            check(format!("{large} at byte {start} of config.json"));
        }
    }
}

/// Where runs of digits start and end.
fn numbers(text: &str) -> Vec<(usize, usize)> {
    let digit = |i: usize| text.as_bytes().get(i).is_some_and(u8::is_ascii_digit);
    let starts = (0..text.len()).filter(|&i| digit(i) && (i == 0 || !digit(i - 1)));
    starts
        .map(|i| (i, (i..).find(|&j| !digit(j)).unwrap_or(text.len())))
        .collect()
}
