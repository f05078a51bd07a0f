//! The tile of `sdot` and `usdot`: rows in lanes as in `tile`, with the activations taken from elements of a vector.

use crate::matmul::tile::{Tile, prefetch_folded};
use crate::matmul::weights::{ScaleKind, Weights};
use crate::simd::ROWS;
use crate::simd::neon::Dot;
use std::arch::aarch64::*;

/// Bytes that a stream of weights is asked for in advance; the processor's own prefetch does the rest.
const AHEAD: usize = 8192;

/// Computes 16 rows × `C` (1, 2 or 4) columns, `R` vectors of 4 rows (2 or 4) at a time; the arithmetic is that of `tile`.
///
/// # Safety
/// The instruction set is available; the pointers are good for `blocks` blocks (a multiple of 8 for weights with integer
/// scales) of 16 rows and `C` columns.
#[inline(always)]
pub(super) unsafe fn dot_tile<S: Dot, W: Weights, const R: usize, const C: usize>(tile: &Tile) {
    for first in (0..ROWS).step_by(4 * R) {
        // SAFETY: the caller promises it.
        unsafe {
            let mut results = [[S::zero(); C]; R];
            if tile.resume {
                for r in 0..R {
                    for c in 0..C {
                        results[r][c] = S::floats(tile.output.add(c * tile.output_stride + first + 4 * r));
                    }
                }
            }
            if W::Scales::INTEGER {
                of_integer_scales::<S, W, R, C>(tile, first, &mut results);
            } else {
                of_float_scales::<S, W, R, C>(tile, first, &mut results);
            }
            for r in 0..R {
                for c in 0..C {
                    S::store_floats(tile.output.add(c * tile.output_stride + first + 4 * r), results[r][c]);
                }
            }
        }
    }
}

/// Asks for the weights that will be needed some time after `block`.
#[inline(always)]
pub(super) unsafe fn prefetch<S: Dot, W: Weights>(tile: &Tile, block: usize) {
    if W::FOLDED {
        // SAFETY: addresses need not exist.
        unsafe { prefetch_folded::<S>(tile, block) };
    }
    if W::STREAM {
        let next = tile.quants.wrapping_add(block * W::BYTES + AHEAD);
        for line in 0..W::BYTES / 64 {
            // SAFETY: an address need not exist.
            unsafe { S::prefetch_far(next.wrapping_add(64 * line)) };
        }
    }
}

