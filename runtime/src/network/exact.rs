//! Whether a kernel is exact on this very machine: looked at once, before it is used. A few rows of one panel and
//! every tile size are compared with the oracle; a millisecond or so, more for tall panels.
//!
//! Emitters are tested against the interpreter and programs are proven. This is for what no test elsewhere can see:
//! a CPU that computes otherwise than its features say, and code from a file that is not what the file says.

use bitnet_codegen::coded::{self, CodedKernel, LOOK_UP_ZERO, PLANE_MAX, Planes};
use bitnet_codegen::layout::scales::Stored;
use bitnet_codegen::noise::Noise;
use bitnet_codegen::trit::TritError;
use bitnet_codegen::{
    Activations, GroupedActs, Groups, Kernel, KernelSpec, Scales, Scratch, TernaryMatrix,
    Unsupported, oracle,
};
use std::fmt::Display;

/// Rows of the panel that are compared; the others are zeros.
const ROWS: usize = 6;

/// Compares `kernel` with the oracle.
///
/// # Errors
/// The first difference, as the reason not to use the kernel.
pub fn check(kernel: &Kernel) -> Result<(), Unsupported> {
    let (panel, k) = (kernel.panel(), kernel.k());
    let rows = rows_of(panel.shape.nr);
    let scales = match kernel.groups() {
        Some(groups) => Scales::Group {
            group_k: groups.scales.k,
            scales: group_scales(groups, rows.len() * groups.count(k)),
        },
        None => Scales::Tensor(1.0),
    };
    let w = TernaryMatrix::from_rows(rows.len(), k, scales, |row, codes| {
        // All +1, all −1, then a mixture.
        match row {
            0 => codes.fill(2),
            1 => codes.fill(0),
            _ => mix(row as u32, |i, x| codes[i] = (x % 3) as u8, k),
        }
        Ok::<_, TritError>(())
    })
    .map_err(|e| Unsupported::new(kernel.spec(), e.to_string()))?;
    let mut packed = vec![0; panel.bytes()];
    let place = |row| rows.iter().position(|r| *r == row);
    panel.pack_rows(|row| place(row).map(|i| (&w, i)), &mut packed);
    let mut scratch = kernel.scratch();
    kernel.load_panel(&packed, &mut scratch);
    if let Some(groups) = kernel.groups() {
        return check_grouped(kernel, groups, (&w, &rows, &packed), &mut scratch);
    }
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
                return Err(wrong(kernel.spec(), (t, row), got, want));
            }
        }
    }
    Ok(())
}

fn wrong(
    spec: &KernelSpec,
    (t, row): (usize, usize),
    got: impl Display,
    want: impl Display,
) -> Unsupported {
    let why =
        format!("WRONG RESULT on this machine: y[{t}][{row}] = {got}, the oracle says {want}");
    Unsupported::new(spec, why)
}

/// The rows of a panel of `nr` that are compared, from the first to the last.
fn rows_of(nr: usize) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..ROWS).map(|i| i * (nr - 1) / (ROWS - 1)).collect();
    rows.dedup();
    rows
}

/// Scales that are kept exactly as `groups` are stored.
fn group_scales(groups: Groups, count: usize) -> Vec<f32> {
    let of = |x: u32| match groups.scales.stored {
        Stored::F16 => (1 + x % 2000) as f32 / 4096.0,
        Stored::F32 => (1 + x) as f32 * 1e-7,
    };
    Noise::new(5).take(count).map(|x| of(x >> 8)).collect()
}

/// Compares a kernel that scales groups of columns, and gives f32, with the oracle in every bit.
fn check_grouped(
    kernel: &Kernel,
    groups: Groups,
    (w, rows, packed): (&TernaryMatrix, &[usize], &[u8]),
    scratch: &mut Scratch,
) -> Result<(), Unsupported> {
    let (k, nr) = (kernel.k(), kernel.panel().shape.nr);
    for mr in kernel.tile_sizes() {
        let mut acts = GroupedActs::default();
        acts.reshape(mr, k, groups.scales.k, groups.planes);
        let mut x = vec![0f32; k];
        for t in 0..mr {
            mix(
                91 + t as u32,
                |i, v| x[i] = v as u16 as i16 as f32 / 512.0,
                k,
            );
            acts.quantise_row(t, &x);
        }
        let mut out = vec![f32::NAN; kernel.out_len(mr)];
        let codes: &[u8] = bytemuck::cast_slice(acts.rows(0, mr));
        kernel.run_grouped(mr, packed, codes, acts.of_groups(0, mr), scratch, &mut out);
        let want = oracle::matmul_grouped(w, &acts);
        for (i, want) in want.into_iter().enumerate() {
            let (t, row) = (i / rows.len(), rows[i % rows.len()]);
            let got = out[kernel.out_order().index(t, row, mr, nr)];
            if got.to_bits() != want.to_bits() {
                return Err(wrong(kernel.spec(), (t, row), got, want));
            }
        }
    }
    Ok(())
}

