//! Elementary functions made of fused multiply-adds only, so that every instruction set returns the same bits.

use super::lanes::{Lanes, MAGIC};

/// Coefficients of `r^2` to `r^6` of `exp(r)` for `|r| <= ln(2) / 2`: the minimax polynomial with relative error 4e-9,
/// from our own iteratively reweighted least-squares fit.
const EXP: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_717, 0.001_381_459_9];
/// ln(2) in two parts whose sum has 48 bits.
const LN_2: (f32, f32) = (std::f32::consts::LN_2, -1.904_654_2e-9);
/// Below this `exp` is smaller than the smallest normal number.
const SMALLEST: f32 = -87.336_54;
/// Above this `exp` would need the exponent 128.
const LARGEST: f32 = 88.0;

/// Coefficients of `r` to `r^6` of `2^r` for `|r| <= 1/2`: relative error 2e-8, fitted in the same way.
const EXP2: [f32; 6] =
    [std::f32::consts::LN_2, 0.240_226_48, 0.055_503_324, 0.009_618_437, 0.001_339_887_5, 0.000_153_533_62];

/// `2^x` for x up to 0, with an error below one unit in the last place; results that would be subnormal are 0, NaN stays
/// NaN. The weights of a softmax: shorter than [`exp`], since the range of x is reduced exactly by one subtraction.
#[inline(always)]
pub(crate) fn exp2<L: Lanes>(x: L) -> L {
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
pub(crate) fn exp<L: Lanes>(x: L) -> L {
    let set = x.set();
    // This order keeps NaN: `min` returns its argument unless the bound is smaller.
    let x = L::splat(set, LARGEST).min(x);
    let shifted = x.fma(L::splat(set, std::f32::consts::LOG2_E), L::splat(set, MAGIC));
    let n = shifted.sub(L::splat(set, MAGIC));
    let r = n.fma(L::splat(set, -LN_2.0), x);
    let r = n.fma(L::splat(set, -LN_2.1), r);
    let mut sum = L::splat(set, EXP[4]);
    for coefficient in [EXP[3], EXP[2], EXP[1], EXP[0], 1.0, 1.0] {
        sum = sum.fma(r, L::splat(set, coefficient));
    }
    x.select_below(L::splat(set, SMALLEST), L::zero(set), sum.mul(shifted.power_of_two()))
}

/// `x / (1 + exp(-x))`, by `exp(-|x|)` so that nothing overflows.
#[inline(always)]
pub(crate) fn silu<L: Lanes>(x: L) -> L {
    let set = x.set();
    let negative = L::zero(set).sub(x);
    let e = exp(x.min(negative));
    let share = x.select_below(L::zero(set), e, L::splat(set, 1.0));
    x.mul(share.div(L::splat(set, 1.0).add(e)))
}
