//! What a tile asks of an instruction set: how the integers of a block are multiplied and how results lie in its vectors.

use super::operands::TileOperands;
use super::weights::Weights;
use crate::simd::Simd;

/// The rows that correspond to the result vectors of a tile.
#[derive(Clone, Copy)]
pub(super) struct RowVectors<const R: usize> {
    /// Quants of the vector's first row.
    pub(super) quants: [*const u8; R],
    /// Scales of the vector's group.
    pub(super) scales: [*const u8; R],
    /// First row of the vector in its group.
    pub(super) lanes: [usize; R],
}

/// Floats of a tile: `R` vectors of rows × `C` vectors of columns.
pub(super) type Results<P, const R: usize, const C: usize> = [[<<P as Product>::Set as Simd>::Floats; C]; R];

/// How the integers of a block are multiplied, and how rows and columns are arranged in the vectors of results.
///
/// Usually a vector holds `LANES` rows of one column. A vector that holds `SPREAD` columns side by side has fewer rows, so that
/// a vector of rows becomes `SPREAD` vectors of results.
///
/// # Safety
/// Implementations read nothing but the blocks, rows and columns that the operands promise for `R` vectors of rows × `C` of
/// columns, and write nothing but their results.
pub(super) unsafe trait Product: 'static {
    /// The instruction set.
    type Set: Simd;
    /// Columns in a vector of results, and vectors of results that a vector of rows becomes.
    const SPREAD: usize = 1;
    /// Whether there is only one column, which the others in a vector repeat.
    const SINGLE: bool = false;

    /// Number of columns of a tile of `C` vectors of columns, as the operands lay them out.
    #[inline(always)]
    fn width<const C: usize>(_tile: &TileOperands) -> usize {
        if Self::SINGLE { 1 } else { C * Self::SPREAD }
    }

    /// The sums of a block of 32 columns, with their integer scales, as floats.
    ///
    /// # Safety
    /// The processor has the set, and the code is compiled for it; the operands are good for that block.
    unsafe fn sums<W: Weights, const R: usize, const C: usize>(
        tile: &TileOperands,
        rows: &RowVectors<R>,
        block: usize,
    ) -> Results<Self, R, C>;

    /// The sums of half `PART` of a block, as floats, for weights that have a float scale for 16 columns.
    ///
    /// # Safety
    /// As for `sums`.
    unsafe fn half_sums<W: Weights, const R: usize, const C: usize, const PART: usize>(
        tile: &TileOperands,
        rows: &RowVectors<R>,
        block: usize,
    ) -> Results<Self, R, C>;

    /// Spreads per-row values to the arrangement of result vector `part` of `SPREAD`.
    ///
    /// # Safety
    /// As for `sums`.
    #[inline(always)]
    unsafe fn spread(values: <Self::Set as Simd>::Floats, _part: usize) -> <Self::Set as Simd>::Floats {
        values
    }

    /// The same for pairs of integer minimums.
    ///
    /// # Safety
    /// As for `sums`.
    #[inline(always)]
    unsafe fn spread_pairs(values: <Self::Set as Simd>::Scale, _part: usize) -> <Self::Set as Simd>::Scale {
        values
    }

    /// Loads the per-column values for a vector.
    ///
    /// # Safety
    /// As for `sums`; the values are there.
    #[inline(always)]
    unsafe fn columns(at: *const f32) -> <Self::Set as Simd>::Floats {
        // SAFETY: the caller promises the set and the number.
        unsafe { Self::Set::splat(*at) }
    }

    /// `Simd::add_pairs` for the columns of a vector.
    ///
    /// # Safety
    /// As for `sums`; the values are there.
    #[inline(always)]
    unsafe fn add_pairs(
        total: <Self::Set as Simd>::Integers,
        pairs: <Self::Set as Simd>::Scale,
        at: *const i32,
    ) -> <Self::Set as Simd>::Integers {
        // SAFETY: the caller promises the set and the number.
        unsafe { Self::Set::add_pairs(total, pairs, at) }
    }

    /// Keeps values in registers at this point of the program, where the compiler alone would do worse.
    ///
    /// # Safety
    /// As for `sums`.
    #[inline(always)]
    unsafe fn hold<const R: usize, const C: usize>(_values: &mut Results<Self, R, C>) {}

    /// Prefetches the weights that will be needed some time after `block`.
    ///
    /// # Safety
    /// As for `sums`.
    unsafe fn prefetch<W: Weights>(tile: &TileOperands, block: usize);

    /// Loads the results of earlier blocks from `from`.
    ///
    /// # Safety
    /// As for `sums`; the results are there.
    #[inline(always)]
    unsafe fn load<const R: usize, const C: usize>(from: *const f32, stride: usize) -> Results<Self, R, C> {
        // SAFETY: the caller promises the set and the results.
        unsafe {
            let mut results = [[Self::Set::zero(); C]; R];
            for r in 0..R {
                for c in 0..C {
                    results[r][c] = Self::Set::floats(from.add(c * stride + r * Self::Set::LANES));
                }
            }
            results
        }
    }

    /// Stores the results.
    ///
    /// # Safety
    /// As for `sums`; there is room for the results.
    #[inline(always)]
    unsafe fn store<const R: usize, const C: usize>(to: *mut f32, stride: usize, results: Results<Self, R, C>) {
        // SAFETY: the caller promises the set and the room.
        unsafe {
            for r in 0..R {
                for c in 0..C {
                    Self::Set::store_floats(to.add(c * stride + r * Self::Set::LANES), results[r][c]);
                }
            }
        }
    }
}
