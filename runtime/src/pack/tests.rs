//! Packs are the same bytes each time, refused when anything about them is wrong, and give back what was compiled.

use super::*;
use crate::graph::Product;
use crate::network::kernels::Kernels;
use bitnet_codegen::isa::Feature;
use bitnet_codegen::{Isa, Kernel, KernelSet, KernelSpec, plan};
use proptest::prelude::{ProptestConfig, any};
use proptest::test_runner::{TestError, TestRunner};

const K: usize = 96;

/// 64 rows of `k` columns.
fn plain(k: usize) -> Product {
    let (n, groups) = (64, None);
    Product { n, k, groups }
}

/// The best instruction set of this CPU that has code.
fn isa(cpu: Features) -> Option<Isa> {
    let emitted = |i: &&Isa| **i != Isa::Interp && i.runs_on(cpu);
    let best = Isa::ALL.iter().rev().find(emitted).copied();
    if best.is_none() {
        println!("SKIPPED: nothing is emitted for this CPU");
    }
    best
}

fn spec(isa: Isa) -> KernelSpec {
    KernelSpec::new("i2s", "i2s", 2, isa.width().bytes() / 4, 16, isa).with("f", 1)
}

fn compiled(spec: &KernelSpec, cpu: Features) -> Arc<Kernel> {
    let mut set = KernelSet::ahead(cpu);
    let plan = plan(spec, K).expect("it exists");
    set.add(vec![plan]).expect("emitted").remove(0)
}

/// A pack of one kernel.
fn small(cpu: Features, isa: Isa) -> Vec<u8> {
    let mut pack = Builder::new(Arch::HOST, cpu, Profile::default(), &[1]);
    let (n, k, groups) = (64, K, None);
    assert!(pack.add(
        (Product { n, k, groups }, 0),
        1,
        "estimate",
        &compiled(&spec(isa), cpu)
    ));
    pack.finish().expect("code").0
}

/// The pack in `bytes`, through a file.
fn open(bytes: &[u8], cpu: Features) -> Result<Pack, PackError> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("k.pack");
    std::fs::write(&path, bytes).expect("written");
    // SAFETY: the code in it was emitted by this test for this CPU, or does nothing but return, and the file is only
    // unlinked.
    unsafe { Pack::open(&path, cpu) }
}

#[track_caller]
fn refused(bytes: &[u8], cpu: Features) -> Refusal {
    let error = open(bytes, cpu).expect_err("refused");
    let told = error.to_string();
    assert!(told.contains("k.pack") && !told.contains('\n'), "{told}");
    error.why
}

/// The pack with another manifest, and the hash that fits.
fn resigned(bytes: &[u8], edit: impl Fn(&mut Manifest)) -> Vec<u8> {
    let parts = container::open(bytes).expect("a pack");
    let mut manifest = Manifest::parse(parts.manifest, parts.code.len()).expect("a manifest");
    edit(&mut manifest);
    container::seal(&manifest.render(), parts.profile, &bytes[parts.code])
}

#[test]
fn the_same_kernels_are_the_same_bytes_and_come_back() {
    let cpu = Features::detect();
    let Some(isa) = isa(cpu) else { return };
    let bytes = small(cpu, isa);
    assert_eq!(bytes, small(cpu, isa));
    let pack = open(&bytes, cpu).expect("a pack");
    let manifest = &pack.file().manifest;
    let [row] = &manifest.kernels[..] else {
        panic!("one choice: {manifest:?}");
    };
    assert_eq!((row.n, row.k, row.tokens()), (64, K, "1".to_owned()));
    assert_eq!(row.spec, spec(isa).to_string());
    // Four stubs, and a program for each size of tile.
    assert_eq!(manifest.codes.len(), 6);
    assert_eq!(pack.library().len(), 6);
    assert!(pack.file().profile.entries.is_empty());
    let mut kernels = Kernels::forced(cpu, spec(isa)).with_pack(&pack);
    let (kernel, _) = kernels.choose(plain(K), 1).expect("it is in the pack");
    assert_eq!(kernel.code_from().name(), "pack");
    assert_eq!(
        kernel.code_digest(),
        compiled(&spec(isa), cpu).code_digest()
    );
    assert!(kernels.notes().is_empty(), "{:?}", kernels.notes());
    // Another K is other code: emitted, and said.
    let (kernel, _) = kernels.choose(plain(K + 16), 1).expect("emitted");
    assert_eq!(kernel.code_from().name(), "emitted");
    let notes = kernels.notes();
    assert!(
        notes[0].contains(&spec(isa).to_string()) && notes.len() == 1,
        "{notes:?}"
    );
}

#[test]
fn a_pack_that_was_cut_or_added_to_is_refused() {
    let cpu = Features::detect();
    let Some(isa) = isa(cpu) else { return };
    let bytes = small(cpu, isa);
    for i in 0..64 {
        let cut = &bytes[..bytes.len() * i / 64];
        let why = refused(cut, cpu);
        let known = matches!(why, Refusal::NotAPack | Refusal::Length { .. });
        assert!(known, "{} of {} bytes: {why}", cut.len(), bytes.len());
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(refused(&longer, cpu), Refusal::Length { .. }));
}

