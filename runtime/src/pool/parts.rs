#![expect(
    unsafe_code,
    reason = "lends disjoint parts of slices to other threads"
)]
//! [`Parts`]: what a job may be split into so that every thread writes its own.

use std::marker::PhantomData;

/// Something that falls into parts which do not overlap, such as rows of a matrix.
///
/// # Safety
/// Parts of different indices must not overlap.
pub unsafe trait Parts: Sync {
    /// One part.
    type Part;

    /// How many parts there are.
    fn len(&self) -> usize;

    /// Whether there is no part.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Part `i`.
    ///
    /// # Safety
    /// `i` is below [`Self::len`], and was not asked for before.
    unsafe fn part(&self, i: usize) -> Self::Part;
}

/// A slice in runs of `stride`; the last run may be shorter.
pub struct Rows<'a, T> {
    start: *mut T,
    len: usize,
    stride: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: a `&mut [T]` in parts; sending a part to another thread sends `&mut T`s.
unsafe impl<T: Send> Sync for Rows<'_, T> {}

impl<'a, T> Rows<'a, T> {
    /// `slice` in runs of `stride`.
    pub fn new(slice: &'a mut [T], stride: usize) -> Self {
        assert!(stride > 0, "rows of no elements");
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            stride,
            slice: PhantomData,
        }
    }
}

// SAFETY: run `i` covers the elements from `i · stride` up to the next run.
unsafe impl<'a, T: Send> Parts for Rows<'a, T> {
    type Part = &'a mut [T];

    fn len(&self) -> usize {
        self.len.div_ceil(self.stride)
    }

    unsafe fn part(&self, i: usize) -> &'a mut [T] {
        let first = i * self.stride;
        let len = self.stride.min(self.len - first);
        // SAFETY: `i` is below `len()`, so `first` lies inside the slice.
        let start = unsafe { self.start.add(first) };
        // SAFETY: `first + len` is at most the slice's length, and the caller asks for each index once.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}

/// The columns `first..first + width` of a row-major matrix with rows of `stride`, in blocks of `block` columns
/// and `run` rows.
pub struct Columns<'a, T> {
    start: *mut T,
    rows: usize,
    stride: usize,
    first: usize,
    width: usize,
    block: usize,
    run: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: as for `Rows`.
unsafe impl<T: Send> Sync for Columns<'_, T> {}

impl<'a, T> Columns<'a, T> {
    /// Columns `first..first + width` of `matrix`, `[rows, stride]`, in blocks of `block`, each over all rows.
    ///
    /// # Panics
    /// When the slice is too short, or the columns do not lie in a row.
    pub fn new(
        matrix: &'a mut [T],
        rows: usize,
        stride: usize,
        first: usize,
        width: usize,
        block: usize,
    ) -> Self {
        assert!(block > 0, "blocks of no columns");
        assert!(
            first + width <= stride,
            "columns {first}+{width} in rows of {stride}"
        );
        assert!(
            matrix.len() >= rows * stride,
            "{} elements for {rows} rows of {stride}",
            matrix.len()
        );
        Self {
            start: matrix.as_mut_ptr(),
            rows,
            stride,
            first,
            width,
            block,
            run: rows.max(1),
            slice: PhantomData,
        }
    }

    /// The same in blocks of `run` rows (the last may have fewer); column blocks of the same rows follow each other.
    ///
    /// # Panics
    /// When `run` is 0.
    pub fn in_runs(mut self, run: usize) -> Self {
        assert!(run > 0, "blocks of no rows");
        self.run = run;
        self
    }
}

/// One block of columns: a short run in every one of its rows.
pub struct ColumnBlock<'p, T> {
    start: *mut T,
    stride: usize,
    first_row: usize,
    rows: usize,
    first: usize,
    width: usize,
    part: PhantomData<&'p mut [T]>,
}

impl<T> ColumnBlock<'_, T> {
    /// The first row.
    pub fn first_row(&self) -> usize {
        self.first_row
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The first column, counted from the first of all blocks.
    pub fn first(&self) -> usize {
        self.first
    }

    /// How many columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The block's run in `row`, counted from its first.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: `row` is below `rows`, and the run lies inside the row (`Columns::new`).
        let start = unsafe { self.start.add(row * self.stride) };
        // SAFETY: the run of this block in this row belongs to this part alone, which is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(start, self.width) }
    }
}

// SAFETY: block `i` covers other columns or other rows than every other block.
unsafe impl<'a, T: Send> Parts for Columns<'a, T> {
    type Part = ColumnBlock<'a, T>;

    fn len(&self) -> usize {
        self.rows.div_ceil(self.run) * self.width.div_ceil(self.block)
    }

    unsafe fn part(&self, i: usize) -> ColumnBlock<'a, T> {
        let across = self.width.div_ceil(self.block);
        let (first_row, first) = (i / across * self.run, i % across * self.block);
        let start = self
            .start
            .wrapping_add(first_row * self.stride + self.first + first);
        ColumnBlock {
            start,
            stride: self.stride,
            first_row,
            rows: self.run.min(self.rows - first_row),
            first,
            width: self.block.min(self.width - first),
            part: PhantomData,
        }
    }
}

// SAFETY: parts of a pair are pairs of parts of the same index, each without overlap.
unsafe impl<A: Parts, B: Parts> Parts for (A, B) {
    type Part = (A::Part, B::Part);

    fn len(&self) -> usize {
        assert_eq!(self.0.len(), self.1.len(), "parts of a pair");
        self.0.len()
    }

    unsafe fn part(&self, i: usize) -> Self::Part {
        // SAFETY: the caller's promise, handed on.
        let a = unsafe { self.0.part(i) };
        // SAFETY: as above.
        let b = unsafe { self.1.part(i) };
        (a, b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Pool;

    #[test]
    fn parts_cover_the_slice_without_overlap() {
        let pool = Pool::new(3).unwrap();
        let mut a = vec![0u32; 1003];
        let mut b = vec![0u32; 101];
        pool.each(
            (Rows::new(&mut a, 10), Rows::new(&mut b, 1)),
            |_, i, (a, b)| {
                a.iter_mut().for_each(|v| *v += i as u32);
                b[0] = a.len() as u32;
            },
        );
        assert!(a.iter().enumerate().all(|(i, &v)| v == i as u32 / 10));
        assert_eq!(b.iter().sum::<u32>(), 1003);
        for run in [1, 2, 3, 4, 9] {
            let mut m = vec![0u32; 4 * 50];
            let parts = Columns::new(&mut m, 4, 50, 3, 40, 7).in_runs(run);
            pool.each(parts, |_, _, mut block| {
                for r in 0..block.rows() {
                    let (row, first) = (block.first_row() + r, block.first());
                    for (c, v) in block.row(r).iter_mut().enumerate() {
                        *v += (1000 * row + first + c) as u32 + 1;
                    }
                }
            });
            for r in 0..4 {
                for c in 0..50 {
                    let want = if (3..43).contains(&c) {
                        1000 * r + c - 3 + 1
                    } else {
                        0
                    };
                    assert_eq!(
                        m[r * 50 + c],
                        want as u32,
                        "row {r} column {c} in runs of {run}"
                    );
                }
            }
        }
    }
}
