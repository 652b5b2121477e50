//! Adversarial tables: whatever rows and activations are, the likeliest tokens of every form are those of the exact
//! head, ties included, and no screened logit is further off than its bound says.

use super::exact::tests::stored;
use super::*;

use crate::lanes::tests::noise;
use crate::profile::Profile;
use bitnet_codegen::Features;
use proptest::prelude::*;

/// Every form that has codes for `dtype`.
fn forms(dtype: FloatType) -> Vec<HeadForm> {
    let native = codes::Native::of(dtype).map(|_| HeadForm::Native);
    native
        .into_iter()
        .chain([HeadForm::I8, HeadForm::I4])
        .collect()
}

struct Screened {
    pool: Pool,
    exact: Exact,
    coded: Coded,
    form: HeadForm,
    work: screen::Work,
}

impl Screened {
    fn new(table: FloatTensor<'_>, form: HeadForm, threads: usize) -> Option<Self> {
        let pool = Pool::new(threads).expect("threads");
        let mut kernels = Kernels::new(Features::detect(), Profile::default());
        let coded = Coded::new(&pool, &mut kernels, table, form, None)?;
        let work = screen::Work::new(coded.work(&pool));
        Some(Self {
            exact: Exact::of_table(&table),
            pool,
            coded,
            form,
            work,
        })
    }

    fn logits(&self, x: &[f32]) -> Vec<f32> {
        let mut all = vec![0.0; self.exact.vocab()];
        self.exact.forward(&self.pool, x, &mut all);
        all
    }

    /// Compares one token with the exact head; how many rows were computed again, if it was screened at all.
    fn check(&mut self, x: &[f32], k: usize, also: &[u32]) -> Option<usize> {
        let (all, what) = (self.logits(x), self.form);
        let among = all.len();
        let top = Top { k, among, also };
        let table = (&self.exact, &self.coded);
        if !screen::top(&self.pool, table, x, &top, &mut self.work) {
            return None;
        }
        let table = &self.work.table;
        for (row, &logit) in all.iter().enumerate() {
            let (score, radius) = (table.scores[row], table.radii[row]);
            let off = (f64::from(score) - f64::from(logit)).abs();
            assert!(
                off <= f64::from(radius),
                "{what}: row {row}: {score} is {off} from {logit}, radius {radius}"
            );
        }
        let found = &self.work.found;
        assert!(found.is_sorted_by(|a, b| a.id < b.id), "{what}: {found:?}");
        let same = |c: &Candidate| c.logit.to_bits() == all[c.id as usize].to_bits();
        assert!(found.iter().all(same), "{what}: exact logits");
        let has = |id: u32| found.binary_search_by_key(&id, |c| c.id).is_ok();
        assert!(also.iter().all(|&id| has(id)), "{what}: what was asked for");
        let mut order: Vec<u32> = (0..among as u32).collect();
        order.sort_by(|&a, &b| all[b as usize].total_cmp(&all[a as usize]).then(a.cmp(&b)));
        let kth = all[order[k.min(among) - 1] as usize];
        // Ties with the k-th as well: whatever rule the sampler breaks them by.
        for &id in order.iter().take_while(|&&id| all[id as usize] >= kth) {
            assert!(has(id), "{what}: {id} is among the {k} likeliest");
        }
        Some(found.len())
    }
}

fn table(dtype: FloatType, rows: usize, cols: usize, bytes: &[u8]) -> FloatTensor<'_> {
    FloatTensor {
        dtype,
        rows,
        cols,
        bytes,
    }
}

fn f16_bytes(values: &[f32]) -> Vec<u8> {
    let halves = values.iter().map(|&v| f16::from_f32(v).to_le_bytes());
    halves.flatten().collect()
}

