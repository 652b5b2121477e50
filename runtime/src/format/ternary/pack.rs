//! Packing: the inverse of each decoder, for writing files and for tests.
//!
//! I2_S, which `convert` writes, streams rows; the others follow their index formulas code by code
//! and share nothing with the decoders, so that one checks the other.

use std::io::{self, Write};

use bitnet_codegen::trit::{Scales, TernaryMatrix};
use half::f16;

use super::{RowOrder, Tiles};
use crate::format::dtype::{TernaryType, tl2_scale_offset};

/// The bytes of every neutral byte's four codes, one a byte, low bits first.
const SPREAD: [u32; 256] = {
    let mut t = [0u32; 256];
    let mut b = 0;
    while b < 256 {
        let x = b as u32;
        t[b] = (x & 3) | (x >> 2 & 3) << 8 | (x >> 4 & 3) << 16 | (x >> 6 & 3) << 24;
        b += 1;
    }
    t
};

/// Writes the codes of an I2_S tensor (blocks of 128), without the scale: N·K/4 bytes.
///
/// # Errors
/// What the sink answers.
///
/// # Panics
/// When N·K is not a multiple of 128.
pub fn i2s_codes(m: &TernaryMatrix, order: RowOrder, sink: &mut dyn Write) -> io::Result<()> {
    assert!(
        (m.n() * m.k()).is_multiple_of(128),
        "I2_S of {}x{}: whole blocks of 128",
        m.n(),
        m.k()
    );
    let mut block = [0u8; 32];
    let mut e = 0usize;
    let mut codes = vec![0u8; m.k()];
    // Row i of the file is the neutral row that `order` stores there.
    let mut neutral = vec![0usize; m.n()];
    (0..m.n()).for_each(|r| neutral[order.stored(r)] = r);
    for &r in &neutral {
        if m.k().is_multiple_of(32) {
            for group in m.row(r)[..m.k() / 4].chunks_exact(8) {
                let shift = 6 - 2 * (e % 128 / 32) as u32;
                for (four, &b) in block.as_chunks_mut::<4>().0.iter_mut().zip(group) {
                    *four = (u32::from_le_bytes(*four) | SPREAD[b as usize] << shift).to_le_bytes();
                }
                e += 32;
                flush(&mut block, e, sink)?;
            }
        } else {
            m.unpack_row(r, &mut codes);
            for &c in &codes {
                block[e % 32] |= c << (6 - 2 * (e % 128 / 32));
                e += 1;
                flush(&mut block, e, sink)?;
            }
        }
    }
    Ok(())
}

fn flush(block: &mut [u8; 32], e: usize, sink: &mut dyn Write) -> io::Result<()> {
    if e.is_multiple_of(128) {
        sink.write_all(block)?;
        *block = [0; 32];
    }
    Ok(())
}

/// What follows the codes of an I2_S tensor: the scale in 32 bytes.
pub fn i2s_tail(scale: f32) -> [u8; 32] {
    let mut tail = [0; 32];
    tail[..4].copy_from_slice(&scale.to_le_bytes());
    tail
}

/// Codes by row and column, and the scale of each.
struct Grid<'a> {
    m: &'a TernaryMatrix,
}

impl Grid<'_> {
    fn code(&self, r: usize, c: usize) -> u8 {
        (self.m.trit(r, c) + 1) as u8
    }

    fn scale(&self, r: usize, c: usize) -> f32 {
        match self.m.scales() {
            Scales::Tensor(s) => *s,
            Scales::Row(s) => s[r],
            Scales::Group { group_k, scales } => {
                scales[r * self.m.k().div_ceil(*group_k) + c / group_k]
            }
        }
    }

    fn half_scale(&self, r: usize, c: usize) -> [u8; 2] {
        f16::from_f32(self.scale(r, c)).to_le_bytes()
    }
}

