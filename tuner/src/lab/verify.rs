//! Whether a kernel is exact: compared with the oracle before it is ever timed.
//!
//! Every tile size, panels cut short by N, tokens past the last tile, columns past K, random weights beside rows of
//! all +1, all −1 and zeros, random activations beside ±127 and −128 throughout. Tall panels are checked on rows
//! from all over them, for the oracle is slow by design.

use super::layer::{Layer, Tokens};
use crate::search::{Mismatch, Rejection};
use bitnet_codegen::layout::scales::Stored;
use bitnet_codegen::noise::Noise;
use bitnet_codegen::trit::TritError;
use bitnet_codegen::{
    Activations, GroupedActs, Groups, Kernel, Problem, Scales, TernaryMatrix, oracle,
};
use bitnet_runtime::graph::Product;
use bitnet_runtime::network::linear::Workspace;
use bitnet_runtime::pool::Pool;
use std::collections::HashMap;
use std::sync::Arc;

/// Panels up to this many rows are doubled, so that the second is cut short.
const SMALL_PANEL: usize = 128;

/// Rows that are compared.
const ROWS: usize = 48;

/// A repeatable stream of numbers for each of the many rows and tokens.
fn stream(seed: u32) -> impl FnMut() -> u32 {
    let mut noise = Noise::new(seed.wrapping_mul(2_654_435_761));
    move || noise.next().expect("without end") >> 16
}

/// Row `row` of every test matrix: extremes first, then random codes.
fn fill_row(row: usize, codes: &mut [u8]) {
    match row {
        0 => codes.fill(2),
        1 => codes.fill(0),
        2 => codes.fill(1),
        _ => {
            let mut next = stream(row as u32);
            codes.iter_mut().for_each(|c| *c = (next() % 3) as u8);
        }
    }
}

/// The scale of group `g` of row `row`: one that is stored as it is.
fn scale(row: usize, g: usize, stored: Stored) -> f32 {
    let noise = stream((row * 31 + g) as u32)();
    match stored {
        Stored::F16 => (1 + noise % 2000) as f32 / 4096.0,
        Stored::F32 => (1 + noise) as f32 * 1e-7,
    }
}

/// A matrix of such rows.
pub fn matrix(product: Product) -> TernaryMatrix {
    let Product { n, k, groups } = product;
    let scales = groups.map_or(Scales::Tensor(1.0), |groups| {
        let of_row = |row| (0..groups.count(k)).map(move |g| scale(row, g, groups.scales.stored));
        Scales::Group {
            group_k: groups.scales.k,
            scales: (0..n).flat_map(of_row).collect(),
        }
    });
    TernaryMatrix::from_rows(n, k, scales, |row, codes| {
        fill_row(row, codes);
        Ok::<_, TritError>(())
    })
    .expect("codes below 3 and scales above 0 are a matrix")
}

/// Row `row` of the activations of every test: −128, 127 and −127 throughout, then random codes with extremes among
/// them.
fn fill_acts(row: usize, k: usize) -> Vec<i8> {
    // A single token must be a mixed one: it is all that a decode kernel sees.
    match row {
        1 => vec![-128; k],
        2 => vec![127; k],
        3 => vec![-127; k],
        _ => {
            let mut next = stream(0xACE + row as u32);
            let extreme = |i: usize| [127, -127, -128].get(i % 61).copied();
            (0..k)
                .map(|i| extreme(i).unwrap_or_else(|| (next() % 255) as u8 as i8))
                .collect()
        }
    }
}

/// Tokens `from..from + m` of every test; each is a row of activations for each plane.
pub fn tokens(from: usize, m: usize, k: usize, groups: Option<Groups>) -> Tokens {
    let planes = groups.map_or(1, |g| g.planes);
    let rows = from * planes..(from + m) * planes;
    let q: Vec<i8> = rows.flat_map(|row| fill_acts(row, k)).collect();
    let Some(groups) = groups else {
        return Tokens::Plain(Activations::from_codes(m, k, &q));
    };
    let of_token = |t| (0..groups.count(k)).map(move |g| scale(t, g, Stored::F32));
    let scales: Vec<f32> = (from..from + m).flat_map(of_token).collect();
    let width = (groups.scales.k, planes);
    Tokens::Grouped(GroupedActs::from_codes((m, k), width, &q, &scales))
}

/// `count` rows from all over `n`, the first and the last among them.
fn spread(n: usize, count: usize) -> Vec<usize> {
    if n <= count {
        return (0..n).collect();
    }
    let (head, tail) = (count / 4, count / 4);
    let middle = count - head - tail;
    let between = |i: usize| head + i * (n - tail - head) / middle;
    (0..head)
        .chain((0..middle).map(between))
        .chain(n - tail..n)
        .collect()
}

/// Rows that the oracle has been asked for: groups, K, row, first token, tokens.
type Known = HashMap<(Option<Groups>, usize, usize, usize, usize), Vec<f64>>;

/// Compares kernels with the oracle; each kernel and K once.
#[derive(Default)]
pub struct Verifier {
    matrices: HashMap<Product, Arc<TernaryMatrix>>,
    rows: Known,
    verdicts: HashMap<(String, usize), Result<(), Rejection>>,
}

impl Verifier {
    /// Whether `kernel` is exact.
    ///
    /// # Errors
    /// [`Rejection::Wrong`], with the first difference.
    pub fn verify(&mut self, pool: &Pool, kernel: &Arc<Kernel>) -> Result<(), Rejection> {
        let key = (kernel.spec().to_string(), kernel.k());
        if let Some(verdict) = self.verdicts.get(&key) {
            return verdict.clone();
        }
        let verdict = self.look(pool, kernel);
        self.verdicts.insert(key, verdict.clone());
        verdict
    }

