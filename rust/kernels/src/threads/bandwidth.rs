//! Measurement of the read bandwidth: the upper limit for generation, as a reference.

use std::hint::black_box;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::Error;
use crate::context::Context;
use crate::mapping::AlignedBytes;
use crate::math::prefetch;

/// Bytes that one piece of work reads: small enough to balance the threads, large enough to hide the hand-over.
const PIECE: usize = 1 << 20;

/// Prefetch distance in bytes on every other pass, as in the products of weights: some processors read faster that way,
/// some slower, and the limit is the better of the two.
const AHEAD: usize = 24 << 10;

/// Reads a buffer of `bytes` (much larger than the caches, to measure memory) with all threads of the context for about
/// `time`, and returns the best rate seen in GB/s (10^9 bytes per second).
///
/// # Errors
/// `Error::Shape` for an empty buffer or one that cannot be allocated; `Error::Cancelled` if the context was interrupted.
pub fn read_bandwidth(context: &Context, bytes: usize, time: Duration) -> Result<f64, Error> {
    let pieces = bytes.div_ceil(PIECE);
    if pieces == 0 {
        return Err(Error::Shape("read bandwidth of 0 bytes asked for; expected at least one".into()));
    }
    let mut buffer = AlignedBytes::zeroed(pieces * PIECE)?;
    // Written once: zero pages that were never written may all map to the same physical page.
    for page in buffer.chunks_mut(4096) {
        page[0] = 1;
    }
    let buffer = &buffer[..];
    let mut best = 0.0f64;
    let mut ahead = 0;
    let start = Instant::now();
    loop {
        let pass = Instant::now();
        context.for_each(pieces, &|piece| {
            black_box(sum(buffer, piece * PIECE..(piece + 1) * PIECE, ahead));
        })?;
        ahead = AHEAD - ahead;
        best = best.max((pieces * PIECE) as f64 / pass.elapsed().as_secs_f64() / 1e9);
        if start.elapsed() >= time {
            return Ok(best);
        }
    }
}

/// Reads every cache line in a way that cannot be optimized away and is far from being limited by arithmetic.
fn sum(buffer: &[u8], piece: Range<usize>, ahead: usize) -> u64 {
    let mut sums = [0u64; 32];
    for (number, part) in buffer[piece.clone()].chunks_exact(256).enumerate() {
        if ahead != 0 {
            let next = piece.start + number * 256 + ahead;
            prefetch(buffer, next..next + 256);
        }
        for (sum, word) in sums.iter_mut().zip(part.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
        }
    }
    sums.iter().fold(0, |total, sum| total.wrapping_add(*sum))
}
