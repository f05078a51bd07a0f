//! Products with few columns, as with the first matrix of an adapter: the left operand is read where it is, because
//! arranging it would take longer than the product.

use super::packed::Packed;
use super::pieces::for_pieces;
use super::product::{Sum, expect_sizes};
use super::tile::{DEPTH, FLOATS, Target};
use super::view::View;
use crate::Error;
use crate::context::Context;
use crate::math::{Kernel, LANES, Lanes, dispatch};
use crate::shared::SharedSlice;

/// Panels of rows in a piece of work: they share each part of the right operand in the first-level cache.
const PANELS: usize = 4;

/// Computes `output = scale · left · right`, or adds it, with the bits of [`multiply`](super::multiply). The right operand was
/// arranged by [`Packed::set_columns`]; rows of the left one must be contiguous.
///
/// # Errors
/// `Error::Shape` if sizes do not match; `Error::Cancelled` if the context was interrupted.
pub fn multiply_narrow(
    context: &Context,
    left: View,
    right: &Packed,
    sum: Sum,
    output: &mut [f32],
) -> Result<(), Error> {
    let (inner, columns) = (right.columns, right.rows);
    expect_sizes((left.rows, left.columns), (inner, columns), output.len())?;
    if left.column_stride != 1 {
        return Err(Error::Shape(format!(
            "columns of the left operand are {} numbers apart; expected contiguous rows",
            left.column_stride
        )));
    }
    if inner == 0 && !sum.add {
        output.fill(0.0);
    }
    if output.is_empty() || inner == 0 {
        return Ok(());
    }
    let rows = PANELS * FLOATS.on(context.isa).rows;
    let numbers = SharedSlice::new(output);
    for_pieces(context, left.rows.div_ceil(rows), &|piece, _| {
        let first = piece * rows;
        let rows = (first, rows.min(left.rows - first));
        dispatch(context.isa, Part { left, right, size: rows, sum, output: &numbers });
        Ok(())
    })
}

/// Some rows of a product.
struct Part<'a> {
    left: View<'a>,
    right: &'a Packed,
    /// First row, and number of rows.
    size: (usize, usize),
    sum: Sum,
    output: &'a SharedSlice<'a, f32>,
}

impl Kernel for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { left, right, size: (first, rows), sum, output } = self;
        let (inner, columns, side) = (right.columns, right.rows, FLOATS.with::<L>().rows);
        for (group, right) in right.numbers.chunks_exact(LANES * inner).take(columns.div_ceil(LANES)).enumerate() {
            let count = LANES.min(columns - group * LANES);
            for step in (0..inner).step_by(DEPTH) {
                let steps = DEPTH.min(inner - step);
                let right = &right[step * LANES..][..steps * LANES];
                for start in (0..rows).step_by(side) {
                    let row = first + start;
                    let size = (side.min(rows - start), count);
                    let start = row * columns + group * LANES;
                    let target = Target { numbers: output, start, stride: columns, scale: sum.scale, turned: false };
                    let (from, add) = ((left, row, step), sum.add || step > 0);
                    // SAFETY: every piece has its own rows of the output.
                    unsafe {
                        if L::MANY_REGISTERS {
                            tile::<L, { FLOATS.large.0 }>(set, from, right, size, target, add);
                        } else {
                            tile::<L, { FLOATS.small.0 }>(set, from, right, size, target, add);
                        }
                    }
                }
            }
        }
    }
}

/// Multiplies rows from a row and a step on with a panel of 16 columns.
///
/// # Safety
/// No other thread uses these results of the target.
#[inline(always)]
unsafe fn tile<L: Lanes, const R: usize>(
    set: L::Set,
    (left, first, step): (View, usize, usize),
    right: &[f32],
    size: (usize, usize),
    target: Target,
    add: bool,
) {
    let (right, _) = right.as_chunks::<LANES>();
    let mut rows = [&left.numbers[..0]; R];
    for r in 0..R {
        // Rows that do not exist are computed as the last one, and not stored.
        let row = first + r.min(size.0 - 1);
        rows[r] = &left.numbers[row * left.row_stride + step..][..right.len()];
    }
    let mut sums = [[L::zero(set); 1]; R];
    let (whole, rest) = right.as_chunks::<LANES>();
    for (index, right) in whole.iter().enumerate() {
        // Slices of a known length, so that indices need no checks.
        let mut some = [&[0.0; LANES]; R];
        for r in 0..R {
            if let Some(part) = rows[r].as_chunks().0.get(index) {
                some[r] = part;
            }
        }
        for k in 0..LANES {
            let value = L::load(set, &right[k]);
            for r in 0..R {
                sums[r][0] = value.fma(L::splat(set, some[r][k]), sums[r][0]);
            }
        }
    }
    for (k, right) in rest.iter().enumerate() {
        let value = L::load(set, right);
        for r in 0..R {
            sums[r][0] = value.fma(L::splat(set, rows[r][whole.len() * LANES + k]), sums[r][0]);
        }
    }
    // SAFETY: the caller promises that these results belong to this thread.
    unsafe { target.receive(set, &sums, size, add) };
}
