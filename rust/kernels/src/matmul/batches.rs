//! The operands of a call with several products: batches of tokens, each shared by one or more matrices.

use super::matrix::Matrix;
use crate::shared::SharedSlice;

/// Tokens, and the matrices they are multiplied with. All sizes have been checked.
pub(super) struct Batch<'a> {
    /// Activations, from the first token's first element on.
    pub(super) input: &'a [f32],
    /// Elements from one token to the next.
    pub(super) stride: usize,
    /// At least 1.
    pub(super) tokens: usize,
    pub(super) products: Vec<Product<'a>>,
}

/// One matrix and the destination of its results.
pub(super) struct Product<'a> {
    pub(super) weights: &'a Matrix,
    pub(super) output: Output<'a>,
}

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
