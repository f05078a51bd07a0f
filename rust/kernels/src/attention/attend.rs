//! Attention of one block of rows: some consecutive queries times the query heads that share a key and value head.
//!
//! The softmax is computed online (M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax", 2018;
//! T. Dao et al., "FlashAttention", 2022), one chunk of [`CHUNK_PAGES`] pages after the other: all scores of the chunk,
//! their weights relative to the largest of them, the weighted sum of the values; then the chunk is joined to those before
//! it. Chunks start at fixed positions of the sequence, so a row has the same bits however queries are divided into blocks,
//! calls and threads.

use std::ops::Range;

use super::block::{Block, Scratch, few, tile_rows};
use super::byte_keys::byte_scores;
use super::keys::{TILE, scores};
use super::masks::inside;
use super::pages::{KvType, PAGE_TOKENS};
use super::queries::PackQueries;
use super::scores::{CHUNK, CHUNK_PAGES};
use super::softmax::{Adjusted, Join, Weigh};
use super::unpack::PageKeys;
use super::values::add_weighted;
use super::word_keys::word_scores;
use super::word_values::add_word_values;
use crate::math::{Kernel, LANES, Lanes};

/// Prefetch distance, in arrays of keys or values of a head in one page: with 2, memory has the time of two pages of
/// arithmetic to answer.
const AHEAD: usize = 2;

/// Computes the state of a block's rows over its chunks into `scratch.state`.
pub(super) struct Attend<'a> {
    pub(super) block: Block<'a>,
    pub(super) scratch: &'a mut Scratch,
}

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { block, scratch } = self;
        let (rows, size) = (block.rows(), block.layout.value_size);
        L::call(set, PackQueries { block: &block, scratch });
        scratch.scores.resize(scratch.scores.len().max(rows), [[0.0; PAGE_TOKENS]; CHUNK_PAGES]);
        scratch.state.reset(rows, size);
        for chunk in block.chunks.clone() {
            let pages = block.visible_pages(chunk);
            if pages.is_empty() {
                continue;
            }
            scratch.chunk.reset(rows, size);
            L::call(set, AddScores { block: &block, pages: &pages, scratch });
            for (query, visible) in block.visible.iter().enumerate() {
                let visible = inside(visible, chunk * CHUNK, CHUNK);
                for row in query * block.group..(query + 1) * block.group {
                    let bias = block.bias.part(row % block.group, query, chunk);
                    let slope = block.slopes.get(row % block.group).copied();
                    let own = (block.first_position + query) as f32 - (chunk * CHUNK) as f32;
                    let selected = block.selected.part(query, chunk);
                    let adjusted = Adjusted { cap: block.cap, bias, slope, own, selected };
                    let weigh = Weigh { scores: &mut scratch.scores[row], visible: visible.clone(), adjusted };
                    let (largest, total) = L::call(set, weigh);
                    (scratch.chunk.numbers[row], scratch.chunk.numbers[rows + row]) = (largest, total);
                }
            }
            add_values::<L>(set, &block, &pages, scratch);
            L::call(set, Join { state: &mut scratch.state.numbers, next: &scratch.chunk.numbers, rows });
        }
    }
}

/// The visible tokens of a page for each row of a tile.
#[inline(always)]
fn visible_tokens(block: &Block, page: usize, first: usize, height: usize) -> [Range<usize>; TILE] {
    let mut visible = [const { 0..0 }; TILE];
    for (place, visible) in visible[..height].iter_mut().enumerate() {
        *visible = inside(&block.visible[(first + place) / block.group], page * PAGE_TOKENS, PAGE_TOKENS);
    }
    visible
}

/// Computes the scores of all rows with the keys of these pages of a chunk.
pub(super) struct AddScores<'a> {
    pub(super) block: &'a Block<'a>,
    pub(super) pages: &'a Range<usize>,
    pub(super) scratch: &'a mut Scratch,
}

impl Kernel for AddScores<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { block, pages, scratch } = self;
        let Scratch { queries, byte_queries, word_queries, scores: all_scores, unpacked, .. } = scratch;
        let (rows, size) = (block.rows(), block.layout.key_size);
        let count = rows.div_ceil(TILE);
        for page in pages.clone() {
            let bytes = block.layout.keys(block.pages[page], block.head);
            if bytes.is_empty() {
                // No row sees any of it.
                continue;
            }
            let keys = unpacked.keys::<L>(set, block.layout, bytes, !few(block));
            let mut ahead = block.upcoming(pages, page - pages.start + AHEAD);
            for tile in 0..count {
                let (first, height) = tile_rows(rows, count, tile);
                if visible_tokens(block, page, first, height).iter().all(Range::is_empty) {
                    continue;
                }
                let to = &mut all_scores[first..][..height];
                match keys {
                    PageKeys::Numbers(keys) => {
                        scores::<L>(
                            set,
                            keys,
                            &queries[first * size..][..height * size],
                            to,
                            page % CHUNK_PAGES,
                            ahead,
                        );
                    }
                    PageKeys::Words(keys) => {
                        word_scores::<L>(set, keys, word_queries, (first, size), to, page % CHUNK_PAGES, ahead);
                    }
                    PageKeys::Bytes(keys) => {
                        byte_scores::<L>(set, keys, byte_queries, (first, size), to, page % CHUNK_PAGES, ahead);
                    }
                }
                ahead = &[];
            }
        }
    }
}

/// Adds the weighted values of these pages of a chunk to the sums of all rows.
#[inline(always)]
fn add_values<L: Lanes>(set: L::Set, block: &Block, pages: &Range<usize>, scratch: &mut Scratch) {
    let Scratch { chunk, scores, unpacked, .. } = scratch;
    let rows = block.rows();
    let width = block.layout.value_size.next_multiple_of(LANES);
    let sums = &mut chunk.numbers[2 * rows..];
    let count = rows.div_ceil(TILE);
    for page in pages.clone() {
        let bytes = block.layout.values(block.pages[page], block.head);
        if bytes.is_empty() {
            // No row sees any of it.
            continue;
        }
        let values = unpacked.values::<L>(set, block.layout, bytes, !few(block));
        let mut ahead = block.upcoming(pages, pages.len() + page - pages.start + AHEAD);
        for tile in 0..count {
            let (first, height) = tile_rows(rows, count, tile);
            let visible = visible_tokens(block, page, first, height);
            if visible.iter().all(Range::is_empty) {
                continue;
            }
            let weights = &mut scores[first..][..height];
            let sums = &mut sums[first * width..][..height * width];
            let (page, visible) = (page % CHUNK_PAGES, &visible[..height]);
            if block.layout.kv_type == KvType::I16 {
                add_word_values::<L>(set, bytes, weights, page, visible, sums, ahead);
            } else {
                add_weighted::<L>(set, values, weights, page, visible, sums, ahead);
            }
            ahead = &[];
        }
    }
}
