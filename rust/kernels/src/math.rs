//! Sixteen `f32` lanes on every instruction set, with the same bits on each.
//!
//! A kernel is written once, generic over [`Lanes`], and compiled once per instruction set by [`dispatch`]. Equal bits
//! follow from three rules: a fused multiply-add is exact everywhere ([`fma`]); every kernel fixes the order of its sums
//! in terms of 16 lanes; and nothing else is used than operations that IEEE 754 defines to the last bit. (Which of
//! several NaNs a sum returns is the one thing left open.)

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod doubles;
mod functions;
mod half_floats;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

pub(crate) use functions::{exp, exp2, silu};
pub(crate) use half_floats::{float_to_half, half_to_float};

use crate::cpu::Isa;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::cpu::Kind;

/// Lanes in a vector.
pub(crate) const LANES: usize = 16;

/// Sixteen `f32` values and the operations that all kernels are made of.
///
/// Implementations for an instruction set may be used only in code that [`dispatch`] compiled for it: every function is
/// `#[inline(always)]` for that reason. No other code names the implementing types.
pub(crate) trait Lanes: Copy + Send + Sync + 'static {
    /// Sixteen `i32` values.
    type Integers: Copy;
    /// Whether 32 vectors of 16 lanes fit into the registers (otherwise 8 do).
    const MANY_REGISTERS: bool;

    /// Runs a kernel as a function of its own, compiled for the same instruction set. Large kernels are cut at such calls,
    /// which the compiler needs less time for.
    fn call<K: Kernel>(kernel: K) -> K::Output;

    /// The same value in every lane.
    fn splat(value: f32) -> Self;
    /// Lane `i` is `values[i]`.
    fn load(values: &[f32; LANES]) -> Self;
    /// `to[i]` becomes lane `i`.
    fn store(self, to: &mut [f32; LANES]);
    /// Lane `i` is the little-endian `f32` at byte `4 * i`.
    fn load_floats(bytes: &[u8; 4 * LANES]) -> Self;
    /// Lane `i` is the little-endian IEEE half at byte `2 * i`.
    fn load_halves(bytes: &[u8; 2 * LANES]) -> Self;
    /// The little-endian bytes of all lanes.
    fn store_floats(self, to: &mut [u8; 4 * LANES]);
    /// Rounds to IEEE halves, to nearest, ties to even, as little-endian bytes.
    fn store_halves(self, to: &mut [u8; 2 * LANES]);
    /// `to[i]` becomes the lowest byte of lane `i`: of `MAGIC + n`, the integer `n` as `i8`. See [`MAGIC`].
    fn store_low_bytes(self, to: &mut [u8; LANES]);
    /// Lane `i` is the `i8` at byte `i`.
    fn load_signed_bytes(bytes: &[u8; LANES]) -> Self;

    /// `self * factor + addend`, rounded once.
    fn fma(self, factor: Self, addend: Self) -> Self;
    /// Sum.
    fn add(self, other: Self) -> Self;
    /// Difference.
    fn sub(self, other: Self) -> Self;
    /// Product.
    fn mul(self, other: Self) -> Self;
    /// Quotient.
    fn div(self, other: Self) -> Self;
    /// `self > other ? self : other`, so `other` if either is NaN.
    fn max(self, other: Self) -> Self;
    /// `self < other ? self : other`, so `other` if either is NaN.
    fn min(self, other: Self) -> Self;
    /// Lane by lane: `self < bound ? yes : no`.
    fn select_below(self, bound: Self, yes: Self, no: Self) -> Self;
    /// `2^n` for lanes that hold `MAGIC + n` with an integer `-127 < n < 128`; any value otherwise. See [`MAGIC`].
    fn power_of_two(self) -> Self;
    /// The sum of all lanes: lane `i` plus lane `i + 8`, then `+ 4`, `+ 2`, `+ 1`.
    fn sum(self) -> f32;

    /// The start value of a chain of [`Lanes::dot4`] whose factors have this sum.
    fn integers(factors: i32) -> Self::Integers;
    /// Adds to lane `i` the exact sum of `(bytes[4 * i + j] - 128) * factor[j]`, `j` in `0..4`, where the factors are the
    /// signed bytes of `quad`, lowest first. Bytes are 1 to 255, factors -127 to 127.
    fn dot4(sums: Self::Integers, bytes: &[u8; 4 * LANES], quad: i32) -> Self::Integers;
    /// Converts integers below `2^24` in magnitude.
    fn from_integers(values: Self::Integers) -> Self;

    /// Zeros.
    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }

    /// The values, then zeros. At most 16 values.
    #[inline(always)]
    fn load_part(values: &[f32]) -> Self {
        if let Some(all) = values.first_chunk() {
            return Self::load(all);
        }
        let mut padded = [0.0; LANES];
        padded[..values.len()].copy_from_slice(values);
        Self::load(&padded)
    }

    /// The first `to.len()` lanes, at most 16.
    #[inline(always)]
    fn store_part(self, to: &mut [f32]) {
        if let Some(all) = to.first_chunk_mut() {
            return self.store(all);
        }
        let mut padded = [0.0; LANES];
        self.store(&mut padded);
        let count = to.len();
        to.copy_from_slice(&padded[..count]);
    }

    /// The lanes as an array.
    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        let mut values = [0.0; LANES];
        self.store(&mut values);
        values
    }

    /// Lane 0.
    #[inline(always)]
    fn first(self) -> f32 {
        self.to_array()[0]
    }

    /// The largest lane, in the order of [`Lanes::sum`].
    #[inline(always)]
    fn largest(self) -> f32 {
        let mut values = self.to_array();
        for step in [8, 4, 2, 1] {
            for lane in 0..step {
                values[lane] = if values[lane] > values[lane + step] { values[lane] } else { values[lane + step] };
            }
        }
        values[0]
    }
}

