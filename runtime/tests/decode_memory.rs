#![expect(unsafe_code, reason = "a counting allocator is an unsafe trait")]
//! Decoding allocates nothing after the first token, but for a page of keys and values when one is full.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bitnet_codegen::Features;
use bitnet_runtime::decoder::Decoder;
use bitnet_runtime::demo;
use bitnet_runtime::engine::{Engine, EngineOptions};
use bitnet_runtime::format::OpenOptions;
use bitnet_runtime::logits::{Logits, Top, Wanted};
use bitnet_runtime::network::head::HeadForm;
use bitnet_runtime::network::kernels::Kernels;
use bitnet_runtime::pool::Pool;
use bitnet_runtime::profile::Profile;
use bitnet_runtime::sequence::PAGE;

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged; the counter does not touch memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `alloc` above, that is, from `System`, with the same layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of `tokens` single tokens, whose likeliest successors are asked for.
fn of_decoding(engine: &mut Engine, tokens: usize) -> usize {
    let before = COUNT.load(Ordering::Relaxed);
    let wanted = Wanted::Top(Top {
        k: 5,
        among: 500,
        also: &[3, 77],
    });
    for i in 0..tokens {
        let token = (i * 37 % 500) as u32;
        match engine.prefill_wanted(&[token], &wanted).expect("room") {
            Logits::All(logits) => assert!(logits.len() > 500),
            Logits::Some(some) => assert!(some.len() >= 5),
        }
    }
    COUNT.load(Ordering::Relaxed) - before
}

#[test]
fn decoding_allocates_nothing_after_the_first_token() {
    for (threads, head) in [
        (1, HeadForm::Exact),
        (2, HeadForm::Exact),
        (1, HeadForm::I8),
        (2, HeadForm::I4),
    ] {
        let model = Arc::new(demo::open(&OpenOptions::default()).expect("it opens"));
        let pool = Arc::new(Pool::new(threads).expect("threads"));
        let kernels = Kernels::new(Features::detect(), Profile::default());
        let mut kernels = kernels.with_head(Some(head));
        let options = EngineOptions::default();
        let mut engine = Engine::new(model, pool, &mut kernels, &options).expect("it loads");
        engine.prefill(&[1, 2, 3, 4, 5]).expect("room");
        let first = of_decoding(&mut engine, 1);
        let counted = of_decoding(&mut engine, PAGE - 6);
        println!(
            "{threads} threads: {first} allocations for the first token, {counted} for the next {}",
            PAGE - 6
        );
        assert_eq!(engine.position(), PAGE);
        assert_eq!(counted, 0, "{threads} threads, within a page");
        // From the third page on, attention is shared out, which takes memory of its own.
        for pages in 2..4 {
            let page = of_decoding(&mut engine, 1);
            assert!(
                (1..=9).contains(&page),
                "{page} allocations for page {pages}, the list of tokens and attention"
            );
            let within = of_decoding(&mut engine, PAGE - 1);
            assert_eq!(within, 0, "{threads} threads, within page {pages}");
        }
    }
}
