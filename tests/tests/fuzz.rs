//! The first executions of every fuzz target, and their shares.

use bitnet_tests::fuzz::TARGETS;

#[test]
fn the_first_seeds_of_every_target_find_nothing() {
    for target in TARGETS {
        let mut executions = 0;
        for seed in 0..u64::from(20 * target.weight.min(20)) {
            if let Err(found) = target.execute(seed) {
                panic!(
                    "{found}; cargo run --release -p bitnet-tests --bin fuzz -- --target {} --seed {seed}",
                    target.name
                );
            }
            executions += 1;
        }
        assert!(executions >= 40, "{}", target.name);
    }
}

#[test]
fn the_shares_of_the_targets_are_all_there_is() {
    let all: u32 = TARGETS.iter().map(|t| t.weight).sum();
    assert_eq!(all, 100);
    let mut names: Vec<_> = TARGETS.iter().map(|t| t.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), TARGETS.len());
}
