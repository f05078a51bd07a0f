//! What an error of each element counts: from an importance matrix, or from the magnitudes of the weights themselves.

use super::lanes::{load_parts, magnitude};
use super::rows::Rows;
use crate::math::{Kernel, LANES, Lanes};

/// Weights of errors.
#[derive(Clone, Copy)]
pub(super) enum Weights<'a> {
    /// One number for each element.
    Given(&'a [f32]),
    /// 1 for every element.
    Equal,
    /// The magnitude of the element.
    Magnitudes,
    /// The magnitude plus the root mean square of the part, so that small values count as well.
    Spread,
    /// The square of the element.
    Squares,
}

impl Weights<'_> {
    /// The weights of the parts from `first` on, which are `x`.
    #[inline(always)]
    pub(super) fn of<L: Lanes, const SIZE: usize>(self, set: L::Set, first: usize, x: &[L; SIZE]) -> [L; SIZE] {
        match self {
            Weights::Given(all) => {
                let rest = &all[first * SIZE..];
                load_parts(set, &rest[..rest.len().min(LANES * SIZE)])
            }
            Weights::Equal => [L::splat(set, 1.0); SIZE],
            Weights::Magnitudes => {
                let mut weights = *x;
                for w in &mut weights {
                    *w = magnitude(*w);
                }
                weights
            }
            Weights::Spread => {
                let mut sum = L::zero(set);
                for x in x {
                    sum = sum.add(x.mul(*x));
                }
                let mut base = sum.to_array();
                for base in &mut base {
                    *base = (*base / SIZE as f32).sqrt();
                }
                let base = L::load(set, &base);
                let mut weights = *x;
                for w in &mut weights {
                    *w = base.add(magnitude(*w));
                }
                weights
            }
            Weights::Squares => {
                let mut weights = *x;
                for w in &mut weights {
                    *w = w.mul(*w);
                }
                weights
            }
        }
    }
}

/// How the importance of a column and the size of a weight combine: `importance · √(factor · mean square + x²)`, the mean over
/// `span` elements.
#[derive(Clone, Copy)]
pub(super) struct Blend {
    /// Elements over which squares are averaged.
    pub(super) span: usize,
    /// Multiplies the mean square.
    pub(super) factor: f32,
}

impl Blend {
    /// Weights of all elements of the rows; none without an importance matrix.
    #[inline(always)]
    pub(super) fn of<L: Lanes>(self, set: L::Set, rows: &Rows<'_>) -> Option<Vec<f32>> {
        let importance = rows.importance?;
        let mut weights = Vec::with_capacity(rows.values.len());
        for row in rows.values.chunks_exact(rows.columns) {
            for (values, importance) in row.chunks(self.span).zip(importance.chunks(self.span)) {
                let base = self.factor * mean_square::<L>(set, values);
                weights.extend(values.iter().zip(importance).map(|(x, importance)| importance * (base + x * x).sqrt()));
            }
        }
        Some(weights)
    }
}

/// Makes weights less unequal: to the power of 7/8, or 3/4 if `more`. The full weights would lower the weighted error a little
/// further, and raise the plain one.
pub(super) fn soften(weights: &mut [f32], more: bool) {
    for w in weights {
        let root = w.sqrt();
        let fourth = root.sqrt();
        *w = root * fourth * if more { 1.0 } else { fourth.sqrt() };
    }
}

/// Mean of the squares, summed in sixteen lanes.
#[inline(always)]
pub(super) fn mean_square<L: Lanes>(set: L::Set, values: &[f32]) -> f32 {
    let mut sums = L::zero(set);
    for values in values.chunks(LANES) {
        let x = L::load_part(set, values);
        sums = sums.add(x.mul(x));
    }
    sums.sum() / values.len() as f32
}

/// [`Blend::of`] as a kernel.
pub(super) struct BlendRows<'a>(pub(super) Blend, pub(super) &'a Rows<'a>);

impl Kernel for BlendRows<'_> {
    type Output = Option<Vec<f32>>;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Self::Output {
        self.0.of::<L>(set, self.1)
    }
}
