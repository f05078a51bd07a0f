//! Attention for training, in the tiled form that never holds all scores (T. Dao et al., "FlashAttention", 2022): the forward
//! pass keeps the logarithm of each query's sum of weights, from which the backward pass recomputes the weights tile by tile.
//!
//! A piece of work is a sequence and a key and value head with all query heads that share it, so every gradient has one
//! writer. Tiles begin at the start of the sequence, so results do not depend on what is packed beside it.

mod gradients;
mod shape;
pub(crate) mod softmax;
mod tiles;

use super::pieces::{for_pieces, sized};
use crate::Error;
use crate::context::Context;
use crate::math::{Kernel, Lanes, dispatch};
use crate::shared::SharedSlice;
pub use shape::AttentionShape;
use softmax::{Weights, cap_scores, finish_row};
use tiles::{SIDE, Tiles};

/// Where the gradients go: as queries, keys and values, all overwritten.
#[derive(Debug)]
pub struct AttentionGradients<'a> {
    /// With respect to the queries.
    pub query: &'a mut [f32],
    /// With respect to the keys.
    pub key: &'a mut [f32],
    /// With respect to the values.
    pub value: &'a mut [f32],
}

/// Attention of all sequences. `logarithms` receives for every token and head the natural logarithm of the sum of the
/// exponents of its scores: tokens × heads.
///
/// # Errors
/// `Error::Shape` if sizes do not match; `Error::Memory`; `Error::Cancelled` if the context was interrupted.
pub fn attention_forward(
    context: &Context,
    shape: &AttentionShape,
    (query, key, value): (&[f32], &[f32], &[f32]),
    output: &mut [f32],
    logarithms: &mut [f32],
) -> Result<(), Error> {
    shape.check([query.len(), key.len(), value.len(), output.len(), logarithms.len()])?;
    let (output, logarithms) = (SharedSlice::new(output), SharedSlice::new(logarithms));
    for_pieces(context, (shape.segments.len() - 1) * shape.kv_heads, &|piece, scratch| {
        let (tokens, kv_head) = shape.piece(piece);
        let group = shape.heads / shape.kv_heads;
        for head in kv_head * group..(kv_head + 1) * group {
            let tiles = Tiles { shape, tokens: tokens.clone(), head, kv_head, query, key, value };
            dispatch(context.isa, Forward { tiles, output: &output, logarithms: &logarithms, scratch })?;
        }
        Ok(())
    })
}

/// The gradients of attention, from that with respect to its output, and what the forward pass computed.
///
/// # Errors
/// `Error::Shape` if sizes do not match; `Error::Memory`; `Error::Cancelled` if the context was interrupted.
pub fn attention_backward(
    context: &Context,
    shape: &AttentionShape,
    (query, key, value): (&[f32], &[f32], &[f32]),
    (output, logarithms, gradient): (&[f32], &[f32], &[f32]),
    gradients: AttentionGradients,
) -> Result<(), Error> {
    shape.check([query.len(), key.len(), value.len(), output.len(), logarithms.len()])?;
    let AttentionGradients { query: of_query, key: of_key, value: of_value } = gradients;
    shape.check([of_query.len(), of_key.len(), of_value.len(), gradient.len(), logarithms.len()])?;
    let targets = [SharedSlice::new(of_query), SharedSlice::new(of_key), SharedSlice::new(of_value)];
    for_pieces(context, (shape.segments.len() - 1) * shape.kv_heads, &|piece, scratch| {
        let (tokens, kv_head) = shape.piece(piece);
        let group = shape.heads / shape.kv_heads;
        for head in kv_head * group..(kv_head + 1) * group {
            let tiles = Tiles { shape, tokens: tokens.clone(), head, kv_head, query, key, value };
            let first = head == kv_head * group;
            let known = gradients::Known { output, logarithms, gradient };
            dispatch(context.isa, gradients::Backward { tiles, known, targets: &targets, first, scratch })?;
        }
        Ok(())
    })
}

/// One head of one sequence.
struct Forward<'a> {
    tiles: Tiles<'a>,
    output: &'a SharedSlice<'a, f32>,
    logarithms: &'a SharedSlice<'a, f32>,
    scratch: &'a mut super::pieces::Scratch,
}

impl Kernel for Forward<'_> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Result<(), Error> {
        let Self { tiles, output, logarithms, scratch } = self;
        let shape = tiles.shape;
        let sink = shape.sinks.map(|sinks| sinks[tiles.head]);
        let value_row = shape.heads * shape.value_size;
        let offset = tiles.head * shape.value_size;
        for first in (0..tiles.tokens.len()).step_by(SIDE) {
            let rows = SIDE.min(tiles.tokens.len() - first);
            let mut state = [Weights::new(sink); SIDE];
            for row in 0..rows {
                let start = (tiles.tokens.start + first + row) * value_row + offset;
                // SAFETY: this piece alone writes this head of its tokens.
                unsafe { output.part(start, shape.value_size) }.fill(0.0);
            }
            for keys in tiles.keys(first, rows) {
                let scores = sized(&mut scratch.scores, SIDE * SIDE)?;
                // SAFETY: the scores are this thread's.
                unsafe {
                    tiles.scores::<L>(
                        set,
                        (first, rows),
                        &keys,
                        scores,
                        &mut scratch.left,
                        &mut scratch.right,
                        &mut scratch.rows,
                    )?;
                }
                for (row, scores) in scores.chunks_exact_mut(SIDE).take(rows).enumerate() {
                    let seen = tiles.seen(first + row, &keys);
                    if let Some(cap) = shape.soft_cap {
                        cap_scores::<L>(set, &mut scores[..keys.len()], cap);
                    }
                    let factor = state[row].take::<L>(set, &mut scores[..keys.len()], seen);
                    // SAFETY: this piece alone writes this head of its tokens.
                    let to = unsafe {
                        output.part((tiles.tokens.start + first + row) * value_row + offset, shape.value_size)
                    };
                    if factor != 1.0 {
                        for value in to {
                            *value *= factor;
                        }
                    }
                }
                // SAFETY: as above.
                unsafe {
                    tiles.add_values::<L>(
                        set,
                        (first, rows),
                        &keys,
                        scores,
                        (output, offset),
                        &mut scratch.left,
                        &mut scratch.right,
                        &mut scratch.rows,
                    )?;
                }
            }
            for (row, state) in state.iter().take(rows).enumerate() {
                let token = tiles.tokens.start + first + row;
                // SAFETY: this piece alone writes this head of its tokens.
                let (to, logarithm) = unsafe {
                    (
                        output.part(token * value_row + offset, shape.value_size),
                        logarithms.part(token * shape.heads + tiles.head, 1),
                    )
                };
                logarithm[0] = finish_row(*state, to);
            }
        }
        Ok(())
    }
}
