//! The fit of a scale alone: `scale · q` with signed quants.

use super::improvement::{NOTHING, improve};
use super::lanes::{Rounding, extremes, load_parts, magnitude};
use super::weights::Weights;
use crate::math::{Kernel, LANES, Lanes};

/// A scale of every part, the sum of its weights, and the factor by which values were multiplied before rounding.
#[derive(Default)]
pub(super) struct Fits {
    pub(super) scales: Vec<f32>,
    pub(super) totals: Vec<f32>,
    pub(super) inverses: Vec<f32>,
}

/// What a quant may be, and how the scale is searched.
#[derive(Clone, Copy)]
pub(super) enum Search {
    /// Integers from `-largest` to `largest - 1`; the value of largest magnitude becomes `-largest ± 0.9`, in steps of a tenth.
    Integers { largest: f32 },
    /// The same with one rounding, after which every quant is improved in turn, five times.
    Descent { largest: f32 },
    /// Integers from -2 to 1; the value of largest magnitude becomes ±0.6 to ±2.9, in steps of a tenth.
    Quarter,
    /// The table of IQ4_NL; the value of largest magnitude becomes -127 ± 7.
    NonLinear,
}

/// Fits all parts of `SIZE` values.
pub(super) struct FitScales<'a, const SIZE: usize> {
    pub(super) values: &'a [f32],
    pub(super) weights: Weights<'a>,
    pub(super) search: Search,
}

impl<const SIZE: usize> Kernel for FitScales<'_, SIZE> {
    type Output = Fits;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Fits {
        let mut out = Fits::default();
        let parts = self.values.len() / SIZE;
        for first in (0..parts).step_by(LANES) {
            let end = (first + LANES).min(parts);
            let x = load_parts::<L, SIZE>(set, &self.values[first * SIZE..end * SIZE]);
            let weights = self.weights.of(set, first, &x);
            let (scale, inverse) = match self.search {
                Search::Integers { largest } => {
                    let rounding = Rounding::new(set, -largest, largest - 1.0);
                    // The plain scale first: where one value outweighs all others, many scales are equally good.
                    let trials = std::iter::once(0).chain(-9..=9).map(|step| -(largest + 0.1 * step as f32));
                    fit(set, &x, &weights, trials, |x| rounding.of(x))
                }
                Search::Quarter => {
                    let rounding = Rounding::new(set, -2.0, 1.0);
                    let trials = (0..48).map(|step| (0.6 + 0.1 * (step / 2) as f32) * [-1.0, 1.0][step % 2]);
                    fit(set, &x, &weights, trials, |x| rounding.of(x))
                }
                Search::Descent { largest } => (descend(set, &x, &weights, largest), L::zero(set)),
                Search::NonLinear => fit(set, &x, &weights, non_linear_trials(), |x| non_linear(set, x)),
            };
            let mut total = L::zero(set);
            for w in &weights {
                total = total.add(*w);
            }
            for (out, lanes) in [(&mut out.scales, scale), (&mut out.totals, total), (&mut out.inverses, inverse)] {
                out.extend_from_slice(&lanes.to_array()[..end - first]);
            }
        }
        out
    }
}

/// The best scale of sixteen parts for quants that `quant` chooses from `x · trial / extreme`.
#[inline(always)]
fn fit<L: Lanes, const SIZE: usize>(
    set: L::Set,
    x: &[L; SIZE],
    weights: &[L; SIZE],
    trials: impl Iterator<Item = f32>,
    quant: impl Fn(L) -> L,
) -> (L, L) {
    let zero = L::zero(set);
    let most = extremes(x);
    let (mut scale, mut best, mut chosen) = (zero, zero, zero);
    for trial in trials {
        let inverse = L::splat(set, trial).div(most);
        let (mut sum_lx, mut sum_l2) = (zero, zero);
        for (x, w) in x.iter().zip(weights) {
            let l = quant(inverse.mul(*x));
            sum_lx = sum_lx.add(w.mul(*x).mul(l));
            sum_l2 = sum_l2.add(w.mul(l).mul(l));
        }
        // A sum of zero or NaN is never above the best.
        let gain = zero.select_below(sum_l2, sum_lx.mul(sum_lx), zero);
        let bound = best.mul(sum_l2);
        let new = sum_lx.div(sum_l2);
        scale = bound.select_below(gain, new, scale);
        chosen = bound.select_below(gain, inverse, chosen);
        best = bound.select_below(gain, new.mul(sum_lx), best);
    }
    let (size, nothing) = (magnitude(most), L::splat(set, NOTHING));
    (size.select_below(nothing, zero, scale), size.select_below(nothing, zero, chosen))
}

/// One rounding, then better quants.
#[inline(always)]
fn descend<L: Lanes, const SIZE: usize>(set: L::Set, x: &[L; SIZE], weights: &[L; SIZE], largest: f32) -> L {
    let zero = L::zero(set);
    let most = extremes(x);
    let rounding = Rounding::new(set, -largest, largest - 1.0);
    let inverse = L::splat(set, -largest).div(most);
    let mut quants = *x;
    for l in &mut quants {
        *l = rounding.of(inverse.mul(*l));
    }
    let scale = improve(set, x, weights, &mut quants, rounding);
    magnitude(most).select_below(L::splat(set, NOTHING), zero, scale)
}

/// The table reaches further below zero than above: the value of largest magnitude becomes -127 ± 7, or its opposite.
fn non_linear_trials() -> impl Iterator<Item = f32> {
    (-7..=7).map(|step| step as f32 - 127.0).chain((0..8).map(|step| 106.0 + 3.0 * step as f32))
}

/// The values of IQ4_NL in order.
pub(super) const NON_LINEAR_VALUES: [f32; 16] =
    [-127., -104., -83., -65., -49., -35., -22., -10., 1., 13., 25., 38., 53., 69., 89., 113.];

/// The nearest value of the table; the lower one of two.
#[inline(always)]
pub(super) fn non_linear<L: Lanes>(set: L::Set, x: L) -> L {
    let mut value = L::splat(set, NON_LINEAR_VALUES[0]);
    for pair in NON_LINEAR_VALUES.windows(2) {
        let middle = L::splat(set, 0.5 * (pair[0] + pair[1]));
        value = middle.select_below(x, L::splat(set, pair[1]), value);
    }
    value
}
