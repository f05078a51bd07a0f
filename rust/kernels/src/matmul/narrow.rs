//! The tile of AVX2, which has no dot product of bytes: 16 rows × up to 4 tokens; the arithmetic is that of `tile`.
//!
//! `vpmaddubsw` adds two products of an unsigned and a signed byte in 16 bits, and two of those fill the lane of a row. As
//! long as they are added up in 16 bits, 32 products cost two instructions; `vpmaddwd` then widens the sum, and multiplies
//! it by an integer scale at no cost. Three kinds of weights:
//!
//! - Without minimums, values to 63: a half of a lane starts at `-zero · Σ activation` over the columns that it will see and
//!   ends at `Σ (value - zero) · activation`. What it runs through may leave 16 bits and come back, as long as the end fits:
//!   16 columns of magnitudes to 16 (`16 · 16 · 127 = 32512`), so 32 columns to a lane, or 8 of magnitudes to 32, so 16
//!   columns, which is how often Q6_K has a scale. The start costs nothing: something has to be loaded.
//! - With minimums (zeros of 0): values to 15 fit for 32 columns (`16 · 15 · 127 = 30480`), to 31 for 16 columns, after which
//!   they are widened, one step more.
//! - Larger values would saturate the first addition. They are multiplied as 16 bits with `vpmaddwd` instead, two products a
//!   lane: bytes 0 and 2 of a row by a mask, 1 and 3 by a shift; the activations lie ready in that order.
//!
//! Zen 4 multiplies integers and floats of all kinds on the same two pipes, adds on four and converts on the other two. For 256
//! products with float scales that is 11 multiplications (8 + `vpmaddwd`, `vmulps`, `vfmadd`), 5.5 cycles or 172 GMAC/s at
//! 3.7 GHz, with integer scales 10; words take 18. Written as assembly, in the first-level cache, the best order of
//! instructions reached 137 (words 81), this tile 135: additions take their share of the pipes that multiply. 3 tokens keep
//! sums and results in registers; 4, 5 and 6 are 3 to 6 % slower, and so is work on one block's end between the products of
//! the next one. Straight from the packed layout 4 tokens share the work of unpacking.

use std::arch::x86_64::*;

use super::tile::{Tile, prefetch};
use super::weights::{ScaleKind, Weights};
use crate::cpu::sets::Avx2;
use crate::simd::Simd;
use crate::simd::avx2::{NARROW, hold};

/// Vectors of 8 rows in a group.
const VECTORS: usize = 2;

/// Sums of a group of rows and `C` columns.
type Sums<const C: usize> = [[__m256i; C]; VECTORS];

/// Whether weights are multiplied as 16 bits.
const fn words<W: Weights>() -> bool {
    W::MAXIMUM > NARROW
}

/// Sums that are widened (and scaled) for themselves in 32 columns.
const fn steps<W: Weights>() -> usize {
    if W::Scales::MINIMUM && W::MAXIMUM > 15 { 2 } else { W::Scales::PARTS }
}

/// Computes 16 rows × `C` columns.
///
/// # Safety
/// The processor has AVX2, FMA and F16C, and the code is compiled for them; the pointers are good for `blocks` blocks (a
/// multiple of 8 for weights with integer scales) of 16 rows and `C` columns.
#[inline(always)]
pub(crate) unsafe fn narrow_tile<W: Weights, const C: usize>(operands: &Tile) {
    // A copy, so that the compiler knows that nothing changes it.
    let tile = *operands;
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        let mut results = [[Avx2::zero(); C]; VECTORS];
        if tile.resume {
            for r in 0..VECTORS {
                for c in 0..C {
                    results[r][c] = Avx2::floats(tile.output.add(c * tile.output_stride + 8 * r));
                }
            }
        }
        if W::Scales::INTEGER {
            of_integer_scales::<W, C>(&tile, &mut results);
        } else {
            of_float_scales::<W, C>(&tile, &mut results);
        }
        for r in 0..VECTORS {
            for c in 0..C {
                Avx2::store_floats(tile.output.add(c * tile.output_stride + 8 * r), results[r][c]);
            }
        }
    }
}

