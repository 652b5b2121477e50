//! [`Coded`]: a table packed for a coded product, with what bounds its error; screened logits of a token come out.
//!
//! A panel is what the kernel reads, then the floats of its blocks, `[blocks, NR]` halves (units, then lows), so that
//! a thread reads one linear stream. The floats are applied in a fixed order, block by block.

use super::bound::{self, Facts, Token};
use super::codes::{Lows, Native};
use super::loops::{self, Record, STRIP, finish};
use super::{CodedRow, HeadForm, copies};
use crate::format::FloatTensor;
use crate::memory::HugeBytes;
use crate::network::kernels::Kernels;
use crate::network::packed_cache::PackedCache;
use crate::pool::{Chunks, Pool};
use bitnet_codegen::KernelSpec;
use bitnet_codegen::coded::{CodedKernel, Form, Planes};
use bitnet_codegen::kernel::CodeFrom;
use std::sync::Mutex;

/// Bytes of the table that one claim covers.
const CHUNK_BYTES: usize = 128 << 10;

/// Panels that one claim packs.
const PACK_PANELS: usize = 4;

/// How a table's rows become codes.
#[derive(Clone, Copy, Debug)]
enum Coder {
    Native(Native),
    Copy8,
    Copy4,
}

impl Coder {
    fn new(form: HeadForm, source: &FloatTensor<'_>) -> Option<Self> {
        match form {
            HeadForm::Native => Native::of(source.dtype).map(Self::Native),
            HeadForm::I8 => Some(Self::Copy8),
            HeadForm::I4 => Some(Self::Copy4),
            HeadForm::Exact => None,
        }
    }

    fn form(&self) -> &'static Form {
        match self {
            Self::Native(native) => native.form,
            Self::Copy8 => copies::form_8(),
            Self::Copy4 => copies::form_4(),
        }
    }

    fn zero(&self) -> i32 {
        match self {
            Self::Native(native) => native.zero,
            Self::Copy8 => copies::ZERO_8,
            Self::Copy4 => copies::ZERO_4,
        }
    }

    fn lows(&self) -> Lows {
        match self {
            Self::Native(native) => native.lows,
            Self::Copy8 | Self::Copy4 => Lows::None,
        }
    }

    /// Halves of a block and row in a panel.
    fn floats(&self) -> usize {
        match self {
            Self::Copy8 => 0,
            _ if self.lows() == Lows::None => 1,
            _ => 2,
        }
    }

    /// Codes row `index`, stored as `bytes` with the decoded `values`; its norm and extra come back.
    fn code_row(&self, index: usize, bytes: &[u8], values: &[f32], row: &mut CodedRow) -> [f32; 2] {
        let squared = loops::squared(values);
        let distance = match self {
            Self::Native(native) => {
                native.code_row(bytes, row);
                let norm = bound::norm(squared);
                return match native.lows {
                    Lows::None => [norm, norm],
                    _ => [norm, bound::norm(row.gross_squared(native))],
                };
            }
            Self::Copy8 => copies::code_8(values, row),
            Self::Copy4 => copies::code_4(values, index, row),
        };
        // `max` alone would forget a NaN.
        let norm = match squared.is_finite() {
            true => squared.max(distance.copy_squared),
            false => f64::INFINITY,
        };
        [norm, distance.error_squared].map(bound::norm)
    }
}

/// A packed table.
pub(super) struct Coded {
    coder: Coder,
    kernel: CodedKernel,
    k: usize,
    panels: HugeBytes,
    panel_bytes: usize,
    /// Norm and extra of each row, zeros past the last.
    norms: Vec<f32>,
    extras: Vec<f32>,
    /// Of each row, where a row has one unit; else empty.
    scales: Vec<f32>,
    facts: Facts,
}

/// Memory of one token on its way; nothing is allocated once it is made.
pub(super) struct Work {
    q: Vec<i16>,
    planes: Planes,
    /// Screened logits, `[panels · NR]`, and how far each may be off.
    pub scores: Vec<f32>,
    pub radii: Vec<f32>,
    /// Σ q, or Σ x², of each block, where rows need it.
    blocks: Vec<f32>,
    /// Of each worker what the kernel writes.
    outs: Vec<Mutex<Vec<i32>>>,
}

/// The kernel of `table` in `form`; `None` where the form has no codes for it, or this CPU no kernel.
pub(super) fn kernel(
    kernels: &mut Kernels,
    table: &FloatTensor<'_>,
    form: HeadForm,
) -> Option<CodedKernel> {
    kernels.coded(Coder::new(form, table)?.form(), table.cols)
}

