//! The left operand of a product, arranged for the register tile: panels of its rows, side by side.

use super::pieces::for_pieces;
use super::tile::TileShape;
use super::view::View;
use crate::Error;
use crate::context::Context;
use crate::memory;
use crate::shared::Pieces;

/// A left operand that several products can share. Its buffer is kept for the next operand.
#[derive(Default)]
pub struct Packed {
    /// `[panel][column][row of the panel]`; missing rows of the last panel are zeros.
    pub(super) numbers: Vec<f32>,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Packed {
    /// Arranges another operand.
    ///
    /// # Errors
    /// `Error::Memory`; `Error::Cancelled` if the context was interrupted.
    pub fn set(&mut self, context: &Context, view: View) -> Result<(), Error> {
        let side = TileShape::of(context.isa).rows;
        (self.rows, self.columns) = (view.rows, view.columns);
        let len = view.rows.div_ceil(side) * side * view.columns;
        memory::grow(&mut self.numbers, len, 0.0, "activations")?;
        let panels = Pieces::new(&mut self.numbers[..len], side * view.columns);
        for_pieces(context, panels.count(), &|piece, _| {
            // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds it.
            let panel = unsafe { panels.get(piece) };
            let first = piece * side;
            let rows = side.min(view.rows - first);
            fill_panel(panel, side, view, (first, rows), (0, view.columns));
            Ok(())
        })
    }

    /// The most bytes that operands of that size take.
    pub fn nbytes(rows: usize, columns: usize) -> usize {
        // No tile has more rows than 16.
        rows.next_multiple_of(16).saturating_mul(columns).saturating_mul(size_of::<f32>())
    }
}

/// Writes rows from `first` on, `[column][row]` with `side` rows side by side; missing rows become zeros.
pub(super) fn fill_panel(
    panel: &mut [f32],
    side: usize,
    view: View,
    (first, rows): (usize, usize),
    (column, columns): (usize, usize),
) {
    let panel = &mut panel[..side * columns];
    if rows < side {
        panel.fill(0.0);
    }
    if view.row_stride == 1 {
        for (step, to) in panel.chunks_exact_mut(side).enumerate() {
            let from = (column + step) * view.column_stride + first;
            to[..rows].copy_from_slice(&view.numbers[from..from + rows]);
        }
    } else {
        for row in 0..rows {
            let from = &view.numbers[(first + row) * view.row_stride + column * view.column_stride..];
            let from = from.iter().step_by(view.column_stride.max(1));
            for (to, value) in panel[row..].iter_mut().step_by(side).zip(from) {
                *to = *value;
            }
        }
    }
}
