//! The inner loops: some tokens × 16 outputs in registers.

use super::term::LowRankTerm;
use super::up::Vectors;
use crate::math::{Kernel, LANES, Lanes};

/// Tokens side by side.
pub(crate) const TILE: usize = 8;

/// Adds the terms to some columns of at most [`TILE`] tokens.
pub(crate) struct AddPiece<'a, 'b, 'c> {
    pub(crate) terms: &'a [LowRankTerm<'a>],
    /// First token, counted as in the terms.
    pub(crate) token: usize,
    /// First column, a multiple of 16.
    pub(crate) first: usize,
    /// The columns of each token.
    pub(crate) rows: &'b mut [&'c mut [f32]],
}

impl Kernel for AddPiece<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { terms, mut token, first, rows } = self;
        let mut rest = rows;
        while !rest.is_empty() {
            let count = match rest.len() {
                8.. if L::MANY_REGISTERS => 8,
                4.. => 4,
                _ => 1,
            };
            let (some, others) = rest.split_at_mut(count);
            match count {
                8 => add::<L, 8>(set, terms, (token, first), some),
                4 => add::<L, 4>(set, terms, (token, first), some),
                _ => add::<L, 1>(set, terms, (token, first), some),
            }
            token += count;
            rest = others;
        }
    }
}

/// Adds to `C` tokens.
#[inline(always)]
fn add<L: Lanes, const C: usize>(
    set: L::Set,
    terms: &[LowRankTerm],
    (token, first): (usize, usize),
    rows: &mut [&mut [f32]],
) {
    let columns = rows[0].len();
    for start in (0..columns).step_by(LANES) {
        let block = (first + start) / LANES;
        let mut sums = [L::zero(set); C];
        for LowRankTerm { up, low, stride } in terms {
            let rank = up.rank();
            let mut factors: [&[f32]; C] = [&[]; C];
            for c in 0..C {
                factors[c] = &low[(token + c) * stride..][..rank];
            }
            // A macro instead of a closure, which would be compiled without the instruction set of the enclosing function.
            macro_rules! products {
                ($vectors:expr, $vector:ident => $load:expr) => {
                    let vectors = &$vectors[block * rank..][..rank];
                    // By index: the lengths of all slices are known to be the same.
                    for k in 0..rank {
                        let $vector = &vectors[k];
                        let weights = $load;
                        for c in 0..C {
                            sums[c] = L::splat(set, factors[c][k]).fma(weights, sums[c]);
                        }
                    }
                };
            }
            match up.vectors() {
                Vectors::Floats(floats) => {
                    products!(floats, vector => L::load_floats(set, vector));
                }
                Vectors::Halves(halves) => {
                    products!(halves, vector => L::load_halves(set, vector));
                }
                Vectors::Brains(brains) => {
                    products!(brains, vector => L::load_brains(set, vector));
                }
            }
        }
        let end = columns.min(start + LANES);
        for c in 0..C {
            let row = &mut rows[c][start..end];
            L::load_part(set, row).add(sums[c]).store_part(row);
        }
    }
}
