//! Attention of grouped query heads over paged keys and values (A. Vaswani et al., 2017; N. Shazeer, 2019;
//! J. Ainslie et al., "GQA", 2023).
//!
//! A piece of work is a block of queries with all query heads that share a key and value head, so that keys and values are
//! read once for all of them. Long sequences with few queries are also split along the positions, at fixed places, and the
//! parts are joined afterwards.

mod attend;
mod block;
mod byte_keys;
pub(crate) mod copies;
mod gathered;
mod indexer;
mod items;
mod keys;
mod masks;
mod page_size;
pub(crate) mod pages;
mod queries;
mod relative;
pub(crate) mod scores;
mod softmax;
mod unpack;
mod values;
mod word_keys;
mod word_values;
mod words;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use attend::Attend;
use block::{Block, Scratch, state_len};
use copies::worth_copying;
use gathered::AttendSelected;
pub use indexer::{IndexerItem, select_keys};
pub use items::{AttentionConfig, AttentionItem, Visible, alibi_slopes};
use items::{Input, check_config};
use masks::{Bias, Selected};
pub use pages::{KvLayout, KvType, PAGE_TOKENS};
pub use relative::{RelativeTerm, add_relative_bias};
use scores::CHUNK;
use softmax::{Divide, Join};

use crate::Error;
use crate::context::Context;
use crate::math::{LANES, dispatch};
use crate::memory::{grow, reserve};
use crate::shared::{Pieces, SharedSlice};

/// Rows (queries times query heads) of a piece of work with heads of up to [`SMALL_HEAD`] elements, and with larger ones: enough
/// to amortize converting keys and values to floats, few enough for the second-level cache, and a multiple of the tile.
const QUERY_ROWS: [usize; 2] = [96, 60];
/// See [`QUERY_ROWS`].
const SMALL_HEAD: usize = 128;
/// Pieces per thread below which long sequences are split.
const BALANCE: usize = 4;

/// Computes `output = softmax(scale * queries * keys) * values` over the positions that a query sees. Query head `h` uses key
/// and value head `h / (heads / kv_heads)`.
///
/// # Errors
/// `Error::Shape` if sizes do not match, there are too few pages, or a page that a query sees is absent; `Error::Cancelled` if
/// the context was interrupted.
pub fn attention(
    context: &Context,
    layout: &KvLayout,
    config: &AttentionConfig,
    items: &mut [AttentionItem],
) -> Result<(), Error> {
    check_config(layout, config)?;
    let heads = config.heads;
    let (mut pieces, mut sparse) = (Vec::new(), Vec::new());
    let mut outputs = Vec::with_capacity(items.len());
    let mut inputs = Vec::with_capacity(items.len());
    let group = heads / layout.kv_heads;
    for item in items.iter_mut() {
        let input = Input::new(layout, heads, item)?;
        let count = input.visible.len();
        let rows = QUERY_ROWS[usize::from(layout.key_size > SMALL_HEAD)];
        let step = (rows / group).max(1);
        for head in 0..layout.kv_heads {
            for first in (0..count).step_by(step) {
                let queries = first..(first + step).min(count);
                let chunks = seen_chunks(&input.visible[queries.clone()]);
                let piece = Piece { item: inputs.len(), head, queries, chunks, heads: 0..group };
                let (selected, visible) = input.counts(piece.queries.clone());
                // Encoders, which alone store 16-bit integers, select nothing.
                let copied = layout.kv_type != KvType::I16 && worth_copying(selected, visible, group);
                let pieces = if copied { &mut sparse } else { &mut pieces };
                reserve(pieces, 1, "attention")?;
                pieces.push(piece);
            }
        }
        inputs.push(input);
        outputs.push(SharedSlice::new(item.output));
    }
    // Weights are powers of 2; a cap multiplies scores once more.
    let log2 = |x: f32| (f64::from(x) * std::f64::consts::LOG2_E) as f32;
    let scale = match config.soft_cap {
        Some(cap) => (f64::from(config.scale) / f64::from(cap)) as f32,
        None => log2(config.scale),
    };
    let (cap, sinks) = (config.soft_cap.map(log2), config.sinks);
    let slopes = config.slopes.unwrap_or(&[]).iter().copied().map(log2).collect();
    let work = Work { context, layout, heads, group, scale, cap, sinks, slopes, inputs, outputs };
    work.selected(&sparse)?;
    if pieces.len() < BALANCE * context.pool.threads() && context.pool.threads() > 1 {
        work.in_chunks(&pieces)
    } else {
        work.in_pieces(&pieces)
    }
}

/// The range of chunks that contain all visible positions; at least one chunk.
fn seen_chunks(visible: &[Range<usize>]) -> Range<usize> {
    let (mut first, mut end) = (usize::MAX, 0);
    for range in visible.iter().filter(|range| !range.is_empty()) {
        first = first.min(range.start / CHUNK);
        end = end.max(range.end.div_ceil(CHUNK));
    }
    if first < end { first..end } else { 0..1 }
}

