//! The meaning of every coded product: plain loops, never optimised, and where a kernel puts each of their sums.

use super::{Form, LOOK_UP_ZERO, Packing};

/// A row of a table: codes, `[k_padded]`, and of each sub-block, where the form has them, scale and minimum.
#[derive(Clone, Copy, Debug)]
pub struct Row<'r> {
    /// Codes.
    pub codes: &'r [u8],
    /// Scales of sub-blocks.
    pub scales: &'r [i8],
    /// Minimums of sub-blocks.
    pub mins: &'r [i8],
}

/// What `row` and a token of 16-bit codes `q`, `[k]`, give: for each block the sums of both planes, high first (one
/// where [`Form::is_joined`]), then the sum of minimums where the form has them.
pub fn record(form: &Form, k: usize, row: Row<'_>, zero: i32, q: &[i16]) -> Vec<i64> {
    let mut record = Vec::new();
    for block in 0..form.blocks(k) {
        let cols = block * form.block_cols(k)..(block + 1) * form.block_cols(k);
        let (mut high, mut low, mut min) = (0i64, 0i64, 0i64);
        for c in cols {
            let q = i64::from(q.get(c).copied().unwrap_or(0));
            let l = i64::from(q as i8);
            let h = (q - l) / 256;
            let code = row.codes[c];
            let value = match form.values {
                Some(values) => i64::from(values[code as usize]) + i64::from(LOOK_UP_ZERO - zero),
                None => i64::from(code) - i64::from(zero),
            };
            let sub = c / form.sum_cols(k);
            let scale = form.sub.map_or(1, |_| i64::from(row.scales[sub]));
            high += scale * value * h;
            low += scale * value * l;
            if form.has_mins() {
                min += i64::from(row.mins[sub]) * q;
            }
        }
        match form.is_joined(k) {
            true => record.push(256 * high + low),
            false => record.extend([high, low]),
        }
        record.extend(form.has_mins().then_some(min));
    }
    record
}

/// Where number `i` of the [`record`] of row `row` and token `token` lies in the result of a tile of `tokens` tokens.
pub fn place(packing: Packing, tokens: usize, token: usize, row: usize, i: usize) -> usize {
    let Packing { form, nr, k } = packing;
    let sums = if form.is_joined(k) { 1 } else { 2 };
    let each = sums + usize::from(form.has_mins());
    let (block, i) = (i / each, i % each);
    let at = match i < sums {
        true => token * sums + i,
        false => tokens * sums + token,
    };
    (block * form.record_rows(k, tokens) + at) * nr + row
}
