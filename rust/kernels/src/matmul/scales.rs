//! How a kernel reads scales. All products here are exact: at most 11 bits of an f16 times at most 8 bits of a scale.
//!
//! Bytes of a group's scales for 32 columns: [`Half`] and [`Brain`] 32; [`Half16`] 64 (those of 16 columns, then of the next
//! 16); [`HalfMinimum`] 64 (scales, minimums); a panel's [`Single`] 64 for each part, twice that with minimums. For 256 columns,
//! after 32 bytes of f16 scales: [`Signed32`] 8 × 16, [`Signed16`] 16 × 16; after another 32 bytes of f16 minimums:
//! [`Minimum32`] 8 × (16 scales, 16 minimums), [`Minimum16`] 16 × 16 (low bits scale, high bits minimum).

use super::weights::ScaleKind;
use crate::simd::Simd;

/// f16 for 32 columns.
pub(crate) struct Half;
/// f16 for 16 columns.
pub(crate) struct Half16;
/// bf16 for 32 columns.
pub(crate) struct Brain;
/// f16 scale and minimum for 32 columns.
pub(crate) struct HalfMinimum;
/// f16 for 256 columns (times `EIGHTHS / 8`) times a signed byte for 32.
pub(crate) struct Signed32<const EIGHTHS: u32>;
/// f16 for 256 columns (times `EIGHTHS / 8`) times a signed byte for 16.
pub(crate) struct Signed16<const EIGHTHS: u32>;
/// f16 scale and minimum for 256 columns times unsigned bytes for 32.
pub(crate) struct Minimum32;
/// f16 scale and minimum for 256 columns, each times four bits for 16.
pub(crate) struct Minimum16;
/// f32, as expanded into a panel.
pub(crate) struct Single<const PARTS: usize, const MINIMUM: bool>;

/// Bytes of the scales of 256 columns, by kind.
pub(crate) const SIGNED32: usize = 32 + 8 * 16;
/// See `SIGNED32`.
pub(crate) const SIGNED16: usize = 32 + 16 * 16;
/// See `SIGNED32`.
pub(crate) const MINIMUM32: usize = 64 + 8 * 32;
/// See `SIGNED32`.
pub(crate) const MINIMUM16: usize = 64 + 16 * 16;

macro_rules! no_minimum {
    () => {
        #[inline(always)]
        unsafe fn minimum<S: Simd>(_: *const u8, _: usize, _: usize, _: usize) -> S::Floats {
            // SAFETY: the caller promises the instruction set.
            unsafe { S::zero() }
        }
    };
}

// SAFETY: within the bytes that the head of this file gives.
unsafe impl ScaleKind for Half {
    const BYTES: usize = 32;
    const PARTS: usize = 1;
    const MINIMUM: bool = false;
    const INTEGER: bool = false;
    type Panel = Single<1, false>;

    #[inline(always)]
    unsafe fn scale<S: Simd>(at: *const u8, lane: usize, block: usize, _part: usize) -> S::Floats {
        // SAFETY: the caller promises the instruction set and the scales of that block.
        unsafe { S::halves(at.add(32 * block + 2 * lane)) }
    }

    no_minimum!();
}

// SAFETY: within the bytes that the head of this file gives.
unsafe impl ScaleKind for Half16 {
    const BYTES: usize = 64;
    const PARTS: usize = 2;
    const MINIMUM: bool = false;
    const INTEGER: bool = false;
    type Panel = Single<2, false>;

    #[inline(always)]
    unsafe fn scale<S: Simd>(at: *const u8, lane: usize, block: usize, part: usize) -> S::Floats {
        // SAFETY: the caller promises the instruction set and the scales of that block.
        unsafe { S::halves(at.add(64 * block + 32 * part + 2 * lane)) }
    }

    no_minimum!();
}

// SAFETY: within the bytes that the head of this file gives.
unsafe impl ScaleKind for Brain {
    const BYTES: usize = 32;
    const PARTS: usize = 1;
    const MINIMUM: bool = false;
    const INTEGER: bool = false;
    type Panel = Single<1, false>;

    #[inline(always)]
    unsafe fn scale<S: Simd>(at: *const u8, lane: usize, block: usize, _part: usize) -> S::Floats {
        // SAFETY: the caller promises the instruction set and the scales of that block.
        unsafe { S::brains(at.add(32 * block + 2 * lane)) }
    }

    no_minimum!();
}

// SAFETY: within the bytes that the head of this file gives.
unsafe impl ScaleKind for HalfMinimum {
    const BYTES: usize = 64;
    const PARTS: usize = 1;
    const MINIMUM: bool = true;
    const INTEGER: bool = false;
    type Panel = Single<1, true>;

    #[inline(always)]
    unsafe fn scale<S: Simd>(at: *const u8, lane: usize, block: usize, _part: usize) -> S::Floats {
        // SAFETY: the caller promises the instruction set and the scales of that block.
        unsafe { S::halves(at.add(64 * block + 2 * lane)) }
    }

    #[inline(always)]
    unsafe fn minimum<S: Simd>(at: *const u8, lane: usize, block: usize, _part: usize) -> S::Floats {
        // SAFETY: the caller promises the instruction set and the scales of that block.
        unsafe { S::halves(at.add(64 * block + 32 + 2 * lane)) }
    }
}

