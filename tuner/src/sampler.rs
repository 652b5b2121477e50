//! Samples of one candidate, and the numbers told of them: minimum to choose, median ± MAD to tell.

/// Timings of one candidate in nanoseconds, in the order taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<f64>);

/// What is told of a set of samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The fastest.
    pub min_ns: f64,
    /// The median.
    pub median_ns: f64,
    /// Median absolute deviation from the median.
    pub mad_ns: f64,
    /// How many samples stand behind it.
    pub samples: usize,
}

/// From this many samples on, the first is left out: it carries cold caches, page faults and
/// a frequency ramp that the others do not.
const DROP_FIRST_FROM: usize = 3;

impl Samples {
    /// Adds one timing.
    pub fn push(&mut self, ns: f64) {
        self.0.push(ns);
    }

    /// How many were taken.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none was taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn kept(&self) -> &[f64] {
        if self.0.len() >= DROP_FIRST_FROM {
            &self.0[1..]
        } else {
            &self.0
        }
    }

    /// The summary; `None` without samples.
    pub fn summary(&self) -> Option<Summary> {
        let kept = self.kept();
        if kept.is_empty() {
            return None;
        }
        let median_ns = median(kept.to_vec());
        let mad_ns = median(kept.iter().map(|v| (v - median_ns).abs()).collect());
        let min_ns = kept.iter().copied().fold(f64::INFINITY, f64::min);
        Some(Summary {
            min_ns,
            median_ns,
            mad_ns,
            samples: kept.len(),
        })
    }
}

/// The median; the mean of the middle two for an even count.
///
/// # Panics
/// When `v` is empty.
pub fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    let mid = v.len() / 2;
    if v.len() % 2 == 1 {
        v[mid]
    } else {
        (v[mid - 1] + v[mid]) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sample_is_dropped_once_three_exist() {
        let mut s = Samples::default();
        assert_eq!(s.summary(), None);
        s.push(100.0);
        s.push(10.0);
        assert_eq!(s.summary().unwrap().median_ns, 55.0);
        s.push(12.0);
        let sum = s.summary().unwrap();
        assert_eq!((sum.min_ns, sum.median_ns, sum.samples), (10.0, 11.0, 2));
    }

    #[test]
    fn one_outlier_moves_neither_median_nor_minimum() {
        let mut s = Samples::default();
        [50.0, 10.0, 11.0, 10.0, 900.0, 10.0]
            .into_iter()
            .for_each(|v| s.push(v));
        let sum = s.summary().unwrap();
        assert_eq!((sum.min_ns, sum.median_ns, sum.mad_ns), (10.0, 10.0, 0.0));
    }
}
