#![expect(
    unsafe_code,
    reason = "one loop is compiled for CPU features that were detected"
)]
//! `exact`: each logit is one dot product of the decoded row in the fixed order of [`crate::lanes`], whatever the
//! type, the threads and the number of tokens. What every other form of the head must agree with.
//!
//! Rows are decoded a block at a time in the first cache; where this form reads the whole table for each token, it
//! lies on huge pages.

use crate::format::Model;
use crate::format::float::FloatType;
use crate::lanes::{LANES, dot_into, leveled, tree};
use crate::memory::HugeBytes;
use crate::pool::{Chunks, Columns, Pool};
use std::sync::Arc;

/// Elements that are decoded at a time: whole blocks of every type, and whole runs of lanes.
const BLOCK: usize = 256;

/// Tokens that share one decoding of a row.
pub(in crate::network) const TOKENS: usize = 8;

/// Rows of one call into the compiled loop.
pub(in crate::network) const ROWS: usize = 16;

/// Tables from this size on are copied to huge pages; smaller ones are read in place.
const COPY_FROM_BYTES: usize = 4 << 20;

/// Bytes of the table that one claim covers.
pub(in crate::network) const CHUNK_BYTES: usize = 128 << 10;

enum Table {
    /// In the model's file (or in the program).
    InPlace(Arc<Model>),
    Copied(HugeBytes),
}

/// The table as it is stored.
pub struct Exact {
    dtype: FloatType,
    vocab: usize,
    hidden: usize,
    table: Table,
}

impl Exact {
    /// The head of `model`; `copy`: onto huge pages, if it is large.
    pub fn new(pool: &Pool, model: &Arc<Model>, copy: bool) -> Self {
        let source = model.head();
        let table = if !copy || source.bytes.len() < COPY_FROM_BYTES {
            Table::InPlace(Arc::clone(model))
        } else {
            let mut copy = HugeBytes::zeroed(source.bytes.len());
            let run = 2 << 20;
            pool.each(Chunks::new(&mut copy, run), |_, i, out| {
                out.copy_from_slice(&source.bytes[i * run..][..out.len()]);
            });
            Table::Copied(copy)
        };
        Self {
            dtype: source.dtype,
            vocab: source.rows,
            hidden: source.cols,
            table,
        }
    }

    /// A table in memory.
    #[cfg(test)]
    pub fn of_table(table: &crate::format::FloatTensor<'_>) -> Self {
        let mut copy = HugeBytes::zeroed(table.bytes.len());
        copy.copy_from_slice(table.bytes);
        Self {
            dtype: table.dtype,
            vocab: table.rows,
            hidden: table.cols,
            table: Table::Copied(copy),
        }
    }

    fn bytes(&self) -> &[u8] {
        match &self.table {
            Table::InPlace(model) => model.head().bytes,
            Table::Copied(bytes) => bytes,
        }
    }

    /// Bytes read for each token.
    pub fn table_bytes(&self) -> usize {
        self.bytes().len()
    }

    /// How rows are stored.
    pub fn dtype(&self) -> FloatType {
        self.dtype
    }

    /// Rows.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// The logit of one row: the bits that [`Self::forward`] gives.
    ///
    /// # Shapes
    /// `x`: `[hidden]`.
    pub fn logit(&self, row: usize, x: &[f32]) -> f32 {
        assert_eq!(x.len(), self.hidden, "one token of {}", self.hidden);
        let row_bytes = self.dtype.row_bytes(self.hidden);
        let mut out = [0f32; ROWS * TOKENS];
        let run = &self.bytes()[row * row_bytes..][..row_bytes];
        logits_of(self.dtype, run, self.hidden, x, &mut out);
        out[0]
    }

    /// Logits of `m` tokens.
    ///
    /// # Shapes
    /// `x`: `[m, hidden]`; `logits`: `[m, vocab]`.
    pub fn forward(&self, pool: &Pool, x: &[f32], logits: &mut [f32]) {
        let m = x.len() / self.hidden;
        assert_eq!(x.len(), m * self.hidden, "whole tokens of {}", self.hidden);
        assert_eq!(logits.len(), m * self.vocab, "logits of {m} tokens");
        let (bytes, row_bytes) = (self.bytes(), self.dtype.row_bytes(self.hidden));
        let chunk = (CHUNK_BYTES / row_bytes)
            .clamp(1, 4096)
            .next_multiple_of(ROWS);
        let out = Columns::new(logits, m, self.vocab, 0, self.vocab, chunk);
        pool.each(out, |_, _, mut columns| {
            for from in (0..columns.width()).step_by(ROWS) {
                let rows = ROWS.min(columns.width() - from);
                let run = &bytes[(columns.first() + from) * row_bytes..][..rows * row_bytes];
                for first in (0..m).step_by(TOKENS) {
                    let tokens = TOKENS.min(m - first);
                    let mut out = [0f32; ROWS * TOKENS];
                    let x = &x[first * self.hidden..][..tokens * self.hidden];
                    logits_of(self.dtype, run, self.hidden, x, &mut out);
                    for t in 0..tokens {
                        let slot = &mut columns.row(first + t)[from..][..rows];
                        for (r, slot) in slot.iter_mut().enumerate() {
                            *slot = out[r * TOKENS + t];
                        }
                    }
                }
            }
        });
    }
}

