//! Elementary functions built from fused multiply-adds, so that every instruction set returns the same bits.

use super::lanes::{Lanes, MAGIC};

/// Coefficients of `r^2` to `r^6` of `exp(r)` for `|r| <= ln(2) / 2`: the minimax polynomial with relative error 4e-9,
/// from our own iteratively reweighted least-squares fit.
const EXP: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_717, 0.001_381_459_9];
/// ln(2) in two parts whose sum has 48 bits.
const LN_2: (f32, f32) = (std::f32::consts::LN_2, -1.904_654_2e-9);
/// Below this argument, `exp` is smaller than the smallest normal number.
const SMALLEST: f32 = -87.336_54;
/// Above this argument, `exp` would need the exponent 128.
const LARGEST: f32 = 88.0;

/// Coefficients of `r` to `r^6` of `2^r` for `|r| <= 1/2`: relative error 2e-8, fitted in the same way.
const EXP2: [f32; 6] =
    [std::f32::consts::LN_2, 0.240_226_48, 0.055_503_324, 0.009_618_437, 0.001_339_887_5, 0.000_153_533_62];

/// Coefficients of `r^4` to `r` of `(exp(r) - 1 - r) / r`.
const EXP_TAIL: [f32; 5] = [EXP[4], EXP[3], EXP[2], EXP[1], EXP[0]];
/// `2 sqrt(2 / pi)`, and 0.044715 of it.
const GELU_TANH: (f32, f32) = (1.595_769, 0.071_354_814);
/// Coefficients of `x^10` to 1 of `(Phi(x) - 1 / 2) / x` for `|x| <= 1`: relative error of `Phi` 3e-9, fitted in the same way.
const CENTRE: [f32; 6] = [-8.169_593_5e-6, 0.000_115_018_86, -0.001_188_02, 0.009_974_163, -0.066_490_54, 0.398_942_3];
/// Coefficients of `s^9` to 1 of `Phi(-x) exp(x^2 / 2) / s` with `s = 1 / (1 + 0.3 x)` for `0 <= x <= 13.5`: relative error
/// 4e-9, fitted in the same way.
const TAIL: [f32; 10] = [
    -0.020_595_493,
    0.112_277_89,
    -0.227_827_52,
    0.191_247_06,
    -0.078_955_5,
    0.095_893_055,
    0.078_485_675,
    0.110_213_704,
    0.119_574_584,
    0.119_686_544,
];

/// `2^x` for x up to 0, with an error below one unit in the last place; results that would be subnormal are 0, NaN stays
/// NaN. Used for the weights of a softmax: faster than [`exp`], since one subtraction reduces the range of x exactly.
#[inline(always)]
pub fn exp2<L: Lanes>(x: L) -> L {
    let set = x.set();
    let shifted = x.add(L::splat(set, MAGIC));
    let r = x.sub(shifted.sub(L::splat(set, MAGIC)));
    let mut sum = L::splat(set, EXP2[5]);
    for coefficient in [EXP2[4], EXP2[3], EXP2[2], EXP2[1], EXP2[0], 1.0] {
        sum = sum.fma(r, L::splat(set, coefficient));
    }
    x.select_below(L::splat(set, -126.0), L::zero(set), sum.mul(shifted.power_of_two()))
}

/// `exp(x)` with an error below one unit in the last place for x up to 88; results that would be subnormal are 0, larger x
/// count as 88, NaN stays NaN.
#[inline(always)]
pub fn exp<L: Lanes>(x: L) -> L {
    let set = x.set();
    // This order preserves NaN: `min` returns its argument unless the bound is smaller.
    let x = L::splat(set, LARGEST).min(x);
    let (r, shifted) = reduced(x);
    let sum = polynomial(r, [EXP[4], EXP[3], EXP[2], EXP[1], EXP[0], 1.0, 1.0]);
    x.select_below(L::splat(set, SMALLEST), L::zero(set), sum.mul(shifted.power_of_two()))
}

/// `exp(x + low)` for x up to 0 and a `low` that is smaller than the last place of x; otherwise like [`exp`].
#[inline(always)]
fn exp_of_sum<L: Lanes>(x: L, low: L) -> L {
    let (r, shifted) = reduced(x);
    let sum = polynomial(r.add(low), [EXP[4], EXP[3], EXP[2], EXP[1], EXP[0], 1.0, 1.0]);
    let set = x.set();
    x.select_below(L::splat(set, SMALLEST), L::zero(set), sum.mul(shifted.power_of_two()))
}

