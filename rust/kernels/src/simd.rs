//! The operations that the matrix kernels require of an instruction set; one file per set.
//!
//! Rows of weights are in the lanes: a group of 16 rows is one 512-bit vector, two of 256 bits or four of 128 bits. Kernels
//! are generic over [`Simd`] and are compiled once per instruction set inside a function that enables its features. Every
//! operation here is exact, or one correctly rounded f32 operation, so that all sets give the same bits.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avxvnni;
#[cfg(target_arch = "aarch64")]
pub(crate) mod i8mm;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod scalar;

/// Functions of a `Simd` implementation whose body is one unsafe expression.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! operations {
    ($(fn $name:ident $(<const $generic:ident: $kind:ty>)? ($($argument:ident: $type:ty),*) $(-> $result:ty)? { $body:expr })*) => { $(
        #[inline(always)]
        unsafe fn $name $(<const $generic: $kind>)? ($($argument: $type),*) $(-> $result)? {
            // SAFETY: the caller promises the instruction set and pointers that are good for one vector.
            unsafe { $body }
        }
    )* };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use operations;

use crate::cpu::sets::InstructionSet;

/// The form in which a tile takes the activations and the start values of sums.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Activations as bytes; starts as integers.
    #[default]
    Whole,
    /// Starts as two halves of 16 bits: one for the columns 0 and 1 of every 4, one for 2 and 3.
    Halves,
    /// Activations as 16 bits: of every 4 columns, 0 and 2, then 1 and 3; starts as integers.
    Words,
}

/// What kernels need besides where tiles of a matrix unit make the sums: vectors of 16 rows.
///
/// # Safety
/// As for [`Simd`].
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe trait Stored: Simd {
    /// Whether tiles of 4 columns are faster than as many of one.
    const FOURS: bool = true;
    /// Loads integers; any alignment.
    unsafe fn loaded(at: *const i32) -> Self::Integers;
    /// Adds `*start`.
    unsafe fn plus(value: Self::Integers, start: *const i32) -> Self::Integers;
    /// Scales as floats.
    unsafe fn scale_floats(scale: Self::Scale) -> Self::Floats;
}

/// The operations that matrix kernels require of an instruction set.
///
/// Every function may be called only where the processor has the instruction set, and from code compiled for it; pointers
/// must be valid for the bytes of one vector (`LANES` × 4 for bytes and floats, × 2 for halves, × 1 for bytes of scales).
///
/// # Safety
/// `LANES` divides 16, and functions read and write no more than the bytes of one vector.
pub(crate) unsafe trait Simd: InstructionSet {
    /// Number of rows in one vector: 16, 8 or 4.
    const LANES: usize;
    /// Subtracted from the zero point of weights whose values exceed 127: 128 where the set only multiplies signed bytes.
    const SIGNED_ZERO: i32;
    /// The form in which weights that are at most `maximum` are multiplied.
    #[inline(always)]
    fn form(_maximum: u32) -> Form {
        Form::Whole
    }
    /// 4 bytes for each row.
    type Bytes: Copy;
    /// A running integer sum for each row.
    type Sums: Copy;
    /// An integer scale for each row.
    type Scale: Copy;
    /// A finished integer for each row.
    type Integers: Copy;
    /// A float for each row.
    type Floats: Copy;

    /// Loads bytes; any alignment.
    unsafe fn bytes(at: *const u8) -> Self::Bytes;
    /// Stores bytes; any alignment.
    unsafe fn store_bytes(at: *mut u8, value: Self::Bytes);
    /// Bytes `& mask`.
    unsafe fn mask(value: Self::Bytes, mask: u8) -> Self::Bytes;
    /// `low | (high & mask)`, where `low` has none of the bits of `mask`.
    unsafe fn merge(low: Self::Bytes, high: Self::Bytes, mask: u8) -> Self::Bytes;
    /// Shifts every 16 bits right; the bits that cross bytes are masked off by the caller.
    unsafe fn right<const N: u32>(value: Self::Bytes) -> Self::Bytes;
    /// Shifts every 16 bits left; the bits that cross bytes are masked off by the caller.
    unsafe fn left<const N: u32>(value: Self::Bytes) -> Self::Bytes;
    /// Loads a table of 16 bytes for `lookup`.
    unsafe fn table(at: *const u8) -> Self::Bytes;
    /// Table entries chosen by bytes below 16.
    unsafe fn lookup(table: Self::Bytes, index: Self::Bytes) -> Self::Bytes;

