#![expect(
    unsafe_code,
    reason = "maps pages without access around buffers, so that an overrun faults"
)]
//! Buffers with a page without access before and behind them: a kernel that reads or writes one byte too far
//! ends the process instead of passing by luck, and a handler says which kernel it was.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Once;

/// Where the bytes lie between the two guard pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The last byte is the last before the guard page behind.
    End,
    /// The first byte is the first after the guard page before.
    Start,
}

/// Readable pages between two without access.
struct Map {
    start: NonNull<u8>,
    body: usize,
}

thread_local! {
    /// Mappings that were given back, by size: making one takes longer than most products.
    static SPARE: RefCell<HashMap<usize, Vec<Map>>> = RefCell::default();
}

fn page_size() -> usize {
    // SAFETY: `sysconf` takes no pointer and changes nothing.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("a page size")
}

impl Map {
    fn new(body: usize, page: usize) -> Self {
        let len = body + 2 * page;
        // SAFETY: a fresh anonymous mapping at an address that the system chooses; nothing else is touched.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert!(map != libc::MAP_FAILED, "{len} bytes of address space");
        let map = NonNull::new(map.cast::<u8>()).expect("a mapping is not at 0");
        // SAFETY: the pages between the first and the last of the mapping made above.
        let start = unsafe { map.add(page) };
        // SAFETY: `start..start + body` lies in that mapping, which only this value knows.
        let rc = unsafe {
            libc::mprotect(
                start.as_ptr().cast(),
                body,
                libc::PROT_READ | libc::PROT_WRITE,
            )
        };
        assert_eq!(rc, 0, "{body} bytes of memory");
        Self { start, body }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let page = page_size();
        let map = self.start.as_ptr().wrapping_sub(page);
        // SAFETY: exactly the mapping made in `new`; nobody borrows from it any more.
        let rc = unsafe { libc::munmap(map.cast(), self.body + 2 * page) };
        assert_eq!(rc, 0, "the mapping is freed");
    }
}

/// Zeroed bytes between guard pages.
pub struct Guarded {
    /// `None` only while it is dropped.
    map: Option<Map>,
    start: *mut u8,
    len: usize,
}

impl Guarded {
    /// `len` zeros at `edge`.
    pub fn zeroed(len: usize, edge: Edge) -> Self {
        let page = page_size();
        let body = len.next_multiple_of(page).max(page);
        let spare = SPARE.with_borrow_mut(|s| s.get_mut(&body).and_then(Vec::pop));
        let map = spare.unwrap_or_else(|| Map::new(body, page));
        let skip = match edge {
            Edge::Start => 0,
            Edge::End => body - len,
        };
        let mut this = Self {
            start: map.start.as_ptr().wrapping_add(skip),
            map: Some(map),
            len,
        };
        this.bytes_mut().fill(0);
        this
    }

    fn pointer(&self) -> *mut u8 {
        self.start
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes from `start` on are mapped and readable for as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.len) }
    }

    /// The bytes, writable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as `bytes`, writable, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(), self.len) }
    }

    fn assert_words(&self) {
        assert!(
            self.len.is_multiple_of(4) && self.pointer().cast::<i32>().is_aligned(),
            "{} bytes hold i32",
            self.len
        );
    }

    /// The bytes as i32.
    pub fn words(&self) -> &[i32] {
        self.assert_words();
        // SAFETY: aligned (asserted), `len / 4` words are mapped, and any four bytes are an i32.
        unsafe { std::slice::from_raw_parts(self.pointer().cast(), self.len / 4) }
    }

    /// The bytes as i32, writable.
    pub fn words_mut(&mut self) -> &mut [i32] {
        self.assert_words();
        // SAFETY: as `words`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pointer().cast(), self.len / 4) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(map) = self.map.take() {
            SPARE.with_borrow_mut(|s| s.entry(map.body).or_default().push(map));
        }
    }
}

thread_local! {
    /// What this thread runs: text and length, valid while [`name_faults`] is on the stack.
    static RUNNING: Cell<(*const u8, usize)> = const { Cell::new((std::ptr::null(), 0)) };
}

extern "C" fn on_fault(_: libc::c_int) {
    let (text, len) = RUNNING.get();
    if !text.is_null() {
        // SAFETY: a text of that length that `name_faults` keeps; `write` may be called in a signal handler.
        unsafe { libc::write(2, text.cast(), len) };
    }
    // SAFETY: ends the process and runs nothing else.
    unsafe { libc::_exit(101) };
}

/// Runs `body`; should it fault, the process ends with `text` as its last words.
pub fn name_faults<T>(text: &str, body: impl FnOnce() -> T) -> T {
    static HANDLERS: Once = Once::new();
    HANDLERS.call_once(|| {
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL] {
            let handler = on_fault as extern "C" fn(libc::c_int);
            // SAFETY: the handler calls only what a signal handler may.
            unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        }
    });
    struct Quiet;
    impl Drop for Quiet {
        fn drop(&mut self) {
            RUNNING.set((std::ptr::null(), 0));
        }
    }
    RUNNING.set((text.as_ptr(), text.len()));
    let _quiet = Quiet;
    body()
}

/// Whether `body` faults, seen from outside: it runs in a process of its own, and what it does there is lost.
/// It may not take locks or memory, which another thread may have held when the process split.
pub fn faults(body: impl FnOnce()) -> bool {
    // SAFETY: the child only runs `body`, which keeps to the rule above, and ends without unwinding.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "a second process");
    if child == 0 {
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            // SAFETY: gives up the handler that [`name_faults`] may have installed.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        body();
        // SAFETY: ends the child and runs nothing else.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above, and writes `status` alone.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(waited, child, "the child ends");
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        assert!(
            signal == libc::SIGSEGV || signal == libc::SIGBUS,
            "signal {signal}"
        );
        return true;
    }
    assert_eq!(status, 0, "the child ends well or faults");
    false
}

mod tests {
    use super::*;

    fn read(at: *const u8) {
        // SAFETY: inside a buffer or on the guard page beside it, which ends the process.
        unsafe { std::ptr::read_volatile(at) };
    }

    fn write(at: *mut u8) {
        // SAFETY: as `read`.
        unsafe { std::ptr::write_volatile(at, 1) };
    }

    #[test]
    fn one_byte_past_the_end_faults() {
        let page = page_size();
        for len in [0, 1, 3, 64, page - 1, page, page + 1, 3 * page] {
            let buffer = Guarded::zeroed(len, Edge::End);
            let end = buffer.pointer().wrapping_add(len);
            assert!(faults(|| read(end)), "a byte is read behind {len}");
            assert!(faults(|| write(end)), "a byte is written behind {len}");
            assert!(len == 0 || !faults(|| write(end.wrapping_sub(1))), "{len}");

            let buffer = Guarded::zeroed(len, Edge::Start);
            let start = buffer.pointer();
            let before = start.wrapping_sub(1);
            assert!(faults(|| read(before)), "a byte is read before {len}");
            assert!(faults(|| write(before)), "a byte is written before {len}");
            assert!(len == 0 || !faults(|| write(start)), "{len}");
        }
    }
}
