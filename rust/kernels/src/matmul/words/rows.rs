//! Activations as 16-bit integers, arranged for the tiles.

use super::sizes::{BLOCK, LIMIT, PAIRS, PANEL_BLOCKS, TILE};
use crate::Error;
use crate::context::Context;
use crate::math::{Kernel, LANES, Lanes, MAGIC, dispatch};
use crate::memory::grow;
use crate::shared::SharedSlice;
use crate::words::range;

/// Tokens as integers with a scale for each block.
#[derive(Debug, Default)]
pub(crate) struct WordRows {
    /// `[panel of blocks][tile][block][token][pair]`, the first column of a pair in the lower half.
    pairs: Vec<i32>,
    /// `[panel of blocks][tile][block][token]`.
    scales: Vec<f32>,
    tokens: usize,
    columns: usize,
}

impl WordRows {
    /// Quantizes the rows of a call, at least one.
    pub(super) fn set(&mut self, context: &Context, input: &[f32], tokens: usize) -> Result<(), Error> {
        (self.tokens, self.columns) = (tokens, input.len() / tokens);
        let blocks = tokens * self.blocks();
        grow(&mut self.pairs, blocks * PAIRS, 0, "activations")?;
        grow(&mut self.scales, blocks, 0.0, "activations")?;
        let (tokens, columns) = (self.tokens, self.columns);
        let (pairs, scales) = (SharedSlice::new(&mut self.pairs), SharedSlice::new(&mut self.scales));
        context.for_each(tokens.div_ceil(TILE), &|tile| {
            let rows = &input[tile * TILE * columns..tokens.min((tile + 1) * TILE) * columns];
            dispatch(context.isa, SetTile { rows, columns, tokens, tile, pairs: &pairs, scales: &scales });
        })
    }

    /// Number of blocks of a token.
    pub(super) fn blocks(&self) -> usize {
        self.columns.div_ceil(BLOCK)
    }

    /// The integers and scales of a tile in the blocks of a panel that begins at `block`.
    pub(super) fn tile(&self, block: usize, tile: usize) -> (&[i32], &[f32]) {
        let count = PANEL_BLOCKS.min(self.blocks() - block);
        let start = place((self.tokens, self.blocks()), tile, block);
        let len = count * height(self.tokens, tile);
        (&self.pairs[start * PAIRS..][..len * PAIRS], &self.scales[start..][..len])
    }
}

/// Number of tokens of a tile.
pub(super) fn height(tokens: usize, tile: usize) -> usize {
    TILE.min(tokens - tile * TILE)
}

/// Where a block of the first token of a tile lies among all blocks of all tokens.
fn place((tokens, blocks): (usize, usize), tile: usize, block: usize) -> usize {
    let first = block / PANEL_BLOCKS * PANEL_BLOCKS;
    let count = PANEL_BLOCKS.min(blocks - first);
    first * tokens + tile * TILE * count + (block - first) * height(tokens, tile)
}

/// Quantizes the tokens of a tile.
struct SetTile<'a> {
    rows: &'a [f32],
    columns: usize,
    /// Of the call.
    tokens: usize,
    tile: usize,
    pairs: &'a SharedSlice<'a, i32>,
    scales: &'a SharedSlice<'a, f32>,
}

impl Kernel for SetTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { rows, columns, tokens, tile, .. } = self;
        let (blocks, height) = (columns.div_ceil(BLOCK), height(tokens, tile));
        for block in 0..blocks {
            let start = place((tokens, blocks), tile, block);
            // SAFETY: the blocks of a tile are written by the piece of this tile only.
            let (pairs, scales) =
                unsafe { (self.pairs.part(start * PAIRS, height * PAIRS), self.scales.part(start, height)) };
            let columns_of_block = block * BLOCK..columns.min((block + 1) * BLOCK);
            let rows = rows.chunks_exact(columns);
            for ((row, pairs), scale) in rows.zip(pairs.as_chunks_mut().0).zip(scales) {
                *scale = quantize::<L>(set, &row[columns_of_block.clone()], pairs);
            }
        }
    }
}

/// Turns a block, or what there is of the last one, into pairs of integers; returns its scale.
#[inline(always)]
fn quantize<L: Lanes>(set: L::Set, block: &[f32], pairs: &mut [i32; PAIRS]) -> f32 {
    let (scale, inverse) = range::<L>(set, block, LIMIT);
    if scale.is_nan() {
        pairs.fill(0);
        return scale;
    }
    let (inverse, magic) = (L::splat(set, inverse), L::splat(set, MAGIC));
    let (low, high) = block.split_at(PAIRS.min(block.len()));
    for (number, to) in pairs.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let first = number * LANES;
        let low = L::load_part(set, &low[first.min(low.len())..]);
        let high = L::load_part(set, &high[first.min(high.len())..]);
        L::store_pairs(low.fma(inverse, magic), high.fma(inverse, magic), to);
    }
    scale
}
