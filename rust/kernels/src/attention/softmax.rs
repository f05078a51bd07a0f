//! Softmax of the scores of a chunk, and the joining of chunks.

use std::ops::Range;

use super::pages::PAGE_TOKENS;
use super::scores::ChunkScores;
use crate::math::{Kernel, LANES, Lanes, exp2, fma, tanh};

/// Adjustments of the scores of a row before the softmax.
#[derive(Clone, Copy, Default)]
pub(super) struct Adjusted<'a> {
    /// If present, scores become `cap * tanh(score)`, an exponent of 2.
    pub(super) cap: Option<f32>,
    /// Values to add, times log2(e), to the scores from the first of the chunk on; empty if there is no bias.
    pub(super) bias: &'a [f32],
    /// If present, its product with the distance of a position from `own` is subtracted from the scores.
    pub(super) slope: Option<f32>,
    /// The position of the query, counted from the first of the chunk.
    pub(super) own: f32,
    /// For each page of the chunk a bit for every position that the row sees; empty if it sees all.
    pub(super) selected: &'a [u64],
}

/// The numbers of the lanes.
const LANE_NUMBERS: [f32; LANES] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];

impl Adjusted<'_> {
    #[inline(always)]
    fn apply<L: Lanes>(self, set: L::Set, scores: &mut [[f32; LANES]], first: usize) {
        if let Some(cap) = self.cap {
            for part in scores.iter_mut() {
                tanh(L::load(set, part)).mul(L::splat(set, cap)).store(part);
            }
        }
        if !self.bias.is_empty() {
            let bias = self.bias.get(first * LANES..).unwrap_or(&[]).chunks(LANES);
            for (part, bias) in scores.iter_mut().zip(bias) {
                let factor = L::splat(set, std::f32::consts::LOG2_E);
                L::load_part(set, bias).fma(factor, L::load(set, part)).store(part);
            }
        }
        if let Some(slope) = self.slope {
            let (lanes, slope) = (L::load(set, &LANE_NUMBERS), L::splat(set, slope));
            for (number, part) in (first..).zip(scores.iter_mut()) {
                let ahead = lanes.add(L::splat(set, (number * LANES) as f32 - self.own));
                let nearness = ahead.min(L::zero(set).sub(ahead));
                nearness.fma(slope, L::load(set, part)).store(part);
            }
        }
    }
}

/// Turns the scores of a row into weights `2^(score - largest)`; returns the largest score and the sum of the weights.
/// Weights of invisible tokens are unspecified.
///
/// The sum has 16 parts, each in the order of its positions, joined by one fixed tree of additions.
pub(super) struct Weigh<'a> {
    pub(super) scores: &'a mut ChunkScores,
    pub(super) visible: Range<usize>,
    pub(super) adjusted: Adjusted<'a>,
}

impl Kernel for Weigh<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> (f32, f32) {
        let Self { scores, visible, adjusted } = self;
        if visible.is_empty() {
            return (f32::NEG_INFINITY, 0.0);
        }
        let scores = scores.as_flattened_mut();
        let (first, end) = (visible.start / LANES, visible.end.div_ceil(LANES));
        adjusted.apply::<L>(set, &mut scores.as_chunks_mut::<LANES>().0[first..end], first);
        scores[first * LANES..visible.start].fill(f32::NEG_INFINITY);
        scores[visible.end..end * LANES].fill(f32::NEG_INFINITY);
        let (parts, _) = scores.as_chunks_mut::<LANES>();
        let parts = &mut parts[first..end];
        if !adjusted.selected.is_empty() {
            return weigh_selected::<L>(set, parts, first, adjusted.selected);
        }
        // Two variables: an array would be kept in memory.
        let (mut even, mut odd) = (L::splat(set, f32::NEG_INFINITY), L::splat(set, f32::NEG_INFINITY));
        let (pairs, last) = parts.as_chunks::<2>();
        for [first, second] in pairs {
            even = even.max(L::load(set, first));
            odd = odd.max(L::load(set, second));
        }
        for part in last {
            even = even.max(L::load(set, part));
        }
        let largest = even.max(odd).largest();
        let shift = L::splat(set, largest);
        let mut sum = L::zero(set);
        for part in parts {
            let weights = exp2(L::load(set, part).sub(shift));
            weights.store(part);
            sum = sum.add(weights);
        }
        (largest, sum.sum())
    }
}

