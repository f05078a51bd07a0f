//! The parallel regions of a product: activations are quantized, then groups of rows are multiplied.

use std::sync::OnceLock;

use super::activations::{Activations, Needs, QuantizeTile, TileParts, Variant};
use super::buffers::Buffers;
use super::dispatch::{Kernels, common, kernels};
use super::floats::pieces::FloatCall;
use super::tile::Tile;
use super::unfolding::{STEP, Unfolding};
use super::{Job, Matrix, Scratch};
use crate::Error;
use crate::context::Context;
use crate::formats::Layout;
use crate::math::dispatch;
use crate::shared::Shared;
use crate::simd::{Form, ROWS};

/// Groups of rows in a piece of work of the panel way.
const PANEL_GROUPS: usize = 2;
/// Blocks of 32 columns that a panel holds: with 32 rows at most 320 KB, which stays in the second-level cache.
const PANEL_BLOCKS: usize = 256;

/// The tokens of a tile.
#[derive(Clone, Copy)]
pub(super) struct Span {
    /// The first token.
    pub(super) first: usize,
    /// How many.
    pub(super) count: usize,
    /// Which of the widths `count` is.
    pub(super) index: usize,
}

/// Divides tokens into tiles of the given widths (ascending, from 1): as many as possible of the largest, the rest in
/// smaller ones.
pub(super) fn spans(tokens: usize, widths: &[usize]) -> Vec<Span> {
    let mut spans = Vec::with_capacity(tokens / widths.last().unwrap_or(&1) + widths.len());
    let mut first = 0;
    for (index, count) in widths.iter().copied().enumerate().rev() {
        while tokens - first >= count {
            spans.push(Span { first, count, index });
            first += count;
        }
    }
    spans
}

/// A job, prepared.
struct Work<'a> {
    weights: &'a Matrix,
    output: Shared<'a, f32>,
    /// First piece of this job.
    first_piece: usize,
    /// None for plain weights.
    packed: Option<Prepared>,
}

/// What quantized weights need.
struct Prepared {
    layout: Layout,
    kernels: Kernels,
    /// None if the layout is as the kernels read it.
    unfolding: Option<Unfolding>,
}

/// What all pieces share.
struct Call<'a> {
    context: &'a Context<'a>,
    input: &'a [f32],
    tokens: usize,
    spans: &'a [Span],
    activations: &'a Activations,
}

