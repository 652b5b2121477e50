#![expect(
    unsafe_code,
    reason = "maps pages without access around buffers, so that an overrun faults"
)]
//! Buffers with a page without access before and behind them: a kernel that reads or writes one byte too far
//! ends the process instead of passing by luck, and a handler says which kernel it was.

use std::cell::Cell;
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

/// Zeroed bytes between guard pages.
pub struct Guarded {
    map: NonNull<u8>,
    map_len: usize,
    start: usize,
    len: usize,
}

fn page_size() -> usize {
    // SAFETY: `sysconf` takes no pointer and changes nothing.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("a page size")
}

impl Guarded {
    /// `len` zeros at `edge`.
    pub fn zeroed(len: usize, edge: Edge) -> Self {
        let page = page_size();
        let body = len.next_multiple_of(page).max(page);
        let map_len = body + 2 * page;
        // SAFETY: a fresh anonymous mapping at an address that the system chooses; nothing else is touched.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                map_len,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert!(map != libc::MAP_FAILED, "{map_len} bytes of address space");
        let map = NonNull::new(map.cast::<u8>()).expect("a mapping is not at 0");
        // SAFETY: the pages between the first and the last of the mapping made above.
        let inner = unsafe { map.add(page) };
        // SAFETY: `inner..inner + body` lies in that mapping, which only this value knows.
        let rc = unsafe {
            libc::mprotect(
                inner.as_ptr().cast(),
                body,
                libc::PROT_READ | libc::PROT_WRITE,
            )
        };
        assert_eq!(rc, 0, "{body} bytes of memory");
        let start = match edge {
            Edge::Start => page,
            Edge::End => page + body - len,
        };
        Self {
            map,
            map_len,
            start,
            len,
        }
    }

    fn pointer(&self) -> *mut u8 {
        self.map.as_ptr().wrapping_add(self.start)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes from `start` on are mapped, readable and zero at first, for as long as `self` lives.
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
        // SAFETY: exactly the mapping made in `zeroed`; no borrow of it outlives `self`.
        let rc = unsafe { libc::munmap(self.map.as_ptr().cast(), self.map_len) };
        assert_eq!(rc, 0, "the mapping is freed");
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
