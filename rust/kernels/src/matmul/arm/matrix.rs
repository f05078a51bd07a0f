//! The tile of `usmmla`, which multiplies two rows of 8 weights with two columns of 8 activations: a vector of sums holds row
//! 0 of both columns, then row 1. The sums are exact integers and the float operations go lane by lane, so the bits are
//! those of `tile`.

use std::arch::aarch64::*;
use std::hint::black_box;

use super::dot::{pairs, prefetch};
use crate::cpu::sets::I8mm;
use crate::matmul::tile::Tile;
use crate::matmul::weights::{ScaleKind, Weights};
use crate::simd::neon::add_pair_products;
use crate::simd::{ROWS, Simd};

/// Two numbers, twice; or one, four times.
#[inline(always)]
unsafe fn twice<const SINGLE: bool>(at: *const f32) -> float32x4_t {
    // SAFETY: the caller promises one or two numbers.
    unsafe {
        if SINGLE { vld1q_dup_f32(at) } else { vreinterpretq_f32_u64(vdupq_n_u64(at.cast::<u64>().read_unaligned())) }
    }
}

/// Computes 16 rows × `2 · Q` columns (or one, if `SINGLE` and `Q` is 1), `R` vectors of 4 rows at a time.
///
/// # Safety
/// The instruction set is available; the pointers are good for `blocks` blocks (a multiple of 8 for weights with integer
/// scales) of 16 rows and the columns.
#[inline(always)]
pub(super) unsafe fn matrix_tile<W: Weights, const R: usize, const Q: usize, const SINGLE: bool>(tile: &Tile) {
    for first in (0..ROWS).step_by(4 * R) {
        // SAFETY: the caller promises it.
        unsafe {
            let mut results = [[[I8mm::zero(); Q]; 2]; R];
            if tile.resume {
                for r in 0..R {
                    for q in 0..Q {
                        let from = tile.output.add(2 * q * tile.output_stride + first + 4 * r);
                        let even = vld1q_f32(from);
                        let odd = if SINGLE { even } else { vld1q_f32(from.add(tile.output_stride)) };
                        results[r][0][q] = vzip1q_f32(even, odd);
                        results[r][1][q] = vzip2q_f32(even, odd);
                    }
                }
            }
            if W::Scales::INTEGER {
                of_integer_scales::<W, R, Q, SINGLE>(tile, first, &mut results);
            } else {
                of_float_scales::<W, R, Q, SINGLE>(tile, first, &mut results);
            }
            for r in 0..R {
                for q in 0..Q {
                    let to = tile.output.add(2 * q * tile.output_stride + first + 4 * r);
                    vst1q_f32(to, vuzp1q_f32(results[r][0][q], results[r][1][q]));
                    if !SINGLE {
                        vst1q_f32(to.add(tile.output_stride), vuzp2q_f32(results[r][0][q], results[r][1][q]));
                    }
                }
            }
        }
    }
}

/// For each vector of 4 rows: rows 0 and 1, rows 2 and 3, of each pair of columns.
type Pairs<T, const R: usize, const Q: usize> = [[[T; Q]; 2]; R];

/// A number of each row for both columns: of rows 0 and 1, of rows 2 and 3.
#[inline(always)]
unsafe fn rows(values: float32x4_t) -> [float32x4_t; 2] {
    // SAFETY: every aarch64 processor has these instructions.
    unsafe { [vzip1q_f32(values, values), vzip2q_f32(values, values)] }
}

