//! Whether a kernel is exact on this very machine: looked at once, before it is used. A few rows of one panel and
//! every tile size are compared with the oracle; a millisecond or so, more for tall panels.
//!
//! Emitters are tested against the interpreter and programs are proven. This is for what no test elsewhere can see:
//! a CPU that computes otherwise than its features say.

use bitnet_codegen::noise::Noise;
use bitnet_codegen::trit::TritError;
use bitnet_codegen::{Activations, Kernel, Scales, TernaryMatrix, Unsupported, oracle};

/// Rows of the panel that are compared; the others are zeros.
const ROWS: usize = 6;

/// Compares `kernel` with the oracle.
///
/// # Errors
/// The first difference, as the reason not to use the kernel.
pub fn check(kernel: &Kernel) -> Result<(), Unsupported> {
    if kernel.groups().is_some() {
        // It gives f32, which the oracle of one scale knows nothing of.
        return Ok(());
    }
    let (panel, k) = (kernel.panel(), kernel.k());
    let shape = panel.shape;
    let mut rows: Vec<usize> = (0..ROWS).map(|i| i * (shape.nr - 1) / (ROWS - 1)).collect();
    rows.dedup();
    let w = TernaryMatrix::from_rows(rows.len(), k, Scales::Tensor(1.0), |row, codes| {
        // All +1, all −1, then a mixture.
        match row {
            0 => codes.fill(2),
            1 => codes.fill(0),
            _ => mix(row as u32, |i, x| codes[i] = (x % 3) as u8, k),
        }
        Ok::<_, TritError>(())
    })
    .map_err(|e| Unsupported::new(kernel.spec(), e.to_string()))?;
    let k_padded = panel.layout.k_padded(shape);
    let mut codes = vec![bitnet_codegen::trit::CODE_ZERO; shape.nr * k_padded];
    for (i, &row) in rows.iter().enumerate() {
        w.unpack_row(i, &mut codes[row * k_padded..][..k]);
    }
    let mut packed = vec![0; panel.bytes()];
    panel.layout.pack_panel(shape, &codes, &mut packed);
    let mut scratch = kernel.scratch();
    kernel.load_panel(&packed, &mut scratch);
    for mr in kernel.tile_sizes() {
        let acts = tokens(mr, k);
        let form = kernel.acts_form();
        let mut tile = vec![0; form.tile_bytes(mr, k)];
        if form.needs_preparing() {
            form.prepare(&acts, 0, mr, &mut tile);
        } else {
            tile.copy_from_slice(bytemuck::cast_slice(acts.rows(0, mr)));
        }
        let mut out = vec![0; kernel.out_len(mr)];
        kernel.run(mr, &packed, &tile, &acts.sums, &mut scratch, &mut out);
        compare(kernel, &w, &rows, &acts, &out)?;
    }
    Ok(())
}

fn compare(
    kernel: &Kernel,
    w: &TernaryMatrix,
    rows: &[usize],
    acts: &Activations,
    out: &[i32],
) -> Result<(), Unsupported> {
    let x: Vec<i8> = (0..acts.m)
        .flat_map(|t| acts.rows(t, 1)[..acts.k].to_vec())
        .collect();
    let mut want = vec![0; acts.m];
    for (i, &row) in rows.iter().enumerate() {
        oracle::output(w, i, &x, &mut want);
        for (t, &want) in want.iter().enumerate() {
            let got = out[kernel
                .out_order()
                .index(t, row, acts.m, kernel.panel().shape.nr)];
            if got != want {
                return Err(Unsupported::new(
                    kernel.spec(),
                    format!(
                        "WRONG RESULT on this machine: y[{t}][{row}] = {got}, the oracle says {want}"
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// Mixed codes, extremes among them; the second token is −128 throughout, the third 127.
fn tokens(m: usize, k: usize) -> Activations {
    let mut q = vec![0i8; m * k];
    for (t, row) in q.chunks_exact_mut(k).enumerate() {
        match t {
            1 => row.fill(-128),
            2 => row.fill(127),
            _ => mix(
                77 + t as u32,
                |i, x| row[i] = if i % 61 == 0 { -128 } else { x as u8 as i8 },
                k,
            ),
        }
    }
    Activations::from_codes(m, k, &q)
}

/// `put(i, x)` for `n` numbers of a repeatable stream.
fn mix(seed: u32, mut put: impl FnMut(usize, u32), n: usize) {
    for (i, x) in Noise::new(seed).take(n).enumerate() {
        put(i, x >> 16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_codegen::program::{Op, Stmt};
    use bitnet_codegen::{Features, KernelSet, KernelSpec, plan};

    /// The kernel, with Σx added where it should be subtracted if `planted`.
    fn kernel(spec: &str, k: usize, planted: bool) -> std::sync::Arc<Kernel> {
        let spec: KernelSpec = spec.parse().expect("a spec");
        let mut plan = plan(&spec, k).expect("it exists");
        let ops = plan.main.iter_mut().flat_map(|(_, p)| &mut p.body);
        for stmt in ops.filter(|_| planted) {
            if let Stmt::Let(_, op) = stmt
                && let Op::Sub32(a, b) = *op
            {
                *op = Op::Add32(a, b);
            }
        }
        let set = KernelSet::build(vec![plan], Features::NONE).expect("built");
        std::sync::Arc::clone(&set.kernels()[0])
    }

    #[test]
    fn exact_kernels_pass_and_a_planted_one_is_named() {
        for spec in [
            "i2s-i2s-4x8c16-interp-f1-u1",
            "tl1-tl1-1x64c4-interp-u1",
            "vlut-lut4-8x256c64-interp-a0-pf0-u2",
            "gemm-i2s-6x8c16-interp-pf0-u4",
        ] {
            assert_eq!(check(&kernel(spec, 100, false)), Ok(()), "{spec}");
        }
        let bad = "i2s-i2s-4x8c16-interp-f1-u1";
        let why = check(&kernel(bad, 100, true))
            .expect_err("it is wrong")
            .to_string();
        assert!(why.contains(bad) && why.contains("WRONG RESULT"), "{why}");
    }
}
