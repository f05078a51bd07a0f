//! The product of `sdot` and `usdot`: rows in lanes, with the activations taken from elements of a vector.

use std::arch::aarch64::*;
use std::marker::PhantomData;

use crate::matmul::expand::Arrangement;
use crate::matmul::lanes::prefetch_compressed;
use crate::matmul::operands::TileOperands;
use crate::matmul::product::{Product, Results, RowVectors};
use crate::matmul::weights::{ScaleKind, Weights};
use crate::simd::neon::Dot;

/// Prefetch distance of a weight stream in bytes; the hardware prefetcher does the rest.
const AHEAD: usize = 8192;

/// Dot products with elements; tiles have 1, 2 or 4 columns.
pub(crate) struct ElementProduct<S>(PhantomData<S>);

// SAFETY: every offset is inside the block, the rows and the columns of the tile.
unsafe impl<S: Dot> Product for ElementProduct<S> {
    type Set = S;

    #[inline(always)]
    unsafe fn sums<W: Weights, const R: usize, const C: usize>(
        tile: &TileOperands,
        rows: &RowVectors<R>,
        block: usize,
    ) -> Results<Self, R, C> {
        // SAFETY: the caller promises the set and the block.
        unsafe {
            let mut totals = [[S::integers(); C]; R];
            if W::Scales::INTEGER {
                macro_rules! part {
                    ($part:literal) => {{
                        let sums = products::<S, W, R, C>(tile, rows, block, $part);
                        for r in 0..R {
                            let scale = W::Scales::integer::<S>(rows.scales[r], rows.lanes[r], block, $part);
                            for c in 0..C {
                                totals[r][c] = S::add_scaled(totals[r][c], sums[r][c], scale);
                            }
                        }
                    }};
                }
                part!(0);
                if W::Scales::PARTS == 2 {
                    part!(1);
                }
            } else {
                totals = products::<S, W, R, C>(tile, rows, block, 0);
            }
            let mut floats = [[S::zero(); C]; R];
            for r in 0..R {
                for c in 0..C {
                    floats[r][c] = S::to_floats(totals[r][c]);
                }
            }
            floats
        }
    }

    #[inline(always)]
    unsafe fn half_sums<W: Weights, const R: usize, const C: usize, const PART: usize>(
        tile: &TileOperands,
        rows: &RowVectors<R>,
        block: usize,
    ) -> Results<Self, R, C> {
        // SAFETY: the caller promises the set and the block.
        unsafe {
            let sums = products::<S, W, R, C>(tile, rows, block, PART);
            let mut floats = [[S::zero(); C]; R];
            for r in 0..R {
                for c in 0..C {
                    floats[r][c] = S::to_floats(sums[r][c]);
                }
            }
            floats
        }
    }

    #[inline(always)]
    unsafe fn prefetch<W: Weights>(tile: &TileOperands, block: usize) {
        // SAFETY: the caller promises the set.
        unsafe { prefetch::<S, W>(tile, block) }
    }
}

/// Prefetches the weights that will be needed some time after `block`.
#[inline(always)]
pub(super) unsafe fn prefetch<S: Dot, W: Weights>(tile: &TileOperands, block: usize) {
    if W::FOLDED {
        // SAFETY: addresses need not exist.
        unsafe { prefetch_compressed::<S>(tile, block) };
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
    tile: &TileOperands,
    rows: &RowVectors<R>,
    block: usize,
    part: usize,
) -> [[int32x4_t; C]; R] {
    // SAFETY: the block of the rows at `quants`; the 8 · C activations and the C start values of its part.
    unsafe {
        let table = S::table(tile.table);
        let activations = tile.activations.add(block * 8 * C);
        let mut sums = [[S::empty(); C]; R];
        if !W::Scales::MINIMUM {
            // Weights with minimums have a zero point of 0.
            for c in 0..C {
                let start = S::begin(tile.starts.add((block * W::Scales::PARTS + part) * C + c));
                for r in 0..R {
                    sums[r][c] = start;
                }
            }
        }
        /// Multiplies a group of 4 columns of the weights by one column of activations.
        macro_rules! column {
            ($group:literal, $c:literal, $weights:ident) => {
                if $c < C {
                    // The 8 · C elements of a block are 2 · C whole vectors.
                    let four = vld1q_s32(activations.add(($group * C + $c) & !3));
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
                    weights[r] = W::group::<S, $group>(rows.quants[r].add(block * W::BYTES), table);
                    if !W::PANEL {
                        // A panel already stores them that way.
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

/// Bytes as the multiplication takes them, row after row: minus 128 where it takes signed bytes.
pub(crate) struct Offset<S>(PhantomData<S>);

// SAFETY: 4 rows of 4 bytes in each of both groups are written.
unsafe impl<S: Dot> Arrangement for Offset<S> {
    type Set = S;

    #[inline(always)]
    unsafe fn store(to: *mut u8, lane: usize, maximum: u32, groups: [uint8x16_t; 2]) {
        // SAFETY: the caller promises the set and the room.
        unsafe {
            S::store_bytes(to.add(4 * lane), S::offset(maximum, groups[0]));
            S::store_bytes(to.add(64 + 4 * lane), S::offset(maximum, groups[1]));
        }
    }
}

/// Pairs of rows with 8 columns each.
pub(crate) struct RowPairs<S>(PhantomData<S>);

// SAFETY: 4 rows of 8 bytes are written.
unsafe impl<S: Dot> Arrangement for RowPairs<S> {
    type Set = S;

    #[inline(always)]
    unsafe fn store(to: *mut u8, lane: usize, maximum: u32, groups: [uint8x16_t; 2]) {
        // SAFETY: the caller promises the set and the room.
        unsafe {
            let [first, second] = pairs(S::offset(maximum, groups[0]), S::offset(maximum, groups[1]));
            S::store_bytes(to.add(8 * lane), first);
            S::store_bytes(to.add(8 * lane + 16), second);
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
