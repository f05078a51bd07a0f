//! Attention of a query to a few selected keys, which are copied into pages of their own first: scores and weighted sums are
//! computed for these alone.
//!
//! The bits are those of the same query over all keys with the others masked. A score depends on its key alone. The softmax
//! runs over the chunks of the sequence, with the scores in the lanes of their positions, and a weight of 0 changes no sum.

use std::ops::Range;

use super::attend::AddScores;
use super::block::{Block, Scratch, few};
use super::copies::{Copies, own_layout};
use super::keys::TILE;
use super::masks::{Bias, Selected, inside};
use super::pages::PAGE_TOKENS;
use super::queries::PackQueries;
use super::scores::{CHUNK, CHUNK_PAGES, ChunkScores};
use super::softmax::{Adjusted, Join, Weigh};
use super::values::{Values, add_weighted};
use crate::math::{Kernel, Lanes};

/// Like [`super::attend::Attend`], for some query heads of a block of one query.
pub(super) struct AttendSelected<'a> {
    pub(super) block: Block<'a>,
    /// The query heads, among those that share the key and value head.
    pub(super) heads: Range<usize>,
    pub(super) scratch: &'a mut Scratch,
}

impl Kernel for AttendSelected<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { block, heads, scratch } = self;
        let layout = own_layout(block.layout);
        let first = (block.head * block.group + heads.start) * layout.key_size;
        let all = 0..CHUNK;
        let own = Block {
            layout: &layout,
            pages: &[],
            head: 0,
            group: heads.len(),
            queries: &block.queries[first..],
            visible: std::slice::from_ref(&all),
            bias: Bias { numbers: &[], queries: 1, positions: 0, first: 0 },
            selected: Selected::default(),
            slopes: &[],
            first_position: 0,
            chunks: 0..1,
            ..block.clone()
        };
        L::call(set, PackQueries { block: &own, scratch });
        scratch.scores.resize(scratch.scores.len().max(heads.len()), [[0.0; PAGE_TOKENS]; CHUNK_PAGES]);
        scratch.state.reset(heads.len(), layout.value_size);
        let mut copies = std::mem::take(&mut scratch.copies);
        let mut chunks = block.chunks.clone();
        while !chunks.is_empty() {
            chunks = copies.note(&block.selected, &block.visible[0], chunks);
            let Copies { bytes: Some(bytes), positions, chunks: parts } = &mut copies else { break };
            let size = layout.layer_bytes();
            for (page, positions) in bytes.chunks_exact_mut(size).zip(positions.chunks(PAGE_TOKENS)) {
                for (slot, position) in positions.iter().enumerate() {
                    let from = block.pages[position / PAGE_TOKENS];
                    block.layout.copy_token(from, block.head, position % PAGE_TOKENS, page, slot);
                }
            }
            let mut pages = [&[][..]; CHUNK_PAGES];
            for (page, bytes) in pages.iter_mut().zip(bytes.chunks_exact(size)) {
                *page = bytes;
            }
            let seen = 0..positions.len();
            let own = Block { pages: &pages, visible: std::slice::from_ref(&seen), ..own.clone() };
            let pages = 0..positions.len().div_ceil(PAGE_TOKENS);
            L::call(set, AddScores { block: &own, pages: &pages, scratch });
            let batch = Batch { block: &block, own: &own, heads: heads.clone(), positions, parts };
            batch.add::<L>(set, scratch);
        }
        scratch.copies = copies;
    }
}

/// Copies whose scores are computed.
struct Batch<'a> {
    block: &'a Block<'a>,
    /// The same query over the copies.
    own: &'a Block<'a>,
    heads: Range<usize>,
    positions: &'a [usize],
    parts: &'a [(usize, Range<usize>)],
}

impl Batch<'_> {
    /// Adds the chunks of the batch to the state, one after the other.
    #[inline(always)]
    fn add<L: Lanes>(&self, set: L::Set, scratch: &mut Scratch) {
        let (rows, size) = (self.heads.len(), self.own.layout.value_size);
        let many = !few(self.own);
        let Scratch { state, chunk: next, scores, unpacked, .. } = scratch;
        let mut parts = self.parts.iter().peekable();
        for page in 0..self.positions.len().div_ceil(PAGE_TOKENS) {
            let range = page * PAGE_TOKENS..(page + 1) * PAGE_TOKENS;
            let values =
                unpacked.values::<L>(set, self.own.layout, self.own.layout.values(self.own.pages[page], 0), many);
            while let Some((chunk, copies)) = parts.peek()
                && copies.start < range.end
            {
                if copies.start >= range.start {
                    next.reset(rows, size);
                    self.weigh::<L>(set, *chunk, copies.clone(), scores, &mut next.numbers);
                }
                let tokens = inside(copies, range.start, PAGE_TOKENS);
                add_values::<L>(set, values, scores, page, &tokens, &mut next.numbers, rows);
                if copies.end > range.end {
                    break;
                }
                L::call(set, Join { state: &mut state.numbers, next: &next.numbers, rows });
                parts.next();
            }
        }
    }

    /// Turns the scores of a chunk's copies into weights; writes the largest score and the sum of each row.
    #[inline(always)]
    fn weigh<L: Lanes>(
        &self,
        set: L::Set,
        chunk: usize,
        copies: Range<usize>,
        scores: &mut [ChunkScores],
        next: &mut [f32],
    ) {
        let (block, rows) = (self.block, self.heads.len());
        let mut placed = [[0.0; PAGE_TOKENS]; CHUNK_PAGES];
        let own = block.first_position as f32 - (chunk * CHUNK) as f32;
        let visible = inside(&block.visible[0], chunk * CHUNK, CHUNK);
        for (row, head) in self.heads.clone().enumerate() {
            let numbers = scores[row].as_flattened_mut();
            let places = &self.positions[copies.clone()];
            for (number, position) in numbers[copies.clone()].iter().zip(places) {
                placed.as_flattened_mut()[position - chunk * CHUNK] = *number;
            }
            let bias = block.bias.part(head, 0, chunk);
            let slope = block.slopes.get(head).copied();
            let adjusted = Adjusted { cap: block.cap, bias, slope, own, selected: block.selected.part(0, chunk) };
            let weigh = Weigh { scores: &mut placed, visible: visible.clone(), adjusted };
            (next[row], next[rows + row]) = L::call(set, weigh);
            for (number, position) in numbers[copies.clone()].iter_mut().zip(places) {
                *number = placed.as_flattened()[position - chunk * CHUNK];
            }
        }
    }
}

/// Adds the weighted values of some copies in a page to the sums of all rows.
#[inline(always)]
fn add_values<L: Lanes>(
    set: L::Set,
    values: Values,
    scores: &[ChunkScores],
    page: usize,
    tokens: &Range<usize>,
    next: &mut [f32],
    rows: usize,
) {
    let sums = &mut next[2 * rows..];
    let width = sums.len() / rows;
    let mut visible = [const { 0..0 }; TILE];
    visible.fill(tokens.clone());
    for first in (0..rows).step_by(TILE) {
        let height = TILE.min(rows - first);
        let sums = &mut sums[first * width..][..height * width];
        add_weighted::<L>(set, values, &scores[first..][..height], page, &visible[..height], sums, &[]);
    }
}
