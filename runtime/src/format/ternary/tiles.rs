//! bitnet.cpp's TL1 and TL2: weights as table indices in tiles whose sizes are not in the file.
//!
//! The place of a code is a sum of one term for its row and one for its column group, so a row is
//! read with two small tables instead of the whole index formula for every code.

use std::fmt;

use thiserror::Error;

use super::planes::f32_at;
use super::{RowDecoder, StoredScales};
use crate::format::dtype::{TernaryType, tl2_scale_offset};

/// Tile sizes of one shape, in the words of bitnet.cpp's `kernel_config.ini`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// Rows of a tile (`bm`).
    pub tile_rows: usize,
    /// Columns of a tile (`bk`).
    pub tile_cols: usize,
    /// Rows of one inner step (`bmm`): 32 or 64; TL2 always takes 32.
    pub step_rows: usize,
}

impl fmt::Display for Tiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "bm {} bk {} bmm {}",
            self.tile_rows, self.tile_cols, self.step_rows
        )
    }
}

/// Tile sizes by shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TileConfig {
    shapes: Vec<((usize, usize), Tiles)>,
}

/// A tile config that cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TileError {
    /// A line is not `key = number` or `[section]`.
    #[error("line {line} of the tile config: expected `key = number` or `[section]`, got {got:?}")]
    Line {
        /// Line number, from 1.
        line: usize,
        /// The line.
        got: String,
    },
    /// A section lacks a key.
    #[error(
        "section {section:?} of the tile config has no {key}; each needs m (rows), k (columns), bm, bk and bmm"
    )]
    MissingKey {
        /// The section.
        section: String,
        /// The key.
        key: &'static str,
    },
    /// The sizes do not tile the shape.
    #[error("{tiles} does not tile a {n}x{k} {kind} tensor: expected {expected}")]
    Misfit {
        /// TL1 or TL2.
        kind: &'static str,
        /// Rows.
        n: usize,
        /// Columns.
        k: usize,
        /// The sizes.
        tiles: Tiles,
        /// What would fit.
        expected: &'static str,
    },
}

impl TileConfig {
    /// Parses the text of a `kernel_config.ini`: sections with `m` (rows), `k` (columns), `bm`, `bk`
    /// and `bmm`. Other keys are ignored, as other tools write more.
    ///
    /// # Errors
    /// [`TileError::Line`] or [`TileError::MissingKey`].
    pub fn parse(text: &str) -> Result<Self, TileError> {
        let mut sections: Vec<(String, Vec<(String, usize)>)> = Vec::new();
        for (i, raw) in text.lines().enumerate() {
            let line = raw.split(['#', ';']).next().unwrap_or_default().trim();
            let error = || TileError::Line {
                line: i + 1,
                got: raw.to_string(),
            };
            if line.is_empty() {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                sections.push((name.to_string(), Vec::new()));
                continue;
            }
            let (key, value) = line.split_once('=').ok_or_else(error)?;
            let value = value.trim().parse().map_err(|_| error())?;
            let (_, keys) = sections.last_mut().ok_or_else(error)?;
            keys.push((key.trim().to_lowercase(), value));
        }
        let mut config = Self::default();
        for (section, keys) in sections {
            let get = |key: &'static str| {
                let found = keys.iter().find(|(k, _)| k == key).map(|&(_, v)| v);
                found.ok_or_else(|| TileError::MissingKey {
                    section: section.clone(),
                    key,
                })
            };
            let tiles = Tiles {
                tile_rows: get("bm")?,
                tile_cols: get("bk")?,
                step_rows: get("bmm")?,
            };
            config.set(get("m")?, get("k")?, tiles);
        }
        Ok(config)
    }

    /// Sets the tile sizes of N×K tensors.
    pub fn set(&mut self, n: usize, k: usize, tiles: Tiles) {
        self.shapes.retain(|(shape, _)| *shape != (n, k));
        self.shapes.push(((n, k), tiles));
    }

    /// The tile sizes of N×K tensors.
    pub fn get(&self, n: usize, k: usize) -> Option<Tiles> {
        self.shapes
            .iter()
            .find(|(shape, _)| *shape == (n, k))
            .map(|&(_, t)| t)
    }

    /// The shapes it knows, for messages.
    pub fn shapes(&self) -> String {
        let list: Vec<_> = self
            .shapes
            .iter()
            .map(|((n, k), _)| format!("{n}x{k}"))
            .collect();
        if list.is_empty() {
            "none".into()
        } else {
            list.join(" ")
        }
    }
}

