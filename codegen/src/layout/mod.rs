//! Packed layouts: how the codes of NR weight rows lie in a panel so that a kernel reads one linear stream.
//!
//! One file per layout, and [`LAYOUTS`], the only list. A layout never depends on the host's
//! instruction set; panels are padded in N with zero rows and in K with zero trits, so that every
//! shape works in every layout. Packed bytes never leave the process unkeyed: they live beside
//! the [`PanelShape`] that made them.

pub mod base3;
pub mod i2s;
pub mod lut;
pub mod mixed;
pub mod scales;
pub mod strip;
pub mod tl1;
pub mod tl2;

use crate::program::Promise;
use crate::trit::{CODE_ZERO, TernaryMatrix};
use scales::GroupScales;

/// Every layout. Everything else iterates this list.
pub const LAYOUTS: &[&dyn Layout] = &[
    &i2s::I2s,
    &base3::Base3,
    &lut::LUT3,
    &lut::LUT4,
    &lut::LUT5,
    &tl1::Tl1,
    &tl2::Tl2,
    &mixed::Mixed,
];

/// The layout called `name`.
pub fn by_name(name: &str) -> Option<&'static dyn Layout> {
    LAYOUTS.iter().copied().find(|l| l.name() == name)
}

/// The size of one panel, in weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PanelShape {
    /// Rows packed together.
    pub nr: usize,
    /// Columns of the matrix, unpadded.
    pub k: usize,
    /// Columns that one step covers; K is padded to a multiple of it (see [`Layout::k_padded`]).
    pub kr: usize,
}

/// One way to pack codes.
pub trait Layout: Sync {
    /// The name in specs.
    fn name(&self) -> &'static str;

    /// Why `shape` cannot be packed, if so: for instance NR not a multiple of the layout's strip.
    fn unsupported(&self, shape: PanelShape) -> Option<String>;

    /// Columns after padding.
    fn k_padded(&self, shape: PanelShape) -> usize {
        shape.k.next_multiple_of(shape.kr)
    }

    /// Bytes of one panel.
    fn panel_bytes(&self, shape: PanelShape) -> usize;

    /// What every byte of a panel is, for the proof of the kernels that read it.
    fn promise(&self) -> Promise;

    /// Packs one panel. `codes` is `[nr, k_padded]`, one code (0, 1, 2) a byte, row-major, already padded
    /// with [`crate::trit::CODE_ZERO`]; every byte of `out` (`panel_bytes` long) is written.
    fn pack_panel(&self, shape: PanelShape, codes: &[u8], out: &mut [u8]);

    /// The inverse of [`Self::pack_panel`].
    fn unpack_panel(&self, shape: PanelShape, packed: &[u8], codes: &mut [u8]);
}

/// A layout and a panel shape: all that packing a matrix needs.
#[derive(Clone, Copy)]
pub struct Panel {
    /// The layout.
    pub layout: &'static dyn Layout,
    /// The panel's shape.
    pub shape: PanelShape,
    /// Scales between the codes, if the kernel scales groups of columns itself.
    pub scales: Option<GroupScales>,
}

impl Panel {
    /// A panel of codes alone.
    pub fn of_codes(layout: &'static dyn Layout, shape: PanelShape) -> Self {
        let scales = None;
        Self {
            layout,
            shape,
            scales,
        }
    }

    /// Bytes of one panel.
    pub fn bytes(&self) -> usize {
        self.runs().map(|run| self.run_bytes(run.len())).sum()
    }

    /// Columns that share a scale, in order; all of them where there are no groups.
    fn runs(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let k = self.shape.k;
        let step = self.scales.map_or(k, |s| s.k);
        (0..k)
            .step_by(step)
            .map(move |from| from..(from + step).min(k))
    }

    /// Bytes of the codes of a run of `k` columns.
    pub fn code_bytes(&self, k: usize) -> usize {
        self.layout.panel_bytes(PanelShape { k, ..self.shape })
    }

    /// Bytes of a run of `k` columns: codes, then scales.
    pub fn run_bytes(&self, k: usize) -> usize {
        let scales = self
            .scales
            .map_or(0, |s| 4 * s.stored.dwords(self.shape.nr));
        self.code_bytes(k) + scales
    }

    /// What every byte of a panel is: codes, or codes and scales.
    pub fn promise(&self) -> Promise {
        match self.scales {
            None => self.layout.promise(),
            Some(_) => Promise::Bits,
        }
    }

    /// Panels of a matrix with `n` rows.
    pub fn count(&self, n: usize) -> usize {
        n.div_ceil(self.shape.nr)
    }

