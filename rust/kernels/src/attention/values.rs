//! Weighted sums of the values of a page. Elements of the head are lanes; the sum over tokens is a sequence of fused
//! multiply-adds in the order of the tokens.

use std::ops::Range;

use super::keys::{CACHE_LINE, TILE, take};
use super::pages::{BLOCK, PAGE_TOKENS};
use super::scores::{CHUNK_PAGES, ChunkScores, Scores};
use crate::math::{Kernel, LANES, Lanes, prefetch};

/// Values of one head in a page, `[token][number]`.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) numbers: Numbers<'a>,
    /// `[block][token]`: the scale of a block of [`BLOCK`] elements. It is applied to the weights, since there are fewer
    /// weights than elements.
    pub(super) scales: Option<&'a [Scores]>,
}

/// Rows of whole vectors.
#[derive(Clone, Copy)]
pub(super) enum Numbers<'a> {
    Floats(&'a [u8]),
    Halves(&'a [u8]),
    /// Signed.
    Bytes(&'a [u8]),
}

/// Loads `N` vectors of one token's value.
trait ValueSource: Copy {
    fn load<L: Lanes, const N: usize>(self, set: L::Set, token: usize, first: usize) -> [L; N];
}

#[derive(Clone, Copy)]
struct FloatValues<'a>(&'a [[u8; 4 * LANES]], usize);

impl ValueSource for FloatValues<'_> {
    #[inline(always)]
    fn load<L: Lanes, const N: usize>(self, set: L::Set, token: usize, first: usize) -> [L; N] {
        let mut vectors = [L::zero(set); N];
        for (vector, from) in vectors.iter_mut().zip(&self.0[token * self.1 + first..][..N]) {
            *vector = L::load_floats(set, from);
        }
        vectors
    }
}

#[derive(Clone, Copy)]
struct HalfValues<'a>(&'a [[u8; 2 * LANES]], usize);

impl ValueSource for HalfValues<'_> {
    #[inline(always)]
    fn load<L: Lanes, const N: usize>(self, set: L::Set, token: usize, first: usize) -> [L; N] {
        let mut vectors = [L::zero(set); N];
        for (vector, from) in vectors.iter_mut().zip(&self.0[token * self.1 + first..][..N]) {
            *vector = L::load_halves(set, from);
        }
        vectors
    }
}

#[derive(Clone, Copy)]
struct ByteValues<'a>(&'a [[u8; LANES]], usize);

impl ValueSource for ByteValues<'_> {
    #[inline(always)]
    fn load<L: Lanes, const N: usize>(self, set: L::Set, token: usize, first: usize) -> [L; N] {
        let mut vectors = [L::zero(set); N];
        for (vector, from) in vectors.iter_mut().zip(&self.0[token * self.1 + first..][..N]) {
            *vector = L::load_signed_bytes(set, from);
        }
        vectors
    }
}

/// For each of 1 to [`TILE`] rows, adds `weights * values` to `sums` over the row's visible tokens of a page, which is number
/// `page` of its chunk. `sums` has rows of whole vectors. The bytes `ahead`, which will be read later, are prefetched
/// meanwhile.
#[inline(always)]
pub(super) fn add_weighted<L: Lanes>(
    set: L::Set,
    values: Values,
    weights: &[ChunkScores],
    page: usize,
    visible: &[Range<usize>],
    sums: &mut [f32],
    ahead: &[u8],
) {
    let vectors = sums.len() / weights.len() / LANES;
    let (sums, _) = sums.as_chunks_mut::<LANES>();
    match values.numbers {
        Numbers::Floats(bytes) => {
            let source = FloatValues(bytes.as_chunks::<{ 4 * LANES }>().0, vectors);
            by_height::<L, _>(set, (source, values.scales), weights, page, visible, sums, ahead);
        }
        Numbers::Halves(bytes) => {
            let source = HalfValues(bytes.as_chunks::<{ 2 * LANES }>().0, vectors);
            by_height::<L, _>(set, (source, values.scales), weights, page, visible, sums, ahead);
        }
        Numbers::Bytes(bytes) => {
            let source = ByteValues(bytes.as_chunks::<LANES>().0, vectors);
            by_height::<L, _>(set, (source, values.scales), weights, page, visible, sums, ahead);
        }
    }
}

#[inline(always)]
fn by_height<L: Lanes, S: ValueSource>(
    set: L::Set,
    values: Scaled<S>,
    weights: &[ChunkScores],
    page: usize,
    visible: &[Range<usize>],
    sums: &mut [[f32; LANES]],
    ahead: &[u8],
) {
    // Tokens that all rows see are processed for all rows at once, the rest for each row separately, in order.
    let mut both = 0..PAGE_TOKENS;
    for range in visible {
        both = both.start.max(range.start)..both.end.min(range.end);
    }
    both.end = both.end.max(both.start);
    let vectors = sums.len() / visible.len();
    for (row, range) in visible.iter().enumerate() {
        if range.start < both.start {
            let before = range.start..range.end.min(both.start);
            sum::<L, S, 1>(set, values, &weights[row..], page, before, &mut sums[row * vectors..][..vectors], &[]);
        }
    }
    let shared = both.clone();
    match weights.len() {
        1 => sum::<L, S, 1>(set, values, weights, page, shared, sums, ahead),
        2 => sum::<L, S, 2>(set, values, weights, page, shared, sums, ahead),
        3 => sum::<L, S, 3>(set, values, weights, page, shared, sums, ahead),
        4 => sum::<L, S, 4>(set, values, weights, page, shared, sums, ahead),
        5 => sum::<L, S, 5>(set, values, weights, page, shared, sums, ahead),
        _ => sum::<L, S, TILE>(set, values, weights, page, shared, sums, ahead),
    }
    for (row, range) in visible.iter().enumerate() {
        let after = range.start.max(both.end)..range.end;
        if !after.is_empty() {
            sum::<L, S, 1>(set, values, &weights[row..], page, after, &mut sums[row * vectors..][..vectors], &[]);
        }
    }
}

