//! What is saved comes back as it was; everything else is refused by name.

use super::*;
use crate::decoder::Decoder;
use crate::demo;
use crate::engine::{Engine, EngineOptions};
use crate::format::{self, OpenOptions};
use crate::network::kernels::Kernels;
use crate::pool::Pool;
use crate::profile::Profile;
use bitnet_codegen::Features;

fn engine(path: Option<&str>, kv: KvType) -> Engine {
    let options = OpenOptions::default();
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/tiny");
    let model = match path {
        Some(name) => format::open(&Path::new(tiny).join(name), &options),
        None => demo::open(&options),
    };
    let pool = Arc::new(Pool::new(2).expect("threads"));
    let mut kernels = Kernels::new(Features::detect(), Profile::default());
    let model = Arc::new(model.expect("it opens"));
    let options = EngineOptions {
        kv,
        ..EngineOptions::default()
    };
    Engine::new(model, pool, &mut kernels, &options).expect("it loads")
}

fn load(engine: &Engine, path: &Path) -> Result<Sequence, FileErrorKind> {
    Sequence::load(engine.network(), path, &SequenceOptions::default()).map_err(|e| e.kind)
}

#[test]
fn a_loaded_conversation_goes_on_with_the_same_bits() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("talk");
    for kv in KvType::ALL {
        let mut engine = engine(None, kv);
        // Lengths around blocks of keys and pages, and none at all.
        for len in [0, 1, 33, PAGE, PAGE + 5] {
            engine.reset();
            let tokens: Vec<u32> = (0..len as u32).map(|i| (i * 97 + 13) % 2048).collect();
            if len > 0 {
                engine.prefill(&tokens).expect("room");
            }
            engine.sequence().save(&path).expect("saved");
            let want = engine.prefill(&[5, 6, 7]).expect("room").to_vec();
            let loaded = load(&engine, &path).expect("loaded");
            assert_eq!(loaded.tokens(), tokens);
            assert_eq!(loaded.cache().shape().head.kv(), kv);
            engine.replace(loaded).expect("of this network");
            let got = engine.prefill(&[5, 6, 7]).expect("room");
            let same = got
                .iter()
                .zip(&want)
                .all(|(g, w)| g.to_bits() == w.to_bits());
            assert!(same, "{kv}, {len} tokens");
        }
    }
}

/// A small file: the tiny model after five tokens.
fn saved(dir: &Path) -> (Engine, Vec<u8>) {
    let mut engine = engine(Some("tiny_b158.gguf"), KvType::F32);
    engine.prefill(&[1, 2, 3, 4, 5]).expect("room");
    let path = dir.join("good");
    engine.sequence().save(&path).expect("saved");
    let bytes = std::fs::read(path).expect("readable");
    (engine, bytes)
}

#[test]
fn a_damaged_file_is_refused_wherever_the_damage_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let (engine, good) = saved(dir.path());
    let path = dir.path().join("bad");
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("written");
        load(&engine, &path).err().expect("refused")
    };
    for len in (0..HEAD_BYTES as usize + 40).chain([good.len() / 2, good.len() - 1]) {
        let kind = refused(&good[..len]);
        assert!(
            matches!(kind, FileErrorKind::Magic | FileErrorKind::Length { .. }),
            "{len}: {kind}"
        );
    }
    assert!(matches!(
        refused(&[&good[..], b"x"].concat()),
        FileErrorKind::Length { .. }
    ));
    let head = HEAD_BYTES as usize + 20;
    for at in (0..head)
        .chain((head..good.len()).step_by(41))
        .chain([good.len() - 1])
    {
        for bit in [1, 0x80] {
            let mut bytes = good.clone();
            bytes[at] ^= bit;
            let kind = refused(&bytes);
            let expected = match at {
                0..16 => matches!(kind, FileErrorKind::Magic),
                16..20 | 56..68 => matches!(kind, FileErrorKind::Unknown { .. }),
                // Another type that exists has another length.
                20..24 => matches!(
                    kind,
                    FileErrorKind::Unknown { .. } | FileErrorKind::Length { .. }
                ),
                24..56 => matches!(kind, FileErrorKind::Model { .. }),
                68..76 => matches!(kind, FileErrorKind::Length { .. }),
                76..96 => matches!(kind, FileErrorKind::Token { .. } | FileErrorKind::Checksum),
                _ => matches!(kind, FileErrorKind::Checksum),
            };
            assert!(expected, "byte {at}: {kind}");
        }
    }
}

#[test]
fn a_foreign_conversation_or_none_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let (tiny, _) = saved(dir.path());
    let good = dir.path().join("good");
    let other = engine(Some("tiny_llama.gguf"), KvType::F16);
    let kind = load(&other, &good).err().expect("refused");
    assert!(matches!(kind, FileErrorKind::Model { .. }), "{kind}");
    for path in [dir.path().to_owned(), "/dev/zero".into()] {
        let kind = load(&tiny, &path).err().expect("refused");
        assert!(
            matches!(kind, FileErrorKind::Magic),
            "{}: {kind}",
            path.display()
        );
    }
    let kind = load(&tiny, &dir.path().join("none"))
        .err()
        .expect("refused");
    assert!(matches!(kind, FileErrorKind::Io(_)), "{kind}");
    let short = SequenceOptions {
        n_ctx: Some(4),
        ..SequenceOptions::default()
    };
    let e = Sequence::load(tiny.network(), &good, &short)
        .err()
        .expect("refused");
    assert!(
        matches!(
            e.kind,
            FileErrorKind::TooLong {
                tokens: 5,
                n_ctx: 4
            }
        ),
        "{e}"
    );
    assert!(e.to_string().contains("good"), "{e}");
    let e = tiny
        .sequence()
        .save(&dir.path().join("no/such"))
        .expect_err("no folder");
    assert!(matches!(e.kind, FileErrorKind::Io(_)), "{e}");
}
