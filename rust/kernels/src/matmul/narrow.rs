//! The product for AVX2, which has no dot product of bytes; tiles of 16 rows × up to 4 tokens.
//!
//! `vpmaddubsw` adds two products of an unsigned and a signed byte in 16 bits, and two of those sums fill the lane of a row.
//! As long as they are accumulated in 16 bits, 32 products cost two instructions; `vpmaddwd` then widens the sum and
//! multiplies it by an integer scale at no extra cost. There are three kinds of weights:
//!
//! - Without minimums, values up to 63: half a lane starts at `-zero · Σ activation` over the columns that it will see and
//!   ends at `Σ (value - zero) · activation`. Intermediate sums may wrap around 16 bits as long as the final sum fits:
//!   16 columns of magnitudes up to 16 (`16 · 16 · 127 = 32512`), so 32 columns per lane, or 8 of magnitudes up to 32, so 16
//!   columns, and Q6_K has one scale per 16. The start costs nothing, since a sum has to be initialized anyway.
//! - With minimums (a zero point of 0): values up to 15 fit for 32 columns (`16 · 15 · 127 = 30480`), up to 31 for 16
//!   columns, after which they are widened, in one more step.
//! - Larger values would saturate the first addition. They are multiplied as 16 bits with `vpmaddwd` instead, two products
//!   per lane: bytes 0 and 2 of a row by a mask, 1 and 3 by a shift; the activations are stored in that order.
//!
//! Zen 4 multiplies integers and floats of all kinds on the same two pipes, adds on four and converts on the other two. For
//! 256 products with float scales that is 11 multiplications (8 + `vpmaddwd`, `vmulps`, `vfmadd`), 5.5 cycles or 172 GMAC/s
//! at 3.7 GHz, with integer scales 10; words take 18. Written as assembly, in the first-level cache, the best instruction
//! order reached 137 (words 81), this tile 135: additions also occupy the pipes that multiply. With 3 tokens, sums and
//! results stay in registers; 4, 5 and 6 are 3 to 6 % slower, and so is interleaving the end of one block with the products
//! of the next. Straight from the packed layout 4 tokens share the work of unpacking.

use std::arch::x86_64::*;

use super::lanes::prefetch;
use super::operands::TileOperands;
use super::product::{Product, Results, RowVectors};
use super::weights::{ScaleKind, Weights};
use crate::cpu::sets::Avx2;
use crate::simd::Simd;
use crate::simd::avx2::{NARROW, hold};

/// Sums of `R` vectors of rows and `C` columns.
type Sums<const R: usize, const C: usize> = [[__m256i; C]; R];

/// Whether weights are multiplied as 16 bits.
const fn words<W: Weights>() -> bool {
    W::MAXIMUM > NARROW
}

/// Number of sums per 32 columns that are widened (and scaled) separately.
const fn steps<W: Weights>() -> usize {
    if W::Scales::MINIMUM && W::MAXIMUM > 15 { 2 } else { W::Scales::PARTS }
}

/// Sums of products in 16 bits.
pub(super) struct NarrowProduct;

// SAFETY: every offset is inside the block, the rows and the columns of the tile.
unsafe impl Product for NarrowProduct {
    type Set = Avx2;

    #[inline(always)]
    unsafe fn sums<W: Weights, const R: usize, const C: usize>(
        tile: &TileOperands,
        rows: &RowVectors<R>,
        block: usize,
    ) -> Results<Self, R, C> {
        // SAFETY: the caller promises the set and the block.
        unsafe { block_sums::<W, R, C>(tile, rows, block) }
    }

    #[inline(always)]
    unsafe fn half_sums<W: Weights, const R: usize, const C: usize, const PART: usize>(
        tile: &TileOperands,
        rows: &RowVectors<R>,
        block: usize,
    ) -> Results<Self, R, C> {
        // SAFETY: the caller promises the set and the block.
        unsafe {
            let mut totals = sums::<W, R, C>(tile, rows, block, PART);
            widen::<W, R, C>(rows, block, PART, &mut totals);
            to_floats(totals)
        }
    }

