//! Coded products of every form, instruction set and shape of tile, compared with plain loops.

use super::*;
use crate::isa::{Features, Isa};
use crate::kernel::KernelSet;
use crate::spec::KernelSpec;

/// A table as its meaning: codes, scales and minimums in rows.
struct Table {
    form: &'static Form,
    k: usize,
    codes: Vec<u8>,
    scales: Vec<i8>,
    mins: Vec<i8>,
}

fn noise(i: usize, seed: u64) -> u64 {
    let x = (i as u64 ^ seed << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (x ^ x >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 33
}

/// What codes, scales and activations are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Data {
    Random,
    /// The largest codes and scales, and one activation: the sums that overflow first.
    Extreme(i16),
}

impl Table {
    fn new(form: &'static Form, rows: usize, k: usize, data: Data) -> Self {
        let kp = form.k_padded(k);
        let most = (1u64 << form.bits) - 1;
        let subs = form.sub.map_or(0, |s| kp / s.cols);
        let mins = if form.has_mins() { subs } else { 0 };
        let of = |n: usize, seed, extreme: i64, from: i64, span: u64| -> Vec<i64> {
            (0..n)
                .map(|i| match data {
                    Data::Random => from + (noise(i, seed) % span) as i64,
                    Data::Extreme(_) => extreme,
                })
                .collect()
        };
        let scales = |v: Vec<i64>| v.into_iter().map(|v| v as i8).collect();
        Self {
            form,
            k,
            codes: of(rows * kp, 1, most as i64, 0, most + 1)
                .into_iter()
                .map(|v| v as u8)
                .collect(),
            scales: scales(of(rows * subs, 2, -128, -128, 256)),
            mins: scales(of(rows * mins, 3, -128, -128, 256)),
        }
    }

    /// What one row gives.
    fn record(&self, row: usize, zero: i32, q: &[i16]) -> Vec<i64> {
        let (form, k) = (self.form, self.k);
        let kp = form.k_padded(k);
        let subs = form.sub.map_or(0, |s| kp / s.cols);
        let mins = if form.has_mins() { subs } else { 0 };
        let row = oracle::Row {
            codes: &self.codes[row * kp..][..kp],
            scales: &self.scales[row * subs..][..subs],
            mins: &self.mins[row * mins..][..mins],
        };
        oracle::record(form, k, row, zero, q)
    }

    fn pack(&self, packing: Packing) -> Vec<u8> {
        let kp = self.form.k_padded(self.k);
        let rows = self.codes.len() / kp;
        let mut panel = vec![0xAA; packing.bytes()];
        let part = |v: &[i8], r: usize| v[v.len() / rows * r..v.len() / rows * (r + 1)].to_vec();
        for row in 0..rows {
            let codes = &self.codes[row * kp..][..kp];
            let (scales, mins) = (part(&self.scales, row), part(&self.mins, row));
            packing.pack_row(row, codes, &scales, &mins, &mut panel);
        }
        panel
    }
}

/// Compares one panel through `kernel` with the plain loops.
fn check(kernel: &CodedKernel, tokens: usize, zero: i32, data: Data) {
    let packing = kernel.packing();
    let Packing { form, nr, k } = packing;
    let table = Table::new(form, nr, k, data);
    let panel = table.pack(packing);
    let mut planes = Planes::new(form, k, tokens, zero);
    let q: Vec<Vec<i16>> = (0..tokens)
        .map(|t| {
            let of = |i: usize| match data {
                Data::Random => {
                    (noise(i + t * k, 9) % (2 * PLANE_MAX as u64 + 1)) as i32 - PLANE_MAX
                }
                Data::Extreme(q) => i32::from(q),
            };
            (0..k).map(|i| of(i) as i16).collect()
        })
        .collect();
    for (t, q) in q.iter().enumerate() {
        planes.set(t, q);
    }
    let mut out = vec![i32::MIN; kernel.out_len(tokens)];
    kernel.run(&panel, &planes, &mut out);
    for row in 0..nr {
        for (t, q) in q.iter().enumerate() {
            let want = table.record(row, zero, q);
            let at = |i| oracle::place(packing, tokens, t, row, i);
            let got: Vec<i64> = (0..want.len()).map(|i| i64::from(out[at(i)])).collect();
            assert_eq!(
                got,
                want,
                "{} k{k} tokens {tokens} zero {zero} {data:?}: row {row} token {t}",
                kernel.spec()
            );
        }
    }
}

/// Zeros that tables of `form` have.
fn zeros(form: &Form) -> Vec<i32> {
    match form.values {
        Some(_) => vec![LOOK_UP_ZERO],
        None if form.has_mins() => vec![0],
        None => vec![0, form.max_zero() as i32],
    }
}

/// K around the steps of a form: the ones that its tables have.
fn lengths(form: &Form) -> Vec<usize> {
    match form.block {
        None => vec![1, 15, 16, 17, 100, 640],
        Some(block) => vec![block, 2 * block, 3 * block],
    }
}

fn specs(form: &Form, isa: Isa) -> Vec<KernelSpec> {
    let axes = axes(form, isa);
    let values = |name| {
        &axes
            .iter()
            .find(|a| a.name == name)
            .expect("an axis")
            .values
    };
    let mut specs = Vec::new();
    for &mr in values("mr") {
        for &nr in values("nr") {
            let kr = form.step().0;
            specs.push(
                KernelSpec::new(FAMILY, form.name, mr as usize, nr as usize, kr, isa).with("pf", 2),
            );
        }
    }
    specs
}

/// Each instruction set that makes programs of its own, by the interpreter at its width.
#[test]
fn interpreted_products_equal_plain_loops() {
    let mut seen = std::collections::BTreeSet::new();
    for &isa in Isa::ALL {
        if !seen.insert((
            isa.width(),
            isa.has_dot(),
            isa.dot_reads_u8(),
            isa.vector_registers(),
        )) {
            continue;
        }
        for form in FORMS {
            for spec in specs(form, isa) {
                let k = lengths(form)[1];
                let mut plan = plan(&spec, k).expect("a plan");
                plan.spec.isa = Isa::Interp;
                let kernel =
                    CodedKernel::build(plan, &KernelSet::new(Features::NONE)).expect("proven");
                for tokens in [1, kernel.tile(spec.mr / 2)] {
                    for zero in zeros(form) {
                        check(&kernel, tokens, zero, Data::Random);
                    }
                }
            }
        }
    }
    println!("{} kinds of instruction set", seen.len());
}

/// Every instruction set of this CPU, emitted: every form, tile, length and extreme.
#[test]
fn emitted_products_equal_plain_loops() {
    let cpu = Features::detect();
    let (mut products, mut left_out) = (0, Vec::new());
    for &isa in Isa::ALL.iter().filter(|i| i.runs_on(cpu)) {
        for form in FORMS {
            let mut some = false;
            for spec in specs(form, isa) {
                for k in lengths(form) {
                    let plan = plan(&spec, k).expect("a plan");
                    let kernel = match CodedKernel::build(plan, &KernelSet::new(cpu)) {
                        Ok(kernel) => kernel,
                        Err(crate::KernelError::Unsupported(why)) => {
                            left_out.push(why.to_string());
                            continue;
                        }
                        Err(other) => panic!("{other}"),
                    };
                    some = true;
                    for zero in zeros(form) {
                        for data in [
                            Data::Random,
                            Data::Extreme(-32_512),
                            Data::Extreme(32_512),
                            Data::Extreme(-129),
                        ] {
                            check(&kernel, kernel.tile(spec.mr / 2), zero, data);
                            products += 1;
                        }
                        check(&kernel, 1, zero, Data::Random);
                    }
                }
            }
            assert!(some, "{} has no kernel on {isa}: {left_out:?}", form.name);
        }
    }
    println!("{products} products, left out: {left_out:#?}");
    assert!(products > 500, "{products} products");
}

/// What this CPU does not run is proven and emitted all the same.
#[test]
fn every_instruction_set_has_a_kernel_of_every_form() {
    let all: Features = crate::Feature::ALL.iter().copied().collect();
    for &isa in Isa::ALL.iter().filter(|&&i| i != Isa::Interp) {
        let backend = crate::backend::for_isa(isa).expect("a backend");
        for form in FORMS {
            let mut smallest = specs(form, isa);
            smallest.sort_by_key(|s| (s.mr, s.nr));
            let k = lengths(form)[1];
            for (_, program) in plan(&smallest[0], k).expect("a plan").main {
                let program = crate::program::Checked::new(program).expect("proven");
                backend.emit(&program, isa, all).expect("emitted");
            }
        }
    }
}

/// The K of every model's head and some far longer ones: refused with a reason or proven.
#[test]
fn long_rows_are_proven_or_refused() {
    for form in FORMS {
        for k in [2560, 4096, 8192, 24_576, 1 << 17, 1 << 20] {
            let spec = specs(form, Isa::Avx512Vnni).remove(0);
            match plan(&spec, k) {
                Ok(plan) => {
                    for (_, program) in plan.main {
                        crate::program::Checked::new(program).expect("proven");
                    }
                }
                Err(why) => assert!(form.block.is_none() && k > 24_576, "{why}"),
            }
        }
    }
}
