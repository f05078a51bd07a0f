//! Dot products of bytes that stay in registers, to measure the processor's peak; see `peak`.

use std::hint::black_box;
use std::marker::PhantomData;

use crate::cpu::sets::Entry;
use crate::simd::Simd;

/// Number of sums that fit into the registers next to the operands.
pub(super) const fn chains<S: Simd>() -> usize {
    if S::LANES == 8 { 6 } else { 12 }
}

/// 8 groups of products per round in `C` independent sums.
pub(super) struct Peak<S, const C: usize>(PhantomData<S>);

// SAFETY: only values on the stack are read and written.
unsafe impl<S: Simd, const C: usize> Entry for Peak<S, C> {
    type Operands = usize;
    type Output = f32;

    #[inline(always)]
    unsafe fn run(rounds: &usize) -> f32 {
        // SAFETY: the caller promises the set.
        unsafe { products::<S, C>(*rounds) }
    }
}

/// `rounds` × 8 groups of products in `C` independent sums (an even number): two vectors of weights times `C / 2` tokens, as
/// in the tile of a prompt, so that no product repeats another.
///
/// # Safety
/// The processor has the set, and the code is compiled for it.
#[inline(always)]
unsafe fn products<S: Simd, const C: usize>(rounds: usize) -> f32 {
    let bytes = black_box([[3_u8; 64], [5_u8; 64]]);
    let fours = [0x0102_0304_i32; 128];
    // SAFETY: pointers are to whole vectors and to single values; 8 · C / 2 is at most 128.
    unsafe {
        let weights = [S::bytes(bytes[0].as_ptr()), S::bytes(bytes[1].as_ptr())];
        let mut total = S::zero();
        let mut sums = [S::empty(); C];
        for _ in 0..rounds {
            // As far as the compiler knows, they are different every time.
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