    #[inline(always)]
    unsafe fn hold<const R: usize, const C: usize>(values: &mut Results<Self, R, C>) {
        for r in 0..R {
            for c in 0..C {
                // SAFETY: the caller promises the set.
                unsafe {
                    let mut bits = _mm256_castps_si256(values[r][c]);
                    hold(&mut bits);
                    values[r][c] = _mm256_castsi256_ps(bits);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn prefetch<W: Weights>(tile: &TileOperands, block: usize) {
        // SAFETY: the caller promises the set.
        unsafe { prefetch::<Avx2, W>(tile, block) }
    }
}

/// Keeps the sums in registers and the groups in order: otherwise the compiler computes one column after the other with
/// the weights of all groups on the stack, at half the speed.
#[inline(always)]
unsafe fn hold_all<const R: usize, const C: usize>(sums: &mut Sums<R, C>) {
    for r in 0..R {
        for c in 0..C {
            // SAFETY: the caller promises the instruction set.
            unsafe { hold(&mut sums[r][c]) };
        }
    }
}

/// The sums of a step of a block: halves of lanes, or whole lanes for `words`.
#[inline(always)]
unsafe fn sums<W: Weights, const R: usize, const C: usize>(
    tile: &TileOperands,
    rows: &RowVectors<R>,
    block: usize,
    step: usize,
) -> Sums<R, C> {
    // SAFETY: `quants` and `starts` are read for this block's rows and columns, activations for its 8 groups of 4 columns (16 pairs of
    // words), which the caller of the tile promises.
    unsafe {
        let table = Avx2::table(tile.table);
        let mut sums = [[_mm256_setzero_si256(); C]; R];
        if !W::Scales::MINIMUM {
            // One part is one step here.
            let starts = tile.starts.add((block * W::Scales::PARTS + step) * C);
            for c in 0..C {
                let start = _mm256_set1_epi32(*starts.add(c));
                for r in 0..R {
                    sums[r][c] = start;
                }
            }
        }
        macro_rules! group {
            ($group:literal) => {
                if words::<W>() {
                    for odd in 0..2 {
                        let mut weights = [table; R];
                        for r in 0..R {
                            let bytes = W::group::<Avx2, $group>(rows.quants[r].add(block * W::BYTES), table);
                            weights[r] = if odd == 0 {
                                _mm256_and_si256(bytes, _mm256_set1_epi16(255))
                            } else {
                                _mm256_srli_epi16::<8>(bytes)
                            };
                        }
                        let pairs = tile.activations.add((block * 16 + 2 * $group + odd) * C);
                        for c in 0..C {
                            let pair = _mm256_set1_epi32(*pairs.add(c));
                            for r in 0..R {
                                sums[r][c] = _mm256_add_epi32(sums[r][c], _mm256_madd_epi16(weights[r], pair));
                            }
                        }
                        hold_all(&mut sums);
                    }
                } else {
                    let mut weights = [table; R];
                    for r in 0..R {
                        weights[r] = W::group::<Avx2, $group>(rows.quants[r].add(block * W::BYTES), table);
                    }
                    let fours = tile.activations.add((block * 8 + $group) * C);
                    for c in 0..C {
                        let four = _mm256_set1_epi32(*fours.add(c));
                        for r in 0..R {
                            sums[r][c] = _mm256_add_epi16(sums[r][c], _mm256_maddubs_epi16(weights[r], four));
                        }
                    }
                    hold_all(&mut sums);
                }
            };
        }
        if steps::<W>() == 1 || step == 0 {
            group!(0);
            group!(1);
            group!(2);
            group!(3);
        }
        if steps::<W>() == 1 || step == 1 {
            group!(4);
            group!(5);
            group!(6);
            group!(7);
        }
        sums
    }
}

/// The sums of a block, widened and scaled step by step by integers, as floats.
///
/// Each operation is done for all sums before the next operation, which the processor overlaps better than one sum after
/// the other.
#[inline(always)]
unsafe fn block_sums<W: Weights, const R: usize, const C: usize>(
    tile: &TileOperands,
    rows: &RowVectors<R>,
    block: usize,
) -> Results<NarrowProduct, R, C> {
    // SAFETY: as `sums` and `widen` ask: the block, its rows and its columns are there.
    unsafe {
        let mut totals = sums::<W, R, C>(tile, rows, block, 0);
        widen::<W, R, C>(rows, block, 0, &mut totals);
        if steps::<W>() == 2 {
            let mut more = sums::<W, R, C>(tile, rows, block, 1);
            widen::<W, R, C>(rows, block, W::Scales::PARTS - 1, &mut more);
            for r in 0..R {
                for c in 0..C {
                    totals[r][c] = _mm256_add_epi32(totals[r][c], more[r][c]);
                }
            }
        }
        to_floats(totals)
    }
}

/// Sums of 32 bits as floats.
#[inline(always)]
unsafe fn to_floats<const R: usize, const C: usize>(totals: Sums<R, C>) -> Results<NarrowProduct, R, C> {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        let mut floats = [[Avx2::zero(); C]; R];
        for r in 0..R {
            for c in 0..C {
                floats[r][c] = Avx2::to_floats(totals[r][c]);
            }
        }
        NarrowProduct::hold(&mut floats);
        floats
    }
}

/// Widens sums and multiplies them by the integer scales of a part, which each lane holds twice.
#[inline(always)]
unsafe fn widen<W: Weights, const R: usize, const C: usize>(
    rows: &RowVectors<R>,
    block: usize,
    part: usize,
    sums: &mut Sums<R, C>,
) {
    // SAFETY: the integer scales of a part of the block, for 8 rows from `lanes` on.
    unsafe {
        for r in 0..R {
            let scale = W::Scales::integer::<Avx2>(rows.scales[r], rows.lanes[r], block, part);
            for c in 0..C {
                if !words::<W>() {
                    sums[r][c] = _mm256_madd_epi16(sums[r][c], scale);
                } else if W::Scales::INTEGER {
                    sums[r][c] = _mm256_mullo_epi32(sums[r][c], _mm256_srai_epi32::<16>(scale));
                }
            }
        }
        hold_all(sums);
    }
}