/// The products of one part of a block.
#[inline(always)]
unsafe fn products<W: Weights, const R: usize, const Q: usize, const SINGLE: bool>(
    tile: &Tile,
    first: usize,
    block: usize,
    part: usize,
) -> Pairs<int32x4_t, R, Q> {
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        let columns = if SINGLE { 1 } else { 2 * Q };
        let table = I8mm::table(tile.table);
        let activations = tile.activations.add(block * 8 * columns);
        let quants = tile.quants.add(block * W::BYTES + if W::PANEL { 8 * first } else { 4 * first });
        let mut sums = [[[I8mm::empty(); Q]; 2]; R];
        if !W::Scales::MINIMUM {
            // Weights with minimums have zeros of 0.
            for q in 0..Q {
                let at = (block * W::Scales::PARTS + part) * columns + 2 * q;
                let start = vreinterpretq_s32_f32(twice::<SINGLE>(tile.starts.add(at).cast()));
                for r in 0..R {
                    sums[r][0][q] = start;
                    sums[r][1][q] = start;
                }
            }
        }
        macro_rules! groups {
            ($($even:literal $odd:literal)*) => { $(
                let mut eights = [vdupq_n_s8(0); Q];
                for q in 0..Q {
                    let from = activations.add($even * columns + 4 * q);
                    eights[q] = if SINGLE {
                        vreinterpretq_s8_u64(vdupq_n_u64(from.cast::<u64>().read_unaligned()))
                    } else {
                        vld1q_s8(from.cast())
                    };
                }
                for r in 0..R {
                    let weights = if W::PANEL {
                        let from = quants.add(64 * $even + 32 * r);
                        [vld1q_u8(from), vld1q_u8(from.add(16))]
                    } else {
                        let from = quants.add(16 * r);
                        pairs(W::group::<I8mm, $even>(from, table), W::group::<I8mm, $odd>(from, table))
                    };
                    for half in 0..2 {
                        for q in 0..Q {
                            sums[r][half][q] = I8mm::multiply(sums[r][half][q], weights[half], eights[q]);
                        }
                    }
                }
            )* };
        }
        match (W::Scales::PARTS, part) {
            (1, _) => {
                groups!(0 1 2 3 4 5 6 7);
            }
            (_, 0) => {
                groups!(0 1 2 3);
            }
            _ => {
                groups!(4 5 6 7);
            }
        }
        sums
    }
}

/// Weights whose scales are floats for 32 columns.
#[inline(always)]
unsafe fn of_float_scales<W: Weights, const R: usize, const Q: usize, const SINGLE: bool>(
    tile: &Tile,
    first: usize,
    results: &mut Pairs<float32x4_t, R, Q>,
) {
    let columns = if SINGLE { 1 } else { 2 * Q };
    for block in 0..tile.blocks {
        // SAFETY: every offset below is inside what the caller promises.
        unsafe {
            prefetch::<I8mm, W>(tile, block);
            let sums = products::<W, R, Q, SINGLE>(tile, first, block, 0);
            for r in 0..R {
                let scales = rows(W::Scales::scale::<I8mm>(tile.scales, first + 4 * r, block, 0));
                let minimums = rows(W::Scales::minimum::<I8mm>(tile.scales, first + 4 * r, block, 0));
                for half in 0..2 {
                    for q in 0..Q {
                        let at = block * columns + 2 * q;
                        let term = I8mm::mul(I8mm::to_floats(sums[r][half][q]), scales[half]);
                        let factor = twice::<SINGLE>(tile.activation_scales.add(at));
                        let mut result = I8mm::fma(term, factor, results[r][half][q]);
                        if W::Scales::MINIMUM {
                            result = I8mm::fnma(minimums[half], twice::<SINGLE>(tile.sums.add(at)), result);
                        }
                        results[r][half][q] = result;
                    }
                }
            }
        }
    }
}

