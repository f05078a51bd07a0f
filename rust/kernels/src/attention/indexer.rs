//! The keys that sparse attention looks at (DeepSeek-AI, "DeepSeek-V3.2", 2025): for each query those with the best index scores,
//! which a few small heads compute from queries and keys of their own.

use std::ops::Range;
use std::sync::Mutex;

use super::attend::AddScores;
use super::block::{Block, Scratch};
use super::masks::{Bias, Selected};
use super::pages::{KvLayout, PAGE_TOKENS};
use super::queries::PackQueries;
use super::scores::{CHUNK, CHUNK_PAGES};
use super::{SCRATCH, note};
use crate::Error;
use crate::context::Context;
use crate::math::{Kernel, LANES, Lanes, dispatch};
use crate::memory::{resize, room};
use crate::shared::Pieces;

/// Some consecutive tokens of one sequence.
pub struct IndexerItem<'a> {
    /// `n × heads × key_size` elements, rotated.
    pub queries: &'a [f32],
    /// `n × heads` factors of the heads' scores.
    pub weights: &'a [f32],
    /// Position of the first query.
    pub first_position: usize,
    /// One layer's part of each page of the sequence, in order, for all positions up to that of the last query.
    pub pages: &'a [&'a [u8]],
    /// As many words for each query, one for every page at least; overwritten by bits as in [`super::Visible::Selected`].
    pub selected: &'a mut [u64],
}

/// Selects, for each query, the `top` keys with the largest `Σ weight · max(query · key, 0)` over the heads, among those up to its
/// own position; of equal ones the earlier. All of them if there are no more. Keys have one head.
///
/// The sums over the elements of a key and over the heads are fused multiply-adds in order.
///
/// # Errors
/// `Error::Shape` if sizes do not match or pages are missing; `Error::Cancelled` if the context was interrupted; `Error::Memory`.
pub fn select_keys(
    context: &Context,
    layout: &KvLayout,
    (heads, top): (usize, usize),
    items: &mut [IndexerItem],
) -> Result<(), Error> {
    if layout.kv_heads != 1 || layout.key_size == 0 || heads == 0 || top == 0 {
        return Err(Error::Shape(format!(
            "an indexer of {heads} heads with {layout:?} that selects {top} keys; expected one head of keys, and at least one \
             query head, element and selected key"
        )));
    }
    let mut rows = Vec::new();
    let mut inputs = Vec::with_capacity(items.len());
    let mut outputs = Vec::with_capacity(items.len());
    for item in items.iter_mut() {
        let count = check(layout, heads, item)?;
        crate::memory::reserve(&mut rows, count, PURPOSE)?;
        rows.extend((0..count).map(|row| (inputs.len(), row)));
        inputs.push((item.queries, item.weights, item.first_position, item.pages));
        let words = item.selected.len().checked_div(count).unwrap_or(1);
        outputs.push(Pieces::new(&mut *item.selected, words));
    }
    let failure = Mutex::new(None);
    context.for_each(rows.len(), &|index| {
        let (item, row) = rows[index];
        let (queries, weights, first_position, pages) = inputs[item];
        let size = heads * layout.key_size;
        let query = Row { queries: &queries[row * size..][..size], weights: &weights[row * heads..][..heads], pages };
        // SAFETY: `rows` has every row once, and `Context::for_each` hands each out once.
        let selected = unsafe { outputs[item].get(row) };
        note(&failure, select(context, layout, &query, (first_position + row + 1, top), selected));
    })?;
    failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
}

const PURPOSE: &str = "index scores";

/// The queries of a token.
struct Row<'a> {
    queries: &'a [f32],
    weights: &'a [f32],
    pages: &'a [&'a [u8]],
}