/// The dot products of one part of a block.
#[inline(always)]
unsafe fn products<S: Dot, W: Weights, const R: usize, const C: usize>(
    tile: &Tile,
    first: usize,
    block: usize,
    part: usize,
) -> [[int32x4_t; C]; R] {
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        let table = S::table(tile.table);
        let quants = tile.quants.add(block * W::BYTES + 4 * first);
        let activations = tile.activations.add(block * 8 * C);
        let mut sums = [[S::empty(); C]; R];
        if !W::Scales::MINIMUM {
            // Weights with minimums have zeros of 0.
            for c in 0..C {
                let start = S::begin(tile.starts.add((block * W::Scales::PARTS + part) * C + c));
                for r in 0..R {
                    sums[r][c] = start;
                }
            }
        }
        /// Multiplies a group of 4 columns of the weights with one column of activations.
        macro_rules! column {
            ($group:literal, $c:literal, $weights:ident) => {
                if $c < C {
                    // The 8 · C numbers of a block are 2 · C whole vectors.
                    let four = vld1q_s32(activations.add(($group * C + $c) / 4 * 4));
                    for r in 0..R {
                        sums[r][$c] = S::dot::<$group, $c, C>(sums[r][$c], $weights[r], four);
                    }
                }
            };
        }
        macro_rules! groups {
            ($($group:literal)*) => { $(
                let mut weights = [table; R];
                for r in 0..R {
                    weights[r] = W::group::<S, $group>(quants.add(16 * r), table);
                    if !W::PANEL {
                        // A panel holds them so already.
                        weights[r] = S::offset(W::MAXIMUM, weights[r]);
                    }
                }
                column!($group, 0, weights);
                column!($group, 1, weights);
                column!($group, 2, weights);
                column!($group, 3, weights);
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
unsafe fn of_float_scales<S: Dot, W: Weights, const R: usize, const C: usize>(
    tile: &Tile,
    first: usize,
    results: &mut [[float32x4_t; C]; R],
) {
    for block in 0..tile.blocks {
        // SAFETY: every offset below is inside what the caller promises.
        unsafe {
            prefetch::<S, W>(tile, block);
            let sums = products::<S, W, R, C>(tile, first, block, 0);
            for r in 0..R {
                let scale = W::Scales::scale::<S>(tile.scales, first + 4 * r, block, 0);
                let minimum = W::Scales::minimum::<S>(tile.scales, first + 4 * r, block, 0);
                for c in 0..C {
                    let factor = S::splat(*tile.activation_scales.add(block * C + c));
                    results[r][c] = S::fma(S::mul(S::to_floats(sums[r][c]), scale), factor, results[r][c]);
                    if W::Scales::MINIMUM {
                        results[r][c] = S::fnma(minimum, S::splat(*tile.sums.add(block * C + c)), results[r][c]);
                    }
                }
            }
        }
    }
}

/// Weights whose scales are integers for parts of 32 columns and a float for 256.
#[inline(always)]
unsafe fn of_integer_scales<S: Dot, W: Weights, const R: usize, const C: usize>(
    tile: &Tile,
    first: usize,
    results: &mut [[float32x4_t; C]; R],
) {
    let parts = W::Scales::PARTS;
    for start in (0..tile.blocks).step_by(8) {
        // SAFETY: every offset below is inside what the caller promises.
        unsafe {
            let mut inner = [[S::zero(); C]; R];
            for block in start..start + 8 {
                prefetch::<S, W>(tile, block);
                let mut totals = [[S::integers(); C]; R];
                macro_rules! part {
                    ($part:literal) => {{
                        let sums = products::<S, W, R, C>(tile, first, block, $part);
                        for r in 0..R {
                            let scale = W::Scales::integer::<S>(tile.scales, first + 4 * r, block, $part);
                            for c in 0..C {
                                totals[r][c] = S::add_scaled(totals[r][c], sums[r][c], scale);
                            }
                        }
                    }};
                }
                part!(0);
                if parts == 2 {
                    part!(1);
                }
                for c in 0..C {
                    let factor = S::splat(*tile.activation_scales.add(block * C + c));
                    for r in 0..R {
                        inner[r][c] = S::fma(S::to_floats(totals[r][c]), factor, inner[r][c]);
                    }
                }
            }
            for r in 0..R {
                let scale = W::Scales::scale::<S>(tile.scales, first + 4 * r, start, 0);
                for c in 0..C {
                    results[r][c] = S::fma(scale, inner[r][c], results[r][c]);
                }
            }
            if W::Scales::MINIMUM {
                let mut minimums = [[S::integers(); C]; R];
                for pair in start * parts / 2..(start + 8) * parts / 2 {
                    for r in 0..R {
                        let pairs = W::Scales::minimums::<S>(tile.scales, first + 4 * r, pair);
                        for c in 0..C {
                            minimums[r][c] = S::add_pairs(minimums[r][c], pairs, tile.pairs.add(pair * C + c));
                        }
                    }
                }
                for r in 0..R {
                    let minimum = W::Scales::minimum::<S>(tile.scales, first + 4 * r, start, 0);
                    for c in 0..C {
                        let sum = S::splat(*tile.pair_scales.add(start / 8 * C + c));
                        let term = S::mul(S::to_floats(minimums[r][c]), sum);
                        results[r][c] = S::fnma(minimum, term, results[r][c]);
                    }
                }
            }
        }
    }
}

/// Expands blocks into a panel as `expand` does, but with bytes as the multiplication takes them: less the zero of signed
/// ones, and if `PAIRS`, rows two by two with 8 columns each.
///
/// # Safety
/// As for `expand`.
#[inline(always)]
pub(super) unsafe fn expand<S: Dot, W: Weights, const PAIRS: bool>(tile: &Tile, quants: *mut u8, scales: *mut f32) {
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        let table = S::table(tile.table);
        let parts = W::Scales::PARTS;
        let step = if W::Scales::MINIMUM { 32 } else { 16 };
        for block in 0..tile.blocks {
            for lane in (0..ROWS).step_by(4) {
                let from = tile.quants.add(block * W::BYTES + 4 * lane);
                let to = quants.add(512 * block);
                macro_rules! groups {
                    ($($even:literal $odd:literal)*) => { $({
                        let even = S::offset(W::MAXIMUM, W::group::<S, $even>(from, table));
                        let odd = S::offset(W::MAXIMUM, W::group::<S, $odd>(from, table));
                        if PAIRS {
                            let [first, second] = pairs(even, odd);
                            S::store_bytes(to.add(64 * $even + 8 * lane), first);
                            S::store_bytes(to.add(64 * $even + 8 * lane + 16), second);
                        } else {
                            S::store_bytes(to.add(64 * $even + 4 * lane), even);
                            S::store_bytes(to.add(64 * $odd + 4 * lane), odd);
                        }
                    })* };
                }
                groups!(0 1 2 3 4 5 6 7);
                for part in 0..if W::Scales::INTEGER { 0 } else { parts } {
                    let to = scales.add((block * parts + part) * step + lane);
                    S::store_floats(to, W::Scales::scale::<S>(tile.scales, lane, block, part));
                    if W::Scales::MINIMUM {
                        S::store_floats(to.add(16), W::Scales::minimum::<S>(tile.scales, lane, block, part));
                    }
                }
            }
        }
    }
}

/// From 4 columns of 4 rows and the next 4 columns: 8 columns of rows 0 and 1, and of rows 2 and 3.
#[inline(always)]
pub(super) fn pairs(even: uint8x16_t, odd: uint8x16_t) -> [uint8x16_t; 2] {
    // SAFETY: every aarch64 processor has these instructions.
    unsafe {
        let (even, odd) = (vreinterpretq_u32_u8(even), vreinterpretq_u32_u8(odd));
        [vreinterpretq_u8_u32(vzip1q_u32(even, odd)), vreinterpretq_u8_u32(vzip2q_u32(even, odd))]
    }
}