/// Weights whose scales are integers for parts of 32 columns and a float for 256.
#[inline(always)]
unsafe fn of_integer_scales<W: Weights, const R: usize, const Q: usize, const SINGLE: bool>(
    tile: &Tile,
    first: usize,
    results: &mut Pairs<float32x4_t, R, Q>,
) {
    let columns = if SINGLE { 1 } else { 2 * Q };
    let parts = W::Scales::PARTS;
    for start in (0..tile.blocks).step_by(8) {
        // SAFETY: every offset below is inside what the caller promises.
        unsafe {
            let mut inner = [[[I8mm::zero(); Q]; 2]; R];
            for block in start..start + 8 {
                prefetch::<I8mm, W>(tile, block);
                let mut totals = [[[I8mm::integers(); Q]; 2]; R];
                macro_rules! part {
                    ($part:literal) => {{
                        let sums = products::<W, R, Q, SINGLE>(tile, first, block, $part);
                        for r in 0..R {
                            let scale = W::Scales::integer::<I8mm>(tile.scales, first + 4 * r, block, $part);
                            let scales = [vzip1q_s32(scale, scale), vzip2q_s32(scale, scale)];
                            for half in 0..2 {
                                for q in 0..Q {
                                    totals[r][half][q] =
                                        I8mm::add_scaled(totals[r][half][q], sums[r][half][q], scales[half]);
                                }
                            }
                        }
                    }};
                }
                part!(0);
                if parts == 2 {
                    part!(1);
                }
                for q in 0..Q {
                    let factor = twice::<SINGLE>(tile.activation_scales.add(block * columns + 2 * q));
                    for r in 0..R {
                        for half in 0..2 {
                            let total = I8mm::to_floats(totals[r][half][q]);
                            inner[r][half][q] = I8mm::fma(total, factor, inner[r][half][q]);
                        }
                    }
                }
            }
            for r in 0..R {
                let scales = rows(W::Scales::scale::<I8mm>(tile.scales, first + 4 * r, start, 0));
                for half in 0..2 {
                    for q in 0..Q {
                        results[r][half][q] = I8mm::fma(scales[half], inner[r][half][q], results[r][half][q]);
                    }
                }
            }
            if W::Scales::MINIMUM {
                take_minimums::<W, R, Q, SINGLE>(tile, first, start, results);
            }
        }
    }
}

/// Takes the minimums of 256 columns away.
#[inline(always)]
unsafe fn take_minimums<W: Weights, const R: usize, const Q: usize, const SINGLE: bool>(
    tile: &Tile,
    first: usize,
    start: usize,
    results: &mut Pairs<float32x4_t, R, Q>,
) {
    let columns = if SINGLE { 1 } else { 2 * Q };
    let parts = W::Scales::PARTS;
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        let mut sums = [[[I8mm::integers(); Q]; 2]; R];
        for pair in start * parts / 2..(start + 8) * parts / 2 {
            for r in 0..R {
                let both = W::Scales::minimums::<I8mm>(tile.scales, first + 4 * r, pair);
                let both = [vzip1q_s32(both, both), vzip2q_s32(both, both)];
                for half in 0..2 {
                    for q in 0..Q {
                        let sum = twice::<SINGLE>(tile.pairs.add(pair * columns + 2 * q).cast());
                        let sum = vreinterpretq_s32_f32(sum);
                        sums[r][half][q] = add_pair_products(sums[r][half][q], both[half], sum);
                    }
                }
            }
        }
        for r in 0..R {
            let minimums = rows(W::Scales::minimum::<I8mm>(tile.scales, first + 4 * r, start, 0));
            for half in 0..2 {
                for q in 0..Q {
                    let sum = twice::<SINGLE>(tile.pair_scales.add(start / 8 * columns + 2 * q));
                    let term = I8mm::mul(I8mm::to_floats(sums[r][half][q]), sum);
                    results[r][half][q] = I8mm::fnma(minimums[half], term, results[r][half][q]);
                }
            }
        }
    }
}

/// `rounds` × 8 matrix products in each of `C` independent sums, to measure the peak; see `matmul::peak`.
///
/// # Safety
/// The instruction set is available.
#[inline(always)]
pub(super) unsafe fn products_in_registers<const C: usize>(rounds: usize) -> f32 {
    let (weights, activations) = (black_box([3_u8; 16]), black_box([1_i8; 16]));
    // SAFETY: pointers are to whole vectors.
    unsafe {
        let (weights, activations) = (vld1q_u8(weights.as_ptr()), vld1q_s8(activations.as_ptr()));
        let mut sums = [I8mm::empty(); C];
        for (c, sum) in sums.iter_mut().enumerate() {
            // Different ones, so that they are not computed once.
            *sum = vdupq_n_s32(black_box(c as i32));
        }
        for _ in 0..8 * rounds {
            for c in 0..C {
                sums[c] = I8mm::multiply(sums[c], weights, activations);
            }
        }
        let mut total = I8mm::zero();
        for sum in sums {
            total = vaddq_f32(total, I8mm::to_floats(sum));
        }
        vgetq_lane_f32::<0>(total)
    }
}
