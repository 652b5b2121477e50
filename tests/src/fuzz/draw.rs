//! [`Draw`]: everything random in an execution, from one seed.

use fastrand::Rng;

/// A source of choices.
pub struct Draw(Rng);

impl Draw {
    /// The choices of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Rng::with_seed(seed))
    }

    /// A number below `n`, which is above 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.0.usize(..n)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `values`.
    pub fn pick<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.below(values.len())]
    }

    /// Any bits.
    pub fn bits(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        self.0.u8(..)
    }

    /// A number of the kind that readers stumble over: small, around a power of two, around a limit, or any.
    pub fn number(&mut self) -> u64 {
        match self.below(6) {
            0 => self.below(5) as u64,
            1 => self.below(300) as u64,
            2 => (1u64 << self.below(64))
                .wrapping_add(self.below(3) as u64)
                .wrapping_sub(1),
            3 => u64::MAX >> self.below(64),
            4 => *self.pick(&[
                31,
                32,
                64,
                128,
                256,
                0x7fff_ffff,
                0x8000_0000,
                0xffff_ffff,
                1 << 63,
                1 << 62,
            ]),
            _ => self.bits(),
        }
    }

    /// A float of the same kind.
    pub fn float(&mut self) -> f64 {
        match self.below(4) {
            0 => *self.pick(&[
                0.0,
                -0.0,
                1.0,
                -1.0,
                f64::NAN,
                f64::INFINITY,
                f64::NEG_INFINITY,
                1e-320,
                1e300,
            ]),
            1 => self.below(100_000) as f64 / 7.0,
            2 => f64::from_bits(self.bits()),
            _ => 10f64.powi(self.below(80) as i32 - 40),
        }
    }
}
