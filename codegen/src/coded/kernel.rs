//! [`CodedKernel`]: one spec for tables with K columns, ready to run.

use super::{CodedPlan, Packing, Planes};
use crate::isa::Features;
use crate::kernel::{KernelError, Stages};
use crate::spec::KernelSpec;

/// An emitted coded product.
pub struct CodedKernel {
    spec: KernelSpec,
    packing: Packing,
    /// Tokens of a tile, most first: the order of the stages.
    tokens: Vec<usize>,
    stages: Stages,
}

impl CodedKernel {
    /// Proves and emits `plan` for `cpu`, which must be a subset of what this CPU has.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn build(plan: CodedPlan, cpu: Features) -> Result<Self, KernelError> {
        let tokens = plan.main.iter().map(|(mr, _)| mr / 2).collect();
        let programs = plan.main.into_iter().map(|(_, p)| p).collect();
        let stages = Stages::build(programs, plan.spec.isa, cpu)?;
        Ok(Self {
            spec: plan.spec,
            packing: plan.packing,
            tokens,
            stages,
        })
    }

    /// The spec.
    pub fn spec(&self) -> &KernelSpec {
        &self.spec
    }

    /// How rows are packed.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// Bytes of machine code.
    pub fn code_bytes(&self) -> usize {
        self.stages.code_bytes()
    }

    /// The most tokens of a tile that are not more than `left`; tiles of one always exist.
    pub fn tile(&self, left: usize) -> usize {
        let fits = self.tokens.iter().copied().find(|&t| t <= left);
        fits.expect("at least one token")
    }

    /// i32 elements of the result for `tokens` tokens: a record for each block, see
    /// [`super::Form::record_rows`].
    pub fn out_len(&self, tokens: usize) -> usize {
        let Packing { form, nr, k } = self.packing;
        form.blocks(k) * form.record_rows(k, tokens) * nr
    }

    /// Multiplies the rows of `panel` with the tokens of `planes`.
    ///
    /// # Shapes
    /// `panel`: [`Packing::bytes`]; `planes`: of a form and K like this one's, as many tokens as some
    /// [`Self::tile`] has; `out`: [`Self::out_len`], `[blocks, record rows, NR]`.
    ///
    /// # Panics
    /// When a shape is another.
    pub fn run(&self, panel: &[u8], planes: &Planes, out: &mut [i32]) {
        let tokens = planes.tokens();
        let stage = self.tokens.iter().position(|&t| t == tokens);
        let stage = stage.unwrap_or_else(|| panic!("no tile of {tokens} tokens"));
        assert!(
            planes.fits(self.packing),
            "planes of another form or K than {}",
            self.spec
        );
        self.stages
            .call(stage, panel, planes.codes(), planes.sums(), out);
    }
}
