//! What the pictures show, as numbers: from a profile, and from recordings of whole search spaces.

use crate::landscape::Landscape;
use bitnet_codegen::KernelSpec;
use bitnet_runtime::graph::Product;
use bitnet_runtime::profile::{Entry, M_BUCKETS, Profile};
use std::collections::{BTreeMap, BTreeSet};

/// One kernel on one product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Multiply-accumulates for each byte of weights.
    pub macs_per_byte: f64,
    /// Multiply-accumulates a second, in billions.
    pub gmac_per_s: f64,
    /// What it took.
    pub ns: f64,
    /// What the cost model expected; 0 if it was not asked.
    pub predicted_ns: f64,
    /// Threads.
    pub threads: usize,
}

/// One recorded candidate.
pub struct Candidate {
    /// Its name.
    pub spec: KernelSpec,
    /// What it did.
    pub point: Point,
}

/// One recorded product.
pub struct Recording {
    /// The product, in words.
    pub title: String,
    /// All candidates.
    pub candidates: Vec<Candidate>,
}

/// The roof of one number of threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roof {
    /// Threads.
    pub threads: usize,
    /// Memory.
    pub read_gb_per_s: f64,
    /// The dot-product unit.
    pub peak_gmac_per_s: f64,
}

/// Multiply-accumulates a second by threads, of one product and number of tokens.
pub struct Curve {
    /// The product, in words.
    pub title: String,
    /// (threads, GMAC/s).
    pub points: Vec<(usize, f64)>,
}

/// Everything.
pub struct Data {
    /// Winners, in the order of the profile.
    pub winners: Vec<Point>,
    /// Half intervals of their medians, as shares; of entries with an interval only.
    pub spread: Vec<f64>,
    /// The machine's own noise.
    pub noise: f64,
    /// Roofs.
    pub roofs: Vec<Roof>,
    /// Decoding, and the longest prompts.
    pub curves: [Vec<Curve>; 2],
    /// Recordings.
    pub recordings: Vec<Recording>,
}

/// No machine has more.
const MAX_THREADS: usize = 1 << 16;

/// What no measurement gives: such numbers, from a broken file, are left out of pictures.
fn is_sound(p: &Point) -> bool {
    let all = [p.macs_per_byte, p.gmac_per_s, p.ns];
    (1..=MAX_THREADS).contains(&p.threads)
        && all
            .iter()
            .all(|v| v.is_finite() && (1e-6..1e15).contains(v))
}

fn winner(e: &Entry) -> Point {
    let v = &e.evidence;
    Point {
        macs_per_byte: v.gmac_per_s / v.gb_per_s,
        gmac_per_s: v.gmac_per_s,
        ns: v.median_ns,
        predicted_ns: v.predicted_ns,
        threads: v.threads,
    }
}

impl Data {
    /// Of a profile and recordings.
    pub fn of(profile: &Profile, recordings: &[Landscape]) -> Self {
        let entries = || profile.entries.iter();
        let spread = entries().map(|e| {
            let (low, high) = e.evidence.interval_ns;
            (high - low) / 2.0 / e.evidence.median_ns
        });
        let sound = |v: &f64| v.is_finite() && *v > 0.0 && *v < 10.0;
        Self {
            winners: entries().map(winner).filter(is_sound).collect(),
            spread: spread.filter(sound).collect(),
            noise: Some(profile.conditions.noise).filter(sound).unwrap_or(0.0),
            roofs: roofs(profile),
            curves: [0, M_BUCKETS.len() - 1].map(|bucket| curves(profile, bucket)),
            recordings: recordings.iter().map(recording).collect(),
        }
    }
}

fn roofs(profile: &Profile) -> Vec<Roof> {
    let reads = profile.host.read_gb_per_s.iter();
    let roofs = reads.filter_map(|(key, &read_gb_per_s)| {
        Some(Roof {
            threads: key.parse().ok()?,
            read_gb_per_s,
            peak_gmac_per_s: *profile.host.peak_gmac_per_s.get(key)?,
        })
    });
    let sound = |v: f64| v.is_finite() && (1e-3..1e9).contains(&v);
    let mut roofs: Vec<Roof> = roofs
        .filter(|r| sound(r.read_gb_per_s) && sound(r.peak_gmac_per_s))
        .collect();
    roofs.sort_by_key(|r| r.threads);
    roofs
}

fn curves(profile: &Profile, bucket: usize) -> Vec<Curve> {
    let mut by_product: BTreeMap<Product, BTreeMap<usize, f64>> = BTreeMap::new();
    let entries = profile.entries.iter();
    for e in entries.filter(|e| e.bucket == M_BUCKETS[bucket] && is_sound(&winner(e))) {
        let curve = by_product.entry(e.product()).or_default();
        curve.insert(e.evidence.threads, e.evidence.gmac_per_s);
    }
    // The largest products first, as many as can be told apart.
    let mut products: Vec<_> = by_product.into_iter().collect();
    products.sort_by_key(|(p, _)| std::cmp::Reverse(p.n.saturating_mul(p.k)));
    products.truncate(super::chart::SERIES);
    let curve = |(product, points): (Product, BTreeMap<usize, f64>)| Curve {
        title: words(product),
        points: points.into_iter().collect(),
    };
    products.into_iter().map(curve).collect()
}

