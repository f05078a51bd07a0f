//! Products of a panel of weights with a tile of tokens.

use super::panel::PanelScales;
use super::sizes::{PAIRS, TILE, VECTORS};
use crate::math::{Kernel, LANES, Lanes};

/// Results of a token with the rows of a panel.
pub(super) type SumRow = [[f32; LANES]; VECTORS];

/// Adds the products of the blocks of a panel with 1 to [`TILE`] tokens, which are those of `sums`.
#[inline(always)]
pub(super) fn multiply<L: Lanes>(
    set: L::Set,
    panel: (&[u8], &PanelScales),
    tokens: (&[i32], &[f32]),
    sums: &mut [SumRow],
) {
    match sums.len() {
        1 => by_height::<L, 1>(set, panel, tokens, sums),
        2 => by_height::<L, 2>(set, panel, tokens, sums),
        3 => by_height::<L, 3>(set, panel, tokens, sums),
        4 => by_height::<L, 4>(set, panel, tokens, sums),
        5 => by_height::<L, 5>(set, panel, tokens, sums),
        _ => by_height::<L, TILE>(set, panel, tokens, sums),
    }
}

#[inline(always)]
fn by_height<L: Lanes, const R: usize>(
    set: L::Set,
    (panel, scales): (&[u8], &PanelScales),
    (pairs, token_scales): (&[i32], &[f32]),
    sums: &mut [SumRow],
) {
    let Some(sums) = sums.first_chunk_mut() else { return };
    let panel = panel.as_chunks().0.as_chunks().0.as_chunks().0;
    let pairs = pairs.as_chunks().0.as_chunks().0;
    L::call(set, Tile::<R> { panel, scales, pairs, token_scales: token_scales.as_chunks().0, sums });
}

/// The products of `R` tokens.
struct Tile<'a, const R: usize> {
    panel: &'a [[[[u8; 4 * LANES]; VECTORS]; PAIRS]],
    scales: &'a PanelScales,
    pairs: &'a [[[i32; PAIRS]; R]],
    token_scales: &'a [[f32; R]],
    sums: &'a mut [SumRow; R],
}

impl<const R: usize> Kernel for Tile<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, set: L::Set) {
        if L::MANY_REGISTERS {
            self.add::<L, VECTORS>(set, 0);
        } else {
            for vector in 0..VECTORS {
                self.add::<L, 1>(set, vector);
            }
        }
    }
}

impl<const R: usize> Tile<'_, R> {
    /// Adds to `N` vectors of results of each token, in registers.
    #[inline(always)]
    fn add<L: Lanes, const N: usize>(&mut self, set: L::Set, first: usize) {
        let blocks = self.pairs.iter().zip(self.token_scales).zip(self.panel.iter().zip(self.scales));
        for ((pairs, token_scales), (lines, scales)) in blocks {
            let mut totals = [[L::integers(set, 0); N]; R];
            for pair in 0..PAIRS {
                for r in 0..R {
                    for n in 0..N {
                        totals[r][n] = L::dot2(totals[r][n], &lines[pair][first + n], pairs[r][pair]);
                    }
                }
            }
            for n in 0..N {
                let scale = L::load(set, &scales[first + n]);
                for r in 0..R {
                    let scale = scale.mul(L::splat(set, token_scales[r]));
                    let sum = &mut self.sums[r][first + n];
                    L::from_integers(totals[r][n]).fma(scale, L::load(set, sum)).store(sum);
                }
            }
        }
    }
}
