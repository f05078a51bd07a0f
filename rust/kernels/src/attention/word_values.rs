//! Weighted sums of values that are stored as 16-bit integers. The weights of a page, times the scales of its values, become
//! integers, too: the largest of a row's 8192. The exact sum over the page is multiplied by the scale of the weights and added
//! to the sums of the row.

use std::ops::Range;

use super::keys::TILE;
use super::pages::PAGE_TOKENS;
use super::scores::{CHUNK_PAGES, ChunkScores, Scores};
use super::words::{SCALE_BYTES, TOKEN_PAIRS, WEIGHT_LIMIT};
use crate::math::{Kernel, LANES, Lanes, MAGIC, prefetch};
use crate::words::SMALLEST;

/// Weights of the tokens of a page, in pairs.
type Pairs = [i32; TOKEN_PAIRS];

/// As [`super::values::add_weighted`]. The weights of tokens that a row does not see become 0.
#[inline(always)]
pub(super) fn add_word_values<L: Lanes>(
    set: L::Set,
    values: &[u8],
    weights: &mut [ChunkScores],
    page: usize,
    visible: &[Range<usize>],
    sums: &mut [f32],
    ahead: &[u8],
) {
    let vectors = sums.len() / weights.len() / LANES;
    let (scales, words) = values.split_at(SCALE_BYTES);
    let (mut pairs, mut factors) = ([[0; TOKEN_PAIRS]; TILE], [0.0; TILE]);
    let rows = weights.iter_mut().zip(visible).zip(pairs.iter_mut().zip(&mut factors));
    for ((weights, visible), (pairs, factor)) in rows {
        *factor = whole_weights::<L>(set, &mut weights[page % CHUNK_PAGES], visible, scales, pairs);
    }
    let lines = words.as_chunks::<{ 4 * LANES }>().0;
    let sums = sums.as_chunks_mut::<LANES>().0;
    match weights.len() {
        1 => by_height::<L, 1>(set, lines, &pairs, &factors, sums, vectors, ahead),
        2 => by_height::<L, 2>(set, lines, &pairs, &factors, sums, vectors, ahead),
        3 => by_height::<L, 3>(set, lines, &pairs, &factors, sums, vectors, ahead),
        4 => by_height::<L, 4>(set, lines, &pairs, &factors, sums, vectors, ahead),
        5 => by_height::<L, 5>(set, lines, &pairs, &factors, sums, vectors, ahead),
        _ => by_height::<L, TILE>(set, lines, &pairs, &factors, sums, vectors, ahead),
    }
}

/// Turns the weights of a row into integers; returns the value of 1: NaN if the row sees a value that is not finite.
#[inline(always)]
fn whole_weights<L: Lanes>(
    set: L::Set,
    weights: &mut Scores,
    visible: &Range<usize>,
    scales: &[u8],
    pairs: &mut Pairs,
) -> f32 {
    weights[..visible.start].fill(0.0);
    weights[visible.end.max(visible.start)..].fill(0.0);
    let (parts, scales) = (weights.as_chunks::<LANES>().0, scales.as_chunks::<{ 4 * LANES }>().0);
    let mut products = [L::zero(set); PAGE_TOKENS / LANES];
    let (mut largest, mut check) = (L::zero(set), L::zero(set));
    for i in 0..PAGE_TOKENS / LANES {
        let weight = L::load(set, &parts[i]);
        // What is not seen may have any scale.
        products[i] = L::zero(set).select_below(weight, weight.mul(L::load_floats(set, &scales[i])), L::zero(set));
        largest = largest.max(products[i]);
        check = check.add(products[i].sub(products[i]));
    }
    let (largest, check) = (largest.largest(), check.sum());
    if check != 0.0 {
        return f32::NAN;
    }
    if largest < SMALLEST {
        return 0.0;
    }
    let (inverse, magic) = (L::splat(set, WEIGHT_LIMIT / largest), L::splat(set, MAGIC));
    let halves = products.split_at(PAGE_TOKENS / LANES / 2);
    let both = halves.0.iter().zip(halves.1);
    for ((first, second), to) in both.zip(pairs.as_chunks_mut::<LANES>().0) {
        L::store_pairs(first.fma(inverse, magic), second.fma(inverse, magic), to);
    }
    largest / WEIGHT_LIMIT
}

#[inline(always)]
fn by_height<L: Lanes, const R: usize>(
    set: L::Set,
    lines: &[[u8; 4 * LANES]],
    pairs: &[Pairs; TILE],
    factors: &[f32; TILE],
    sums: &mut [[f32; LANES]],
    vectors: usize,
    ahead: &[u8],
) {
    let (Some(pairs), Some(factors)) = (pairs.first_chunk::<R>(), factors.first_chunk::<R>()) else { return };
    L::call(set, WordSum { lines, pairs, factors, sums, vectors, ahead });
}

/// The weighted sums of `R` rows.
struct WordSum<'a, const R: usize> {
    /// `[pair][vector]`.
    lines: &'a [[u8; 4 * LANES]],
    pairs: &'a [Pairs; R],
    factors: &'a [f32; R],
    sums: &'a mut [[f32; LANES]],
    vectors: usize,
    ahead: &'a [u8],
}

impl<const R: usize> Kernel for WordSum<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, set: L::Set) {
        let mut first = 0;
        if L::MANY_REGISTERS {
            while self.vectors - first >= 4 {
                self.add::<L, 4>(set, first);
                first += 4;
            }
            while self.vectors - first >= 2 {
                self.add::<L, 2>(set, first);
                first += 2;
            }
        }
        while first < self.vectors {
            self.add::<L, 1>(set, first);
            first += 1;
        }
    }
}

impl<const R: usize> WordSum<'_, R> {
    /// Adds to `N` vectors of each row, in registers.
    #[inline(always)]
    fn add<L: Lanes, const N: usize>(&mut self, set: L::Set, first: usize) {
        let ahead = if first == 0 { self.ahead } else { &[] };
        let step = ahead.len().div_ceil(TOKEN_PAIRS);
        let mut totals = [[L::integers(set, 0); N]; R];
        let mut ahead = ahead.chunks(step.max(1));
        let lines = self.lines.chunks_exact(self.vectors.max(1)).take(TOKEN_PAIRS);
        let mut rest = lines.enumerate();
        // Two loops, as for scores.
        for (part, (pair, line)) in ahead.by_ref().zip(rest.by_ref()) {
            prefetch(part, 0..part.len());
            add_pair::<L, R, N>(&mut totals, &line[first..], self.pairs, pair);
        }
        for (pair, line) in rest {
            add_pair::<L, R, N>(&mut totals, &line[first..], self.pairs, pair);
        }
        for r in 0..R {
            let factor = L::splat(set, self.factors[r]);
            for n in 0..N {
                let sum = &mut self.sums[r * self.vectors + first + n];
                L::from_integers(totals[r][n]).fma(factor, L::load(set, sum)).store(sum);
            }
        }
    }
}

/// Adds the products of a pair of tokens with `N` vectors of their values.
#[inline(always)]
fn add_pair<L: Lanes, const R: usize, const N: usize>(
    totals: &mut [[L::Integers; N]; R],
    line: &[[u8; 4 * LANES]],
    pairs: &[Pairs; R],
    pair: usize,
) {
    let Some(line) = line.first_chunk::<N>() else { return };
    for r in 0..R {
        for n in 0..N {
            totals[r][n] = L::dot2(totals[r][n], &line[n], pairs[r][pair]);
        }
    }
}
