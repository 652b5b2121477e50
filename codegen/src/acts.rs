//! Activations as kernels read them: int8 rows with their sums, or a form that a family asks for.
//!
//! Longer than 500 lines: every form beside its checks.

use crate::trit::{ROUND, absmax};

/// Quantised rows are a multiple of this many columns, and no layout has longer steps.
pub const ACTS_K_ALIGN: usize = 64;

/// Columns (and bytes) of a quantised row of `k` features: K padded with zeros so far that every layout's
/// last step, of at most [`ACTS_K_ALIGN`] columns, lies inside. The one rule of padding.
pub const fn row_bytes(k: usize) -> usize {
    (k + ACTS_K_ALIGN - 1).next_multiple_of(ACTS_K_ALIGN)
}

/// M quantised tokens: int8 codes, their sums, and the scale that each was multiplied by.
#[derive(Clone, Debug, Default)]
pub struct Activations {
    /// Tokens.
    pub m: usize,
    /// Input features.
    pub k: usize,
    /// Row stride: [`row_bytes`] of K.
    pub k_padded: usize,
    /// Codes, `[m, k_padded]`.
    pub q: Vec<i8>,
    /// `Σ_k q` of each token.
    pub sums: Vec<i32>,
    /// `s = 127 / amax` of each token.
    pub scales: Vec<f32>,
}

impl Activations {
    /// Makes room for `m` tokens of `k` features; keeps the allocation where it is large enough.
    pub fn reshape(&mut self, m: usize, k: usize) {
        self.m = m;
        self.k = k;
        self.k_padded = row_bytes(k);
        self.q.resize(m * self.k_padded, 0);
        self.sums.resize(m, 0);
        self.scales.resize(m, 0.0);
    }

    /// Quantises token `token` from `x`, `k` long.
    pub fn quantise_row(&mut self, token: usize, x: &[f32]) {
        assert_eq!(x.len(), self.k, "features of a token");
        let row = &mut self.q[token * self.k_padded..][..self.k_padded];
        self.scales[token] = absmax(x, row);
        self.sums[token] = row.iter().map(|&q| q as i32).sum();
    }

    /// Takes codes as they are (tests, benchmarks); `q` is `[m, k]`.
    pub fn from_codes(m: usize, k: usize, q: &[i8]) -> Self {
        assert_eq!(q.len(), m * k, "codes of {m} tokens of {k}");
        let mut this = Self::default();
        this.reshape(m, k);
        for t in 0..m {
            let row = &q[t * k..][..k];
            this.q[t * this.k_padded..][..k].copy_from_slice(row);
            this.q[t * this.k_padded + k..(t + 1) * this.k_padded].fill(0);
            this.sums[t] = row.iter().map(|&q| q as i32).sum();
            this.scales[t] = 1.0;
        }
        this
    }

    /// The codes of `count` tokens from `first` on, padding included.
    pub fn rows(&self, first: usize, count: usize) -> &[i8] {
        &self.q[first * self.k_padded..(first + count) * self.k_padded]
    }
}

/// M tokens quantised by groups of columns, as weight-only models want them: each code is an integer of one or two
/// planes of bytes, the most significant first, and each token has a scale for each group.
#[derive(Clone, Debug, Default)]
pub struct GroupedActs {
    /// Tokens.
    pub m: usize,
    /// Input features.
    pub k: usize,
    /// Row stride: [`row_bytes`] of K.
    pub k_padded: usize,
    /// Columns of a group; the last may have fewer.
    pub group_k: usize,
    /// Planes of a code: it is `Σ_p plane[p] · 256^(planes − 1 − p)`.
    pub planes: usize,
    /// Bytes of codes, `[m, planes, k_padded]`.
    pub q: Vec<i8>,
    /// `Σ code` of each token and group, `[m, groups]`.
    pub sums: Vec<i32>,
    /// What a code is multiplied by, `[m, groups]`.
    pub scales: Vec<f32>,
}

impl GroupedActs {
    /// Makes room for `m` tokens; keeps the allocations where they are large enough.
    pub fn reshape(&mut self, m: usize, k: usize, group_k: usize, planes: usize) {
        (self.m, self.k, self.group_k, self.planes) = (m, k, group_k, planes);
        self.k_padded = row_bytes(k);
        self.q.resize(m * planes * self.k_padded, 0);
        self.sums.resize(m * self.groups(), 0);
        self.scales.resize(m * self.groups(), 0.0);
    }

