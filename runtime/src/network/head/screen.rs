//! From screened logits to the likeliest tokens: a floor under the k-th likeliest from a few exact logits, then the
//! exact logits of every row that may reach it.

use super::exact::Exact;
use super::loops::{above, reaching};
use super::table::{self, Coded};
use crate::logits::{Candidate, Top};
use crate::pool::{Chunks, Pool};

/// Where more than one row in this many is asked for, all logits are cheaper.
const LEAST_SHARE: usize = 16;

/// Rows that are looked at together.
const RUN: usize = 256;

/// Exact logits from this many on are shared among the threads, in parts of so many.
const PART: usize = 32;

/// Memory of [`top`].
pub(super) struct Work {
    pub table: table::Work,
    /// Rows with the largest screened logits so far, up to twice as many as asked for.
    best: Vec<Candidate>,
    /// The answer: see [`super::HeadWork::found`].
    pub found: Vec<Candidate>,
}

impl Work {
    pub fn new(table: table::Work) -> Self {
        let rows = table.scores.len();
        Self {
            best: Vec::with_capacity(2 * (rows / LEAST_SHARE + 1)),
            found: Vec::with_capacity(rows),
            table,
        }
    }
}

/// See [`super::Head::top`].
pub(super) fn top(
    pool: &Pool,
    (exact, coded): (&Exact, &Coded),
    x: &[f32],
    top: &Top<'_>,
    work: &mut Work,
) -> bool {
    let among = top.among.min(exact.vocab());
    let k = top.k.min(among).max(1);
    let few = (k + top.also.len()) * LEAST_SHARE <= exact.vocab();
    if among == 0 || !few || !coded.screen(pool, x, &mut work.table) {
        return false;
    }
    let (scores, radii) = (&work.table.scores[..among], &work.table.radii[..among]);
    likeliest(scores, k, &mut work.best);
    let found = &mut work.found;
    found.clear();
    found.extend_from_slice(&work.best);
    let rest = |id: &&u32| (**id as usize) < among;
    found.extend(
        top.also
            .iter()
            .filter(rest)
            .map(|&id| Candidate { logit: 0.0, id }),
    );
    found.sort_unstable_by_key(|c| c.id);
    found.dedup_by_key(|c| c.id);
    rescore(pool, exact, x, found);
    // The k-th largest of exact logits of any k rows or more is no more than the k-th largest of all.
    let exactly = &mut work.best;
    exactly.clear();
    exactly.extend_from_slice(found);
    let (_, kth, _) = exactly.select_nth_unstable_by(k - 1, |a, b| b.logit.total_cmp(&a.logit));
    let floor = kth.logit;
    let first = found.len();
    for (run, (scores, radii)) in scores.chunks(RUN).zip(radii.chunks(RUN)).enumerate() {
        if reaching(scores, radii, floor) == 0 {
            continue;
        }
        for (i, (score, radius)) in scores.iter().zip(radii).enumerate() {
            let id = (run * RUN + i) as u32;
            let known = || found[..first].binary_search_by_key(&id, |c| c.id).is_ok();
            // All three are finite: `bound::Token` exists for nothing else.
            if score + radius >= floor && !known() {
                found.push(Candidate { logit: 0.0, id });
            }
        }
    }
    rescore(pool, exact, x, &mut found[first..]);
    found.sort_unstable_by_key(|c| c.id);
    true
}

/// The exact logits of some rows.
fn rescore(pool: &Pool, exact: &Exact, x: &[f32], rows: &mut [Candidate]) {
    if rows.len() < 2 * PART {
        for row in rows {
            row.logit = exact.logit(row.id as usize, x);
        }
        return;
    }
    pool.each(Chunks::new(rows, PART), |_, _, rows| {
        for row in rows {
            row.logit = exact.logit(row.id as usize, x);
        }
    });
}

/// The `k` largest of `scores`, as many as there are above nothing, in no order.
fn likeliest(scores: &[f32], k: usize, best: &mut Vec<Candidate>) {
    best.clear();
    let cut = |best: &mut Vec<Candidate>| {
        let (_, kth, _) = best.select_nth_unstable_by(k - 1, |a, b| b.logit.total_cmp(&a.logit));
        let floor = kth.logit;
        best.truncate(k);
        floor
    };
    let mut floor = f32::NEG_INFINITY;
    for (run, scores) in scores.chunks(RUN).enumerate() {
        if above(scores, floor) == 0 && best.len() >= k {
            continue;
        }
        for (i, &logit) in scores.iter().enumerate() {
            if logit > floor || best.len() < k {
                let id = (run * RUN + i) as u32;
                best.push(Candidate { logit, id });
                if best.len() == 2 * k {
                    floor = cut(best);
                }
            }
        }
    }
    if best.len() > k {
        cut(best);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_are_the_largest() {
        for n in [1, 5, 255, 256, 257, 1000, 5000] {
            let scores: Vec<f32> = crate::lanes::tests::noise(n, n as u32);
            for k in [1, 2, 7, 40, 900] {
                let k = k.min(n);
                let mut best = Vec::new();
                likeliest(&scores, k, &mut best);
                let mut got: Vec<f32> = best.iter().map(|c| c.logit).collect();
                assert!(best.iter().all(|c| scores[c.id as usize] == c.logit));
                let mut want = scores.clone();
                want.sort_unstable_by(|a, b| b.total_cmp(a));
                got.sort_unstable_by(|a, b| b.total_cmp(a));
                assert_eq!(got, want[..k], "{k} of {n}");
            }
        }
    }
}
