//! The fused multiply-add, with the same bits on every processor.

/// `a * b + c` rounded once, on every processor.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, c) } else { software_fma(a, b, c) }
}

/// `a * b + c` rounded once, without hardware support and without a branch, so that it vectorizes.
///
/// The product of two `f32` is exact in `f64`. The sum is rounded to odd (if it is inexact, the last bit becomes 1, a sticky
/// bit for everything cut off); rounding that to `f32`, with 29 fewer bits, gives the same result as rounding the exact
/// value. (S. Boldo and G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to
/// odd", IEEE Transactions on Computers 57(4), 2008. The error term is D. Knuth's TwoSum.)
#[inline(always)]
pub fn software_fma(a: f32, b: f32, c: f32) -> f32 {
    let (product, addend) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + addend;
    let part = sum - product;
    let error = (product - (sum - part)) + (addend - part);
    // A NaN, which infinite sums produce here, compares false: there is nothing to correct.
    let inexact = u64::from(error.abs() > 0.0);
    let opposite = ((error.to_bits() ^ sum.to_bits()) >> 63) & inexact;
    f64::from_bits((sum.to_bits() - opposite) | inexact) as f32
}
