//! [`ByteSet`]: which of the 256 bytes a byte may be.

/// A set of byte values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct ByteSet([u64; 4]);

impl ByteSet {
    /// Every value.
    pub(super) const ALL: Self = Self([u64::MAX; 4]);

    pub(super) fn of(values: impl IntoIterator<Item = u8>) -> Self {
        let mut set = Self::default();
        for v in values {
            set.insert(v);
        }
        set
    }

    pub(super) fn insert(&mut self, v: u8) {
        self.0[v as usize / 64] |= 1 << (v % 64);
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    pub(super) fn len(&self) -> u32 {
        self.0.iter().map(|w| w.count_ones()).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.iter().enumerate().flat_map(|(i, &word)| {
            let mut word = word;
            std::iter::from_fn(move || {
                (word != 0).then(|| {
                    let bit = word.trailing_zeros();
                    word &= word - 1;
                    (64 * i as u32 + bit) as u8
                })
            })
        })
    }

    pub(super) fn min(&self) -> u8 {
        self.iter().next().unwrap_or(0)
    }

    pub(super) fn max(&self) -> u8 {
        let top = (0..4).rev().find(|&i| self.0[i] != 0).unwrap_or(0);
        (64 * top as u32 + 63_u32.saturating_sub(self.0[top].leading_zeros())) as u8
    }
}