#[inline(always)]
fn sum<L: Lanes, S: ValueSource, const R: usize>(
    set: L::Set,
    values: Scaled<S>,
    weights: &[ChunkScores],
    page: usize,
    tokens: Range<usize>,
    sums: &mut [[f32; LANES]],
    ahead: &[u8],
) {
    if let Some(weights) = weights.first_chunk::<R>() {
        L::call(set, Sum { values, weights, page, tokens, sums, ahead });
    }
}

/// Elements, and their scales if they have any.
type Scaled<'a, S> = (S, Option<&'a [Scores]>);

/// The weighted sums of `R` rows.
struct Sum<'a, S, const R: usize> {
    values: Scaled<'a, S>,
    weights: &'a [ChunkScores; R],
    page: usize,
    tokens: Range<usize>,
    sums: &'a mut [[f32; LANES]],
    ahead: &'a [u8],
}

impl<S: ValueSource, const R: usize> Kernel for Sum<'_, S, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { values: (source, scales), weights, page, tokens, sums, ahead } = self;
        let vectors = sums.len() / R;
        let mut page_weights = [&[0.0; PAGE_TOKENS]; R];
        for r in 0..R {
            page_weights[r] = &weights[r][page % CHUNK_PAGES];
        }
        let Some(scales) = scales else {
            PageSum { source, weights: page_weights, tokens, sums, vectors }.run::<L>(set, 0..vectors, ahead);
            return;
        };
        let step = ahead.len() / scales.len().max(1);
        for (block, scales) in scales.iter().enumerate() {
            let mut scaled = [[0.0; PAGE_TOKENS]; R];
            for r in 0..R {
                let parts = page_weights[r].as_chunks::<LANES>().0.iter().zip(scales.as_chunks::<LANES>().0);
                for ((weight, scale), to) in parts.zip(scaled[r].as_chunks_mut::<LANES>().0) {
                    L::load(set, weight).mul(L::load(set, scale)).store(to);
                }
            }
            let mut weights = [&[0.0; PAGE_TOKENS]; R];
            for r in 0..R {
                weights[r] = &scaled[r];
            }
            let first = block * (BLOCK / LANES);
            let own = first..(first + BLOCK / LANES).min(vectors);
            let ahead = &ahead[block * step..][..step];
            PageSum { source, weights, tokens: tokens.clone(), sums: &mut *sums, vectors }.run::<L>(set, own, ahead);
        }
    }
}

/// `R` rows of weights for the tokens of a page, and the vectors of sums of each row.
struct PageSum<'a, S, const R: usize> {
    source: S,
    weights: [&'a Scores; R],
    tokens: Range<usize>,
    sums: &'a mut [[f32; LANES]],
    vectors: usize,
}

impl<S: ValueSource, const R: usize> PageSum<'_, S, R> {
    /// Adds to some of the vectors and prefetches `ahead` meanwhile: a part of it with each vector, at least one cache line
    /// with each token.
    #[inline(always)]
    fn run<L: Lanes>(&mut self, set: L::Set, range: Range<usize>, ahead: &[u8]) {
        let mut first = range.start;
        let (mut ahead, share) = (ahead, ahead.len() / range.len().max(1));
        let least = PAGE_TOKENS * CACHE_LINE;
        if L::MANY_REGISTERS {
            while range.end - first >= 4 {
                self.add::<L, 4>(set, first, take(&mut ahead, least.max(4 * share)));
                first += 4;
            }
            while range.end - first >= 2 {
                self.add::<L, 2>(set, first, take(&mut ahead, least.max(2 * share)));
                first += 2;
            }
        }
        while first < range.end {
            self.add::<L, 1>(set, first, take(&mut ahead, least.max(share)));
            first += 1;
        }
    }

    /// Adds to `N` vectors of each row, in registers.
    #[inline(always)]
    fn add<L: Lanes, const N: usize>(&mut self, set: L::Set, first: usize, ahead: &[u8]) {
        let step = ahead.len() / PAGE_TOKENS;
        let mut totals = [[L::zero(set); N]; R];
        for r in 0..R {
            for n in 0..N {
                totals[r][n] = L::load(set, &self.sums[r * self.vectors + first + n]);
            }
        }
        for token in self.tokens.start..self.tokens.end.min(PAGE_TOKENS) {
            prefetch(ahead, token * step..(token + 1) * step);
            let line = self.source.load::<L, N>(set, token, first);
            for r in 0..R {
                let weight = L::splat(set, self.weights[r][token]);
                for n in 0..N {
                    totals[r][n] = weight.fma(line[n], totals[r][n]);
                }
            }
        }
        for r in 0..R {
            for n in 0..N {
                totals[r][n].store(&mut self.sums[r * self.vectors + first + n]);
            }
        }
    }
}
