//! The search on recordings of real machines: how near the best it comes, for how many timings, whatever the luck of
//! the draw. No clock is involved, so the answer is the same everywhere.

use bitnet_codegen::{Feature, Features, KernelSpec};
use bitnet_runtime::network::estimates::estimates;
use bitnet_tests::workspace;
use bitnet_tune::estimate;
use bitnet_tune::landscape::Landscape;
use bitnet_tune::search::Search;
use bitnet_tune::space::Atlas;
use bitnet_tune::space::learn::Learner;
use std::fs;

/// The search must reach this share of the best …
const REACHED: f64 = 0.97;

/// … for this share of the timings of the whole recording.
const TIMINGS: f64 = 0.05;

const SEEDS: u64 = 20;

fn recordings() -> Vec<(String, Landscape)> {
    let folder = workspace().join("tests/landscapes");
    let files = fs::read_dir(&folder).expect("the recordings are there");
    let mut all: Vec<(String, Landscape)> = files
        .flatten()
        .filter(|f| f.path().extension().is_some_and(|e| e == "toml"))
        .map(|f| {
            let name = f.file_name().to_string_lossy().into_owned();
            let text = fs::read_to_string(f.path()).expect("read");
            let landscape = Landscape::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            (name, landscape)
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!all.is_empty(), "no recording in {}", folder.display());
    all
}

/// The share of the best that a search reaches, and its share of the timings. `first` are seeds of the search.
fn play(landscape: &Landscape, seed: u64, first: &[usize]) -> (f64, f64) {
    let space = landscape.space();
    let mut bench = landscape.replay(&space, seed);
    let mut learner = Learner::default();
    let mut search = Search::new(space, 0, first, &mut learner);
    while search.end().is_none() {
        search.step(&mut bench, &mut learner);
    }
    let outcome = search.outcome();
    let won = outcome.winner().expect("a winner");
    let won_ns = landscape.median_ns(&won.spec).expect("recorded");
    (
        landscape.best_ns() / won_ns,
        search.timings() as f64 / landscape.timings() as f64,
    )
}

#[test]
fn the_search_finds_on_every_recording() {
    let mut missed = Vec::new();
    for (name, landscape) in recordings() {
        let n = landscape.space().candidates().len();
        let (mut least, mut most) = (f64::INFINITY, 0f64);
        for seed in 0..SEEDS {
            // Another seed starts elsewhere, too.
            let first = [(seed as usize * 7919) % n];
            let (reached, timings) = play(&landscape, seed, &first);
            (least, most) = (least.min(reached), most.max(timings));
        }
        println!(
            "{name}: {n} candidates, at least {:.1} % of the best for at most {:.2} % of the timings",
            least * 100.0,
            most * 100.0
        );
        if least < REACHED || most > TIMINGS {
            missed.push(name);
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

/// What the cost model chooses for a lesser machine, by the recordings of a greater one, against what is chosen where
/// there is no profile at all: a shipped estimate must be worth shipping.
#[test]
fn estimates_are_no_worse_than_no_profile() {
    let avx2 = Features::from([
        Feature::Ssse3,
        Feature::Sse41,
        Feature::Avx,
        Feature::Avx2,
        Feature::Fma,
    ]);
    let (mut model, mut none) = (0.0, 0.0);
    for (name, landscape) in recordings() {
        let problem = landscape.case.problem;
        let mut atlas = Atlas::new(Box::new(move |s| s.isa.runs_on(avx2)));
        let space = atlas.space(landscape.case, &landscape.costs);
        let ns =
            |spec: &KernelSpec| landscape.median_ns(&space.candidates()[space.find(spec)?].spec);
        let all = space.candidates().iter();
        let best = all
            .filter_map(|c| landscape.median_ns(&c.spec))
            .fold(f64::INFINITY, f64::min);
        let guess = estimate::best(&space, avx2).expect("a guess");
        let untuned =
            estimates(avx2, landscape.case.product(), problem.m).find(|s| ns(s).is_some());
        let untuned = untuned.expect("an estimate that was recorded");
        let share = |spec: &KernelSpec| best / ns(spec).expect("recorded");
        println!(
            "{name}: the model's {} reaches {:.0} % of the best, {untuned} {:.0} %",
            guess.spec,
            share(&guess.spec) * 100.0,
            share(&untuned) * 100.0
        );
        model += share(&guess.spec).ln();
        none += share(&untuned).ln();
    }
    assert!(
        model >= none - 0.05,
        "model {model:.3}, no profile {none:.3}"
    );
}
