//! Products of plain weights with four vectors of 4 partial sums each; the order is that of `matmul::floats`.

use std::arch::aarch64::*;

use crate::matmul::floats::{Element, FloatTile};
use crate::simd::Simd;
use crate::simd::neon::Neon;

/// Partial sums of a product.
const SUMS: usize = 16;
/// Vectors of partial sums.
const VECTORS: usize = 4;
/// Columns done before the next vectors of partial sums are: rows and activations then stay in the first-level cache.
const PIECE: usize = 512;

/// A row of sums for each of `R` rows and `C` tokens.
type Sums<const R: usize, const C: usize> = [[[float32x4_t; VECTORS]; C]; R];

/// Computes `R` rows × `C` tokens, `V` vectors of partial sums at a time: the 16 sums of a product need four registers, so
/// that more than a few products do not fit at once.
///
/// # Safety
/// `R` rows and `C` tokens lie at the pointers.
#[inline(always)]
pub(super) unsafe fn float_tile<E: Element, const R: usize, const C: usize, const V: usize>(tile: &FloatTile) {
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        let row_bytes = tile.columns * E::BYTES;
        let mut sums = [[[vdupq_n_f32(0.0); VECTORS]; C]; R];
        let whole = tile.columns / SUMS * SUMS;
        for first in (0..whole).step_by(PIECE) {
            let count = PIECE.min(whole - first);
            let (weights, input) = (tile.weights.add(first * E::BYTES), tile.input.add(first));
            add::<E, R, C, V>(&mut sums, weights, row_bytes, input, tile.columns, count, C <= 2);
        }
        let rest = tile.columns - whole;
        if rest > 0 {
            let mut weights = [[0_u8; SUMS * 4]; R];
            let mut input = [[0.0_f32; SUMS]; C];
            for (r, weights) in weights.iter_mut().enumerate() {
                let from = tile.weights.add(r * row_bytes + whole * E::BYTES);
                from.copy_to_nonoverlapping(weights.as_mut_ptr(), rest * E::BYTES);
            }
            for (c, input) in input.iter_mut().enumerate() {
                let from = tile.input.add(c * tile.columns + whole);
                from.copy_to_nonoverlapping(input.as_mut_ptr(), rest);
            }
            let (weights, input) = (weights.as_ptr().cast::<u8>(), input.as_ptr().cast::<f32>());
            add::<E, R, C, V>(&mut sums, weights, SUMS * 4, input, SUMS, SUMS, false);
        }
        for (r, sums) in sums.iter().enumerate() {
            for (c, sums) in sums.iter().enumerate() {
                *tile.output.add(c * tile.output_stride + r) = add_lanes(*sums);
            }
        }
    }
}

/// Adds the products of `count` columns, a multiple of 16. A function of its own, so that its loops have all registers; it
/// needs nothing but what every aarch64 processor has.
///
/// # Safety
/// The columns of all rows and tokens lie at the pointers.
#[inline(never)]
unsafe fn add<E: Element, const R: usize, const C: usize, const V: usize>(
    sums: &mut Sums<R, C>,
    weights: *const u8,
    row_bytes: usize,
    input: *const f32,
    columns: usize,
    count: usize,
    ahead: bool,
) {
    for vector in (0..VECTORS).step_by(V) {
        let mut some = [[[sums[0][0][0]; V]; C]; R];
        for r in 0..R {
            for c in 0..C {
                for v in 0..V {
                    some[r][c][v] = sums[r][c][vector + v];
                }
            }
        }
        for k in (0..count).step_by(SUMS) {
            // SAFETY: inside what the caller promises; a prefetch may have any address.
            unsafe {
                if ahead && vector == 0 {
                    // Few tokens read every weight once: ask for the rows of the next tile.
                    for r in 0..R {
                        Neon::prefetch_far(weights.wrapping_add(k * E::BYTES + (R + r) * row_bytes));
                    }
                }
                for v in 0..V {
                    let column = k + 4 * (vector + v);
                    let mut values = [vdupq_n_f32(0.0); R];
                    for r in 0..R {
                        values[r] = E::load::<Neon>(weights.add(r * row_bytes + column * E::BYTES));
                    }
                    for c in 0..C {
                        let input = vld1q_f32(input.add(c * columns + column));
                        for r in 0..R {
                            some[r][c][v] = vfmaq_f32(some[r][c][v], values[r], input);
                        }
                    }
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                for v in 0..V {
                    sums[r][c][vector + v] = some[r][c][v];
                }
            }
        }
    }
}

/// The fixed tree of additions.
#[inline(always)]
fn add_lanes(sums: [float32x4_t; VECTORS]) -> f32 {
    // SAFETY: every aarch64 processor has these instructions.
    unsafe {
        let four = vaddq_f32(vaddq_f32(sums[0], sums[2]), vaddq_f32(sums[1], sums[3]));
        let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
        vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
    }
}
