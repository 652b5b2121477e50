//! [`Place`]: where in K a step of a micro-kernel reads, and the addresses that follow from it.

use crate::program::{Addr, Counter};

/// Bytes of a cache line.
const LINE: usize = 64;

/// Loop counters with the steps that a turn of each moves on, and a constant number of steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub counters: Vec<(Counter, usize)>,
    pub at: usize,
}

impl Place {
    /// Step `at`, outside all loops.
    pub fn at(at: usize) -> Self {
        Self {
            counters: Vec::new(),
            at,
        }
    }

    /// The place `counter · steps` further on.
    pub fn and(&self, counter: Counter, steps: usize) -> Self {
        let mut there = self.clone();
        there.counters.push((counter, steps));
        there
    }

    /// The place `steps` further on.
    pub fn plus(&self, steps: usize) -> Self {
        Self {
            at: self.at + steps,
            ..self.clone()
        }
    }

    /// Moves `addr` to the place, at `step_bytes` a step.
    pub fn apply(&self, addr: Addr, step_bytes: usize) -> Addr {
        let addr = addr.plus(self.at * step_bytes);
        self.counters
            .iter()
            .fold(addr, |a, &(c, steps)| a.step(c, steps * step_bytes))
    }

    /// Where the weights lie that `steps` steps from here on read, a cache line each, `lines` lines further on;
    /// nothing for 0. `start` is where the steps begin.
    pub fn ahead(
        &self,
        start: Addr,
        lines: usize,
        steps: usize,
        step_bytes: usize,
    ) -> impl Iterator<Item = Addr> {
        let count = match lines {
            0 => 0,
            _ => (steps * step_bytes).div_ceil(LINE),
        };
        let start = self.apply(start, step_bytes);
        (0..count).map(move |line| start.clone().plus(LINE * (lines + line)))
    }
}
