//! The best points of a grid for given scales, and the best scale of a part. Sixteen parts occupy the lanes.
//!
//! For a point with values `q`, the weighted error of `s · q` against `x` is `s² · Σ w q² - s · 2 Σ w x q` plus a constant. With
//! `a = Σ w q²` and `b = 2 Σ w x q`, the best point is the one with the largest `b - s · a`.

use super::grid::Grid;
use super::grid_tables::{AT_ONCE, Best, Score, Sums, Tabulate};
use super::lanes::{load_parts, magnitude};
use crate::math::{Kernel, LANES, Lanes};

/// How the values of a grid are used by a format.
#[derive(Clone, Copy)]
pub(super) struct Points<'a> {
    /// The grid.
    pub(super) grid: &'a Grid,
    /// The value of each digit; in each of two variants if the format has them.
    pub(super) values: &'a [[f32; 8]],
    /// Whether the variant is chosen for each group, rather than for the part.
    pub(super) free: bool,
    /// First trials of the scale: multiples of the largest magnitude of a part, or with variants of its root mean square.
    pub(super) trials: &'a [[f32; AT_ONCE]],
}

/// What was chosen for parts of `SIZE` values.
#[derive(Default)]
pub(super) struct Chosen {
    /// Index of the point of every group.
    pub(super) points: Vec<u16>,
    /// Variant of every group.
    pub(super) variants: Vec<u8>,
    /// `Σ w q²` of every part.
    pub(super) a: Vec<f32>,
    /// `2 Σ w x q` of every part.
    pub(super) b: Vec<f32>,
    /// The scales: as given, or as found.
    pub(super) scales: Vec<f32>,
}

/// Chooses points for all parts of `SIZE` values, with scales and variants that are given, or found as well.
pub(super) struct ChoosePoints<'a, const SIZE: usize> {
    pub(super) points: Points<'a>,
    pub(super) values: &'a [f32],
    pub(super) weights: &'a [f32],
    /// Scales of all parts, and variants of all groups.
    pub(super) known: Option<(&'a [f32], &'a [u8])>,
}

impl<const SIZE: usize> Kernel for ChoosePoints<'_, SIZE> {
    type Output = Chosen;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Chosen {
        let Points { grid, values, trials, .. } = self.points;
        let parts = self.values.len() / SIZE;
        let elements = 2 * grid.digits;
        let groups = SIZE / elements;
        let mut out =
            Chosen { points: vec![0; parts * groups], variants: vec![0; parts * groups], ..Chosen::default() };
        let mut sums = vec![Sums::new(); groups];
        for first in (0..parts).step_by(LANES) {
            let end = (first + LANES).min(parts);
            let range = first * SIZE..end * SIZE;
            let x = load_parts::<L, SIZE>(set, &self.values[range.clone()]);
            let w = load_parts::<L, SIZE>(set, &self.weights[range]);
            let mut wx = x;
            for (wx, w) in wx.iter_mut().zip(&w) {
                *wx = wx.mul(*w).add(wx.mul(*w));
            }
            // One lane vector for each group: 0 or 1.
            let mut variants = [L::zero(set); 8];
            let mut scale = L::zero(set);
            if let Some((scales, known)) = self.known {
                scale = L::load_part(set, &scales[first..end]);
                if values.len() == 2 {
                    for (group, variant) in variants[..groups].iter_mut().enumerate() {
                        let mut lanes = [0.0; LANES];
                        for (lane, part) in lanes.iter_mut().zip(first..end) {
                            *lane = f32::from(known[part * groups + group]);
                        }
                        *variant = L::load(set, &lanes);
                    }
                }
            } else if values.len() == 2 {
                scale = L::call(set, Relaxed { points: self.points, w: &w, wx: &wx, variants: &mut variants });
            }
            for (group, sums) in sums.iter_mut().enumerate() {
                let range = elements * group..elements * (group + 1);
                let (w, wx, variant) = (&w[range.clone()], &wx[range], variants[group]);
                L::call(set, Tabulate { grid, values, variant, w, wx, sums });
            }
            let mut search = Search { grid, sums: &sums, chosen: [[0; 8]; LANES], a: [0.0; LANES], b: [0.0; LANES] };
            if self.known.is_none() && values.len() == 1 {
                scale = search.best_trial(set, trials, largest(set, &x));
            }
            search.choose(set, scale);
            if self.known.is_none() {
                scale = search.refined(set, scale);
            }
            let count = end - first;
            for (lane, part) in (first..end).enumerate() {
                out.points[part * groups..][..groups].copy_from_slice(&search.chosen[lane][..groups]);
            }
            for (group, variant) in variants[..groups].iter().enumerate() {
                for (part, variant) in (first..end).zip(variant.to_array()) {
                    out.variants[part * groups + group] = variant as u8;
                }
            }
            out.a.extend_from_slice(&search.a[..count]);
            out.b.extend_from_slice(&search.b[..count]);
            out.scales.extend_from_slice(&scale.to_array()[..count]);
        }
        out
    }
}

/// The largest magnitude of every part.
#[inline(always)]
fn largest<L: Lanes, const SIZE: usize>(set: L::Set, x: &[L; SIZE]) -> L {
    let mut largest = L::zero(set);
    for x in x {
        largest = magnitude(*x).max(largest);
    }
    largest
}

/// The scale of parts and the variants of their groups as if every value could have any digit. The values of a grid with
/// variants are so few, and its points so many, that this is a good start.
struct Relaxed<'a, L> {
    points: Points<'a>,
    w: &'a [L],
    wx: &'a [L],
    variants: &'a mut [L; 8],
}