/// Nothing of a damaged pack is believed: whatever bit is turned, it is refused before it is mapped.
#[test]
fn ten_thousand_turned_bits_are_ten_thousand_refusals() {
    let cpu = Features::detect();
    let Some(isa) = isa(cpu) else { return };
    let mut bytes = small(cpu, isa);
    let bits = bytes.len() * 8;
    let config = ProptestConfig {
        cases: 10_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let bytes = std::cell::RefCell::new(&mut bytes);
    let result = TestRunner::new(config).run(&any::<usize>(), |at| {
        let (byte, bit) = (at % bits / 8, at % 8);
        let mut bytes = bytes.borrow_mut();
        bytes[byte] ^= 1 << bit;
        let refused = PackFile::parse(&bytes).is_err();
        bytes[byte] ^= 1 << bit;
        assert!(refused, "bit {bit} of byte {byte}");
        Ok(())
    });
    assert!(!matches!(result, Err(TestError::Fail(..))), "{result:?}");
    assert!(PackFile::parse(&bytes.borrow()).is_ok(), "unspoilt again");
}

#[test]
fn what_is_not_for_this_machine_is_refused_with_the_reason() {
    let cpu = Features::detect();
    let Some(isa) = isa(cpu) else { return };
    let bytes = small(cpu, isa);
    let with = |edit: &dyn Fn(&mut Manifest)| refused(&resigned(&bytes, edit), cpu);
    let foreign = Arch::EMITTED.into_iter().find(|a| *a != Arch::HOST);
    let foreign = foreign.expect("another family").name();
    assert!(
        matches!(with(&|m| m.target = foreign.into()), Refusal::Target { got } if got == foreign)
    );
    assert!(
        matches!(with(&|m| m.abi = "other-0".into()), Refusal::Abi { got } if got == "other-0")
    );
    // Said in the head of the manifest, or only of a piece.
    let needs = isa.needs(cpu);
    for feature in needs.iter() {
        let lesser = cpu.without(feature);
        let why = refused(&bytes, lesser);
        assert!(
            matches!(why, Refusal::Features { missing } if missing.has(feature)),
            "{why}"
        );
        let quiet = resigned(&bytes, |m| m.features.clear());
        assert!(matches!(refused(&quiet, lesser), Refusal::Features { .. }));
    }
    let other = Feature::ALL
        .iter()
        .find(|f| !cpu.has(**f))
        .expect("another CPU's");
    let why = with(&|m| m.features.push(other.name().into()));
    assert!(matches!(why, Refusal::Features { .. }), "{why}");
    let unknown = with(&|m| m.features.push("telepathy".into()));
    assert!(unknown.to_string().contains("telepathy"), "{unknown}");
    let mut newer = bytes.clone();
    newer[16] += 1;
    container::sign(&mut newer);
    assert!(matches!(
        refused(&newer, cpu),
        Refusal::Version { got: 2, want: 1 }
    ));
    assert!(matches!(refused(b"GGUF, say", cpu), Refusal::NotAPack));
}

#[test]
fn a_manifest_that_lies_about_places_is_refused() {
    let cpu = Features::detect();
    let Some(isa) = isa(cpu) else { return };
    let bytes = small(cpu, isa);
    let with = |edit: &dyn Fn(&mut Manifest)| {
        let why = refused(&resigned(&bytes, edit), cpu);
        assert!(
            matches!(why, Refusal::Part { .. } | Refusal::Code(_)),
            "{why}"
        );
    };
    with(&|m| m.codes[4].length = usize::MAX >> 1);
    with(&|m| m.codes[4].offset = 1 << 40);
    with(&|m| m.codes[4].offset += 1);
    with(&|m| m.codes[4].length = 0);
    with(&|m| m.codes[5].offset = m.codes[4].offset);
    with(&|m| m.codes[5].key = m.codes[4].key.clone());
    with(&|m| m.codes[4].key = "no key".into());
    with(&|m| drop(m.codes.remove(0)));
    // A stub that is another piece of code than the one this build knows.
    with(&|m| {
        let stub = m.codes[0].key.clone();
        m.codes[0].key = std::mem::replace(&mut m.codes[4].key, stub);
    });
    with(&|m| (m.codes[0].offset, m.codes[0].length) = (m.codes[4].offset, m.codes[4].length));
}

/// Code that does nothing but return, under the keys of kernels and with a hash that fits: its answers are wrong, so it
/// is dropped in a line, and the same kernel is emitted.
#[test]
fn a_wrong_kernel_is_dropped_and_the_next_source_answers() {
    let cpu = Features::detect();
    let Some(isa) = isa(cpu) else { return };
    let mut bytes = small(cpu, isa);
    let parts = container::open(&bytes).expect("a pack");
    let manifest = Manifest::parse(parts.manifest, parts.code.len()).expect("a manifest");
    let start = parts.code.start;
    let nothing = bitnet_codegen::abi::prefetch_stub(Arch::HOST, 0);
    for code in manifest
        .codes
        .iter()
        .filter(|c| !c.name.starts_with("prefetch"))
    {
        bytes[start + code.offset..][..nothing.len()].copy_from_slice(&nothing);
    }
    container::sign(&mut bytes);
    let pack = open(&bytes, cpu).expect("nothing is to be seen");
    let mut kernels = Kernels::forced(cpu, spec(isa)).with_pack(&pack);
    let (kernel, _) = kernels.choose(plain(K), 1).expect("the next source");
    assert_eq!(kernel.code_from().name(), "emitted");
    let notes = kernels.notes();
    let wrong = notes
        .iter()
        .filter(|n| n.contains("WRONG RESULT") && n.contains("pack"));
    assert_eq!(wrong.count(), 1, "{notes:?}");
}
