#![expect(unsafe_code, reason = "maps guard pages and installs a signal handler")]
//! Kernels between guard pages: one byte read or written outside the weights, activations, sums or
//! results that a kernel was handed is a fault. A fault names the kernel and ends the test.
//! What this does not see: scratch and constants, which the kernel set owns.

#![cfg(unix)]

use bitnet_codegen::acts::Activations;
use bitnet_codegen::isa::{Features, Isa};
use bitnet_codegen::kernel::{Kernel, KernelError, KernelSet};
use bitnet_codegen::oracle;
use bitnet_codegen::spec::KernelSpec;
use bitnet_codegen::trit::TernaryMatrix;
use bitnet_codegen::variant::{VARIANTS, Variant, plan};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Large enough for the page size of every system that we know.
const PAGE: usize = 65_536;

/// Bytes with an unreadable page on both sides; they touch one of the two.
struct Guarded {
    map: *mut u8,
    map_len: usize,
    at: *mut u8,
    len: usize,
}

impl Guarded {
    /// `len` zeros that end where the last page begins, or start where the first page ends.
    fn new(len: usize, touch_end: bool) -> Self {
        let inner = len.next_multiple_of(PAGE).max(PAGE);
        let map_len = inner + 2 * PAGE;
        // SAFETY: an anonymous mapping at an address of the system's choice.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                map_len,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANON,
                -1,
                0,
            )
        };
        assert_ne!(map, libc::MAP_FAILED, "{map_len} bytes of address space");
        let map = map.cast::<u8>();
        // SAFETY: inside the mapping, which is longer by two pages.
        let first = unsafe { map.add(PAGE) };
        // SAFETY: the inner pages of the mapping made above.
        let done =
            unsafe { libc::mprotect(first.cast(), inner, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(done, 0, "the inner pages become writable");
        let skip = if touch_end { inner - len } else { 0 };
        // SAFETY: `skip + len` is at most `inner`.
        let at = unsafe { first.add(skip) };
        Self {
            map,
            map_len,
            at,
            len,
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` readable bytes, zeroed by the system, borrowed from `self`.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as `bytes`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }

    fn words_mut(&mut self) -> &mut [i32] {
        assert_eq!(self.at as usize % 4, 0, "i32 are aligned");
        // SAFETY: aligned (asserted), inside the readable bytes, exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.at.cast(), self.len / 4) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; no borrow of it is left.
        unsafe { libc::munmap(self.map.cast(), self.map_len) };
    }
}

/// Address and length of the text that the handler prints; the text is leaked.
static TEXT: AtomicUsize = AtomicUsize::new(0);
static TEXT_LEN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_fault(_: libc::c_int) {
    let (at, len) = (TEXT.load(Ordering::SeqCst), TEXT_LEN.load(Ordering::SeqCst));
    // SAFETY: a leaked text of that length; `write` may be called in a signal handler.
    unsafe { libc::write(2, at as *const libc::c_void, len) };
    // SAFETY: ends the process without running anything else.
    unsafe { libc::_exit(101) };
}

/// Says which kernel runs, should it fault.
fn announce(text: String) {
    let text: &'static str = Box::leak(text.into_boxed_str());
    TEXT_LEN.store(0, Ordering::SeqCst);
    TEXT.store(text.as_ptr() as usize, Ordering::SeqCst);
    TEXT_LEN.store(text.len(), Ordering::SeqCst);
}

fn catch_faults() {
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL] {
        let handler = on_fault as extern "C" fn(libc::c_int);
        // SAFETY: the handler only calls what a signal handler may.
        unsafe { libc::signal(signal, handler as usize) };
    }
}

/// The first spec of each layout: all axes at their defaults, the first step length that fits.
fn defaults(family: &dyn Variant, isa: Isa, m: usize, k: usize) -> Vec<KernelSpec> {
    let Ok(axes) = family.axes(isa, m) else {
        return vec![];
    };
    let values = |name: &str| axes.iter().find(|a| a.name == name).map(|a| &a.values[..]);
    let tile = |name| values(name).expect("an axis of every family")[0] as usize;
    let mut specs = Vec::new();
    for layout in family.layouts() {
        let fits = values("kr").expect("an axis kr").iter().find_map(|&kr| {
            let mut spec = KernelSpec::new(
                family.name(),
                layout,
                tile("mr"),
                tile("nr"),
                kr as usize,
                isa,
            );
            for a in axes
                .iter()
                .filter(|a| !["mr", "nr", "kr"].contains(&a.name))
            {
                spec = spec.with(a.name, a.values[0]);
            }
            plan(&spec, k).is_ok().then_some(spec)
        });
        specs.extend(fits);
    }
    specs
}

fn noise(i: usize) -> u64 {
    let x = (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (x ^ x >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 33
}

/// One panel of one row more than half its rows, every tile of `m` tokens, between guard pages.
fn check(kernel: &Arc<Kernel>, m: usize, touch_end: bool) {
    let (k, nr, form) = (kernel.k(), kernel.panel().shape.nr, kernel.acts_form());
    let n = nr / 2 + 1;
    let trits: Vec<i8> = (0..n * k).map(|i| (noise(i) % 3) as i8 - 1).collect();
    let q: Vec<i8> = (0..m * k).map(|i| noise(i + 7) as i8).collect();
    let w = TernaryMatrix::from_trits(n, k, &trits, 1.0).expect("trits");
    let acts = Activations::from_codes(m, k, &q);
    let mut panel = Guarded::new(kernel.panel().bytes(), touch_end);
    kernel.panel().pack(&w, 0, panel.bytes_mut());
    let mut scratch = kernel.scratch();
    kernel.load_panel(panel.bytes(), &mut scratch);
    let want = oracle::matmul(&w, &q);
    for (first, mr) in kernel.tiles(m) {
        let mut tile = Guarded::new(form.tile_bytes(mr, k), touch_end);
        if form.needs_preparing() {
            form.prepare(&acts, first, mr, tile.bytes_mut());
        } else {
            let rows = acts.rows(first, mr);
            for (to, &x) in tile.bytes_mut().iter_mut().zip(rows) {
                *to = x as u8;
            }
        }
        let mut sums = Guarded::new(4 * mr, touch_end);
        for (t, s) in sums.words_mut().iter_mut().enumerate() {
            *s = acts.sums.get(first + t).copied().unwrap_or(0);
        }
        let mut out = Guarded::new(4 * kernel.out_len(mr), touch_end);
        kernel.run(
            mr,
            panel.bytes(),
            tile.bytes(),
            sums.words_mut(),
            &mut scratch,
            out.words_mut(),
        );
        for t in 0..mr.min(m - first) {
            for r in 0..n {
                let got = out.words_mut()[kernel.out_order().index(t, r, mr, nr)];
                assert_eq!(
                    got,
                    want[(first + t) * n + r],
                    "{} k{k} m{m}: token {t} row {r}",
                    kernel.spec()
                );
            }
        }
    }
}

#[test]
fn no_kernel_leaves_its_operands() {
    catch_faults();
    let cpu = Features::detect();
    for &isa in Isa::ALL {
        if !isa.runs_on(cpu) {
            eprintln!("skipped: this CPU does not run {isa}");
            continue;
        }
        let mut ran = 0;
        for family in VARIANTS {
            for m in [1, 5, 32] {
                for k in [1, 63, 100, 257] {
                    for spec in defaults(*family, isa, m, k) {
                        let plan = plan(&spec, k).expect("a default that was planned before");
                        let set = match KernelSet::build(vec![plan], cpu) {
                            Ok(set) => set,
                            Err(KernelError::Unsupported(_)) => continue,
                            Err(e) => panic!("{e}"),
                        };
                        let kernel = &set.kernels()[0];
                        for touch_end in [true, false] {
                            announce(format!(
                                "\n{spec} k{k} m{m} faults; buffers {} a guard page\n",
                                if touch_end { "end at" } else { "start after" }
                            ));
                            check(kernel, m.min(spec.mr + 1), touch_end);
                            ran += 1;
                        }
                    }
                }
            }
        }
        assert!(ran > 0, "no family has a kernel for {isa}");
    }
}
