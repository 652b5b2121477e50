//! What `vlut` and `hybrid` share: tables of partial sums across tokens, rows that add their entries up in
//! i16, and the flush of i16 sums into the i32 result.

use super::place::Place;
use crate::layout::lut::Lut;
use crate::program::{Addr, Builder, Counter, Element, Index, Op, Operand, Value};
use std::collections::VecDeque;
use std::ops::Range;

/// Rows of indices at the start of the weights, their tables in `Scratch0`, their i16 sums in `Scratch1`
/// and their i32 sums, row-major, at the start of the result.
#[derive(Clone, Copy)]
pub(super) struct LookUpRows {
    pub layout: &'static Lut,
    /// Rows.
    pub rows: usize,
    /// Columns of a step.
    pub kr: usize,
    /// Tokens.
    pub mr: usize,
    /// Rows of a turn.
    pub unroll: usize,
    /// How many indices a turn has loaded, at least, when it needs the next.
    pub indices_ahead: usize,
    /// Cache lines of indices that a turn prefetches ahead; 0 for none.
    pub lines_ahead: usize,
}

impl LookUpRows {
    /// Groups of a step, G.
    pub fn groups(&self) -> usize {
        self.kr / self.layout.trits
    }

    /// The largest entry, as an absolute value: q = −128 for all trits.
    pub fn entry_max(&self) -> usize {
        128 * self.layout.trits
    }

    pub fn entry_bytes(&self) -> usize {
        2 * self.mr
    }

    pub fn table_bytes(&self) -> usize {
        self.layout.entries() * self.entry_bytes()
    }

    pub fn tables_bytes(&self) -> usize {
        self.groups() * self.table_bytes()
    }

    /// Steps whose sums fit an i16.
    pub fn superblock(&self) -> usize {
        i16::MAX as usize / self.entry_max() / self.groups()
    }

    /// Zeros the result of the rows.
    pub fn clear(&self, b: &mut Builder) {
        let zero = b.zero();
        let (w, row_bytes) = (b.width_bytes(), self.mr * 4);
        b.repeat(self.rows, &[], |b, row, _| {
            for at in (0..row_bytes).step_by(w) {
                b.store(Addr::new(Operand::Out, at).step(row, row_bytes), zero);
            }
            vec![]
        });
    }

    /// The tables of a step: depth first over the digits, an add or none for each. `x(b, group, at)` are the
    /// g columns of a group for the tokens of the vector at byte `at` of an entry.
    pub fn build(&self, b: &mut Builder, x: &dyn Fn(&mut Builder, Counter, usize) -> Vec<Value>) {
        let w = b.width_bytes();
        b.repeat(self.groups(), &[], |b, group, _| {
            for at in (0..self.entry_bytes()).step_by(w) {
                let x = x(b, group, at);
                let zero = b.zero();
                self.digits(b, &x, zero, None, 0, &mut |b, index, sum| {
                    let to = Addr::new(Operand::Scratch0, index * self.entry_bytes() + at);
                    b.store(to.step(group, self.table_bytes()), sum);
                });
            }
            vec![]
        });
    }

    /// All entries whose digits above `x.len()` sum up to `sum` (nothing yet if `None`). Adding to the sum
    /// of the digits chosen so far, instead of stepping from entry to entry, keeps every bound provable.
    fn digits(
        &self,
        b: &mut Builder,
        x: &[Value],
        zero: Value,
        sum: Option<Value>,
        index: usize,
        store: &mut dyn FnMut(&mut Builder, usize, Value),
    ) {
        let Some((&last, rest)) = x.split_last() else {
            return store(b, index, sum.unwrap_or(zero));
        };
        for code in 0..3 {
            let sum = match (code, sum) {
                (1, sum) => sum,
                (0, sum) => Some(b.op(Op::Sub16(sum.unwrap_or(zero), last))),
                (_, None) => Some(last),
                (_, Some(sum)) => Some(b.op(Op::Add16(sum, last))),
            };
            let index = index + code * 3usize.pow(rest.len() as u32);
            self.digits(b, rest, zero, sum, index, store);
        }
    }

