//! [`Packed`]: stacked ternary matrices in the panels that kernels read.

use crate::memory::HugeBytes;
use crate::pool::{Chunks, Pool};
use bitnet_codegen::TernaryMatrix;
use bitnet_codegen::layout::Panel;

/// Weights packed once; kernels that read the same panels share them.
pub(super) struct Packed {
    pub panel: Panel,
    pub bytes: HugeBytes,
}

impl Packed {
    /// Whether kernels that read `panel` read these bytes.
    pub fn serves(&self, panel: Panel) -> bool {
        let same = |p: Panel| (p.shape, p.layout.name(), p.scales);
        same(self.panel) == same(panel)
    }

    pub fn duplicate(&self) -> Self {
        let mut bytes = HugeBytes::zeroed(self.bytes.len());
        bytes.copy_from_slice(&self.bytes);
        Self {
            panel: self.panel,
            bytes,
        }
    }

    /// Packs stacked matrices panel by panel, in parallel.
    pub fn new(pool: &Pool, panel: Panel, matrices: &[TernaryMatrix]) -> Self {
        let n: usize = matrices.iter().map(TernaryMatrix::n).sum();
        let mut bytes = HugeBytes::zeroed(panel.count(n) * panel.bytes());
        pool.each(Chunks::new(&mut bytes, panel.bytes()), |_, i, out| {
            let row = |r: usize| {
                let mut n = i * panel.shape.nr + r;
                matrices.iter().find_map(|w| match n.checked_sub(w.n()) {
                    None => Some((w, n)),
                    Some(rest) => {
                        n = rest;
                        None
                    }
                })
            };
            panel.pack_rows(row, out);
        });
        Self { panel, bytes }
    }
}
