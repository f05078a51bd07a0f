//! Where the results of a product go.

use crate::shared::SharedSlice;

/// A rectangle of results: a row for each token.
#[derive(Clone, Copy)]
pub(super) struct Output<'a> {
    pub(super) numbers: &'a SharedSlice<'a, f32>,
    /// Index of the first result.
    pub(super) start: usize,
    /// Elements from one token's results to the next.
    pub(super) stride: usize,
}

impl Output<'_> {
    /// Pointer to a result, and the number of elements from there to the next token's.
    pub(super) fn at(&self, token: usize, row: usize) -> (*mut f32, usize) {
        (self.numbers.at(self.start + token * self.stride + row), self.stride)
    }

    /// `len` results of a token, from `row` on.
    ///
    /// # Safety
    /// As for [`SharedSlice::part`].
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(super) unsafe fn part(&self, token: usize, row: usize, len: usize) -> &mut [f32] {
        // SAFETY: the caller promises that no two parts in use overlap.
        unsafe { self.numbers.part(self.start + token * self.stride + row, len) }
    }
}
