//! The full grid of one spec: M 1…MR+1 × N 1…2NR+1 × K over every remainder of one and several blocks, every
//! product of it compared with the oracle in every element.
//!
//! What is the same for many products is made once: code for each K, tiles for each (K, M), panels for each
//! (K, N), and one oracle product for each K, whose corner M × N is the oracle of any smaller product.

use crate::bare::Bare;
use crate::guarded::{Edge, Guarded, name_faults};
use crate::product::{Data, rerun};
use bitnet_codegen::OutOrder;
use bitnet_codegen::{Activations, Features, Isa, KernelSpec, TernaryMatrix, oracle, plan};
use std::collections::BTreeSet;

/// Blocks of a K that is several: more than any family sums up before it widens.
const SEVERAL: usize = 17;

/// Multiply-adds, padding included, of a grid that is run as it is; where NR makes it larger, NR shrinks.
const BUDGET: usize = 100_000_000_000;

/// NR that a shrunken grid starts from: some rows for every turn of the loops over rows.
const LEAST_NR: usize = 16;

/// K below one block, of one block in every remainder, of several, and of every number of blocks up to three
/// more, so that loops end after every turn.
pub fn every_k(spec: &KernelSpec) -> Vec<usize> {
    let kr = spec.kr;
    // The interpreter is slow: its several are fewer.
    let several = match spec.isa {
        Isa::Interp => 3,
        _ => SEVERAL,
    };
    let small = 1..=2 * kr + 1;
    let large = several * kr..=(several + 1) * kr;
    // Whole blocks and all but one column of them, in turn.
    let blocks = (3..=several + 3).map(|b| b * kr - b % 2);
    let all: BTreeSet<usize> = small.chain(large).chain(blocks).collect();
    all.into_iter().collect()
}

/// How many products the grid of `spec` has.
pub fn count(spec: &KernelSpec) -> usize {
    (spec.mr + 1) * (2 * spec.nr + 1) * every_k(spec).len()
}

/// Multiply-adds of the grid, padding included; those of the interpreter count as many.
pub fn cost(spec: &KernelSpec) -> usize {
    let panels: usize = (1..=2 * spec.nr + 1).map(|n| n.div_ceil(spec.nr)).sum();
    let smallest = |m: usize| match spec.isa.width().bytes() / 2 {
        // Families of look-ups across tokens fill a vector with them.
        lanes if matches!(&spec.variant[..], "vlut" | "hybrid") => m.next_multiple_of(lanes),
        _ => m,
    };
    let tokens: usize = (1..=spec.mr + 1).map(smallest).sum();
    let k: usize = every_k(spec)
        .iter()
        .map(|k| k.next_multiple_of(spec.kr))
        .sum();
    let slow = if spec.isa == Isa::Interp { 2_500 } else { 1 };
    panels * spec.nr * tokens * k * slow
}

/// `spec`, or the same with the least NR from [`LEAST_NR`] on that its family takes, where its grid is too large.
pub fn affordable(spec: &KernelSpec) -> KernelSpec {
    if cost(spec) <= BUDGET {
        return spec.clone();
    }
    let least = if spec.isa == Isa::Interp { 4 } else { LEAST_NR };
    let fits = |s: &KernelSpec| every_k(s).into_iter().all(|k| plan(s, k).is_ok());
    (least..spec.nr)
        .step_by(4)
        .map(|nr| KernelSpec { nr, ..spec.clone() })
        .find(fits)
        .unwrap_or_else(|| spec.clone())
}

/// A tile of tokens as a kernel takes it.
struct Tile {
    first: usize,
    mr: usize,
    acts: Guarded,
    sums: Guarded,
    out: Guarded,
}

fn tiles(kernel: &Bare, acts: &Activations, nr: usize, edge: Edge) -> Vec<Tile> {
    let tile = |(first, mr): (usize, usize)| {
        let form = kernel.acts;
        let mut x = Guarded::zeroed(form.tile_bytes(mr, acts.k), edge);
        if form.needs_preparing() {
            form.prepare(acts, first, mr, x.bytes_mut());
        } else {
            let rows = acts.rows(first, mr.min(acts.m - first));
            x.bytes_mut()
                .iter_mut()
                .zip(rows)
                .for_each(|(to, &from)| *to = from as u8);
        }
        let mut sums = Guarded::zeroed(4 * mr, edge);
        sums.words_mut()
            .iter_mut()
            .zip(&acts.sums[first..])
            .for_each(|(to, &from)| *to = from);
        Tile {
            first,
            mr,
            acts: x,
            sums,
            out: Guarded::zeroed(4 * mr * nr, edge),
        }
    };
    kernel.tiles(acts.m).into_iter().map(tile).collect()
}

/// The right results of one K: token-major, for all tokens and rows of the grid.
struct Right {
    y: Vec<i32>,
    n: usize,
}