    /// Packs the panels `first..first + out.len() / bytes()` of `w`.
    /// The caller hands out disjoint ranges to threads.
    ///
    /// # Panics
    /// When `w` has another K, or `out` is not a whole number of panels.
    pub fn pack(&self, w: &TernaryMatrix, first: usize, out: &mut [u8]) {
        assert_eq!(out.len() % self.bytes(), 0, "whole panels");
        for (i, packed) in out.chunks_exact_mut(self.bytes()).enumerate() {
            let base = (first + i) * self.shape.nr;
            self.pack_rows(|r| Some((w, base + r)).filter(|(w, r)| *r < w.n()), packed);
        }
    }

    /// Packs one panel: its row `r` is the row of the matrix that `row(r)` names; zeros where it names none.
    ///
    /// # Panics
    /// When a matrix has another K, or `out` another size; when halves cannot hold a scale.
    pub fn pack_rows<'w>(
        &self,
        row: impl Fn(usize) -> Option<(&'w TernaryMatrix, usize)>,
        out: &mut [u8],
    ) {
        assert_eq!(out.len(), self.bytes(), "bytes of a panel");
        let (nr, k) = (self.shape.nr, self.shape.k);
        let k_padded = self.layout.k_padded(self.shape);
        let mut whole = vec![CODE_ZERO; nr * k_padded];
        for (r, codes) in whole.chunks_exact_mut(k_padded).enumerate() {
            if let Some((w, n)) = row(r) {
                assert_eq!(w.k(), k, "K of the matrix and of the panel");
                w.unpack_row(n, codes);
            }
        }
        let Some(scales) = self.scales else {
            return self.layout.pack_panel(self.shape, &whole, out);
        };
        let mut rest = out;
        for run in self.runs() {
            let shape = PanelShape {
                k: run.len(),
                ..self.shape
            };
            let padded = self.layout.k_padded(shape);
            // A code of 0 adds nothing to the sum of codes, so that activations there do not matter.
            let mut codes = vec![0; nr * padded];
            for (to, from) in codes
                .chunks_exact_mut(padded)
                .zip(whole.chunks_exact(k_padded))
            {
                to[..run.len()].copy_from_slice(&from[run.clone()]);
            }
            let (packed, after) = rest.split_at_mut(self.code_bytes(run.len()));
            self.layout.pack_panel(shape, &codes, packed);
            let of_rows: Vec<f32> = (0..nr)
                .map(|r| row(r).map_or(0.0, |(w, n)| w.scale_at(n, run.start, scales.k)))
                .collect();
            let (packed, after) = after.split_at_mut(4 * scales.stored.dwords(nr));
            scales.stored.write(&of_rows, packed);
            rest = after;
        }
    }

    /// Packs a whole matrix.
    pub fn pack_all(&self, w: &TernaryMatrix) -> Vec<u8> {
        let mut out = vec![0u8; self.count(w.n()) * self.bytes()];
        self.pack(w, 0, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Noise;

    /// Every layout: pack then unpack is the identity, packing fills every byte within the promise.
    #[test]
    fn unpack_inverts_pack() {
        for layout in LAYOUTS {
            let mut shapes = 0;
            for nr in [4, 8, 16, 32, 64, 128, 256] {
                for k in [
                    1, 2, 3, 5, 15, 16, 17, 31, 64, 100, 127, 128, 129, 255, 256, 257, 640,
                ] {
                    for kr in [4, 5, 16, 20, 24, 32, 60, 64] {
                        let shape = PanelShape { nr, k, kr };
                        if layout.unsupported(shape).is_some() {
                            continue;
                        }
                        shapes += 1;
                        let kp = layout.k_padded(shape);
                        assert!(kp >= k);
                        let codes: Vec<u8> = (0..nr * kp)
                            .zip(Noise::new(1))
                            .map(|(i, noise)| match i % kp < k {
                                true => ((noise >> 16) % 3) as u8,
                                false => 1,
                            })
                            .collect();
                        let mut packed = vec![0xAA; layout.panel_bytes(shape)];
                        layout.pack_panel(shape, &codes, &mut packed);
                        let mut twice = vec![0x55; packed.len()];
                        layout.pack_panel(shape, &codes, &mut twice);
                        assert_eq!(
                            packed,
                            twice,
                            "{} {shape:?}: every byte is written",
                            layout.name()
                        );
                        assert!(
                            layout.promise().holds(&packed),
                            "{} {shape:?} keeps its promise",
                            layout.name()
                        );
                        let mut back = vec![9; codes.len()];
                        layout.unpack_panel(shape, &packed, &mut back);
                        assert_eq!(back, codes, "{} {shape:?}", layout.name());
                    }
                }
            }
            let name = layout.name();
            assert!(
                shapes >= 17,
                "{name}: {shapes} of the shapes above are its own"
            );
        }
    }
}
