//! Weighted sums of the values of a page. Numbers of the head are lanes; the sum over tokens is a sequence of fused
//! multiply-adds in the order of the tokens.

use std::ops::Range;

use super::keys::TILE;
use super::pages::{BLOCK, PAGE_TOKENS};
use super::softmax::{CHUNK_PAGES, ChunkScores};
use crate::math::{Kernel, LANES, Lanes, prefetch};

/// Values of one head in a page, `[token][number]`.
#[derive(Clone, Copy)]
pub(super) enum Values<'a> {
    /// Rows of whole vectors.
    Floats(&'a [u8]),
    /// Rows of whole vectors.
    Halves(&'a [u8]),
    /// Scales `[block][token]`, converted, and signed bytes in rows of whole vectors.
    Bytes { scales: &'a [f32], bytes: &'a [u8] },
}

/// Loads `N` vectors of one token's value.
trait Source: Copy {
    fn load<L: Lanes, const N: usize>(self, token: usize, first: usize) -> [L; N];
}

#[derive(Clone, Copy)]
struct Floats<'a>(&'a [[u8; 4 * LANES]], usize);

impl Source for Floats<'_> {
    #[inline(always)]
    fn load<L: Lanes, const N: usize>(self, token: usize, first: usize) -> [L; N] {
        let mut vectors = [L::zero(); N];
        for (vector, from) in vectors.iter_mut().zip(&self.0[token * self.1 + first..][..N]) {
            *vector = L::load_floats(from);
        }
        vectors
    }
}

#[derive(Clone, Copy)]
struct Halves<'a>(&'a [[u8; 2 * LANES]], usize);

impl Source for Halves<'_> {
    #[inline(always)]
    fn load<L: Lanes, const N: usize>(self, token: usize, first: usize) -> [L; N] {
        let mut vectors = [L::zero(); N];
        for (vector, from) in vectors.iter_mut().zip(&self.0[token * self.1 + first..][..N]) {
            *vector = L::load_halves(from);
        }
        vectors
    }
}

#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [f32], &'a [[u8; LANES]], usize);

impl Source for Bytes<'_> {
    #[inline(always)]
    fn load<L: Lanes, const N: usize>(self, token: usize, first: usize) -> [L; N] {
        let mut vectors = [L::zero(); N];
        let bytes = &self.1[token * self.2 + first..][..N];
        for (n, (vector, bytes)) in vectors.iter_mut().zip(bytes).enumerate() {
            let scale = self.0[(first + n) * LANES / BLOCK * PAGE_TOKENS + token];
            *vector = L::load_signed_bytes(bytes).mul(L::splat(scale));
        }
        vectors
    }
}

/// For each of 1 to [`TILE`] rows: `sums = sums + weights * values` over the row's visible tokens of a page, which is number
/// `page` of its chunk. `sums` has rows of whole vectors. The bytes `ahead`, those that will be read later, are asked for
/// on the way.
#[inline(always)]
pub(super) fn add_weighted<L: Lanes>(
    values: Values,
    weights: &[ChunkScores],
    page: usize,
    visible: &[Range<usize>],
    sums: &mut [f32],
    ahead: &[u8],
) {
    let vectors = sums.len() / weights.len() / LANES;
    let (sums, _) = sums.as_chunks_mut::<LANES>();
    match values {
        Values::Floats(values) => {
            let source = Floats(values.as_chunks::<{ 4 * LANES }>().0, vectors);
            by_height::<L, _>(source, weights, page, visible, sums, ahead);
        }
        Values::Halves(values) => {
            let source = Halves(values.as_chunks::<{ 2 * LANES }>().0, vectors);
            by_height::<L, _>(source, weights, page, visible, sums, ahead);
        }
        Values::Bytes { scales, bytes } => {
            let source = Bytes(scales, bytes.as_chunks::<LANES>().0, vectors);
            by_height::<L, _>(source, weights, page, visible, sums, ahead);
        }
    }
}

