//! `mixed`: the first rows of a panel as `lut4` indices, the others as `i2s` panels of 48 rows, for a kernel that
//! does both kinds of work at the same time.
//!
//! ```text
//! NR rows = NA rows of lut4, steps of 32 columns  |  P panels of 48 rows of i2s, steps of 16 columns
//! ```
//! [`Split`] chooses NA and P so that the two kinds of work take the same time.

use super::i2s::{self, I2s};
use super::lut::LUT4;
use super::{Layout, PanelShape};
use crate::program::Promise;
use crate::trit::CODE_ZERO;

/// Columns of one step of the look-up rows.
pub const STEP_K: usize = 32;

/// Rows of an i2s panel.
pub const DOT_ROWS: usize = 48;

/// Groups of tokens that share the look-ups of a step but are dotted one after another.
pub const TOKEN_GROUPS: usize = 4;

/// Look-up rows that are added while one i2s step of 16 columns is dotted.
pub const ROWS_PER_TURN: usize = 4;

/// Most chunks that an i2s panel is cut into: as many look-up steps as an i16 can sum up.
const MOST_CHUNKS: usize = 7;

/// The layout.
pub struct Mixed;

/// How the rows and columns of a panel are divided.
///
/// While the look-up rows add one of their `lut_steps` steps, the dot products go through one *chunk* of
/// one i2s panel for one group of tokens: `turns` i2s steps. There are `4 · panels · chunks` such pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Look-up rows, NA.
    pub lut_rows: usize,
    /// Steps of the look-up rows.
    pub lut_steps: usize,
    /// i2s panels, P.
    pub panels: usize,
    /// Chunks of an i2s panel.
    pub chunks: usize,
    /// i2s steps of a chunk.
    pub turns: usize,
}

impl Split {
    /// The fastest division of `shape`; none if NR is too small for K.
    ///
    /// The costs are cycles on Zen 5 (11/2026): 50 for a turn of four rows with an i2s step of 8 tokens,
    /// 8 for a row alone. Another machine may want another NR, but no other rule.
    pub fn of(shape: PanelShape) -> Option<Self> {
        let lut_steps = shape.k.div_ceil(STEP_K).max(TOKEN_GROUPS);
        let steps = lut_steps * STEP_K / i2s::STEP_K;
        let split = |chunks: usize| {
            let turns = steps.div_ceil(chunks);
            let free = shape.nr.checked_sub(ROWS_PER_TURN * turns)?;
            let panels = (lut_steps / (TOKEN_GROUPS * chunks)).min(free / DOT_ROWS);
            (panels > 0).then_some(Self {
                lut_rows: shape.nr - DOT_ROWS * panels,
                lut_steps,
                panels,
                chunks,
                turns,
            })
        };
        (1..=MOST_CHUNKS).filter_map(split).min_by_key(|s| {
            let paired = TOKEN_GROUPS * s.panels * s.chunks;
            let alone = s.lut_rows - ROWS_PER_TURN * s.turns;
            paired * (50 * s.turns + 8 * alone) + (lut_steps - paired) * 8 * s.lut_rows
        })
    }

    /// Bytes of the look-up rows.
    pub fn lut_bytes(&self) -> usize {
        self.lut_rows * self.lut_steps * STEP_K / LUT4.trits
    }

    /// i2s steps of a panel, padding included.
    pub fn dot_steps(&self) -> usize {
        self.chunks * self.turns
    }

    /// Bytes of an i2s panel.
    pub fn dot_bytes(&self) -> usize {
        I2s.panel_bytes(self.dot_shape())
    }

    fn lut_shape(&self) -> PanelShape {
        PanelShape {
            nr: self.lut_rows,
            k: self.lut_steps * STEP_K,
            kr: STEP_K,
        }
    }

    fn dot_shape(&self) -> PanelShape {
        PanelShape {
            nr: DOT_ROWS,
            k: self.dot_steps() * i2s::STEP_K,
            kr: i2s::STEP_K,
        }
    }
}

impl Mixed {
    fn split(&self, shape: PanelShape) -> Split {
        Split::of(shape).unwrap_or_else(|| panic!("{shape:?} was not refused"))
    }
}

impl Layout for Mixed {
    fn name(&self) -> &'static str {
        "mixed"
    }

    fn unsupported(&self, shape: PanelShape) -> Option<String> {
        if shape.kr != STEP_K {
            return Some(format!(
                "mixed steps cover {STEP_K} columns, not {}",
                shape.kr
            ));
        }
        if !shape.nr.is_multiple_of(8) {
            return Some(format!("NR = {} is not a multiple of 8", shape.nr));
        }
        Split::of(shape)
            .is_none()
            .then(|| format!("NR = {} is too small for K = {}", shape.nr, shape.k))
    }

    fn k_padded(&self, shape: PanelShape) -> usize {
        self.split(shape).lut_steps * STEP_K
    }

    fn panel_bytes(&self, shape: PanelShape) -> usize {
        let split = self.split(shape);
        split.lut_bytes() + split.panels * split.dot_bytes()
    }

    fn promise(&self) -> Promise {
        // Indices are below 81, bytes of codes at most 0b10_10_10_10.
        Promise::U8(0, 0xAA)
    }

    fn pack_panel(&self, shape: PanelShape, codes: &[u8], out: &mut [u8]) {
        let split = self.split(shape);
        let kp = self.k_padded(shape);
        let (lut_codes, dot_codes) = codes.split_at(split.lut_rows * kp);
        let (lut, dots) = out.split_at_mut(split.lut_bytes());
        LUT4.pack_panel(split.lut_shape(), lut_codes, lut);
        let dot_k = split.dot_shape().k;
        let mut padded = vec![CODE_ZERO; DOT_ROWS * dot_k];
        for (codes, out) in dot_codes
            .chunks_exact(DOT_ROWS * kp)
            .zip(dots.chunks_exact_mut(split.dot_bytes()))
        {
            for (row, padded) in codes.chunks_exact(kp).zip(padded.chunks_exact_mut(dot_k)) {
                padded[..kp].copy_from_slice(row);
            }
            I2s.pack_panel(split.dot_shape(), &padded, out);
        }
    }

    fn unpack_panel(&self, shape: PanelShape, packed: &[u8], codes: &mut [u8]) {
        let split = self.split(shape);
        let kp = self.k_padded(shape);
        let (lut_codes, dot_codes) = codes.split_at_mut(split.lut_rows * kp);
        let (lut, dots) = packed.split_at(split.lut_bytes());
        LUT4.unpack_panel(split.lut_shape(), lut, lut_codes);
        let dot_k = split.dot_shape().k;
        let mut padded = vec![CODE_ZERO; DOT_ROWS * dot_k];
        for (codes, packed) in dot_codes
            .chunks_exact_mut(DOT_ROWS * kp)
            .zip(dots.chunks_exact(split.dot_bytes()))
        {
            I2s.unpack_panel(split.dot_shape(), packed, &mut padded);
            for (row, padded) in codes.chunks_exact_mut(kp).zip(padded.chunks_exact(dot_k)) {
                row.copy_from_slice(&padded[..kp]);
            }
        }
    }
}
