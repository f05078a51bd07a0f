//! Mutable slices to which several threads write disjoint parts: [`Pieces`] with parts of equal length, [`SharedSlice`] with any.

use std::marker::PhantomData;

/// A slice divided into pieces of equal length (the last one may be shorter).
pub(crate) struct Pieces<'a, T> {
    start: *mut T,
    len: usize,
    piece: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: the only access is `get`, whose caller guarantees that no two threads use the same piece.
unsafe impl<T: Send> Sync for Pieces<'_, T> {}

impl<'a, T> Pieces<'a, T> {
    /// Divides the slice into pieces of `piece` elements, at least 1.
    pub(crate) fn new(slice: &'a mut [T], piece: usize) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), piece: piece.max(1), slice: PhantomData }
    }

    /// Number of pieces.
    pub(crate) fn count(&self) -> usize {
        self.len.div_ceil(self.piece)
    }

    /// Piece `index`; empty beyond the end.
    ///
    /// # Safety
    /// While the result is in use, no one else requests the same piece.
    #[expect(clippy::mut_from_ref, reason = "the pieces are disjoint, which the caller guarantees")]
    pub(crate) unsafe fn get(&self, index: usize) -> &mut [T] {
        let start = index.saturating_mul(self.piece).min(self.len);
        let len = self.piece.min(self.len - start);
        // SAFETY: inside the slice that `new` borrowed exclusively; the caller promises that nobody else has this piece.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

/// A slice to which several threads write disjoint parts.
pub(crate) struct SharedSlice<'a, T> {
    start: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: access is through `part` and `at`, whose callers promise that threads use different parts.
unsafe impl<T: Send> Sync for SharedSlice<'_, T> {}
// SAFETY: it is a borrowed mutable slice, which may go to another thread if its elements may.
unsafe impl<T: Send> Send for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    /// Borrows the whole slice.
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), lifetime: PhantomData }
    }

    /// A part of the slice.
    ///
    /// # Safety
    /// No two parts that are in use at the same time overlap.
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(crate) unsafe fn part(&self, first: usize, len: usize) -> &mut [T] {
        assert!(first.checked_add(len).is_some_and(|end| end <= self.len), "part outside of the slice");
        // SAFETY: inside the slice that `new` borrowed exclusively; the caller promises that no part in use overlaps.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), len) }
    }

    /// A part of the slice, to be read.
    ///
    /// # Safety
    /// While the result is in use, nobody writes to the part.
    pub(crate) unsafe fn read(&self, first: usize, len: usize) -> &[T] {
        assert!(first.checked_add(len).is_some_and(|end| end <= self.len), "part outside of the slice");
        // SAFETY: inside the slice that `new` borrowed exclusively; the caller promises that nobody writes there.
        unsafe { std::slice::from_raw_parts(self.start.add(first), len) }
    }

    /// Pointer to an element.
    pub(crate) fn at(&self, index: usize) -> *mut T {
        assert!(index <= self.len, "index outside of the slice");
        // SAFETY: the assertion keeps the pointer inside the borrowed slice or one past its end.
        unsafe { self.start.add(index) }
    }
}
