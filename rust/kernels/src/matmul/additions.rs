//! What is added to the results of products in the same parallel region: biases and low-rank changes (see
//! [`low_rank`](crate::low_rank)).
//!
//! The small products `A x` come first (`first_pieces`). `B` times their results is added to the rows of a piece of the large
//! product when it is done, and still in the cache.

use std::ops::Range;

use super::batches::{Batch, Product};
use super::matrix::Matrix;
use super::output::Output;
use super::placed::{Placed, PlacedChange};
use crate::Error;
use crate::low_rank::UpMatrix;
use crate::shared::SharedSlice;

/// What is added to the results of a product: the bias, then the changes.
#[derive(Debug, Clone, Default)]
pub struct Addition<'a> {
    /// One number per row of the matrix, for every token.
    pub bias: Option<&'a [f32]>,
    /// Changes of some tokens each.
    pub changes: Vec<Change<'a>>,
}

/// A low-rank change of the results of some tokens.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    /// Tokens, counted from the first one of the product.
    pub tokens: Range<usize>,
    /// The summands, in order.
    pub terms: Vec<ChangeTerm<'a>>,
}

/// One summand of a change: `up · (scale · (down · input))`.
#[derive(Debug, Clone, Copy)]
pub struct ChangeTerm<'a> {
    /// rank × columns, in a plain format.
    pub down: &'a Matrix,
    /// rows × rank.
    pub up: &'a UpMatrix,
    /// Factor of the inner result.
    pub scale: f32,
}

impl Addition<'_> {
    /// Checks the sizes against those of a product.
    pub(super) fn check(&self, (rows, columns): (usize, usize), tokens: usize) -> Result<(), Error> {
        if let Some(bias) = self.bias
            && bias.len() != rows
        {
            return Err(Error::Shape(format!("a bias of {} numbers for a matrix of {rows} rows", bias.len())));
        }
        for change in &self.changes {
            let Range { start, end } = change.tokens;
            if start > end || end > tokens {
                return Err(Error::Shape(format!("a change of tokens {start} to {end} of {tokens}")));
            }
            for ChangeTerm { down, up, .. } in &change.terms {
                let sizes = (up.rows(), up.rank(), down.rows(), down.columns());
                if sizes != (rows, down.rows(), up.rank(), columns) || down.layout().is_some() {
                    return Err(Error::Shape(format!(
                        "{} × {} and {} × {} matrices change one of {rows} × {columns}; expected {rows} × rank and \
                         rank × {columns}, the latter in F32, F16 or BF16",
                        sizes.0, sizes.1, sizes.2, sizes.3
                    )));
                }
            }
        }
        Ok(())
    }

    /// Number of results of all small products.
    pub(super) fn low_len(&self) -> Option<usize> {
        self.changes.iter().try_fold(0usize, |sum, change| {
            let rank = change.terms.iter().map(|term| term.up.rank()).sum::<usize>();
            sum.checked_add(change.tokens.len().checked_mul(rank)?)
        })
    }
}

/// The small products with the same input.
pub(super) struct LowBatch<'a> {
    pub(super) batch: Batch<'a>,
    /// By product.
    pub(super) scales: Vec<f32>,
}

/// Gives the small products of an addition places from `start` on, and adds them to the batches; `input` and its stride
/// are those of the large product.
pub(super) fn place<'a>(
    addition: &Addition<'a>,
    (input, stride): (&'a [f32], usize),
    (low, start): (&'a SharedSlice<'a, f32>, &mut usize),
    batches: &mut Vec<LowBatch<'a>>,
) -> Placed<'a> {
    let mut changes = Vec::with_capacity(addition.changes.len());
    for Change { tokens, terms } in &addition.changes {
        let mut placed = Vec::with_capacity(terms.len());
        for &ChangeTerm { down, up, scale } in terms {
            if tokens.is_empty() || up.rank() == 0 {
                continue;
            }
            let input = &input[tokens.start * stride..];
            let same = |other: &LowBatch| {
                std::ptr::eq(other.batch.input.as_ptr(), input.as_ptr()) && other.batch.tokens == tokens.len()
            };
            let index = batches.iter().position(same).unwrap_or_else(|| {
                let batch = Batch { input, stride, tokens: tokens.len(), products: Vec::new() };
                batches.push(LowBatch { batch, scales: Vec::new() });
                batches.len() - 1
            });
            let LowBatch { batch, scales } = &mut batches[index];
            // Parts of a joined matrix share the small product.
            let mut known = batch.products.iter().zip(&*scales);
            let known = known
                .find(|(product, other)| std::ptr::eq(product.weights, down) && other.to_bits() == scale.to_bits());
            let place = known.map_or(*start, |(product, _)| product.output.start);
            placed.push((up, place));
            if place == *start {
                let output = Output { numbers: low, start: place, stride: up.rank() };
                batch.products.push(Product { weights: down, output, addition: None });
                scales.push(scale);
                *start += tokens.len() * up.rank();
            }
        }
        if !placed.is_empty() {
            changes.push(PlacedChange { tokens: tokens.clone(), terms: placed });
        }
    }
    Placed { bias: addition.bias, changes, low }
}
