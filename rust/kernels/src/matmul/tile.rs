//! The skeleton of every tile: a register tile of rows × columns over all of the weights' columns, generic over the weights,
//! the size and the way an instruction set multiplies ([`Product`]). The same code serves one token (straight from the packed
//! layout) and prompts (from a panel).
//!
//! Arithmetic, for each row and token, with `I = Σ (value - zero) · activation` over a part of 32 columns, exact, and one
//! rounding for each `float` and `fma`:
//!
//! - Formats with float scales for 32 columns, block after block: `f = fma(float(I) · scale, activation_scale, f)`, then with
//!   minimums `f = fma(-minimum, Σ activation · activation_scale, f)`.
//! - Formats with float scales for 16 columns, for a block of two such parts: `t = fma(float(I₁), scale₁, float(I₀) · scale₀)`,
//!   then `f = fma(t, activation_scale, f)`.
//! - Formats with a float scale for 256 columns and integer scales within them, 256 columns at a time: from `g = 0`, block
//!   after block, `g = fma(float(Σ over parts of I · integer_scale), activation_scale, g)`; then `f = fma(scale, g, f)`.
//!   With minimums, the sums of activations are rounded to 16 bits with one scale for 256 columns, with an error far below
//!   that of the activations themselves, and
//!   `f = fma(-minimum, float(Σ over parts of integer_minimum · sum) · sum_scale, f)`.
//!   Integer multiplications can partly overlap with the dot products, whereas float multiplications compete with them.
//!
//! All integers are exact, so nothing can differ between instruction sets, tile sizes or batches.

use super::operands::TileOperands;
use super::product::{Product, Results, RowVectors};
use super::weights::{ScaleKind, Weights};
use crate::cpu::sets::Entry;
use crate::formats::GROUP_ROWS;
use crate::simd::Simd;

/// A tile of `R` vectors of rows × `C` of columns.
pub(super) struct RegisterTile<P, W, const R: usize, const C: usize>(std::marker::PhantomData<(P, W)>);

// SAFETY: the tile reads and writes what its operands promise: `blocks` blocks (a multiple of 8 for weights with integer scales) of
// a group of rows, or of as many groups as `R` vectors fill, and the columns that `C` vectors hold.
unsafe impl<P: Product, W: Weights, const R: usize, const C: usize> Entry for RegisterTile<P, W, R, C> {
    type Operands = TileOperands;
    type Output = ();

    #[inline(always)]
    unsafe fn run(operands: &TileOperands) {
        // A copy, so that the compiler knows that nothing modifies it.
        let tile = *operands;
        // Rows processed at a time; there may be more in the group.
        let height = R / P::SPREAD * P::Set::LANES;
        let mut first = 0;
        while first == 0 || first < GROUP_ROWS {
            // SAFETY: the caller promises the set and the operands of the tile, of which these rows are a part.
            unsafe {
                let rows = row_vectors::<P, R>(&tile, first);
                let output = tile.output.add(first);
                let mut results = [[P::Set::zero(); C]; R];
                if tile.resume {
                    results = P::load(output, tile.output_stride);
                }
                if W::Scales::INTEGER {
                    of_integer_scales::<P, W, R, C>(&tile, &rows, &mut results);
                } else {
                    of_float_scales::<P, W, R, C>(&tile, &rows, &mut results);
                }
                P::store(output, tile.output_stride, results);
            }
            first += height;
        }
    }
}

/// The rows from row `first` of the first group on.
///
/// # Safety
/// The operands have as many groups as these rows need.
#[inline(always)]
unsafe fn row_vectors<P: Product, const R: usize>(tile: &TileOperands, first: usize) -> RowVectors<R> {
    // Loops instead of closures: a closure is compiled without the instruction set of the enclosing function.
    let in_group = GROUP_ROWS / P::Set::LANES;
    let mut rows = RowVectors { quants: [tile.quants; R], scales: [tile.scales; R], lanes: [0; R] };
    for r in 0..R {
        let vector = first / P::Set::LANES + r / P::SPREAD;
        rows.lanes[r] = vector % in_group * P::Set::LANES;
        // SAFETY: the caller promises the group.
        unsafe {
            rows.quants[r] = tile.quants.add(vector / in_group * tile.stride.0 + 4 * rows.lanes[r]);
            rows.scales[r] = tile.scales.add(vector / in_group * tile.stride.1);
        }
    }
    rows
}

