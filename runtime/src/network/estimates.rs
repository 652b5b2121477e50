//! What to run where nobody has measured: specs in the order in which they are worth trying, from the fastest
//! instruction set down to the interpreter. Nothing here depends on a clock.

use crate::graph::Product;
use bitnet_codegen::variant::{VARIANTS, Variant};
use bitnet_codegen::{Features, Groups, Isa, KernelSpec};

/// The families to try first on `isa` for `m` tokens: what wins on most machines.
/// Whatever is not named here is tried afterwards, in the order of [`VARIANTS`].
fn favourites(isa: Isa, m: usize) -> &'static [&'static str] {
    match m {
        16.. if !isa.has_dot() => &["vlut", "gemm", "i2s"],
        8.. => &["gemm", "i2s"],
        _ => &["i2s"],
    }
}

/// Threads among which an estimate expects panels to be divided.
const LIKELY_THREADS: usize = 4;

/// Panels from this many rows on pay once a panel and tile: for tables, which cost as much as some rows.
const TALL_ROWS: u32 = 256;

/// What tables cost, in rows (`vlut` on Zen 5, 11/2026).
const TABLE_ROWS: usize = 33;

/// Specs worth trying for `m` tokens of a product without any measurement: instruction sets from the fastest down,
/// and on each the favourite families with their default tunables. The interpreter comes last. With groups, a token
/// is a row of activations for each plane.
pub fn estimates(cpu: Features, product: Product, m: usize) -> impl Iterator<Item = KernelSpec> {
    let Product { n, groups, .. } = product;
    let rows = match groups {
        Some(groups) if m > 1 => m * groups.planes,
        _ => m,
    };
    Isa::ALL
        .iter()
        .rev()
        .copied()
        .filter(move |isa| isa.runs_on(cpu))
        .flat_map(move |isa| {
            let favourites = favourites(isa, rows);
            let rank = |v: &dyn Variant| favourites.iter().position(|f| *f == v.name());
            let mut families: Vec<&'static dyn Variant> = VARIANTS.to_vec();
            families.sort_by_key(|v| rank(*v).unwrap_or(usize::MAX));
            families
                .into_iter()
                .filter_map(move |family| default_spec(family, isa, n, m, groups))
        })
}

/// The spec with the first value of every axis, but of tall panels those that suit `n` rows best.
pub(crate) fn default_spec(
    family: &dyn Variant,
    isa: Isa,
    n: usize,
    m: usize,
    groups: Option<Groups>,
) -> Option<KernelSpec> {
    let axes = match groups {
        None => family.axes(isa, m).ok()?,
        Some(_) if !family.has_groups() => return None,
        Some(groups) => family.grouped_axes(isa, m, groups.planes).ok()?,
    };
    let mut spec = KernelSpec::new(family.name(), family.layouts().first()?, 1, 1, 1, isa);
    for axis in axes {
        let value = *axis.values.first()?;
        match axis.name {
            "mr" => spec.mr = value as usize,
            "nr" if value >= TALL_ROWS => spec.nr = tall_panel(&axis.values, n),
            "nr" => spec.nr = value as usize,
            "kr" => spec.kr = value as usize,
            knob => spec = spec.with(knob, value),
        }
    }
    Some(match groups {
        Some(groups) => groups.name(spec),
        None => spec,
    })
}

/// The one of `values` that wastes least on rows past `n`, on idle threads and on tables.
fn tall_panel(values: &[u32], n: usize) -> usize {
    let cost = |nr: usize| n.div_ceil(nr).next_multiple_of(LIKELY_THREADS) * (nr + TABLE_ROWS);
    let best = values
        .iter()
        .map(|&nr| nr as usize)
        .min_by_key(|&nr| cost(nr));
    best.expect("an axis has values")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tall_panels_suit_the_matrix() {
        let values = [864, 2304, 2560, 1280, 640, 256];
        let best = [256, 640, 1024, 2560, 4096, 6912].map(|n| tall_panel(&values, n));
        assert_eq!(best, [256, 256, 256, 640, 256, 864]);
    }

    #[test]
    fn without_a_dot_product_prefill_is_looked_up() {
        use bitnet_codegen::Feature::{Avx, Avx2, Sse41, Ssse3};
        let cpu = Features::from([Ssse3, Sse41, Avx, Avx2]);
        let product = Product {
            n: 2560,
            k: 2560,
            groups: None,
        };
        let first = |m| estimates(cpu, product, m).next().map(|s| s.variant);
        let best = [1, 8, 16, 128].map(|m| first(m).expect("a guess"));
        assert_eq!(best, ["i2s", "gemm", "vlut", "vlut"]);
    }
}
