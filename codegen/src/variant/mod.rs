//! Kernel families: each turns a spec and a K into a [`Plan`], that is a panel shape, a form of
//! activations, and programs. One file per family, and [`VARIANTS`], the only list.
#![doc = include_str!("NOTES.md")]

pub mod dense;
pub mod gemm;
pub mod groups;
pub mod hybrid;
pub mod i2s;
mod lookup;
mod place;
mod planes;
pub mod tl1;
pub mod tl2;
pub mod vlut;

#[cfg(test)]
pub(crate) mod tests;

pub use crate::abi::OutOrder;
pub use crate::spec::Unsupported;

use groups::Groups;

use crate::acts::ActsForm;
use crate::isa::Isa;
use crate::layout::Panel;
use crate::program::Program;
use std::collections::BTreeSet;

use crate::spec::{Axis, KernelSpec, Reason};

/// Every family. Everything else iterates this list.
pub const VARIANTS: &[&dyn Variant] = &[
    &i2s::I2s,
    &tl1::Tl1Lut,
    &tl2::Tl2Lut,
    &dense::Dense,
    &gemm::Gemm,
    &vlut::Vlut,
    &hybrid::Hybrid,
];

/// A kernel family.
pub trait Variant: Sync {
    /// The name in specs.
    fn name(&self) -> &'static str;

    /// One line on what it does and when it wins.
    fn about(&self) -> &'static str;

    /// The layouts that it reads.
    fn layouts(&self) -> &'static [&'static str];

    /// The tunables that apply on `isa` and the values worth trying for `m` tokens; the axes `mr`, `nr`
    /// and `kr` are always among them. An error says why the family does not run on `isa`.
    fn axes(&self, isa: Isa, m: usize) -> Result<Vec<Axis>, Unsupported>;

    /// Whether its kernels can scale groups of columns themselves ([`Groups`]).
    fn has_groups(&self) -> bool {
        false
    }

    /// As [`Self::axes`] for kernels that scale groups themselves, where a token is `planes` rows of activations: a
    /// tile has that many fewer tokens.
    ///
    /// # Errors
    /// As [`Self::axes`].
    fn grouped_axes(&self, isa: Isa, m: usize, planes: usize) -> Result<Vec<Axis>, Unsupported> {
        let rows = if m == 1 { 1 } else { m * planes };
        Ok(fewer_tokens(self.axes(isa, rows)?, m, planes))
    }

    /// The plan of `spec` for `k` input features.
    ///
    /// # Errors
    /// [`Unsupported`] when the spec's values do not fit together, for instance too few registers.
    fn plan(&self, spec: &KernelSpec, k: usize) -> Result<Plan, Unsupported>;
}

/// The family called `name`.
pub fn by_name(name: &str) -> Result<&'static dyn Variant, Unsupported> {
    VARIANTS
        .iter()
        .copied()
        .find(|v| v.name() == name)
        .ok_or_else(|| {
            let known = VARIANTS.iter().map(|v| v.name()).collect();
            Unsupported::new(name, Reason::NoFamily { known })
        })
}

/// Everything that running a spec on matrices with K input features needs:
/// for each panel, `unpack` (if any) once, then for each tile of tokens the `main` program of its size.
#[derive(Clone)]
pub struct Plan {
    /// The spec.
    pub spec: KernelSpec,
    /// Input features.
    pub k: usize,
    /// The groups of columns that the kernel scales itself: its result is f32, and a token has
    /// [`Groups::planes`] rows of activations.
    pub groups: Option<Groups>,
    /// How weights are packed.
    pub panel: Panel,
    /// How activations are prepared.
    pub acts: ActsForm,
    /// Reads a packed panel as `Weights`, writes what `main` reads as `Weights` to `Out`.
    pub unpack: Option<Program>,
    /// Micro-kernels by tokens a tile, most tokens first; the last is small enough that any M is a sum
    /// of sizes (a tile may also be filled up with zero tokens where the family says so by having one size only).
    pub main: Vec<(usize, Program)>,
    /// How `main` stores its tile.
    pub out: OutOrder,
}

/// Axes of rows of activations as axes of tokens of `planes` rows.
fn fewer_tokens(mut axes: Vec<Axis>, m: usize, planes: usize) -> Vec<Axis> {
    for axis in axes.iter_mut().filter(|a| m > 1 && a.name == "mr") {
        for tokens in &mut axis.values {
            *tokens = tokens.div_ceil(planes as u32);
        }
        let mut seen = BTreeSet::new();
        axis.values.retain(|v| seen.insert(*v));
    }
    axes
}

/// The plan of any spec.
///
/// # Errors
/// [`Unsupported`] with the reason.
pub fn plan(spec: &KernelSpec, k: usize) -> Result<Plan, Unsupported> {
    let family = by_name(&spec.variant)?;
    if Groups::of(spec)?.is_some() && !family.has_groups() {
        return Err(Unsupported::new(
            spec,
            format!("{} has no group scales", family.name()),
        ));
    }
    family.plan(spec, k)
}

/// Tile sizes for a family that can serve any number of tokens up to `mr`: `mr`, then the powers of two below it.
pub fn tile_sizes(mr: usize) -> Vec<usize> {
    let mut sizes = vec![mr];
    sizes.extend(
        (0..usize::BITS)
            .rev()
            .map(|b| 1usize << b)
            .filter(|&s| s < mr),
    );
    sizes
}
