//! Sine and cosine of `f64` values, built only from sums and products, so that every processor and platform returns the same
//! bits: the results of different C libraries differ in the last bit.

use super::double_double::{two_product, two_sum};

/// The largest magnitude of an argument: 2^50.
pub(crate) const LARGEST_ANGLE: f64 = 1_125_899_906_842_624.0;
/// `1.5 * 2^52`: adding it to a number below `2^51` in magnitude rounds that to an integer, which is then in the low bits.
const MAGIC: f64 = 6_755_399_441_055_744.0;
/// A quarter turn, as a sum of three numbers with 161 bits in total.
const QUARTER: [f64; 3] = [std::f64::consts::FRAC_PI_2, 6.123_233_995_736_766e-17, -1.497_384_904_859_169_8e-33];
/// Coefficients of `r^17` to `r^3` of `sin(r)`. For `|r| <= pi / 4` the remainder of the series is below 1e-19.
const SINE: [f64; 8] = [
    1.0 / 355_687_428_096_000.0,
    -1.0 / 1_307_674_368_000.0,
    1.0 / 6_227_020_800.0,
    -1.0 / 39_916_800.0,
    1.0 / 362_880.0,
    -1.0 / 5_040.0,
    1.0 / 120.0,
    -1.0 / 6.0,
];
/// Coefficients of `r^18` to `r^4` of `cos(r)`. For `|r| <= pi / 4` the remainder of the series is below 1e-20.
const COSINE: [f64; 8] = [
    -1.0 / 6_402_373_705_728_000.0,
    1.0 / 20_922_789_888_000.0,
    -1.0 / 87_178_291_200.0,
    1.0 / 479_001_600.0,
    -1.0 / 3_628_800.0,
    1.0 / 40_320.0,
    -1.0 / 720.0,
    1.0 / 24.0,
];

/// Sine and cosine of an angle in radians with an error below one unit in the last place, for `|x|` up to
/// [`LARGEST_ANGLE`].
///
/// Whole quarter turns are subtracted exactly: with `n` of them, the products of `n` and the parts of [`QUARTER`] are
/// represented by two numbers each, and so is the remainder (W. Cody and W. Waite, "Software Manual for the Elementary
/// Functions", 1980).
pub fn sine_and_cosine(x: f64) -> (f64, f64) {
    let shifted = x * std::f64::consts::FRAC_2_PI + MAGIC;
    let n = shifted - MAGIC;
    let (first, first_rest) = two_product(n, QUARTER[0]);
    let (second, second_rest) = two_product(n, QUARTER[1]);
    // Exact, because the two are nearly equal or `first` is zero.
    let (near, near_rest) = two_sum(x - first, -first_rest);
    let (sum, sum_rest) = two_sum(near, -second);
    let (r, rest) = two_sum(sum, sum_rest + near_rest - second_rest - n * QUARTER[2]);

    let square = r * r;
    let sine = polynomial(&SINE, square) * square * r;
    let sine = r + (sine + rest * (1.0 - 0.5 * square));
    let half = 0.5 * square;
    let rounded = 1.0 - half;
    let cosine = rounded + (((1.0 - rounded) - half) + (polynomial(&COSINE, square) * square * square - r * rest));
    // Without branches, so that it vectorizes: odd quarters swap the two, and the halves of a turn differ in sign.
    let quarter = shifted.to_bits();
    let (first, second) = if quarter & 1 == 1 { (cosine, sine) } else { (sine, cosine) };
    let negated = |value: f64, quarter: u64| f64::from_bits(value.to_bits() ^ (quarter & 2) << 62);
    (negated(first, quarter), negated(second, quarter.wrapping_add(1)))
}

fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().fold(0.0, |sum, coefficient| sum * x + coefficient)
}
