//! Better quants for a scale that follows them.

use super::lanes::{Rounding, magnitude};
use crate::math::Lanes;

/// Parts whose largest magnitude is below this are zero.
pub(super) const NOTHING: f32 = 1e-15;

/// Replaces the quants of one value after the other by the best one for the scale of all others, if that lowers the squared
/// error with the scale that is then the best; five times. Returns that scale.
#[inline(always)]
pub(super) fn improve<L: Lanes, const SIZE: usize>(
    set: L::Set,
    x: &[L; SIZE],
    weights: &[L; SIZE],
    quants: &mut [L; SIZE],
    rounding: Rounding<L>,
) -> L {
    let zero = L::zero(set);
    let (mut sum_lx, mut sum_l2) = (zero, zero);
    for ((x, w), l) in x.iter().zip(weights).zip(&*quants) {
        sum_lx = sum_lx.add(w.mul(*x).mul(*l));
        sum_l2 = sum_l2.add(w.mul(*l).mul(*l));
    }
    for _ in 0..5 {
        for ((x, w), l) in x.iter().zip(weights).zip(&mut *quants) {
            let others_lx = sum_lx.sub(w.mul(*x).mul(*l));
            let others_l2 = sum_l2.sub(w.mul(*l).mul(*l));
            let better = rounding.of(x.mul(others_l2).div(others_lx));
            let new_lx = others_lx.add(w.mul(*x).mul(better));
            let new_l2 = others_l2.add(w.mul(better).mul(better));
            let gain = new_lx.mul(new_lx).mul(sum_l2);
            let gain = zero.select_below(others_lx, gain, zero);
            let gain = zero.select_below(others_l2, gain, zero);
            let gain = zero.select_below(magnitude(better.sub(*l)), gain, zero);
            let bound = sum_lx.mul(sum_lx).mul(new_l2);
            *l = bound.select_below(gain, better, *l);
            let (old_lx, old_l2) = (sum_lx, sum_l2);
            sum_lx = bound.select_below(gain, new_lx, old_lx);
            sum_l2 = bound.select_below(gain, new_l2, old_l2);
        }
    }
    zero.select_below(sum_l2, sum_lx.div(sum_l2), zero)
}