    /// Takes bytes and scales as they are (tests, benchmarks): `q` is `[m, planes, k]`, `scales` is `[m, groups]`.
    ///
    /// # Panics
    /// When they are not as many.
    pub fn from_codes(
        (m, k): (usize, usize),
        (group_k, planes): (usize, usize),
        q: &[i8],
        scales: &[f32],
    ) -> Self {
        assert_eq!(q.len(), m * planes * k, "bytes of {m} tokens of {k}");
        let mut this = Self::default();
        this.reshape(m, k, group_k, planes);
        for (to, from) in this
            .q
            .chunks_exact_mut(this.k_padded)
            .zip(q.chunks_exact(k))
        {
            to[..k].copy_from_slice(from);
            to[k..].fill(0);
        }
        let groups = this.groups();
        let all = (0..m * groups).map(|i| this.sum(i / groups, i % groups));
        this.sums = all.collect();
        this.scales.copy_from_slice(scales);
        this
    }

    /// `Σ code` of group `g` of token `t`.
    fn sum(&self, t: usize, g: usize) -> i32 {
        let columns = g * self.group_k..((g + 1) * self.group_k).min(self.k);
        columns.map(|c| self.code(t, c)).sum()
    }

    /// Groups of a token.
    pub fn groups(&self) -> usize {
        self.k.div_ceil(self.group_k)
    }

    /// The code of token `t` in column `c`.
    pub fn code(&self, t: usize, c: usize) -> i32 {
        let plane = |p| self.q[(t * self.planes + p) * self.k_padded + c] as i32;
        (0..self.planes).fold(0, |code, p| 256 * code + plane(p))
    }

    /// The planes of `count` tokens from `first` on, padding included.
    pub fn rows(&self, first: usize, count: usize) -> &[i8] {
        let token = self.planes * self.k_padded;
        &self.q[first * token..(first + count) * token]
    }

    /// The sums and scales of `count` tokens from `first` on.
    pub fn of_groups(&self, first: usize, count: usize) -> (&[i32], &[f32]) {
        let groups = self.groups();
        let range = first * groups..(first + count) * groups;
        (&self.sums[range.clone()], &self.scales[range])
    }

    /// Quantises token `t` from `x`, `k` long.
    pub fn quantise_row(&mut self, t: usize, x: &[f32]) {
        assert_eq!(x.len(), self.k, "features of a token");
        let (groups, token) = (self.groups(), self.planes * self.k_padded);
        quantise_groups(
            x,
            self.group_k,
            &mut self.q[t * token..][..token],
            &mut self.sums[t * groups..][..groups],
            &mut self.scales[t * groups..][..groups],
        );
    }
}

/// The largest code of one plane, and of two: 127·256 + 127.
const MOST: [f32; 2] = [127.0, 32_639.0];

/// Quantises a token by groups of `group_k` columns: `q`: `[planes, padded]`, `sums`, `scales`: one a group.
///
/// In each group the code of the largest magnitude is ±127 (±32639 with two planes): `code = rhe(x · f32(most /
/// amax))`, and the scale is `f32(amax / most)`. A NaN or an infinity makes the scale NaN, so that it is seen.
#[inline]
pub fn quantise_groups(
    x: &[f32],
    group_k: usize,
    q: &mut [i8],
    sums: &mut [i32],
    scales: &mut [f32],
) {
    let groups = x.len().div_ceil(group_k);
    assert_eq!(
        (sums.len(), scales.len()),
        (groups, groups),
        "groups of a token"
    );
    let padded = row_bytes(x.len());
    let planes = q.len() / padded;
    assert!(
        matches!(planes, 1 | 2) && q.len() == planes * padded,
        "planes of a token"
    );
    let (first, second) = q.split_at_mut(padded);
    first[x.len()..].fill(0);
    second.iter_mut().skip(x.len()).for_each(|q| *q = 0);
    for (g, x) in x.chunks(group_k).enumerate() {
        // Bits of |v| order as integers, and whatever is not finite above all that is.
        let bits = x.iter().fold(0u32, |m, v| m.max(v.to_bits() & 0x7FFF_FFFF));
        let finite = bits < f32::INFINITY.to_bits();
        let amax = f32::from_bits(bits);
        let most = MOST[planes - 1];
        // Below the least amax whose inverse is finite, everything is zero.
        let inverse = most / amax.max(LEAST);
        scales[g] = if finite {
            amax.max(LEAST) / most
        } else {
            f32::NAN
        };
        let first = &mut first[g * group_k..][..x.len()];
        sums[g] = match planes {
            1 => round_codes(x, inverse, |i, code| first[i] = code as i8),
            _ => {
                let second = &mut second[g * group_k..][..x.len()];
                round_codes(x, inverse, |i, code| {
                    let low = code as i8;
                    (first[i], second[i]) = (((code - low as i32) >> 8) as i8, low);
                })
            }
        };
    }
}

