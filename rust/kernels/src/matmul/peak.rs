//! What the processor's dot product instructions can do at most: the limit of prompts, to compare with.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::dispatch::common;
use crate::Error;
use crate::context::Context;
use crate::simd::Simd;

/// Groups of dot products that one piece of work does: about a tenth of a millisecond.
const ROUNDS: usize = 4000;

/// Runs dot products of bytes that stay in registers, on all threads of the context, for about `time`, and returns the best
/// rate seen in billions of multiplications (and additions) a second.
///
/// # Errors
/// `Error::Cancelled`.
pub fn product_peak(context: &Context, time: Duration) -> Result<f64, Error> {
    let common = common(context.isa);
    let pieces = 8 * context.pool.threads();
    let mut best = 0.0_f64;
    let start = Instant::now();
    loop {
        let pass = Instant::now();
        context.for_each(pieces, &|_| {
            // SAFETY: the instruction set is the context's.
            black_box(unsafe { (common.peak)(ROUNDS) });
        })?;
        best = best.max((pieces * ROUNDS * common.peak_products) as f64 / pass.elapsed().as_secs_f64() / 1e9);
        if start.elapsed() >= time {
            return Ok(best);
        }
    }
}

/// `rounds` × 8 groups of products in `C` independent sums (an even number): two vectors of weights meet `C / 2` tokens, as
/// in the tile of a prompt, so that no product repeats another one.
///
/// # Safety
/// The instruction set is available.
#[inline(always)]
pub(super) unsafe fn products<S: Simd, const C: usize>(rounds: usize) -> f32 {
    let bytes = black_box([[3_u8; 64], [5_u8; 64]]);
    let fours = [0x0102_0304_i32; 128];
    // SAFETY: pointers are to whole vectors and to numbers; 8 · C / 2 is at most 128.
    unsafe {
        let weights = [S::bytes(bytes[0].as_ptr()), S::bytes(bytes[1].as_ptr())];
        let mut total = S::zero();
        let mut sums = [S::empty(); C];
        for _ in 0..rounds {
            // For all that the compiler knows they are others every time.
            let fours = black_box(&fours).as_ptr();
            macro_rules! groups {
                ($($group:literal)*) => { $(
                    for c in 0..C {
                        sums[c] = S::add_products(15, sums[c], weights[c % 2], fours.add($group * (C / 2) + c / 2));
                        sums[c] = S::carry(15, $group, sums[c], S::unscaled());
                    }
                )* };
            }
            groups!(0 1 2 3 4 5 6 7);
        }
        let start = 0;
        for c in 0..C {
            total = S::fma(S::finish(sums[c], &raw const start), S::splat(1.0), total);
        }
        let mut out = [0.0; 16];
        S::store_floats(out.as_mut_ptr(), total);
        out[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Isa;
    use crate::threads::Pool;

    #[test]
    fn every_instruction_set_has_a_peak() {
        let pool = Pool::new(1).unwrap();
        for isa in Isa::available() {
            let rate = product_peak(&Context::new(*isa, &pool), Duration::ZERO).unwrap();
            assert!(rate.is_finite() && rate > 0.0, "{}", isa.name());
        }
    }
}
