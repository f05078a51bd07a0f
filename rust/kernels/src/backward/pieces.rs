//! Work in pieces that can fail, and the buffers of the threads that do it.

use std::cell::Cell;
use std::sync::OnceLock;

use crate::Error;
use crate::context::Context;
use crate::memory;

/// Buffers of one thread, reused from piece to piece.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) left: Vec<f32>,
    pub(super) right: Vec<f32>,
    pub(super) rows: Vec<f32>,
    pub(super) scores: Vec<f32>,
    pub(super) gradients: Vec<f32>,
    pub(super) bytes: Vec<u8>,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Runs `work(piece)` for every piece, on all threads, each with the buffers of its thread.
///
/// # Errors
/// One of the errors of `work`; as [`Context::for_each`].
pub(super) fn for_pieces(
    context: &Context,
    pieces: usize,
    work: &(dyn Fn(usize, &mut Scratch) -> Result<(), Error> + Sync),
) -> Result<(), Error> {
    let failure = OnceLock::new();
    context.for_each(pieces, &|piece| {
        let mut scratch = SCRATCH.take().unwrap_or_default();
        if let Err(error) = work(piece, &mut scratch) {
            // The first error is reported.
            let _ = failure.set(error);
        }
        SCRATCH.set(Some(scratch));
    })?;
    failure.into_inner().map_or(Ok(()), Err)
}

/// The first `len` elements of a buffer, which hold leftovers of earlier use.
pub(super) fn sized(buffer: &mut Vec<f32>, len: usize) -> Result<&mut [f32], Error> {
    memory::grow(buffer, len, 0.0, "working memory")?;
    Ok(&mut buffer[..len])
}