/// The least largest magnitude that is told from zero.
const LEAST: f32 = 1e-30;

/// Rounds `x · inverse` half to even, hands each code on and returns their sum.
#[inline(always)]
fn round_codes(x: &[f32], inverse: f32, mut put: impl FnMut(usize, i32)) -> i32 {
    let mut sum = 0;
    for (i, &v) in x.iter().enumerate() {
        // The product is at most 32639 and a rounding, far below 2^22: adding 1.5·2^23 rounds half to even.
        let code = (v * inverse + ROUND)
            .to_bits()
            .wrapping_sub(ROUND.to_bits()) as i32;
        // What is not finite may come out as anything; its scale says so.
        let code = code.clamp(-32_639, 32_639);
        sum += code;
        put(i, code);
    }
    sum
}

/// The form in which a family reads one tile of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActsForm {
    /// i8 `[mr, k_padded]`: the quantised rows as they lie; nothing to prepare.
    Rows,
    /// i16 `[k_padded, mr]`, tokens contiguous, in blocks of `block` tokens: inside a block, token
    /// `i` stands at position `2i` and token `block/2 + i` at `2i + 1`, so that splitting
    /// i32 words into even and odd i16 restores the order of tokens.
    ColumnsI16 {
        /// Tokens of a block: elements of one vector of i16.
        block: usize,
    },
    /// i8, twice. First `[columns/2, mr, 2]`: pairs of columns, tokens in the order of [`Self::ColumnsI16`].
    /// Then `[mr/group, quads, group, 4]`: four columns of each token of a group at a time.
    ColumnPairsAndQuads {
        /// Columns of the first part, padding included.
        columns: usize,
        /// Tokens of a block.
        block: usize,
        /// Quads of columns of the second part, padding included.
        quads: usize,
        /// Tokens of a group.
        group: usize,
    },
    /// For each pair of columns 32 bytes: the low bytes of 16 i16 entries, then their high bytes.
    /// Entry `3(w0+1) + (w1+1) = w0·x0 + w1·x1`; entries 9 to 15 are 0. `[mr, k_padded/2, 32]`.
    PairTables,
    /// For each triple of columns 32 bytes, low bytes then high bytes: entry `v = 9w0 + 3w1 + w2`
    /// for `v` in 0..=13 is `w0·x0 + w1·x1 + w2·x2`; entries 14 and 15 are 0.
    /// `[mr, k.div_ceil(3) rounded up to 8, 32]`, columns past K count as 0.
    TripleTables,
}

impl ActsForm {
    /// Bytes of a prepared tile of `mr` tokens with `k` features.
    pub fn tile_bytes(self, mr: usize, k: usize) -> usize {
        let k_padded = row_bytes(k);
        match self {
            ActsForm::Rows => mr * k_padded,
            ActsForm::ColumnsI16 { .. } => k_padded * mr * 2,
            ActsForm::ColumnPairsAndQuads { columns, quads, .. } => mr * (columns + 4 * quads),
            ActsForm::PairTables => mr * k_padded / 2 * 32,
            ActsForm::TripleTables => mr * triples(k) * 32,
        }
    }

    /// Whether a tile must be prepared before a kernel reads it.
    pub fn needs_preparing(self) -> bool {
        self != ActsForm::Rows
    }

    /// Prepares the tile of `mr` tokens from `first` on; tokens past the last read as zeros.
    ///
    /// # Panics
    /// When `out` is not `tile_bytes` long, or the form is [`ActsForm::Rows`].
    pub fn prepare(self, acts: &Activations, first: usize, mr: usize, out: &mut [u8]) {
        assert_eq!(
            out.len(),
            self.tile_bytes(mr, acts.k),
            "bytes of a prepared tile"
        );
        match self {
            ActsForm::Rows => panic!("rows are read in place"),
            ActsForm::ColumnsI16 { block } => columns_i16(acts, first, mr, block, out),
            ActsForm::ColumnPairsAndQuads {
                columns,
                block,
                quads,
                group,
            } => {
                let (pairs, rest) = out.split_at_mut(mr * columns);
                column_pairs(acts, first, mr, block, pairs);
                token_quads(acts, first, quads, group, rest);
            }
            ActsForm::PairTables => tables(acts, first, mr, out, 2, acts.k_padded / 2),
            ActsForm::TripleTables => tables(acts, first, mr, out, 3, triples(acts.k)),
        }
    }
}

