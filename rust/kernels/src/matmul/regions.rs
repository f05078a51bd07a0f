//! The parallel regions of a call: activations are quantized, then groups of rows are multiplied.

use std::sync::OnceLock;

use super::activations::{Activations, Needs, QuantizeTile, TileParts, Variant};
use super::batches::{Batch, Product};
use super::decompression::Decompression;
use super::dispatch::{common, kernels};
use super::job::InputBuffers;
use super::pieces::{Call, PANEL_GROUPS, Prepared, Work};
use super::plan::Plan;
use super::spans::Span;
use crate::Error;
use crate::context::Context;
use crate::math::dispatch;
use crate::memory::{grow, room};
use crate::shared::SharedSlice;
use crate::simd::Form;

/// Runs products that have been checked. All inputs have `columns` elements per token, at least 1; the weights of resident
/// matrices have been packed.
pub(super) fn run(
    context: &Context,
    columns: usize,
    batches: &[Batch],
    buffers: &mut InputBuffers,
) -> Result<(), Error> {
    let InputBuffers { activations, arranged } = buffers;
    let common = common(context.isa);
    let mut plans = room(batches.len(), "products")?;
    let (mut tokens, mut floats) = (0, 0);
    for batch in batches {
        let plan = Plan::new(common, batch, columns, tokens, floats)?;
        tokens += batch.tokens;
        floats += plan.plain.arranged_len();
        plans.push(plan);
    }
    arrange(context, &plans, floats, arranged)?;
    let mut pieces = 0;
    let mut works = room(batches.iter().map(|batch| batch.products.len()).sum(), "products")?;
    for plan in &plans {
        for product in &plan.batch.products {
            let packed = prepared(context, product, plan.direct)?;
            let first_piece = pieces;
            pieces += match &packed {
                Some(_) if plan.direct => product.weights.groups(),
                Some(_) => product.weights.groups().div_ceil(PANEL_GROUPS),
                None => plan.plain.pieces(product.weights),
            };
            works.push(Work { product, plan, first_piece, packed });
        }
    }
    let wanted = works.iter().filter_map(|work| work.packed.as_ref()).map(|prepared| prepared.kernels.needs);
    if wanted.clone().next().is_some() {
        quantize(context, columns, &plans, activations, wanted)?;
    }
    let call = Call { context, columns, activations };
    let failed = OnceLock::new();
    context.for_each(pieces, &|piece| {
        let index = works.partition_point(|work| work.first_piece <= piece) - 1;
        let work = &works[index];
        let piece = piece - work.first_piece;
        let done = match &work.packed {
            Some(prepared) if work.plan.direct => call.direct_piece(work, prepared, piece),
            Some(prepared) => call.panel_piece(work, prepared, piece),
            None => work.plan.plain.run(context.isa, arranged, work.product, piece),
        };
        if let Err(error) = done {
            // The first error is reported; any others say the same.
            let _ = failed.set(error);
        }
    })?;
    failed.into_inner().map_or(Ok(()), Err)?;
    multiply(context, batches)
}

/// Multiplies the results of matrices that have a factor by it, one token a piece.
fn multiply(context: &Context, batches: &[Batch]) -> Result<(), Error> {
    for batch in batches {
        for Product { weights, output } in batch.products.iter().filter(|product| product.weights.factor() != 1.0) {
            context.for_each(batch.tokens, &|token| {
                // SAFETY: every token is one piece, and outputs do not overlap.
                weights.multiply(unsafe { output.part(token, 0, weights.rows()) });
            })?;
        }
    }
    Ok(())
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
fn arrange(context: &Context, plans: &[Plan], floats: usize, arranged: &mut Vec<f32>) -> Result<(), Error> {
    if floats == 0 {
        return Ok(());
    }
    grow(arranged, floats, 0.0, "activations")?;
    let mut tiles = room(plans.iter().map(|plan| plan.plain.arranged_tiles()).sum(), "tiles of tokens")?;
    tiles.extend(plans.iter().flat_map(|plan| (0..plan.plain.arranged_tiles()).map(move |tile| (&plan.plain, tile))));
    let out = SharedSlice::new(&mut arranged[..floats]);
    context.for_each(tiles.len(), &|piece| {
        let (plan, tile) = tiles[piece];
        // SAFETY: every tile of every plan has a part of its own and is one piece.
        unsafe { plan.arrange(tile, &out) };
    })
}

/// Quantizes the tokens of all batches, one tile a piece.
fn quantize(
    context: &Context,
    columns: usize,
    plans: &[Plan],
    activations: &mut Activations,
    wanted: impl Iterator<Item = Needs>,
) -> Result<(), Error> {
    let blocks = columns / 32;
    let tokens = plans.last().map_or(0, |plan| plan.first + plan.tokens);
    activations.resize(tokens, blocks, wanted)?;
    let mut tiles = room(plans.iter().map(|plan| plan.spans.len()).sum(), "tiles of tokens")?;
    tiles.extend(plans.iter().flat_map(|plan| plan.spans.iter().map(move |span| (plan, *span))));
    let quants = SharedSlice::new(&mut activations.quants);
    let scales = SharedSlice::new(&mut activations.scales);
    let variants: Vec<_> = activations
        .variants
        .iter_mut()
        .map(|variant| Variant {
            needs: variant.needs,
            starts: SharedSlice::new(&mut variant.starts),
            sums: SharedSlice::new(&mut variant.sums),
            pairs: SharedSlice::new(&mut variant.pairs),
            pair_scales: SharedSlice::new(&mut variant.pair_scales),
            words: SharedSlice::new(&mut variant.words),
        })
        .collect();
    context.for_each(tiles.len(), &|tile| {
        let (plan, Span { first, count, .. }) = tiles[tile];
        let Batch { input, stride, .. } = *plan.batch;
        let input = &input[first * stride..][..(count - 1) * stride + columns];
        let first = plan.first + first;
        let range = |per_token: usize| (first * per_token, count * per_token);
        // SAFETY: tiles are contiguous runs of tokens in every buffer, and every tile is one piece.
        unsafe {
            let mut variants: Vec<_> = variants
                .iter()
                .map(|variant| {
                    let (first, len) = range(blocks * variant.needs.parts);
                    let pairs = if variant.needs.pairs { (first / 2, len / 2) } else { (0, 0) };
                    let pair_scales = if variant.needs.pairs { range(blocks / 8) } else { (0, 0) };
                    let words = if variant.needs.form == Form::Words { range(blocks * 16) } else { (0, 0) };
                    Variant {
                        needs: variant.needs,
                        starts: variant.starts.part(first, len),
                        sums: variant.sums.part(first, len),
                        pairs: variant.pairs.part(pairs.0, pairs.1),
                        pair_scales: variant.pair_scales.part(pair_scales.0, pair_scales.1),
                        words: variant.words.part(words.0, words.1),
                    }
                })
                .collect();
            let tile = TileParts {
                quants: quants.part(range(blocks * 8).0, range(blocks * 8).1),
                scales: scales.part(range(blocks).0, range(blocks).1),
                variants: &mut variants,
            };
            let eights = common(context.isa).eights;
            dispatch(context.isa, QuantizeTile { input, stride, width: columns, columns: count, eights, tile });
        }
    })
}
