//! The softmax of one query, tile by tile.

use std::ops::Range;

use crate::math::{LANES, Lanes, exp, tanh};

/// What is known of the weights of a query: the largest score so far, and the sum of the exponents of all scores less it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weights {
    largest: f32,
    sum: f32,
}

impl Weights {
    /// Nothing but the sink, if there is one.
    pub(super) fn new(sink: Option<f32>) -> Self {
        sink.map_or(Self { largest: f32::NEG_INFINITY, sum: 0.0 }, |sink| Self { largest: sink, sum: 1.0 })
    }

    /// Turns the scores of a tile into weights relative to the largest score so far; those that are not seen become 0.
    /// Returns the factor of everything before.
    #[inline(always)]
    pub(super) fn take<L: Lanes>(&mut self, set: L::Set, scores: &mut [f32], seen: Range<usize>) -> f32 {
        let (start, end) = (seen.start, seen.end);
        if start == end {
            scores.fill(0.0);
            return if self.sum == 0.0 { 0.0 } else { 1.0 };
        }
        let mut largest = self.largest;
        for score in &scores[start..end] {
            largest = if *score > largest { *score } else { largest };
        }
        let factor = if self.sum == 0.0 { 0.0 } else { one::<L>(set, self.largest - largest) };
        let sum = exponents::<L>(set, scores, start..end, largest);
        self.sum = self.sum * factor + sum;
        self.largest = largest;
        factor
    }
}

/// Caps scores.
#[inline(always)]
pub(super) fn cap_scores<L: Lanes>(set: L::Set, scores: &mut [f32], cap: f32) {
    let cap = L::splat(set, cap);
    for scores in scores.chunks_mut(LANES) {
        tanh(L::load_part(set, scores).div(cap)).mul(cap).store_part(scores);
    }
}

/// Replaces the scores that are seen by `exp(score - shift)`, the others by 0, and returns the sum.
#[inline(always)]
pub(super) fn exponents<L: Lanes>(set: L::Set, scores: &mut [f32], seen: Range<usize>, shift: f32) -> f32 {
    let shift = L::splat(set, shift);
    for scores in scores.chunks_mut(LANES) {
        exp(L::load_part(set, scores).sub(shift)).store_part(scores);
    }
    scores[..seen.start].fill(0.0);
    scores[seen.end..].fill(0.0);
    let mut sums = L::zero(set);
    for scores in scores.chunks(LANES) {
        sums = sums.add(L::load_part(set, scores));
    }
    sums.sum()
}

#[inline(always)]
fn one<L: Lanes>(set: L::Set, x: f32) -> f32 {
    exp(L::splat(set, x)).first()
}

/// Divides an output by the sum of its weights; returns the logarithm of the sum of all exponents.
pub(super) fn finish_row(weights: Weights, output: &mut [f32]) -> f32 {
    for value in output {
        *value /= weights.sum;
    }
    (f64::from(weights.largest) + logarithm(weights.sum)) as f32
}

/// The natural logarithm of a positive number, with an error far below that of its rounding to f32: it is needed for every
/// query of every head, for which `math::ln`, whose last bit is right, takes too long.
pub fn logarithm(x: f32) -> f64 {
    const BIAS: i64 = 1023;
    if !(x.is_finite() && x > 0.0) {
        // Exact values, on every platform.
        return f64::from(x).ln();
    }
    let bits = f64::from(x).to_bits();
    // x = 2^exponent · fraction, with a fraction from 3/4 to 3/2, so that numbers near 1 lose no digits.
    let raised = bits + (1 << 51);
    let exponent = (raised >> 52).cast_signed() - BIAS;
    let fraction = f64::from_bits(bits.wrapping_sub(exponent.cast_unsigned() << 52));
    // ln(fraction) = 2 artanh(share), whose series has terms share^(2k + 1) / (2k + 1).
    let share = (fraction - 1.0) / (fraction + 1.0);
    let square = share * share;
    let mut series = 0.0;
    for term in (0..12).rev() {
        series = series * square + 1.0 / f64::from(2 * term + 1);
    }
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * share * series
}
