//! How a kernel reads weights: straight from the packed layout, or from a panel that has been expanded to bytes.
//!
//! A group holds 16 rows; rows are in lanes, and 64 bytes hold 4 consecutive columns of each row. All quants of a group
//! come first, 32 columns at a time, then all its scales. For 32 columns, with `g` counting the 8 groups of 4:
//!
//! | quants | bytes | content |
//! |---|---|---|
//! | `Quants1` | 64 | one byte vector, bit `g`: 0 or 2 |
//! | `Quants2` | 128 | byte vector `g / 4`, bits `2 · (g % 4)` |
//! | `Quants3` | 192 | as `Quants2`, then bit `g` of one more byte vector |
//! | `Quants4` | 256 | byte vector `g / 2`, low bits for even `g` |
//! | `Quants5` | 320 | as `Quants4`, then bit `g` of one more byte vector |
//! | `Quants6` | 384 | as `Quants4`, then two byte vectors as in `Quants2` |
//! | `Quants8` | 512 | byte vector `g` |
//!
//! Low-bit formats are compressed further in memory and decompressed to this layout a few blocks at a time: see
//! `formats::compression`.

use std::marker::PhantomData;

use crate::simd::Simd;

/// Quants of the packed layout.
///
/// # Safety
/// `group` reads `BYTES` bytes.
pub(crate) unsafe trait Quants: 'static {
    /// Bytes for 32 columns of 16 rows.
    const BYTES: usize;
    /// The quants of group `G` of 4 columns; `at` points to the 32 columns.
    unsafe fn group<S: Simd, const G: usize>(at: *const u8) -> S::Bytes;
}

/// Scales of the packed layout.
///
/// # Safety
/// The functions read the scales of the block or parts only: `BYTES` for 32 columns, from the group's first scale on.
pub(crate) unsafe trait ScaleKind: 'static {
    /// Bytes for 32 columns of 16 rows, on average over 256 columns.
    const BYTES: usize;
    /// Scaled sums per 32 columns.
    const PARTS: usize;
    /// Whether there are minimums.
    const MINIMUM: bool;
    /// Whether parts have integer scales (and minimums), with a float of each for 256 columns.
    const INTEGER: bool;
    /// Whether the quants have been multiplied by their integer scales; see [`super::multiplied`].
    const MULTIPLIED: bool = false;
    /// Sums per 32 columns that are scaled separately.
    const DOTS: usize = if Self::MULTIPLIED { 1 } else { Self::PARTS };
    /// Bits of an integer scale byte that hold the scale.
    const FACTOR_MASK: u8 = 255;
    /// The kind of scales in a panel; integer scales are read from the packed layout even then.
    type Panel: ScaleKind;
    /// The 16 bytes of the integer scales of a part; called only if `INTEGER`.
    #[inline(always)]
    unsafe fn factors(at: *const u8, _block: usize, _part: usize) -> *const u8 {
        at
    }
    /// Scales of a part of a block of 32 columns, or of the 256 columns that hold it if `INTEGER`; `at` points to the
    /// group's scales.
    unsafe fn scale<S: Simd>(at: *const u8, lane: usize, block: usize, part: usize) -> S::Floats;
    /// Minimums, likewise; called only if `MINIMUM`.
    unsafe fn minimum<S: Simd>(at: *const u8, lane: usize, block: usize, part: usize) -> S::Floats;
    /// Integer scales of a part; all 1 unless `INTEGER`.
    #[inline(always)]
    unsafe fn integer<S: Simd>(_at: *const u8, _lane: usize, _block: usize, _part: usize) -> S::Scale {
        // SAFETY: the caller promises the instruction set.
        unsafe { S::unscaled() }
    }
    /// Integer minimums of two consecutive parts, as pairs of 16 bits; called only if `INTEGER` and `MINIMUM`.
    #[inline(always)]
    unsafe fn minimums<S: Simd>(_at: *const u8, _lane: usize, _pair: usize) -> S::Scale {
        // SAFETY: the caller promises the instruction set.
        unsafe { S::unscaled() }
    }
}

