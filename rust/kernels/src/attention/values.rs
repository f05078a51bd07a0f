//! Weighted sums of the values of a page. Numbers of the head are lanes; the sum over tokens is a sequence of fused
//! multiply-adds in the order of the tokens.

use std::ops::Range;

use super::keys::{Scores, TILE};
use super::pages::{BLOCK, PAGE_TOKENS};
use crate::math::{LANES, Lanes};

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

/// Loads 16 numbers of one token's value.
trait Source: Copy {
    fn load<L: Lanes>(self, token: usize, vector: usize) -> L;
}

#[derive(Clone, Copy)]
struct Floats<'a>(&'a [[u8; 4 * LANES]], usize);

impl Source for Floats<'_> {
    #[inline(always)]
    fn load<L: Lanes>(self, token: usize, vector: usize) -> L {
        L::load_floats(&self.0[token * self.1 + vector])
    }
}

#[derive(Clone, Copy)]
struct Halves<'a>(&'a [[u8; 2 * LANES]], usize);

impl Source for Halves<'_> {
    #[inline(always)]
    fn load<L: Lanes>(self, token: usize, vector: usize) -> L {
        L::load_halves(&self.0[token * self.1 + vector])
    }
}

#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [f32], &'a [[u8; LANES]], usize);

impl Source for Bytes<'_> {
    #[inline(always)]
    fn load<L: Lanes>(self, token: usize, vector: usize) -> L {
        let scale = self.0[vector * LANES / BLOCK * PAGE_TOKENS + token];
        L::load_signed_bytes(&self.1[token * self.2 + vector]).mul(L::splat(scale))
    }
}

/// For each of 1 to [`TILE`] rows: `sums = sums * factor + weights * values` over the row's visible tokens. `sums` has rows of
/// whole vectors.
#[inline(always)]
pub(super) fn add_weighted<L: Lanes>(
    values: Values,
    weights: &[Scores],
    factors: &[f32],
    visible: &[Range<usize>],
    sums: &mut [f32],
) {
    let vectors = sums.len() / weights.len() / LANES;
    let (sums, _) = sums.as_chunks_mut::<LANES>();
    match values {
        Values::Floats(values) => {
            let source = Floats(values.as_chunks::<{ 4 * LANES }>().0, vectors);
            by_height::<L, _>(source, weights, factors, visible, sums, vectors);
        }
        Values::Halves(values) => {
            let source = Halves(values.as_chunks::<{ 2 * LANES }>().0, vectors);
            by_height::<L, _>(source, weights, factors, visible, sums, vectors);
        }
        Values::Bytes { scales, bytes } => {
            let source = Bytes(scales, bytes.as_chunks::<LANES>().0, vectors);
            by_height::<L, _>(source, weights, factors, visible, sums, vectors);
        }
    }
}

#[inline(always)]
fn by_height<L: Lanes, S: Source>(
    values: S,
    weights: &[Scores],
    factors: &[f32],
    visible: &[Range<usize>],
    sums: &mut [[f32; LANES]],
    vectors: usize,
) {
    // Tokens that all rows see are done for all rows at once, the others for each row alone, in order.
    let start = visible.iter().map(|range| range.start).max().unwrap_or(0);
    let end = visible.iter().map(|range| range.end).min().unwrap_or(0).max(start);
    for (row, range) in visible.iter().enumerate() {
        let sums = &mut sums[row * vectors..][..vectors];
        let before = range.start..range.end.min(start);
        by_width::<L, S, 1>(values, &weights[row..], &factors[row..], before, sums, vectors);
    }
    let ones = [1.0; TILE];
    match weights.len() {
        1 => by_width::<L, S, 1>(values, weights, &ones, start..end, sums, vectors),
        2 => by_width::<L, S, 2>(values, weights, &ones, start..end, sums, vectors),
        3 => by_width::<L, S, 3>(values, weights, &ones, start..end, sums, vectors),
        4 => by_width::<L, S, 4>(values, weights, &ones, start..end, sums, vectors),
        5 => by_width::<L, S, 5>(values, weights, &ones, start..end, sums, vectors),
        _ => by_width::<L, S, TILE>(values, weights, &ones, start..end, sums, vectors),
    }
    for (row, range) in visible.iter().enumerate() {
        let sums = &mut sums[row * vectors..][..vectors];
        let after = range.start.max(end)..range.end;
        if !after.is_empty() {
            by_width::<L, S, 1>(values, &weights[row..], &ones, after, sums, vectors);
        }
    }
}

#[inline(always)]
fn by_width<L: Lanes, S: Source, const R: usize>(
    values: S,
    weights: &[Scores],
    factors: &[f32],
    tokens: Range<usize>,
    sums: &mut [[f32; LANES]],
    vectors: usize,
) {
    let (Some(weights), Some(factors)) = (weights.first_chunk::<R>(), factors.first_chunk::<R>()) else { return };
    let mut first = 0;
    if L::MANY_REGISTERS {
        while vectors - first >= 4 {
            tile::<L, S, R, 4>(values, weights, factors, tokens.clone(), sums, vectors, first);
            first += 4;
        }
    }
    while vectors - first >= 1 {
        tile::<L, S, R, 1>(values, weights, factors, tokens.clone(), sums, vectors, first);
        first += 1;
    }
}

/// `R` rows times `N` vectors of the head, in registers.
#[inline(always)]
fn tile<L: Lanes, S: Source, const R: usize, const N: usize>(
    values: S,
    weights: &[Scores; R],
    factors: &[f32; R],
    tokens: Range<usize>,
    sums: &mut [[f32; LANES]],
    vectors: usize,
    first: usize,
) {
    let mut totals = [[L::zero(); N]; R];
    for r in 0..R {
        for n in 0..N {
            totals[r][n] = L::load(&sums[r * vectors + first + n]).mul(L::splat(factors[r]));
        }
    }
    for token in tokens.start..tokens.end.min(PAGE_TOKENS) {
        let mut line = [L::zero(); N];
        for n in 0..N {
            line[n] = values.load(token, first + n);
        }
        for r in 0..R {
            let weight = L::splat(weights[r][token]);
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