/// Triples of a token in [`ActsForm::TripleTables`].
pub fn triples(k: usize) -> usize {
    k.div_ceil(3).next_multiple_of(8)
}

/// Columns that are turned together, so that what is written stays in the first-level cache.
const TURN_COLUMNS: usize = 64;

/// The codes of a token from column `from` on, zeros past the last.
fn part(acts: &Activations, token: usize, from: usize) -> [i8; TURN_COLUMNS] {
    let mut part = [0; TURN_COLUMNS];
    let row = row(acts, token).get(from..).unwrap_or(&[]);
    let len = row.len().min(TURN_COLUMNS);
    part[..len].copy_from_slice(&row[..len]);
    part
}

/// Turns the tokens of blocks into columns of `2·mr` bytes. `join(a, b, column)` makes the four bytes in which
/// a token of the first half of a block and its neighbour of the second half stand.
fn turn(
    (acts, first): (&Activations, usize),
    (mr, block): (usize, usize),
    out: &mut [u8],
    columns_each: usize,
    join: impl Fn(&[i8; TURN_COLUMNS], &[i8; TURN_COLUMNS], usize) -> [u8; 4],
) {
    assert!(
        block.is_multiple_of(2) && mr.is_multiple_of(block),
        "{mr} tokens in blocks of {block}"
    );
    for (i, out) in out
        .chunks_mut(TURN_COLUMNS / columns_each * 2 * mr)
        .enumerate()
    {
        for base in (0..mr).step_by(block) {
            for t in base..base + block / 2 {
                let a = part(acts, first + t, i * TURN_COLUMNS);
                let b = part(acts, first + t + block / 2, i * TURN_COLUMNS);
                let at = 2 * place_in_block(t, block);
                for (j, column) in out.chunks_exact_mut(2 * mr).enumerate() {
                    column[at..at + 4].copy_from_slice(&join(&a, &b, j * columns_each));
                }
            }
        }
    }
}

fn columns_i16(acts: &Activations, first: usize, mr: usize, block: usize, out: &mut [u8]) {
    turn((acts, first), (mr, block), out, 1, |a, b, c| {
        let ([a0, a1], [b0, b1]) = ((a[c] as i16).to_le_bytes(), (b[c] as i16).to_le_bytes());
        [a0, a1, b0, b1]
    });
}

fn column_pairs(acts: &Activations, first: usize, mr: usize, block: usize, out: &mut [u8]) {
    turn((acts, first), (mr, block), out, 2, |a, b, c| {
        [a[c], a[c + 1], b[c], b[c + 1]].map(|q| q as u8)
    });
}

/// Where token `t` of a tile stands: the halves of each block interleaved.
fn place_in_block(t: usize, block: usize) -> usize {
    let (base, i) = (t - t % block, t % block);
    match i.checked_sub(block / 2) {
        None => base + 2 * i,
        Some(i) => base + 2 * i + 1,
    }
}

/// The codes of a token; none past the last.
fn row(acts: &Activations, token: usize) -> &[i8] {
    match token < acts.m {
        true => acts.rows(token, 1),
        false => &[],
    }
}

fn token_quads(acts: &Activations, first: usize, quads: usize, group: usize, out: &mut [u8]) {
    for (g, out) in out.chunks_exact_mut(quads * group * 4).enumerate() {
        for t in 0..group {
            let mut row = row(acts, first + g * group + t).chunks_exact(4);
            for out in out.chunks_exact_mut(group * 4) {
                let q = row.next().map_or([0; 4], |q| [q[0], q[1], q[2], q[3]]);
                out[4 * t..][..4].copy_from_slice(&q.map(|q| q as u8));
            }
        }
    }
}

/// The weight of column `j` in entry `i` of a table of `g` columns; 0 in the entries that do not exist.
const fn entry_weights(g: usize, j: usize) -> [i16; 16] {
    let (first, entries) = if g == 2 { (0, 9) } else { (13, 14) };
    let mut weights = [0; 16];
    let mut i = 0;
    while i < entries {
        weights[i] = (first + i as i16) / 3i16.pow((g - 1 - j) as u32) % 3 - 1;
        i += 1;
    }
    weights
}