leveled! {
    /// Dot products of a run of rows with up to `TOKENS` tokens: `out[row · TOKENS + token]`.
    pub(in crate::network) fn logits_of(dtype: FloatType, rows: &[u8], k: usize, x: &[f32], out: &mut [f32; ROWS * TOKENS]) {
        // One loop for each type: the constant decides what is inlined.
        macro_rules! of {
            ($($dtype:ident)*) => {
                match dtype {
                    $(FloatType::$dtype => dots::<LEVEL>(FloatType::$dtype, rows, k, x, out),)*
                }
            };
        }
        of!(F32 F16 BF16 Q8_0 Q6K Q4_0 Q4_1 Q5_0 Q5_1 Q2K Q3K Q4K Q5K IQ4NL IQ4XS)
    }
}

/// Decodes whole blocks. Not a function pointer: those are not compiled for the caller's level.
#[inline(always)]
pub(super) fn decode<const LEVEL: u8>(dtype: FloatType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        FloatType::F16 => f16_run::<LEVEL>(bytes, out),
        other => other.decode_runs(bytes, out),
    }
}

/// How far ahead of the block in work the table is fetched; the hardware alone stops at page ends.
/// One core, F16 from memory, Zen 5, medians of three in turn, 2026-11-20: 34 GB/s without, 38 with 4 KiB or 8.
const AHEAD_BYTES: usize = 8192;

/// Asks for the bytes [`AHEAD_BYTES`] past `block`.
#[inline(always)]
fn prefetch(block: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..block.len()).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = block.as_ptr().wrapping_add(AHEAD_BYTES + line);
        // SAFETY: a hint about any address, mapped or not, touches no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = block;
}

/// The loop over rows, blocks and tokens.
#[inline(always)]
fn dots<const LEVEL: u8>(
    dtype: FloatType,
    rows: &[u8],
    k: usize,
    x: &[f32],
    out: &mut [f32; ROWS * TOKENS],
) {
    let (elements, bytes) = dtype.block();
    let row_bytes = k / elements * bytes;
    for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
        let out = &mut out[r * TOKENS..][..TOKENS];
        if x.len() == k {
            // In registers, where a run of lanes is whole blocks: 1.3 times the tokens per second of decoding
            // through the first cache (F16 head of 2B-4T on one thread, Zen 5, 2026-11-20).
            out[0] = if LANES.is_multiple_of(elements) {
                dot_row::<LEVEL, LANES>(dtype, row, x)
            } else {
                dot_row::<LEVEL, BLOCK>(dtype, row, x)
            };
            continue;
        }
        let mut values = [0f32; BLOCK];
        let mut lanes = [[0f32; LANES]; TOKENS];
        for (b, block) in row.chunks(BLOCK / elements * bytes).enumerate() {
            let len = BLOCK.min(k - b * BLOCK);
            decode::<LEVEL>(dtype, block, &mut values[..len]);
            for (lanes, x) in lanes.iter_mut().zip(x.chunks_exact(k)) {
                dot_into(lanes, &values[..len], &x[b * BLOCK..][..len]);
            }
        }
        for (out, lanes) in out.iter_mut().zip(lanes) {
            *out = tree(lanes);
        }
    }
}

/// The dot product of one row, decoded `RUN` elements at a time.
#[inline(always)]
fn dot_row<const LEVEL: u8, const RUN: usize>(dtype: FloatType, row: &[u8], x: &[f32]) -> f32 {
    let (elements, bytes) = dtype.block();
    let (runs, tail) = x.as_chunks::<RUN>();
    let whole = row.chunks_exact(RUN / elements * bytes);
    let rest = whole.remainder();
    let mut lanes = [0f32; LANES];
    for (run, x) in whole.zip(runs) {
        prefetch(run);
        let mut values = [0f32; RUN];
        decode::<LEVEL>(dtype, run, &mut values);
        dot_into(&mut lanes, &values, x);
    }
    // Through memory, as in `tree`: else the loop of the tail splits the lanes of the loop above.
    let mut lanes = std::hint::black_box(lanes);
    let mut values = [0f32; RUN];
    decode::<LEVEL>(dtype, rest, &mut values[..tail.len()]);
    dot_into(&mut lanes, &values[..tail.len()], tail);
    tree(lanes)
}