impl Coded {
    /// Packs `source`; `None` where the form has no codes for it, or this CPU no kernel.
    pub fn new(
        pool: &Pool,
        kernels: &mut Kernels,
        source: FloatTensor<'_>,
        form: HeadForm,
        cache: Option<&PackedCache>,
    ) -> Option<Self> {
        let coder = Coder::new(form, &source)?;
        let kernel = kernel(kernels, &source, form)?;
        let packing = kernel.packing();
        let (nr, k) = (packing.nr, source.cols);
        assert!(nr.is_multiple_of(STRIP), "panels of {nr} rows");
        let blocks = coder.form().blocks(k);
        let panel_bytes = (packing.bytes() + 2 * coder.floats() * blocks * nr).next_multiple_of(64);
        let rows = source.rows.next_multiple_of(nr);
        let mut this = Self {
            coder,
            kernel,
            k,
            panels: HugeBytes::zeroed(rows / nr * panel_bytes),
            panel_bytes,
            norms: vec![0.0; rows],
            extras: vec![0.0; rows],
            scales: vec![0.0; if coder.floats() == 0 { rows } else { 0 }],
            facts: Facts {
                k,
                blocks,
                native: form == HeadForm::Native,
                largest: 0.0,
            },
        };
        let mut kept = false;
        if let Some(cache) = cache {
            kept = this.restore(pool, cache) && this.begins_as(pool, kernels, source, form);
            if !kept {
                cache.distrust();
                this.panels = HugeBytes::zeroed(this.panels.len());
                for floats in [&mut this.norms, &mut this.extras, &mut this.scales] {
                    floats.fill(0.0);
                }
            }
        }
        if !kept {
            this.pack(pool, source);
        }
        let both = || this.norms.iter().chain(&this.extras);
        this.facts.largest = match both().all(|v| v.is_finite()) {
            true => both().fold(0.0, |m, v| m.max(*v)),
            false => f32::INFINITY,
        };
        Some(this)
    }

    /// What is kept of a table, by name.
    pub fn sections(&self) -> [(String, &[u8]); 4] {
        let name = |part: &str| format!("head {} {part}", self.kernel.spec());
        [
            (name("panels"), &self.panels[..]),
            (name("norms"), bytemuck::cast_slice(&self.norms)),
            (name("extras"), bytemuck::cast_slice(&self.extras)),
            (name("scales"), bytemuck::cast_slice(&self.scales)),
        ]
    }

    /// Reads the table from `cache`; `false` where not all of it is there.
    fn restore(&mut self, pool: &Pool, cache: &PackedCache) -> bool {
        let names = self.sections().map(|(name, _)| name);
        let parts: [&mut [u8]; 4] = [
            &mut self.panels,
            bytemuck::cast_slice_mut(&mut self.norms),
            bytemuck::cast_slice_mut(&mut self.extras),
            bytemuck::cast_slice_mut(&mut self.scales),
        ];
        let mut parts = names.iter().zip(parts);
        parts.all(|(name, part)| cache.read(pool, name, part))
    }

    /// Whether the first panel is what `source` makes of it.
    fn begins_as(
        &self,
        pool: &Pool,
        kernels: &mut Kernels,
        source: FloatTensor<'_>,
        form: HeadForm,
    ) -> bool {
        let rows = source.rows.min(self.kernel.packing().nr);
        let bytes = &source.bytes[..rows * source.dtype.row_bytes(source.cols)];
        let first = FloatTensor {
            rows,
            bytes,
            ..source
        };
        let Some(first) = Self::new(pool, kernels, first, form, None) else {
            return false;
        };
        let of_first = first.sections();
        let mut both = self.sections().into_iter().zip(of_first);
        both.all(|((_, all), (_, first))| all.starts_with(first))
    }

