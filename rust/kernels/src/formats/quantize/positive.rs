//! The fit of one scale to the scales (or minimums) of the parts of a block, which are not negative.

use super::lanes::{Rounding, load_parts};
use crate::math::{Kernel, LANES, Lanes};

/// A scale of every block, and an integer for each of its parts.
pub(super) struct Rounded {
    pub(super) scales: Vec<f32>,
    pub(super) quants: Vec<u8>,
}

/// Fits all blocks of `PARTS` parts: quants from 0 to `largest`.
pub(super) struct FitPositive<'a, const PARTS: usize> {
    pub(super) values: &'a [f32],
    pub(super) weights: &'a [f32],
    pub(super) largest: f32,
}

impl<const PARTS: usize> Kernel for FitPositive<'_, PARTS> {
    type Output = Rounded;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Rounded {
        let blocks = self.values.len() / PARTS;
        let mut out = Rounded { scales: Vec::with_capacity(blocks), quants: vec![0; blocks * PARTS] };
        for first in (0..blocks).step_by(LANES) {
            let end = (first + LANES).min(blocks);
            let range = first * PARTS..end * PARTS;
            let x = load_parts::<L, PARTS>(set, &self.values[range.clone()]);
            let weights = load_parts::<L, PARTS>(set, &self.weights[range]);
            let (scale, quants) = fit(set, &x, &weights, self.largest);
            out.scales.extend_from_slice(&scale.to_array()[..end - first]);
            for (part, quant) in quants.iter().enumerate() {
                for (block, quant) in (first..end).zip(quant.to_array()) {
                    out.quants[block * PARTS + part] = quant as u8;
                }
            }
        }
        out
    }
}

/// The best of nine roundings by the squared error of its own scale, then a better quant for one value after the other.
#[inline(always)]
fn fit<L: Lanes, const PARTS: usize>(
    set: L::Set,
    x: &[L; PARTS],
    weights: &[L; PARTS],
    largest: f32,
) -> (L, [L; PARTS]) {
    let zero = L::zero(set);
    let one = L::splat(set, 1.0);
    let mut most = zero;
    for x in x {
        most = x.max(most);
    }
    let rounding = Rounding::new(set, 0.0, largest);
    let (mut best, mut chosen) = (L::splat(set, f32::INFINITY), zero);
    for step in [0, -4, -3, -2, -1, 1, 2, 3, 4] {
        let inverse = L::splat(set, 0.1 * step as f32 + largest).div(most);
        let scale = one.div(inverse);
        let mut error = zero;
        for (x, w) in x.iter().zip(weights) {
            let difference = x.sub(scale.mul(rounding.of(inverse.mul(*x))));
            error = error.add(w.mul(difference.mul(difference)));
        }
        chosen = error.select_below(best, inverse, chosen);
        best = error.min(best);
    }
    let mut quants = *x;
    for l in &mut quants {
        *l = rounding.of(chosen.mul(*l));
    }
    let (mut sum_lx, mut sum_l2) = (zero, zero);
    for ((x, w), l) in x.iter().zip(weights).zip(&quants) {
        sum_lx = sum_lx.add(w.mul(*x).mul(*l));
        sum_l2 = sum_l2.add(w.mul(*l).mul(*l));
    }
    for _ in 0..5 {
        for ((x, w), l) in x.iter().zip(weights).zip(&mut quants) {
            let others_lx = sum_lx.sub(w.mul(*x).mul(*l));
            let others_l2 = sum_l2.sub(w.mul(*l).mul(*l));
            let better = rounding.of(x.mul(others_l2).div(others_lx));
            let new_lx = others_lx.add(w.mul(*x).mul(better));
            let new_l2 = others_l2.add(w.mul(better).mul(better));
            let gain = new_lx.mul(new_lx).mul(sum_l2);
            let gain = zero.select_below(others_lx, gain, zero);
            let gain = zero.select_below(others_l2, gain, zero);
            let bound = sum_lx.mul(sum_lx).mul(new_l2);
            *l = bound.select_below(gain, better, *l);
            let (old_lx, old_l2) = (sum_lx, sum_l2);
            sum_lx = bound.select_below(gain, new_lx, old_lx);
            sum_l2 = bound.select_below(gain, new_l2, old_l2);
        }
    }
    let nothing = L::splat(set, 1e-15);
    let scale = zero.select_below(sum_l2, sum_lx.div(sum_l2), zero);
    for l in &mut quants {
        *l = most.select_below(nothing, zero, *l);
    }
    (most.select_below(nothing, zero, scale), quants)
}