/// Every stored type with every form, rows that fill no panel, K with tails where the type has any.
#[test]
fn every_type_and_form_finds_the_likeliest() {
    let mut screened = 0;
    for dtype in FloatType::ALL {
        let (block, _) = dtype.block();
        for (rows, k) in [(700, 512), (1025, 256), (333, 100), (333, 97)] {
            if k % block != 0 {
                continue;
            }
            let bytes = stored(dtype, rows * k, k as u32);
            for form in forms(dtype) {
                for threads in [1, 3] {
                    let source = table(dtype, rows, k, &bytes);
                    let Some(mut head) = Screened::new(source, form, threads) else {
                        continue;
                    };
                    for (seed, top) in [(1, 1), (2, 5), (3, 15)] {
                        let x = noise(k, seed);
                        let found = head.check(&x, top, &[0, 7, rows as u32 - 1]);
                        assert!(found.is_some(), "{dtype} {form} is screened");
                        screened += 1;
                    }
                }
            }
        }
    }
    println!("{screened} tokens screened");
    assert!(screened > 100 || no_kernel(), "{screened}");
}

/// Whether this CPU has no emitter, so that there is nothing to screen with.
fn no_kernel() -> bool {
    !cfg!(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    ))
}

/// A vocabulary as they are, 32 002 rows: five bits, eight bits and floats.
#[test]
fn a_whole_vocabulary_is_screened() {
    for dtype in [FloatType::Q6K, FloatType::Q5_0, FloatType::F16] {
        let (rows, k) = (32_002, 256);
        let bytes = match dtype {
            FloatType::F16 => f16_bytes(&noise(rows * k, 9)),
            blocks => stored(blocks, rows * k, 9),
        };
        for form in forms(dtype) {
            let Some(mut head) = Screened::new(table(dtype, rows, k, &bytes), form, 2) else {
                continue;
            };
            let x = noise(k, 77);
            for top in [1, 40, 500] {
                let found = head.check(&x, top, &[]).expect("screened");
                println!("{dtype} {form} top {top}: {found} rows computed again");
                let most = match form {
                    HeadForm::Native => top + 4,
                    HeadForm::I8 => 3 * top + 40,
                    _ => rows / 2,
                };
                assert!(found <= most, "{dtype} {form} top {top}: {found}");
            }
        }
    }
}

/// What rows are made of: the cases where a bound that is too small, or a tie that is broken otherwise, shows.
#[derive(Clone, Copy, Debug)]
enum Rows {
    Random,
    /// All the same.
    Equal,
    /// The same but for the last bit of one value.
    LastBit,
    /// One value a thousand times the others.
    Outlier,
    /// Magnitudes over the whole range of halves.
    Huge,
    /// So small that halves are not normal.
    Tiny,
    /// Orthogonal to the activations but for rounding.
    Flat,
    Zeros,
}

const ROWS: [Rows; 8] = [
    Rows::Random,
    Rows::Equal,
    Rows::LastBit,
    Rows::Outlier,
    Rows::Huge,
    Rows::Tiny,
    Rows::Flat,
    Rows::Zeros,
];