/// A product, in words.
pub fn words(product: Product) -> String {
    let Product { n, k, groups } = product;
    match groups {
        None => format!("{n} × {k}"),
        Some(groups) => format!("{n} × {k}, scales of {} columns", groups.scales.k),
    }
}

fn recording(landscape: &Landscape) -> Recording {
    let case = landscape.case;
    let p = case.problem;
    let space = landscape.space();
    let candidates = space.candidates().iter().filter_map(|c| {
        let ns = landscape.median_ns(&c.spec)?;
        let point = Point {
            macs_per_byte: case.macs() as f64 / c.weight_bytes as f64,
            gmac_per_s: case.macs() as f64 / ns,
            ns,
            predicted_ns: c.estimate.ns,
            threads: case.threads,
        };
        is_sound(&point).then(|| Candidate {
            spec: c.spec.clone(),
            point,
        })
    });
    Recording {
        title: format!(
            "{} for {} tokens on {} threads",
            words(case.product()),
            p.m,
            case.threads
        ),
        candidates: candidates.collect(),
    }
}

/// Tiles that a heat map shows.
const TILES: usize = 36;

/// A table of shares of the best: rows, columns, and by (row, column) what is known.
pub struct Heat {
    /// Tiles.
    pub rows: Vec<String>,
    /// Families with their layouts and instruction sets.
    pub columns: Vec<String>,
    /// Shares of the best.
    pub cells: BTreeMap<(usize, usize), f64>,
}

impl Recording {
    /// The best of each tile under each family, layout and instruction set; of the best [`TILES`] tiles.
    pub fn heat(&self) -> Heat {
        let row = |s: &KernelSpec| (s.mr, s.nr);
        let mut by_tile: BTreeMap<(usize, usize), f64> = BTreeMap::new();
        for c in &self.candidates {
            let tile = by_tile.entry(row(&c.spec)).or_insert(f64::INFINITY);
            *tile = tile.min(c.point.ns);
        }
        let mut tiles: Vec<_> = by_tile.into_iter().collect();
        tiles.sort_by(|a, b| a.1.total_cmp(&b.1));
        tiles.truncate(TILES);
        let shown: BTreeSet<(usize, usize)> = tiles.into_iter().map(|(tile, _)| tile).collect();
        let column = |s: &KernelSpec| format!("{} {} {}", s.variant, s.layout, s.isa);
        let all = || {
            self.candidates
                .iter()
                .filter(|c| shown.contains(&row(&c.spec)))
        };
        let columns: BTreeSet<String> = all().map(|c| column(&c.spec)).collect();
        let (columns, rows) = (
            Vec::from_iter(columns),
            Vec::from_iter(shown.iter().copied()),
        );
        let best = all().map(|c| c.point.ns).fold(f64::INFINITY, f64::min);
        let mut cells: BTreeMap<(usize, usize), f64> = BTreeMap::new();
        for c in all() {
            let place = (
                rows.binary_search(&row(&c.spec)).expect("listed above"),
                columns
                    .binary_search(&column(&c.spec))
                    .expect("listed above"),
            );
            let cell = cells.entry(place).or_insert(0.0);
            *cell = cell.max(best / c.point.ns);
        }
        let rows = rows.iter().map(|(mr, nr)| format!("{mr} × {nr}"));
        Heat {
            rows: rows.collect(),
            columns,
            cells,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heat_map_holds_the_best_of_each_tile() {
        let candidate = |name: &str, ns: f64| Candidate {
            spec: name.parse().expect("a spec"),
            point: Point {
                macs_per_byte: 4.0,
                gmac_per_s: 1.0,
                ns,
                predicted_ns: ns,
                threads: 1,
            },
        };
        let recording = Recording {
            title: "x".into(),
            candidates: vec![
                candidate("i2s-i2s-1x8c16-avx2-pf0", 200.0),
                candidate("i2s-i2s-1x8c16-avx2-pf32", 100.0),
                candidate("i2s-i2s-1x16c16-avx2-pf0", 400.0),
                candidate("tl1-tl1-1x16c4-avx2-u1", 50.0),
            ],
        };
        let heat = recording.heat();
        assert_eq!(heat.rows, ["1 × 8", "1 × 16"]);
        assert_eq!(heat.columns, ["i2s i2s avx2", "tl1 tl1 avx2"]);
        let cells: Vec<_> = heat.cells.into_iter().collect();
        assert_eq!(cells, [((0, 0), 0.5), ((1, 0), 0.125), ((1, 1), 1.0)]);
    }
}
