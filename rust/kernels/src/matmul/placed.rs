//! Additions whose small products have places for their results, and adding them to pieces of a product.

use std::ops::Range;

use super::output::Output;
use crate::cpu::Isa;
use crate::low_rank::kernel::{AddPiece, TILE};
use crate::low_rank::{LowRankTerm, UpMatrix};
use crate::math::{LANES, dispatch};
use crate::shared::SharedSlice;

/// An addition whose small products have places for their results.
pub(super) struct Placed<'a> {
    pub(super) bias: Option<&'a [f32]>,
    pub(super) changes: Vec<PlacedChange<'a>>,
    pub(super) low: &'a SharedSlice<'a, f32>,
}

/// A change whose small products have places.
pub(super) struct PlacedChange<'a> {
    pub(super) tokens: Range<usize>,
    /// Matrices, and where the results of the small products begin: tokens × rank.
    pub(super) terms: Vec<(&'a UpMatrix, usize)>,
}

impl<'a> Placed<'a> {
    /// Prefetches what is added to some rows.
    pub(super) fn prefetch(&self, rows: &Range<usize>) {
        for (up, _) in self.changes.iter().flat_map(|change| &change.terms) {
            up.prefetch(rows.clone());
        }
    }

    /// Adds to some rows of the results of `tokens` tokens; the first row is a multiple of 16.
    ///
    /// # Safety
    /// No other thread uses these rows, and the small products are done.
    pub(super) unsafe fn apply(&self, isa: Isa, output: &Output, tokens: usize, rows: Range<usize>) {
        if let Some(bias) = self.bias {
            let bias = &bias[rows.clone()];
            for token in 0..tokens {
                // SAFETY: the caller promises that nobody else uses these rows.
                let row = unsafe { output.part(token, rows.start, rows.len()) };
                row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
            }
        }
        for PlacedChange { tokens, terms } in &self.changes {
            let term = |&(up, start): &(&'a UpMatrix, usize)| {
                let rank = up.rank();
                // SAFETY: the caller promises that the small products are done, so nobody writes there any more.
                LowRankTerm { up, low: unsafe { self.low.read(start, tokens.len() * rank) }, stride: rank }
            };
            let (one, many);
            let terms: &[LowRankTerm] = if let [only] = &terms[..] {
                one = [term(only)];
                &one
            } else {
                many = terms.iter().map(term).collect::<Vec<_>>();
                &many
            };
            for token in (0..tokens.len()).step_by(TILE) {
                let count = TILE.min(tokens.len() - token);
                let mut parts: [&mut [f32]; TILE] = std::array::from_fn(|_| &mut [][..]);
                for (index, part) in parts[..count].iter_mut().enumerate() {
                    // SAFETY: the caller promises that nobody else uses these rows.
                    *part = unsafe { output.part(tokens.start + token + index, rows.start, rows.len()) };
                }
                dispatch(isa, AddPiece { terms, token, first: rows.start, rows: &mut parts[..count] });
            }
        }
    }
}

/// The rows of a piece of a product that has `per_piece` rows in each.
pub(super) fn rows_of(piece: usize, per_piece: usize, rows: usize) -> Range<usize> {
    debug_assert!(per_piece.is_multiple_of(LANES));
    piece * per_piece..rows.min((piece + 1) * per_piece)
}