/// Compares a coded product with plain loops: the largest codes and scales, then mixtures.
///
/// # Errors
/// The first difference, as the reason not to use the kernel.
pub fn check_coded(kernel: &CodedKernel) -> Result<(), Unsupported> {
    let packing = kernel.packing();
    let (form, k) = (packing.form, packing.k);
    let zero = match form.values {
        Some(_) => LOOK_UP_ZERO,
        None if form.has_mins() => 0,
        None => 1 << (form.bits - 1),
    };
    let subs = form.sub.map_or(0, |s| form.k_padded(k) / s.cols);
    let mins = if form.has_mins() { subs } else { 0 };
    let most = (1u32 << form.bits) - 1;
    let mut panel = vec![0; packing.bytes()];
    let mut compared = Vec::new();
    for (i, row) in rows_of(packing.nr).into_iter().enumerate() {
        let noise = |seed: u32, n| Noise::new(seed + 7 * i as u32).take(n).map(|x| x >> 16);
        let codes = noise(1, form.k_padded(k)).map(|x| if i == 0 { most } else { x & most } as u8);
        let scales = noise(2, subs).map(|x| if i == 0 { -128 } else { x as i8 });
        let mins = noise(3, mins).map(|x| if i == 0 { -128 } else { x as i8 });
        let (codes, scales, mins): (Vec<u8>, Vec<i8>, Vec<i8>) =
            (codes.collect(), scales.collect(), mins.collect());
        packing.pack_row(row, &codes, &scales, &mins, &mut panel);
        compared.push((row, codes, scales, mins));
    }
    for tokens in kernel.tile_sizes() {
        let mut planes = Planes::new(form, k, tokens, zero);
        let mut q = vec![vec![0i16; k]; tokens];
        for (t, q) in q.iter_mut().enumerate() {
            let span = 2 * PLANE_MAX as u32 + 1;
            mix(
                17 + t as u32,
                |i, x| q[i] = ((x * 31 % span) as i32 - PLANE_MAX) as i16,
                k,
            );
            planes.set(t, q);
        }
        let mut out = vec![i32::MIN; kernel.out_len(tokens)];
        kernel.run(&panel, &planes, &mut out);
        for (row, codes, scales, mins) in &compared {
            let parts = coded::oracle::Row {
                codes,
                scales,
                mins,
            };
            for (t, q) in q.iter().enumerate() {
                let want = coded::oracle::record(form, k, parts, zero, q);
                for (i, want) in want.into_iter().enumerate() {
                    let got = out[coded::oracle::place(packing, tokens, t, *row, i)];
                    if i64::from(got) != want {
                        return Err(wrong(kernel.spec(), (t, *row), got, want));
                    }
                }
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
    use bitnet_codegen::{Features, Isa, KernelSet, plan};

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
            "i2s-i2s-2x8c16-interp-f1-g32-p1-s16-u1",
            "i2s-i2s-2x8c16-interp-f1-g64-p2-s32-u1",
        ] {
            assert_eq!(check(&kernel(spec, 100, false)), Ok(()), "{spec}");
        }
        for bad in [
            "i2s-i2s-4x8c16-interp-f1-u1",
            "i2s-i2s-2x8c16-interp-f1-g32-p1-s16-u1",
        ] {
            let why = check(&kernel(bad, 100, true))
                .expect_err("it is wrong")
                .to_string();
            assert!(why.contains(bad) && why.contains("WRONG RESULT"), "{why}");
        }
    }

    #[test]
    fn coded_products_pass_and_a_planted_one_is_named() {
        let set = KernelSet::new(Features::NONE);
        for form in coded::FORMS {
            for planted in [false, true] {
                let k = 512;
                let mut plan =
                    coded::plan(&coded::default_spec(form, Isa::Avx2), k).expect("a plan");
                plan.spec.isa = Isa::Interp;
                for (_, program) in plan.main.iter_mut().filter(|_| planted) {
                    let last = program.consts.last_mut();
                    // A form without constants is spoilt where it starts its sums.
                    match last {
                        Some(byte) => *byte ^= 1,
                        None => spoil(&mut program.body),
                    }
                }
                let kernel = CodedKernel::build(plan, &set).expect("proven");
                let found = check_coded(&kernel);
                assert_eq!(found.is_err(), planted, "{}: {found:?}", form.name);
            }
        }
    }

    /// Multiplies by another factor somewhere.
    fn spoil(body: &mut [Stmt]) {
        for stmt in body {
            match stmt {
                Stmt::Let(_, Op::Splat32(x)) => *x ^= 1,
                Stmt::Let(_, op) => {
                    if let Op::Add32(a, b) = *op {
                        *op = Op::Sub32(a, b);
                    }
                }
                Stmt::Loop(l) => spoil(&mut l.body),
                _ => {}
            }
        }
    }
}
