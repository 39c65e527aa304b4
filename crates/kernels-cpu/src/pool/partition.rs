//! Disjoint mutable parts of a slice, one for each task of a job.
//!
//! The borrow checker cannot see that tasks write different places; these types hold that argument
//! once, so that the ops are written in safe code.

use std::marker::PhantomData;

/// A set of parts that do not overlap.
///
/// # Safety
/// The parts of two different indices below `len` never give access to the same element, and stay
/// valid as long as what the partition was made from is borrowed.
pub(crate) unsafe trait Partition: Sync {
    /// What one task gets.
    type Part;

    /// Number of parts.
    fn len(&self) -> usize;

    /// The part of one task.
    ///
    /// # Safety
    /// `index < len`, and each index is asked for at most once in the life of the partition.
    unsafe fn part(&self, index: usize) -> Self::Part;
}

/// Consecutive pieces of `chunk` elements; the last may be shorter.
pub(crate) struct Chunks<'a, T> {
    data: *mut T,
    len: usize,
    chunk: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

impl<'a, T> Chunks<'a, T> {
    pub(crate) fn new(data: &'a mut [T], chunk: usize) -> Self {
        Chunks { data: data.as_mut_ptr(), len: data.len(), chunk: chunk.max(1), borrowed: PhantomData }
    }
}

// SAFETY: the methods on `&Chunks` only compute pointers; the elements move to other threads by
// `part`, hence T: Send.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

// SAFETY: part i is the elements [i * chunk, (i + 1) * chunk) within the borrowed slice.
unsafe impl<'a, T: Send> Partition for Chunks<'a, T> {
    type Part = &'a mut [T];

    fn len(&self) -> usize {
        self.len.div_ceil(self.chunk)
    }

    unsafe fn part(&self, index: usize) -> &'a mut [T] {
        let start = index * self.chunk;
        assert!(start < self.len, "chunk {index} of {}", Partition::len(self));
        let len = self.chunk.min(self.len - start);
        // SAFETY: in bounds as just checked; the caller asks for each index once, so no two slices
        // overlap.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}

/// A row-major matrix cut into rectangles of `tile_rows` x `tile_cols`; the last in each direction
/// may be smaller. Tiles are numbered row block by row block.
pub(crate) struct Tiles<'a, T> {
    data: *mut T,
    rows: usize,
    cols: usize,
    tile_rows: usize,
    tile_cols: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

impl<'a, T> Tiles<'a, T> {
    /// `data` is [data.len() / cols, cols].
    pub(crate) fn new(data: &'a mut [T], cols: usize, tile_rows: usize, tile_cols: usize) -> Self {
        let rows = data.len().checked_div(cols).unwrap_or(0);
        assert_eq!(rows * cols, data.len(), "whole rows of {cols}");
        Tiles {
            data: data.as_mut_ptr(),
            rows,
            cols,
            tile_rows: tile_rows.max(1),
            tile_cols: tile_cols.max(1),
            borrowed: PhantomData,
        }
    }

    /// Vertical bands, each `width` columns of all rows.
    pub(crate) fn bands(data: &'a mut [T], cols: usize, width: usize) -> Self {
        let rows = data.len().checked_div(cols).unwrap_or(0);
        Tiles::new(data, cols, rows, width)
    }

    fn tiles_across(&self) -> usize {
        self.cols.div_ceil(self.tile_cols)
    }
}

// SAFETY: as for `Chunks`.
unsafe impl<T: Send> Sync for Tiles<'_, T> {}

// SAFETY: tile i covers rectangle (i / across, i % across) of the borrowed matrix; rectangles do
// not overlap.
unsafe impl<'a, T: Send> Partition for Tiles<'a, T> {
    type Part = Tile<'a, T>;

    fn len(&self) -> usize {
        // A matrix without rows still has its (empty) bands, to stay in step with another that has
        // some.
        self.rows.div_ceil(self.tile_rows).max(1) * self.tiles_across()
    }

    unsafe fn part(&self, index: usize) -> Tile<'a, T> {
        assert!(index < Partition::len(self), "tile {index} of {}", Partition::len(self));
        let first_row = index / self.tiles_across() * self.tile_rows;
        let first_col = index % self.tiles_across() * self.tile_cols;
        Tile {
            // Inside the matrix, unless that has no rows: then nothing is ever read through it,
            // hence `wrapping`.
            data: self.data.wrapping_add(first_row * self.cols + first_col),
            first_row,
            first_col,
            rows: self.tile_rows.min(self.rows - first_row),
            width: self.tile_cols.min(self.cols - first_col),
            stride: self.cols,
            borrowed: PhantomData,
        }
    }
}

/// One rectangle of a row-major matrix; the elements between its rows belong to others.
pub(crate) struct Tile<'a, T> {
    data: *mut T,
    first_row: usize,
    first_col: usize,
    rows: usize,
    width: usize,
    stride: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

impl<T> Tile<'_, T> {
    /// Row of the whole matrix that the tile's row 0 is.
    pub(crate) fn first_row(&self) -> usize {
        self.first_row
    }

    /// Column of the whole matrix that the tile's column 0 is.
    pub(crate) fn first_col(&self) -> usize {
        self.first_col
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// The tile's part of its row `row`.
    pub(crate) fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "row {row} of a tile of {}", self.rows);
        // SAFETY: inside the matrix and inside this tile; `&mut self` keeps one row alive at a
        // time.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.stride), self.width) }
    }
}

/// Scratch of each thread.
pub(super) struct PerThread<'a, L> {
    data: *mut L,
    len: usize,
    borrowed: PhantomData<&'a mut [L]>,
}

impl<'a, L> PerThread<'a, L> {
    pub(super) fn new(locals: &'a mut [L]) -> Self {
        PerThread { data: locals.as_mut_ptr(), len: locals.len(), borrowed: PhantomData }
    }

    /// # Safety
    /// No other reference to the same thread's scratch is alive.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn of_thread(&self, thread: usize) -> &mut L {
        assert!(thread < self.len, "scratch of thread {thread} of {}", self.len);
        // SAFETY: in bounds; exclusive by the caller's promise.
        unsafe { &mut *self.data.add(thread) }
    }
}

// SAFETY: hands out `&mut L` to one thread at a time, hence L: Send.
unsafe impl<L: Send> Sync for PerThread<'_, L> {}

/// Two partitions with the same number of parts, in step.
// SAFETY: both halves keep the promise.
unsafe impl<A: Partition, B: Partition> Partition for (A, B) {
    type Part = (A::Part, B::Part);

    fn len(&self) -> usize {
        assert_eq!(self.0.len(), self.1.len(), "partitions in step");
        self.0.len()
    }

    unsafe fn part(&self, index: usize) -> Self::Part {
        // SAFETY: the caller's promise holds for both.
        unsafe { (self.0.part(index), self.1.part(index)) }
    }
}

/// Several partitions, one after the other: a part is which of them, its index there, and what it is.
// SAFETY: each keeps the promise, and an index of all is one index of one.
unsafe impl<P: Partition, const N: usize> Partition for [P; N] {
    type Part = (usize, usize, P::Part);

    fn len(&self) -> usize {
        self.iter().map(P::len).sum()
    }

    unsafe fn part(&self, index: usize) -> Self::Part {
        let mut index = index;
        for (which, partition) in self.iter().enumerate() {
            if index < partition.len() {
                // SAFETY: the caller's promise; below its length as just checked.
                return (which, index, unsafe { partition.part(index) });
            }
            index -= partition.len();
        }
        panic!("part {index} beyond the last of {N} partitions");
    }
}