/// Checks the sizes of an item and returns the number of its queries.
fn check(layout: &KvLayout, heads: usize, item: &IndexerItem) -> Result<usize, Error> {
    let count = item.weights.len() / heads;
    let positions = item.first_position.saturating_add(count);
    let words = positions.div_ceil(PAGE_TOKENS);
    let sound = item.weights.len() == count * heads
        && item.queries.len() == count * heads * layout.key_size
        && item.pages.len() >= words
        && item.pages[..words].iter().all(|page| page.len() == layout.layer_bytes())
        && (count == 0 || item.selected.len().is_multiple_of(count) && item.selected.len() / count >= words);
    if sound {
        return Ok(count);
    }
    Err(Error::Shape(format!(
        "an indexer with {} numbers of queries, {} weights, {} pages and {} words of selected keys for the tokens from {} on; \
         expected {heads} heads of {} numbers, and pages and words for all positions",
        item.queries.len(),
        item.weights.len(),
        item.pages.len(),
        item.selected.len(),
        item.first_position,
        layout.key_size
    )))
}

/// Sets the bits of the best keys among the first `count`.
fn select(
    context: &Context,
    layout: &KvLayout,
    row: &Row,
    (count, top): (usize, usize),
    selected: &mut [u64],
) -> Result<(), Error> {
    selected.fill(0);
    let mark =
        |selected: &mut [u64], position: usize| selected[position / PAGE_TOKENS] |= 1 << (position % PAGE_TOKENS);
    if count <= top {
        (0..count).for_each(|position| mark(selected, position));
        return Ok(());
    }
    let mut totals: Vec<f32> = Vec::new();
    resize(&mut totals, count.next_multiple_of(PAGE_TOKENS), 0.0, PURPOSE)?;
    let seen = 0..count;
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.prepare(layout)?;
        let visible = std::array::from_ref(&seen);
        dispatch(context.isa, Total { layout, row, visible, scratch, totals: &mut totals });
        Ok::<(), Error>(())
    })?;
    totals[..count].iter_mut().filter(|total| total.is_nan()).for_each(|total| *total = f32::NEG_INFINITY);
    let mut order: Vec<u32> = room(count, PURPOSE)?;
    order.extend((0..count).map(|position| position as u32));
    order.select_nth_unstable_by(top, |&left, &right| {
        totals[right as usize].total_cmp(&totals[left as usize]).then(left.cmp(&right))
    });
    order[..top].iter().for_each(|&position| mark(selected, position as usize));
    Ok(())
}

/// The index scores of the keys of all pages with one query.
struct Total<'a> {
    layout: &'a KvLayout,
    row: &'a Row<'a>,
    visible: &'a [Range<usize>; 1],
    scratch: &'a mut Scratch,
    totals: &'a mut [f32],
}

impl Kernel for Total<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { layout, row, visible, scratch, totals } = self;
        let heads = row.weights.len();
        let block = Block {
            layout,
            pages: row.pages,
            head: 0,
            group: heads,
            queries: row.queries,
            visible,
            scale: 1.0,
            cap: None,
            bias: Bias { numbers: &[], queries: 1, positions: 0, first: 0 },
            selected: Selected::default(),
            slopes: &[],
            first_position: visible[0].end - 1,
            chunks: 0..visible[0].end.div_ceil(CHUNK),
        };
        L::call(set, PackQueries { block: &block, scratch });
        scratch.scores.resize(scratch.scores.len().max(heads), [[0.0; PAGE_TOKENS]; CHUNK_PAGES]);
        for chunk in block.chunks.clone() {
            let pages = block.visible_pages(chunk);
            L::call(set, AddScores { block: &block, pages: &pages, scratch });
            for page in pages {
                for (part, totals) in
                    totals[page * PAGE_TOKENS..][..PAGE_TOKENS].as_chunks_mut::<LANES>().0.iter_mut().enumerate()
                {
                    let mut total = L::zero(set);
                    for (scores, weight) in scratch.scores[..heads].iter().zip(row.weights) {
                        let score = L::load_part(set, &scores[page % CHUNK_PAGES][part * LANES..][..LANES]);
                        total = score.max(L::zero(set)).fma(L::splat(set, *weight), total);
                    }
                    total.store(totals);
                }
            }
        }
    }
}
