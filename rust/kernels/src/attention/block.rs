//! A block of rows: some consecutive queries times the query heads that share a key and value head, and the memory for it.

use std::ops::Range;

use super::byte_keys::ByteQueries;
use super::copies::Copies;
use super::keys::TILE;
use super::masks::{Bias, Selected, inside};
use super::pages::{KvLayout, PAGE_TOKENS};
use super::scores::{CHUNK, CHUNK_PAGES, ChunkScores};
use super::unpack::Unpacked;
use super::word_keys::WordQueries;
use crate::Error;
use crate::math::LANES;

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
    /// See [`super::softmax::Adjusted::cap`].
    pub(super) cap: Option<f32>,
    pub(super) bias: Bias<'a>,
    pub(super) selected: Selected<'a>,
    /// For each query head of the block, see [`super::softmax::Adjusted::slope`]; empty if there are none.
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
    pub(super) fn upcoming(&self, pages: &Range<usize>, place: usize) -> &'a [u8] {
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
    /// The result of [`super::attend::Attend`].
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

/// The rows of tile `tile` when `rows` are divided into `count` tiles of nearly equal height: (first, height).
///
/// Loops over tiles are written out, without closures: a closure is a separate function, which may be compiled without the
/// instruction set of the enclosing function.
#[inline(always)]
pub(super) fn tile_rows(rows: usize, count: usize, tile: usize) -> (usize, usize) {
    let (first, end) = (tile * rows / count, (tile + 1) * rows / count);
    (first, end - first)
}

/// Whether the keys and values are read by so few rows that they are converted as they are read.
pub(super) fn few(block: &Block) -> bool {
    block.rows() <= 2 * TILE
}