/// Keeps the sums in registers and the groups in order: left to itself, the compiler computes one column after the other
/// with the weights of all groups on the stack, at half the speed.
#[inline(always)]
unsafe fn hold_all<const C: usize>(sums: &mut Sums<C>) {
    for r in 0..VECTORS {
        for c in 0..C {
            // SAFETY: the caller promises the instruction set.
            unsafe { hold(&mut sums[r][c]) };
        }
    }
}

/// The sums of a step of a block: halves of lanes, or whole lanes for `words`.
#[inline(always)]
unsafe fn sums<W: Weights, const C: usize>(tile: &Tile, block: usize, step: usize) -> Sums<C> {
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        let table = Avx2::table(tile.table);
        let quants = tile.quants.add(block * W::BYTES);
        let mut sums = [[_mm256_setzero_si256(); C]; VECTORS];
        if !W::Scales::MINIMUM {
            // One part is one step here.
            let starts = tile.starts.add((block * W::Scales::PARTS + step) * C);
            for c in 0..C {
                let start = _mm256_set1_epi32(*starts.add(c));
                for r in 0..VECTORS {
                    sums[r][c] = start;
                }
            }
        }
        macro_rules! group {
            ($group:literal) => {
                if words::<W>() {
                    for odd in 0..2 {
                        let mut weights = [table; VECTORS];
                        for r in 0..VECTORS {
                            let bytes = W::group::<Avx2, $group>(quants.add(32 * r), table);
                            weights[r] = if odd == 0 {
                                _mm256_and_si256(bytes, _mm256_set1_epi16(255))
                            } else {
                                _mm256_srli_epi16::<8>(bytes)
                            };
                        }
                        let pairs = tile.activations.add((block * 16 + 2 * $group + odd) * C);
                        for c in 0..C {
                            let pair = _mm256_set1_epi32(*pairs.add(c));
                            for r in 0..VECTORS {
                                sums[r][c] = _mm256_add_epi32(sums[r][c], _mm256_madd_epi16(weights[r], pair));
                            }
                        }
                        hold_all(&mut sums);
                    }
                } else {
                    let mut weights = [table; VECTORS];
                    for r in 0..VECTORS {
                        weights[r] = W::group::<Avx2, $group>(quants.add(32 * r), table);
                    }
                    let fours = tile.activations.add((block * 8 + $group) * C);
                    for c in 0..C {
                        let four = _mm256_set1_epi32(*fours.add(c));
                        for r in 0..VECTORS {
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
/// Everything is done for all sums before the next thing is done, which the processor overlaps better than one sum after the
/// other.
#[inline(always)]
unsafe fn block_sums<W: Weights, const C: usize>(tile: &Tile, block: usize) -> Sums<C> {
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        let mut totals = sums::<W, C>(tile, block, 0);
        widen::<W, C>(tile, block, 0, &mut totals);
        if steps::<W>() == 2 {
            let mut more = sums::<W, C>(tile, block, 1);
            widen::<W, C>(tile, block, W::Scales::PARTS - 1, &mut more);
            for r in 0..VECTORS {
                for c in 0..C {
                    totals[r][c] = _mm256_add_epi32(totals[r][c], more[r][c]);
                }
            }
        }
        for r in 0..VECTORS {
            for c in 0..C {
                totals[r][c] = _mm256_castps_si256(_mm256_cvtepi32_ps(totals[r][c]));
            }
        }
        hold_all(&mut totals);
        totals
    }
}

/// Widens sums, times the integer scales of a part, which stand twice in a lane.
#[inline(always)]
unsafe fn widen<W: Weights, const C: usize>(tile: &Tile, block: usize, part: usize, sums: &mut Sums<C>) {
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        for r in 0..VECTORS {
            let scale = W::Scales::integer::<Avx2>(tile.scales, 8 * r, block, part);
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

/// Weights whose scales are floats for 32 columns.
#[inline(always)]
unsafe fn of_float_scales<W: Weights, const C: usize>(tile: &Tile, results: &mut [[__m256; C]; VECTORS]) {
    for block in 0..tile.blocks {
        // SAFETY: every offset below is inside what the caller promises.
        unsafe {
            prefetch::<Avx2, W>(tile, block);
            let mut terms = block_sums::<W, C>(tile, block);
            for r in 0..VECTORS {
                let scale = W::Scales::scale::<Avx2>(tile.scales, 8 * r, block, 0);
                for c in 0..C {
                    terms[r][c] = _mm256_castps_si256(Avx2::mul(_mm256_castsi256_ps(terms[r][c]), scale));
                }
            }
            hold_all(&mut terms);
            for c in 0..C {
                let factor = Avx2::splat(*tile.activation_scales.add(block * C + c));
                for r in 0..VECTORS {
                    results[r][c] = Avx2::fma(_mm256_castsi256_ps(terms[r][c]), factor, results[r][c]);
                }
            }
            if W::Scales::MINIMUM {
                for r in 0..VECTORS {
                    let minimum = W::Scales::minimum::<Avx2>(tile.scales, 8 * r, block, 0);
                    for c in 0..C {
                        let sum = Avx2::splat(*tile.sums.add(block * C + c));
                        results[r][c] = Avx2::fnma(minimum, sum, results[r][c]);
                    }
                }
            }
        }
    }
}

/// Weights whose scales are integers for parts of 32 columns and a float for 256.
#[inline(always)]
unsafe fn of_integer_scales<W: Weights, const C: usize>(tile: &Tile, results: &mut [[__m256; C]; VECTORS]) {
    for first in (0..tile.blocks).step_by(8) {
        // SAFETY: every offset below is inside what the caller promises.
        unsafe {
            let mut inner = [[Avx2::zero(); C]; VECTORS];
            for block in first..first + 8 {
                prefetch::<Avx2, W>(tile, block);
                let terms = block_sums::<W, C>(tile, block);
                for c in 0..C {
                    let factor = Avx2::splat(*tile.activation_scales.add(block * C + c));
                    for r in 0..VECTORS {
                        inner[r][c] = Avx2::fma(_mm256_castsi256_ps(terms[r][c]), factor, inner[r][c]);
                    }
                }
            }
            for r in 0..VECTORS {
                let scale = W::Scales::scale::<Avx2>(tile.scales, 8 * r, first, 0);
                for c in 0..C {
                    results[r][c] = Avx2::fma(scale, inner[r][c], results[r][c]);
                }
            }
            if W::Scales::MINIMUM {
                subtract_minimums::<W, C>(tile, first, results);
            }
        }
    }
}

/// Subtracts the integer minimums of 256 columns.
#[inline(always)]
unsafe fn subtract_minimums<W: Weights, const C: usize>(
    tile: &Tile,
    first: usize,
    results: &mut [[__m256; C]; VECTORS],
) {
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        let parts = W::Scales::PARTS;
        let mut minimums = [[_mm256_setzero_si256(); C]; VECTORS];
        for pair in first * parts / 2..(first + 8) * parts / 2 {
            let mut pairs = [_mm256_setzero_si256(); VECTORS];
            for r in 0..VECTORS {
                pairs[r] = W::Scales::minimums::<Avx2>(tile.scales, 8 * r, pair);
            }
            for c in 0..C {
                for r in 0..VECTORS {
                    minimums[r][c] = Avx2::add_pairs(minimums[r][c], pairs[r], tile.pairs.add(pair * C + c));
                }
            }
        }
        for r in 0..VECTORS {
            let minimum = W::Scales::minimum::<Avx2>(tile.scales, 8 * r, first, 0);
            for c in 0..C {
                let sum = Avx2::splat(*tile.pair_scales.add(first / 8 * C + c));
                let term = Avx2::mul(Avx2::to_floats(minimums[r][c]), sum);
                results[r][c] = Avx2::fnma(minimum, term, results[r][c]);
            }
        }
    }
}