fn rows_of(kind: Rows, rows: usize, x: &[f32], seed: u32) -> Vec<f32> {
    let k = x.len();
    let base = noise(k, seed);
    let mut values: Vec<f32> = match kind {
        Rows::Random | Rows::Outlier | Rows::Flat => noise(rows * k, seed),
        Rows::Equal | Rows::LastBit => base.repeat(rows),
        Rows::Huge => {
            let scaled = |(i, v): (usize, f32)| v * 2f32.powi((i / k % 31) as i32 - 15);
            noise(rows * k, seed)
                .into_iter()
                .enumerate()
                .map(scaled)
                .collect()
        }
        Rows::Tiny => noise(rows * k, seed)
            .into_iter()
            .map(|v| v * 1e-7)
            .collect(),
        Rows::Zeros => vec![0.0; rows * k],
    };
    for (r, row) in values.chunks_exact_mut(k).enumerate() {
        match kind {
            Rows::LastBit => {
                let v = f16::from_f32(row[r % k]);
                row[r % k] = f16::from_bits(v.to_bits() ^ 1).to_f32();
            }
            Rows::Outlier => row[(r * 7) % k] *= 1000.0,
            Rows::Flat => {
                let dot: f32 = row.iter().zip(x).map(|(w, x)| w * x).sum();
                let squared: f32 = x.iter().map(|x| x * x).sum();
                for (w, x) in row.iter_mut().zip(x) {
                    *w -= dot / squared * x;
                }
            }
            _ => {}
        }
    }
    values
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn adversarial_rows_choose_as_the_exact_head(
        kind in 0..ROWS.len(), k in 1usize..200, rows in 16usize..400, top in 1usize..12,
        scale in -6i32..7, outlier in any::<bool>(), seed in any::<u32>(),
    ) {
        let mut x: Vec<f32> = noise(k, seed ^ 5).iter().map(|v| v * 10f32.powi(scale)).collect();
        if outlier {
            x[k / 2] *= 500.0;
        }
        let bytes = f16_bytes(&rows_of(ROWS[kind], rows, &x, seed));
        for form in [HeadForm::I8, HeadForm::I4] {
            if let Some(mut head) = Screened::new(table(FloatType::F16, rows, k, &bytes), form, 1) {
                head.check(&x, top, &[rows as u32 / 2]);
            }
        }
    }

    #[test]
    fn random_blocks_choose_as_the_exact_head(
        dtype in 0..FloatType::ALL.len(), rows in 16usize..200, top in 1usize..12,
        scale in -6i32..7, seed in any::<u32>(),
    ) {
        let dtype = FloatType::ALL[dtype];
        let k = 256;
        let mut bytes = stored(dtype, rows * k, seed);
        let row = dtype.row_bytes(k);
        // Half of the rows are the same.
        for r in (2..rows).step_by(2) {
            bytes.copy_within(..row, r * row);
        }
        let x: Vec<f32> = noise(k, seed ^ 5).iter().map(|v| v * 10f32.powi(scale)).collect();
        for form in forms(dtype) {
            if let Some(mut head) = Screened::new(table(dtype, rows, k, &bytes), form, 1) {
                head.check(&x, top, &[]);
            }
        }
    }
}

/// What is not finite, or might overflow, is left to the exact head.
#[test]
fn what_has_no_bound_is_not_screened() {
    let (rows, k) = (64, 32);
    let good = noise(rows * k, 1);
    let x = noise(k, 2);
    let with = |at: usize, v: f32| {
        let mut values = good.clone();
        values[at] = v;
        values
    };
    for form in [HeadForm::I8, HeadForm::I4] {
        for (values, bad) in [
            (good.clone(), false),
            (with(77, f32::NAN), true),
            (with(5, f32::INFINITY), true),
            (with(5, -65504.0), false),
        ] {
            let bytes = f16_bytes(&values);
            let Some(mut head) = Screened::new(table(FloatType::F16, rows, k, &bytes), form, 1)
            else {
                return;
            };
            assert_eq!(head.check(&x, 1, &[]).is_none(), bad, "{form}");
            for worse in [f32::NAN, f32::INFINITY, 1e30] {
                let mut x = x.clone();
                x[3] = worse;
                assert!(head.check(&x, 1, &[]).is_none(), "{form} {worse}");
            }
            assert!(head.check(&vec![0.0; k], 1, &[]).is_none(), "{form}");
            assert!(head.check(&x, rows / 2, &[]).is_none(), "most rows");
        }
        let huge: Vec<u8> = good.iter().flat_map(|v| (v * 1e37).to_le_bytes()).collect();
        let mut head =
            Screened::new(table(FloatType::F32, rows, k, &huge), form, 1).expect("as above");
        assert!(head.check(&x, 1, &[]).is_none(), "{form} overflows");
    }
}

#[test]
fn names_round_trip() {
    for form in HeadForm::ALL {
        assert_eq!(form.name().parse(), Ok(form));
    }
    assert!(
        "q8".parse::<HeadForm>()
            .unwrap_err()
            .to_string()
            .contains("native")
    );
}
