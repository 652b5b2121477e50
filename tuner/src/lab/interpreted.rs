//! A kernel of any machine, compared with the oracle on this one: the very programs that its code is emitted from, run by
//! the interpreter.

use super::forge::make;
use super::verify::Verifier;
use crate::search::Rejection;
use bitnet_codegen::{Features, Isa, KernelSpec, Plan, Unsupported, plan};
use bitnet_runtime::pool::Pool;

/// The plan of `spec`, to be interpreted.
fn interpreted(spec: &KernelSpec, k: usize) -> Result<Plan, Unsupported> {
    let mut plan = plan(spec, k)?;
    plan.spec.isa = Isa::Interp;
    Ok(plan)
}

/// The verdict of the oracle on the programs of one kernel for products with K = `k`, a small one: they are interpreted.
///
/// # Errors
/// [`Rejection`].
pub fn verify(pool: &Pool, spec: &KernelSpec, k: usize) -> Result<(), Rejection> {
    let kernel = make(interpreted, Features::NONE, &(spec.clone(), k))?;
    Verifier::default().verify(pool, &kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_of_machines_that_are_not_here_have_a_verdict() {
        let pool = Pool::new(1).expect("a thread");
        for name in [
            "i2s-i2s-1x16c16-sdot-f2-pf0-u1",
            "i2s-i2s-1x16c16-avx2-f0-pf0-u1",
            "tl1-tl1-1x64c4-neon-u1",
        ] {
            let spec: KernelSpec = name.parse().expect("a spec");
            verify(&pool, &spec, 100).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        let none: KernelSpec = "i2s-i2s-1x7c16-sdot".parse().expect("a spec");
        assert!(matches!(
            verify(&pool, &none, 100),
            Err(Rejection::Unsupported(_))
        ));
    }
}
