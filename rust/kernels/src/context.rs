//! What every kernel call needs besides its operands: the instruction set, the threads, and a way to be interrupted.

use crate::cpu::Isa;
use crate::threads::Pool;

/// Borrowed by every parallel kernel for the time of one call.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Kernels to use.
    pub isa: Isa,
    /// Threads to use.
    pub pool: &'a Pool,
    /// Asked now and then by the calling thread between pieces of work; `true` stops the call with `Error::Cancelled`.
    pub interrupted: Option<&'a (dyn Fn() -> bool + Sync)>,
}
