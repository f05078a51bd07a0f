//! Panels: blocks of the packed layout, expanded to one byte per value.

use std::marker::PhantomData;

use super::operands::{ExpandOperands, TileOperands};
use super::weights::{ScaleKind, Weights};
use crate::cpu::sets::Entry;
use crate::formats::GROUP_ROWS;
use crate::simd::Simd;

/// How a panel arranges the bytes of `LANES` rows.
///
/// # Safety
/// `store` writes into the 128 bytes of both groups only, and fills those of its rows.
pub(super) unsafe trait Arrangement: 'static {
    /// The instruction set.
    type Set: Simd;

    /// Writes 4 columns of `LANES` rows, starting at row `lane`, and the next 4 columns; values are at most `maximum`. `to`
    /// points to the first 4 columns of all 16 rows.
    ///
    /// # Safety
    /// The processor has the set, and the code is compiled for it; there is room for 128 bytes.
    unsafe fn store(to: *mut u8, lane: usize, maximum: u32, groups: [<Self::Set as Simd>::Bytes; 2]);
}

/// The arrangement of the packed layout with 8 bits: 4 columns of 16 rows are 64 bytes, row after row.
pub(super) struct RowAfterRow<S>(PhantomData<S>);

// SAFETY: `LANES` rows of 4 bytes in each of both groups are written.
unsafe impl<S: Simd> Arrangement for RowAfterRow<S> {
    type Set = S;

    #[inline(always)]
    unsafe fn store(to: *mut u8, lane: usize, _maximum: u32, groups: [S::Bytes; 2]) {
        // SAFETY: the caller promises the set and the room.
        unsafe {
            S::store_bytes(to.add(4 * lane), groups[0]);
            S::store_bytes(to.add(64 + 4 * lane), groups[1]);
        }
    }
}

/// Expands blocks into a panel of the given arrangement.
pub(super) struct Expand<A, W>(PhantomData<(A, W)>);

// SAFETY: only the 512 bytes of each block are written, and its float scales if there are any.
unsafe impl<A: Arrangement, W: Weights> Entry for Expand<A, W> {
    type Operands = ExpandOperands;
    type Output = ();

    #[inline(always)]
    unsafe fn run(operands: &ExpandOperands) {
        // SAFETY: the caller promises the set, the packed blocks and the room.
        unsafe { expand::<A, W>(&operands.from, operands.quants, operands.scales) }
    }
}

/// Expands blocks of a group of 16 rows into a panel: bytes at `quants`, float scales (and minimums) at `scales`.
///
/// # Safety
/// The processor has the set, and the code is compiled for it; `from` points to `blocks` packed blocks; there is room for 512
/// bytes per block at `quants`, and for the scales as laid out by `Single`.
#[inline(always)]
pub(super) unsafe fn expand<A: Arrangement, W: Weights>(from: &TileOperands, quants: *mut u8, scales: *mut f32) {
    // SAFETY: the caller promises the set, the blocks and the room.
    unsafe {
        let table = A::Set::table(from.table);
        let parts = W::Scales::PARTS;
        let step = if W::Scales::MINIMUM { 32 } else { 16 };
        for block in 0..from.blocks {
            for vector in 0..GROUP_ROWS / A::Set::LANES {
                let lane = vector * A::Set::LANES;
                let packed = from.quants.add(block * W::BYTES + 4 * lane);
                let to = quants.add(512 * block);
                macro_rules! groups {
                    ($($even:literal $odd:literal)*) => { $(
                        let even = W::group::<A::Set, $even>(packed, table);
                        let odd = W::group::<A::Set, $odd>(packed, table);
                        A::store(to.add(64 * $even), lane, W::MAXIMUM, [even, odd]);
                    )* };
                }
                groups!(0 1 2 3 4 5 6 7);
                for part in 0..if W::Scales::INTEGER { 0 } else { parts } {
                    let to = scales.add((block * parts + part) * step + lane);
                    A::Set::store_floats(to, W::Scales::scale::<A::Set>(from.scales, lane, block, part));
                    if W::Scales::MINIMUM {
                        A::Set::store_floats(to.add(16), W::Scales::minimum::<A::Set>(from.scales, lane, block, part));
                    }
                }
            }
        }
    }
}