/// The same for vectors of scores from number `first` of the chunk on, of which only the selected ones count; the others get
/// weights of 0.
#[inline(always)]
fn weigh_selected<L: Lanes>(set: L::Set, parts: &mut [[f32; LANES]], first: usize, selected: &[u64]) -> (f32, f32) {
    const VECTORS: usize = PAGE_TOKENS / LANES;
    let bits = |number: usize| {
        let word = selected.get(number / VECTORS).copied().unwrap_or(0);
        (word >> (number % VECTORS * LANES)) as u16
    };
    let mut largest = L::splat(set, f32::NEG_INFINITY);
    for (number, part) in (first..).zip(parts.iter_mut()) {
        let seen = bits(number);
        if seen == 0 {
            continue;
        }
        if seen != u16::MAX {
            for (lane, score) in part.iter_mut().enumerate() {
                if seen >> lane & 1 == 0 {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
        largest = largest.max(L::load(set, part));
    }
    let largest = largest.largest();
    if largest == f32::NEG_INFINITY {
        // Nothing of this chunk is selected: no weights, rather than those of scores that are alike.
        parts.as_flattened_mut().fill(0.0);
        return (f32::NEG_INFINITY, 0.0);
    }
    let shift = L::splat(set, largest);
    let mut sum = L::zero(set);
    for (number, part) in (first..).zip(parts) {
        if bits(number) == 0 {
            part.fill(0.0);
            continue;
        }
        let weights = exp2(L::load(set, part).sub(shift));
        weights.store(part);
        sum = sum.add(weights);
    }
    (largest, sum.sum())
}

/// Adds the state of the next chunk to that of the chunks before it. A state has the largest score of each row, the sum
/// of weights of each row, and the weighted sum of values of each row, padded to whole vectors.
pub(super) struct Join<'a> {
    pub(super) state: &'a mut [f32],
    pub(super) next: &'a [f32],
    pub(super) rows: usize,
}

impl Kernel for Join<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { state, next, rows } = self;
        if rows == 0 {
            return;
        }
        let width = state.len() / rows - 2;
        let (largest, rest) = state.split_at_mut(rows);
        let (total, sums) = rest.split_at_mut(rows);
        let (next_largest, rest) = next.split_at(rows);
        let (next_total, next_sums) = rest.split_at(rows);
        for row in 0..rows {
            let sums = &mut sums[row * width..][..width];
            let next_sums = &next_sums[row * width..][..width];
            // A row that has seen a token has a total of at least 1, the weight of its largest score (or a NaN).
            if next_total[row] == 0.0 {
                continue;
            }
            if total[row] == 0.0 {
                sums.copy_from_slice(next_sums);
                largest[row] = next_largest[row];
                total[row] = next_total[row];
                continue;
            }
            let (before, after) = (largest[row], next_largest[row]);
            let both = if after > before { after } else { before };
            let (old, new) = (exp2(L::splat(set, before - both)), exp2(L::splat(set, after - both)));
            largest[row] = both;
            total[row] = fma(next_total[row], new.first(), total[row] * old.first());
            let (sums, _) = sums.as_chunks_mut::<LANES>();
            for (sum, next) in sums.iter_mut().zip(next_sums.as_chunks::<LANES>().0) {
                L::load(set, next).fma(new, L::load(set, sum).mul(old)).store(sum);
            }
        }
    }
}

/// Divides the sums of some rows, padded to whole vectors, by their totals. A row that has seen no token becomes 0.
pub(super) struct Divide<'a> {
    pub(super) sums: &'a [f32],
    pub(super) totals: &'a [f32],
    /// The largest score of each row.
    pub(super) largest: &'a [f32],
    /// A score without a value for each row; its weight is part of the total.
    pub(super) sinks: Option<&'a [f32]>,
    pub(super) output: &'a mut [f32],
}

impl Kernel for Divide<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { sums, totals, largest, sinks, output } = self;
        let size = output.len() / totals.len();
        let sums = sums.chunks_exact(size.next_multiple_of(LANES));
        for (row, (output, sums)) in output.chunks_exact_mut(size).zip(sums).enumerate() {
            let total = totals[row];
            let factor = match sinks {
                _ if total == 0.0 => 0.0,
                None => 1.0 / total,
                Some(sinks) => with_sink::<L>(set, largest[row], total, sinks[row] * std::f32::consts::LOG2_E),
            };
            let factor = L::splat(set, factor);
            for (part, sum) in output.chunks_mut(LANES).zip(sums.as_chunks::<LANES>().0) {
                L::load(set, sum).mul(factor).store_part(part);
            }
        }
    }
}

/// The factor of a row: the weight of its largest score, divided by the total plus the weight of the sink.
#[inline(always)]
fn with_sink<L: Lanes>(set: L::Set, largest: f32, total: f32, sink: f32) -> f32 {
    let both = if sink > largest { sink } else { largest };
    let own = exp2(L::splat(set, largest - both)).first();
    let other = exp2(L::splat(set, sink - both)).first();
    own / fma(total, own, other)
}
