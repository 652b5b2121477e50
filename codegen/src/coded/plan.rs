//! From a spec and a K to a plan: which specs exist, their tunables, and where sums would not fit.

use super::program::Tile;
use super::{Form, Packing};
use crate::isa::Isa;
use crate::program::{Program, Width};
use crate::spec::{Axis, KernelSpec};
use crate::variant::{Unsupported, tile_sizes};

/// The name that stands for a family in specs.
pub const FAMILY: &str = "coded";

/// Everything that running a spec on tables with K columns needs.
#[derive(Clone, Debug)]
pub struct CodedPlan {
    /// The spec.
    pub spec: KernelSpec,
    /// How rows are packed.
    pub packing: Packing,
    /// Programs by planes a tile (two a token), most first.
    pub main: Vec<(usize, Program)>,
}

/// The tunables of `form` on `isa`, defaults first.
pub fn axes(form: &Form, isa: Isa) -> Vec<Axis> {
    let rows = isa.width().bytes() as u32 / 4;
    let wide = isa.vector_registers() == 32;
    // Tall panels stream well without hints (NOTES.md); where registers or slots are short, hints pay.
    let short = form.bits == 5 || form.bits == 4 && form.sub.is_none();
    let tall = isa.width() == Width::W64 && !short;
    vec![
        Axis {
            name: "mr",
            values: if wide { vec![2, 4, 8] } else { vec![2, 4] },
        },
        Axis {
            name: "nr",
            values: match isa.width() {
                Width::W64 if tall => vec![2 * rows, rows, 4 * rows],
                Width::W64 => vec![rows, 2 * rows],
                Width::W32 => vec![rows, 2 * rows],
                Width::W16 => vec![2 * rows, rows, 4 * rows],
            },
        },
        Axis {
            name: "pf",
            values: if tall {
                vec![0, 64, 32, 128]
            } else {
                vec![48, 0, 32, 64, 128]
            },
        },
    ]
}

/// The spec of `form` on `isa` with the first value of every axis.
pub fn default_spec(form: &Form, isa: Isa) -> KernelSpec {
    let mut spec = KernelSpec::new(FAMILY, form.name, 2, 4, form.step().0, isa);
    for axis in axes(form, isa) {
        match axis.name {
            "mr" => spec.mr = axis.values[0] as usize,
            "nr" => spec.nr = axis.values[0] as usize,
            knob => spec = spec.with(knob, axis.values[0]),
        }
    }
    spec
}

/// The plan of `spec` for tables with `k` columns.
///
/// # Errors
/// [`Unsupported`] with the reason.
pub fn plan(spec: &KernelSpec, k: usize) -> Result<CodedPlan, Unsupported> {
    let bad = |why: String| Err(Unsupported::new(spec, why));
    if spec.variant != FAMILY {
        return bad(format!("the family of coded products is {FAMILY}"));
    }
    let Some(form) = super::by_name(&spec.layout) else {
        let known: Vec<_> = super::FORMS.iter().map(|f| f.name).collect();
        return bad(format!("no such form; known: {}", known.join(", ")));
    };
    let rows = spec.isa.width().bytes() / 4;
    if spec.nr == 0 || !spec.nr.is_multiple_of(rows) {
        return bad(format!(
            "NR is not a multiple of the {rows} rows of a vector"
        ));
    }
    if !spec.mr.is_multiple_of(2) || spec.mr == 0 {
        return bad("a token is two planes, MR must be even".into());
    }
    if spec.kr != form.step().0 {
        return bad(format!(
            "{} steps cover {} columns",
            form.name,
            form.step().0
        ));
    }
    if k == 0 || longest(form) < form.k_padded(k) as i64 {
        return bad(format!("sums of {k} columns do not fit an i32"));
    }
    let packing = Packing {
        form,
        nr: spec.nr,
        k,
    };
    let main = tile_sizes(spec.mr)
        .into_iter()
        .filter(|mr| mr.is_multiple_of(2))
        .map(|mr| (mr, Tile::new(spec, packing, mr).program()))
        .collect();
    Ok(CodedPlan {
        spec: spec.clone(),
        packing,
        main,
    })
}

/// Columns whose sums surely fit an i32.
fn longest(form: &Form) -> i64 {
    let scale = if form.sub.is_some() { 128 } else { 1 };
    let product = 128 * (form.max_code() + form.max_zero()) * scale;
    match form.block {
        Some(block) if block as i64 * product <= i32::MAX as i64 => i64::MAX,
        _ => i32::MAX as i64 / product,
    }
}
