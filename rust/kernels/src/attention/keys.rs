//! Scores: products of a few queries with the 64 keys of a page. Tokens are lanes; the sum over the elements of the head
//! is a sequence of fused multiply-adds, so it is the same for every tile size.

use super::pages::PAGE_TOKENS;
use super::scores::{CHUNK_PAGES, ChunkScores};
use crate::math::{Kernel, LANES, Lanes, prefetch};

/// Number of vectors in a line of 64 tokens.
pub(super) const VECTORS: usize = PAGE_TOKENS / LANES;
/// Size of a cache line in bytes.
pub(super) const CACHE_LINE: usize = 64;
/// Maximum number of queries of a tile.
pub(super) const TILE: usize = 6;

/// Keys of one head in a page of floats, `[number][token]`.
#[derive(Clone, Copy)]
pub(super) enum Keys<'a> {
    Floats(&'a [u8]),
    Halves(&'a [u8]),
}

/// Loads `N` vectors of tokens for one element of the keys.
trait KeySource: Copy {
    fn load<L: Lanes, const N: usize>(self, set: L::Set, number: usize, first: usize) -> [L; N];
}

#[derive(Clone, Copy)]
struct FloatKeys<'a>(&'a [[[u8; 4 * LANES]; VECTORS]]);

impl KeySource for FloatKeys<'_> {
    #[inline(always)]
    fn load<L: Lanes, const N: usize>(self, set: L::Set, number: usize, first: usize) -> [L; N] {
        let mut vectors = [L::zero(set); N];
        for (vector, from) in vectors.iter_mut().zip(&self.0[number][first..first + N]) {
            *vector = L::load_floats(set, from);
        }
        vectors
    }
}

#[derive(Clone, Copy)]
struct HalfKeys<'a>(&'a [[[u8; 2 * LANES]; VECTORS]]);

impl KeySource for HalfKeys<'_> {
    #[inline(always)]
    fn load<L: Lanes, const N: usize>(self, set: L::Set, number: usize, first: usize) -> [L; N] {
        let mut vectors = [L::zero(set); N];
        for (vector, from) in vectors.iter_mut().zip(&self.0[number][first..first + N]) {
            *vector = L::load_halves(set, from);
        }
        vectors
    }
}

/// Computes the scores of `scores.len()` queries, 1 to [`TILE`], with the tokens of a page, which is number `page` of its
/// chunk. The queries are stored as `[number][query]`. The bytes `ahead`, which will be read later, are prefetched meanwhile.
#[inline(always)]
pub(super) fn scores<L: Lanes>(
    set: L::Set,
    keys: Keys,
    queries: &[f32],
    scores: &mut [ChunkScores],
    page: usize,
    ahead: &[u8],
) {
    match keys {
        Keys::Floats(keys) => {
            by_height::<L, _>(
                set,
                FloatKeys(keys.as_chunks::<{ 4 * LANES }>().0.as_chunks::<VECTORS>().0),
                queries,
                scores,
                page,
                ahead,
            );
        }
        Keys::Halves(keys) => {
            by_height::<L, _>(
                set,
                HalfKeys(keys.as_chunks::<{ 2 * LANES }>().0.as_chunks::<VECTORS>().0),
                queries,
                scores,
                page,
                ahead,
            );
        }
    }
}

#[inline(always)]
fn by_height<L: Lanes, S: KeySource>(
    set: L::Set,
    keys: S,
    queries: &[f32],
    scores: &mut [ChunkScores],
    page: usize,
    ahead: &[u8],
) {
    match scores.len() {
        1 => by_width::<L, S, 1>(set, keys, queries, scores, page, ahead),
        2 => by_width::<L, S, 2>(set, keys, queries, scores, page, ahead),
        3 => by_width::<L, S, 3>(set, keys, queries, scores, page, ahead),
        4 => by_width::<L, S, 4>(set, keys, queries, scores, page, ahead),
        5 => by_width::<L, S, 5>(set, keys, queries, scores, page, ahead),
        _ => by_width::<L, S, TILE>(set, keys, queries, scores, page, ahead),
    }
}

#[inline(always)]
fn by_width<L: Lanes, S: KeySource, const R: usize>(
    set: L::Set,
    keys: S,
    queries: &[f32],
    scores: &mut [ChunkScores],
    page: usize,
    ahead: &[u8],
) {
    let Some(scores) = scores.first_chunk_mut::<R>() else { return };
    let (queries, _) = queries.as_chunks::<R>();
    L::call(set, Score { keys, queries, scores, page, ahead });
}

/// Scores of `R` queries.
struct Score<'a, S, const R: usize> {
    keys: S,
    queries: &'a [[f32; R]],
    scores: &'a mut [ChunkScores; R],
    page: usize,
    ahead: &'a [u8],
}

impl<S: KeySource, const R: usize> Kernel for Score<'_, S, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { keys, queries, scores, page, ahead } = self;
        if page >= CHUNK_PAGES {
            return;
        }
        if L::MANY_REGISTERS {
            tile::<L, S, R, VECTORS>(set, keys, queries, scores, page, 0, ahead);
        } else {
            // At least one cache line per element.
            let (mut ahead, share) = (ahead, (ahead.len() / VECTORS).max(queries.len() * CACHE_LINE));
            for vector in 0..VECTORS {
                tile::<L, S, R, 1>(set, keys, queries, scores, page, vector, take(&mut ahead, share));
            }
        }
    }
}

/// Computes `R` queries times `N` vectors of tokens, in registers.
#[inline(always)]
fn tile<L: Lanes, S: KeySource, const R: usize, const N: usize>(
    set: L::Set,
    keys: S,
    queries: &[[f32; R]],
    scores: &mut [ChunkScores; R],
    page: usize,
    first: usize,
    ahead: &[u8],
) {
    let step = ahead.len() / queries.len().max(1);
    let mut sums = [[L::zero(set); N]; R];
    for (number, queries) in queries.iter().enumerate() {
        prefetch(ahead, number * step..(number + 1) * step);
        let line = keys.load::<L, N>(set, number, first);
        for r in 0..R {
            let query = L::splat(set, queries[r]);
            for n in 0..N {
                sums[r][n] = query.fma(line[n], sums[r][n]);
            }
        }
    }
    for r in 0..R {
        let (parts, _) = scores[r][page].as_chunks_mut::<LANES>();
        for n in 0..N {
            sums[r][n].store(&mut parts[first + n]);
        }
    }
}

/// Splits off the first `count` bytes.
#[inline(always)]
pub(super) fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (first, rest) = bytes.split_at(count.min(bytes.len()));
    *bytes = rest;
    first
}
