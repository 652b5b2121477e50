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

/// A slice in chunks of one length; the last may be shorter.
pub struct Chunks<'a, T> {
    start: *mut T,
    len: usize,
    chunk: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: a `&mut [T]` in parts; sending a part to another thread sends `&mut T`s.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

impl<'a, T> Chunks<'a, T> {
    /// `slice` in chunks of `chunk` elements.
    ///
    /// # Panics
    /// When `chunk` is 0.
    pub fn new(slice: &'a mut [T], chunk: usize) -> Self {
        assert!(chunk > 0, "chunks of no elements");
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            chunk,
            slice: PhantomData,
        }
    }
}

// SAFETY: chunk `i` covers the elements from `i · chunk` up to the next one.
unsafe impl<'a, T: Send> Parts for Chunks<'a, T> {
    type Part = &'a mut [T];

    fn len(&self) -> usize {
        self.len.div_ceil(self.chunk)
    }

    unsafe fn part(&self, i: usize) -> &'a mut [T] {
        let first = i * self.chunk;
        let len = self.chunk.min(self.len - first);
        // SAFETY: `i` is below `len()`, so `first` lies inside the slice.
        let start = unsafe { self.start.add(first) };
        // SAFETY: `first + len` is at most the slice's length, and the caller asks for each index once.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}

/// The columns `first..first + width` of a row-major matrix with rows of `stride`, in blocks of `block` columns.
pub struct Columns<'a, T> {
    start: *mut T,
    rows: usize,
    stride: usize,
    first: usize,
    width: usize,
    block: usize,
    /// Where blocks of rows begin, and the end of the last; `None` where all rows are one block.
    cuts: Option<&'a [usize]>,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: as for `Chunks`.
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
            cuts: None,
            slice: PhantomData,
        }
    }

    /// The same in blocks of the rows between two of `cuts`; column blocks of the same rows follow each other.
    ///
    /// # Panics
    /// When `cuts` does not rise from 0 to the number of rows.
    pub fn cut_at(mut self, cuts: &'a [usize]) -> Self {
        assert!(
            cuts.first() == Some(&0) && cuts.last() == Some(&self.rows) && cuts.is_sorted(),
            "cuts of {} rows: {cuts:?}",
            self.rows
        );
        self.cuts = Some(cuts);
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

impl<'p, T> ColumnBlock<'p, T> {
    /// All of a matrix with rows of `stride`.
    ///
    /// # Panics
    /// When `stride` is 0.
    pub fn whole(matrix: &'p mut [T], stride: usize) -> Self {
        Self {
            start: matrix.as_mut_ptr(),
            stride,
            first_row: 0,
            rows: matrix.len() / stride,
            first: 0,
            width: stride,
            part: PhantomData,
        }
    }
}

impl<T> ColumnBlock<'_, T> {
    /// The first row.
    pub fn first_row(&self) -> usize {
        self.first_row
    }

    /// Lets go of the rows past the first `rows`.
    pub fn keep_rows(&mut self, rows: usize) {
        self.rows = self.rows.min(rows);
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

// SAFETY: block `i` covers other columns or other rows than every other block: cuts rise.
unsafe impl<'a, T: Send> Parts for Columns<'a, T> {
    type Part = ColumnBlock<'a, T>;

    fn len(&self) -> usize {
        self.cuts.map_or(1, |cuts| cuts.len() - 1) * self.width.div_ceil(self.block)
    }

    unsafe fn part(&self, i: usize) -> ColumnBlock<'a, T> {
        let across = self.width.div_ceil(self.block);
        let first = i % across * self.block;
        let (first_row, end_row) = match self.cuts {
            None => (0, self.rows),
            Some(cuts) => (cuts[i / across], cuts[i / across + 1]),
        };
        let start = self
            .start
            .wrapping_add(first_row * self.stride + self.first + first);
        ColumnBlock {
            start,
            stride: self.stride,
            first_row,
            rows: end_row - first_row,
            first,
            width: self.block.min(self.width - first),
            part: PhantomData,
        }
    }
}

/// Room for a list of slices; its memory is kept from one list to the next.
pub struct SliceList<T> {
    list: Vec<(*mut T, usize)>,
}

// SAFETY: between two lists the pointers are never followed.
unsafe impl<T: Send> Send for SliceList<T> {}
// SAFETY: as above; shared, nothing can be done with them.
unsafe impl<T: Send> Sync for SliceList<T> {}

impl<T> Default for SliceList<T> {
    fn default() -> Self {
        Self { list: Vec::new() }
    }
}

impl<T> SliceList<T> {
    /// `slices` as the parts of a job.
    pub fn fill<'a>(&'a mut self, slices: impl Iterator<Item = &'a mut [T]>) -> Slices<'a, T> {
        self.list.clear();
        self.list
            .extend(slices.map(|slice| (slice.as_mut_ptr(), slice.len())));
        Slices {
            list: &self.list,
            slices: PhantomData,
        }
    }
}

/// Slices that were borrowed one by one; see [`SliceList::fill`].
pub struct Slices<'a, T> {
    list: &'a [(*mut T, usize)],
    slices: PhantomData<&'a mut [T]>,
}

// SAFETY: as for `Chunks`.
unsafe impl<T: Send> Sync for Slices<'_, T> {}

// SAFETY: every part was an exclusive borrow of its own, and all of them live as long as `self`.
unsafe impl<'a, T: Send> Parts for Slices<'a, T> {
    type Part = &'a mut [T];

    fn len(&self) -> usize {
        self.list.len()
    }

    unsafe fn part(&self, i: usize) -> &'a mut [T] {
        let (start, len) = self.list[i];
        // SAFETY: `fill` took these from a slice that is borrowed for 'a; the caller asks for each index once.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
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
            (Chunks::new(&mut a, 10), Chunks::new(&mut b, 1)),
            |_, i, (a, b)| {
                a.iter_mut().for_each(|v| *v += i as u32);
                b[0] = a.len() as u32;
            },
        );
        assert!(a.iter().enumerate().all(|(i, &v)| v == i as u32 / 10));
        assert_eq!(b.iter().sum::<u32>(), 1003);
        let cuts: [&[usize]; 4] = [&[0, 4], &[0, 1, 2, 3, 4], &[0, 3, 4], &[0, 0, 2, 4, 4]];
        for cuts in cuts {
            let mut m = vec![0u32; 4 * 50];
            let parts = Columns::new(&mut m, 4, 50, 3, 40, 7).cut_at(cuts);
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
                        "row {r} column {c} cut at {cuts:?}"
                    );
                }
            }
        }
    }
    #[test]
    fn listed_slices_are_parts() {
        let pool = Pool::new(3).unwrap();
        let (mut a, mut b) = (vec![0u32; 90], vec![0u32; 7]);
        let mut list = SliceList::default();
        for _ in 0..3 {
            let slices = a.chunks_exact_mut(9).chain([&mut b[..]]);
            pool.each(list.fill(slices), |_, i, part| {
                part.iter_mut().for_each(|v| *v += i as u32)
            });
        }
        assert!(a.iter().enumerate().all(|(i, &v)| v == 3 * (i as u32 / 9)));
        assert_eq!(b, [30; 7]);
    }

    #[test]
    #[should_panic(expected = "cuts of 4 rows")]
    fn cuts_that_fall_are_refused() {
        let _ = Columns::new(&mut [0u32; 8], 4, 2, 0, 2, 1).cut_at(&[0, 3, 2, 4]);
    }
}
