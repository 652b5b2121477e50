//! Whether several tunings of one machine agree: the same winner, a tie, or another.
//!
//! Tunings are minutes or days apart, and a shared machine is not the same in both. What each says of both kernels is
//! asked first; the two medians are compared with one another only where neither knew the other's winner.

use crate::search::TIE;
use bitnet_codegen::{Groups, KernelSpec};
use bitnet_runtime::profile::{Entry, Evidence};
use std::collections::BTreeMap;
use std::fmt;

/// How two entries for the same product agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same kernel.
    Same,
    /// Another one that cannot be told from it: marked as a tie, within 2 %, or within the combined 95 % interval.
    Tie,
    /// Another one.
    Differs,
}

impl Verdict {
    /// Of two entries.
    pub fn of(a: &Entry, b: &Entry) -> Self {
        if a.spec == b.spec {
            Verdict::Same
        } else if knows(a, &b.spec) || knows(b, &a.spec) || is_near(&a.evidence, &b.evidence) {
            Verdict::Tie
        } else {
            Verdict::Differs
        }
    }

    /// The sign in a matrix.
    pub fn sign(self) -> char {
        match self {
            Verdict::Same => '=',
            Verdict::Tie => '~',
            Verdict::Differs => 'X',
        }
    }
}

/// Whether the tuning of `entry` itself could not tell `other` from its winner.
fn knows(entry: &Entry, other: &KernelSpec) -> bool {
    let v = &entry.evidence;
    let second = v.runner_up.as_ref();
    v.tied.contains(other)
        || second.is_some_and(|(spec, ns)| spec == other && *ns <= v.median_ns * TIE)
}

/// Whether two medians lie within 2 %, or within what may be chance.
fn is_near(a: &Evidence, b: &Evidence) -> bool {
    let half = |v: &Evidence| (v.interval_ns.1 - v.interval_ns.0) / 2.0;
    let least = a.median_ns.min(b.median_ns);
    let apart = (a.median_ns - b.median_ns).abs();
    // An interval wider than a twentieth says that nothing is known.
    apart <= least * (TIE - 1.0) || apart <= half(a).hypot(half(b)).min(least * 0.05)
}

/// What an entry answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// The smallest number of tokens.
    pub m: usize,
    /// Threads.
    pub threads: usize,
    /// Scales of groups of columns.
    pub groups: Option<Groups>,
}

/// The question of an entry.
pub fn question(e: &Entry) -> Question {
    Question {
        n: e.n,
        k: e.k,
        m: e.bucket.first,
        threads: e.evidence.threads,
        groups: e.product().groups,
    }
}

/// One question in all tunings.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The question.
    pub question: Question,
    /// The answer of most tunings.
    pub winner: KernelSpec,
    /// How each tuning's answer agrees with it; `None` where it has none.
    pub verdicts: Vec<Option<Verdict>>,
}

impl Row {
    /// Whether no tuning differs.
    pub fn agrees(&self) -> bool {
        !self.verdicts.contains(&Some(Verdict::Differs))
    }
}

/// All questions in all tunings.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix(pub Vec<Row>);

impl Matrix {
    /// Of the entries of several profiles.
    pub fn of(tunings: &[Vec<Entry>]) -> Self {
        let mut by_question: BTreeMap<Question, Vec<Option<&Entry>>> = BTreeMap::new();
        for (i, entries) in tunings.iter().enumerate() {
            for e in entries {
                let answers = by_question.entry(question(e));
                answers.or_insert_with(|| vec![None; tunings.len()])[i] = Some(e);
            }
        }
        let rows = by_question.into_iter().map(|(question, answers)| {
            let winner = favourite(&answers);
            let verdict = |e: Option<&Entry>| Some(Verdict::of(winner, e?));
            Row {
                question,
                winner: winner.spec.clone(),
                verdicts: answers.iter().map(|&e| verdict(e)).collect(),
            }
        });
        Self(rows.collect())
    }

    /// The share of questions in which no tuning differs.
    pub fn agreement(&self) -> f64 {
        let agree = self.0.iter().filter(|r| r.agrees()).count();
        agree as f64 / self.0.len().max(1) as f64
    }
}

