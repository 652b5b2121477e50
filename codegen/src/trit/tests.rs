//! The neutral form and the two quantisers, on examples and at their edges.

use super::*;

#[test]
#[expect(
    clippy::approx_constant,
    reason = "0.7071 is a row of the reference table, not a constant"
)]
fn activations_follow_the_reference_table() {
    // reference vectors §8.4: scale bits and half-to-even codes.
    let cases: [(&[f32], u32, &[i8]); 4] = [
        (
            &[0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 127.0, -127.0],
            0x3f80_0000,
            &[0, 2, 2, 0, -2, -2, 127, -127],
        ),
        (
            &[0.1, -0.2, 0.3, 0.7071, -1.25, 0.0, 0.001, 0.62],
            0x42cb_3333,
            &[10, -20, 30, 72, -127, 0, 0, 63],
        ),
        (&[1e-7, -2e-7, 0.0, 3e-7], 0x4b41_c960, &[1, -3, 0, 4]),
        (&[0.0; 4], 0x4b41_c960, &[0; 4]),
    ];
    for (x, bits, want) in cases {
        let mut q = vec![9i8; x.len() + 3];
        assert_eq!(absmax(x, &mut q).to_bits(), bits, "scale of {x:?}");
        assert_eq!(&q[..x.len()], want, "codes of {x:?}");
        assert_eq!(&q[x.len()..], &[0; 3]);
    }
    assert!(absmax(&[1.0, f32::NAN], &mut [0; 2]).is_nan());
    assert!(absmax(&[1.0, f32::INFINITY], &mut [0; 2]).is_nan());
}

#[test]
fn the_rounding_trick_is_round_half_to_even() {
    let x: Vec<f32> = crate::noise::Noise::new(5)
        .take(4099)
        .map(|noise| (noise >> 8) as f32 / 65_536.0 - 128.0)
        .collect();
    let mut q = vec![0i8; x.len()];
    let s = absmax(&x, &mut q);
    for (&q, &v) in q.iter().zip(&x) {
        let want = (v * s).round_ties_even().clamp(-128.0, 127.0) as i8;
        assert_eq!(q, want, "{v} times {s}");
    }
}

#[test]
fn absmean_follows_the_reference_row() {
    let w = [0.02, -0.01, 0.005, 0.0, -0.03, 0.011, 0.0149, -0.0151];
    let m = absmean(1, 8, &w).unwrap();
    let t: Vec<i8> = (0..8).map(|c| m.trit(0, c)).collect();
    assert_eq!(t, [1, -1, 0, 0, -1, 1, 1, -1]);
    let Scales::Tensor(s) = m.scales() else {
        panic!("one scale")
    };
    assert!((s - 0.01325).abs() < 1e-7, "{s}");
    assert!(matches!(
        absmean(1, 2, &[1.0, f32::NAN]),
        Err(TritError::Scale { .. })
    ));
    let unit = Absmean::from_abs_sum(4.0, 4);
    for x in [
        0.0f32,
        0.25,
        0.5,
        0.500_000_06,
        0.75,
        1.0,
        1.5,
        2.5,
        1e30,
        f32::INFINITY,
    ] {
        for w in [x, -x] {
            let rounded = w.round_ties_even().clamp(-1.0, 1.0) as i8;
            assert_eq!(unit.code(w) as i8 - 1, rounded, "{w}");
        }
    }
}

#[test]
fn bad_codes_and_scales_are_named() {
    let three = TernaryMatrix::from_rows(2, 3, Scales::Tensor(1.0), |r, row| {
        row.fill(if r == 1 { 3 } else { 0 });
        Ok::<_, TritError>(())
    });
    assert_eq!(three.unwrap_err(), TritError::CodeThree { row: 1, col: 0 });
    for bad in [f32::NAN, f32::INFINITY, -1.0, 0.0] {
        assert!(
            matches!(
                TernaryMatrix::from_trits(1, 2, &[1, 0], bad),
                Err(TritError::Scale { .. })
            ),
            "{bad}"
        );
    }
    assert!(
        TernaryMatrix::from_trits(1, 2, &[0, 0], 0.0).is_ok(),
        "zero scales an all-zero tensor"
    );
    assert!(matches!(
        TernaryMatrix::from_rows(2, 4, Scales::Row(vec![1.0]), |_, _| Ok::<_, TritError>(())),
        Err(TritError::ScaleCount {
            expected: 2,
            got: 1,
            ..
        })
    ));
}

#[test]
fn unpack_inverts_from_rows_and_pads_with_zero_trits() {
    for k in [1, 3, 4, 5, 255, 256, 257] {
        let trits: Vec<i8> = (0..3 * k)
            .map(|i| ((i * 7 + i / 5) % 3) as i8 - 1)
            .collect();
        let m = TernaryMatrix::from_trits(3, k, &trits, 0.5).unwrap();
        for r in 0..3 {
            let mut row = vec![0; k + 700];
            m.unpack_row(r, &mut row);
            for c in 0..k {
                assert_eq!(row[c] as i8 - 1, trits[r * k + c]);
                assert_eq!(m.trit(r, c), trits[r * k + c]);
            }
            assert!(row[k..].iter().all(|&c| c == CODE_ZERO));
        }
        let p = m.permute_rows(&[2, 0, 1]);
        assert_eq!(p.row(0), m.row(2));
    }
}