impl<L: Lanes> Kernel for Relaxed<'_, L> {
    type Output = L;

    #[inline(always)]
    fn run<M: Lanes>(self, _: M::Set) -> L {
        let set = self.w[0].set();
        let zero = L::zero(set);
        let half = L::splat(set, 0.5);
        let (mut squares, mut weights) = (zero, zero);
        for (w, wx) in self.w.iter().zip(self.wx) {
            // Σ (w x)² / w would overflow for nothing: the ratio of sums is enough.
            squares = squares.add(magnitude(*wx));
            weights = weights.add(*w);
        }
        // The mean magnitude of normally distributed values is 0.8 times their root mean square.
        let base = zero.select_below(weights, half.mul(squares).div(weights), zero).mul(L::splat(set, 1.25));
        let elements = 2 * self.points.grid.digits;
        let groups = self.w.len() / elements;
        let (mut best, mut scale) = (zero, zero);
        for trial in self.points.trials.iter().flatten() {
            let trial = base.mul(L::splat(set, *trial));
            let mut gains = [[zero; 8]; 2];
            for (values, gains) in self.points.values.iter().zip(&mut gains) {
                for (group, gain) in gains[..groups].iter_mut().enumerate() {
                    for at in elements * group..elements * (group + 1) {
                        let (w, wx) = (self.w[at].mul(trial), self.wx[at]);
                        let mut most = L::splat(set, f32::NEG_INFINITY);
                        for q in &values[..self.points.grid.base] {
                            let q = L::splat(set, *q);
                            most = most.max(q.mul(wx.sub(w.mul(q))));
                        }
                        *gain = gain.add(most);
                    }
                }
            }
            let [up, down] = gains;
            if !self.points.free {
                let (mut sum_up, mut sum_down) = (zero, zero);
                for (up, down) in up[..groups].iter().zip(&down) {
                    (sum_up, sum_down) = (sum_up.add(*up), sum_down.add(*down));
                }
                let difference = sum_down.sub(sum_up);
                let gain = sum_up.max(sum_down).mul(trial);
                let variant = zero.select_below(difference, L::splat(set, 1.0), zero);
                for kept in &mut self.variants[..groups] {
                    *kept = best.select_below(gain, variant, *kept);
                }
                scale = best.select_below(gain, trial, scale);
                best = gain.max(best);
                continue;
            }
            let mut gain = zero;
            for (up, down) in up[..groups].iter().zip(&down) {
                gain = gain.add(up.max(*down));
            }
            let gain = gain.mul(trial);
            for ((kept, up), down) in self.variants[..groups].iter_mut().zip(&up).zip(&down) {
                *kept = best.select_below(gain, up.select_below(*down, L::splat(set, 1.0), zero), *kept);
            }
            scale = best.select_below(gain, trial, scale);
            best = gain.max(best);
        }
        scale
    }
}

/// The search for sixteen parts.
struct Search<'a> {
    grid: &'a Grid,
    /// Tables of every group.
    sums: &'a [Sums],
    /// The chosen point of every group.
    chosen: [[u16; 8]; LANES],
    a: [f32; LANES],
    b: [f32; LANES],
}

impl Search<'_> {
    /// The trial with the smallest error.
    #[inline(always)]
    fn best_trial<L: Lanes>(&self, set: L::Set, trials: &[[f32; AT_ONCE]], base: L) -> L {
        let zero = L::zero(set);
        let (mut best, mut scale) = (zero, zero);
        for trials in trials {
            let mut scales = [base; AT_ONCE];
            for (scale, trial) in scales.iter_mut().zip(trials) {
                *scale = base.mul(L::splat(set, *trial));
            }
            let mut gains = [zero; AT_ONCE];
            for sums in self.sums {
                let found = L::call(set, Score { grid: self.grid, sums, scales: &scales });
                for (gain, found) in gains.iter_mut().zip(&found) {
                    *gain = gain.add(*found);
                }
            }
            for (trial, gain) in scales.iter().zip(gains) {
                let gain = gain.mul(*trial);
                scale = best.select_below(gain, *trial, scale);
                best = gain.max(best);
            }
        }
        scale
    }

    /// The best points for these scales.
    #[inline(always)]
    fn choose<L: Lanes>(&mut self, set: L::Set, scale: L) {
        (self.a, self.b) = ([0.0; LANES], [0.0; LANES]);
        for (group, sums) in self.sums.iter().enumerate() {
            let (first, place) = L::call(set, Best { grid: self.grid, sums, scale });
            for lane in 0..LANES {
                let (first, place) = (first[lane] as usize, place[lane] as usize);
                let second = usize::from(self.grid.seconds(first)[place]);
                self.a[lane] += sums.a[0][first][lane] + sums.a[1][second][lane];
                self.b[lane] += sums.b[0][first][lane] + sums.b[1][second][lane];
                self.chosen[lane][group] = self.grid.point(first, place);
            }
        }
    }

    /// The best scale for the chosen points; zero for a part of zeros.
    #[inline(always)]
    fn refined<L: Lanes>(&self, set: L::Set, scale: L) -> L {
        let zero = L::zero(set);
        let (a, b) = (L::load(set, &self.a), L::load(set, &self.b));
        let better = zero.select_below(a, L::splat(set, 0.5).mul(b).div(a), scale).max(zero);
        zero.select_below(scale, better, zero)
    }
}