/// An entry of the kernel that most tunings chose; of several such, of the least name.
fn favourite<'e>(answers: &[Option<&'e Entry>]) -> &'e Entry {
    let entries = || answers.iter().copied().flatten();
    let votes = |spec: &KernelSpec| entries().filter(|e| e.spec == *spec).count();
    entries()
        .min_by(|a, b| {
            let by_votes = votes(&b.spec).cmp(&votes(&a.spec));
            by_votes.then_with(|| a.spec.cmp(&b.spec))
        })
        .expect("a question comes from an entry")
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "     N x      K  from M  threads  winner by tuning")?;
        for row in &self.0 {
            let Question {
                n, k, m, threads, ..
            } = row.question;
            let signs = row
                .verdicts
                .iter()
                .map(|v| v.map_or('.', Verdict::sign).to_string());
            let signs = signs.collect::<Vec<_>>().join(" ");
            writeln!(
                f,
                "{n:>6} x {k:>6}  {m:>6}  {threads:>7}  {signs}  {}",
                row.winner
            )?;
        }
        writeln!(
            f,
            "= the winner of most, ~ a tie with it, X another, . not tuned: {} of {} entries agree in all tunings ({:.1} %)",
            self.0.iter().filter(|r| r.agrees()).count(),
            self.0.len(),
            self.agreement() * 100.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_runtime::profile::MBucket;

    fn entry(nr: usize, median_ns: f64, half_ns: f64) -> Entry {
        Entry {
            n: 64,
            k: 64,
            bucket: MBucket { first: 1 },
            spec: spec(nr),
            evidence: Evidence {
                threads: 1,
                median_ns,
                interval_ns: (median_ns - half_ns, median_ns + half_ns),
                ..Evidence::default()
            },
        }
    }

    fn spec(nr: usize) -> KernelSpec {
        format!("i2s-i2s-1x{nr}c16-avx2").parse().expect("a spec")
    }

    #[test]
    fn ties_are_what_either_tuning_calls_one_or_what_is_near() {
        let a = entry(8, 100.0, 0.5);
        let of = |b: &Entry| Verdict::of(&a, b);
        assert_eq!(of(&entry(8, 200.0, 0.5)), Verdict::Same);
        assert_eq!(of(&entry(16, 101.9, 0.5)), Verdict::Tie);
        assert_eq!(of(&entry(16, 104.0, 0.5)), Verdict::Differs);
        assert_eq!(of(&entry(16, 104.0, 4.5)), Verdict::Tie);
        assert_eq!(of(&entry(16, 106.0, 50.0)), Verdict::Differs);
        let mut marked = entry(16, 150.0, 0.5);
        marked.evidence.tied = vec![spec(8)];
        assert_eq!(of(&marked), Verdict::Tie);
        let mut second = entry(16, 150.0, 0.5);
        second.evidence.runner_up = Some((spec(8), 152.0));
        assert_eq!(of(&second), Verdict::Tie);
        second.evidence.runner_up = Some((spec(8), 160.0));
        assert_eq!(of(&second), Verdict::Differs);
    }

    #[test]
    fn the_matrix_names_the_winner_of_most() {
        let other = Entry {
            n: 128,
            ..entry(8, 100.0, 0.5)
        };
        let tunings = [
            vec![entry(16, 100.0, 0.5), other],
            vec![entry(8, 130.0, 0.5)],
            vec![entry(16, 100.0, 0.5)],
            vec![entry(32, 101.0, 0.5)],
        ];
        let matrix = Matrix::of(&tunings);
        assert_eq!(matrix.0[0].winner, spec(16));
        let text = matrix.to_string();
        assert!(text.contains("= X = ~  i2s-i2s-1x16c16"), "{text}");
        assert!(text.contains("= . . .  i2s-i2s-1x8c16"), "{text}");
        assert!(text.contains("1 of 2 entries agree"), "{text}");
        assert_eq!(matrix.agreement(), 0.5);
    }
}
