//! The left operand of a product, arranged for the register tile: panels of its rows, side by side.

use super::pieces::for_pieces;
use super::tile::{FEW, FLOATS};
use super::view::View;
use crate::Error;
use crate::context::Context;
use crate::math::{Kernel, LANES, Lanes, dispatch};
use crate::memory;
use crate::shared::Pieces;

/// A left operand that several products can share. Its buffer is kept for the next operand.
#[derive(Default)]
pub struct Packed {
    /// `[panel][column][row of the panel]`; missing rows of the last panel are zeros.
    pub(super) numbers: Vec<f32>,
    /// Rows of a panel.
    pub(super) side: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Packed {
    /// Arranges another operand.
    ///
    /// # Errors
    /// `Error::Memory`; `Error::Cancelled` if the context was interrupted.
    pub fn set(&mut self, context: &Context, view: View) -> Result<(), Error> {
        let side = FLOATS.on(context.isa).rows;
        // Panels that few rows fill better, if there are registers for both.
        let few = if side == FLOATS.large.0 && view.rows <= 4 * FEW { FEW } else { side };
        let side = if view.rows.next_multiple_of(few) < view.rows.next_multiple_of(side) { few } else { side };
        self.arrange(context, view, side)
    }

    /// Arranges the transposed right operand of a product with few columns: see [`multiply_narrow`](super::multiply_narrow).
    ///
    /// # Errors
    /// As `set`.
    pub fn set_columns(&mut self, context: &Context, view: View) -> Result<(), Error> {
        self.arrange(context, view, LANES)
    }

    fn arrange(&mut self, context: &Context, view: View, side: usize) -> Result<(), Error> {
        (self.side, self.rows, self.columns) = (side, view.rows, view.columns);
        let len = view.rows.div_ceil(side) * side * view.columns;
        memory::grow(&mut self.numbers, len, 0.0, "activations")?;
        let panels = Pieces::new(&mut self.numbers[..len], side * view.columns);
        for_pieces(context, panels.count(), &|piece, _| {
            // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds it.
            let panel = unsafe { panels.get(piece) };
            let first = piece * side;
            let rows = side.min(view.rows - first);
            dispatch(context.isa, Fill { panel, side, view, first, rows });
            Ok(())
        })
    }

    /// The most bytes that operands of that size take.
    pub fn nbytes(rows: usize, columns: usize) -> usize {
        // No tile has more rows than 16.
        rows.next_multiple_of(16).saturating_mul(columns).saturating_mul(size_of::<f32>())
    }
}

/// [`fill_panel`] for all columns.
struct Fill<'a> {
    panel: &'a mut [f32],
    side: usize,
    view: View<'a>,
    first: usize,
    rows: usize,
}

impl Kernel for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        fill_panel::<L>(set, self.panel, self.side, self.view, (self.first, self.rows));
    }
}

/// Writes rows from `first` on, `[column][row]` with `side` rows, at most 16, side by side; missing rows become zeros.
#[inline(always)]
pub(super) fn fill_panel<L: Lanes>(
    set: L::Set,
    panel: &mut [f32],
    side: usize,
    view: View,
    (first, rows): (usize, usize),
) {
    let panel = &mut panel[..side * view.columns];
    if rows < side {
        panel.fill(0.0);
    }
    if view.row_stride == 1 {
        for (column, to) in panel.chunks_exact_mut(side).enumerate() {
            let from = &view.numbers[column * view.column_stride + first..][..rows];
            // A loop, because calling a function for so few numbers takes longer.
            for (to, value) in to.iter_mut().zip(from) {
                *to = *value;
            }
        }
        return;
    }
    let mut start = 0;
    if view.column_stride == 1 {
        // A square of all rows and 16 columns at a time.
        while start + LANES <= view.columns {
            let mut square = [L::zero(set); LANES];
            for row in 0..rows {
                square[row] = L::load_part(set, &view.numbers[(first + row) * view.row_stride + start..][..LANES]);
            }
            let square = L::transpose(square);
            for column in 0..LANES {
                // What is beyond the panel's rows is overwritten by the next column.
                let to = &mut panel[(start + column) * side..];
                let count = to.len().min(LANES);
                square[column].store_part(&mut to[..count]);
            }
            start += LANES;
        }
    }
    for column in start..view.columns {
        for row in 0..rows {
            panel[column * side + row] = view.at(first + row, column);
        }
    }
}
