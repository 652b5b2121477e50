//! [`CodedKernel`]: one spec for tables with K columns, ready to run.

use super::{CodedPlan, Packing, Planes};
use crate::kernel::{CodeFrom, KernelError, KernelSet, Piece, Stages};
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
    /// Proves `plan` and finds or emits its code as `set` does, which keeps nothing of it.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn build(plan: CodedPlan, set: &KernelSet) -> Result<Self, KernelError> {
        let tokens = plan.main.iter().map(|(mr, _)| mr / 2).collect();
        let programs = plan.main.into_iter().map(|(_, p)| p).collect();
        let stages = Stages::build(programs, plan.spec.isa, set)?;
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

    /// Where the code comes from.
    pub fn code_from(&self) -> CodeFrom {
        self.stages.code_from()
    }

    /// Whether it can be called: it was not made for another machine.
    pub fn is_callable(&self) -> bool {
        self.stages.are_callable()
    }

    /// The code of every program.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        self.stages.pieces(self.spec.isa)
    }

    /// Tokens of the tiles there are, most first.
    pub fn tile_sizes(&self) -> impl Iterator<Item = usize> {
        self.tokens.iter().copied()
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
