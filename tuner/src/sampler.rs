//! Samples of one candidate, and the numbers told of them: a low one to look for the best, the median with its
//! interval to choose and to tell.

/// Timings of one candidate in nanoseconds, in the order taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<f64>);

/// What is told of a set of samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The fastest.
    pub min_ns: f64,
    /// The lower quartile: what the candidate can do, less at the mercy of one lucky clock than the fastest.
    pub low_ns: f64,
    /// The median.
    pub median_ns: f64,
    /// Median absolute deviation from the median.
    pub mad_ns: f64,
    /// The 95 % interval of the median.
    pub interval_ns: (f64, f64),
    /// How many samples stand behind it.
    pub samples: usize,
}

/// From this many samples on, the first is left out: it carries cold caches, page faults and
/// a frequency ramp that the others do not.
const DROP_FIRST_FROM: usize = 3;

/// Below this many samples there are no quartiles to speak of: the interval is all of them.
const QUARTILES_FROM: usize = 5;

/// Half a 95 % interval of a median is this many interquartile ranges over the root of the number of samples
/// (McGill, Tukey and Larsen 1978).
const NOTCH: f64 = 1.57;

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

    /// The timings in the order taken.
    pub fn all(&self) -> &[f64] {
        &self.0
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
        let mut sorted = self.kept().to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min_ns, &max_ns) = (sorted.first()?, sorted.last()?);
        let median_ns = median(sorted.clone());
        let mad_ns = median(sorted.iter().map(|v| (v - median_ns).abs()).collect());
        let quarter = sorted.len() / 4;
        let (low_ns, high_ns) = (sorted[quarter], sorted[sorted.len() - 1 - quarter]);
        let interval_ns = if sorted.len() < QUARTILES_FROM {
            (min_ns, max_ns)
        } else {
            let half = NOTCH * (high_ns - low_ns) / (sorted.len() as f64).sqrt();
            (median_ns - half, median_ns + half)
        };
        Some(Summary {
            min_ns,
            low_ns,
            median_ns,
            mad_ns,
            interval_ns,
            samples: sorted.len(),
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

    fn of(values: &[f64]) -> Samples {
        let mut s = Samples::default();
        values.iter().for_each(|&v| s.push(v));
        s
    }

    #[test]
    fn the_first_sample_is_dropped_once_three_exist() {
        assert_eq!(Samples::default().summary(), None);
        assert_eq!(of(&[100.0, 10.0]).summary().unwrap().median_ns, 55.0);
        let sum = of(&[100.0, 10.0, 12.0]).summary().unwrap();
        assert_eq!((sum.min_ns, sum.median_ns, sum.samples), (10.0, 11.0, 2));
    }

    #[test]
    fn one_outlier_moves_neither_median_nor_minimum() {
        let sum = of(&[50.0, 10.0, 11.0, 10.0, 900.0, 10.0])
            .summary()
            .unwrap();
        assert_eq!((sum.min_ns, sum.median_ns, sum.mad_ns), (10.0, 10.0, 0.0));
    }

    #[test]
    fn the_interval_shrinks_with_samples() {
        let few = of(&[9.0, 9.0, 10.0, 11.0]).summary().unwrap();
        assert_eq!(few.interval_ns, (9.0, 11.0), "all of them");
        let width = |n: usize| {
            let v: Vec<f64> = (0..n).map(|i| 10.0 + (i % 5) as f64).collect();
            let (lo, hi) = of(&v).summary().unwrap().interval_ns;
            hi - lo
        };
        assert!(width(11) > 1.5 * width(41));
    }
}