/// Runs a tile of weights that have a float scale for every 32 columns, or for every 16.
///
/// # Safety
/// As for the tile.
#[inline(always)]
unsafe fn of_float_scales<P: Product, W: Weights, const R: usize, const C: usize>(
    tile: &TileOperands,
    rows: &RowVectors<R>,
    results: &mut Results<P, R, C>,
) {
    for block in 0..tile.blocks {
        // SAFETY: the caller promises the set, the blocks and the columns.
        unsafe {
            P::prefetch::<W>(tile, block);
            let first = block * P::width::<C>(tile);
            let halves = W::Scales::PARTS == 2;
            let mut terms = if halves {
                P::half_sums::<W, R, C, 0>(tile, rows, block)
            } else {
                P::sums::<W, R, C>(tile, rows, block)
            };
            for r in 0..R {
                let scale =
                    P::spread(W::Scales::scale::<P::Set>(rows.scales[r], rows.lanes[r], block, 0), r % P::SPREAD);
                for c in 0..C {
                    terms[r][c] = P::Set::mul(terms[r][c], scale);
                }
            }
            if halves {
                let second = P::half_sums::<W, R, C, 1>(tile, rows, block);
                for r in 0..R {
                    let scale =
                        P::spread(W::Scales::scale::<P::Set>(rows.scales[r], rows.lanes[r], block, 1), r % P::SPREAD);
                    for c in 0..C {
                        terms[r][c] = P::Set::fma(second[r][c], scale, terms[r][c]);
                    }
                }
            }
            P::hold(&mut terms);
            for c in 0..C {
                let factor = P::columns(tile.activation_scales.add(first + c * P::SPREAD));
                for r in 0..R {
                    results[r][c] = P::Set::fma(terms[r][c], factor, results[r][c]);
                }
            }
            if W::Scales::MINIMUM {
                for r in 0..R {
                    let minimum = W::Scales::minimum::<P::Set>(rows.scales[r], rows.lanes[r], block, 0);
                    let minimum = P::spread(minimum, r % P::SPREAD);
                    for c in 0..C {
                        let sum = P::columns(tile.sums.add(first + c * P::SPREAD));
                        results[r][c] = P::Set::fnma(minimum, sum, results[r][c]);
                    }
                }
            }
        }
    }
}

/// Runs a tile of weights that have integer scales for parts of 32 columns and a float scale for 256.
///
/// The results of earlier columns, used once per 256, are the values that do not stay in registers.
///
/// # Safety
/// As for the tile.
#[inline(always)]
unsafe fn of_integer_scales<P: Product, W: Weights, const R: usize, const C: usize>(
    tile: &TileOperands,
    rows: &RowVectors<R>,
    results: &mut Results<P, R, C>,
) {
    for first in (0..tile.blocks).step_by(8) {
        // SAFETY: the caller promises the set, the blocks and the columns.
        unsafe {
            let mut inner = [[P::Set::zero(); C]; R];
            for block in first..first + 8 {
                P::prefetch::<W>(tile, block);
                let mut terms = P::sums::<W, R, C>(tile, rows, block);
                if !W::Scales::MINIMUM {
                    P::hold(&mut terms);
                }
                for c in 0..C {
                    let factor = P::columns(tile.activation_scales.add(block * P::width::<C>(tile) + c * P::SPREAD));
                    for r in 0..R {
                        inner[r][c] = P::Set::fma(terms[r][c], factor, inner[r][c]);
                    }
                }
            }
            for r in 0..R {
                let scale =
                    P::spread(W::Scales::scale::<P::Set>(rows.scales[r], rows.lanes[r], first, 0), r % P::SPREAD);
                for c in 0..C {
                    results[r][c] = P::Set::fma(scale, inner[r][c], results[r][c]);
                }
            }
            if W::Scales::MINIMUM {
                subtract_minimums::<P, W, R, C>(tile, rows, first, results);
            }
        }
    }
}

/// Subtracts the integer minimums of 256 columns, times the sums of activations.
///
/// # Safety
/// As for the tile.
#[inline(always)]
unsafe fn subtract_minimums<P: Product, W: Weights, const R: usize, const C: usize>(
    tile: &TileOperands,
    rows: &RowVectors<R>,
    first: usize,
    results: &mut Results<P, R, C>,
) {
    let parts = W::Scales::PARTS;
    // SAFETY: the caller promises the set, the scales of these 256 columns and their sums.
    unsafe {
        let mut minimums = [[P::Set::integers(); C]; R];
        for pair in first * parts / 2..(first + 8) * parts / 2 {
            let mut pairs = [P::Set::unscaled(); R];
            for r in 0..R {
                let both = W::Scales::minimums::<P::Set>(rows.scales[r], rows.lanes[r], pair);
                pairs[r] = P::spread_pairs(both, r % P::SPREAD);
            }
            for c in 0..C {
                for r in 0..R {
                    let sums = tile.pairs.add(pair * P::width::<C>(tile) + c * P::SPREAD);
                    minimums[r][c] = P::add_pairs(minimums[r][c], pairs[r], sums);
                }
            }
        }
        for r in 0..R {
            let minimum = W::Scales::minimum::<P::Set>(rows.scales[r], rows.lanes[r], first, 0);
            let minimum = P::spread(minimum, r % P::SPREAD);
            for c in 0..C {
                let sum = P::columns(tile.pair_scales.add(first / 8 * P::width::<C>(tile) + c * P::SPREAD));
                let term = P::Set::mul(P::Set::to_floats(minimums[r][c]), sum);
                results[r][c] = P::Set::fnma(minimum, term, results[r][c]);
            }
        }
    }
}