/// The f16 scales of 256 columns times a constant.
#[inline(always)]
unsafe fn wide<S: Simd, const EIGHTHS: u32>(at: *const u8) -> S::Floats {
    // SAFETY: the caller promises the instruction set and one vector of f16 values.
    unsafe {
        let scale = S::halves(at);
        if EIGHTHS == 8 { scale } else { S::mul(scale, S::splat(EIGHTHS as f32 / 8.0)) }
    }
}

/// A kind with f16 scales for 256 columns and byte scales for parts of them; these bytes begin after `header` bytes, with
/// `step` bytes for each part.
macro_rules! integer_kind {
    (
        [$($generic:tt)*] $kind:ty, $bytes:ident, parts $parts:literal, minimum $minimum:literal, $header:literal + $step:literal,
        |$at:ident| $scale:expr, $integer:ident & $mask:literal, |$first:ident, $second:ident| $minimums:expr
    ) => {
        // SAFETY: within the bytes that the head of this file gives.
        unsafe impl $($generic)* ScaleKind for $kind {
            const BYTES: usize = $bytes / 8;
            const PARTS: usize = $parts;
            const MINIMUM: bool = $minimum;
            const INTEGER: bool = true;
            const FACTOR_MASK: u8 = $mask;
            type Panel = Self;

            #[inline(always)]
            unsafe fn factors(at: *const u8, block: usize, part: usize) -> *const u8 {
                // SAFETY: the caller promises the scales of that block.
                unsafe { at.add($bytes * (block / 8) + $header + $step * (block % 8 * $parts + part)) }
            }

            #[inline(always)]
            unsafe fn scale<S: Simd>(at: *const u8, lane: usize, block: usize, _part: usize) -> S::Floats {
                // SAFETY: the caller promises the instruction set and the scales of that block.
                unsafe {
                    let $at = at.add($bytes * (block / 8) + 2 * lane);
                    $scale
                }
            }

            #[inline(always)]
            unsafe fn minimum<S: Simd>(at: *const u8, lane: usize, block: usize, _part: usize) -> S::Floats {
                // SAFETY: the caller promises the instruction set and the scales of that block.
                unsafe { S::halves(at.add($bytes * (block / 8) + 32 + 2 * lane)) }
            }

            #[inline(always)]
            unsafe fn integer<S: Simd>(at: *const u8, lane: usize, block: usize, part: usize) -> S::Scale {
                // SAFETY: the caller promises the instruction set and the scales of that block.
                unsafe { S::$integer(Self::factors(at, block, part).add(lane)) }
            }

            #[inline(always)]
            unsafe fn minimums<S: Simd>(at: *const u8, lane: usize, pair: usize) -> S::Scale {
                // SAFETY: the caller promises the instruction set and the scales of those parts.
                unsafe {
                    let $first = at.add($bytes * (pair / (4 * $parts)) + $header + 2 * $step * (pair % (4 * $parts)) + lane);
                    let $second = $first.add($step);
                    $minimums
                }
            }
        }
    };
}

integer_kind!(
    [<const EIGHTHS: u32>] Signed32<EIGHTHS>, SIGNED32, parts 1, minimum false, 32 + 16,
    |at| wide::<S, EIGHTHS>(at), signed_scale & 255, |_first, _second| S::unscaled()
);
integer_kind!(
    [<const EIGHTHS: u32>] Signed16<EIGHTHS>, SIGNED16, parts 2, minimum false, 32 + 16,
    |at| wide::<S, EIGHTHS>(at), signed_scale & 255, |_first, _second| S::unscaled()
);
integer_kind!(
    [] Minimum32, MINIMUM32, parts 1, minimum true, 64 + 32,
    |at| S::halves(at), unsigned_scale & 255, |first, second| S::pairs(first.add(16), second.add(16))
);
integer_kind!(
    [] Minimum16, MINIMUM16, parts 2, minimum true, 64 + 16,
    |at| S::halves(at), low_nibble_scale & 15, |first, second| S::high_nibble_pairs(first, second)
);

impl<const PARTS: usize, const MINIMUM: bool> Single<PARTS, MINIMUM> {
    /// Byte offset of the scales of a part of a block.
    pub(crate) const fn offset(block: usize, part: usize) -> usize {
        <Self as ScaleKind>::BYTES * block + 64 * (1 + MINIMUM as usize) * part
    }
}

// SAFETY: within the bytes that the head of this file gives.
unsafe impl<const PARTS: usize, const MINIMUM: bool> ScaleKind for Single<PARTS, MINIMUM> {
    const BYTES: usize = 64 * PARTS * (1 + MINIMUM as usize);
    const PARTS: usize = PARTS;
    const MINIMUM: bool = MINIMUM;
    const INTEGER: bool = false;
    type Panel = Self;

    #[inline(always)]
    unsafe fn scale<S: Simd>(at: *const u8, lane: usize, block: usize, part: usize) -> S::Floats {
        // SAFETY: the caller promises the instruction set and the scales of that block, aligned for f32.
        unsafe { S::floats(at.add(Self::offset(block, part) + 4 * lane).cast()) }
    }

    #[inline(always)]
    unsafe fn minimum<S: Simd>(at: *const u8, lane: usize, block: usize, part: usize) -> S::Floats {
        // SAFETY: the caller promises the instruction set and the scales of that block, aligned for f32.
        unsafe { S::floats(at.add(Self::offset(block, part) + 64 + 4 * lane).cast()) }
    }
}
