//! `exp` and `ln` of `f64` values, built only from sums and products, so that every processor returns the same bits: the
//! results of the C library and of NumPy vary in the last bit between systems, and so may a token chosen by them.

use super::dispatch::dispatch;
use super::lanes::{Kernel, Lanes};
use crate::cpu::Isa;

/// `1.5 * 2^52`: adding it to a number below `2^51` in magnitude rounds that to an integer, which is then in the low bits.
const MAGIC: f64 = 6_755_399_441_055_744.0;
/// ln(2) in two parts; the first has 32 significant bits, so that its product with an exponent is exact.
const LN_2: (f64, f64) = (f64::from_bits(0x3fe6_2e42_fee0_0000), 1.908_214_929_270_587_7e-10);
/// Coefficients of `r^13` to `r^0` of `exp(r)`: 1 / 13!, ... 1 / 0!. For `|r| <= ln(2) / 2` the remainder is below 5e-18.
const EXP: [f64; 14] = reciprocal_factorials();
/// Below and above these arguments, `exp` counts as zero and as infinity: at these bounds it is about 1e-307 and 1e307.
const RANGE: (f64, f64) = (-707.0, 709.0);
/// Coefficients of `s^22` to `s^2` of `artanh(s) / s`: 1 / 23, 1 / 21, ... 1 / 3. For `s^2 <= 0.0295` the remainder is below
/// 1e-19.
const ARTANH: [f64; 11] = [
    1.0 / 23.0,
    1.0 / 21.0,
    1.0 / 19.0,
    1.0 / 17.0,
    1.0 / 15.0,
    1.0 / 13.0,
    1.0 / 11.0,
    1.0 / 9.0,
    1.0 / 7.0,
    1.0 / 5.0,
    1.0 / 3.0,
];
/// The bits of sqrt(1/2).
const HALF_ROOT: u64 = 0x3fe6_a09e_667f_3bcd;
/// `2^54`, which makes subnormal numbers normal.
const LIFT: f64 = 18_014_398_509_481_984.0;

const fn reciprocal_factorials() -> [f64; 14] {
    let mut terms = [1.0; 14];
    let (mut k, mut factorial) = (1, 1.0);
    while k < 14 {
        factorial *= k as f64;
        terms[13 - k] = 1.0 / factorial;
        k += 1;
    }
    terms
}

/// `exp(x)` with an error below two units in the last place for x from -707 to 709; 0 below, infinity above, NaN stays NaN.
#[inline(always)]
fn exp_one(x: f64) -> f64 {
    let (least, most) = RANGE;
    let inside = if x > least { x } else { least };
    let inside = if inside < most { inside } else { most };
    let shifted = inside * std::f64::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = (inside - n * LN_2.0) - n * LN_2.1;
    let mut sum = EXP[0];
    let mut k = 1;
    while k < EXP.len() {
        sum = sum * r + EXP[k];
        k += 1;
    }
    // The low bits of `shifted` are n; with the bias they are the exponent of 2^n.
    let found = sum * f64::from_bits((shifted.to_bits() << 52).wrapping_add(0x3ff0_0000_0000_0000));
    let found = if x < least { 0.0 } else { found };
    let found = if x > most { f64::INFINITY } else { found };
    if x.is_nan() { x } else { found }
}

/// `ln(x)` with an error below two units in the last place; negative infinity for zeros, NaN for negative x.
///
/// `x = 2^k m` with m from sqrt(1/2) to sqrt(2), and `ln(m) = 2 artanh((m - 1) / (m + 1))`.
#[inline(always)]
pub(super) fn ln_one(x: f64) -> f64 {
    let subnormal = x < f64::MIN_POSITIVE;
    let lifted = if subnormal { x * LIFT } else { x };
    let above = lifted.to_bits().wrapping_sub(HALF_ROOT);
    // The exponent, plus 2048 so that it is positive, is converted to a float through MAGIC.
    let bits = (above >> 52) ^ 0x800;
    let k = f64::from_bits(MAGIC.to_bits() + bits) - MAGIC - 2048.0;
    let k = if subnormal { k - 54.0 } else { k };
    let m = f64::from_bits((above & 0x000f_ffff_ffff_ffff).wrapping_add(HALF_ROOT));
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let mut sum = ARTANH[0];
    let mut place = 1;
    while place < ARTANH.len() {
        sum = sum * z + ARTANH[place];
        place += 1;
    }
    let rest = 2.0 * s * z * sum;
    let found = k * LN_2.0 + (2.0 * s + (rest + k * LN_2.1));
    let found = if x > 0.0 { found } else { f64::NAN };
    let found = if x == 0.0 { f64::NEG_INFINITY } else { found };
    if x == f64::INFINITY { x } else { found }
}

struct Exp<'a>(&'a mut [f64]);

impl Kernel for Exp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _set: L::Set) {
        for x in self.0 {
            *x = exp_one(*x);
        }
    }
}

struct Ln<'a>(&'a mut [f64]);

impl Kernel for Ln<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _set: L::Set) {
        for x in self.0 {
            *x = ln_one(*x);
        }
    }
}

/// Replaces each value by its exponential: with an error below two units in the last place from -707 to 709, 0 below, infinity
/// above.
pub fn exp(isa: Isa, values: &mut [f64]) {
    dispatch(isa, Exp(values));
}

/// Replaces each value by its natural logarithm, with an error below two units in the last place.
pub fn ln(isa: Isa, values: &mut [f64]) {
    dispatch(isa, Ln(values));
}
