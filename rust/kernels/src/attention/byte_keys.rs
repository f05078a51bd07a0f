//! Scores with keys that are stored as bytes: an exact integer product for each block that shares a scale.

use super::keys::{TILE, VECTORS};
use super::pages::{BLOCK, quantize};
use super::scores::{CHUNK_PAGES, ChunkScores};
use crate::math::{Kernel, LANES, Lanes, half_to_float, prefetch};

/// Number of groups of four elements that share a scale.
const BLOCK_QUADS: usize = BLOCK / 4;

/// Keys of one head in a page, stored as bytes.
#[derive(Clone, Copy)]
pub(super) struct ByteKeys<'a> {
    /// `[block][token]`, in half precision.
    pub(super) scales: &'a [u8],
    /// `[number / 4][token][4]`, with 128 added.
    pub(super) bytes: &'a [u8],
}

/// Queries as bytes with one scale per 32 elements, tile after tile.
#[derive(Default)]
pub(super) struct ByteQueries {
    /// `[number / 4][query]`, four signed bytes each.
    pub(super) quads: Vec<i32>,
    /// `[block][query]`.
    pub(super) scales: Vec<f32>,
    /// `[block][query]`: the sum of the block's bytes.
    pub(super) sums: Vec<i32>,
}

/// Computes the scores of `scores.len()` queries of `size` elements, 1 to [`TILE`]: the tile that starts at query `first` of
/// `queries`; `page` and `ahead` as in [`super::keys::scores`].
#[inline(always)]
pub(super) fn byte_scores<L: Lanes>(
    set: L::Set,
    keys: ByteKeys,
    queries: &ByteQueries,
    (first, size): (usize, usize),
    scores: &mut [ChunkScores],
    page: usize,
    ahead: &[u8],
) {
    match scores.len() {
        1 => byte_tiles::<L, 1>(set, keys, queries, (first, size), scores, page, ahead),
        2 => byte_tiles::<L, 2>(set, keys, queries, (first, size), scores, page, ahead),
        3 => byte_tiles::<L, 3>(set, keys, queries, (first, size), scores, page, ahead),
        4 => byte_tiles::<L, 4>(set, keys, queries, (first, size), scores, page, ahead),
        5 => byte_tiles::<L, 5>(set, keys, queries, (first, size), scores, page, ahead),
        _ => byte_tiles::<L, TILE>(set, keys, queries, (first, size), scores, page, ahead),
    }
}

#[inline(always)]
fn byte_tiles<L: Lanes, const R: usize>(
    set: L::Set,
    keys: ByteKeys,
    queries: &ByteQueries,
    (first, size): (usize, usize),
    scores: &mut [ChunkScores],
    page: usize,
    ahead: &[u8],
) {
    let Some(scores) = scores.first_chunk_mut::<R>() else { return };
    let (quads, blocks) = (size.div_ceil(4), size.div_ceil(BLOCK));
    L::call(
        set,
        ByteScore {
            keys,
            quads: queries.quads[first * quads..][..R * quads].as_chunks::<R>().0,
            scales: queries.scales[first * blocks..][..R * blocks].as_chunks::<R>().0,
            sums: queries.sums[first * blocks..][..R * blocks].as_chunks::<R>().0,
            scores,
            page,
            ahead,
        },
    );
}

/// Scores of `R` queries of bytes: for each block of 32 elements an exact integer product, then one fused multiply-add with
/// the product of the scales.
struct ByteScore<'a, const R: usize> {
    keys: ByteKeys<'a>,
    quads: &'a [[i32; R]],
    scales: &'a [[f32; R]],
    sums: &'a [[i32; R]],
    scores: &'a mut [ChunkScores; R],
    page: usize,
    ahead: &'a [u8],
}

impl<const R: usize> Kernel for ByteScore<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { keys, quads: query_quads, scales: query_scales, sums: query_sums, scores, page, ahead } = self;
        if page >= CHUNK_PAGES {
            return;
        }
        let (quads, blocks) = (query_quads.len(), query_scales.len().max(1));
        let key_lines = keys.bytes.as_chunks::<{ 4 * LANES }>().0.as_chunks::<VECTORS>().0;
        let key_scales = keys.scales.as_chunks::<{ 2 * LANES }>().0.as_chunks::<VECTORS>().0;
        for vector in 0..VECTORS {
            let share = ahead.len() / VECTORS;
            let (ahead, step) = (&ahead[vector * share..][..share], share / blocks);
            let mut totals = [L::zero(set); R];
            for (block, (scales, sums)) in query_scales.iter().zip(query_sums).enumerate() {
                prefetch(ahead, block * step..(block + 1) * step);
                let mut products = [L::integers(set, 0); R];
                for r in 0..R {
                    products[r] = L::integers(set, sums[r]);
                }
                let range = block * BLOCK_QUADS..((block + 1) * BLOCK_QUADS).min(quads);
                for (quad, line) in query_quads[range.clone()].iter().zip(&key_lines[range]) {
                    for r in 0..R {
                        products[r] = L::dot4(products[r], &line[vector], quad[r]);
                    }
                }
                let key_scale = L::load_halves(set, &key_scales[block][vector]);
                for r in 0..R {
                    totals[r] = L::from_integers(products[r]).fma(key_scale.mul(L::splat(set, scales[r])), totals[r]);
                }
            }
            for r in 0..R {
                totals[r].store(&mut scores[r][page].as_chunks_mut::<LANES>().0[vector]);
            }
        }
    }
}

impl ByteQueries {
    /// Makes room for `rows` queries of `size` elements.
    pub(super) fn resize(&mut self, rows: usize, size: usize) {
        self.quads.resize(rows * size.div_ceil(4), 0);
        self.scales.resize(rows * size.div_ceil(BLOCK), 0.0);
        self.sums.resize(rows * size.div_ceil(BLOCK), 0);
    }

    /// Quantizes a query into place `place` of the tile of `height` queries that starts at query `first`, with its scales
    /// multiplied by `scale`.
    #[inline(always)]
    pub(super) fn set<L: Lanes>(
        &mut self,
        set: L::Set,
        first: usize,
        height: usize,
        place: usize,
        query: &[f32],
        scale: f32,
    ) {
        let (quads, blocks) = (query.len().div_ceil(4), query.len().div_ceil(BLOCK));
        for (index, block) in query.chunks(BLOCK).enumerate() {
            let (block_scale, numbers) = quantize::<L>(set, block);
            let target = first * blocks + index * height + place;
            self.scales[target] = half_to_float(block_scale) * scale;
            self.sums[target] = numbers.iter().map(|x| i32::from(*x)).sum();
            let fours = numbers[..block.len().next_multiple_of(4)].as_chunks::<4>().0;
            for (quad, four) in fours.iter().enumerate() {
                let quad = index * BLOCK_QUADS + quad;
                self.quads[first * quads + quad * height + place] = i32::from_le_bytes(four.map(i8::cast_unsigned));
            }
        }
    }
}
