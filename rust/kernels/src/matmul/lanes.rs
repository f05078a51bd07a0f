//! The product of instruction sets that multiply bytes in the lanes of rows; the activations are broadcast.

use std::marker::PhantomData;

use super::operands::TileOperands;
use super::product::{Product, Results, RowVectors};
use super::weights::{ScaleKind, Weights};
use crate::simd::Simd;

/// Prefetch distance of a weight stream into the second-level cache, in bytes: what memory delivers while one request is in
/// flight, with a margin.
///
/// One prefetch into the first-level cache would be simpler, but it occupies one of the few fill buffers (24 on Zen 4, 12
/// on Skylake) until memory answers, which limits a core's stream. Measured on Zen 4, one core, Q4_0, GB/s (a plain read:
/// 36): no prefetch 17.5, first level 4 KB ahead 16.6, second level 8 KB ahead 24.1, with the first level 2 KB ahead as
/// well 26.6. Two cores on a quiet machine (a plain read: 63), with 8 and 2 KB, then 24 and 4 KB: Q4_0 40 and 45, Q8_0 42
/// and 47, Q4_K 37 and 45, Q6_K 43 and 48; 48 KB and more is slower again. From the third-level cache the same kernels read
/// 51 to 65 on one core, so they are limited by memory.
const FAR: usize = 24 << 10;
/// Prefetch distance into the first-level cache, from the second, in bytes.
const NEAR: usize = 4 << 10;

/// Dot products by `Simd::add_products`.
pub(super) struct LaneProduct<S>(PhantomData<S>);

// SAFETY: every offset is inside the block, the rows and the columns of the tile.
unsafe impl<S: Simd> Product for LaneProduct<S> {
    type Set = S;

    #[inline(always)]
    unsafe fn sums<W: Weights, const R: usize, const C: usize>(
        tile: &TileOperands,
        rows: &RowVectors<R>,
        block: usize,
    ) -> Results<Self, R, C> {
        // SAFETY: the caller promises the set and the block.
        unsafe {
            let mut floats = [[S::zero(); C]; R];
            if !W::Scales::INTEGER {
                let sums = products::<S, W, R, C>(tile, rows.quants, (block, 0), [S::unscaled(); R]);
                for r in 0..R {
                    for c in 0..C {
                        floats[r][c] = S::finish(sums[r][c], tile.starts.add(block * C + c));
                    }
                }
                return floats;
            }
            let mut totals = [[S::integers(); C]; R];
            macro_rules! part {
                ($part:literal) => {{
                    let mut scale = [S::unscaled(); R];
                    for r in 0..R {
                        scale[r] = W::Scales::integer::<S>(rows.scales[r], rows.lanes[r], block, $part);
                    }
                    let sums = products::<S, W, R, C>(tile, rows.quants, (block, $part), scale);
                    for r in 0..R {
                        for c in 0..C {
                            totals[r][c] = S::add_scaled(totals[r][c], sums[r][c], scale[r]);
                            if !W::Scales::MINIMUM {
                                let start = tile.starts.add((block * W::Scales::DOTS + $part) * C + c);
                                totals[r][c] = S::add_start(totals[r][c], start, scale[r]);
                            }
                        }
                    }
                }};
            }
            part!(0);
            if W::Scales::DOTS == 2 {
                part!(1);
            }
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
            let sums = products::<S, W, R, C>(tile, rows.quants, (block, PART), [S::unscaled(); R]);
            let mut floats = [[S::zero(); C]; R];
            for r in 0..R {
                for c in 0..C {
                    floats[r][c] = S::finish(sums[r][c], tile.starts.add((2 * block + PART) * C + c));
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
pub(super) unsafe fn prefetch<S: Simd, W: Weights>(tile: &TileOperands, block: usize) {
    if W::FOLDED {
        // SAFETY: addresses need not exist.
        unsafe { prefetch_compressed::<S>(tile, block) };
    }
    if W::STREAM {
        // SAFETY: addresses need not exist.
        unsafe {
            let next = tile.quants.wrapping_add(block * W::BYTES);
            for line in 0..W::BYTES / 64 {
                S::prefetch_far(next.wrapping_add(FAR + 64 * line));
                S::prefetch_near(next.wrapping_add(NEAR + 64 * line));
            }
            S::prefetch_far(tile.scales.wrapping_add(block * W::Scales::BYTES + FAR));
        }
    }
}

/// The same for weights that have been decompressed beforehand: a burst of prefetches during decompression would occupy all
/// fill buffers, and nothing would be in flight afterwards.
#[inline(always)]
pub(super) unsafe fn prefetch_compressed<S: Simd>(tile: &TileOperands, block: usize) {
    let (quants, scales) = tile.compressed_bytes;
    let next = tile.compressed.0.wrapping_add(block * quants);
    // SAFETY: addresses need not exist.
    unsafe {
        // 32 columns have at most 192 bytes.
        for line in 0..3 {
            S::prefetch_far(next.wrapping_add(FAR + 64 * line));
            S::prefetch_near(next.wrapping_add(NEAR + 64 * line));
        }
        S::prefetch_far(tile.compressed.1.wrapping_add(block * scales + FAR));
    }
}

/// The dot products of one part of a block, already scaled where the instruction set does that along the way.
#[inline(always)]
unsafe fn products<S: Simd, W: Weights, const R: usize, const C: usize>(
    tile: &TileOperands,
    quants: [*const u8; R],
    (block, part): (usize, usize),
    scale: [S::Scale; R],
) -> [[S::Sums; C]; R] {
    // SAFETY: the block of the rows at `quants`; the 8 · C activations and the C start values of its part.
    unsafe {
        let table = S::table(tile.table);
        let activations = tile.activations.add(block * 8 * C);
        let mut sums = [[S::empty(); C]; R];
        if !W::Scales::MINIMUM {
            // Weights with minimums have a zero point of 0.
            for c in 0..C {
                for r in 0..R {
                    sums[r][c] = S::begin(tile.starts.add((block * W::Scales::DOTS + part) * C + c));
                }
            }
        }
        macro_rules! groups {
            ($($group:literal)*) => { $(
                let mut weights = [table; R];
                for r in 0..R {
                    weights[r] = W::group::<S, $group>(quants[r].add(block * W::BYTES), table);
                }
                for c in 0..C {
                    for r in 0..R {
                        let four = activations.add($group * C + c);
                        let sum = S::add_products(W::MAXIMUM, sums[r][c], weights[r], four);
                        sums[r][c] = S::carry(W::MAXIMUM, $group, sum, scale[r]);
                    }
                }
                for c in 0..C {
                    for r in 0..R {
                        S::hold(&mut sums[r][c]);
                    }
                }
            )* };
        }
        match (W::Scales::DOTS, part) {
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
