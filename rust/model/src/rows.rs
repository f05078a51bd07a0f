//! Work on the rows of a buffer, shared among the threads.

use std::sync::{Mutex, PoisonError};

use llamacpu_kernels::context::Context;

use crate::Error;

/// Calls `work(index, row)` for every row of `data`; a row has `width` elements.
pub(crate) fn for_rows(
    context: &Context,
    data: &mut [f32],
    width: usize,
    work: &(dyn Fn(usize, &mut [f32]) + Sync),
) -> Result<(), Error> {
    let rows = data.len() / width;
    if rows <= 1 {
        data.chunks_exact_mut(width).for_each(|row| work(0, row));
        return Ok(());
    }
    let rows_per_piece = rows.div_ceil(context.pool.threads() * 4);
    let pieces: Vec<_> = data.chunks_mut(rows_per_piece * width).map(Mutex::new).collect();
    context.for_each(pieces.len(), &|piece| {
        let mut rows = pieces[piece].lock().unwrap_or_else(PoisonError::into_inner);
        for (index, row) in rows.chunks_exact_mut(width).enumerate() {
            work(piece * rows_per_piece + index, row);
        }
    })?;
    Ok(())
}
