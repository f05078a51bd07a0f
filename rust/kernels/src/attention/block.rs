//! Attention of one block of rows: some consecutive queries times the query heads that share a key and value head.
//!
//! The softmax is computed on the way (M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax", 2018;
//! T. Dao et al., "FlashAttention", 2022), page by page inside a chunk of [`CHUNK_PAGES`] pages, and chunks are joined in
//! order. Pages and chunks start at fixed positions of the sequence, so a row has the same bits however queries are cut
//! into blocks, calls and threads.

use std::ops::Range;

use super::keys::{ByteQueries, Scores, TILE, byte_scores, scores};
use super::pages::{KvLayout, KvType, PAGE_TOKENS};
use super::unpack::{PageKeys, Unpacked};
use super::values::add_weighted;
use crate::Error;
use crate::math::{Kernel, LANES, Lanes, exp, fma};

/// Pages whose softmax is computed from its own start: what can be given to another thread.
pub(super) const CHUNK_PAGES: usize = 8;

/// What one piece of work is about.
pub(super) struct Block<'a> {
    pub(super) layout: &'a KvLayout,
    /// One layer's part of each page.
    pub(super) pages: &'a [&'a [u8]],
    pub(super) head: usize,
    /// Rows of `key_size` numbers: the query heads of a query, then those of the next one.
    pub(super) queries: &'a [&'a [f32]],
    /// The visible positions of each query.
    pub(super) visible: &'a [Range<usize>],
    pub(super) scale: f32,
    pub(super) chunks: Range<usize>,
}

/// Largest score, sum of weights and weighted sum of values, for each row of a block.
#[derive(Default)]
pub(super) struct State {
    pub(super) largest: Vec<f32>,
    pub(super) total: Vec<f32>,
    /// `rows × value_size`, rows padded to whole vectors.
    pub(super) sums: Vec<f32>,
}

/// Memory that a thread keeps from one block to the next.
#[derive(Default)]
pub(super) struct Scratch {
    /// The result of [`Attend`].
    pub(super) state: State,
    chunk: State,
    queries: Vec<f32>,
    byte_queries: ByteQueries,
    unpacked: Unpacked,
}

impl Scratch {
    /// Makes room for pages of this layout.
    pub(super) fn prepare(&mut self, layout: &KvLayout) -> Result<(), Error> {
        self.unpacked.prepare(layout)
    }
}