#[inline(always)]
fn by_height<L: Lanes, S: Source>(
    values: S,
    weights: &[ChunkScores],
    page: usize,
    visible: &[Range<usize>],
    sums: &mut [[f32; LANES]],
    ahead: &[u8],
) {
    // Tokens that all rows see are done for all rows at once, the others for each row alone, in order.
    let mut both = 0..PAGE_TOKENS;
    for range in visible {
        both = both.start.max(range.start)..both.end.min(range.end);
    }
    both.end = both.end.max(both.start);
    let vectors = sums.len() / visible.len();
    for (row, range) in visible.iter().enumerate() {
        if range.start < both.start {
            let before = range.start..range.end.min(both.start);
            sum::<L, S, 1>(values, &weights[row..], page, before, &mut sums[row * vectors..][..vectors], &[]);
        }
    }
    let shared = both.clone();
    match weights.len() {
        1 => sum::<L, S, 1>(values, weights, page, shared, sums, ahead),
        2 => sum::<L, S, 2>(values, weights, page, shared, sums, ahead),
        3 => sum::<L, S, 3>(values, weights, page, shared, sums, ahead),
        4 => sum::<L, S, 4>(values, weights, page, shared, sums, ahead),
        5 => sum::<L, S, 5>(values, weights, page, shared, sums, ahead),
        _ => sum::<L, S, TILE>(values, weights, page, shared, sums, ahead),
    }
    for (row, range) in visible.iter().enumerate() {
        let after = range.start.max(both.end)..range.end;
        if !after.is_empty() {
            sum::<L, S, 1>(values, &weights[row..], page, after, &mut sums[row * vectors..][..vectors], &[]);
        }
    }
}

#[inline(always)]
fn sum<L: Lanes, S: Source, const R: usize>(
    values: S,
    weights: &[ChunkScores],
    page: usize,
    tokens: Range<usize>,
    sums: &mut [[f32; LANES]],
    ahead: &[u8],
) {
    if let Some(weights) = weights.first_chunk::<R>() {
        L::call(Sum { values, weights, page, tokens, sums, ahead });
    }
}

/// The weighted sums of `R` rows.
struct Sum<'a, S, const R: usize> {
    values: S,
    weights: &'a [ChunkScores; R],
    page: usize,
    tokens: Range<usize>,
    sums: &'a mut [[f32; LANES]],
    ahead: &'a [u8],
}

impl<S: Source, const R: usize> Kernel for Sum<'_, S, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self) {
        if self.page >= CHUNK_PAGES {
            return;
        }
        let vectors = self.sums.len() / R;
        let mut first = 0;
        if L::MANY_REGISTERS {
            while vectors - first >= 4 {
                tile::<L, S, R, 4>(&mut self, vectors, first);
                first += 4;
            }
        }
        while first < vectors {
            tile::<L, S, R, 1>(&mut self, vectors, first);
            first += 1;
        }
    }
}

/// `R` rows times `N` vectors of the head, in registers.
#[inline(always)]
fn tile<L: Lanes, S: Source, const R: usize, const N: usize>(work: &mut Sum<S, R>, vectors: usize, first: usize) {
    let Sum { values, weights, page, tokens, sums, ahead } = work;
    // What will be needed next is asked for once, on the way through the first numbers.
    let step = if first == 0 { ahead.len() / PAGE_TOKENS } else { 0 };
    let mut totals = [[L::zero(); N]; R];
    for r in 0..R {
        for n in 0..N {
            totals[r][n] = L::load(&sums[r * vectors + first + n]);
        }
    }
    for token in tokens.start..tokens.end.min(PAGE_TOKENS) {
        prefetch(ahead, token * step..(token + 1) * step);
        let line = values.load::<L, N>(token, first);
        for r in 0..R {
            let weight = L::splat(weights[r][*page][token]);
            for n in 0..N {
                totals[r][n] = weight.fma(line[n], totals[r][n]);
            }
        }
    }
    for r in 0..R {
        for n in 0..N {
            totals[r][n].store(&mut sums[r * vectors + first + n]);
        }
    }
}
