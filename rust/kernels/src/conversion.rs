//! Conversion of rows of weights from one block format to another: checks, and the division of the work among threads.

use crate::Error;
use crate::context::Context;
use crate::formats::{Format, Rows};
use crate::shared::Pieces;

/// Number of weights in a piece of work: enough for handing it over to cost nothing, few enough to stay in the cache.
const PIECE: usize = 16 * 1024;

/// A conversion of rows of one format to another.
#[derive(Debug, Clone, Copy)]
pub struct Conversion<'a> {
    /// Format of the input.
    pub from: Format,
    /// Format of the output.
    pub to: Format,
    /// Weights in a row: whole blocks of both.
    pub columns: usize,
    /// How much an error in each column counts: one number for each, none of them negative. Only the ratios matter.
    pub importance: Option<&'a [f32]>,
}

impl Conversion<'_> {
    /// Converts rows of blocks. The result is the same for any number of threads and instruction set.
    ///
    /// # Errors
    /// `Error::Shape` if `input` and `output` are not as many rows, or the importance is not one finite number for each
    /// column; `Error::Unsupported` for weights that the output cannot hold: infinite or NaN ones, or too large ones;
    /// `Error::Cancelled` if the context was interrupted.
    pub fn run(&self, context: &Context, input: &[u8], output: &mut [u8]) -> Result<(), Error> {
        let (input_row, output_row) = (self.row_bytes(self.from)?, self.row_bytes(self.to)?);
        let rows = input.len() / input_row;
        if rows * input_row != input.len() || output.len() != rows * output_row {
            return Err(Error::Shape(format!(
                "{} bytes of {} to {} bytes of {}, with {input_row} and {output_row} bytes a row; expected as many whole rows",
                input.len(),
                self.from.info().name,
                output.len(),
                self.to.info().name
            )));
        }
        let importance = self.importance.map(|importance| normalized(importance, self.columns)).transpose()?;
        let piece_rows = (PIECE / self.columns).max(1);
        let output = Pieces::new(output, piece_rows * output_row);
        let first_error = std::sync::Mutex::new(None::<(usize, usize, f32)>);
        context.for_each(output.count(), &|piece| {
            // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds it.
            let output = unsafe { output.get(piece) };
            let count = output.len() / output_row;
            let input = &input[piece * piece_rows * input_row..][..count * input_row];
            let mut values = vec![0.0; count * self.columns];
            (self.from.info().dequantize)(input, &mut values);
            if let Some((at, value)) = refused(self.to, &values) {
                let row = piece * piece_rows + at / self.columns;
                let mut first = first_error.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if first.is_none_or(|(found, ..)| row < found) {
                    *first = Some((row, at % self.columns, value));
                }
                return;
            }
            let rows = Rows { values: &values, columns: self.columns, importance: importance.as_deref() };
            (self.to.info().quantize)(context.isa, &rows, output);
        })?;
        match first_error.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            None => Ok(()),
            Some((row, column, value)) => Err(Error::Unsupported(format!(
                "the weight in row {row}, column {column} is {value}; {} holds finite numbers of at most {:e}",
                self.to.info().name,
                largest(self.to)
            ))),
        }
    }

    fn row_bytes(&self, format: Format) -> Result<usize, Error> {
        let info = format.info();
        format.row_bytes(self.columns).filter(|bytes| *bytes > 0).ok_or_else(|| {
            Error::Shape(format!(
                "rows of {} weights in {}; expected a multiple of {}",
                self.columns, info.name, info.block_elements
            ))
        })
    }
}

/// The importance of the columns with a mean of 1: products with it neither overflow nor vanish, and a column that was never
/// used still counts a little.
fn normalized(importance: &[f32], columns: usize) -> Result<Vec<f32>, Error> {
    if importance.len() != columns {
        return Err(Error::Shape(format!(
            "an importance of {} columns for rows of {columns}; expected one number for each column",
            importance.len()
        )));
    }
    if let Some(column) = importance.iter().position(|value| !value.is_finite() || *value < 0.0) {
        return Err(Error::Shape(format!(
            "the importance of column {column} is {}; expected a finite number of at least 0",
            importance[column]
        )));
    }
    let mean = importance.iter().map(|value| f64::from(*value)).sum::<f64>() / columns as f64;
    if mean == 0.0 {
        return Ok(vec![1.0; columns]);
    }
    Ok(importance.iter().map(|value| (f64::from(*value) / mean).max(1e-7) as f32).collect())
}

/// The largest magnitude of a weight that this format can hold: beyond it the scale of a block would be infinite.
fn largest(format: Format) -> f32 {
    const HALF: f32 = 65504.0;
    match format {
        Format::F32 | Format::MXFP4 => f32::MAX,
        Format::BF16 => f32::from_bits(0x7f7f_0000),
        Format::Q4_0 => 8.0 * HALF,
        Format::Q5_0 => 16.0 * HALF,
        Format::Q8_0 => 127.0 * HALF,
        _ => HALF,
    }
}

/// The first weight that this format cannot hold, and its index.
fn refused(format: Format, values: &[f32]) -> Option<(usize, f32)> {
    let largest = largest(format);
    if values.iter().fold(true, |all, value| all & (value.abs() <= largest)) {
        return None;
    }
    values.iter().position(|value| value.is_nan() || value.abs() > largest).map(|at| (at, values[at]))
}

#[cfg(test)]
mod tests;
