//! The fit of one scale to the scales (or minimums) of the parts of a block, which are not negative.

use super::improvement::{NOTHING, improve};
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

/// The best of nine roundings by the squared error of its own scale, then better quants.
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
    let scale = improve(set, x, weights, &mut quants, rounding);
    let nothing = L::splat(set, NOTHING);
    for l in &mut quants {
        *l = most.select_below(nothing, zero, *l);
    }
    (most.select_below(nothing, zero, scale), quants)
}