impl State {
    /// Nothing seen yet.
    pub(super) fn reset(&mut self, rows: usize, width: usize) {
        for (vector, len, value) in [
            (&mut self.largest, rows, f32::NEG_INFINITY),
            (&mut self.total, rows, 0.0),
            (&mut self.sums, rows * width, 0.0),
        ] {
            vector.clear();
            vector.resize(len, value);
        }
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
    fn run<L: Lanes>(self) {
        let Self { block, scratch } = self;
        let rows = block.queries.len();
        let width = block.layout.value_size.next_multiple_of(LANES);
        pack_queries(&block, scratch);
        scratch.state.reset(rows, width);
        for chunk in block.chunks.clone() {
            scratch.chunk.reset(rows, width);
            let first = chunk * CHUNK_PAGES;
            for page in first..(first + CHUNK_PAGES).min(block.pages.len()) {
                add_page::<L>(&block, page, scratch, width);
            }
            join::<L>(&mut scratch.state, &scratch.chunk);
        }
    }
}

/// The rows of tile number `tile` where `rows` are cut into `count` tiles of nearly equal height: (first, height).
///
/// Loops over tiles are written out, without closures: a closure is a function of its own, which the compiler may leave
/// without the instruction set of the function around it.
#[inline(always)]
fn tile_rows(rows: usize, count: usize, tile: usize) -> (usize, usize) {
    let (first, end) = (tile * rows / count, (tile + 1) * rows / count);
    (first, end - first)
}

/// Puts the queries of each tile side by side.
#[inline(always)]
fn pack_queries(block: &Block, scratch: &mut Scratch) {
    let (rows, size) = (block.queries.len(), block.layout.key_size);
    let as_bytes = block.layout.kv_type == KvType::Q8_0;
    if as_bytes {
        scratch.byte_queries.resize(rows, size);
    } else {
        scratch.queries.resize(rows * size, 0.0);
    }
    let count = rows.div_ceil(TILE);
    for tile in 0..count {
        let (first, height) = tile_rows(rows, count, tile);
        for place in 0..height {
            let query = block.queries[first + place];
            if as_bytes {
                scratch.byte_queries.set(first, height, place, query);
            } else {
                let packed = scratch.queries[first * size..].iter_mut().skip(place).step_by(height);
                for (to, x) in packed.zip(query) {
                    *to = *x;
                }
            }
        }
    }
}

/// The part of a range of positions that lies in a page, counted from its start.
#[inline(always)]
fn in_page(range: &Range<usize>, page: usize) -> Range<usize> {
    let first = page * PAGE_TOKENS;
    range.start.saturating_sub(first).min(PAGE_TOKENS)..range.end.saturating_sub(first).min(PAGE_TOKENS)
}

/// Adds one page to the state of the chunk.
#[inline(always)]
fn add_page<L: Lanes>(block: &Block, page: usize, scratch: &mut Scratch, width: usize) {
    if block.visible.iter().all(|range| in_page(range, page).is_empty()) {
        return;
    }
    let layout = block.layout;
    let (key_bytes, value_bytes) =
        (layout.keys(block.pages[page], block.head), layout.values(block.pages[page], block.head));
    let Scratch { chunk, queries, byte_queries, unpacked, .. } = scratch;
    // A single tile waits for memory: it asks for the values while it reads the keys, and for the next page's keys while
    // it reads the values. Many tiles are bound by arithmetic.
    let many = block.queries.len() > TILE;
    let next_page = block.pages.get(page + 1).filter(|_| !many);
    let next_keys = next_page.map_or(&[][..], |page| layout.keys(page, block.head));
    let next_values = if many { &[] } else { value_bytes };
    let (keys, values) = unpacked.unpack::<L>(layout, key_bytes, value_bytes, many);
    let per_query = block.queries.len() / block.visible.len();
    let size = layout.key_size;
    let rows = block.queries.len();
    let count = rows.div_ceil(TILE);
    for tile in 0..count {
        let (first, height) = tile_rows(rows, count, tile);
        let mut visible = [const { 0..0 }; TILE];
        for (place, visible) in visible[..height].iter_mut().enumerate() {
            *visible = in_page(&block.visible[(first + place) / per_query], page);
        }
        let visible = &visible[..height];
        if visible.iter().all(Range::is_empty) {
            continue;
        }
        let mut weights = [[0.0; PAGE_TOKENS]; TILE];
        let weights = &mut weights[..height];
        match keys {
            PageKeys::Numbers(keys) => {
                scores::<L>(keys, &queries[first * size..][..height * size], weights, next_values);
            }
            PageKeys::Bytes(keys) => byte_scores::<L>(keys, byte_queries, first, size, weights, next_values),
        }
        let mut factors = [1.0; TILE];
        for (place, weights) in weights.iter_mut().enumerate() {
            let row = first + place;
            factors[place] =
                soften::<L>(weights, block.scale, &visible[place], &mut chunk.largest[row], &mut chunk.total[row]);
        }
        let sums = &mut chunk.sums[first * width..][..height * width];
        add_weighted::<L>(values, weights, &factors, visible, sums, next_keys);
    }
}

/// Turns the raw scores of a row into weights `exp(score - largest)`, 0 where invisible; updates the largest score and
/// the sum of weights; returns what earlier sums have to be multiplied with.
#[inline(always)]
fn soften<L: Lanes>(
    scores: &mut Scores,
    scale: f32,
    visible: &Range<usize>,
    largest: &mut f32,
    total: &mut f32,
) -> f32 {
    if visible.is_empty() {
        return 1.0;
    }
    let (parts, _) = scores.as_chunks_mut::<LANES>();
    for part in parts.iter_mut() {
        L::load(part).mul(L::splat(scale)).store(part);
    }
    if visible.len() < PAGE_TOKENS {
        scores[..visible.start].fill(f32::NEG_INFINITY);
        scores[visible.end..].fill(f32::NEG_INFINITY);
    }
    let (parts, _) = scores.as_chunks_mut::<LANES>();
    let mut here = L::load(&parts[0]);
    for part in &parts[1..] {
        here = here.max(L::load(part));
    }
    let here = here.largest();
    let now = if here > *largest { here } else { *largest };
    let factor = exp(L::splat(*largest - now)).first();
    let mut sum = L::zero();
    for part in parts {
        let weights = exp(L::load(part).sub(L::splat(now)));
        weights.store(part);
        sum = sum.add(weights);
    }
    *largest = now;
    *total = fma(*total, factor, sum.sum());
    factor
}

/// Adds the state of the next chunk to that of the chunks before it.
#[inline(always)]
fn join<L: Lanes>(state: &mut State, next: &State) {
    let rows = state.total.len();
    if rows == 0 {
        return;
    }
    let width = state.sums.len() / rows;
    for row in 0..rows {
        let sums = &mut state.sums[row * width..][..width];
        let next_sums = &next.sums[row * width..][..width];
        // A row that has seen a token has a total of at least 1, the weight of its largest score (or NaN).
        if next.total[row] == 0.0 {
            continue;
        }
        if state.total[row] == 0.0 {
            sums.copy_from_slice(next_sums);
            state.largest[row] = next.largest[row];
            state.total[row] = next.total[row];
            continue;
        }
        let (before, after) = (state.largest[row], next.largest[row]);
        let largest = if after > before { after } else { before };
        let (old, new) = (exp(L::splat(before - largest)), exp(L::splat(after - largest)));
        state.largest[row] = largest;
        state.total[row] = fma(next.total[row], new.first(), state.total[row] * old.first());
        let (sums, _) = sums.as_chunks_mut::<LANES>();
        for (sum, next) in sums.iter_mut().zip(next_sums.as_chunks::<LANES>().0) {
            L::load(next).fma(new, L::load(sum).mul(old)).store(sum);
        }
    }
}

/// Adds the state of the next chunk to that of the chunks before it.
pub(super) struct Join<'a> {
    pub(super) state: &'a mut State,
    pub(super) next: &'a State,
}

impl Kernel for Join<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        join::<L>(self.state, self.next);
    }
}
