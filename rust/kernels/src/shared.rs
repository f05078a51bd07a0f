//! A mutable slice that several threads write, each its own part.

use std::marker::PhantomData;

/// A slice cut into pieces of equal length (the last one may be shorter).
pub(crate) struct Rows<'a, T> {
    start: *mut T,
    len: usize,
    piece: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: the only access is `get`, whose caller guarantees that no two threads use the same piece.
unsafe impl<T: Send> Sync for Rows<'_, T> {}

impl<'a, T> Rows<'a, T> {
    /// Cuts the slice into pieces of `piece` elements, at least 1.
    pub(crate) fn new(slice: &'a mut [T], piece: usize) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), piece: piece.max(1), slice: PhantomData }
    }

    /// Number of pieces.
    pub(crate) fn count(&self) -> usize {
        self.len.div_ceil(self.piece)
    }

    /// The piece number `index`; empty behind the end.
    ///
    /// # Safety
    /// While the result is in use, nobody else asks for the same piece.
    #[expect(clippy::mut_from_ref, reason = "the pieces are disjoint, which the caller guarantees")]
    pub(crate) unsafe fn get(&self, index: usize) -> &mut [T] {
        let start = index.saturating_mul(self.piece).min(self.len);
        let len = self.piece.min(self.len - start);
        // SAFETY: the range lies inside the slice that `new` borrowed exclusively for 'a; pieces do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
