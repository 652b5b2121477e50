//! Time as a value: a clock that a test can turn by hand, and a deadline that code asks what is left of it.

use std::time::{Duration, Instant};

/// Something that tells the time since it was started.
pub trait Clock {
    /// Time since the start.
    fn now(&self) -> Duration;
}

/// The system's clock, started when the instant was taken.
impl Clock for Instant {
    fn now(&self) -> Duration {
        self.elapsed()
    }
}

/// When work has to be done by.
#[derive(Clone, Copy)]
pub struct Deadline<'c> {
    clock: &'c dyn Clock,
    at: Duration,
}

impl<'c> Deadline<'c> {
    /// `at` after the start of `clock`.
    pub fn new(clock: &'c dyn Clock, at: Duration) -> Self {
        Self { clock, at }
    }

    /// Time left; none when it has passed.
    pub fn left(&self) -> Duration {
        self.at.saturating_sub(self.clock.now())
    }

    /// The time on its clock.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Whether work that takes `expected` ends in time.
    pub fn allows(&self, expected: Duration) -> bool {
        self.left() > expected
    }

    /// A deadline `time` from now, if this one is not sooner.
    pub fn within(&self, time: Duration) -> Self {
        Self {
            at: self.at.min(self.clock.now() + time),
            ..*self
        }
    }

    /// `reserve` sooner.
    pub fn before(&self, reserve: Duration) -> Self {
        Self {
            at: self.at.saturating_sub(reserve),
            ..*self
        }
    }
}

/// A clock that only tests turn.
#[cfg(test)]
#[derive(Default)]
pub struct Hand(std::cell::Cell<Duration>);

#[cfg(test)]
impl Hand {
    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.0.set(self.0.get() + time);
    }
}

#[cfg(test)]
impl Clock for Hand {
    fn now(&self) -> Duration {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_goes_down_to_nothing() {
        let (clock, s) = (Hand::default(), Duration::from_secs);
        let deadline = Deadline::new(&clock, s(10));
        clock.pass(s(4));
        assert_eq!((deadline.left(), deadline.now()), (s(6), s(4)));
        assert!(deadline.allows(s(5)) && !deadline.allows(s(6)));
        assert_eq!(deadline.within(s(2)).left(), s(2));
        assert_eq!(deadline.within(s(9)).left(), s(6));
        assert_eq!(deadline.before(s(5)).left(), s(1));
        clock.pass(s(7));
        assert_eq!(deadline.left(), Duration::ZERO);
        assert!(!deadline.allows(Duration::ZERO));
    }
}
