//! Tiles of queries × keys of one head of one sequence, and their products.

use std::ops::Range;

use super::shape::AttentionShape;
use crate::Error;
use crate::backward::product::multiply_small;
use crate::backward::tile::Target;
use crate::backward::view::View;
use crate::math::Lanes;
use crate::shared::SharedSlice;

/// Queries and keys of a tile: a multiple of the rows of every register tile.
pub(super) const SIDE: usize = 96;

/// One head of one sequence.
pub(super) struct Tiles<'a> {
    pub(super) shape: &'a AttentionShape<'a>,
    /// Rows of the sequence.
    pub(super) tokens: Range<usize>,
    pub(super) head: usize,
    pub(super) kv_head: usize,
    pub(super) query: &'a [f32],
    pub(super) key: &'a [f32],
    pub(super) value: &'a [f32],
}

impl<'a> Tiles<'a> {
    /// The tiles of keys that some queries see, as positions in the sequence.
    pub(super) fn keys(&self, first: usize, rows: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (from, end) = (self.shape.first(first) / SIDE * SIDE, first + rows);
        (from..end).step_by(SIDE).map(move |key| key..end.min(key + SIDE))
    }

    /// What the query at a position sees of a tile's keys, as indices in the tile.
    pub(super) fn seen(&self, position: usize, keys: &Range<usize>) -> Range<usize> {
        let first = self.shape.first(position).clamp(keys.start, keys.end);
        let end = (position + 1).clamp(first, keys.end);
        first - keys.start..end - keys.start
    }

    /// Some heads of the rows from position `first` on.
    fn rows(
        &self,
        numbers: &'a [f32],
        (first, rows): (usize, usize),
        head: usize,
        size: usize,
        heads: usize,
    ) -> View<'a> {
        View::part(numbers, (self.tokens.start + first, rows), (head * size, size), heads * size)
    }

    pub(super) fn queries(&self, first: usize, rows: usize) -> View<'a> {
        self.rows(self.query, (first, rows), self.head, self.shape.key_size, self.shape.heads)
    }

    pub(super) fn key_rows(&self, keys: &Range<usize>) -> View<'a> {
        self.rows(self.key, (keys.start, keys.len()), self.kv_head, self.shape.key_size, self.shape.kv_heads)
    }

    pub(super) fn value_rows(&self, keys: &Range<usize>) -> View<'a> {
        self.rows(self.value, (keys.start, keys.len()), self.kv_head, self.shape.value_size, self.shape.kv_heads)
    }

    /// The rows of an output or of its gradient.
    pub(super) fn output_rows(&self, numbers: &'a [f32], first: usize, rows: usize) -> View<'a> {
        self.rows(numbers, (first, rows), self.head, self.shape.value_size, self.shape.heads)
    }

    /// Scores of a tile before the cap, `SIDE` numbers a row.
    ///
    /// # Safety
    /// No other thread uses `scores`: they are borrowed.
    #[inline(always)]
    pub(super) unsafe fn scores<L: Lanes>(
        &self,
        set: L::Set,
        (first, rows): (usize, usize),
        keys: &Range<usize>,
        scores: &mut [f32],
        left: &mut Vec<f32>,
        right: &mut Vec<f32>,
        spare: &mut Vec<f32>,
    ) -> Result<(), Error> {
        let numbers = SharedSlice::new(scores);
        let target = Target { numbers: &numbers, start: 0, stride: SIDE, scale: self.shape.scale, turned: false };
        let (queries, keys) = (self.queries(first, rows), self.key_rows(keys).transposed());
        // SAFETY: the scores are borrowed.
        unsafe { multiply_small::<L>(set, queries, keys, target, false, (left, right, spare)) }
    }

    /// Adds the weighted values of a tile to the output.
    ///
    /// # Safety
    /// No other thread uses these rows of the output's head.
    #[inline(always)]
    pub(super) unsafe fn add_values<L: Lanes>(
        &self,
        set: L::Set,
        (first, rows): (usize, usize),
        keys: &Range<usize>,
        weights: &[f32],
        (output, offset): (&SharedSlice<f32>, usize),
        left: &mut Vec<f32>,
        right: &mut Vec<f32>,
        spare: &mut Vec<f32>,
    ) -> Result<(), Error> {
        let stride = self.shape.heads * self.shape.value_size;
        let start = (self.tokens.start + first) * stride + offset;
        let target = Target { numbers: output, start, stride, scale: 1.0, turned: false };
        let weights = View::part(weights, (0, rows), (0, keys.len()), SIDE);
        // SAFETY: promised by the caller.
        unsafe { multiply_small::<L>(set, weights, self.value_rows(keys), target, true, (left, right, spare)) }
    }
}
