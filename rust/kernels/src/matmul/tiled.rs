//! The product of sets with a matrix unit: integers come from tiles of 16 tokens × 16 rows, 256 columns at a time, and are
//! then scaled and added up in vectors, by the skeleton of all tiles and therefore in the same order.
//!
//! Panels hold signed bytes, the zero point subtracted, so that a sum is used as it is; only those of Q3_K times its scales
//! need all the values of an unsigned byte, and a start. An integer scale is multiplied as a float, which is as exact as the
//! integer product: both round `integer · scale` once, and of two parts of 16 columns the first product is below 2^24
//! (at most 32 · 127 · 16 · 128, of Q6_K; weights with larger values have smaller scales).
//!
//! Instructions for 32 columns of 16 rows × 16 tokens, counted in the compiled code (rustc 1.95, `objdump -d`): 5 of the unit
//! (10 for Q6_K and NVFP4, in two parts), then, in two halves of 8 tokens, without spills:
//!
//! | scales | instructions | of which compute |
//! |---|---|---|
//! | float (Q4_0, Q5_0, Q8_0) | 58 | 48: convert, multiply, multiply-add for each token |
//! | float with minimums (Q4_1, Q5_1) | 92 | 64 |
//! | integer for 32 columns (Q4_K, Q5_K, IQ4_XS) | 72 | 50 |
//! | integer for 16 columns (Q6_K) | 108 | 84 |
//! | Q3_K, multiplied in the panel, with starts | 72 | 48 |
//! | Q2_K, multiplied in the panel | unrolled | 32 |
//!
//! and results are loaded and stored, and minimums of K-quants subtracted, once per 256 columns.
//!
//! F32, F16 and BF16 weights do not take this way: `tdpbf16ps` would need activations rounded to bf16, where all other sets
//! multiply them as f32, adds pairs of products before they reach the sum, and flushes denormal numbers to zero.

mod panel;
mod sets;

use std::hint::black_box;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::operands::TileOperands;
use super::product::{Product, Results, RowVectors};
use super::tile::RegisterTile;
use super::weights::{ScaleKind, Weights};
use crate::cpu::sets::Entry;
use crate::simd::Stored;
use crate::tiles::{ACTIVATION_STRIDE, SUM_STRIDE, TOKENS, Tiles};

/// Sums of a block: two parts of 16 tokens × 16 rows.
const BLOCK_SUMS: usize = 2 * TOKENS * SUM_STRIDE;
/// Blocks that are multiplied before their sums are scaled: 256 columns.
const STEP: usize = 8;

/// Tokens of a whole tile that are scaled at a time: their sums and results stay in registers.
const HALF: usize = TOKENS / 2;

/// Whether the bytes of a panel are signed.
pub(super) const fn signed<W: Weights>() -> bool {
    !W::Scales::MULTIPLIED || W::Scales::MINIMUM
}

/// Sums that tiles have stored in place of `TileOperands::activations`: `[block][part][token][row]`.
pub(super) struct StoredProduct<S>(PhantomData<S>);

impl<S: Stored> StoredProduct<S> {
    /// The sum of one part of a block, for one column.
    ///
    /// # Safety
    /// As for `Product::sums`.
    #[inline(always)]
    unsafe fn sum<W: Weights>(tile: &TileOperands, (block, part): (usize, usize), column: usize) -> S::Floats {
        // SAFETY: the caller promises the set, the sums of that block and column, and its starts.
        unsafe {
            let at = tile.activations.add(block * BLOCK_SUMS + (part * TOKENS + column) * SUM_STRIDE);
            let mut sum = S::loaded(at);
            if !signed::<W>() {
                sum = S::plus(sum, tile.starts.add((block * W::Scales::DOTS + part) * tile.columns + column));
            }
            S::to_floats(sum)
        }
    }
}

// SAFETY: every offset is inside the block and the columns of the tile.
unsafe impl<S: Stored> Product for StoredProduct<S> {
    type Set = S;

    #[inline(always)]
    fn width<const C: usize>(tile: &TileOperands) -> usize {
        // In whole tiles the compiler knows it.
        if C == HALF { TOKENS } else { tile.columns }
    }

