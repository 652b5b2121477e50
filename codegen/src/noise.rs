//! [`Noise`]: numbers that look random and are always the same for a seed, for the weights and activations that
//! measurements and tests make up.

/// The linear congruential generator of Numerical Recipes. Of each number the upper bits are the good ones.
#[derive(Clone, Debug)]
pub struct Noise(u32);

impl Noise {
    /// The numbers after `seed`.
    pub fn new(seed: u32) -> Self {
        Self(seed)
    }
}

impl Iterator for Noise {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(self.0)
    }
}
