//! The last step of all searches: quants of all values with the rounded scales of their parts.

use super::lanes::Rounding;
use super::symmetric::{NON_LINEAR_VALUES, non_linear};
use crate::math::{Kernel, LANES, Lanes};

/// What quants are.
#[derive(Clone, Copy)]
pub(super) enum Quants {
    /// Integers from `low` to `high`; `-low` is added.
    Integers { low: f32, high: f32 },
    /// Indices of the table of IQ4_NL.
    NonLinear,
}

/// Rounds `(x + minimum) / scale` for parts of `size` values.
pub(super) struct Round<'a> {
    pub(super) values: &'a [f32],
    pub(super) size: usize,
    pub(super) scales: &'a [f32],
    /// None for zeros.
    pub(super) minimums: Option<&'a [f32]>,
    pub(super) quants: Quants,
}

impl Kernel for Round<'_> {
    type Output = Vec<u8>;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Vec<u8> {
        let mut out = vec![0; self.values.len()];
        let parts = self.values.chunks_exact(self.size).zip(out.chunks_exact_mut(self.size));
        for (part, (values, out)) in parts.enumerate() {
            let inverse = L::splat(set, super::search::inverse(self.scales[part]));
            let minimum = L::splat(set, self.minimums.map_or(0.0, |all| all[part]));
            for (x, out) in values.as_chunks::<LANES>().0.iter().zip(out.as_chunks_mut::<LANES>().0) {
                let x = L::load(set, x).add(minimum).mul(inverse);
                match self.quants {
                    Quants::Integers { low, high } => {
                        Rounding::new(set, low, high).with_magic(x).sub(L::splat(set, low)).store_low_bytes(out);
                    }
                    Quants::NonLinear => {
                        let value = non_linear(set, x).to_array();
                        for (out, value) in out.iter_mut().zip(value) {
                            *out = index_of(value);
                        }
                    }
                }
            }
        }
        out
    }
}

/// Index of a value of the table.
#[inline(always)]
fn index_of(value: f32) -> u8 {
    NON_LINEAR_VALUES.iter().map(|entry| u8::from(*entry < value)).sum()
}