    #[inline(always)]
    unsafe fn sums<W: Weights, const R: usize, const C: usize>(
        tile: &TileOperands,
        rows: &RowVectors<R>,
        block: usize,
    ) -> Results<Self, R, C> {
        // SAFETY: the caller promises the set and the block.
        unsafe {
            let mut floats = [[S::zero(); C]; R];
            let scaled = W::Scales::INTEGER && !W::Scales::MULTIPLIED;
            for c in 0..C {
                floats[0][c] = Self::sum::<W>(tile, (block, 0), c);
            }
            if scaled {
                let scale = S::scale_floats(W::Scales::integer::<S>(rows.scales[0], rows.lanes[0], block, 0));
                for c in 0..C {
                    floats[0][c] = S::mul(floats[0][c], scale);
                }
            }
            if scaled && W::Scales::DOTS == 2 {
                let scale = S::scale_floats(W::Scales::integer::<S>(rows.scales[0], rows.lanes[0], block, 1));
                for c in 0..C {
                    floats[0][c] = S::fma(Self::sum::<W>(tile, (block, 1), c), scale, floats[0][c]);
                }
            }
            floats
        }
    }

    #[inline(always)]
    unsafe fn half_sums<W: Weights, const R: usize, const C: usize, const PART: usize>(
        tile: &TileOperands,
        _rows: &RowVectors<R>,
        block: usize,
    ) -> Results<Self, R, C> {
        // SAFETY: the caller promises the set and the block.
        unsafe {
            let mut floats = [[S::zero(); C]; R];
            for c in 0..C {
                floats[0][c] = Self::sum::<W>(tile, (block, PART), c);
            }
            floats
        }
    }

    #[inline(always)]
    unsafe fn prefetch<W: Weights>(_tile: &TileOperands, _block: usize) {}
}

/// A tile of one group of rows × `TileOperands::columns` tokens, 1 to 16, with activations in `Order::Columns`.
pub(super) struct Tiled<T, S, W>(PhantomData<(T, S, W)>);

// SAFETY: the unit reads the activations and the panel of the operands' blocks, the skeleton what it may read of them.
unsafe impl<T: Tiles, S: Stored, W: Weights> Entry for Tiled<T, S, W> {
    type Operands = TileOperands;
    type Output = ();

    #[inline(always)]
    unsafe fn run(operands: &TileOperands) {
        #[repr(align(64))]
        struct Sums(MaybeUninit<[i32; STEP * BLOCK_SUMS]>);
        let tile = *operands;
        let mut sums = Sums(MaybeUninit::uninit());
        let sums = sums.0.as_mut_ptr().cast::<i32>();
        for first in (0..tile.blocks).step_by(STEP) {
            let blocks = STEP.min(tile.blocks - first);
            // SAFETY: the caller promises the set, the unit, configured for these tiles, and the operands; there is room for
            // the sums of 8 blocks.
            unsafe {
                for block in 0..blocks {
                    multiply::<T, W>(&tile, first + block, sums.add(block * BLOCK_SUMS));
                }
                let part = from_block::<W>(&tile, (first, blocks), sums);
                if tile.columns == TOKENS {
                    for column in [0, HALF] {
                        scale::<S, W, HALF>(&part, column);
                    }
                    continue;
                }
                let fours = if S::FOURS { tile.columns / 4 * 4 } else { 0 };
                for column in (0..fours).step_by(4) {
                    scale::<S, W, 4>(&part, column);
                }
                for column in fours..tile.columns {
                    scale::<S, W, 1>(&part, column);
                }
            }
        }
    }
}

/// Multiplies a block of 32 columns, in one or two parts.
///
/// # Safety
/// As for the tile; there is room for the sums.
#[inline(always)]
unsafe fn multiply<T: Tiles, W: Weights>(tile: &TileOperands, block: usize, sums: *mut i32) {
    // SAFETY: the caller promises the unit, the block and the room.
    unsafe {
        let activations = tile.activations.cast::<i8>().add(block * ACTIVATION_STRIDE * tile.columns);
        let weights = tile.quants.add(block * W::BYTES);
        macro_rules! product {
            ($second:literal, $part:literal) => {
                T::multiply_for::<W, $second>(
                    activations.add(16 * $part),
                    weights.add(W::BYTES / 2 * $part),
                    sums.add(TOKENS * SUM_STRIDE * $part),
                )
            };
        }
        if W::Scales::DOTS == 2 {
            product!(false, 0);
            product!(true, 1);
        } else if block.is_multiple_of(2) {
            product!(false, 0);
        } else {
            product!(true, 0);
        }
    }
}