    /// Zeros.
    unsafe fn zero() -> Self::Floats;
    /// Loads floats; any alignment.
    unsafe fn floats(at: *const f32) -> Self::Floats;
    /// Stores floats; any alignment.
    unsafe fn store_floats(at: *mut f32, value: Self::Floats);
    /// Loads f16 values.
    unsafe fn halves(at: *const u8) -> Self::Floats;
    /// Loads bf16 values.
    unsafe fn brains(at: *const u8) -> Self::Floats;
    /// The same value in every lane.
    unsafe fn splat(value: f32) -> Self::Floats;
    /// `a · b`.
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a · b + c`, rounded once.
    unsafe fn fma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `c - a · b`, rounded once.
    unsafe fn fnma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;

    /// A scale of 1.
    unsafe fn unscaled() -> Self::Scale;
    /// Loads signed bytes as scales.
    unsafe fn signed_scale(at: *const u8) -> Self::Scale;
    /// Loads unsigned bytes as scales.
    unsafe fn unsigned_scale(at: *const u8) -> Self::Scale;
    /// Loads the low four bits of bytes as scales.
    unsafe fn low_nibble_scale(at: *const u8) -> Self::Scale;
    /// Pairs of 16 bits: unsigned bytes at `first` low, those at `second` high.
    unsafe fn pairs(first: *const u8, second: *const u8) -> Self::Scale;
    /// Like `pairs`, for the high four bits of bytes.
    unsafe fn high_nibble_pairs(first: *const u8, second: *const u8) -> Self::Scale;
    /// Adds both products of each pair and the pair of signed 16 bits at `sums`.
    unsafe fn add_pairs(total: Self::Integers, pairs: Self::Scale, sums: *const i32) -> Self::Integers;

    /// An empty sum.
    unsafe fn empty() -> Self::Sums;
    /// A sum that starts at `*start` (which may also be added at the end instead).
    unsafe fn begin(start: *const i32) -> Self::Sums;
    /// Adds the products of 4 bytes per row (unsigned, at most `maximum`) and the 4 signed bytes at `activations`
    /// (none of them -128).
    unsafe fn add_products(maximum: u32, sum: Self::Sums, weights: Self::Bytes, activations: *const i32) -> Self::Sums;
    /// Called after every group of 4 columns: makes room in narrow sums, which may be scaled in the process.
    unsafe fn carry(maximum: u32, group: usize, sum: Self::Sums, scale: Self::Scale) -> Self::Sums;
    /// Called after every group of 4 columns where registers are scarce: keeps a sum in one, so that the compiler does not
    /// process column after column with all weights of a block on the stack.
    #[inline(always)]
    unsafe fn hold(_sum: &mut Self::Sums) {}
    /// Finishes an unscaled sum that began with the same `start`.
    unsafe fn finish(sum: Self::Sums, start: *const i32) -> Self::Floats;
    /// Zeros.
    unsafe fn integers() -> Self::Integers;
    /// `total + sum · scale`, with the scale that was passed to `carry`; for a sum that began with a start, see `add_start`.
    unsafe fn add_scaled(total: Self::Integers, sum: Self::Sums, scale: Self::Scale) -> Self::Integers;
    /// Adds the part of the start that `begin` left out of a scaled sum.
    unsafe fn add_start(total: Self::Integers, start: *const i32, scale: Self::Scale) -> Self::Integers;
    /// Converts integers to floats, rounded once.
    unsafe fn to_floats(value: Self::Integers) -> Self::Floats;
    /// Prefetches the cache line at an address, which need not exist, into the second-level cache.
    unsafe fn prefetch_far(at: *const u8);
    /// Prefetches the cache line at an address, which need not exist, into the first-level cache.
    unsafe fn prefetch_near(at: *const u8);
}