/// Tables of all sums of `g` (2 or 3) columns under ternary weights, low and high bytes apart.
fn tables(acts: &Activations, first: usize, mr: usize, out: &mut [u8], g: usize, groups: usize) {
    const PAIRS: [[i16; 16]; 3] = [entry_weights(2, 0), entry_weights(2, 1), [0; 16]];
    const TRIPLES: [[i16; 16]; 3] = [
        entry_weights(3, 0),
        entry_weights(3, 1),
        entry_weights(3, 2),
    ];
    let weights = if g == 2 { &PAIRS } else { &TRIPLES };
    for (t, out) in out.chunks_exact_mut(groups * 32).enumerate() {
        let row = row(acts, first + t);
        for (p, out) in out.chunks_exact_mut(32).enumerate() {
            let x: [i16; 3] = std::array::from_fn(|j| match j < g {
                true => row.get(g * p + j).map_or(0, |&q| q as i16),
                false => 0,
            });
            let (low, high) = out.split_at_mut(16);
            for i in 0..16 {
                let sum = (0..3).map(|j| weights[j][i] * x[j]).sum::<i16>();
                [low[i], high[i]] = sum.to_le_bytes();
            }
        }
    }
    debug_assert_eq!(out.len(), mr * groups * 32, "tables of {mr} tokens");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_with_zeros_and_summed() {
        let a = Activations::from_codes(2, 3, &[1, -2, 3, 4, 5, -128]);
        assert_eq!((a.k_padded, &a.sums[..]), (128, &[2, -119][..]));
        assert_eq!(&a.rows(1, 1)[..4], &[4, 5, -128, 0]);
    }

    #[test]
    fn tables_hold_every_ternary_sum() {
        let a = Activations::from_codes(1, 6, &[5, -3, 127, 100, -50, 7]);
        let entry = |out: &[u8], at: usize, i: usize| {
            i16::from_le_bytes([out[at * 32 + i], out[at * 32 + 16 + i]])
        };
        let mut out = vec![0; ActsForm::PairTables.tile_bytes(1, 6)];
        ActsForm::PairTables.prepare(&a, 0, 1, &mut out);
        assert_eq!(entry(&out, 0, 0), -5 + 3);
        assert_eq!(entry(&out, 0, 4), 0);
        assert_eq!(entry(&out, 1, 8), 227);
        let mut out = vec![0; ActsForm::TripleTables.tile_bytes(1, 6)];
        ActsForm::TripleTables.prepare(&a, 0, 1, &mut out);
        assert_eq!(entry(&out, 1, 0), 0);
        assert_eq!(entry(&out, 1, 13), 100 - 50 + 7);
        assert_eq!(entry(&out, 1, 1), 7);
        assert_eq!(entry(&out, 1, 2), -50 - 7, "2 = 3·1 − 1");
    }

    #[test]
    fn columns_interleave_halves_of_a_block() {
        let q: Vec<i8> = (0..8).flat_map(|t| [t as i8, 10 + t as i8]).collect();
        let a = Activations::from_codes(8, 2, &q);
        let mut out = vec![0; ActsForm::ColumnsI16 { block: 8 }.tile_bytes(8, 2)];
        ActsForm::ColumnsI16 { block: 8 }.prepare(&a, 0, 8, &mut out);
        let col: Vec<i16> = out[..16]
            .chunks(2)
            .map(|b| i16::from_le_bytes([b[0], b[1]]))
            .collect();
        assert_eq!(col, [0, 4, 1, 5, 2, 6, 3, 7]);
    }

    #[test]
    fn column_pairs_and_quads_hold_every_code_once() {
        let (m, k) = (3, 70);
        let q: Vec<i8> = (0..m * k).map(|i| (i % 251) as i8).collect();
        let a = Activations::from_codes(m, k, &q);
        let (columns, block, quads, group, mr) = (96, 4, 40, 2, 4);
        let form = ActsForm::ColumnPairsAndQuads {
            columns,
            block,
            quads,
            group,
        };
        let mut out = vec![0xAA; form.tile_bytes(mr, k)];
        form.prepare(&a, 0, mr, &mut out);
        for t in 0..mr {
            let place = [0, 2, 1, 3][t];
            for c in 0..160 {
                let want = if t < m && c < k {
                    q[t * k + c] as u8
                } else {
                    0
                };
                if c < columns {
                    let got = out[(c / 2 * mr + place) * 2 + c % 2];
                    assert_eq!(got, want, "pair: token {t} column {c}");
                }
                let at = ((t / group * quads + c / 4) * group + t % group) * 4 + c % 4;
                assert_eq!(out[mr * columns + at], want, "quad: token {t} column {c}");
            }
        }
    }
}