impl Right {
    /// Compares the rows of panel `panel`, `rows` of them, with what `tile` got. Returns how many are compared.
    fn compare(
        &self,
        tile: &Tile,
        (order, nr): (OutOrder, usize),
        (m, panel, rows): (usize, usize, usize),
        wrong: impl Fn(usize, usize, i32, i32) -> String,
    ) -> usize {
        let tokens = tile.mr.min(m - tile.first);
        let got = tile.out.words();
        for t in 0..tokens {
            let want = &self.y[(tile.first + t) * self.n + panel * nr..][..rows];
            for (r, &want) in want.iter().enumerate() {
                let got = got[order.index(t, r, tile.mr, nr)];
                assert!(
                    got == want,
                    "{}",
                    wrong(tile.first + t, panel * nr + r, got, want)
                );
            }
        }
        tokens * rows
    }
}

/// Runs the grid of `spec`; returns how many products equal the oracle.
///
/// # Errors
/// Why the emitter refuses the spec, if it does for the longest K.
///
/// # Panics
/// When a product differs, with the command that runs the spec again; when a shorter K has no kernel.
pub fn run(spec: &KernelSpec) -> Result<usize, String> {
    let every_k = every_k(spec);
    let longest = every_k.iter().copied().max().expect("a K");
    load(spec, longest)?;
    Ok(every_k.into_iter().map(|k| run_k(spec, k)).sum())
}

fn edge(k: usize) -> Edge {
    match k % 4 {
        0 => Edge::Start,
        _ => Edge::End,
    }
}

fn load(spec: &KernelSpec, k: usize) -> Result<Bare, String> {
    let plan = plan(spec, k).map_err(|e| e.to_string())?;
    Bare::new(plan, Features::detect(), edge(k))
}

fn run_k(spec: &KernelSpec, k: usize) -> usize {
    let edge = edge(k);
    let mut kernel =
        load(spec, k).unwrap_or_else(|why| panic!("{spec} k{k}: {why}\n{}", rerun(spec)));
    let (ms, ns, nr) = (spec.mr + 1, 2 * spec.nr + 1, spec.nr);
    let data = Data::Random((k * 31 + spec.mr) as u64);
    let (trits, codes) = (data.trits(ns, k), data.codes(ms, k));
    let matrix = |n: usize| TernaryMatrix::from_trits(n, k, &trits[..n * k], 1.0).expect("trits");
    let right = Right {
        y: oracle::matmul(&matrix(ns), &codes),
        n: ns,
    };
    let mut of_m: Vec<Vec<Tile>> = (1..=ms)
        .map(|m| {
            tiles(
                &kernel,
                &Activations::from_codes(m, k, &codes[..m * k]),
                nr,
                edge,
            )
        })
        .collect();
    let panel = kernel.panel;
    let pack = |w: &TernaryMatrix, p: usize| {
        let mut packed = Guarded::zeroed(panel.bytes(), edge);
        panel.pack(w, p, packed.bytes_mut());
        packed
    };
    let w = matrix(ns);
    let full: Vec<Guarded> = (0..ns / nr).map(|p| pack(&w, p)).collect();
    let mut products = 0;
    for n in 1..=ns {
        let text = format!(
            "\n{spec} leaves its operands: m 1 to {ms} n{n} k{k}, buffers at the {edge:?} of their pages\n{}\n",
            rerun(spec)
        );
        let partial = (!n.is_multiple_of(nr)).then(|| pack(&matrix(n), n / nr));
        let mut compared = vec![0; ms];
        let panels = full.iter().take(n / nr).chain(&partial);
        for (p, packed) in panels.map(Guarded::bytes).enumerate() {
            let rows = nr.min(n - p * nr);
            name_faults(&text, || kernel.load_panel(packed));
            for (m, tiles) in (1..).zip(&mut of_m) {
                for tile in tiles {
                    // Stale results of another panel must not survive.
                    tile.out.words_mut().fill(0x5A5A_5A5A);
                    let (acts, sums) = (tile.acts.bytes(), tile.sums.bytes());
                    let out = tile.out.bytes_mut();
                    name_faults(&text, || kernel.run(tile.mr, packed, acts, sums, out));
                    compared[m - 1] +=
                        right.compare(tile, (kernel.out, nr), (m, p, rows), |t, r, got, want| {
                            format!(
                                "{spec} m{m} n{n} k{k}, buffers at the {edge:?} of their pages: token {t} row {r}: \
                                 got {got}, the oracle says {want}\n{}",
                                rerun(spec)
                            )
                        });
                }
            }
        }
        for (m, compared) in (1..).zip(compared) {
            assert_eq!(compared, m * n, "{spec} m{m} n{n} k{k}: all of the product");
            products += 1;
        }
    }
    products
}

/// The grid is what its description says.
#[test]
fn the_grid_is_multiplied() {
    let spec = KernelSpec::new("i2s", "i2s", 4, 16, 16, Isa::Ssse3);
    let ks = every_k(&spec);
    for blocks in [1, SEVERAL] {
        for remainder in 0..16 {
            assert!(
                ks.contains(&(16 * blocks + remainder)),
                "{blocks} {remainder}"
            );
        }
    }
    for blocks in 1..=SEVERAL + 3 {
        assert!(ks.iter().any(|k| k.div_ceil(16) == blocks), "{blocks}");
    }
    assert_eq!(count(&spec), 5 * 33 * ks.len());
    let large: KernelSpec = "vlut-lut4-32x864c32-avx512bw-pf32-u4"
        .parse()
        .expect("a spec");
    assert_eq!(affordable(&large).nr, LEAST_NR);
    assert_eq!(affordable(&spec), spec);
}
