//! Processes the rows of a buffer in parallel.

use std::sync::{Mutex, OnceLock, PoisonError};

use llamacpu_kernels::Error as KernelError;
use llamacpu_kernels::context::Context;

use crate::Error;

/// `values *= factor`
pub(crate) fn multiply(values: &mut [f32], factor: f32) {
    for value in values {
        *value *= factor;
    }
}

/// The work to do on a row, given its index.
pub(crate) type RowWork<'a> = &'a (dyn Fn(usize, &mut [f32]) -> Result<(), KernelError> + Sync);

/// Calls `work(index, row)` for every row of `data`; a row has `width` elements. Returns one of the errors, if any.
pub(crate) fn for_rows(context: &Context, data: &mut [f32], width: usize, work: RowWork) -> Result<(), Error> {
    let rows = data.len().checked_div(width).unwrap_or(0);
    if rows <= 1 {
        return Ok(data.chunks_exact_mut(width.max(1)).try_for_each(|row| work(0, row))?);
    }
    let rows_per_piece = rows.div_ceil(context.pool.threads() * 4);
    let pieces: Vec<_> = data.chunks_mut(rows_per_piece * width).map(Mutex::new).collect();
    let failure = OnceLock::new();
    context.for_each(pieces.len(), &|piece| {
        let mut rows = pieces[piece].lock().unwrap_or_else(PoisonError::into_inner);
        for (index, row) in rows.chunks_exact_mut(width).enumerate() {
            if let Err(error) = work(piece * rows_per_piece + index, row) {
                drop(failure.set(error));
                return;
            }
        }
    })?;
    failure.into_inner().map_or(Ok(()), |error| Err(error.into()))
}
