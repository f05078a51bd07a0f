//! What is added to the scores of a block, and which positions are left out.

use std::ops::Range;

use super::scores::{CHUNK, CHUNK_PAGES};

/// Values that are added to the scores.
#[derive(Clone, Copy)]
pub(super) struct Bias<'a> {
    /// `group × queries × positions` for the query heads of the block; empty if there is no bias.
    pub(super) numbers: &'a [f32],
    /// Queries of the item.
    pub(super) queries: usize,
    pub(super) positions: usize,
    /// The first query of the block.
    pub(super) first: usize,
}

/// The positions that the queries of a block see within their ranges.
#[derive(Clone, Copy, Default)]
pub(super) struct Selected<'a> {
    /// A bit for each position, `stride` words for each query; empty if they see all.
    pub(super) words: &'a [u64],
    pub(super) stride: usize,
}

impl<'a> Selected<'a> {
    /// The words of a query for the pages of a chunk; empty if it sees all.
    #[inline(always)]
    pub(super) fn part(&self, query: usize, chunk: usize) -> &'a [u64] {
        let row = self.words.get(query * self.stride..(query + 1) * self.stride).unwrap_or(&[]);
        row.get(chunk * CHUNK_PAGES..).unwrap_or(&[])
    }
}

impl<'a> Bias<'a> {
    /// The biases of a query head for the positions of a chunk.
    #[inline(always)]
    pub(super) fn part(&self, head: usize, query: usize, chunk: usize) -> &'a [f32] {
        if self.numbers.is_empty() {
            return &[];
        }
        let row = &self.numbers[(head * self.queries + self.first + query) * self.positions..][..self.positions];
        let rest = row.get(chunk * CHUNK..).unwrap_or(&[]);
        &rest[..rest.len().min(CHUNK)]
    }
}

/// The part of a range that is among the `count` positions from `first` on, relative to `first`.
#[inline(always)]
pub(super) fn inside(range: &Range<usize>, first: usize, count: usize) -> Range<usize> {
    range.start.saturating_sub(first).min(count)..range.end.saturating_sub(first).min(count)
}
