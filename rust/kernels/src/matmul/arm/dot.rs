//! The tile of `sdot` and `usdot`: rows in lanes as in `tile`, with the activations taken from elements of a vector.

use crate::matmul::tile::Tile;
use crate::matmul::weights::{ScaleKind, Weights};
use crate::simd::ROWS;
use crate::simd::neon::Dot;
use std::arch::aarch64::*;

/// Bytes that a stream of weights is asked for in advance; the processor's own prefetch does the rest.
pub(super) const AHEAD: usize = 8192;

/// Computes 16 rows × `C` (1, 2 or 4) columns, `R` vectors of 4 rows (2 or 4) at a time; the arithmetic is that of `tile`.
///
/// # Safety
/// The instruction set is available; the pointers are good for `blocks` blocks of 16 rows and `C` columns.
#[inline(always)]
pub(super) unsafe fn dot_tile<S: Dot, W: Weights, const R: usize, const C: usize>(tile: &Tile) {
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        let parts = W::Scales::PARTS;
        let table = S::table(tile.table);
        for first in (0..ROWS).step_by(4 * R) {
            let mut results = [[S::zero(); C]; R];
            if tile.resume {
                for r in 0..R {
                    for c in 0..C {
                        results[r][c] = S::floats(tile.output.add(c * tile.output_stride + first + 4 * r));
                    }
                }
            }
            for block in 0..tile.blocks {
                let activations = tile.activations.add(block * 8 * C);
                let activation_scales = tile.activation_scales.add(block * C);
                let quants = tile.quants.add(block * W::BYTES + 4 * first);
                if W::STREAM {
                    for line in 0..W::BYTES / 64 {
                        S::prefetch_far(quants.wrapping_add(AHEAD + 64 * line));
                    }
                }
                macro_rules! part {
                    ($part:literal: $($group:literal)*) => {{
                        let offset = (block * parts + $part) * C;
                        let starts = tile.starts.add(offset);
                        let mut sums = [[S::begin(starts); C]; R];
                        for c in 1..C {
                            for r in 0..R {
                                sums[r][c] = S::begin(starts.add(c));
                            }
                        }
                        $(
                            let mut weights = [table; R];
                            for r in 0..R {
                                weights[r] = W::group::<S, $group>(quants.add(16 * r), table);
                                if W::STREAM {
                                    // A panel holds them so already.
                                    weights[r] = S::offset(W::MAXIMUM, weights[r]);
                                }
                            }
                            column!($group, 0, weights, activations, sums);
                            column!($group, 1, weights, activations, sums);
                            column!($group, 2, weights, activations, sums);
                            column!($group, 3, weights, activations, sums);
                        )*
                        for r in 0..R {
                            let lane = first + 4 * r;
                            let scale = W::Scales::scale::<S>(tile.scales, lane, block, $part);
                            let minimum = W::Scales::minimum::<S>(tile.scales, lane, block, $part);
                            for c in 0..C {
                                let mut term = S::mul(vcvtq_f32_s32(sums[r][c]), scale);
                                if W::Scales::MINIMUM {
                                    term = S::fnma(minimum, S::splat(*tile.sums.add(offset + c)), term);
                                }
                                results[r][c] = S::fma(term, S::splat(*activation_scales.add(c)), results[r][c]);
                            }
                        }
                    }};
                }
                /// Multiplies a group of 4 columns of the weights with one column of activations.
                macro_rules! column {
                    ($group:literal, $c:literal, $weights:ident, $activations:ident, $sums:ident) => {
                        if $c < C {
                            // The 8 · C numbers of a block are 2 · C whole vectors.
                            let four = vld1q_s32($activations.add(($group * C + $c) / 4 * 4));
                            for r in 0..R {
                                $sums[r][$c] = S::dot::<$group, $c, C>($sums[r][$c], $weights[r], four);
                            }
                        }
                    };
                }
                if parts == 1 {
                    part!(0: 0 1 2 3 4 5 6 7);
                } else {
                    part!(0: 0 1 2 3);
                    part!(1: 4 5 6 7);
                }
            }
            for r in 0..R {
                for c in 0..C {
                    S::store_floats(tile.output.add(c * tile.output_stride + first + 4 * r), results[r][c]);
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
                for part in 0..parts {
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
