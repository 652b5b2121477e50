//! [`Rows`]: which token of which sequence each row of a pass is, and how rows are grouped where they must be.
//!
//! Everything but attention is done row by row. Attention writes the rows that touch one page of one sequence
//! together ([`Rows::writes`]) and reads for some consecutive rows of one sequence together ([`Rows::cuts`]).

use super::Append;
use crate::sequence::{HeadLayout, PAGE};
use std::ops::Range;

/// One token at one position of one sequence, on its way through a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which of the pass's appends it belongs to.
    pub append: usize,
    /// Its place among that append's tokens.
    pub index: usize,
    /// Its place in the sequence.
    pub position: usize,
    /// The token.
    pub token: u32,
}

/// The rows of one pass. The memory is kept from pass to pass.
pub struct Rows {
    rows: Vec<Row>,
    wanted: Vec<usize>,
    cuts: Vec<usize>,
    writes: Vec<Range<usize>>,
    layouts: Vec<HeadLayout>,
}

impl Rows {
    /// Room for `max` rows.
    pub fn new(max: usize) -> Self {
        Self {
            rows: Vec::with_capacity(max),
            wanted: Vec::with_capacity(max),
            cuts: Vec::with_capacity(max + 1),
            writes: Vec::with_capacity(max),
            layouts: Vec::with_capacity(max),
        }
    }

    /// The rows of `appends`, of which `together` at most attend together.
    pub fn fill(&mut self, appends: &[Append<'_>], together: usize) {
        self.rows.clear();
        self.wanted.clear();
        self.cuts.clear();
        self.cuts.push(0);
        self.writes.clear();
        self.layouts.clear();
        for (a, append) in appends.iter().enumerate() {
            let (first, start) = (self.rows.len(), append.sequence.position());
            self.layouts.push(append.sequence.cache().shape().head);
            self.rows
                .extend(append.tokens.iter().enumerate().map(|(index, &token)| Row {
                    append: a,
                    index,
                    position: start + index,
                    token,
                }));
            let end = self.rows.len();
            self.wanted
                .extend((first + append.logits_from).min(end)..end);
            self.cuts
                .extend((first..end).step_by(together).skip(1).chain([end]));
            let mut from = first;
            while from < end {
                let left = PAGE - self.rows[from].position % PAGE;
                let to = end.min(from + left);
                self.writes.push(from..to);
                from = to;
            }
        }
    }

    /// All rows: those of one append follow each other, in order.
    pub fn all(&self) -> &[Row] {
        &self.rows
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows whose logits are wanted, in order.
    pub fn wanted(&self) -> &[usize] {
        &self.wanted
    }

    /// Where groups of rows that attend together begin, and the end of the last.
    pub fn cuts(&self) -> &[usize] {
        &self.cuts
    }

    /// For each page that is written, in order of appends, the rows that are.
    pub fn writes(&self) -> &[Range<usize>] {
        &self.writes
    }

    /// For each append how its sequence stores keys and values.
    pub fn layouts(&self) -> &[HeadLayout] {
        &self.layouts
    }
}