/// A block of queries for one key and value head, and some chunks of positions.
#[derive(Clone)]
struct Piece {
    item: usize,
    head: usize,
    queries: Range<usize>,
    chunks: Range<usize>,
    /// The query heads, among those that share the key and value head.
    heads: Range<usize>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The data of one call.
struct Work<'a> {
    context: &'a Context<'a>,
    layout: &'a KvLayout,
    heads: usize,
    group: usize,
    /// See [`Block`].
    scale: f32,
    cap: Option<f32>,
    sinks: Option<&'a [f32]>,
    /// For each query head, times log2(e); empty if there are none.
    slopes: Vec<f32>,
    inputs: Vec<Input<'a>>,
    outputs: Vec<SharedSlice<'a, f32>>,
}

impl Work<'_> {
    /// Processes every block of queries on one thread.
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

    /// Processes queries that have selected few keys, each on one thread, or on several that divide its heads among them.
    fn selected(&self, pieces: &[Piece]) -> Result<(), Error> {
        let count: usize = pieces.iter().map(|piece| piece.queries.len()).sum();
        let parts = self.context.pool.threads().div_ceil(count.max(1)).min(self.group.div_ceil(keys::TILE));
        let mut single = Vec::new();
        reserve(&mut single, count * parts, "attention")?;
        for piece in pieces {
            for query in piece.queries.clone() {
                single.extend((0..parts).map(|part| {
                    let heads = part * self.group / parts..(part + 1) * self.group / parts;
                    Piece { queries: query..query + 1, heads, ..piece.clone() }
                }));
            }
        }
        let failure = Mutex::new(None);
        self.context.for_each(single.len(), &|index| {
            let piece = &single[index];
            let done = SCRATCH.with_borrow_mut(|scratch| {
                scratch.prepare(self.layout)?;
                scratch.copies.prepare(self.layout)?;
                let (block, heads) = (self.block(piece), piece.heads.clone());
                dispatch(self.context.isa, AttendSelected { block, heads, scratch });
                // SAFETY: no two of these pieces share a query and a head, and `Context::for_each` hands each out once.
                unsafe { self.finish(piece, &scratch.state.numbers) };
                Ok(())
            });
            note(&failure, done);
        })?;
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Processes the chunks of a block on any threads and joins them in order.
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
            let len = state_len(rows(piece), size);
            let (state, next) = own.split_at_mut(longest);
            for next in next.chunks_exact(longest) {
                dispatch(self.context.isa, Join { state: &mut state[..len], next: &next[..len], rows: rows(piece) });
            }
            // SAFETY: `for_each` has returned, so no other thread is at work, and the pieces come one after the other.
            unsafe { self.finish(piece, &state[..len]) };
        }
        Ok(())
    }

    /// Computes the state of a piece's rows and passes it to `take`.
    fn attend(&self, piece: &Piece, take: impl FnOnce(&[f32])) -> Result<(), Error> {
        let block = self.block(piece);
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.prepare(self.layout)?;
            dispatch(self.context.isa, Attend { block, scratch });
            take(&scratch.state.numbers);
            Ok(())
        })
    }

    /// The queries of a piece, with all heads.
    fn block(&self, piece: &Piece) -> Block<'_> {
        let input = &self.inputs[piece.item];
        Block {
            layout: self.layout,
            pages: input.pages,
            head: piece.head,
            group: self.group,
            queries: &input.queries[piece.queries.start * self.heads * self.layout.key_size..],
            visible: &input.visible[piece.queries.clone()],
            scale: self.scale,
            cap: self.cap,
            bias: Bias {
                numbers: &input.bias[(piece.head * self.group * input.bias.len()) / self.heads..],
                queries: input.visible.len(),
                positions: input.positions,
                first: piece.queries.start,
            },
            selected: Selected {
                words: &input.selected[piece.queries.start * input.selected_stride()..],
                stride: input.selected_stride(),
            },
            slopes: &self.slopes[(piece.head * self.group * self.slopes.len()) / self.heads..],
            first_position: input.positions - input.visible.len() + piece.queries.start,
            chunks: piece.chunks.clone(),
        }
    }

    /// Divides by the sums of weights and writes the output of a piece.
    ///
    /// # Safety
    /// No other thread writes the output of these queries and heads.
    unsafe fn finish(&self, piece: &Piece, state: &[f32]) {
        let (size, heads) = (self.layout.value_size, piece.heads.len());
        let rows = piece.queries.len() * heads;
        let (largest, rest) = state.split_at(rows);
        let (totals, sums) = rest.split_at(rows);
        let first_head = piece.head * self.group + piece.heads.start;
        let sinks = self.sinks.map(|sinks| &sinks[first_head..][..heads]);
        for (index, query) in piece.queries.clone().enumerate() {
            let place = (query * self.heads + first_head) * size;
            // SAFETY: the caller guarantees that no other thread writes the outputs of these queries and heads.
            let output = unsafe { self.outputs[piece.item].part(place, heads * size) };
            let first = index * heads;
            let sums = &sums[first * size.next_multiple_of(LANES)..];
            let (totals, largest) = (&totals[first..][..heads], &largest[first..][..heads]);
            dispatch(self.context.isa, Divide { sums, totals, largest, sinks, output });
        }
    }
}

/// Records the first error.
fn note(failure: &Mutex<Option<Error>>, done: Result<(), Error>) {
    if let Err(error) = done {
        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}