/// Packs a whole tensor with its scales; `tiles` is for TL1 and TL2. Scales that the type keeps as
/// f16 are rounded. I2_S has blocks of `i2s_block` codes.
///
/// # Panics
/// When the type cannot hold the shape.
pub fn pack(
    kind: TernaryType,
    m: &TernaryMatrix,
    i2s_block: usize,
    tiles: Option<Tiles>,
) -> Vec<u8> {
    assert!(
        m.k().is_multiple_of(kind.k_multiple()),
        "K = {} of {}",
        m.k(),
        kind.name()
    );
    let grid = Grid { m };
    let tiles = || tiles.unwrap_or_else(|| panic!("{} needs tile sizes", kind.name()));
    let rows = |row: fn(&Grid<'_>, usize, &mut Vec<u8>)| {
        let mut out = Vec::new();
        (0..m.n()).for_each(|r| row(&grid, r, &mut out));
        out
    };
    match kind {
        TernaryType::I2S => i2s(&grid, i2s_block),
        TernaryType::TQ1_0 => rows(tq1_row),
        TernaryType::TQ2_0 => rows(tq2_row),
        TernaryType::Q2_0 => rows(|g, r, out| q2_row(g, r, 64, out)),
        TernaryType::PQ2_0 => rows(|g, r, out| q2_row(g, r, 128, out)),
        TernaryType::PTQ1_0 => rows(ptq1_row),
        TernaryType::IQ1BN => rows(iq1_row),
        TernaryType::IQ2BN => rows(iq2_row),
        TernaryType::IQ2BNR4 => iq2_r4(&grid),
        TernaryType::TL1 => tl1(&grid, tiles()),
        TernaryType::TL2 => tl2(&grid, tiles()),
        TernaryType::HfPacked => hf_packed(&grid),
    }
}

fn i2s(g: &Grid<'_>, block: usize) -> Vec<u8> {
    let (k, lanes) = (g.m.k(), block / 4);
    let mut out = vec![0u8; g.m.n() * k / 4];
    for e in 0..g.m.n() * k {
        let (plane, lane) = (e % block / lanes, e % lanes);
        out[e / block * lanes + lane] |= g.code(e / k, e % k) << (6 - 2 * plane);
    }
    out.extend(i2s_tail(g.scale(0, 0)));
    out
}

/// Five digits to the byte whose multiples by powers of 3 show them.
fn base3_byte(v: u32) -> u8 {
    ((v * 256).div_ceil(243)) as u8
}

/// Blocks of `cols` columns in base 3 and their scale. Each run is bytes, its first column, and the digits of a byte,
/// which lie as many columns apart as the run has bytes.
fn base3_row(
    g: &Grid<'_>,
    r: usize,
    cols: usize,
    runs: [(usize, usize, usize); 3],
    out: &mut Vec<u8>,
) {
    for at in (0..g.m.k()).step_by(cols) {
        for (bytes, from, digits) in runs {
            for m in 0..bytes {
                let v = (0..digits).fold(0, |v, n| {
                    3 * v + g.code(r, at + from + m + bytes * n) as u32
                });
                out.push(base3_byte(if digits == 4 { 3 * v } else { v }));
            }
        }
        out.extend(g.half_scale(r, at));
    }
}

fn tq1_row(g: &Grid<'_>, r: usize, out: &mut Vec<u8>) {
    base3_row(g, r, 256, [(32, 0, 5), (16, 160, 5), (4, 240, 4)], out);
}

fn ptq1_row(g: &Grid<'_>, r: usize, out: &mut Vec<u8>) {
    base3_row(g, r, 128, [(16, 0, 5), (8, 80, 5), (2, 120, 4)], out);
}

fn tq2_row(g: &Grid<'_>, r: usize, out: &mut Vec<u8>) {
    for at in (0..g.m.k()).step_by(256) {
        for byte in 0..64 {
            let from = at + byte / 32 * 128 + byte % 32;
            out.push((0..4).fold(0, |b, l| b | g.code(r, from + 32 * l) << (2 * l)));
        }
        out.extend(g.half_scale(r, at));
    }
}

fn q2_row(g: &Grid<'_>, r: usize, block: usize, out: &mut Vec<u8>) {
    for at in (0..g.m.k()).step_by(block) {
        out.extend(g.half_scale(r, at));
        out.extend(
            (0..block / 4).map(|b| (0..4).fold(0, |x, i| x | g.code(r, at + 4 * b + i) << (2 * i))),
        );
    }
}

fn iq1_row(g: &Grid<'_>, r: usize, out: &mut Vec<u8>) {
    out.extend(g.half_scale(r, 0));
    for at in (0..g.m.k()).step_by(64) {
        let mut extra = 0;
        for group in 0..4 {
            let at = at + 16 * group;
            for five in 0..3 {
                let v = (0..5)
                    .rev()
                    .fold(0, |v, j| 3 * v + g.code(r, at + 5 * five + j) as u32);
                out.push(base3_byte(v));
            }
            extra += g.code(r, at + 15) as u32 * 3u32.pow(group as u32);
        }
        out.push(base3_byte(extra));
    }
}

fn iq2_row(g: &Grid<'_>, r: usize, out: &mut Vec<u8>) {
    out.extend(g.scale(r, 0).to_le_bytes());
    for at in (0..g.m.k()).step_by(64) {
        out.extend(
            (0..16).map(|j| (0..4).fold(0, |b, l| b | g.code(r, at + j + 16 * l) << (2 * l))),
        );
    }
}

