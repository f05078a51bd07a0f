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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Isa;
    use crate::math::tests::Random;
    use crate::threads::Pool;

    #[test]
    fn squares_are_added_in_the_order_of_the_rows() {
        let mut random = Random::new(80);
        for (rows, stride, columns) in [(1, 1, 1), (3, 7, 5), (40, 200, 129), (17, 64, 64)] {
            let input = random.units(rows * stride);
            let mut expected = vec![0.5; columns];
            for row in input.chunks(stride) {
                expected.iter_mut().zip(row).for_each(|(sum, x): (&mut f64, _)| *sum += f64::from(*x).powi(2));
            }
            for threads in [1, 3] {
                let pool = Pool::new(threads).unwrap();
                let context = Context::new(Isa::SCALAR, &pool);
                for split in 0..rows {
                    let mut sums = vec![0.5; columns];
                    add_squares(&context, &input[..split * stride], stride, split, &mut sums).unwrap();
                    add_squares(&context, &input[split * stride..], stride, rows - split, &mut sums).unwrap();
                    assert_eq!(sums, expected);
                }
            }
        }
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let pool = Pool::new(1).unwrap();
        let context = Context::new(Isa::SCALAR, &pool);
        for (stride, rows, columns) in [(4, 2, 5), (4, 3, 4), (usize::MAX, 3, 4)] {
            assert!(add_squares(&context, &[0.0; 8], stride, rows, &mut vec![0.0; columns]).is_err());
        }
        add_squares(&context, &[2.0; 7], 4, 2, &mut [0.0; 3]).unwrap();
    }
}
