//! Panels of the right operand: dequantized weights or floats in memory, `[part][step][column]`, as the tile reads them.

use super::pieces::sized;
use super::right::Right;
use super::view::View;
use crate::Error;
use crate::cpu::Isa;
use crate::math::{LANES, Lanes};
use crate::matmul::Matrix;

/// Fills a panel with the steps from `step` on, `steps` in number, of `count` columns from `first` on, in parts of `width`
/// columns; what is beyond the last column becomes zeros.
#[inline(always)]
pub(super) fn fill_right<L: Lanes>(
    (set, isa): (L::Set, Isa),
    right: &Right,
    (step, steps): (usize, usize),
    (first, count): (usize, usize),
    width: usize,
    (panel, rows): (&mut [f32], &mut Vec<f32>),
) -> Result<(), Error> {
    match right {
        Right::Rows(weights) => {
            let source = |row: usize, out: &mut [f32]| weights.part(isa, row, step, out);
            across::<L>(set, &source, steps, (first, count), width, (panel, rows))
        }
        Right::Columns(weights) => along_weights((weights, isa), (step, steps), (first, count), width, (panel, rows)),
        Right::Numbers(view) if view.row_stride == 1 => {
            let source = |column: usize, out: &mut [f32]| {
                out.copy_from_slice(&view.numbers[column * view.column_stride + step..][..out.len()]);
                Ok(())
            };
            across::<L>(set, &source, steps, (first, count), width, (panel, rows))
        }
        Right::Numbers(view) => {
            along_view(*view, (step, steps), (first, count), width, panel);
            Ok(())
        }
    }
}

/// Writes the elements of a column along the inner dimension.
type Source<'a> = dyn Fn(usize, &mut [f32]) -> Result<(), Error> + 'a;

/// Sources whose elements along the inner dimension are adjacent: 16 of them are transposed at a time.
#[inline(always)]
fn across<L: Lanes>(
    set: L::Set,
    source: &Source,
    steps: usize,
    (first, count): (usize, usize),
    width: usize,
    (panel, rows): (&mut [f32], &mut Vec<f32>),
) -> Result<(), Error> {
    let padded = steps.next_multiple_of(LANES);
    let rows = sized(rows, LANES * padded)?;
    for (part, panel) in panel.chunks_exact_mut(steps * width).enumerate() {
        for group in (0..width).step_by(LANES) {
            let start = part * width + group;
            for (lane, row) in rows.chunks_exact_mut(padded).enumerate() {
                if start + lane < count {
                    source(first + start + lane, &mut row[..steps])?;
                } else {
                    row.fill(0.0);
                }
            }
            for step in (0..steps).step_by(LANES) {
                let mut square = [L::zero(set); LANES];
                for lane in 0..LANES {
                    square[lane] = L::load_part(set, &rows[lane * padded + step..][..LANES]);
                }
                let square = L::transpose(square);
                for i in 0..LANES.min(steps - step) {
                    square[i].store_part(&mut panel[(step + i) * width + group..][..LANES]);
                }
            }
        }
    }
    Ok(())
}

/// Weights whose rows are the inner dimension.
fn along_weights(
    (weights, isa): (&Matrix, Isa),
    (step, steps): (usize, usize),
    (first, count): (usize, usize),
    width: usize,
    (panel, row): (&mut [f32], &mut Vec<f32>),
) -> Result<(), Error> {
    let row = sized(row, count.next_multiple_of(width))?;
    row.fill(0.0);
    for index in 0..steps {
        weights.part(isa, step + index, first, &mut row[..count])?;
        for (part, from) in row.chunks_exact(width).enumerate() {
            panel[(part * steps + index) * width..][..width].copy_from_slice(from);
        }
    }
    Ok(())
}

/// Floats with any strides.
fn along_view(
    view: View,
    (step, steps): (usize, usize),
    (first, count): (usize, usize),
    width: usize,
    panel: &mut [f32],
) {
    for (part, panel) in panel.chunks_exact_mut(steps * width).enumerate() {
        let start = part * width;
        let some = width.min(count.saturating_sub(start));
        for (index, to) in panel.chunks_exact_mut(width).enumerate() {
            let (to, rest) = to.split_at_mut(some);
            rest.fill(0.0);
            if view.column_stride == 1 {
                let from = &view.numbers[(step + index) * view.row_stride + first + start..][..some];
                let ((to, last), (from, rest)) = (to.as_chunks_mut::<LANES>(), from.as_chunks::<LANES>());
                // Vectors, because calling a function for so few numbers takes longer.
                to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                last.copy_from_slice(rest);
            } else {
                for (column, to) in to.iter_mut().enumerate() {
                    *to = view.at(step + index, first + start + column);
                }
            }
        }
    }
}
