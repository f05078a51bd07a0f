//! Scores with keys that are stored as 16-bit integers: one exact integer product, multiplied by the product of the scales.

use super::keys::{TILE, VECTORS};
use super::scores::{CHUNK_PAGES, ChunkScores};
use super::words::{key_pairs, pairs_of_key};
use crate::math::{Kernel, LANES, Lanes, prefetch};

/// Keys of one head in a page, stored as 16-bit integers.
#[derive(Clone, Copy)]
pub(super) struct WordKeys<'a> {
    /// `[token]`, as floats.
    pub(super) scales: &'a [u8],
    /// `[pair][token][2]`.
    pub(super) words: &'a [u8],
}

/// Queries as 16-bit integers with one scale, tile after tile.
#[derive(Default)]
pub(super) struct WordQueries {
    /// `[pair][query]`, two integers each.
    pairs: Vec<i32>,
    /// `[query]`.
    scales: Vec<f32>,
}

impl WordQueries {
    /// Makes room for `rows` queries of `size` elements.
    pub(super) fn resize(&mut self, rows: usize, size: usize) {
        self.pairs.resize(rows * key_pairs(size), 0);
        self.scales.resize(rows, 0.0);
    }

    /// Quantizes a query into place `place` of the tile of `height` queries that starts at query `first`, with its scale
    /// multiplied by `scale`.
    #[inline(always)]
    pub(super) fn set<L: Lanes>(
        &mut self,
        set: L::Set,
        (first, height): (usize, usize),
        place: usize,
        query: &[f32],
        scale: f32,
    ) {
        let pairs = &mut self.pairs[first * key_pairs(query.len())..];
        let own = pairs_of_key::<L>(set, query, &mut |pair, found| {
            for (index, found) in found.iter().enumerate() {
                pairs[(pair + index) * height + place] = *found;
            }
        });
        self.scales[first + place] = own * scale;
    }
}

/// Computes the scores of `scores.len()` queries of `size` elements, 1 to [`TILE`]: the tile that starts at query `first` of
/// `queries`; `page` and `ahead` as in [`super::keys::scores`].
#[inline(always)]
pub(super) fn word_scores<L: Lanes>(
    set: L::Set,
    keys: WordKeys,
    queries: &WordQueries,
    tile: (usize, usize),
    scores: &mut [ChunkScores],
    page: usize,
    ahead: &[u8],
) {
    match scores.len() {
        1 => by_height::<L, 1>(set, keys, queries, tile, scores, page, ahead),
        2 => by_height::<L, 2>(set, keys, queries, tile, scores, page, ahead),
        3 => by_height::<L, 3>(set, keys, queries, tile, scores, page, ahead),
        4 => by_height::<L, 4>(set, keys, queries, tile, scores, page, ahead),
        5 => by_height::<L, 5>(set, keys, queries, tile, scores, page, ahead),
        _ => by_height::<L, TILE>(set, keys, queries, tile, scores, page, ahead),
    }
}

#[inline(always)]
fn by_height<L: Lanes, const R: usize>(
    set: L::Set,
    keys: WordKeys,
    queries: &WordQueries,
    (first, size): (usize, usize),
    scores: &mut [ChunkScores],
    page: usize,
    ahead: &[u8],
) {
    let pairs = key_pairs(size);
    let (Some(scores), Some(scales)) = (scores.first_chunk_mut::<R>(), queries.scales[first..].first_chunk::<R>())
    else {
        return;
    };
    let pairs = queries.pairs[first * pairs..][..R * pairs].as_chunks::<R>().0;
    L::call(set, WordScore { keys, pairs, scales, scores, page: page % CHUNK_PAGES, ahead });
}

/// Scores of `R` queries.
struct WordScore<'a, const R: usize> {
    keys: WordKeys<'a>,
    pairs: &'a [[i32; R]],
    scales: &'a [f32; R],
    scores: &'a mut [ChunkScores; R],
    page: usize,
    ahead: &'a [u8],
}

impl<const R: usize> Kernel for WordScore<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, set: L::Set) {
        if L::MANY_REGISTERS {
            self.tile::<L, VECTORS>(set, 0, true);
        } else {
            for vector in 0..VECTORS {
                self.tile::<L, 1>(set, vector, vector == 0);
            }
        }
    }
}

impl<const R: usize> WordScore<'_, R> {
    /// Computes the scores of `N` vectors of tokens, in registers.
    #[inline(always)]
    fn tile<L: Lanes, const N: usize>(&mut self, set: L::Set, first: usize, prefetching: bool) {
        let lines = self.keys.words.as_chunks::<{ 4 * LANES }>().0.as_chunks::<VECTORS>().0;
        let mut products = [[L::integers(set, 0); N]; R];
        let ahead = if prefetching { self.ahead } else { &[] };
        let step = ahead.len().div_ceil(self.pairs.len().max(1));
        let (mut rest, mut ahead) = (self.pairs.iter().zip(lines), ahead.chunks(step.max(1)));
        // Two loops: with prefetches, which few tiles have, the steps would take half as long again without many registers.
        for (part, (pairs, line)) in ahead.by_ref().zip(rest.by_ref()) {
            prefetch(part, 0..part.len());
            add_pair::<L, R, N>(&mut products, &line[first..], pairs);
        }
        for (pairs, line) in rest {
            add_pair::<L, R, N>(&mut products, &line[first..], pairs);
        }
        let scales = self.keys.scales.as_chunks::<{ 4 * LANES }>().0;
        for n in 0..N {
            let scale = L::load_floats(set, &scales[first + n]);
            for r in 0..R {
                let scale = scale.mul(L::splat(set, self.scales[r]));
                let parts = self.scores[r][self.page].as_chunks_mut::<LANES>().0;
                L::from_integers(products[r][n]).mul(scale).store(&mut parts[first + n]);
            }
        }
    }
}

/// Adds the products of a pair of elements with `N` vectors of tokens.
#[inline(always)]
fn add_pair<L: Lanes, const R: usize, const N: usize>(
    products: &mut [[L::Integers; N]; R],
    line: &[[u8; 4 * LANES]],
    pairs: &[i32; R],
) {
    let Some(line) = line.first_chunk::<N>() else { return };
    for r in 0..R {
        for n in 0..N {
            products[r][n] = L::dot2(products[r][n], &line[n], pairs[r]);
        }
    }
}