    fn look(&mut self, pool: &Pool, kernel: &Arc<Kernel>) -> Result<(), Rejection> {
        let (nr, k) = (kernel.panel().shape.nr, kernel.k());
        let n = match nr {
            ..=SMALL_PANEL => 2 * nr - nr.min(3).min(nr - 1),
            _ => nr - 3,
        };
        let sizes: Vec<usize> = kernel.tile_sizes().collect();
        let most: usize = sizes.iter().sum();
        // The smallest tile is larger than one token: the last one is filled up with zeros.
        let m = most + usize::from(!sizes.contains(&1)) * 3;
        let groups = kernel.groups();
        let product = Product { n, k, groups };
        let w = self.matrices.entry(product);
        let w = Arc::clone(w.or_insert_with(|| Arc::new(matrix(product))));
        let layer = Layer::of_one(pool, &w, kernel);
        let layer = layer.map_err(|e| Rejection::NotHere(e.to_string()))?;
        let mut work = Workspace::new(pool);
        // A tile of one token sees one token: the extremes have a turn of their own.
        let starts: &[usize] = if m < 4 { &[0, 1, 2, 3] } else { &[0] };
        for &from in starts {
            let acts = tokens(from, m, k, groups);
            let got = layer.exact(pool, &mut work, &acts);
            self.compare(kernel, &w, &acts, from, &got)?;
        }
        Ok(())
    }

    fn compare(
        &mut self,
        kernel: &Kernel,
        w: &TernaryMatrix,
        acts: &Tokens,
        from: usize,
        got: &[f64],
    ) -> Result<(), Rejection> {
        let (n, k, m) = (w.n(), w.k(), acts.m());
        for row in spread(n, ROWS) {
            let want = self
                .rows
                .entry((kernel.groups(), k, row, from, m))
                .or_insert_with(|| told(w, row, acts));
            same(kernel, (row, n), got, want)?;
        }
        Ok(())
    }
}

/// What the oracle tells of one row for all tokens.
fn told(w: &TernaryMatrix, row: usize, acts: &Tokens) -> Vec<f64> {
    match acts {
        Tokens::Plain(acts) => {
            let tokens = (0..acts.m).flat_map(|t| acts.rows(t, 1)[..acts.k].to_vec());
            let x: Vec<i8> = tokens.collect();
            let mut y = vec![0; acts.m];
            oracle::output(w, row, &x, &mut y);
            y.into_iter().map(f64::from).collect()
        }
        Tokens::Grouped(acts) => {
            let mut y = vec![0.0; acts.m];
            oracle::output_grouped(w, row, acts, &mut y);
            y.into_iter().map(f64::from).collect()
        }
    }
}

/// Compares row `row` of `got`, `[m, n]`, with what the oracle told, bit by bit.
fn same(
    kernel: &Kernel,
    (row, n): (usize, usize),
    got: &[f64],
    want: &[f64],
) -> Result<(), Rejection> {
    for (t, &want) in want.iter().enumerate() {
        let got = got[t * n + row];
        if got.to_bits() != want.to_bits() {
            return Err(wrong(kernel, (t, row), got, want));
        }
    }
    Ok(())
}

fn wrong(kernel: &Kernel, at: (usize, usize), got: f64, want: f64) -> Rejection {
    let (token, row) = at;
    Rejection::Wrong(Mismatch {
        spec: kernel.spec().clone(),
        problem: Problem::new(token + 1, row + 1, kernel.k()),
        token,
        row,
        got,
        want,
    })
}

/// A few rows of a product and what the oracle says of them: whether the runtime puts the results of a kernel
/// where they belong.
pub struct Spot {
    rows: Vec<(usize, Vec<f64>)>,
    n: usize,
}

impl Spot {
    /// Of `w` times `acts`.
    pub fn new(w: &TernaryMatrix, acts: &Tokens) -> Self {
        let rows = spread(w.n(), 8).into_iter();
        Self {
            rows: rows.map(|row| (row, told(w, row, acts))).collect(),
            n: w.n(),
        }
    }

    /// Compares `got`, `[m, n]`, made by `kernel`.
    ///
    /// # Errors
    /// [`Rejection::Wrong`].
    pub fn check(&self, kernel: &Kernel, got: &[f64]) -> Result<(), Rejection> {
        let mut rows = self.rows.iter();
        rows.try_for_each(|(row, want)| same(kernel, (*row, self.n), got, want))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_from_all_over() {
        assert_eq!(spread(5, 48), [0, 1, 2, 3, 4]);
        for n in [49, 100, 2557] {
            let rows = spread(n, 48);
            assert_eq!((rows.len(), rows[0], rows[47]), (48, 0, n - 1));
            assert!(rows.windows(2).all(|w| w[0] < w[1]), "{rows:?}");
        }
    }

    #[test]
    fn the_extremes_are_among_rows_and_tokens() {
        let plain = Product {
            n: 5,
            k: 70,
            groups: None,
        };
        let w = matrix(plain);
        assert!((0..70).all(|c| w.trit(0, c) == 1 && w.trit(1, c) == -1 && w.trit(2, c) == 0));
        let plain = |from, m| match tokens(from, m, 70, None) {
            Tokens::Plain(acts) => acts,
            Tokens::Grouped(_) => panic!("there are no groups"),
        };
        let a = plain(0, 4);
        assert!(a.rows(1, 1)[..70].iter().all(|&q| q == -128));
        assert!(a.rows(2, 1)[..70].iter().all(|&q| q == 127));
        assert!(a.rows(0, 1)[..70].contains(&-128) && a.rows(0, 1)[..70].contains(&127));
        assert_eq!(plain(1, 1).rows(0, 1), a.rows(1, 1));
    }
}
