//! The parallel regions of a call: activations are quantized, then groups of rows are multiplied.

use std::sync::OnceLock;

use super::additions::LowBatch;
use super::batches::{Batch, Product};
use super::decompression::Decompression;
use super::dispatch::{common, kernels};
use super::first_pieces::{self, FirstPieces};
use super::floats::pieces::FloatPlan;
use super::job::InputBuffers;
use super::pieces::{Call, PANEL_GROUPS, Prepared, Work};
use super::plan::Plan;
use super::quantizer::Quantizer;
use crate::Error;
use crate::context::Context;
use crate::formats::GROUP_ROWS;
use crate::memory::{grow, room};
use crate::shared::SharedSlice;

/// Pieces of work for few tokens that each thread has at least, if there are enough groups of rows.
const DIRECT_PIECES: usize = 16;
/// Groups of rows in such a piece, at most.
const MOST_DIRECT_GROUPS: usize = 4;

/// Runs products that have been checked. All inputs have `columns` elements per token, at least 1; the weights of resident
/// matrices have been packed.
pub(super) fn run(
    context: &Context,
    columns: usize,
    batches: &[Batch],
    lows: &[LowBatch],
    buffers: &mut InputBuffers,
) -> Result<(), Error> {
    let InputBuffers { activations, arranged, .. } = buffers;
    let common = common(context.isa);
    let mut plans = room(batches.len(), "products")?;
    let (mut tokens, mut floats) = (0, 0);
    for batch in batches {
        let plan = Plan::new(common, batch, columns, tokens, floats)?;
        tokens += batch.tokens;
        floats += plan.plain.arranged_len();
        plans.push(plan);
    }
    let low_plans = first_pieces::plans(common, lows, columns, floats)?;
    floats += low_plans.iter().map(FloatPlan::arranged_len).sum::<usize>();
    let all: Vec<_> = plans.iter().map(|plan| &plan.plain).chain(&low_plans).collect();
    arrange(context, &all, floats, arranged)?;
    let direct_groups = direct_groups(context, &plans);
    let mut pieces = 0;
    let mut works = room(batches.iter().map(|batch| batch.products.len()).sum(), "products")?;
    for plan in &plans {
        for product in &plan.batch.products {
            let packed = prepared(context, product, plan.direct)?;
            let first_piece = pieces;
            let piece_rows = match &packed {
                Some(_) if plan.direct => direct_groups * GROUP_ROWS,
                Some(_) => PANEL_GROUPS * GROUP_ROWS,
                None => plan.plain.piece_rows(product.weights),
            };
            pieces += product.weights.rows().div_ceil(piece_rows);
            works.push(Work { product, plan, first_piece, piece_rows, packed });
        }
    }
    let wanted = works.iter().filter_map(|work| work.packed.as_ref()).map(|prepared| prepared.kernels.needs);
    let quantizer = Quantizer::new(context.isa, columns, &plans, activations, wanted)?;
    let first = if lows.is_empty() {
        // SAFETY: every tile is one piece.
        context.for_each(quantizer.tiles(), &|tile| unsafe { quantizer.run(tile) })?;
        None
    } else {
        Some(FirstPieces::new(lows, &low_plans, &quantizer, context.pool.threads())?)
    };
    let call = Call { context, columns, activations: &quantizer };
    let failed = OnceLock::new();
    context.for_each(pieces, &|piece| {
        let index = works.partition_point(|work| work.first_piece <= piece) - 1;
        let work = &works[index];
        let piece = piece - work.first_piece;
        if let Err(error) = call.piece(work, piece, (arranged, first.as_ref())) {
            // The first error is reported; any others say the same.
            let _ = failed.set(error);
        }
    })?;
    failed.into_inner().map_or(Ok(()), Err)
}

/// Groups of rows in a piece of work for few tokens: several where there are many, since taking a piece costs about a
/// twentieth of the time of a group.
fn direct_groups(context: &Context, plans: &[Plan]) -> usize {
    let direct = plans.iter().filter(|plan| plan.direct).flat_map(|plan| &plan.batch.products);
    let groups: usize = direct.map(|product| product.weights.groups()).sum();
    (groups / (DIRECT_PIECES * context.pool.threads())).clamp(1, MOST_DIRECT_GROUPS)
}

/// How a quantized matrix is multiplied; nothing for plain weights.
fn prepared(context: &Context, product: &Product, direct: bool) -> Result<Option<Prepared>, Error> {
    let format = product.weights.format();
    let (Some(packing), Some(layout)) = (format.info().packing, product.weights.layout()) else { return Ok(None) };
    let decompression = Decompression::new(context.isa, format);
    let compressed = decompression.as_ref().is_some_and(|decompression| decompression.block_quants > 0);
    let mut kernels = kernels(context.isa, packing, compressed)
        .ok_or_else(|| Error::Unsupported(format!("no kernel for {}; choose another format", format.info().name)))?;
    if !direct {
        kernels.needs = kernels.panel_needs;
    }
    Ok(Some(Prepared { layout, kernels, decompression }))
}

/// Sorts the activations of all batches for panels of plain weights, one tile a piece.
fn arrange(context: &Context, plans: &[&FloatPlan], floats: usize, arranged: &mut Vec<f32>) -> Result<(), Error> {
    if floats == 0 {
        return Ok(());
    }
    grow(arranged, floats, 0.0, "activations")?;
    let mut tiles = room(plans.iter().map(|plan| plan.arranged_tiles()).sum(), "tiles of tokens")?;
    tiles.extend(plans.iter().flat_map(|plan| (0..plan.arranged_tiles()).map(move |tile| (*plan, tile))));
    let out = SharedSlice::new(&mut arranged[..floats]);
    context.for_each(tiles.len(), &|piece| {
        let (plan, tile) = tiles[piece];
        // SAFETY: every tile of every plan has a part of its own and is one piece.
        unsafe { plan.arrange(tile, &out) };
    })
}