/// Halves by the CPU's own conversion from [`crate::lanes::Level::Avx2`] on: as exact as by integers.
#[inline(always)]
pub(super) fn f16_run<const LEVEL: u8>(bytes: &[u8], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if LEVEL > 0 {
        use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
        let (blocks, tail) = out.as_chunks_mut::<8>();
        let (halves, rest) = bytes.as_chunks::<16>();
        for (o, b) in blocks.iter_mut().zip(halves) {
            // SAFETY: 16 readable bytes, in any alignment.
            let halves = unsafe { _mm_loadu_si128(b.as_ptr().cast()) };
            // SAFETY: a level above 0 is chosen only where `lanes::detect` found F16C.
            let values = unsafe { _mm256_cvtph_ps(halves) };
            // SAFETY: eight writable floats, in any alignment.
            unsafe { _mm256_storeu_ps(o.as_mut_ptr(), values) };
        }
        FloatType::F16.decode_runs(rest, tail);
        return;
    }
    FloatType::F16.decode_runs(bytes, out);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::lanes::{self, Level};

    const ALL: [FloatType; 15] = FloatType::ALL;

    pub(crate) fn stored(dtype: FloatType, elements: usize, seed: u32) -> Vec<u8> {
        let mut x = seed;
        let mut bytes: Vec<u8> = (0..dtype.row_bytes(elements))
            .map(|_| {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (x >> 16) as u8
            })
            .collect();
        // Random exponents would mix numbers of no common scale with infinities.
        let (_, step) = dtype.block();
        match dtype {
            FloatType::F32 => bytes
                .iter_mut()
                .skip(3)
                .step_by(4)
                .for_each(|b| *b = *b & 0x80 | 0x3e),
            FloatType::BF16 => bytes
                .iter_mut()
                .skip(1)
                .step_by(2)
                .for_each(|b| *b = *b & 0x80 | 0x3e),
            FloatType::F16 => bytes.iter_mut().skip(1).step_by(2).for_each(|b| *b &= 0xbf),
            // The upper bytes of a block's halves.
            _ => {
                let at: &[usize] = match dtype {
                    FloatType::Q4_1 | FloatType::Q5_1 | FloatType::Q4K | FloatType::Q5K => &[1, 3],
                    FloatType::Q2K => &[81, 83],
                    FloatType::Q3K => &[109],
                    FloatType::Q6K => &[209],
                    _ => &[1],
                };
                for block in bytes.chunks_exact_mut(step) {
                    for &at in at {
                        block[at] = 0x1c;
                    }
                }
            }
        }
        bytes
    }

    #[test]
    fn logits_are_the_fixed_order_dot_products_of_decoded_rows() {
        let rows = 21;
        for dtype in ALL {
            let (block, _) = dtype.block();
            for k in [256, 512, 768, 96, 100, 320]
                .into_iter()
                .filter(|k| k % block == 0)
            {
                let bytes = stored(dtype, k * rows, k as u32);
                let x: Vec<f32> = (0..k * 9)
                    .map(|i| ((i * 37 % 101) as f32 - 50.0) / 31.0)
                    .collect();
                for level in [Level::Base, Level::Avx2, Level::Avx512] {
                    lanes::cap(level);
                    for tokens in [1, 2, 8] {
                        for (first, run) in bytes.chunks(ROWS * dtype.row_bytes(k)).enumerate() {
                            let mut out = [0f32; ROWS * TOKENS];
                            logits_of(dtype, run, k, &x[..tokens * k], &mut out);
                            for (r, row) in run.chunks_exact(dtype.row_bytes(k)).enumerate() {
                                let mut values = vec![0f32; k];
                                dtype.decode(row, &mut values);
                                for t in 0..tokens {
                                    let want = lanes::dot(&values, &x[t * k..][..k]);
                                    let got = out[r * TOKENS + t];
                                    assert_eq!(
                                        got.to_bits(),
                                        want.to_bits(),
                                        "{dtype} k{k} row {first}+{r} token {t} of {tokens}"
                                    );
                                }
                            }
                        }
                    }
                }
                lanes::cap(Level::Avx512);
            }
        }
    }
}
