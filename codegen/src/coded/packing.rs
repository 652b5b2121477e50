//! Panels of coded rows: NR rows interleaved so that a kernel reads one linear stream.
//!
//! ```text
//! panel  =  group group … group                        a group: four sub-blocks, or a block without any
//! group  =  [scales] [mins] step step … step           a word: four bytes of each row, row r at 4r
//!
//! scales    byte j of the word: the scale of sub-block j of the group; mins likewise
//! step b8   1 word,  4 columns     byte j: code of column j
//! step b4   1 word,  8 columns     byte j: codes of columns j (low nibble) and 4+j
//! step b6   3 words, 16 columns    byte j of word i, low 6 bits: column 4i+j; the upper bit pairs of words 0, 1, 2
//!                                  are bits 5–4, 3–2, 1–0 of column 12+j
//! step b5   5 words, 32 columns    words 0–3 nibbles of columns 4i+j and 16+4i+j; bit g of word 4: the fifth
//!                                  of column 4g+j
//! ```
//! With one row in each i32 lane no sum is horizontal. The layout depends on no instruction set.

use super::Form;

/// A form and a panel's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// The form.
    pub form: &'static Form,
    /// Rows of a panel.
    pub nr: usize,
    /// Columns of the table, unpadded.
    pub k: usize,
}

impl Packing {
    /// Bytes of a word of all rows.
    const fn word_bytes(&self) -> usize {
        4 * self.nr
    }

    /// Words of scales (and minimums) in front of a group.
    fn head_words(&self) -> usize {
        self.form.sub.map_or(0, |s| 1 + usize::from(s.mins))
    }

    /// Bytes of the scales in front of a group.
    pub(super) fn head_bytes(&self) -> usize {
        self.head_words() * self.word_bytes()
    }

    /// Bytes of `cols` columns of codes.
    pub(super) fn code_bytes(&self, cols: usize) -> usize {
        let (step_cols, words) = self.form.step();
        cols / step_cols * words * self.word_bytes()
    }

    /// Bytes of a group.
    pub(super) fn group_bytes(&self) -> usize {
        self.head_bytes() + self.code_bytes(self.form.group_cols(self.k))
    }

    /// Bytes of a panel.
    pub fn bytes(&self) -> usize {
        self.form.k_padded(self.k) / self.form.group_cols(self.k) * self.group_bytes()
    }

    /// Writes row `row` of a panel.
    ///
    /// # Shapes
    /// `codes`: `[k_padded]`, each below 2^bits; `scales`, `mins`: one for each sub-block, empty without;
    /// `panel`: [`Self::bytes`].
    ///
    /// # Panics
    /// When a length is another.
    pub fn pack_row(&self, row: usize, codes: &[u8], scales: &[i8], mins: &[i8], panel: &mut [u8]) {
        let subs = self.form.sub.map_or(0, |s| codes.len() / s.cols);
        let n_mins = if self.form.has_mins() { subs } else { 0 };
        assert!(row < self.nr, "row {row} of {}", self.nr);
        assert_eq!(codes.len(), self.form.k_padded(self.k), "codes of a row");
        assert_eq!(
            (scales.len(), mins.len()),
            (subs, n_mins),
            "scales of a row"
        );
        assert_eq!(panel.len(), self.bytes(), "bytes of a panel");
        let word = self.word_bytes();
        let (cols, step_words) = self.form.step();
        let group_cols = self.form.group_cols(self.k);
        let groups = codes
            .chunks_exact(group_cols)
            .zip(panel.chunks_exact_mut(self.group_bytes()));
        for (g, (codes, group)) in groups.enumerate() {
            let (head, steps) = group.split_at_mut(self.head_bytes());
            for (i, word) in head.chunks_exact_mut(word).enumerate() {
                let from = if i == 0 { scales } else { mins };
                for (byte, &s) in word[4 * row..][..4].iter_mut().zip(&from[4 * g..]) {
                    *byte = s as u8;
                }
            }
            let steps = steps.chunks_exact_mut(step_words * word);
            for (codes, step) in codes.chunks_exact(cols).zip(steps) {
                self.pack_step(4 * row, codes, step);
            }
        }
    }

    /// Packs a step of one row; `at` is the row's place in each word.
    #[inline]
    fn pack_step(&self, at: usize, c: &[u8], step: &mut [u8]) {
        let word = self.word_bytes();
        let mut put = |i: usize, bytes: [u8; 4]| {
            step[i * word + at..][..4].copy_from_slice(&bytes);
        };
        match self.form.bits {
            8 => put(0, [c[0], c[1], c[2], c[3]]),
            4 => put(0, std::array::from_fn(|j| c[j] | c[4 + j] << 4)),
            6 => {
                put(0, std::array::from_fn(|j| c[j] | (c[12 + j] & 0x30) << 2));
                put(
                    1,
                    std::array::from_fn(|j| c[4 + j] | (c[12 + j] & 0x0C) << 4),
                );
                put(2, std::array::from_fn(|j| c[8 + j] | c[12 + j] << 6));
            }
            5 => {
                for i in 0..4 {
                    let nibbles = |j: usize| c[4 * i + j] & 15 | c[16 + 4 * i + j] << 4;
                    put(i, std::array::from_fn(nibbles));
                }
                let fifths = |j: usize| (0..8).fold(0, |byte, g| byte | (c[4 * g + j] >> 4) << g);
                put(4, std::array::from_fn(fifths));
            }
            bits => unreachable!("{bits} bits"),
        }
    }
}