/// Runs a checked call; the weights are packed if they are to be.
pub(super) fn run(
    context: &Context,
    input: &[f32],
    tokens: usize,
    scratch: &mut Scratch,
    jobs: &mut [Job],
) -> Result<(), Error> {
    let Scratch { activations, arranged } = scratch;
    let common = common(context.isa);
    let plain = FloatCall::new(context, common, input, tokens, arranged, jobs)?;
    let direct = tokens <= common.direct_tokens;
    let spans = spans(tokens, if direct { common.direct_widths } else { common.panel_widths });
    let mut pieces = 0;
    let mut works = Vec::with_capacity(jobs.len());
    for job in jobs.iter_mut() {
        let packed = match (job.weights.format().info().packing, job.weights.layout()) {
            (Some(packing), Some(layout)) => {
                let unfolding = Unfolding::new(context.isa, job.weights.format());
                let folded = unfolding.as_ref().is_some_and(|unfolding| unfolding.block_quants > 0);
                let mut kernels = kernels(context.isa, packing, folded).ok_or_else(|| {
                    Error::Unsupported(format!(
                        "no kernel for {}; choose another format",
                        job.weights.format().info().name
                    ))
                })?;
                if !direct {
                    kernels.needs = kernels.panel_needs;
                }
                Some(Prepared { layout, kernels, unfolding })
            }
            _ => None,
        };
        let first_piece = pieces;
        pieces += match &packed {
            Some(_) if direct => job.weights.groups(),
            Some(_) => job.weights.groups().div_ceil(PANEL_GROUPS),
            None => plain.pieces(job.weights),
        };
        works.push(Work { weights: job.weights, output: Shared::new(job.output), first_piece, packed });
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
    activations.resize(tokens, blocks, wanted);
    let quants = Shared::new(&mut activations.quants);
    let scales = Shared::new(&mut activations.scales);
    let variants: Vec<_> = activations
        .variants
        .iter_mut()
        .map(|variant| Variant {
            needs: variant.needs,
            starts: Shared::new(&mut variant.starts),
            sums: Shared::new(&mut variant.sums),
            pairs: Shared::new(&mut variant.pairs),
            pair_scales: Shared::new(&mut variant.pair_scales),
            words: Shared::new(&mut variant.words),
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

impl Call<'_> {
    /// Operands of a tile of tokens, from block `block` on; weights and results are left to the caller.
    fn operands(&self, kernels: &Kernels, span: Span, block: usize) -> Tile {
        let blocks = self.input.len() / self.tokens / 32;
        let Needs { parts, pairs, form, .. } = kernels.needs;
        let variant = self.activations.variant(kernels.needs);
        let first = span.first * blocks + block * span.count;
        Tile {
            quants: std::ptr::null(),
            scales: std::ptr::null(),
            stride: (0, 0),
            folded: (std::ptr::null(), std::ptr::null()),
            folded_bytes: (0, 0),
            table: NO_TABLE.as_ptr(),
            blocks: blocks - block,
            activations: match form {
                Form::Words => variant.words[16 * first..].as_ptr(),
                _ => self.activations.quants[8 * first..].as_ptr(),
            },
            starts: variant.starts[parts * first..].as_ptr(),
            sums: variant.sums[parts * first..].as_ptr(),
            pairs: variant.pairs[if pairs { parts * first / 2 } else { 0 }..].as_ptr(),
            pair_scales: variant.pair_scales[if pairs { first / 8 } else { 0 }..].as_ptr(),
            activation_scales: self.activations.scales[first..].as_ptr(),
            output: std::ptr::null_mut(),
            output_stride: 0,
            resume: false,
        }
    }

    /// Few tokens: one group of rows straight from the packed layout.
    fn direct_piece(&self, work: &Work, prepared: &Prepared, group: usize) -> Result<(), Error> {
        let Prepared { layout, kernels, unfolding } = prepared;
        let rows = work.weights.rows();
        let row = group * ROWS;
        let whole = row + ROWS <= rows;
        let blocks = work.weights.columns() / 32;
        let found = work.weights.packed_group(group, *layout);
        if let (Some(packed), None, true) = (found, unfolding, whole) {
            // The usual case, which needs no buffers; taking them costs each of many small pieces a tenth of a microsecond.
            for span in self.spans {
                let mut tile = self.operands(kernels, *span, 0);
                set_weights(&mut tile, work.weights, packed, *layout);
                (tile.output, tile.output_stride) = (work.output.at(span.first * rows + row), rows);
                // SAFETY: the instruction set is the context's; operands have the sizes of the layout and of the activations;
                // rows of this group are written by this piece only.
                unsafe { kernels.direct[span.index](&tile) };
            }
            return Ok(());
        }
        let packed_bytes = if found.is_some() { 0 } else { layout.group_bytes };
        let spare_bytes = if whole { 0 } else { self.tokens * ROWS * 4 };
        let [quant_bytes, scale_bytes] = unfolding.as_ref().map_or([0, 0], Unfolding::step_bytes);
        Buffers::with([0, 0, packed_bytes, spare_bytes, quant_bytes, scale_bytes], |buffers| {
            if found.is_none() {
                work.weights.pack(self.context.isa, group, *layout, &mut buffers.packed);
            }
            let packed = found.unwrap_or(&buffers.packed);
            let [quants, scales] = &mut buffers.unfolded;
            let spare = buffers.results.view_mut::<f32>();
            let step = if unfolding.is_some() { STEP } else { blocks };
            for block in (0..blocks).step_by(step) {
                let count = step.min(blocks - block);
                if let Some(unfolding) = unfolding {
                    unfolding.run((packed, *layout), (block, count), quants, scales);
                }
                for span in self.spans {
                    let mut tile = self.operands(kernels, *span, block);
                    set_weights(&mut tile, work.weights, packed, *layout);
                    if unfolding.is_some() {
                        skip_blocks(&mut tile, *layout, block);
                        tile.folded = (tile.quants, tile.scales);
                        tile.folded_bytes = (layout.block_quants, layout.block_scales);
                        if quant_bytes > 0 {
                            tile.quants = quants.as_ptr();
                        }
                        tile.scales = scales.as_ptr();
                    }
                    tile.blocks = count;
                    tile.resume = block > 0;
                    (tile.output, tile.output_stride) = if whole {
                        (work.output.at(span.first * rows + row), rows)
                    } else {
                        (spare[span.first * ROWS..].as_mut_ptr(), ROWS)
                    };
                    // SAFETY: the instruction set is the context's; operands have the sizes of the layout and of the
                    // activations; rows of this group are written by this piece only.
                    unsafe { kernels.direct[span.index](&tile) };
                }
            }
            if !whole {
                for (token, results) in spare.chunks_exact(ROWS).take(self.tokens).enumerate() {
                    // SAFETY: as above.
                    let out = unsafe { work.output.part(token * rows + row, rows - row) };
                    out.copy_from_slice(&results[..rows - row]);
                }
            }
        })
    }

    /// Many tokens: up to two groups of rows, expanded into a panel a part of the columns at a time.
    fn panel_piece(&self, work: &Work, prepared: &Prepared, piece: usize) -> Result<(), Error> {
        let Prepared { layout, kernels, unfolding } = prepared;
        let layout = *layout;
        let rows = work.weights.rows();
        let first_group = piece * PANEL_GROUPS;
        let groups = PANEL_GROUPS.min(work.weights.groups() - first_group);
        let row = first_group * ROWS;
        let whole = row + groups * ROWS <= rows;
        let blocks = work.weights.columns() / 32;
        let panel_blocks = blocks.min(PANEL_BLOCKS);
        let block_scales = unfolding.as_ref().map_or(kernels.panel_scale_bytes, |unfolding| unfolding.block_scales);
        let (quant_bytes, scale_bytes) = (512 * panel_blocks, block_scales * panel_blocks);
        let step_bytes = unfolding.as_ref().map_or(0, |unfolding| unfolding.step_bytes()[0]);
        let spare_bytes = if whole { 0 } else { self.tokens * groups * ROWS * 4 };
        let packed_bytes = if work.weights.packed_group(0, layout).is_some() { 0 } else { groups * layout.group_bytes };
        let sizes = [groups * quant_bytes, groups * scale_bytes, packed_bytes, spare_bytes, step_bytes, 0];
        Buffers::with(sizes, |buffers| {
            let quants = &mut buffers.quants;
            let scales = &mut buffers.scales;
            let unfolded = &mut buffers.unfolded[0];
            let packed = &mut buffers.packed;
            let spare = buffers.results.view_mut::<f32>().as_mut_ptr();
            if packed_bytes > 0 {
                for (group, out) in packed.chunks_exact_mut(layout.group_bytes).take(groups).enumerate() {
                    work.weights.pack(self.context.isa, first_group + group, layout, out);
                }
            }
            for block in (0..blocks).step_by(PANEL_BLOCKS) {
                let count = PANEL_BLOCKS.min(blocks - block);
                let mut packed_scales = std::ptr::null();
                for group in 0..groups {
                    let found = work.weights.packed_group(first_group + group, layout);
                    let bytes = found.unwrap_or_else(|| &packed[group * layout.group_bytes..][..layout.group_bytes]);
                    let mut from = self.operands(kernels, self.spans[0], 0);
                    set_weights(&mut from, work.weights, bytes, layout);
                    skip_blocks(&mut from, layout, block);
                    if group == 0 {
                        packed_scales = from.scales;
                    }
                    let step = if unfolding.is_some() { STEP } else { count };
                    for skip in (0..count).step_by(step) {
                        from.blocks = step.min(count - skip);
                        let quants = quants[group * quant_bytes + 512 * skip..].as_mut_ptr();
                        let scales = &mut scales[group * scale_bytes + block_scales * skip..];
                        if let Some(unfolding) = unfolding {
                            unfolding.run((bytes, layout), (block + skip, from.blocks), unfolded, scales);
                            if step_bytes > 0 {
                                from.quants = unfolded.as_ptr();
                            }
                        }
                        // SAFETY: the instruction set is the context's; the panel has room for `panel_blocks` blocks, of
                        // scales too if they are expanded, which lie aligned.
                        unsafe { (kernels.expand)(&from, quants, scales.as_mut_ptr().cast()) };
                        from.quants = from.quants.wrapping_add(layout.block_quants * from.blocks);
                    }
                }
                for span in self.spans {
                    let token = span.first;
                    let mut tile = self.operands(kernels, *span, block);
                    tile.blocks = count;
                    tile.resume = block > 0;
                    tile.stride = (quant_bytes, if scale_bytes == 0 { layout.group_bytes } else { scale_bytes });
                    let step = if groups == PANEL_GROUPS && !kernels.wide_panel.is_empty() { PANEL_GROUPS } else { 1 };
                    for group in (0..groups).step_by(step) {
                        tile.quants = quants[group * quant_bytes..].as_ptr();
                        tile.scales = if scale_bytes == 0 {
                            // Groups lie one after the other in the packed layout.
                            packed_scales.wrapping_add(group * layout.group_bytes)
                        } else {
                            scales[group * scale_bytes..].as_ptr()
                        };
                        (tile.output, tile.output_stride) = if whole {
                            (work.output.at(token * rows + row + group * ROWS), rows)
                        } else {
                            (spare.wrapping_add((token * groups + group) * ROWS), groups * ROWS)
                        };
                        let list = if step == 1 { kernels.panel } else { kernels.wide_panel };
                        // SAFETY: the instruction set is the context's; the panel holds `count` blocks of `step` groups,
                        // the activations as many; rows of this piece are written by this piece only.
                        unsafe { list[span.index](&tile) };
                    }
                }
            }
            if !whole {
                for token in 0..self.tokens {
                    // SAFETY: rows of this piece are written by this piece only; `spare` holds tokens × groups × 16.
                    unsafe {
                        let out = work.output.part(token * rows + row, rows - row);
                        out.as_mut_ptr().copy_from_nonoverlapping(spare.add(token * groups * ROWS), out.len());
                    }
                }
            }
        })
    }
}

/// For weights without a table.
static NO_TABLE: [u8; 16] = [0; 16];

/// Points a tile to a packed group.
fn set_weights(tile: &mut Tile, weights: &Matrix, packed: &[u8], layout: Layout) {
    tile.quants = packed.as_ptr();
    tile.scales = packed[layout.quant_bytes..].as_ptr();
    if let Some(table) = weights.format().info().packing.and_then(|packing| packing.table) {
        tile.table = table.as_ptr();
    }
}

/// Moves a tile `block` blocks on; a multiple of 8, so that scales of 256 columns stay whole.
fn skip_blocks(tile: &mut Tile, layout: Layout, block: usize) {
    tile.quants = tile.quants.wrapping_add(layout.block_quants * block);
    tile.scales = tile.scales.wrapping_add(layout.block_scales * block);
}