/// `r` and `MAGIC + n` with `x = r + n ln(2)`, `|r| <= ln(2) / 2` and an integer `n`.
#[inline(always)]
fn reduced<L: Lanes>(x: L) -> (L, L) {
    let set = x.set();
    let shifted = x.fma(L::splat(set, std::f32::consts::LOG2_E), L::splat(set, MAGIC));
    let n = shifted.sub(L::splat(set, MAGIC));
    let r = n.fma(L::splat(set, -LN_2.0), x);
    (n.fma(L::splat(set, -LN_2.1), r), shifted)
}

/// The polynomial with these coefficients, highest power first.
#[inline(always)]
fn polynomial<L: Lanes, const N: usize>(x: L, coefficients: [f32; N]) -> L {
    let set = x.set();
    let mut sum = L::splat(set, coefficients[0]);
    for coefficient in &coefficients[1..] {
        sum = sum.fma(x, L::splat(set, *coefficient));
    }
    sum
}

/// `x / (1 + exp(-x))`, computed through `exp(-|x|)` so that nothing overflows.
#[inline(always)]
pub fn silu<L: Lanes>(x: L) -> L {
    x.mul(sigmoid(x))
}

/// `1 / (1 + exp(-x))`, with an error below two units in the last place; 0 for x below -87.3.
#[inline(always)]
pub(crate) fn sigmoid<L: Lanes>(x: L) -> L {
    let set = x.set();
    let negative = L::zero(set).sub(x);
    let e = exp(x.min(negative));
    let share = x.select_below(L::zero(set), e, L::splat(set, 1.0));
    share.div(L::splat(set, 1.0).add(e))
}

/// `tanh(x)` with an error below three units in the last place, through `exp(2 x) - 1`, which loses no precision near 0.
#[inline(always)]
pub(crate) fn tanh<L: Lanes>(x: L) -> L {
    let set = x.set();
    // At 10 it is 1 in `f32`. This order preserves NaN.
    let x = L::splat(set, -10.0).max(L::splat(set, 10.0).min(x));
    let (r, shifted) = reduced(x.add(x));
    let tail = polynomial(r, EXP_TAIL).mul(r);
    let scale = shifted.power_of_two();
    let less_one = tail.fma(r, r).fma(scale, scale.sub(L::splat(set, 1.0)));
    less_one.div(less_one.add(L::splat(set, 2.0)))
}

/// `x / (1 + exp(-2 u))` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`: mathematically equal to `x (1 + tanh(u)) / 2`, but
/// without its cancellation. The error is two units in the last place near 0, and grows with `|u|` for negative x.
#[inline(always)]
pub(crate) fn gelu_tanh<L: Lanes>(x: L) -> L {
    let set = x.set();
    let slope = x.mul(x).fma(L::splat(set, GELU_TANH.1), L::splat(set, GELU_TANH.0));
    x.mul(sigmoid(x.mul(slope)))
}

/// `x Phi(x)` with the normal distribution function `Phi`, which is `(1 + erf(x / sqrt(2))) / 2`. Between -1 and 1 the error is
/// below three units in the last place, elsewhere below six, even where `Phi` is tiny: there it is computed as `exp(-x^2 / 2)`
/// times a polynomial of `1 / (1 + 0.3 |x|)`. Results that would be subnormal may be 0.
#[inline(always)]
pub(crate) fn gelu<L: Lanes>(x: L) -> L {
    let set = x.set();
    let (zero, one) = (L::zero(set), L::splat(set, 1.0));
    let size = x.max(zero.sub(x));
    let near = polynomial(x.mul(x), CENTRE).fma(x, L::splat(set, 0.5));
    let s = one.div(size.fma(L::splat(set, 0.3), one));
    let half = size.mul(L::splat(set, -0.5));
    let square = half.mul(size);
    let tail = exp_of_sum(square, half.fma(size, zero.sub(square))).mul(polynomial(s, TAIL).mul(s));
    let far = x.select_below(zero, tail, one.sub(tail));
    x.mul(size.select_below(one, near, far))
}
