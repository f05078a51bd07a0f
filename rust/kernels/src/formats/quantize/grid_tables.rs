//! Tables of what half a point adds to the sums that tell its error, and the best points by them: see `grid_search`.

use super::grid::{Grid, HALVES};
use crate::math::{Kernel, LANES, Lanes};

/// Scales that are tried at once.
pub(super) const AT_ONCE: usize = 4;

/// One number of sixteen parts for each code of half a point.
type Table = [[f32; LANES]; HALVES];

/// `a` and `b` of both halves of a group.
#[derive(Clone)]
pub(super) struct Sums {
    pub(super) a: [Table; 2],
    pub(super) b: [Table; 2],
}

impl Sums {
    /// Zeros.
    pub(super) fn new() -> Self {
        let table = [[[0.0; LANES]; HALVES]; 2];
        Self { a: table, b: table }
    }
}

/// Fills the tables of a group.
pub(super) struct Tabulate<'a, L> {
    pub(super) grid: &'a Grid,
    pub(super) values: &'a [[f32; 8]],
    pub(super) variant: L,
    pub(super) w: &'a [L],
    pub(super) wx: &'a [L],
    pub(super) sums: &'a mut Sums,
}

impl<L: Lanes> Kernel for Tabulate<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<M: Lanes>(self, _: M::Set) {
        let set = self.variant.set();
        let base = self.grid.base;
        let half = L::splat(set, 0.5);
        let mut digits = [half; 8];
        for (digit, q) in digits[..base].iter_mut().enumerate() {
            let last = &self.values[self.values.len() - 1];
            *q = half.select_below(self.variant, L::splat(set, last[digit]), L::splat(set, self.values[0][digit]));
        }
        for side in 0..2 {
            let (a, b) = (&mut self.sums.a[side], &mut self.sums.b[side]);
            let mut filled = 1;
            L::zero(set).store(&mut a[0]);
            L::zero(set).store(&mut b[0]);
            for digit in 0..self.grid.digits {
                let at = side * self.grid.digits + digit;
                let (mut of_a, mut of_b) = (digits, digits);
                for (of_a, of_b) in of_a[..base].iter_mut().zip(&mut of_b) {
                    *of_a = self.w[at].mul(*of_a).mul(*of_a);
                    *of_b = self.wx[at].mul(*of_b);
                }
                // From the last code to the first, so that no sum is overwritten before it is used.
                for code in (0..filled).rev() {
                    let (old_a, old_b) = (L::load(set, &a[code]), L::load(set, &b[code]));
                    for value in (0..base).rev() {
                        old_a.add(of_a[value]).store(&mut a[code * base + value]);
                        old_b.add(of_b[value]).store(&mut b[code * base + value]);
                    }
                }
                filled *= base;
            }
        }
    }
}

/// `b - scale · a` of half a point for each of the scales.
#[inline(always)]
fn scores<L: Lanes, const N: usize>(sums: &Sums, side: usize, code: usize, scales: &[L; N]) -> [L; N] {
    let set = scales[0].set();
    let (a, b) = (L::load(set, &sums.a[side][code]), L::load(set, &sums.b[side][code]));
    let mut scores = *scales;
    for score in &mut scores {
        *score = b.sub(score.mul(a));
    }
    scores
}

/// The largest `b - scale · a` of all points, for several scales.
pub(super) struct Score<'a, L> {
    pub(super) grid: &'a Grid,
    pub(super) sums: &'a Sums,
    pub(super) scales: &'a [L; AT_ONCE],
}

impl<L: Lanes> Kernel for Score<'_, L> {
    type Output = [L; AT_ONCE];

    #[inline(always)]
    fn run<M: Lanes>(self, _: M::Set) -> [L; AT_ONCE] {
        let set = self.scales[0].set();
        let lowest = L::splat(set, f32::NEG_INFINITY);
        let mut seconds = [[lowest; AT_ONCE]; HALVES];
        for (code, second) in seconds.iter_mut().enumerate().take(self.grid.halves()) {
            *second = scores(self.sums, 1, code, self.scales);
        }
        let mut best = [lowest; AT_ONCE];
        for first in 0..self.grid.halves() {
            let places = self.grid.seconds(first);
            if places.is_empty() {
                continue;
            }
            let mut found = [lowest; AT_ONCE];
            for second in places {
                let second = &seconds[usize::from(*second)];
                for (found, second) in found.iter_mut().zip(second) {
                    *found = found.max(*second);
                }
            }
            let first = scores(self.sums, 0, first, self.scales);
            for ((best, found), first) in best.iter_mut().zip(found).zip(first) {
                *best = best.max(found.add(first));
            }
        }
        best
    }
}

/// The point with the largest `b - scale · a`: the code of its first half and the place of the second.
pub(super) struct Best<'a, L> {
    pub(super) grid: &'a Grid,
    pub(super) sums: &'a Sums,
    pub(super) scale: L,
}

impl<L: Lanes> Kernel for Best<'_, L> {
    type Output = ([f32; LANES], [f32; LANES]);

    #[inline(always)]
    fn run<M: Lanes>(self, _: M::Set) -> Self::Output {
        let set = self.scale.set();
        let lowest = L::splat(set, f32::NEG_INFINITY);
        let mut seconds = [lowest; HALVES];
        for (code, second) in seconds.iter_mut().enumerate().take(self.grid.halves()) {
            *second = scores(self.sums, 1, code, &[self.scale])[0];
        }
        let (mut best, mut best_first, mut best_place) = (lowest, L::zero(set), L::zero(set));
        for first in 0..self.grid.halves() {
            let (mut found, mut found_place) = (lowest, L::zero(set));
            for (place, second) in self.grid.seconds(first).iter().enumerate() {
                let second = seconds[usize::from(*second)];
                found_place = found.select_below(second, L::splat(set, place as f32), found_place);
                found = found.max(second);
            }
            let found = found.add(scores(self.sums, 0, first, &[self.scale])[0]);
            best_first = best.select_below(found, L::splat(set, first as f32), best_first);
            best_place = best.select_below(found, found_place, best_place);
            best = best.max(found);
        }
        (best_first.to_array(), best_place.to_array())
    }
}
