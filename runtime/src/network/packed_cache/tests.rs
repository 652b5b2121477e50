//! A start with kept weights gives the bits of one without, and what is wrong with a file costs time alone.

use super::*;
use crate::demo;
use crate::format::{self, OpenOptions};
use crate::network::Network;
use crate::network::head::HeadForm;
use crate::network::kernels::Kernels;
use crate::profile::Profile;
use crate::sequence::Sequence;
use crate::step::{Append, Step};
use bitnet_codegen::{Features, KernelSpec};
use std::fs;
use std::sync::Arc;

/// A model in a folder of its own, and a folder for what is kept.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn of(model: &[u8]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("m.gguf"), model).expect("it is written");
        Self { folder }
    }

    fn model(&self) -> PathBuf {
        self.folder.path().join("m.gguf")
    }

    fn kept(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.folder.path().join("kept")).into_iter();
        let mut files: Vec<_> = files.flatten().flatten().map(|e| e.path()).collect();
        files.sort();
        files
    }

    /// Starts; the bits of all logits after a prompt, the cache, and whether a file was written.
    fn start(&self, kernels: Kernels) -> (Vec<u32>, PackedCache, bool) {
        let (path, mut kernels) = (self.model(), kernels);
        let model = Arc::new(format::open(&path, &OpenOptions::default()).expect("it opens"));
        let pool = Arc::new(Pool::new(2).expect("threads"));
        let folder = self.folder.path().join("kept");
        let cache = PackedCache::open(&folder, &path, &model).expect("it is looked at");
        let cache = cache.from_bytes_on(1);
        let network = Network::with_cache(model, &pool, &mut kernels, Some(&cache));
        let network = Arc::new(network.expect("it is packed"));
        let written = network.keep(&cache).expect("it is kept").is_some();
        let mut sequence = Sequence::new(&network, &Default::default()).expect("a context");
        let mut step = Step::new(network, pool, 8);
        let append = Append {
            sequence: &mut sequence,
            tokens: &[1, 2, 3],
            logits_from: 0,
        };
        let mut bits = Vec::new();
        let each = |_: usize, _: usize, l: &[f32]| bits.extend(l.iter().map(|l| l.to_bits()));
        step.run(&mut [append], each).expect("it runs");
        (bits, cache, written)
    }
}

fn estimated() -> Kernels {
    Kernels::new(Features::detect(), Profile::default())
}

fn parity(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/parity/qwen3");
    fs::read(folder.join(name).join("model.gguf")).expect("a fixture")
}

#[test]
fn the_second_start_packs_nothing_and_gives_the_same_bits() {
    let heads = [None, Some(HeadForm::I8), Some(HeadForm::I4)];
    for (name, model, heads) in [
        ("demo", demo::bytes().to_vec(), &heads[..]),
        // Its head is a ternary product.
        ("grouped", parity("q2-g64"), &heads[..1]),
    ] {
        for &head in heads {
            let kernels = || estimated().with_head(head);
            let bench = Bench::of(&model);
            let (first, cache, written) = bench.start(kernels());
            assert!(written && !cache.has_served(), "{name} {head:?}");
            let (second, cache, written) = bench.start(kernels());
            assert!(!written && cache.has_served(), "{name} {head:?}");
            assert!(first == second, "{name} {head:?}: other logits");
            assert_eq!(cache.notes(), Vec::<String>::new());
        }
    }
}

#[test]
fn a_changed_model_is_packed_anew() {
    let mut model = demo::bytes().to_vec();
    let bench = Bench::of(&model);
    let (first, _, _) = bench.start(estimated());
    let file = bench.kept();
    // A code between the samples of the digest: only the time of the file tells.
    let opened = format::open_bytes("m", model.clone(), &OpenOptions::default()).expect("it opens");
    let info = opened
        .tensors()
        .iter()
        .find(|t| t.name.contains("ffn_down"));
    let bytes = info.expect("a projection").bytes.clone();
    let at = bytes.start + 1500;
    for byte in &mut model[at..at + 64] {
        *byte = 0;
    }
    fs::write(bench.model(), &model).expect("it is written");
    let (second, cache, written) = bench.start(estimated());
    assert!(written && !cache.has_served() && first != second);
    // Not another file beside the one that serves no more.
    assert_eq!(bench.kept(), file);
    assert_eq!(bench.start(estimated()).0, second);
}

#[test]
fn a_damaged_file_is_told_and_written_anew() {
    let bench = Bench::of(demo::bytes());
    let (want, _, _) = bench.start(estimated());
    let [file] = &bench.kept()[..] else {
        panic!("one file");
    };
    let whole = fs::read(file).expect("it is there");
    let mut flipped = whole.clone();
    let last = flipped.iter().rposition(|b| *b != 0).expect("weights");
    flipped[last] ^= 1;
    for damaged in [&flipped[..], &whole[..whole.len() / 2], b"", b"what?"] {
        fs::write(file, damaged).expect("it is written");
        let (got, cache, written) = bench.start(estimated());
        assert!(got == want && written && !cache.has_served());
        let notes = cache.notes();
        let [note] = &notes[..] else {
            panic!("one note: {notes:?}");
        };
        assert!(note.contains("packed anew"), "{note}");
        let (got, cache, written) = bench.start(estimated());
        assert!(got == want && !written && cache.has_served());
    }
}

#[test]
fn other_kernels_have_files_of_their_own_up_to_some() {
    let bench = Bench::of(demo::bytes());
    let specs = [
        "i2s-i2s-1x8c16-interp",
        "i2s-i2s-1x16c16-interp",
        "tl1-tl1-1x64c4-interp-pf64-u2",
    ];
    let named = |spec: &str| {
        let spec: KernelSpec = spec.parse().expect("a name");
        Kernels::forced(Features::detect(), spec)
    };
    let want = bench.start(estimated()).0;
    for spec in specs {
        let (got, _, written) = bench.start(named(spec));
        assert!(got == want && written, "{spec}");
    }
    assert_eq!(bench.kept().len(), MAX_FILES);
    // The last is still there, the first of all is not.
    assert!(bench.start(named(specs[2])).1.has_served());
    assert!(!bench.start(estimated()).1.has_served());
}