/// Weights as a kernel reads them.
///
/// # Safety
/// `group` reads `BYTES` bytes, and `Scales` describes the scales stored with them.
pub(crate) unsafe trait Weights: 'static {
    /// Bytes of quants for 32 columns of 16 rows.
    const BYTES: usize;
    /// Largest value of `group`.
    const MAXIMUM: u32;
    /// Whether the weights stream from memory, so that they should be prefetched.
    const STREAM: bool;
    /// Whether the weights were decompressed from a stream of which more should be prefetched.
    const FOLDED: bool;
    /// Whether these are a panel, whose arrangement is up to the instruction set.
    #[cfg_attr(not(target_arch = "aarch64"), expect(dead_code, reason = "elsewhere it is the packed one"))]
    const PANEL: bool;
    /// The scales.
    type Scales: ScaleKind;
    /// Values of group `G`.
    unsafe fn group<S: Simd, const G: usize>(at: *const u8, table: S::Bytes) -> S::Bytes;
}

/// The packed layout: quants (indices into a table if `TABLE`), scales, largest value.
pub(crate) struct Packed<Q, K, const TABLE: bool, const MAXIMUM: u32>(PhantomData<(Q, K)>);

// SAFETY: within the bytes that the tables above and in `scales` give.
unsafe impl<Q: Quants, K: ScaleKind, const TABLE: bool, const MAXIMUM: u32> Weights for Packed<Q, K, TABLE, MAXIMUM> {
    const BYTES: usize = Q::BYTES;
    const MAXIMUM: u32 = MAXIMUM;
    const STREAM: bool = true;
    const FOLDED: bool = false;
    const PANEL: bool = false;
    type Scales = K;

    #[inline(always)]
    unsafe fn group<S: Simd, const G: usize>(at: *const u8, table: S::Bytes) -> S::Bytes {
        // SAFETY: the caller promises the instruction set and a whole block at `at`.
        unsafe {
            let quants = Q::group::<S, G>(at);
            if TABLE { S::lookup(table, quants) } else { quants }
        }
    }
}

/// The packed layout of weights that have just been decompressed.
pub(crate) struct Decompressed<Q, K, const TABLE: bool, const MAXIMUM: u32>(PhantomData<(Q, K)>);

// SAFETY: within the bytes that the tables above and in `scales` give.
unsafe impl<Q: Quants, K: ScaleKind, const TABLE: bool, const MAXIMUM: u32> Weights
    for Decompressed<Q, K, TABLE, MAXIMUM>
{
    const BYTES: usize = Q::BYTES;
    const MAXIMUM: u32 = MAXIMUM;
    const STREAM: bool = false;
    const FOLDED: bool = true;
    const PANEL: bool = false;
    type Scales = K;

    #[inline(always)]
    unsafe fn group<S: Simd, const G: usize>(at: *const u8, table: S::Bytes) -> S::Bytes {
        // SAFETY: the caller promises the instruction set and a whole block at `at`.
        unsafe { Packed::<Q, K, TABLE, MAXIMUM>::group::<S, G>(at, table) }
    }
}

/// A panel: one byte per value, scales and minimums as f32.
pub(crate) struct Panel<K, const MAXIMUM: u32>(PhantomData<K>);

// SAFETY: within the bytes that the tables above and in `scales` give.
unsafe impl<K: ScaleKind, const MAXIMUM: u32> Weights for Panel<K, MAXIMUM> {
    const BYTES: usize = 512;
    const MAXIMUM: u32 = MAXIMUM;
    const STREAM: bool = false;
    const FOLDED: bool = false;
    const PANEL: bool = true;
    type Scales = K;

    #[inline(always)]
    unsafe fn group<S: Simd, const G: usize>(at: *const u8, _table: S::Bytes) -> S::Bytes {
        // SAFETY: the caller promises the instruction set and a whole block at `at`.
        unsafe { S::bytes(at.add(64 * G)) }
    }
}

/// Weights of 1 bit, with the values 0 and 2.
pub(crate) struct Quants1;
/// Weights of 2 bits; the layout of their planes is in the module's table.
pub(crate) struct Quants2;
/// Weights of 3 bits; the layout of their planes is in the module's table.
pub(crate) struct Quants3;
/// Weights of 4 bits; the layout of their planes is in the module's table.
pub(crate) struct Quants4;
/// Weights of 5 bits; the layout of their planes is in the module's table.
pub(crate) struct Quants5;
/// Weights of 6 bits; the layout of their planes is in the module's table.
pub(crate) struct Quants6;
/// Weights of 8 bits; the layout of their planes is in the module's table.
pub(crate) struct Quants8;

/// Moves bit pair `G % 4` of every byte to bits 0 and 1; the other bits are not cleared.
#[inline(always)]
unsafe fn pair<S: Simd, const G: usize>(value: S::Bytes) -> S::Bytes {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        match G % 4 {
            0 => value,
            1 => S::right::<2>(value),
            2 => S::right::<4>(value),
            _ => S::right::<6>(value),
        }
    }
}

