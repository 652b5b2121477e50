//! Names of kernels: parsed, planned for a few K and proven; whatever a name says, the answer is a plan or a reason.

use super::draw::Draw;
use super::readable;
use super::text::text;
use bitnet_codegen::program::Checked;
use bitnet_codegen::variant::VARIANTS;
use bitnet_codegen::{Isa, KernelSpec, plan};

/// A name that is nearly right.
fn name(draw: &mut Draw) -> String {
    let family = *draw.pick(VARIANTS);
    let layout = *draw.pick(family.layouts());
    let isa = *draw.pick(Isa::ALL);
    let size = |draw: &mut Draw, usual: &[u64]| match draw.one_in(4) {
        true => draw.number(),
        false => *draw.pick(usual),
    };
    let mr = size(draw, &[1, 2, 4, 8, 32, 64, 128]);
    let nr = size(draw, &[4, 8, 16, 32, 64, 256, 864]);
    let kr = size(draw, &[1, 4, 16, 20, 64, 240]);
    let mut name = format!("{}-{layout}-{mr}x{nr}c{kr}-{isa}", family.name());
    for _ in 0..draw.below(4) {
        let knob = *draw.pick(&["f", "pf", "u", "g", "s", "kb", "x", "split"]);
        name += &format!("-{knob}{}", size(draw, &[0, 1, 2, 3, 8, 16]));
    }
    if draw.one_in(6) {
        let at = draw.below(name.len());
        if name.is_char_boundary(at) {
            name.insert_str(at, &text(draw));
        }
    }
    name
}

/// One execution.
///
/// # Errors
/// What was found.
pub fn run(draw: &mut Draw) -> Result<(), String> {
    let name = name(draw);
    let spec: KernelSpec = match name.parse() {
        Err(e) => return readable(&e),
        Ok(spec) => spec,
    };
    if spec.to_string().parse::<KernelSpec>().as_ref() != Ok(&spec) {
        return Err(format!("{name} is not what it prints"));
    }
    let k = 1 + draw.below(600);
    match plan(&spec, k) {
        Err(e) => readable(&e),
        Ok(plan) => {
            for program in plan
                .unpack
                .into_iter()
                .chain(plan.main.into_iter().map(|(_, p)| p))
            {
                Checked::new(program)
                    .map_err(|e| format!("{spec} k{k} is planned and not provable: {e}"))?;
            }
            Ok(())
        }
    }
}
