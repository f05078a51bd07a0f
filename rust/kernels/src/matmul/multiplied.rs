//! Panels whose bytes are quants times integer scales, where those products fit into a byte: Q2_K (at most 3 · 15) and Q3_K
//! (-124 to 128, kept with 124 added).
//!
//! Then a block of 32 columns has one sum instead of two that are scaled for themselves, and no multiplication of integers
//! stands between the dot products and the float: 8 dot products for 1 multiplication of floats, 89 % of the peak where two
//! parts with scales reach 73 %. The integers are the same, so the results are.

use std::marker::PhantomData;

use super::tile::{Tile, expand};
use super::weights::{ScaleKind, Weights};
use crate::simd::{ROWS, Simd};

/// The largest integer scale, for quants with a zero.
const LARGEST: i32 = 31;

/// Scales of such a panel: the floats and the minimums of the packed layout.
pub(crate) struct Multiplied<K>(PhantomData<K>);

impl<K: ScaleKind> ScaleKind for Multiplied<K> {
    const BYTES: usize = K::BYTES;
    const PARTS: usize = K::PARTS;
    const MINIMUM: bool = K::MINIMUM;
    const INTEGER: bool = true;
    const MULTIPLIED: bool = true;
    type Panel = Self;

    #[inline(always)]
    unsafe fn scale<S: Simd>(at: *const u8, lane: usize, block: usize, part: usize) -> S::Floats {
        // SAFETY: the caller promises the instruction set and the scales of that block.
        unsafe { K::scale::<S>(at, lane, block, part) }
    }

    #[inline(always)]
    unsafe fn minimum<S: Simd>(at: *const u8, lane: usize, block: usize, part: usize) -> S::Floats {
        // SAFETY: the caller promises the instruction set and the scales of that block.
        unsafe { K::minimum::<S>(at, lane, block, part) }
    }

    #[inline(always)]
    unsafe fn minimums<S: Simd>(at: *const u8, lane: usize, pair: usize) -> S::Scale {
        // SAFETY: the caller promises the instruction set and the scales of those parts.
        unsafe { K::minimums::<S>(at, lane, pair) }
    }
}

/// The zero of the products, for the zero of the quants.
pub(crate) const fn zero(of_quants: i32) -> i32 {
    of_quants * LARGEST
}

/// Expands blocks into a panel as `expand` does, and multiplies.
///
/// # Safety
/// As for `expand`.
#[inline(always)]
pub(crate) unsafe fn expand_multiplied<S: Simd, W: Weights>(tile: &Tile, quants: *mut u8, scales: *mut f32) {
    let groups = 8 / W::Scales::PARTS;
    // Quants with a zero have it in their middle.
    let middle = if W::Scales::MINIMUM { 0 } else { W::MAXIMUM.div_ceil(2) as u8 };
    let added = zero(i32::from(middle)) as u8;
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        expand::<S, W>(tile, quants, scales);
        for block in 0..tile.blocks {
            for part in 0..W::Scales::PARTS {
                let factors = W::Scales::factors(tile.scales, block, part).cast::<[u8; ROWS]>().read_unaligned();
                let (mut factor, mut start) = ([0; 4 * ROWS], [0; 4 * ROWS]);
                for i in 0..4 * ROWS {
                    factor[i] = factors[i / 4] & W::Scales::FACTOR_MASK;
                    start[i] = added.wrapping_sub(middle.wrapping_mul(factor[i]));
                }
                for group in 0..groups {
                    // A group of 4 columns is 64 bytes, row after row; bits above 8 cancel out.
                    let bytes = &mut *quants.add(512 * block + 64 * (groups * part + group)).cast::<[u8; 4 * ROWS]>();
                    for i in 0..4 * ROWS {
                        bytes[i] = bytes[i].wrapping_mul(factor[i]).wrapping_add(start[i]);
                    }
                }
            }
        }
    }
}