// SAFETY: within the bytes that the tables above and in `scales` give.
unsafe impl Quants for Quants1 {
    const BYTES: usize = 64;

    #[inline(always)]
    unsafe fn group<S: Simd, const G: usize>(at: *const u8) -> S::Bytes {
        // SAFETY: the caller promises the instruction set and 64 bytes.
        unsafe {
            let plane = S::bytes(at);
            let moved = match G {
                0 => S::left::<1>(plane),
                1 => plane,
                2 => S::right::<1>(plane),
                3 => S::right::<2>(plane),
                4 => S::right::<3>(plane),
                5 => S::right::<4>(plane),
                6 => S::right::<5>(plane),
                _ => S::right::<6>(plane),
            };
            S::mask(moved, 2)
        }
    }
}

// SAFETY: within the bytes that the tables above and in `scales` give.
unsafe impl Quants for Quants2 {
    const BYTES: usize = 128;

    #[inline(always)]
    unsafe fn group<S: Simd, const G: usize>(at: *const u8) -> S::Bytes {
        // SAFETY: the caller promises the instruction set and 128 bytes.
        unsafe { S::mask(pair::<S, G>(S::bytes(at.add(64 * (G / 4)))), 3) }
    }
}

// SAFETY: within the bytes that the tables above and in `scales` give.
unsafe impl Quants for Quants3 {
    const BYTES: usize = 192;

    #[inline(always)]
    unsafe fn group<S: Simd, const G: usize>(at: *const u8) -> S::Bytes {
        // SAFETY: the caller promises the instruction set and 192 bytes.
        unsafe {
            let plane = S::bytes(at.add(128));
            let high = match G {
                0 => S::left::<2>(plane),
                1 => S::left::<1>(plane),
                2 => plane,
                3 => S::right::<1>(plane),
                4 => S::right::<2>(plane),
                5 => S::right::<3>(plane),
                6 => S::right::<4>(plane),
                _ => S::right::<5>(plane),
            };
            S::merge(Quants2::group::<S, G>(at), high, 4)
        }
    }
}

// SAFETY: within the bytes that the tables above and in `scales` give.
unsafe impl Quants for Quants4 {
    const BYTES: usize = 256;

    #[inline(always)]
    unsafe fn group<S: Simd, const G: usize>(at: *const u8) -> S::Bytes {
        // SAFETY: the caller promises the instruction set and 256 bytes.
        unsafe {
            let both = S::bytes(at.add(64 * (G / 2)));
            S::mask(if G.is_multiple_of(2) { both } else { S::right::<4>(both) }, 15)
        }
    }
}

// SAFETY: within the bytes that the tables above and in `scales` give.
unsafe impl Quants for Quants5 {
    const BYTES: usize = 320;

    #[inline(always)]
    unsafe fn group<S: Simd, const G: usize>(at: *const u8) -> S::Bytes {
        // SAFETY: the caller promises the instruction set and 320 bytes.
        unsafe {
            let plane = S::bytes(at.add(256));
            let high = match G {
                0 => S::left::<4>(plane),
                1 => S::left::<3>(plane),
                2 => S::left::<2>(plane),
                3 => S::left::<1>(plane),
                4 => plane,
                5 => S::right::<1>(plane),
                6 => S::right::<2>(plane),
                _ => S::right::<3>(plane),
            };
            S::merge(Quants4::group::<S, G>(at), high, 16)
        }
    }
}

// SAFETY: within the bytes that the tables above and in `scales` give.
unsafe impl Quants for Quants6 {
    const BYTES: usize = 384;

    #[inline(always)]
    unsafe fn group<S: Simd, const G: usize>(at: *const u8) -> S::Bytes {
        // SAFETY: the caller promises the instruction set and 384 bytes.
        unsafe {
            let plane = S::bytes(at.add(256 + 64 * (G / 4)));
            let high = match G % 4 {
                0 => S::left::<4>(plane),
                1 => S::left::<2>(plane),
                2 => plane,
                _ => S::right::<2>(plane),
            };
            S::merge(Quants4::group::<S, G>(at), high, 48)
        }
    }
}

// SAFETY: within the bytes that the tables above and in `scales` give.
unsafe impl Quants for Quants8 {
    const BYTES: usize = 512;

    #[inline(always)]
    unsafe fn group<S: Simd, const G: usize>(at: *const u8) -> S::Bytes {
        // SAFETY: the caller promises the instruction set and 512 bytes.
        unsafe { S::bytes(at.add(64 * G)) }
    }
}
