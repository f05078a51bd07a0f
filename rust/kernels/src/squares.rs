//! Sums of squares of the columns of activations.

use crate::Error;
use crate::context::Context;
use crate::shared::Pieces;

/// Number of columns that a thread sums at a time.
const COLUMNS: usize = 64;

/// Adds to `sums[i]` the squares of element `i` of every row, in the order of the rows, so that the result does not depend
/// on how rows are divided into calls. `input` has `rows` rows of `stride` elements, of which the first `sums.len()` count;
/// the last row may end after them.
///
/// # Errors
/// `Error::Shape` if `input` is too short or `stride` is less than `sums.len()`; `Error::Cancelled` if the context was
/// interrupted, with some squares added.
pub fn add_squares(
    context: &Context,
    input: &[f32],
    stride: usize,
    rows: usize,
    sums: &mut [f64],
) -> Result<(), Error> {
    let columns = sums.len();
    if rows == 0 || columns == 0 {
        return Ok(());
    }
    let needed = (rows - 1).checked_mul(stride).and_then(|start| start.checked_add(columns));
    if columns > stride || needed.is_none_or(|needed| needed > input.len()) {
        return Err(Error::Shape(format!(
            "squares of {columns} columns in {rows} rows of {stride} numbers, {} in all; expected whole rows",
            input.len()
        )));
    }
    let pieces = Pieces::new(sums, COLUMNS);
    context.for_each(pieces.count(), &|piece| {
        // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds it.
        let sums = unsafe { pieces.get(piece) };
        for row in 0..rows {
            let numbers = &input[row * stride + piece * COLUMNS..][..sums.len()];
            for (sum, number) in sums.iter_mut().zip(numbers) {
                // The square of an f32 is exact in f64.
                *sum += f64::from(*number) * f64::from(*number);
            }
        }
    })
}
