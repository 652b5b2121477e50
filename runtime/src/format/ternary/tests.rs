//! Storage types against the reference bytes, and each decoder against its packer.
//!
//! Longer than 500 lines: a list of packings, each both ways.

use std::sync::Arc;

use bitnet_codegen::trit::{Scales, TernaryMatrix};
use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::format::dtype::Dtype;
use crate::format::float::FloatType;
use crate::format::map::Blob;
use crate::format::store::TensorInfo;
use crate::format::tests::data;

/// The generator of the reference vectors.
fn lcg(n: usize, seed: u32) -> Vec<u32> {
    bitnet_codegen::noise::Noise::new(seed)
        .take(n)
        .map(|x| x >> 16)
        .collect()
}

fn trits(n: usize) -> Vec<i8> {
    lcg(n, 1).into_iter().map(|x| (x % 3) as i8 - 1).collect()
}

fn vectors() -> Value {
    serde_json::from_slice(&std::fs::read(data("vectors.json")).unwrap()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Compares with the recorded bytes: in full where they are, else by digest.
fn assert_recorded(name: &str, bytes: &[u8]) {
    let all = vectors();
    let want = &all[name];
    assert_eq!(Some(bytes.len() as u64), want["len"].as_u64(), "{name}");
    if let Some(text) = want["hex"].as_str() {
        assert_eq!(hex(bytes), text, "{name}");
    }
    assert_eq!(
        hex(&Sha256::digest(bytes)),
        want["sha256"].as_str().unwrap(),
        "{name}"
    );
}

fn store(bytes: Vec<u8>, dims: [usize; 2], dtype: Dtype) -> TensorStore {
    let info = TensorInfo {
        name: "t".into(),
        dims: dims.to_vec(),
        dtype,
        file: 0,
        bytes: 0..bytes.len(),
    };
    TensorStore::new(vec![Arc::new(Blob::Owned(bytes))], vec![info])
}

fn source(n: usize, k: usize, packing: Packing) -> TernarySource {
    TernarySource {
        tensor: 0,
        n,
        k,
        packing,
        factor: 1.0,
        order: RowOrder::Neutral,
    }
}

fn decode(
    bytes: Vec<u8>,
    n: usize,
    k: usize,
    kind: TernaryType,
    packing: Packing,
) -> Result<TernaryMatrix, LoadErrorKind> {
    source(n, k, packing).decode(&store(bytes, [n, k], Dtype::Ternary(kind)))
}

/// How a storage type is asked for.
fn packing(kind: TernaryType, block: usize, tiles: Option<Tiles>) -> Packing {
    match (kind, tiles) {
        (TernaryType::I2S, _) => Packing::I2S { block },
        (_, Some(tiles)) => Packing::Tiled(kind, tiles),
        _ => Packing::Plain(kind),
    }
}

#[test]
fn bytes_are_those_of_the_reference() {
    use TernaryType::*;
    let cases = [
        ("i2s_128", I2S, 128, 1, 256),
        ("i2s_128", I2S, 128, 4, 64),
        ("i2s_128", I2S, 128, 8, 32),
        ("i2s_128", I2S, 128, 128, 2),
        ("i2s_64", I2S, 64, 1, 256),
        ("i2s_64", I2S, 64, 8, 32),
        ("hf", HfPacked, 0, 16, 16),
        ("tq1", TQ1_0, 0, 1, 256),
        ("tq2", TQ2_0, 0, 1, 256),
        ("q2_0", Q2_0, 0, 1, 256),
        ("q2_0", Q2_0, 0, 4, 64),
        ("iq1bn", IQ1BN, 0, 1, 256),
        ("iq2bn", IQ2BN, 0, 1, 256),
        ("iq2bn_r4", IQ2BNR4, 0, 4, 64),
    ];
    for (name, kind, block, n, k) in cases {
        for (pattern, w) in [
            ("A", (0..256).map(|i| (i % 3) as i8 - 1).collect()),
            ("B", trits(256)),
        ] {
            let m = TernaryMatrix::from_trits(n, k, &w, 1.0).unwrap();
            let bytes = pack::pack(kind, &m, block, None);
            assert_recorded(&format!("{name}_{pattern}"), &bytes);
            assert_eq!(
                decode(bytes, n, k, kind, packing(kind, block, None)).unwrap(),
                m,
                "{name}_{pattern} {n}x{k}"
            );
        }
    }
}

#[test]
fn tiled_bytes_are_those_of_the_reference() {
    let tl1 = [
        (32, 16, 32, 16, 32),
        (64, 16, 64, 8, 64),
        (64, 64, 32, 32, 32),
        (128, 128, 64, 64, 64),
    ];
    let tl2 = [
        (32, 24, 32, 24),
        (32, 80, 32, 48),
        (32, 128, 32, 96),
        (64, 256, 32, 96),
    ];
    let tl1 = tl1.map(|(n, k, bm, bk, step)| {
        let tiles = Tiles {
            tile_rows: bm,
            tile_cols: bk,
            step_rows: step,
        };
        (
            TernaryType::TL1,
            n,
            k,
            tiles,
            format!("tl1_{n}x{k}_BM{bm}_BK{bk}_bm{step}"),
            n * k / 4,
        )
    });
    let tl2 = tl2.map(|(n, k, bm, bk)| {
        let tiles = Tiles {
            tile_rows: bm,
            tile_cols: bk,
            step_rows: 32,
        };
        let payload = tl2_sections(n, k, tiles).iter().sum();
        (
            TernaryType::TL2,
            n,
            k,
            tiles,
            format!("tl2_{n}x{k}_BM{bm}_BK{bk}_all"),
            payload,
        )
    });
    for (kind, n, k, tiles, name, payload) in tl1.into_iter().chain(tl2) {
        tiles.check(kind, n, k).unwrap();
        let m = TernaryMatrix::from_trits(n, k, &trits(n * k), 0.75).unwrap();
        let bytes = pack::pack(kind, &m, 0, Some(tiles));
        assert_recorded(&name, &bytes[..payload]);
        assert_eq!(Some(bytes.len()), kind.n_bytes(n, k), "{name}");
        if let Some(reserve) = vectors()[&name]["bitnet_cpp_reserved"].as_u64() {
            assert_eq!(
                bytes.len() as u64,
                reserve + 32,
                "{name}: the scale follows bitnet.cpp's reserve"
            );
        }
        assert_eq!(
            decode(bytes, n, k, kind, packing(kind, 0, Some(tiles))).unwrap(),
            m,
            "{name}"
        );
    }
}

#[test]
fn the_reference_matrices_are_the_ones_multiplied_there() {
    // y = W·q from the reference, so that rows and columns are known not to be swapped on both sides.
    let q: Vec<i64> = lcg(256, 7)
        .into_iter()
        .map(|x| (x % 255) as i64 - 127)
        .collect();
    let all = vectors();
    for (name, n, k) in [
        ("tl1_64x64_BM32_BK32_bm32", 64, 64),
        ("tl2_64x256_BM32_BK96_three", 64, 256),
    ] {
        let w = trits(n * k);
        let y: Vec<i64> = w
            .chunks(k)
            .map(|row| row.iter().zip(&q).map(|(&w, &q)| w as i64 * q).sum())
            .collect();
        let first: Vec<i64> = all[name]["y_first8"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_i64().unwrap())
            .collect();
        assert_eq!(y[..8], first, "{name}");
        assert_eq!(
            Some(y.iter().sum::<i64>()),
            all[name]["y_sum"].as_i64(),
            "{name}"
        );
    }
}

#[test]
fn float_tables_decode_to_the_reference_values() {
    // The digests are of f32 values from the reference's decoders over the same bytes.
    let cases: [(FloatType, &[usize], &str); 12] = [
        (
            FloatType::Q8_0,
            &[0],
            "a92fe90bae77aea620c5e1c8a0bea49daea6a661e3209e18ec9f49c7ca631170",
        ),
        (
            FloatType::Q4_0,
            &[0],
            "651a1bc05be321ad786f597cbf18fecec80fdf9e81b7c74f0793c8b34eba8e9f",
        ),
        (
            FloatType::Q6K,
            &[208],
            "d9594da158cfdff9f327fc2fc834dba42b50fb6f8adfc0e04dc504f91653d1d9",
        ),
        (
            FloatType::Q4_1,
            &[0, 2],
            "135e575fd6da966cc55cebdb70002bebaead1597091f5c3fab1adb2f21e33f24",
        ),
        (
            FloatType::Q5_0,
            &[0],
            "15ae43cbf814ffeca267d390c0d8ec6f44bc7e933a49dfa489f265afbc40c515",
        ),
        (
            FloatType::Q5_1,
            &[0, 2],
            "5814f61ae7d0d7039546059a0129e4479857c9ea7c29e49a76038797eb4df8e8",
        ),
        (
            FloatType::Q2K,
            &[80, 82],
            "063cd5e73201e14cde5c6f531d3b83bd742bf66692ef55283579e3e93738414b",
        ),
        (
            FloatType::Q3K,
            &[108],
            "e3b3c0e1806d0f631da45268ced90521ae39f26c9a57651513628272af62af42",
        ),
        (
            FloatType::Q4K,
            &[0, 2],
            "41b984ea200d2fd1d6a3790b94fadb58d3bb8d7affd351e580c8ab83e106542a",
        ),
        (
            FloatType::Q5K,
            &[0, 2],
            "185e5e742e30f8a5b7bfb2242d9bd26be54f13775e67719b03e6926e6c6cfa25",
        ),
        (
            FloatType::IQ4NL,
            &[0],
            "7cd0f1827670bf739a86be605b78692cbb35c28fa17184660466e31b4017d20f",
        ),
        (
            FloatType::IQ4XS,
            &[0],
            "6c8a1adb0ff0f04bcf3476c023b5265d8563ded23fb8afafc796b4cdfb255e7f",
        ),
    ];
    for (dtype, halves_at, digest) in cases {
        let (elements, block) = dtype.block();
        let mut bytes: Vec<u8> = lcg(3 * block, 5).into_iter().map(|x| x as u8).collect();
        for (i, d) in [0.5, -0.0123, 3.1e-5].into_iter().enumerate() {
            for at in halves_at {
                bytes[i * block + at..][..2].copy_from_slice(&half::f16::from_f64(d).to_le_bytes());
            }
        }
        let mut out = vec![0f32; 3 * elements];
        dtype.decode(&bytes, &mut out);
        let raw: Vec<u8> = out.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(hex(&Sha256::digest(&raw)), digest, "{dtype}");
    }
    for (dtype, bytes, value) in [
        (FloatType::F32, &1.5f32.to_le_bytes()[..], 1.5f32),
        (FloatType::F16, &[0x01, 0x00], 2f32.powi(-24)),
        (FloatType::F16, &[0x00, 0xc0], -2.0),
        (FloatType::BF16, &[0xc0, 0x3f], 1.5),
    ] {
        let mut out = [0f32];
        dtype.decode(bytes, &mut out);
        assert_eq!(out[0], value, "{dtype}");
    }
}

#[test]
fn zero_scales_mean_zero_weights_whatever_the_codes() {
    // ik_llama.cpp writes a row of zeros as +1 codes with scale 0.
    let ones = TernaryMatrix::from_trits(4, 256, &[1; 1024], 1.0).unwrap();
    let zeros = [0i8; 1024];
    use TernaryType::*;
    for (kind, scale_at, scale_bytes) in [
        (TQ1_0, 52, 2),
        (TQ2_0, 64, 2),
        (Q2_0, 0, 2),
        (IQ1BN, 0, 2),
        (IQ2BN, 0, 4),
    ] {
        let mut bytes = pack::pack(kind, &ones, 0, None);
        let group = bytes.len() / if kind == Q2_0 { 16 } else { 4 };
        let whole = bytes.clone();
        bytes[scale_at..][..scale_bytes].fill(0);
        let m = decode(bytes, 4, 256, kind, packing(kind, 0, None)).unwrap();
        let first = if kind == Q2_0 { 64 } else { 256 };
        assert!(
            (0..first).all(|c| m.trit(0, c) == 0),
            "{kind:?}: the first group is zero"
        );
        assert!(
            (0..256).all(|c| m.trit(3, c) == 1),
            "{kind:?}: others are not"
        );
        assert_eq!(
            *m.scales(),
            Scales::Tensor(1.0),
            "{kind:?}: a zero scale agrees with any other"
        );
        let all: Vec<u8> = whole
            .chunks(group)
            .flat_map(|g| {
                let mut g = g.to_vec();
                g[scale_at..][..scale_bytes].fill(0);
                g
            })
            .collect();
        let m = decode(all, 4, 256, kind, packing(kind, 0, None)).unwrap();
        assert_eq!(
            m,
            TernaryMatrix::from_trits(4, 256, &zeros, 0.0).unwrap(),
            "{kind:?}: nothing but zeros"
        );
    }
}

#[test]
fn scales_take_the_smallest_form_that_says_the_same() {
    let w = trits(4 * 256);
    let with = |scales: Scales| {
        TernaryMatrix::from_rows(4, 256, scales, |r, row| {
            row.iter_mut()
                .zip(&w[r * 256..])
                .for_each(|(c, &t)| *c = (t + 1) as u8);
            Ok::<_, TritError>(())
        })
        .unwrap()
    };
    let rows = with(Scales::Row(vec![0.5, 1.0, 2.0, 0.25]));
    let groups = with(Scales::Group {
        group_k: 64,
        scales: (1..=16).map(|i| i as f32 / 8.0).collect(),
    });
    for kind in [
        TernaryType::IQ1BN,
        TernaryType::IQ2BN,
        TernaryType::IQ2BNR4,
        TernaryType::TQ2_0,
        TernaryType::Q2_0,
    ] {
        let bytes = pack::pack(kind, &rows, 0, None);
        assert_eq!(
            decode(bytes, 4, 256, kind, packing(kind, 0, None)).unwrap(),
            rows,
            "{kind:?}"
        );
    }
    let bytes = pack::pack(TernaryType::Q2_0, &groups, 0, None);
    assert_eq!(
        decode(
            bytes,
            4,
            256,
            TernaryType::Q2_0,
            Packing::Plain(TernaryType::Q2_0)
        )
        .unwrap(),
        groups
    );
}

/// Every digit of every byte of a block in every place: element j is (j + shift) mod 3 − 1.
#[test]
fn blocks_of_128_hold_every_shift_of_a_pattern() {
    for kind in [TernaryType::PQ2_0, TernaryType::PTQ1_0] {
        for shift in 0..128 {
            let trits: Vec<i8> = (0..256).map(|j| ((j + shift) % 3) as i8 - 1).collect();
            let scales = Scales::Group {
                group_k: 128,
                scales: vec![0.5, 0.25],
            };
            let m = TernaryMatrix::from_rows(1, 256, scales, |_, row| {
                for (code, trit) in row.iter_mut().zip(&trits) {
                    *code = (trit + 1) as u8;
                }
                Ok::<_, TritError>(())
            });
            let m = m.unwrap();
            let bytes = pack::pack(kind, &m, 0, None);
            assert_eq!(Some(bytes.len()), kind.n_bytes(1, 256));
            let packing = Packing::Plain(kind);
            let back = decode(bytes.clone(), 1, 256, kind, packing.clone()).unwrap();
            assert_eq!(back, m, "{kind:?} shifted by {shift}");
            let store = store(bytes, [1, 256], Dtype::Ternary(kind));
            let mut row = vec![f32::NAN; 256];
            source(1, 256, packing).row_to_f32(&store, 0, &mut row);
            for (j, v) in row.iter().enumerate() {
                let scale = if j < 128 { 0.5 } else { 0.25 };
                assert_eq!(*v, trits[j] as f32 * scale, "{kind:?}, element {j}");
            }
        }
    }
}

/// Rows of tables are the rows of the matrix, whatever the type.
#[test]
fn rows_of_tables_are_those_of_the_matrix() {
    let m = TernaryMatrix::from_trits(4, 256, &trits(4 * 256), 0.5).unwrap();
    for kind in super::table::TABLE_TYPES {
        let bytes = pack::pack(kind, &m, 128, None);
        let source = source(4, 256, packing(kind, 128, None));
        assert_eq!(source.no_table(), None);
        let store = store(bytes, [4, 256], Dtype::Ternary(kind));
        for r in 0..4 {
            let mut row = vec![f32::NAN; 256];
            source.row_to_f32(&store, r, &mut row);
            for (c, v) in row.iter().enumerate() {
                assert_eq!(
                    *v,
                    m.trit(r, c) as f32 * 0.5,
                    "{kind:?}, row {r}, column {c}"
                );
            }
        }
    }
    assert!(
        source(4, 256, Packing::Plain(TernaryType::IQ1BN))
            .no_table()
            .is_some()
    );
}

#[test]
fn factors_and_row_orders_apply_to_every_form() {
    let w = trits(8 * 64);
    let m = TernaryMatrix::from_trits(8, 64, &w, 0.5).unwrap();
    // Two heads of four rows: stored rows are neutral rows 0 2 1 3.
    let stored = m.permute_rows(&[0, 2, 1, 3, 4, 6, 5, 7]);
    let mut bytes = Vec::new();
    pack::i2s_codes(&m, RowOrder::Interleaved { head_dim: 4 }, &mut bytes).unwrap();
    bytes.extend(pack::i2s_tail(0.5));
    assert_eq!(
        bytes,
        pack::pack(TernaryType::I2S, &stored, 128, None),
        "the streaming packer stores in that order"
    );
    let source = TernarySource {
        factor: 3.0,
        order: RowOrder::Interleaved { head_dim: 4 },
        ..source(8, 64, Packing::I2S { block: 128 })
    };
    let back = source
        .decode(&store(bytes, [8, 64], Dtype::Ternary(TernaryType::I2S)))
        .unwrap();
    assert_eq!(back, TernaryMatrix::from_trits(8, 64, &w, 1.5).unwrap());
}

#[test]
fn floats_become_trits_as_asked() {
    let floats = |values: &[f32], how| {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        source(2, 4, Packing::Floats(how)).decode(&store(
            bytes,
            [2, 4],
            Dtype::Float(FloatType::F32),
        ))
    };
    let two = [0.25, -0.25, 0.0, 0.25, 0.0, 0.0, -0.25, 0.25];
    let exact = TernaryMatrix::from_trits(2, 4, &[1, -1, 0, 1, 0, 0, -1, 1], 0.25).unwrap();
    let master = [0.02, -0.01, 0.005, 0.0, -0.03, 0.011, 0.0149, -0.0151];
    let absmean = bitnet_codegen::trit::absmean(2, 4, &master).unwrap();
    assert_eq!(floats(&two, Ternarise::AsStored).unwrap(), exact);
    assert_eq!(
        floats(&two, Ternarise::Absmean).unwrap(),
        bitnet_codegen::trit::absmean(2, 4, &two).unwrap()
    );
    assert_eq!(floats(&master, Ternarise::Absmean).unwrap(), absmean);
    let e = floats(&master, Ternarise::AsStored).unwrap_err();
    assert!(
        matches!(
            e,
            LoadErrorKind::NotTernary {
                reason: TritError::Magnitudes,
                ..
            }
        ),
        "{e}"
    );
    for bad in [f32::NAN, f32::INFINITY] {
        let mut w = master;
        w[3] = bad;
        for how in [Ternarise::Absmean, Ternarise::AsStored] {
            assert!(floats(&w, how).is_err(), "{bad} {how:?}");
        }
    }
}

#[test]
fn floats_of_several_magnitudes_get_the_fewest_scales_that_say_the_same() {
    let (n, k) = (4, 192);
    let trits = trits(n * k);
    // As a tensor whose rows or columns were split over machines that each had a scale.
    /// What it is called, the magnitude at a row and column, and what the scales must be.
    type Case = (&'static str, fn(usize, usize) -> f32, fn(&Scales) -> bool);
    let cases: [Case; 5] = [
        ("one", |_, _| 0.5, |s| *s == Scales::Tensor(0.5)),
        (
            "rows",
            |r, _| [0.5, 0.25][r / 2],
            |s| *s == Scales::Row(vec![0.5, 0.5, 0.25, 0.25]),
        ),
        (
            "halves",
            |_, c| [0.5, 0.25][c / 96],
            |s| matches!(s, Scales::Group { group_k: 96, .. }),
        ),
        (
            "thirds of rows",
            |r, c| [0.5, 0.25, 0.75][(r + c / 64) % 3],
            |s| matches!(s, Scales::Group { group_k: 64, .. }),
        ),
        ("too many", |_, c| [0.5, 0.25][c % 2], |_| false),
    ];
    for (what, magnitude, expected) in cases {
        let value = |i: usize| f32::from(trits[i]) * magnitude(i / k, i % k);
        let bytes = (0..n * k).flat_map(|i| value(i).to_le_bytes()).collect();
        let matrix = source(n, k, Packing::Floats(Ternarise::AsStored)).decode(&store(
            bytes,
            [n, k],
            Dtype::Float(FloatType::F32),
        ));
        let Ok(matrix) = matrix else {
            assert_eq!(what, "too many");
            continue;
        };
        assert!(expected(matrix.scales()), "{what}: {:?}", matrix.scales());
        for (i, &trit) in trits.iter().enumerate() {
            assert_eq!(matrix.trit(i / k, i % k), trit, "{what} {i}");
        }
    }
}

#[test]
fn code_three_and_bad_scales_are_refused() {
    let m = TernaryMatrix::from_trits(4, 256, &trits(1024), 1.0).unwrap();
    use TernaryType::*;
    for kind in [I2S, TQ2_0, Q2_0, IQ2BN, IQ2BNR4, HfPacked] {
        let mut bytes = pack::pack(kind, &m, 128, None);
        let at = if kind == IQ2BNR4 { 20 } else { 10 };
        bytes[at] = 0xff;
        let e = decode(bytes, 4, 256, kind, packing(kind, 128, None)).unwrap_err();
        let three = matches!(
            e,
            LoadErrorKind::NotTernary {
                reason: TritError::CodeThree { .. },
                ..
            }
        );
        assert!(
            three && e.to_string().contains("code 3 at row"),
            "{kind:?}: {e}"
        );
    }
    let nan = half::f16::NAN.to_le_bytes();
    for (kind, at, bad) in [
        (I2S, 256, &f32::NAN.to_le_bytes()[..]),
        (I2S, 256, &0f32.to_le_bytes()),
        (I2S, 256, &(-1f32).to_le_bytes()),
        (I2S, 256, &f32::INFINITY.to_le_bytes()),
        (TQ1_0, 52, &nan),
        (TQ2_0, 64, &nan),
        (Q2_0, 0, &nan),
        (IQ1BN, 0, &nan),
        (IQ2BN, 0, &f32::NAN.to_le_bytes()),
        (IQ2BNR4, 4, &(-1f32).to_le_bytes()),
    ] {
        let mut bytes = pack::pack(kind, &m, 128, None);
        bytes[at..][..bad.len()].copy_from_slice(bad);
        let e = decode(bytes, 4, 256, kind, packing(kind, 128, None)).unwrap_err();
        assert!(
            matches!(
                e,
                LoadErrorKind::NotTernary {
                    reason: TritError::Scale { .. },
                    ..
                }
            ),
            "{kind:?} {bad:?}: {e}"
        );
    }
    let tiles = Tiles {
        tile_rows: 32,
        tile_cols: 24,
        step_rows: 32,
    };
    let m = TernaryMatrix::from_trits(32, 24, &trits(768), 1.0).unwrap();
    let mut bytes = pack::pack(TL2, &m, 0, Some(tiles));
    bytes[0] = 0xe0;
    assert!(
        decode(bytes, 32, 24, TL2, Packing::Tiled(TL2, tiles)).is_err(),
        "index 14 is no triple"
    );
}

#[test]
fn tile_configs_are_read_and_checked() {
    let text = "[Kernels_0]\nm = 64\nk = 64\nbm = 32\nbk = 32\nbmm = 32\n\n# another\n[Kernels_1]\nm=32\nk=24\nbm=32\nbk=24\nbmm=32\nby = 6\n";
    let config = TileConfig::parse(text).unwrap();
    let tiles = config.get(64, 64).unwrap();
    assert_eq!(
        tiles,
        Tiles {
            tile_rows: 32,
            tile_cols: 32,
            step_rows: 32
        }
    );
    assert_eq!(config.shapes(), "64x64 32x24");
    assert!(tiles.check(TernaryType::TL1, 64, 64).is_ok());
    assert!(matches!(
        tiles.check(TernaryType::TL1, 48, 64),
        Err(TileError::Misfit { .. })
    ));
    assert!(
        matches!(
            tiles.check(TernaryType::TL2, 64, 64),
            Err(TileError::Misfit { .. })
        ),
        "bk 32 is no multiple of 24"
    );
    for zero in [
        Tiles {
            tile_rows: 0,
            ..tiles
        },
        Tiles {
            tile_cols: 0,
            ..tiles
        },
        Tiles {
            step_rows: 0,
            ..tiles
        },
    ] {
        assert!(
            zero.check(TernaryType::TL1, 64, 64).is_err()
                && zero.check(TernaryType::TL2, 64, 64).is_err()
        );
    }
    assert!(matches!(
        TileConfig::parse("m = 3"),
        Err(TileError::Line { line: 1, .. })
    ));
    assert!(matches!(
        TileConfig::parse("[a]\nm = x"),
        Err(TileError::Line { line: 2, .. })
    ));
    assert!(matches!(
        TileConfig::parse("[a]\nm = 1"),
        Err(TileError::MissingKey { key: "bm", .. })
    ));
}

/// A type, a shape it can hold, and tile sizes where it needs them.
fn shapes() -> impl Strategy<Value = (TernaryType, usize, usize, usize, Option<Tiles>)> {
    let tl1 = (
        1..4usize,
        1..3usize,
        1..5usize,
        prop_oneof![Just(32usize), Just(64)],
        1..3usize,
    );
    let tl1 = tl1.prop_map(|(a, s, u, step, nb)| {
        let tiles = Tiles {
            tile_rows: s * step,
            tile_cols: u * (256 / step),
            step_rows: step,
        };
        (
            TernaryType::TL1,
            a * tiles.tile_rows,
            nb * tiles.tile_cols,
            0,
            Some(tiles),
        )
    });
    let tl2 = (1..3usize, 1..3usize, 1..4usize, 0..3usize, 0..4usize).prop_filter_map(
        "pairs fit",
        |(a, s, u, nb, n2)| {
            let tiles = Tiles {
                tile_rows: 32 * s,
                tile_cols: 24 * u,
                step_rows: 32,
            };
            let k = nb * tiles.tile_cols + 32 * n2;
            let (n, k) = (a * tiles.tile_rows, k);
            let ok = k > 0 && tiles.check(TernaryType::TL2, n, k).is_ok();
            ok.then_some((TernaryType::TL2, n, k, 0, Some(tiles)))
        },
    );
    let blocks = |kind: TernaryType, rows: usize| {
        (1..5usize, 1..4usize)
            .prop_map(move |(n, b)| (kind, n * rows, b * kind.k_multiple(), 0, None))
    };
    prop_oneof![
        (1..9usize, 1..300usize).prop_map(|(n, k)| (TernaryType::I2S, n * 128, k, 128, None)),
        (1..5usize, 1..9usize).prop_map(|(n, k)| (TernaryType::I2S, n, k * 128, 128, None)),
        (1..9usize, 1..300usize).prop_map(|(n, k)| (TernaryType::I2S, n * 64, k, 64, None)),
        (1..4usize, 1..20usize).prop_map(|(n, k)| (TernaryType::I2S, n * 2, k * 64, 128, None)),
        (1..20usize, 1..90usize).prop_map(|(n, k)| (TernaryType::HfPacked, n, k, 0, None)),
        blocks(TernaryType::TQ1_0, 1),
        blocks(TernaryType::TQ2_0, 1),
        blocks(TernaryType::Q2_0, 1),
        blocks(TernaryType::IQ1BN, 1),
        blocks(TernaryType::IQ2BN, 1),
        blocks(TernaryType::IQ2BNR4, 4),
        tl1,
        tl2,
    ]
}

proptest! {
    #[test]
    fn unpacking_inverts_packing((kind, n, k, block, tiles) in shapes(), seed in any::<u32>()) {
        let w: Vec<i8> = lcg(n * k, seed).into_iter().map(|x| (x % 3) as i8 - 1).collect();
        // HF keeps the scale apart.
        let scale = if kind == TernaryType::HfPacked { 1.0 } else { 0.375 };
        let m = TernaryMatrix::from_trits(n, k, &w, scale).unwrap();
        let bytes = pack::pack(kind, &m, block, tiles);
        let back = decode(bytes.clone(), n, k, kind, packing(kind, block, tiles)).unwrap();
        if w.iter().any(|&t| t != 0) || matches!(kind, TernaryType::I2S) {
            prop_assert_eq!(&back, &m, "{:?} {}x{} {:?}", kind, n, k, tiles);
        }
        if kind == TernaryType::I2S && block == 128 {
            let mut streamed = Vec::new();
            pack::i2s_codes(&m, RowOrder::Neutral, &mut streamed).unwrap();
            prop_assert_eq!(&bytes[..n * k / 4], &streamed[..], "{}x{}", n, k);
        }
    }

    #[test]
    fn any_bytes_give_a_matrix_or_an_error((kind, n, k, block, tiles) in shapes(), seed in any::<u32>()) {
        let len = kind.n_bytes(n, k).unwrap();
        let bytes: Vec<u8> = lcg(len, seed).into_iter().map(|x| x as u8).collect();
        if let Ok(m) = decode(bytes, n, k, kind, packing(kind, block, tiles)) {
            prop_assert_eq!((m.n(), m.k()), (n, k));
        }
    }
}
