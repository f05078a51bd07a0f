//! The grids of the IQ formats as pairs of halves, so that the best of all points is found without looking at most of them.
//!
//! The error of a point is a sum over its elements, hence of one part that depends on its first half and one that depends on
//! its second. A first half occurs with few second halves. For a scale, the best second half of each first half is the largest
//! of a short list of precomputed numbers.

use std::sync::LazyLock;

use crate::formats::grids::{self, entry};

/// Number of codes of half a point: 81 for four digits below 3, 64 for two below 8.
pub(super) const HALVES: usize = 81;

/// A grid.
pub(super) struct Grid {
    /// Digits in half a point.
    pub(super) digits: usize,
    /// Values of a digit.
    pub(super) base: usize,
    /// Where the second halves of each first half begin in `seconds`.
    starts: [u16; HALVES + 1],
    /// Codes of second halves.
    seconds: Vec<u8>,
    /// Index of the point in the format's own order.
    points: Vec<u16>,
}

impl Grid {
    /// Builds a grid of `count` points from entry `first` on.
    fn new(first: usize, count: usize, digits: usize, base: usize) -> Self {
        let bits = if base == 3 { 2 } else { 4 };
        let code = |entry: u16, half: usize| {
            let digit = |at: usize| usize::from(entry >> (bits * (half * digits + at))) & ((1 << bits) - 1);
            (0..digits).fold(0, |code, at| code * base + digit(at))
        };
        let mut found: Vec<(usize, usize, u16)> = (0..count)
            .map(|index| {
                let point = entry(first, index);
                (code(point, 0), code(point, 1), index as u16)
            })
            .collect();
        found.sort_unstable();
        let mut starts = [0; HALVES + 1];
        for (code, start) in starts.iter_mut().enumerate() {
            *start = found.partition_point(|point| point.0 < code) as u16;
        }
        let seconds = found.iter().map(|point| point.1 as u8).collect();
        Self { digits, base, starts, seconds, points: found.iter().map(|point| point.2).collect() }
    }

    /// Number of codes of half a point.
    pub(super) fn halves(&self) -> usize {
        self.base.pow(self.digits as u32)
    }

    /// The second halves that occur with a first half.
    #[inline(always)]
    pub(super) fn seconds(&self, first: usize) -> &[u8] {
        &self.seconds[usize::from(self.starts[first])..usize::from(self.starts[first + 1])]
    }

    /// Index of a point, from the code of its first half and the place of its second half among those that occur with it.
    #[inline(always)]
    pub(super) fn point(&self, first: usize, place: usize) -> u16 {
        self.points[usize::from(self.starts[first]) + place]
    }
}

pub(super) static IQ2_XXS: LazyLock<Grid> = LazyLock::new(|| Grid::new(grids::IQ2_XXS, 256, 4, 3));
pub(super) static IQ2_XS: LazyLock<Grid> = LazyLock::new(|| Grid::new(grids::IQ2_XS, 512, 4, 3));
pub(super) static IQ2_S: LazyLock<Grid> = LazyLock::new(|| Grid::new(grids::IQ2_S, 1024, 4, 3));
pub(super) static IQ3_XXS: LazyLock<Grid> = LazyLock::new(|| Grid::new(grids::IQ3_XXS, 256, 2, 8));
pub(super) static IQ3_S: LazyLock<Grid> = LazyLock::new(|| Grid::new(grids::IQ3_S, 512, 2, 8));
pub(super) static IQ1: LazyLock<Grid> = LazyLock::new(|| Grid::new(grids::IQ1, 2048, 4, 3));
