//! Strips of 64 rows, the order in which the look-up layouts keep one byte a row.
//!
//! ```text
//! byte 16·L + 4·q + i of a strip  =  row 16·q + 4·L + i          (L, q, i = 0..4)
//! ```
//! Bytes become i16 and then i32 by interleaving inside 16-byte lanes, which leaves quarter q of every lane
//! in one vector. In this order those are neighbouring rows for vectors of 16, 32 and 64 bytes alike.

use super::PanelShape;

/// Rows of a strip.
pub const STRIP: usize = 64;

/// The byte of a row (0..64) in its strip. The permutation is its own inverse.
pub const fn place(row: usize) -> usize {
    let (q, lane, i) = (row / 16, row / 4 % 4, row % 4);
    16 * lane + 4 * q + i
}

/// Why `shape` is not whole strips and steps of `step_k` columns, if so.
pub fn unsupported(name: &str, shape: PanelShape, step_k: usize) -> Option<String> {
    if shape.kr != step_k {
        return Some(format!(
            "{name} steps cover {step_k} columns, not {}",
            shape.kr
        ));
    }
    (shape.nr == 0 || !shape.nr.is_multiple_of(STRIP))
        .then(|| format!("NR = {} is not a multiple of {STRIP}", shape.nr))
}
