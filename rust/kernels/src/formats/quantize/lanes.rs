//! Parts of rows in lanes: lane `i` of vector `j` is element `j` of part `i`, so that sixteen parts are fitted at once, each by
//! the sums that it would have alone.

use crate::math::{Kernel, LANES, Lanes, MAGIC};

/// Loads at most sixteen parts of `SIZE` values, padded with zeros.
#[inline(always)]
pub(super) fn load_parts<L: Lanes, const SIZE: usize>(set: L::Set, values: &[f32]) -> [L; SIZE] {
    let mut columns = [L::zero(set); SIZE];
    L::call(set, LoadParts { values, columns: &mut columns });
    columns
}

/// [`load_parts`] as a function of its own.
struct LoadParts<'a, L, const SIZE: usize> {
    values: &'a [f32],
    columns: &'a mut [L; SIZE],
}

impl<L: Lanes, const SIZE: usize> Kernel for LoadParts<'_, L, SIZE> {
    type Output = ();

    #[inline(always)]
    fn run<M: Lanes>(self, _: M::Set) {
        let Self { values, columns } = self;
        let set = columns[0].set();
        if SIZE.is_multiple_of(LANES) {
            for first in (0..SIZE).step_by(LANES) {
                let mut rows = [L::zero(set); LANES];
                for (row, part) in rows.iter_mut().zip(values.chunks_exact(SIZE)) {
                    *row = L::load_part(set, &part[first..first + LANES]);
                }
                columns[first..first + LANES].copy_from_slice(&L::transpose(rows));
            }
        } else {
            for (element, column) in columns.iter_mut().enumerate() {
                let mut lanes = [0.0; LANES];
                for (lane, part) in lanes.iter_mut().zip(values.chunks_exact(SIZE)) {
                    *lane = part[element];
                }
                *column = L::load(set, &lanes);
            }
        }
    }
}

/// Numbers with which values are rounded to integers within limits.
#[derive(Clone, Copy)]
pub(super) struct Rounding<L> {
    low: L,
    high: L,
    magic: L,
}

impl<L: Lanes> Rounding<L> {
    /// Integers from `low` to `high`.
    #[inline(always)]
    pub(super) fn new(set: L::Set, low: f32, high: f32) -> Self {
        Self { low: L::splat(set, low), high: L::splat(set, high), magic: L::splat(set, MAGIC) }
    }

    /// The nearest integer, ties to even; a NaN becomes the lower limit.
    #[inline(always)]
    pub(super) fn of(&self, x: L) -> L {
        self.with_magic(x).sub(self.magic)
    }

    /// The same plus [`MAGIC`], so that the integer is in the low bits.
    #[inline(always)]
    pub(super) fn with_magic(&self, x: L) -> L {
        x.max(self.low).min(self.high).add(self.magic)
    }
}

/// Magnitude.
#[inline(always)]
pub(super) fn magnitude<L: Lanes>(x: L) -> L {
    x.max(L::zero(x.set()).sub(x))
}

/// The element of largest magnitude of every part, with its sign; the first one of several.
#[inline(always)]
pub(super) fn extremes<L: Lanes>(x: &[L]) -> L {
    let zero = L::zero(x[0].set());
    let (mut largest, mut found) = (zero, zero);
    for x in x {
        let size = magnitude(*x);
        found = largest.select_below(size, *x, found);
        largest = size.max(largest);
    }
    found
}
