//! Matrices of floats in memory, with any distance between rows and between columns.

use crate::Error;

/// A rows × columns matrix inside a slice: element `(i, j)` is number `start + i * row_stride + j * column_stride`.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub(super) numbers: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a> View<'a> {
    /// The whole slice, row after row.
    ///
    /// # Errors
    /// `Error::Shape` if the slice does not have rows × columns elements.
    pub fn new(numbers: &'a [f32], rows: usize, columns: usize) -> Result<Self, Error> {
        if rows.checked_mul(columns) != Some(numbers.len()) {
            return Err(Error::Shape(format!(
                "{} numbers for a {rows} × {columns} matrix; expected rows × columns",
                numbers.len()
            )));
        }
        Ok(Self { numbers, rows, columns, row_stride: columns, column_stride: 1 })
    }

    /// Columns `first` to `first + columns` of rows `from` to `from + rows` of a slice whose rows have `stride` elements.
    /// The range must be inside the slice.
    pub(super) fn part(
        numbers: &'a [f32],
        (from, rows): (usize, usize),
        (first, columns): (usize, usize),
        stride: usize,
    ) -> Self {
        Self { numbers: &numbers[from * stride + first..], rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// The transposed matrix, over the same elements.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// The element in a row and a column.
    #[inline(always)]
    pub(super) fn at(&self, row: usize, column: usize) -> f32 {
        self.numbers[row * self.row_stride + column * self.column_stride]
    }
}
