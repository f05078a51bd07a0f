//! What every kernel call needs besides its operands: the instruction set, the threads, and a way to interrupt it.

use crate::Error;
use crate::cpu::Isa;
use crate::mapping::Bytes;
use crate::threads::Pool;

/// Sees the inputs of all products that are computed in a context.
pub trait Observer: Sync {
    /// Called by the calling thread before it multiplies `input` by the matrix with these bytes: `tokens` rows of
    /// numbers, `input.1` apart, of which the first `columns` are read.
    ///
    /// # Errors
    /// An error ends the product.
    fn product(
        &self,
        context: &Context,
        weights: &Bytes,
        columns: usize,
        input: (&[f32], usize),
        tokens: usize,
    ) -> Result<(), Error>;
}

/// The environment of a call, borrowed by every parallel kernel for the duration of one call.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Instruction set whose kernels are used.
    pub isa: Isa,
    /// Threads to use.
    pub pool: &'a Pool,
    /// Polled by the calling thread between pieces of work; `true` stops the call with `Error::Cancelled`.
    pub interrupted: Option<&'a (dyn Fn() -> bool + Sync)>,
    /// Sees the inputs of matrix products.
    pub observer: Option<&'a dyn Observer>,
}

impl<'a> Context<'a> {
    /// A context that cannot be interrupted.
    pub fn new(isa: Isa, pool: &'a Pool) -> Self {
        Self { isa, pool, interrupted: None, observer: None }
    }

    /// Runs `work(piece)` once for every piece below `pieces`, on all threads.
    ///
    /// Every thread starts with its own contiguous range (the same range in every call of the same size, so that memory
    /// stays near the thread that touched it first) and, when done, takes the last pieces of other threads. A single piece
    /// runs on the calling thread.
    ///
    /// # Errors
    /// `Error::Cancelled` if `interrupted` returned `true`; some pieces have not run. `Error::Unsupported` if called from
    /// inside another parallel region.
    ///
    /// # Panics
    /// With the panic of any piece, after all threads have stopped.
    pub fn for_each(&self, pieces: usize, work: &(dyn Fn(usize) + Sync)) -> Result<(), Error> {
        self.pool.share(pieces, self.interrupted, work)
    }
}
