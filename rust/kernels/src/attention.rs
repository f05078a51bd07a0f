//! Causal attention of grouped query heads over paged keys and values (A. Vaswani et al., 2017; N. Shazeer, 2019;
//! J. Ainslie et al., "GQA", 2023).
//!
//! A piece of work is a block of queries with all query heads that share a key and value head: keys and values are read
//! once for all of them. Long sequences with few queries are also cut along the positions, at fixed places, and the parts
//! joined afterwards.

mod block;
mod keys;
mod pages;
mod scores;
mod softmax;
mod unpack;
mod values;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use block::{Attend, Block, Scratch, state_len};
pub use pages::{KvLayout, KvType, PAGE_TOKENS};
use scores::CHUNK;
use softmax::{Divide, Join};

use crate::Error;
use crate::context::Context;
use crate::math::{LANES, dispatch};
use crate::memory::{grow, reserve, room};
use crate::shared::Pieces;

/// Rows (queries times query heads) of a piece of work: enough to pay for converting keys and values to floats.
const ROWS: usize = 64;
/// Pieces for each thread below which long sequences are cut.
const BALANCE: usize = 4;

/// Attention of some consecutive tokens of one sequence.
pub struct AttentionItem<'a> {
    /// `n × heads × key_size` numbers, already rotated.
    pub queries: &'a [f32],
    /// Position of the first query.
    pub first_position: usize,
    /// One layer's part of each page of the sequence, in order; they hold at least the positions below
    /// `first_position + n`.
    pub pages: &'a [&'a [u8]],
    /// `n × heads × value_size` numbers to write.
    pub output: &'a mut [f32],
    /// The first position that each of the `n` queries sees (sliding windows, chunked attention); `None` for 0. A query
    /// that sees nothing gets zeros.
    pub first_visible: Option<&'a [usize]>,
}

/// `output = softmax(scale * queries * keys) * values`, where query `i` of an item sees the positions up to
/// `first_position + i`. Query head `h` uses key and value head `h / (heads / kv_heads)`.
///
/// # Errors
/// `Error::Shape` if sizes do not fit together or there are too few pages; `Error::Cancelled`.
pub fn attention(
    context: &Context,
    layout: &KvLayout,
    heads: usize,
    scale: f32,
    items: &mut [AttentionItem],
) -> Result<(), Error> {
    check_heads(layout, heads)?;
    let mut pieces = Vec::new();
    let mut outputs = Vec::with_capacity(items.len());
    let mut inputs = Vec::with_capacity(items.len());
    let group = heads / layout.kv_heads;
    for item in items.iter_mut() {
        let count = check_item(layout, heads, item)?;
        let input = Input::new(item, count)?;
        let step = (ROWS / group).max(1);
        for head in 0..layout.kv_heads {
            for first in (0..count).step_by(step) {
                let queries = first..(first + step).min(count);
                let end = input.visible[queries.end - 1].end.div_ceil(CHUNK);
                reserve(&mut pieces, 1, "attention")?;
                pieces.push(Piece { item: inputs.len(), head, queries, chunks: 0..end });
            }
        }
        inputs.push(input);
        outputs.push(Pieces::new(item.output, group * layout.value_size));
    }
    let work = Work { context, layout, heads, group, scale, inputs, outputs };
    if pieces.len() < BALANCE * context.pool.threads() && context.pool.threads() > 1 {
        work.in_chunks(&pieces)
    } else {
        work.in_pieces(&pieces)
    }
}

fn check_heads(layout: &KvLayout, heads: usize) -> Result<(), Error> {
    if layout.kv_heads == 0 || layout.key_size == 0 || layout.value_size == 0 {
        return Err(Error::Shape(format!("attention with {layout:?}; expected sizes of at least 1")));
    }
    if heads == 0 || !heads.is_multiple_of(layout.kv_heads) {
        return Err(Error::Shape(format!(
            "attention of {heads} query heads with {} key and value heads; expected a multiple",
            layout.kv_heads
        )));
    }
    Ok(())
}

/// Checks the sizes of an item; returns the number of its queries.
fn check_item(layout: &KvLayout, heads: usize, item: &AttentionItem) -> Result<usize, Error> {
    let wrong = |what: String| Err(Error::Shape(format!("attention: {what}")));
    let (row, out_row) = (heads * layout.key_size, heads * layout.value_size);
    let count = item.queries.len() / row;
    if item.queries.len() != count * row || item.output.len() != count * out_row {
        return wrong(format!(
            "{} numbers of queries and {} of output; expected {row} and {out_row} for each token",
            item.queries.len(),
            item.output.len()
        ));
    }
    if item.first_visible.is_some_and(|first| first.len() != count) {
        return wrong(format!("first visible positions of another number of queries than {count}"));
    }
    let places = item.pages.len().saturating_mul(PAGE_TOKENS);
    if item.first_position.checked_add(count).is_none_or(|end| end > places) {
        return wrong(format!("{count} queries from position {} on, but pages for {places}", item.first_position));
    }
    if let Some(page) = item.pages.iter().find(|page| page.len() != layout.layer_bytes()) {
        return wrong(format!("a page of {} bytes; expected {}", page.len(), layout.layer_bytes()));
    }
    Ok(count)
}