    fn pack(&mut self, pool: &Pool, source: FloatTensor<'_>) {
        let packing = self.kernel.packing();
        let (nr, coder, k) = (packing.nr, self.coder, self.k);
        let rows = PACK_PANELS * nr;
        // Every row has a place for its scale while packing; where units are in the panels it is dropped.
        let mut scales = vec![0f32; self.norms.len()];
        let parts = (
            Chunks::new(&mut self.panels, PACK_PANELS * self.panel_bytes),
            (
                Chunks::new(&mut self.norms, rows),
                (
                    Chunks::new(&mut self.extras, rows),
                    Chunks::new(&mut scales, rows),
                ),
            ),
        );
        let panel_bytes = self.panel_bytes;
        pool.each(parts, |_, i, (panels, (norms, (extras, scales)))| {
            let mut row = CodedRow::new(packing.form, k);
            let mut values = vec![0f32; k];
            for r in 0..norms.len() {
                let index = i * rows + r;
                if index >= source.rows {
                    break;
                }
                let panel = &mut panels[r / nr * panel_bytes..][..panel_bytes];
                let (codes, floats) = panel.split_at_mut(packing.bytes());
                loops::decode_row(source.dtype, source.row_bytes(index), &mut values);
                [norms[r], extras[r]] =
                    coder.code_row(index, source.row_bytes(index), &values, &mut row);
                scales[r] = row.scale;
                packing.pack_row(r % nr, &row.codes, &row.scales, &row.mins, codes);
                let each = 2 * nr * row.units.len();
                let kinds = [&row.units, &row.lows].into_iter().take(coder.floats());
                for (floats, from) in floats.chunks_exact_mut(each).zip(kinds) {
                    for (b, half) in from.iter().enumerate() {
                        let at = 2 * (b * nr + r % nr);
                        floats[at..at + 2].copy_from_slice(&half.to_le_bytes());
                    }
                }
            }
        });
        if coder.floats() == 0 {
            self.scales = scales;
        }
    }

    /// The kernel.
    pub fn spec(&self) -> &KernelSpec {
        self.kernel.spec()
    }

    /// Where its code comes from.
    pub fn code_from(&self) -> CodeFrom {
        self.kernel.code_from()
    }

    /// Bytes read for each token.
    pub fn bytes(&self) -> usize {
        self.panels.len() + 4 * (self.norms.len() + self.extras.len() + self.scales.len())
    }

    /// Memory for one token.
    pub fn work(&self, pool: &Pool) -> Work {
        let form = self.coder.form();
        let out = || Mutex::new(vec![0; self.kernel.out_len(1)]);
        Work {
            q: vec![0; self.k],
            planes: Planes::new(form, self.k, 1, self.coder.zero()),
            scores: vec![0.0; self.norms.len()],
            radii: vec![0.0; self.norms.len()],
            blocks: vec![0.0; form.blocks(self.k)],
            outs: (0..pool.threads()).map(|_| out()).collect(),
        }
    }

    /// Screens one token: fills the scores and radii of `work`. `false` where no bound holds.
    pub fn screen(&self, pool: &Pool, x: &[f32], work: &mut Work) -> bool {
        let Some(token) = Token::new(&self.facts, x, &mut work.q) else {
            return false;
        };
        work.planes.set(0, &work.q);
        match (self.coder, self.coder.lows()) {
            (Coder::Copy4, _) => bound::squares_of_32(x, &mut work.blocks),
            (_, Lows::Blocks) => {
                let cols = self.coder.form().block_cols(self.k);
                for (q, out) in work.q.chunks(cols).zip(&mut work.blocks) {
                    // At most 32 · 32 512: exact.
                    *out = q.iter().map(|&q| i32::from(q)).sum::<i32>() as f32;
                }
            }
            _ => {}
        }
        let nr = self.kernel.packing().nr;
        let panels = (CHUNK_BYTES / self.panel_bytes).max(1);
        let Work {
            planes,
            scores,
            radii,
            blocks,
            outs,
            ..
        } = work;
        let parts = (
            Chunks::new(scores, panels * nr),
            Chunks::new(radii, panels * nr),
        );
        pool.each(parts, |worker, i, (scores, radii)| {
            let mut out = outs[worker]
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let tiles = scores.chunks_exact_mut(nr).zip(radii.chunks_exact_mut(nr));
            for (p, (scores, radii)) in tiles.enumerate() {
                let p = i * panels + p;
                let panel = &self.panels[p * self.panel_bytes..][..self.panel_bytes];
                let (codes, floats) = panel.split_at(self.kernel.packing().bytes());
                self.kernel.run(codes, planes, &mut out);
                let rows = p * nr..(p + 1) * nr;
                let record = Record {
                    sums: &out,
                    floats,
                    blocks,
                    nr,
                    joined: self.coder.form().is_joined(self.k),
                    lows: self.coder.lows(),
                    random: matches!(self.coder, Coder::Copy4),
                    scales: self.scales.get(rows.clone()).unwrap_or(&[]),
                };
                let bounds = [&self.norms[rows.clone()], &self.extras[rows]];
                finish(&record, bounds, &token, scores, radii);
            }
        });
        true
    }
}
