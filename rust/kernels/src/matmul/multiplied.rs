//! Panels whose bytes are quants times integer scales, where those products fit into a byte: Q2_K (at most 3 · 15) and Q3_K
//! (-124 to 128, stored with 124 added).
//!
//! A block of 32 columns then has one sum instead of two that are scaled separately, and there is no integer multiplication
//! between the dot products and the float: 8 dot products per float multiplication, 89 % of the peak where two parts with
//! scales reach 73 %. The integers are the same, and therefore so are the results.

use std::marker::PhantomData;

use super::expand::{RowAfterRow, expand};
use super::operands::ExpandOperands;
use super::weights::{ScaleKind, Weights};
use crate::cpu::sets::Entry;
use crate::formats::GROUP_ROWS;
use crate::simd::Simd;

/// The largest integer scale, for quants with a zero.
const LARGEST: i32 = 31;

/// Scales of such a panel: the floats and the minimums of the packed layout.
pub(crate) struct Multiplied<K>(PhantomData<K>);

// SAFETY: what `K` reads.
unsafe impl<K: ScaleKind> ScaleKind for Multiplied<K> {
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

/// The zero point of the products, given the zero point of the quants.
pub(crate) const fn zero(of_quants: i32) -> i32 {
    of_quants * LARGEST
}

/// Makes a panel as `Expand` does, and multiplies by the integer scales.
pub(super) struct ExpandMultiplied<S, W>(PhantomData<(S, W)>);

// SAFETY: only the 512 bytes of each block are written.
unsafe impl<S: Simd, W: Weights> Entry for ExpandMultiplied<S, W> {
    type Operands = ExpandOperands;
    type Output = ();

    #[inline(always)]
    unsafe fn run(operands: &ExpandOperands) {
        let ExpandOperands { from, quants, scales, .. } = *operands;
        let groups = 8 / W::Scales::PARTS;
        // A nonzero zero point is in the middle of the quants' range.
        let middle = if W::Scales::MINIMUM { 0 } else { W::MAXIMUM.div_ceil(2) as u8 };
        let added = zero(i32::from(middle)) as u8;
        // SAFETY: the caller promises the set, the packed blocks with their integer scales and the room for the panel.
        unsafe {
            expand::<RowAfterRow<S>, W>(&from, quants, scales);
            for block in 0..from.blocks {
                for part in 0..W::Scales::PARTS {
                    let factors =
                        W::Scales::factors(from.scales, block, part).cast::<[u8; GROUP_ROWS]>().read_unaligned();
                    let (mut factor, mut start) = ([0; 4 * GROUP_ROWS], [0; 4 * GROUP_ROWS]);
                    for i in 0..4 * GROUP_ROWS {
                        factor[i] = factors[i / 4] & W::Scales::FACTOR_MASK;
                        start[i] = added.wrapping_sub(middle.wrapping_mul(factor[i]));
                    }
                    for group in 0..groups {
                        // A group of 4 columns is 64 bytes, row after row; bits above the low 8 cancel out.
                        let at = quants.add(512 * block + 64 * (groups * part + group));
                        let bytes = &mut *at.cast::<[u8; 4 * GROUP_ROWS]>();
                        for i in 0..4 * GROUP_ROWS {
                            bytes[i] = bytes[i].wrapping_mul(factor[i]).wrapping_add(start[i]);
                        }
                    }
                }
            }
        }
    }
}
