//! The right operand of a product.

use super::view::View;
use crate::matmul::Matrix;

/// The right operand of a product.
#[derive(Clone, Copy)]
pub enum Right<'a> {
    /// The transposed weights, as in `y = W x` for rows x: the inner dimension runs along the rows of the matrix.
    Rows(&'a Matrix),
    /// The weights, as in `dx = W^T dy` for rows dy: the inner dimension runs along the columns of the matrix.
    Columns(&'a Matrix),
    /// Floats.
    Numbers(View<'a>),
}

impl Right<'_> {
    /// Length of the inner dimension, and number of columns.
    pub(super) fn size(&self) -> (usize, usize) {
        match self {
            Self::Rows(weights) => (weights.columns(), weights.rows()),
            Self::Columns(weights) => (weights.rows(), weights.columns()),
            Self::Numbers(view) => (view.rows, view.columns),
        }
    }
}