impl Tiles {
    /// Checks that the sizes tile an N×K tensor of type `kind` (TL1 or TL2).
    ///
    /// # Errors
    /// [`TileError::Misfit`].
    pub fn check(self, kind: TernaryType, n: usize, k: usize) -> Result<(), TileError> {
        let Tiles {
            tile_rows,
            tile_cols,
            step_rows,
        } = self;
        let divides = |d: usize, x: usize| d > 0 && x > 0 && x.is_multiple_of(d);
        let (ok, expected) = if kind == TernaryType::TL1 {
            let ok = matches!(step_rows, 32 | 64)
                && divides(tile_rows, n)
                && divides(step_rows, tile_rows)
                && divides(tile_cols, k)
                && divides(256 / step_rows, tile_cols);
            (
                ok,
                "bm dividing the rows, bk dividing the columns, bmm 32 or 64 dividing bm, 256/bmm dividing bk",
            )
        } else {
            let ok = step_rows == 32
                && divides(tile_rows, n)
                && divides(32, tile_rows)
                && divides(24, tile_cols)
                && (k % tile_cols).is_multiple_of(32);
            (
                ok,
                "bm a multiple of 32 dividing the rows, bk a multiple of 24, columns % bk a multiple of 32, bmm 32",
            )
        };
        if ok {
            Ok(())
        } else {
            Err(TileError::Misfit {
                kind: kind.name(),
                n,
                k,
                tiles: self,
                expected,
            })
        }
    }
}

/// A pair of columns as index `3·w0 + w1 + 4`, to two neutral codes; indices 9..15 do not occur and
/// become code 3, which is refused.
const PAIR: [u8; 16] = {
    let mut t = [0b1111u8; 16];
    let mut i = 0;
    while i < 9 {
        t[i as usize] = (i / 3) | (i % 3) << 2;
        i += 1;
    }
    t
};

/// A triple as index `|9·w0 + 3·w1 + w2|` and a sign, to three neutral codes; 14 and 15 do not occur.
const TRIPLE: [[u8; 16]; 2] = {
    let mut t = [[0b11_1111u8; 16]; 2];
    let mut i = 0;
    while i < 14 {
        let mut sign = 0;
        while sign < 2 {
            let v = (13 + if sign == 1 { -i } else { i }) as u8;
            t[sign][i as usize] = (v / 9) | (v / 3 % 3) << 2 | (v % 3) << 4;
            sign += 1;
        }
        i += 1;
    }
    t
};

fn nibble(byte: u8, high: bool) -> usize {
    (if high { byte >> 4 } else { byte & 15 }) as usize
}

/// TL1: pairs of columns. With a = tile row, b = tile column, s = strip of `step_rows`, u = step of
/// `256/step_rows` columns, x = 16 rows, z = 4 columns, y = row: 16 bytes for each (a, b, s, u, x, z),
/// the first pair of four columns in the high nibble.
pub(super) struct Tl1<'a> {
    bytes: &'a [u8],
    n: usize,
    k: usize,
    tiles: Tiles,
    /// Byte offset of each pair, to be added to the row's.
    pairs: Vec<u32>,
}

impl<'a> Tl1<'a> {
    pub(super) fn new(bytes: &'a [u8], n: usize, k: usize, tiles: Tiles) -> Self {
        assert_eq!(bytes.len(), n * k / 4 + 32, "bytes of a {n}x{k} TL1 tensor");
        let this = Self {
            bytes,
            n,
            k,
            tiles,
            pairs: Vec::new(),
        };
        let [_, per_b, _, per_u, _] = this.strides();
        let (pairs_tile, pairs_step) = (tiles.tile_cols / 2, 128 / tiles.step_rows);
        let pairs = (0..k / 2).map(|p| {
            let (b, r) = (p / pairs_tile, p % pairs_tile);
            (b * per_b + r / pairs_step * per_u + r % pairs_step / 2 * 16) as u32
        });
        Self {
            pairs: pairs.collect(),
            ..this
        }
    }

    /// Bytes of one step in a, b, s, u, x.
    fn strides(&self) -> [usize; 5] {
        let Tiles {
            tile_rows,
            tile_cols,
            step_rows,
        } = self.tiles;
        let x = 256 / step_rows / 4 * 16;
        let u = step_rows / 16 * x;
        let s = tile_cols / (256 / step_rows) * u;
        let b = tile_rows / step_rows * s;
        [self.k / tile_cols * b, b, s, u, x]
    }
}

impl RowDecoder for Tl1<'_> {
    fn scales(&self) -> StoredScales {
        StoredScales::tensor(f32_at(self.bytes, self.n * self.k / 4))
    }

    fn row(&mut self, r: usize, out: &mut [u8]) {
        let [per_a, _, per_s, _, per_x] = self.strides();
        let (tile, in_tile) = (r / self.tiles.tile_rows, r % self.tiles.tile_rows);
        let (s, in_strip) = (
            in_tile / self.tiles.step_rows,
            in_tile % self.tiles.step_rows,
        );
        let base = tile * per_a + s * per_s + in_strip / 16 * per_x + r % 16;
        // Two pairs share a byte of 4 columns: the same offset, high nibble then low.
        for (o, pairs) in out.iter_mut().zip(self.pairs.chunks(2)) {
            let byte = self.bytes[base + pairs[0] as usize];
            *o = PAIR[nibble(byte, true)];
            if pairs.len() == 2 {
                *o |= PAIR[nibble(byte, false)] << 4;
            }
        }
    }
}

