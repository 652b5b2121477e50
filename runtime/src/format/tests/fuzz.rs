//! Files with random damage open or fail; they never panic, hang or ask for memory they do not have.

use proptest::prelude::*;

use super::*;
use crate::format::dtype::TernaryType;
use crate::format::tests::bad_gguf::use_all;
use crate::format::tests::micro::Micro;
use crate::graph::architectures::{BITNET_B158, LLAMA};

/// A change at a relative place: numbers of the sizes that headers hold, or bytes moved about.
#[derive(Clone, Debug)]
enum Damage {
    Byte(f64, u8),
    Word(f64, u32),
    Long(f64, u64),
    Cut(f64),
    Remove(f64, usize),
    Repeat(f64, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = 0.0..1.0f64;
    let long = prop_oneof![
        any::<u64>(),
        (0..64u32).prop_map(|b| 1 << b),
        (0..64u32).prop_map(|b| u64::MAX >> b),
        0..99u64
    ];
    let word = prop_oneof![any::<u32>(), 0..400u32, (0..32u32).prop_map(|b| 1 << b)];
    prop_oneof![
        4 => (at.clone(), any::<u8>()).prop_map(|(a, v)| Damage::Byte(a, v)),
        3 => (at.clone(), word).prop_map(|(a, v)| Damage::Word(a, v)),
        3 => (at.clone(), long).prop_map(|(a, v)| Damage::Long(a, v)),
        1 => at.clone().prop_map(Damage::Cut),
        1 => (at.clone(), 1..40usize).prop_map(|(a, n)| Damage::Remove(a, n)),
        1 => (at, 1..40usize).prop_map(|(a, n)| Damage::Repeat(a, n)),
    ]
}

/// Applies damage within the first `head` bytes, where structure is, or anywhere for a head of the whole file.
fn apply(bytes: &mut Vec<u8>, head: usize, damage: &[Damage]) {
    for d in damage {
        let head = head.min(bytes.len());
        let place = |a: f64| (a * head as f64) as usize;
        let put = |bytes: &mut Vec<u8>, at: usize, new: &[u8]| {
            for (b, n) in bytes.iter_mut().skip(at).zip(new) {
                *b = *n;
            }
        };
        match *d {
            Damage::Byte(a, v) => put(bytes, place(a), &[v]),
            Damage::Word(a, v) => put(bytes, place(a), &v.to_le_bytes()),
            Damage::Long(a, v) => put(bytes, place(a), &v.to_le_bytes()),
            Damage::Cut(a) => bytes.truncate(place(a)),
            Damage::Remove(a, n) => {
                let at = place(a);
                bytes.drain(at..(at + n).min(bytes.len()));
            }
            Damage::Repeat(a, n) => {
                let at = place(a);
                let copy = bytes[at..(at + n).min(bytes.len())].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}

fn check(what: &str, bytes: Vec<u8>, options: &OpenOptions) {
    if let Err(error) = open_bytes(what, bytes, options).and_then(|model| use_all(&model)) {
        let line = error.to_string();
        assert!(line.starts_with(what) && line.len() < 2000, "{line}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn damaged_gguf(
        kind in proptest::sample::select(vec![TernaryType::I2S, TernaryType::TL1, TernaryType::TL2]),
        llama in any::<bool>(),
        whole in any::<bool>(),
        list in proptest::collection::vec(damage(), 1..5),
    ) {
        let arch = if llama { LLAMA } else { BITNET_B158 };
        let micro = Micro { hidden: 96, ffn: 192, heads: 2, kv_heads: 1, head_dim: 32, ..Micro::new(arch) };
        let step = Tiles { tile_rows: 32, tile_cols: if kind == TernaryType::TL1 { 32 } else { 24 }, step_rows: 32 };
        let mut options = OpenOptions::default();
        for id in micro.ids() {
            let (n, k) = micro.shape(id.projection);
            options.tiles.set(n, k, step);
        }
        let mut bytes = micro.gguf(kind, |_, _| Some(step)).emit();
        let head = if whole { bytes.len() } else { 2200 };
        apply(&mut bytes, head, &list);
        check("m.gguf", bytes, &options);
    }

    #[test]
    fn random_bytes_after_the_magic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(tail);
        check("m.gguf", bytes, &OpenOptions::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damaged_safetensors(whole in any::<bool>(), list in proptest::collection::vec(damage(), 1..4)) {
        let dir = tempfile::tempdir().unwrap();
        let source = data("tiny/tiny_llama_hf");
        std::fs::copy(source.join("config.json"), dir.path().join("config.json")).unwrap();
        let mut bytes = std::fs::read(source.join("model.safetensors")).unwrap();
        let head = if whole { bytes.len() } else { 5000 };
        apply(&mut bytes, head, &list);
        std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        let _ = open(dir.path(), &OpenOptions::default()).and_then(|model| use_all(&model));
    }

    #[test]
    fn damaged_configurations(list in proptest::collection::vec(damage(), 1..4)) {
        let dir = tempfile::tempdir().unwrap();
        let source = data("tiny/tiny_llama_hf");
        std::fs::copy(source.join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
        let mut bytes = std::fs::read(source.join("config.json")).unwrap();
        let head = bytes.len();
        apply(&mut bytes, head, &list);
        std::fs::write(dir.path().join("config.json"), bytes).unwrap();
        let _ = open(dir.path(), &OpenOptions::default()).and_then(|model| use_all(&model));
    }
}
