//! Peak rate of the processor's dot product instructions: the upper limit for prompts, as a reference.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::dispatch::common;
use crate::Error;
use crate::context::Context;

/// Rounds of dot products in one piece of work: about a tenth of a millisecond.
const ROUNDS: usize = 4000;

/// Runs dot products of bytes that stay in registers, on all threads of the context, for about `time`, and returns the best
/// rate seen in billions of multiplications (and additions) per second.
///
/// # Errors
/// `Error::Cancelled` if the context was interrupted.
pub fn product_peak(context: &Context, time: Duration) -> Result<f64, Error> {
    let common = common(context.isa);
    let pieces = 8 * context.pool.threads();
    let mut best = 0.0_f64;
    let start = Instant::now();
    loop {
        let pass = Instant::now();
        context.for_each(pieces, &|_| {
            // SAFETY: the instruction set is the context's.
            black_box(unsafe { (common.peak)(&ROUNDS) });
        })?;
        best = best.max((pieces * ROUNDS * common.peak_products) as f64 / pass.elapsed().as_secs_f64() / 1e9);
        if start.elapsed() >= time {
            return Ok(best);
        }
    }
}
