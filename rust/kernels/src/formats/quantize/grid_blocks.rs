//! What the IQ formats share: signs, the scale of a block from the scales of its parts, and points chosen for the rounded
//! scales.

use half::f16;

use super::grid_search::{ChoosePoints, Points};
use super::rows::Rows;
use super::weights::{Blend, BlendRows, soften};
use crate::cpu::Isa;
use crate::math::dispatch;

/// Which signs a format can store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Signs {
    /// None: the grid has negative values.
    None,
    /// Those of all values.
    All,
    /// Seven of eight: the number of minus signs is even.
    Even,
}

/// A format with a grid.
pub(super) struct GridFormat<'a> {
    pub(super) points: Points<'a>,
    pub(super) signs: Signs,
    /// Largest integer of a scale; the scale is an odd multiple of the block's.
    pub(super) most: u8,
    /// How importance and magnitude combine.
    pub(super) factor: f32,
}

/// What is written for the rows.
pub(super) struct GridBlocks {
    /// f16 scale of every block of 256.
    pub(super) d: Vec<f16>,
    /// Integer scale of every part: it stands for an odd number, twice the integer plus 1.
    pub(super) scales: Vec<u8>,
    /// Point of every group.
    pub(super) points: Vec<u16>,
    /// Variant of every group.
    pub(super) variants: Vec<u8>,
    /// Minus signs of every 8 values.
    pub(super) signs: Vec<u8>,
}

impl GridFormat<'_> {
    /// Quantizes rows in parts of `SIZE` values.
    pub(super) fn fit<const SIZE: usize>(&self, isa: Isa, rows: &Rows<'_>) -> GridBlocks {
        let weights = self.weights(isa, rows);
        let mut values = rows.values.to_vec();
        let signs = self.take_signs(&mut values, &weights);
        let points = self.points;
        let choose = |known: Option<(&[f32], &[u8])>| {
            dispatch(isa, ChoosePoints::<SIZE> { points, values: &values, weights: &weights, known })
        };
        let first = choose(None);
        let variants = first.variants;
        let parts = 256 / SIZE;
        let mut scales = vec![0_u8; first.scales.len()];
        let mut d: Vec<f32> = Vec::with_capacity(scales.len() / parts);
        for (block, scales) in scales.chunks_exact_mut(parts).enumerate() {
            let at = block * parts..(block + 1) * parts;
            d.push(self.round(&first.scales[at.clone()], &first.a[at], scales));
        }
        let products = |d: &[f32], scales: &[u8]| -> Vec<f32> {
            let blocks = d.iter().zip(scales.chunks_exact(parts));
            blocks.flat_map(|(d, scales)| scales.iter().map(move |scale| d * odd(*scale))).collect()
        };
        // The scale of a block that is best for the points which the rounded scales of its parts choose.
        let second = choose(Some((&products(&d, &scales), &variants)));
        for (block, d) in d.iter_mut().enumerate() {
            let (mut sum_a, mut sum_b) = (0.0, 0.0);
            for part in block * parts..(block + 1) * parts {
                let scale = odd(scales[part]);
                sum_a += scale * scale * second.a[part];
                sum_b += scale * second.b[part];
            }
            if sum_a > 0.0 && sum_b > 0.0 {
                *d = 0.5 * sum_b / sum_a;
            }
        }
        let halves: Vec<f16> = d.iter().map(|d| f16::from_f32(*d)).collect();
        let rounded: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
        let last = choose(Some((&products(&rounded, &scales), &variants)));
        GridBlocks { d: halves, scales, points: last.points, variants, signs }
    }

    /// Weights of errors: those that an importance matrix gives, softened.
    fn weights(&self, isa: Isa, rows: &Rows<'_>) -> Vec<f32> {
        let ones = vec![1.0; rows.columns];
        let importance = rows.importance.unwrap_or(&ones);
        let rows = Rows { importance: Some(importance), ..*rows };
        let mut weights = dispatch(isa, BlendRows(Blend { span: 256, factor: self.factor }, &rows)).unwrap_or_default();
        soften(&mut weights, true);
        weights
    }

    /// Replaces values by magnitudes and returns their minus signs. Where the number of those must be even and is not, the value
    /// whose sign matters least gets the wrong one, and a negative magnitude.
    fn take_signs(&self, values: &mut [f32], weights: &[f32]) -> Vec<u8> {
        if self.signs == Signs::None {
            return Vec::new();
        }
        let groups = values.as_chunks_mut::<8>().0.iter_mut().zip(weights.as_chunks::<8>().0);
        groups
            .map(|(values, weights)| {
                let mut signs = 0_u8;
                for (at, value) in values.iter_mut().enumerate() {
                    signs |= u8::from(*value < 0.0) << at;
                    *value = value.abs();
                }
                if self.signs == Signs::Even && !signs.count_ones().is_multiple_of(2) {
                    let cost = |at: usize| weights[at] * values[at] * values[at];
                    let least = (1..8).fold(0, |least, at| if cost(at) < cost(least) { at } else { least });
                    values[least] = -values[least];
                    signs ^= 1 << least;
                }
                signs
            })
            .collect()
    }

    /// Rounds the scales of the parts of a block, and returns the block's scale: the best of several, by the error that rounding
    /// adds to the scales, which counts as much as the squares of the points.
    fn round(&self, wanted: &[f32], weights: &[f32], scales: &mut [u8]) -> f32 {
        let largest = wanted.iter().copied().fold(0.0, f32::max);
        if largest <= 0.0 {
            return 0.0;
        }
        let most = f32::from(self.most);
        let integer = |d: f32, scale: f32| (0.5 * (scale / d - 1.0)).round_ties_even().clamp(0.0, most);
        let (mut best, mut best_error) = (0.0, f32::INFINITY);
        for trial in -2..=9 {
            let d = largest / (2.0 * most + 1.0 + 0.25 * trial as f32 * (most / 15.0).max(0.4));
            let mut error = 0.0;
            for (scale, weight) in wanted.iter().zip(weights) {
                let difference = d * (2.0 * integer(d, *scale) + 1.0) - scale;
                error += weight * difference * difference;
            }
            if error < best_error {
                (best, best_error) = (d, error);
            }
        }
        if best == 0.0 {
            best = largest / (2.0 * most + 1.0);
        }
        for (out, scale) in scales.iter_mut().zip(wanted) {
            *out = integer(best, *scale) as u8;
        }
        best
    }
}

/// The number that an integer scale stands for.
fn odd(scale: u8) -> f32 {
    2.0 * f32::from(scale) + 1.0
}