    /// For the rows from `from` on the entries of their indices, added up in registers and then to memory.
    pub fn add_rows(&self, b: &mut Builder, place: &Place, from: usize) {
        b.repeat((self.rows - from) / self.unroll, &[], |b, turn, _| {
            self.prefetch(b, place, (turn, self.unroll), from);
            self.add_turn(b, place, (turn, self.unroll), from..from + self.unroll);
            vec![]
        });
    }

    /// Brings indices near that will be read soon: those of the same step, or of the next, which follows.
    pub fn prefetch(
        &self,
        b: &mut Builder,
        place: &Place,
        (turn, rows): (Counter, usize),
        at: usize,
    ) {
        let groups = self.groups();
        for line in 0..(rows * groups).div_ceil(64) {
            if self.lines_ahead > 0 {
                let bytes = at * groups + 64 * (self.lines_ahead + line);
                let addr = Addr::new(Operand::Weights, bytes).step(turn, rows * groups);
                b.prefetch(place.apply(addr, self.rows * groups));
            }
        }
    }

    /// The rows `counter · rows + at` of the step at `place`, for each `at`.
    pub fn add_turn(
        &self,
        b: &mut Builder,
        place: &Place,
        (turn, rows): (Counter, usize),
        at: Range<usize>,
    ) {
        let (w, groups) = (b.width_bytes(), self.groups());
        let mut loads = words(at.start * groups..at.end * groups).into_iter();
        let mut loaded = VecDeque::new();
        let mut sums: Vec<Option<Value>> = vec![None; self.entry_bytes() / w];
        for row in at {
            for group in 0..groups {
                while loaded.len() <= self.indices_ahead
                    && let Some(word) = loads.next()
                {
                    let addr = Addr::new(Operand::Weights, word.start).step(turn, rows * groups);
                    let addr = place.apply(addr, self.rows * groups);
                    loaded.extend(self.load(b, addr, word.len()));
                }
                let (index, scale) = loaded.pop_front().expect("each index is loaded");
                for (v, sum) in sums.iter_mut().enumerate() {
                    let at = group * self.table_bytes() + v * w;
                    let entry = Addr::new(Operand::Scratch0, at).entry(index, scale);
                    let x = b.op(Op::Load(entry));
                    *sum = Some(match *sum {
                        Some(sum) => b.op(Op::Add16(sum, x)),
                        None => x,
                    });
                }
            }
            for (v, sum) in sums.iter_mut().enumerate() {
                let to = Addr::new(Operand::Scratch1, row * self.entry_bytes() + v * w)
                    .step(turn, rows * self.entry_bytes());
                b.accumulate(Element::I16, to, sum.take().expect("a step has a group"));
            }
        }
    }

    /// The next indices, and the bytes that one of them counts.
    fn load(&self, b: &mut Builder, addr: Addr, count: usize) -> Vec<(Index, usize)> {
        if count == 1 {
            return vec![(b.index8(addr), self.entry_bytes())];
        }
        let shift = self.entry_bytes().trailing_zeros() as u8;
        let indices = b.indices8(count, addr, shift);
        indices.into_iter().map(|i| (i, 1)).collect()
    }

    /// i16 sums to the i32 result. Even and odd i16 of a vector are the two halves of a block of tokens
    /// ([`crate::acts::ActsForm::ColumnsI16`]), so shifts alone restore the order.
    pub fn drain(&self, b: &mut Builder) {
        let w = b.width_bytes();
        b.repeat(self.rows, &[], |b, row, _| {
            for at in (0..self.entry_bytes()).step_by(w) {
                let from = Addr::new(Operand::Scratch1, at).step(row, self.entry_bytes());
                let both = b.op(Op::Drain(from));
                let up = b.op(Op::Shl32(both, 16));
                let even = b.op(Op::Sar32(up, 16));
                let odd = b.op(Op::Sar32(both, 16));
                for (half, sums) in [even, odd].into_iter().enumerate() {
                    let to = Addr::new(Operand::Out, 2 * at + half * w)
                        .step(row, 2 * self.entry_bytes());
                    b.accumulate(Element::I32, to, sums);
                }
            }
            vec![]
        });
    }
}

/// Cuts the indices `all` into what one load brings: eight, four or one.
fn words(all: Range<usize>) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut at = all.start;
    while at < all.end {
        let len = match all.end - at {
            8.. => 8,
            4.. => 4,
            _ => 1,
        };
        words.push(at..at + len);
        at += len;
    }
    words
}