/// TL2: the columns up to the last whole tile as triples (indices, then signs), the rest as pairs.
/// 32 rows share a vector of 32 bytes, their groups of 8 in the order 0, 2, 1, 3.
pub(super) struct Tl2<'a> {
    bytes: &'a [u8],
    n: usize,
    k: usize,
    tiles: Tiles,
}

impl<'a> Tl2<'a> {
    pub(super) fn new(bytes: &'a [u8], n: usize, k: usize, tiles: Tiles) -> Self {
        let size = TernaryType::TL2.n_bytes(n, k);
        assert_eq!(Some(bytes.len()), size, "bytes of a {n}x{k} TL2 tensor");
        let this = Self { bytes, n, k, tiles };
        let (triples, signs, pairs) = this.sections();
        assert!(
            pairs.end <= bytes.len() - 32,
            "{triples:?} {signs:?} {pairs:?}: the reader checked the size"
        );
        this
    }

    /// Columns in triples.
    fn k3(&self) -> usize {
        self.k / self.tiles.tile_cols * self.tiles.tile_cols
    }

    /// Bytes of the triples' indices, of their signs, and of the pairs.
    fn sections(
        &self,
    ) -> (
        std::ops::Range<usize>,
        std::ops::Range<usize>,
        std::ops::Range<usize>,
    ) {
        let [three, sign, two] = tl2_sections(self.n, self.k, self.tiles);
        (
            0..three,
            three..three + sign,
            three + sign..three + sign + two,
        )
    }
}

/// Bytes of the three parts of an N×K TL2 tensor.
pub(in crate::format) fn tl2_sections(n: usize, k: usize, tiles: Tiles) -> [usize; 3] {
    let k3 = k / tiles.tile_cols * tiles.tile_cols;
    [n * k3 / 6, n * k3 / 24, n * (k - k3) / 4]
}

/// Collects codes, low bits first.
struct BitWriter<'a> {
    out: &'a mut [u8],
    at: usize,
    bits: u32,
    n_bits: u32,
}

impl BitWriter<'_> {
    fn push(&mut self, codes: u8, n_bits: u32) {
        self.bits |= (codes as u32) << self.n_bits;
        self.n_bits += n_bits;
        while self.n_bits >= 8 {
            self.out[self.at] = self.bits as u8;
            self.at += 1;
            self.bits >>= 8;
            self.n_bits -= 8;
        }
    }

    fn finish(self) {
        if self.n_bits > 0 {
            self.out[self.at] = self.bits as u8;
        }
    }
}

impl RowDecoder for Tl2<'_> {
    fn scales(&self) -> StoredScales {
        let at = tl2_scale_offset(self.n, self.k)
            .unwrap_or_else(|| panic!("{}x{} was sized", self.n, self.k));
        StoredScales::tensor(f32_at(self.bytes, at))
    }

    fn row(&mut self, r: usize, out: &mut [u8]) {
        let Tiles {
            tile_rows,
            tile_cols,
            ..
        } = self.tiles;
        let (triples, signs, pairs) = self.sections();
        let (triples, signs, pairs) =
            (&self.bytes[triples], &self.bytes[signs], &self.bytes[pairs]);
        let (a, strip, t) = (r / tile_rows, r % tile_rows / 32, r % 32);
        let lane = [0, 2, 1, 3][t / 8] * 8 + t % 8;
        let strips = tile_rows / 32;
        let mut w = BitWriter {
            out,
            at: 0,
            bits: 0,
            n_bits: 0,
        };
        let n_tiles = self.k3() / tile_cols;
        for b in 0..n_tiles {
            let block = ((a * n_tiles + b) * strips + strip) * (tile_cols / 6);
            // A vector of signs covers 8 triples, as do four vectors of indices.
            let sign_block = ((a * n_tiles + b) * strips + strip) * (tile_cols / 24);
            for i in 0..tile_cols / 3 {
                let byte = triples[32 * (block + i / 2) + lane];
                let word = 2 * ((sign_block + i / 8) * 16 + t % 16);
                let word = u16::from_le_bytes([signs[word], signs[word + 1]]);
                let sign = word >> (15 - (2 * (i % 8) + t / 16)) & 1;
                w.push(TRIPLE[sign as usize][nibble(byte, i % 2 == 0)], 6);
            }
        }
        let n_tiles = (self.k - self.k3()) / 32;
        for b in 0..n_tiles {
            let block = ((a * n_tiles + b) * strips + strip) * 8;
            for i in 0..16 {
                let byte = pairs[32 * (block + i / 2) + lane];
                w.push(PAIR[nibble(byte, i % 2 == 0)], 4);
            }
        }
        w.finish();
    }
}