/// `Tiles::multiply` for the bytes of a panel.
trait OfPanels: Tiles {
    /// As `Tiles::multiply`.
    ///
    /// # Safety
    /// As for `Tiles::multiply`.
    #[inline(always)]
    unsafe fn multiply_for<W: Weights, const SECOND: bool>(activations: *const i8, weights: *const u8, sums: *mut i32) {
        // SAFETY: the caller promises what the function asks for.
        unsafe {
            if signed::<W>() {
                Self::multiply::<true, SECOND>(activations, weights, sums);
            } else {
                Self::multiply::<false, SECOND>(activations, weights, sums);
            }
        }
    }
}

impl<T: Tiles> OfPanels for T {}

/// The operands of `blocks` blocks from block `first` on, a multiple of 8, whose sums have been stored.
///
/// # Safety
/// As for the tile.
#[inline(always)]
unsafe fn from_block<W: Weights>(
    tile: &TileOperands,
    (first, blocks): (usize, usize),
    sums: *const i32,
) -> TileOperands {
    let columns = first * tile.columns;
    // SAFETY: the caller promises these blocks.
    unsafe {
        TileOperands {
            blocks,
            activations: sums,
            scales: tile.scales.add(first * W::Scales::BYTES),
            starts: tile.starts.add(columns * W::Scales::DOTS),
            sums: tile.sums.add(columns),
            pairs: tile.pairs.wrapping_add(columns * W::Scales::PARTS / 2),
            pair_scales: tile.pair_scales.wrapping_add(columns / 8),
            activation_scales: tile.activation_scales.add(columns),
            resume: tile.resume || first > 0,
            ..*tile
        }
    }
}

/// Scales the stored sums of `C` columns from `column` on and adds them to the results.
///
/// # Safety
/// As for the tile.
#[inline(always)]
unsafe fn scale<S: Stored, W: Weights, const C: usize>(tile: &TileOperands, column: usize) {
    // SAFETY: the caller promises the set, the blocks and the columns.
    unsafe {
        let part = TileOperands {
            activations: tile.activations.add(column * SUM_STRIDE),
            starts: tile.starts.add(column),
            sums: tile.sums.add(column),
            pairs: tile.pairs.wrapping_add(column),
            pair_scales: tile.pair_scales.wrapping_add(column),
            activation_scales: tile.activation_scales.add(column),
            output: tile.output.add(column * tile.output_stride),
            ..*tile
        };
        RegisterTile::<StoredProduct<S>, W, 1, C>::run(&part);
    }
}

/// Configures a unit.
pub(super) struct Configure<T>(PhantomData<T>);

// SAFETY: the unit touches no memory of others.
unsafe impl<T: Tiles> Entry for Configure<T> {
    type Operands = [usize; 2];
    type Output = ();

    #[inline(always)]
    unsafe fn run([tokens, columns]: &[usize; 2]) {
        // SAFETY: the caller promises the unit.
        unsafe { T::configure(*tokens, *columns) }
    }
}

/// Releases a unit.
pub(super) struct Release<T>(PhantomData<T>);

// SAFETY: the unit touches no memory of others.
unsafe impl<T: Tiles> Entry for Release<T> {
    type Operands = ();
    type Output = ();

    #[inline(always)]
    unsafe fn run((): &()) {
        // SAFETY: the caller promises the unit.
        unsafe { T::release() }
    }
}

/// Products of a tile with their loads and stores, to measure the peak of a unit; see `peak`.
pub(super) struct TilePeak<T>(PhantomData<T>);

/// Number of multiplications in a round of `TilePeak`.
pub(super) const PEAK_PRODUCTS: usize = 2 * 32 * TOKENS * SUM_STRIDE;

// SAFETY: only values on the stack are read and written.
unsafe impl<T: Tiles> Entry for TilePeak<T> {
    type Operands = usize;
    type Output = f32;

    #[inline(always)]
    unsafe fn run(rounds: &usize) -> f32 {
        #[repr(align(64))]
        struct Line<U>(U);
        let (activations, weights) = black_box((Line([3_i8; TOKENS * ACTIVATION_STRIDE]), Line([5_u8; 512])));
        let mut sums = Line([0_i32; BLOCK_SUMS]);
        // SAFETY: the caller promises the unit; the arrays hold the largest tiles.
        unsafe {
            T::configure(TOKENS, 32);
            for _ in 0..*rounds {
                let to = black_box(sums.0.as_mut_ptr());
                T::multiply::<true, false>(activations.0.as_ptr(), weights.0.as_ptr(), to);
                T::multiply::<true, true>(activations.0.as_ptr(), weights.0.as_ptr(), to.add(BLOCK_SUMS / 2));
            }
            T::release();
        }
        sums.0[0] as f32
    }
}