/// Asks for the cache lines of a range that will be read later in the second-level cache; what lies outside the bytes is
/// left out.
#[inline(always)]
pub(crate) fn prefetch(bytes: &[u8], range: std::ops::Range<usize>) {
    #[cfg(target_arch = "x86_64")]
    if let Some(bytes) = bytes.get(range) {
        for line in bytes.chunks(64) {
            // SAFETY: a prefetch is a hint; it reads nothing that the program could see. SSE is part of x86-64.
            unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(line.as_ptr().cast()) };
        }
    }
    #[cfg(target_arch = "aarch64")]
    if let Some(bytes) = bytes.get(range) {
        for line in bytes.chunks(64) {
            // SAFETY: a prefetch is a hint; it reads nothing that the program could see. Every aarch64 processor has it.
            unsafe { <crate::simd::neon::Neon as crate::simd::Simd>::prefetch_near(line.as_ptr()) };
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = (bytes, range);
}

/// `1.5 * 2^23`: adding it to a number below `2^22` in magnitude rounds to an integer, ties to even, which then stands
/// in the low bits.
pub(crate) const MAGIC: f32 = 12_582_912.0;

/// Work that is generic over the instruction set.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;
    /// The work; implement it `#[inline(always)]`, and so whatever it calls with `L`.
    fn run<L: Lanes>(self) -> Self::Output;
}

/// Runs the kernel compiled for `isa`.
#[inline]
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa.kind() {
        // SAFETY: a value of `Isa` of this kind exists only if the processor has these features.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => unsafe { avx512::run(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 | Kind::AvxVnni => unsafe { avx2::run(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Kind::NeonDot | Kind::NeonI8mm => unsafe { neon::run(kernel) },
        _ => portable::run(kernel),
    }
}

/// `a * b + c` rounded once, on every processor.
#[inline(always)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, c) } else { software_fma(a, b, c) }
}

/// `a * b + c` rounded once, without hardware for it and without a branch, so that it vectorizes.
///
/// The product of two `f32` is exact in `f64`. The sum is rounded to odd (if it is inexact, the last bit becomes 1, which
/// is the trace of everything cut off); rounding that to `f32`, with 29 bits fewer, gives what rounding the exact value
/// would. (S. Boldo and G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to
/// odd", IEEE Transactions on Computers 57(4), 2008. The error term is D. Knuth's TwoSum.)
#[inline(always)]
pub(crate) fn software_fma(a: f32, b: f32, c: f32) -> f32 {
    let (product, addend) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + addend;
    let part = sum - product;
    let error = (product - (sum - part)) + (addend - part);
    // NaN, which infinite sums leave here, compares false: nothing to correct.
    let inexact = u64::from(error.abs() > 0.0);
    let opposite = ((error.to_bits() ^ sum.to_bits()) >> 63) & inexact;
    f64::from_bits((sum.to_bits() - opposite) | inexact) as f32
}

#[cfg(test)]
pub(crate) mod tests;
