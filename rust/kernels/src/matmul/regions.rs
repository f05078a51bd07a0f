//! The parallel regions of a product: activations are quantized, then groups of rows are multiplied.

use std::sync::OnceLock;

use super::activations::{Activations, Needs, QuantizeTile, TileParts, Variant};
use super::decompression::Decompression;
use super::dispatch::{common, kernels};
use super::floats::pieces::FloatCall;
use super::job::{InputBuffers, Job};
use super::pieces::{Call, PANEL_GROUPS, Prepared, Work};
use super::spans::{Span, spans};
use crate::Error;
use crate::context::Context;
use crate::math::dispatch;
use crate::shared::SharedSlice;
use crate::simd::Form;

/// Runs a checked call; the weights are packed if they are to be.
pub(super) fn run(
    context: &Context,
    input: &[f32],
    tokens: usize,
    buffers: &mut InputBuffers,
    jobs: &mut [Job],
) -> Result<(), Error> {
    let InputBuffers { activations, arranged } = buffers;
    let common = common(context.isa);
    let plain = FloatCall::new(context, common, input, tokens, arranged, jobs)?;
    let direct = tokens <= common.direct_tokens;
    let spans = spans(tokens, if direct { common.direct_widths } else { common.panel_widths })?;
    let mut pieces = 0;
    let mut works = Vec::with_capacity(jobs.len());
    for job in jobs.iter_mut() {
        let packed = match (job.weights.format().info().packing, job.weights.layout()) {
            (Some(packing), Some(layout)) => {
                let decompression = Decompression::new(context.isa, job.weights.format());
                let compressed = decompression.as_ref().is_some_and(|decompression| decompression.block_quants > 0);
                let mut kernels = kernels(context.isa, packing, compressed).ok_or_else(|| {
                    Error::Unsupported(format!(
                        "no kernel for {}; choose another format",
                        job.weights.format().info().name
                    ))
                })?;
                if !direct {
                    kernels.needs = kernels.panel_needs;
                }
                Some(Prepared { layout, kernels, decompression })
            }
            _ => None,
        };
        let first_piece = pieces;
        pieces += match &packed {
            Some(_) if direct => job.weights.groups(),
            Some(_) => job.weights.groups().div_ceil(PANEL_GROUPS),
            None => plain.pieces(job.weights),
        };
        works.push(Work { weights: job.weights, output: SharedSlice::new(job.output), first_piece, packed });
    }
    let wanted = works.iter().filter_map(|work| work.packed.as_ref()).map(|prepared| prepared.kernels.needs);
    if wanted.clone().next().is_some() {
        quantize(context, input, tokens, &spans, activations, wanted)?;
    }
    let call = Call { context, input, tokens, spans: &spans, activations };
    let failed = OnceLock::new();
    context.for_each(pieces, &|piece| {
        let index = works.partition_point(|work| work.first_piece <= piece) - 1;
        let work = &works[index];
        let piece = piece - work.first_piece;
        let done = match &work.packed {
            Some(prepared) if direct => call.direct_piece(work, prepared, piece),
            Some(prepared) => call.panel_piece(work, prepared, piece),
            None => plain.run(work.weights, &work.output, piece),
        };
        if let Err(error) = done {
            // The first error is reported; others say the same.
            let _ = failed.set(error);
        }
    })?;
    failed.into_inner().map_or(Ok(()), Err)
}

/// Quantizes all tokens, one tile a piece.
fn quantize(
    context: &Context,
    input: &[f32],
    tokens: usize,
    spans: &[Span],
    activations: &mut Activations,
    wanted: impl Iterator<Item = Needs>,
) -> Result<(), Error> {
    let columns = input.len() / tokens;
    let blocks = columns / 32;
    activations.resize(tokens, blocks, wanted)?;
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
    context.for_each(spans.len(), &|tile| {
        let Span { first, count, .. } = spans[tile];
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
            let input = &input[range(columns).0..][..range(columns).1];
            dispatch(context.isa, QuantizeTile { input, columns: count, eights: common(context.isa).eights, tile });
        }
    })
}