fn iq2_r4(g: &Grid<'_>) -> Vec<u8> {
    assert!(g.m.n().is_multiple_of(4), "{} rows of IQ2_BN_R4", g.m.n());
    let mut out = Vec::new();
    for quad in (0..g.m.n()).step_by(4) {
        (0..4).for_each(|r| out.extend(g.scale(quad + r, 0).to_le_bytes()));
        for at in (0..g.m.k()).step_by(64) {
            for byte in 0..64 {
                let (l, r, i) = (byte / 16, byte / 4 % 4, byte % 4);
                let from = at + 16 * l + i;
                out.push((0..4).fold(0, |b, s| b | g.code(quad + r, from + 4 * s) << (2 * s)));
            }
        }
    }
    out
}

fn hf_packed(g: &Grid<'_>) -> Vec<u8> {
    let (n, k) = (g.m.n(), g.m.k());
    let quarter = n.div_ceil(4);
    let mut out = vec![0u8; quarter * k];
    for r in 0..n {
        for c in 0..k {
            out[r % quarter * k + c] |= g.code(r, c) << (2 * (r / quarter));
        }
    }
    out
}

fn pair(g: &Grid<'_>, r: usize, c: usize) -> u8 {
    3 * g.code(r, c) + g.code(r, c + 1)
}

fn put(out: &mut [u8], at: usize, nibble: u8, high: bool) {
    out[at] |= if high { nibble << 4 } else { nibble };
}

fn tl1(g: &Grid<'_>, t: Tiles) -> Vec<u8> {
    let (n, k) = (g.m.n(), g.m.k());
    let step_cols = 256 / t.step_rows;
    let (nb, strips, steps) = (
        k / t.tile_cols,
        t.tile_rows / t.step_rows,
        t.tile_cols / step_cols,
    );
    let (xs, zs) = (t.step_rows / 16, step_cols / 4);
    let mut out = vec![0u8; n * k / 4];
    for r in 0..n {
        let (a, in_tile) = (r / t.tile_rows, r % t.tile_rows);
        let (s, x, y) = (in_tile / t.step_rows, in_tile % t.step_rows / 16, r % 16);
        for p in 0..k / 2 {
            let (b, q) = (p / (t.tile_cols / 2), p % (t.tile_cols / 2));
            let (u, v) = (q / (step_cols / 2), q % (step_cols / 2));
            let at = (((((a * nb + b) * strips + s) * steps + u) * xs + x) * zs + v / 2) * 16 + y;
            put(&mut out, at, pair(g, r, 2 * p), v % 2 == 0);
        }
    }
    out.extend(i2s_tail(g.scale(0, 0)));
    out
}

fn tl2(g: &Grid<'_>, t: Tiles) -> Vec<u8> {
    let (n, k) = (g.m.n(), g.m.k());
    let [three, sign, _] = super::tl2_sections(n, k, t);
    let scale_at =
        tl2_scale_offset(n, k).unwrap_or_else(|| panic!("the size of a {n}x{k} TL2 tensor"));
    let mut out = vec![0u8; scale_at];
    let k3 = k / t.tile_cols * t.tile_cols;
    let (nb, nb2, strips) = (k3 / t.tile_cols, (k - k3) / 32, t.tile_rows / 32);
    for r in 0..n {
        let (a, s, row) = (r / t.tile_rows, r % t.tile_rows / 32, r % 32);
        let lane = [0, 2, 1, 3][row / 8] * 8 + row % 8;
        for p in 0..k3 / 3 {
            let v = (0..3).fold(0i32, |v, i| 3 * v + g.m.trit(r, 3 * p + i) as i32);
            let (b, q) = (p / (t.tile_cols / 3), p % (t.tile_cols / 3));
            let strip = (a * nb + b) * strips + s;
            put(
                &mut out,
                32 * (strip * (t.tile_cols / 6) + q / 2) + lane,
                v.unsigned_abs() as u8,
                q % 2 == 0,
            );
            if v < 0 {
                let word = (strip * (t.tile_cols / 24) + q / 8) * 16 + row % 16;
                let bit = 15 - (2 * (q % 8) + row / 16);
                out[three + 2 * word + bit / 8] |= 1 << (bit % 8);
            }
        }
        for p in 0..(k - k3) / 2 {
            let strip = (a * nb2 + p / 16) * strips + s;
            put(
                &mut out,
                three + sign + 32 * (strip * 8 + p % 16 / 2) + lane,
                pair(g, r, k3 + 2 * p),
                p % 2 == 0,
            );
        }
    }
    out.extend(i2s_tail(g.scale(0, 0)));
    out
}
