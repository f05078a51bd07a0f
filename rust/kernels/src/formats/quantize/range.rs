//! The fit of a scale and a minimum: `scale · q - minimum` with `q` from 0 to `largest`.

use super::lanes::{Rounding, load_parts, magnitude};
use super::weights::Weights;
use crate::math::{Kernel, LANES, Lanes};

/// Parameters of the search: weighted least squares for several roundings, which come from several divisors of the range.
#[derive(Clone, Copy)]
pub(super) struct RangeSearch {
    /// Largest quant.
    pub(super) largest: f32,
    /// First divisor of the range, relative to `largest`.
    pub(super) start: f32,
    /// Distance of two divisors.
    pub(super) step: f32,
    /// Number of divisors after the first.
    pub(super) steps: usize,
    /// Whether absolute errors are summed, rather than squares.
    pub(super) absolute: bool,
}

/// A scale and a minimum of every part, and the sum of its weights.
#[derive(Default)]
pub(super) struct Ranges {
    pub(super) scales: Vec<f32>,
    pub(super) minimums: Vec<f32>,
    pub(super) totals: Vec<f32>,
}

/// Fits all parts of `SIZE` values.
pub(super) struct FitRanges<'a, const SIZE: usize> {
    pub(super) values: &'a [f32],
    pub(super) weights: Weights<'a>,
    pub(super) search: RangeSearch,
}

impl<const SIZE: usize> Kernel for FitRanges<'_, SIZE> {
    type Output = Ranges;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Ranges {
        let mut ranges = Ranges::default();
        let parts = self.values.len() / SIZE;
        for first in (0..parts).step_by(LANES) {
            let end = (first + LANES).min(parts);
            let x = load_parts::<L, SIZE>(set, &self.values[first * SIZE..end * SIZE]);
            let weights = self.weights.of(set, first, &x);
            let (scale, minimum, total) = fit(set, &x, &weights, &self.search);
            for (out, lanes) in
                [(&mut ranges.scales, scale), (&mut ranges.minimums, minimum), (&mut ranges.totals, total)]
            {
                out.extend_from_slice(&lanes.to_array()[..end - first]);
            }
        }
        ranges
    }
}

/// Scale, minimum and sum of weights of sixteen parts.
#[inline(always)]
fn fit<L: Lanes, const SIZE: usize>(
    set: L::Set,
    x: &[L; SIZE],
    weights: &[L; SIZE],
    search: &RangeSearch,
) -> (L, L, L) {
    let zero = L::zero(set);
    let (mut low, mut sum_w, mut sum_x) = (zero, zero, zero);
    for (x, w) in x.iter().zip(weights) {
        low = x.min(low);
        sum_w = sum_w.add(*w);
        sum_x = sum_x.add(w.mul(*x));
    }
    let mut top = low;
    for x in x {
        top = x.max(top);
    }
    let rounding = Rounding::new(set, 0.0, search.largest);
    let never = L::splat(set, f32::INFINITY);
    let mut quants = [zero; SIZE];
    // Rounds from the best minimum so far, so that later divisors start from a better one.
    let (mut scale, mut minimum, mut best) = (zero, low, never);
    round(x, &mut quants, rounding, L::splat(set, search.largest).div(top.sub(low)), low);
    let first = top.sub(low).div(L::splat(set, search.largest));
    let found = error(x, weights, &quants, first, low, search.absolute);
    (scale, best) = (found.select_below(best, first, scale), found.min(best));
    for step in 0..=search.steps {
        let divisor = search.start + search.step * step as f32 + search.largest;
        round(x, &mut quants, rounding, L::splat(set, divisor).div(top.sub(minimum)), minimum);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (zero, zero, zero);
        for ((x, w), q) in x.iter().zip(weights).zip(&quants) {
            let wq = w.mul(*q);
            sum_l = sum_l.add(wq);
            sum_l2 = sum_l2.add(wq.mul(*q));
            sum_xl = sum_xl.add(wq.mul(*x));
        }
        let determinant = sum_w.mul(sum_l2).sub(sum_l.mul(sum_l));
        let free_scale = sum_w.mul(sum_xl).sub(sum_x.mul(sum_l)).div(determinant);
        let free_minimum = sum_l2.mul(sum_x).sub(sum_l.mul(sum_xl)).div(determinant);
        let new_scale = zero.select_below(free_minimum, sum_xl.div(sum_l2), free_scale);
        let new_minimum = zero.select_below(free_minimum, zero, free_minimum);
        let found = error(x, weights, &quants, new_scale, new_minimum, search.absolute);
        let found = zero.select_below(determinant, found, never);
        scale = found.select_below(best, new_scale, scale);
        minimum = found.select_below(best, new_minimum, minimum);
        best = found.min(best);
    }
    // A part with a single value at or below zero has that value as its minimum.
    let scale = low.select_below(top, scale, zero);
    let minimum = low.select_below(top, minimum, low);
    (scale, zero.sub(minimum), sum_w)
}

/// Rounds `(x - low) · inverse`.
#[inline(always)]
fn round<L: Lanes, const SIZE: usize>(
    x: &[L; SIZE],
    quants: &mut [L; SIZE],
    rounding: Rounding<L>,
    inverse: L,
    low: L,
) {
    for (x, q) in x.iter().zip(quants) {
        *q = rounding.of(inverse.mul(x.sub(low)));
    }
}

/// The weighted error of `scale · q + low`.
#[inline(always)]
fn error<L: Lanes, const SIZE: usize>(
    x: &[L; SIZE],
    weights: &[L; SIZE],
    quants: &[L; SIZE],
    scale: L,
    low: L,
    absolute: bool,
) -> L {
    let mut sum = L::zero(scale.set());
    for ((x, w), q) in x.iter().zip(weights).zip(quants) {
        let difference = scale.mul(*q).add(low).sub(*x);
        let size = if absolute { magnitude(difference) } else { difference.mul(difference) };
        sum = sum.add(w.mul(size));
    }
    sum
}
