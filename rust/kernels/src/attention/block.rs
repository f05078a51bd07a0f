//! Attention of one block of rows: some consecutive queries times the query heads that share a key and value head.
//!
//! The softmax is computed online (M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax", 2018;
//! T. Dao et al., "FlashAttention", 2022), one chunk of [`CHUNK_PAGES`] pages after the other: all scores of the chunk,
//! their weights relative to the largest of them, the weighted sum of the values; then the chunk is joined to those before
//! it. Chunks start at fixed positions of the sequence, so a row has the same bits however queries are divided into blocks,
//! calls and threads.

use std::ops::Range;

use super::byte_keys::{ByteQueries, byte_scores};
use super::copies::Copies;
use super::keys::{TILE, scores};
use super::masks::{Bias, Selected, inside};
use super::pages::{KvLayout, KvType, PAGE_TOKENS};
use super::queries::PackQueries;
use super::scores::{CHUNK, CHUNK_PAGES, ChunkScores};
use super::softmax::{Adjusted, Join, Weigh};
use super::unpack::{PageKeys, Unpacked};
use super::values::add_weighted;
use super::word_keys::{WordQueries, word_scores};
use super::word_values::add_word_values;
use crate::Error;
use crate::math::{Kernel, LANES, Lanes};

/// Prefetch distance, in arrays of keys or values of a head in one page: with 2, memory has the time of two pages of
/// arithmetic to answer.
const AHEAD: usize = 2;

/// The input of one piece of work.
#[derive(Clone)]
pub(super) struct Block<'a> {
    pub(super) layout: &'a KvLayout,
    /// One layer's part of each page.
    pub(super) pages: &'a [&'a [u8]],
    /// The key and value head.
    pub(super) head: usize,
    /// Number of query heads that share it.
    pub(super) group: usize,
    /// Queries from the first of the block on, `kv_heads × group × key_size` elements each.
    pub(super) queries: &'a [f32],
    /// The visible positions of each query.
    pub(super) visible: &'a [Range<usize>],
    /// Factor of the scores; it turns them into exponents of 2, or into the argument of the cap.
    pub(super) scale: f32,
    /// See [`Adjusted::cap`].
    pub(super) cap: Option<f32>,
    pub(super) bias: Bias<'a>,
    pub(super) selected: Selected<'a>,
    /// For each query head of the block, see [`Adjusted::slope`]; empty if there are none.
    pub(super) slopes: &'a [f32],
    /// Position of the first query of the block.
    pub(super) first_position: usize,
    pub(super) chunks: Range<usize>,
}

impl<'a> Block<'a> {
    /// Number of rows: queries times their heads.
    pub(super) fn rows(&self) -> usize {
        self.visible.len() * self.group
    }

    /// The query vector of a row. Rows are the query heads of a query, then those of the next one.
    #[inline(always)]
    pub(super) fn query(&self, row: usize) -> &'a [f32] {
        let heads = self.layout.kv_heads * self.group;
        let place = row / self.group * heads + self.head * self.group + row % self.group;
        &self.queries[place * self.layout.key_size..][..self.layout.key_size]
    }

    /// The pages of a chunk with positions that any row sees.
    #[inline(always)]
    pub(super) fn visible_pages(&self, chunk: usize) -> Range<usize> {
        let (mut first, mut end) = (usize::MAX, 0);
        for range in self.visible {
            let range = inside(range, chunk * CHUNK, CHUNK);
            if !range.is_empty() {
                first = first.min(range.start / PAGE_TOKENS);
                end = end.max(range.end.div_ceil(PAGE_TOKENS));
            }
        }
        chunk * CHUNK_PAGES + first.min(end)..chunk * CHUNK_PAGES + end
    }

    /// The array that will be read `place` arrays after the keys of the first of these pages. The order is: the keys of all of
    /// them, the values of all of them, then the keys of the following pages or, after the last page, those of the next head.
    #[inline(always)]
    fn upcoming(&self, pages: &Range<usize>, place: usize) -> &'a [u8] {
        if place < pages.len() {
            return self.layout.keys(self.pages[pages.start + place], self.head);
        }
        let place = place - pages.len();
        if place < pages.len() {
            return self.layout.values(self.pages[pages.start + place], self.head);
        }
        let behind = pages.end + place - pages.len();
        match self.pages.get(behind) {
            Some(page) => self.layout.keys(page, self.head),
            None if self.head + 1 < self.layout.kv_heads => {
                self.pages.get(behind - self.pages.len()).map_or(&[], |page| self.layout.keys(page, self.head + 1))
            }
            None => &[],
        }
    }
}

/// Largest score, sum of weights and weighted sum of values, for each row of a block.
#[derive(Default)]
pub(super) struct State {
    /// In the layout of [`super::softmax::Parts`].
    pub(super) numbers: Vec<f32>,
}

/// Memory that a thread reuses from one block to the next.
#[derive(Default)]
pub(super) struct Scratch {
    /// The result of [`Attend`].
    pub(super) state: State,
    pub(super) chunk: State,
    pub(super) copies: Copies,
    pub(super) queries: Vec<f32>,
    pub(super) byte_queries: ByteQueries,
    pub(super) word_queries: WordQueries,
    pub(super) scores: Vec<ChunkScores>,
    pub(super) unpacked: Unpacked,
}

impl Scratch {
    /// Makes room for pages of this layout.
    pub(super) fn prepare(&mut self, layout: &KvLayout) -> Result<(), Error> {
        self.unpacked.prepare(layout)
    }
}

/// Number of floats in the state of `rows` rows with values of `size` elements.
pub(super) fn state_len(rows: usize, size: usize) -> usize {
    rows * (2 + size.next_multiple_of(LANES))
}

impl State {
    /// Resets the state to that of rows that have seen nothing yet.
    #[inline(always)]
    pub(super) fn reset(&mut self, rows: usize, size: usize) {
        self.numbers.clear();
        self.numbers.resize(state_len(rows, size), 0.0);
        self.numbers[..rows].fill(f32::NEG_INFINITY);
    }
}

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

/// The rows of tile `tile` when `rows` are divided into `count` tiles of nearly equal height: (first, height).
///
/// Loops over tiles are written out, without closures: a closure is a separate function, which may be compiled without the
/// instruction set of the enclosing function.
#[inline(always)]
pub(super) fn tile_rows(rows: usize, count: usize, tile: usize) -> (usize, usize) {
    let (first, end) = (tile * rows / count, (tile + 1) * rows / count);
    (first, end - first)
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

/// Whether the keys and values are read by so few rows that they are converted as they are read.
pub(super) fn few(block: &Block) -> bool {
    block.rows() <= 2 * TILE
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