/// The read-only part of an item.
struct Input<'a> {
    queries: &'a [f32],
    pages: &'a [&'a [u8]],
    /// Positions that each query sees.
    visible: Vec<Range<usize>>,
}

impl<'a> Input<'a> {
    fn new(item: &AttentionItem<'a>, count: usize) -> Result<Self, Error> {
        let range = |query: usize| {
            let end = item.first_position + query + 1;
            item.first_visible.map_or(0, |first| first[query].min(end))..end
        };
        let mut visible = room(count, "attention")?;
        visible.extend((0..count).map(range));
        Ok(Self { queries: item.queries, pages: item.pages, visible })
    }
}

/// A block of queries for one key and value head, and some chunks of positions.
#[derive(Clone)]
struct Piece {
    item: usize,
    head: usize,
    queries: Range<usize>,
    chunks: Range<usize>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// One call.
struct Work<'a> {
    context: &'a Context<'a>,
    layout: &'a KvLayout,
    heads: usize,
    group: usize,
    scale: f32,
    inputs: Vec<Input<'a>>,
    /// For each item: `n × kv_heads` pieces of `group × value_size`.
    outputs: Vec<Pieces<'a, f32>>,
}

impl Work<'_> {
    /// Every block of queries is done by one thread.
    fn in_pieces(&self, pieces: &[Piece]) -> Result<(), Error> {
        let failure = Mutex::new(None);
        self.context.for_each(pieces.len(), &|index| {
            let piece = &pieces[index];
            // SAFETY: `attention` made pieces that share no query and head, and `Context::for_each` hands each out once.
            let done = self.attend(piece, |state| unsafe { self.finish(piece, state) });
            note(&failure, done);
        })?;
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// The chunks of a block are done by any threads and joined in order.
    fn in_chunks(&self, pieces: &[Piece]) -> Result<(), Error> {
        let mut parts = Vec::new();
        for piece in pieces {
            reserve(&mut parts, piece.chunks.len(), "attention")?;
            parts.extend(piece.chunks.clone().map(|chunk| Piece { chunks: chunk..chunk + 1, ..piece.clone() }));
        }
        let size = self.layout.value_size;
        let rows = |piece: &Piece| piece.queries.len() * self.group;
        let longest = pieces.iter().map(|piece| state_len(rows(piece), size)).max().unwrap_or(0);
        let mut states = Vec::new();
        grow(&mut states, parts.len() * longest, 0.0, "attention")?;
        let failure = Mutex::new(None);
        let places = Pieces::new(&mut states, longest);
        self.context.for_each(parts.len(), &|index| {
            let done = self.attend(&parts[index], |state| {
                // SAFETY: `Context::for_each` hands every part out once, so that no other thread holds its place.
                let place = unsafe { places.get(index) };
                place[..state.len()].copy_from_slice(state);
            });
            note(&failure, done);
        })?;
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let mut rest = &mut states[..];
        for piece in pieces {
            let (own, others) = rest.split_at_mut(piece.chunks.len() * longest);
            rest = others;
            let (state, next) = own.split_at_mut(longest.min(own.len()));
            let len = state_len(rows(piece), size);
            for next in next.chunks_exact(longest) {
                dispatch(self.context.isa, Join { state: &mut state[..len], next: &next[..len], rows: rows(piece) });
            }
            // SAFETY: `for_each` has returned, so no other thread is at work, and the pieces come one after the other.
            unsafe { self.finish(piece, &state[..len]) };
        }
        Ok(())
    }

    /// Computes the state of a piece's rows and hands it over.
    fn attend(&self, piece: &Piece, take: impl FnOnce(&[f32])) -> Result<(), Error> {
        let input = &self.inputs[piece.item];
        let block = Block {
            layout: self.layout,
            pages: input.pages,
            head: piece.head,
            group: self.group,
            queries: &input.queries[piece.queries.start * self.heads * self.layout.key_size..],
            visible: &input.visible[piece.queries.clone()],
            scale: self.scale,
            chunks: piece.chunks.clone(),
        };
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.prepare(self.layout)?;
            dispatch(self.context.isa, Attend { block, scratch });
            take(&scratch.state.numbers);
            Ok(())
        })
    }

    /// Divides by the sums of weights and writes the output of a piece.
    ///
    /// # Safety
    /// Nobody else writes the output of these queries for this head.
    unsafe fn finish(&self, piece: &Piece, state: &[f32]) {
        let size = self.layout.value_size;
        let rows = piece.queries.len() * self.group;
        let (totals, sums) = (&state[rows..2 * rows], &state[2 * rows..]);
        for (index, query) in piece.queries.clone().enumerate() {
            // SAFETY: the caller guarantees that nobody else writes the outputs of these queries and this head.
            let output = unsafe { self.outputs[piece.item].get(query * self.layout.kv_heads + piece.head) };
            let first = index * self.group;
            let sums = &sums[first * size.next_multiple_of(LANES)..];
            dispatch(self.context.isa, Divide { sums, totals: &totals[first..][..self.group], output });
        }
    }
}

/// Keeps the first error.
fn note(failure: &Mutex<Option<Error>>, done: Result<(), Error>) {
    if let Err(error) = done {
        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

#[cfg(test)]
mod tests;
