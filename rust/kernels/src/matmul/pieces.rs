//! Pieces of work of a product of quantized weights: straight from the packed layout, or through panels.

use super::activations::Needs;
use super::batches::Product;
use super::buffers::PieceBuffers;
use super::decompression::{Decompression, STEP};
use super::first_pieces::FirstPieces;
use super::kernels::Kernels;
use super::matrix::Matrix;
use super::operands::{ExpandOperands, TileOperands};
use super::placed::rows_of;
use super::plan::Plan;
use super::quantizer::Quantizer;
use super::spans::Span;
use super::unit::Configured;
use crate::Error;
use crate::context::Context;
use crate::formats::{GROUP_ROWS, Layout};
use crate::simd::Form;

/// Groups of rows in a piece of work that uses panels.
pub(super) const PANEL_GROUPS: usize = 2;
/// Blocks of 32 columns that a panel holds: at most 320 KB with 32 rows, which stays in the second-level cache.
const PANEL_BLOCKS: usize = 256;

/// A prepared product.
pub(super) struct Work<'a> {
    pub(super) product: &'a Product<'a>,
    /// The tokens that are multiplied.
    pub(super) plan: &'a Plan<'a>,
    /// First piece of this product.
    pub(super) first_piece: usize,
    /// Rows of a piece.
    pub(super) piece_rows: usize,
    /// None for plain weights.
    pub(super) packed: Option<Prepared>,
}

/// What quantized weights need.
pub(super) struct Prepared {
    pub(super) layout: Layout,
    pub(super) kernels: Kernels,
    /// None if the kernels read the packed layout as it is.
    pub(super) decompression: Option<Decompression>,
}

/// The data shared by all pieces.
pub(super) struct Call<'a> {
    pub(super) context: &'a Context<'a>,
    /// Length of a token's activations.
    pub(super) columns: usize,
    pub(super) activations: &'a Quantizer<'a>,
}

impl Call<'_> {
    /// A piece of a product and what is added to it, after as much as there is left to do of what comes first.
    pub(super) fn piece(
        &self,
        work: &Work,
        piece: usize,
        (arranged, first): (&[f32], Option<&FirstPieces>),
    ) -> Result<(), Error> {
        let Product { weights, output, addition } = work.product;
        if let Some(first) = first {
            first.help(self.context.isa, arranged)?;
            first.wait_for_activations();
        }
        let rows = rows_of(piece, work.piece_rows, weights.rows());
        if let Some(addition) = addition {
            addition.prefetch(&rows);
        }
        match &work.packed {
            Some(prepared) if work.plan.direct => {
                for group in rows.start / GROUP_ROWS..rows.end.div_ceil(GROUP_ROWS) {
                    self.direct_group(work, prepared, group)?;
                }
            }
            Some(prepared) => self.panel_piece(work, prepared, piece)?,
            None => {
                let piece = (piece, self.context.pool.threads());
                work.plan.plain.run(self.context.isa, arranged, work.product, piece)?;
            }
        }
        if weights.factor() != 1.0 {
            for token in 0..work.plan.tokens {
                // SAFETY: these rows are written by this piece only.
                weights.multiply(unsafe { output.part(token, rows.start, rows.len()) });
            }
        }
        let Some(addition) = addition else { return Ok(()) };
        if let Some(first) = first {
            first.wait_for_products();
        }
        // SAFETY: these rows are written by this piece only, and the small products are done.
        unsafe { addition.apply(self.context.isa, output, work.plan.tokens, rows) };
        Ok(())
    }

    /// Operands of a tile of tokens, from block `block` on; weights and results are left to the caller.
    fn operands(&self, plan: &Plan, kernels: &Kernels, span: Span, block: usize) -> TileOperands {
        let blocks = self.columns / 32;
        let Needs { parts, pairs, form, .. } = kernels.needs;
        let variant = self.activations.variant(kernels.needs);
        let first = (plan.first + span.first) * blocks + block * span.count;
        TileOperands {
            quants: std::ptr::null(),
            scales: std::ptr::null(),
            stride: (0, 0),
            compressed: (std::ptr::null(), std::ptr::null()),
            compressed_bytes: (0, 0),
            table: NO_TABLE.as_ptr(),
            blocks: blocks - block,
            columns: span.count,
            activations: match form {
                Form::Words => variant.words.at(16 * first),
                _ => self.activations.quants(8 * first),
            },
            starts: variant.starts.at(parts * first),
            sums: variant.sums.at(parts * first),
            pairs: variant.pairs.at(if pairs { parts * first / 2 } else { 0 }),
            pair_scales: variant.pair_scales.at(if pairs { first / 8 } else { 0 }),
            activation_scales: self.activations.scales(first),
            output: std::ptr::null_mut(),
            output_stride: 0,
            resume: false,
        }
    }

    /// For few tokens: computes one group of rows straight from the packed layout.
    fn direct_group(&self, work: &Work, prepared: &Prepared, group: usize) -> Result<(), Error> {
        let Prepared { layout, kernels, decompression } = prepared;
        let (plan, Product { weights, output, .. }) = (work.plan, work.product);
        let rows = weights.rows();
        let row = group * GROUP_ROWS;
        let whole = row + GROUP_ROWS <= rows;
        let blocks = weights.columns() / 32;
        let found = weights.packed_group(group, *layout);
        if let (Some(packed), None, true) = (found, decompression, whole) {
            // The common case, which needs no buffers; taking them costs each of many small pieces a tenth of a microsecond.
            for span in &plan.spans {
                let mut tile = self.operands(plan, kernels, *span, 0);
                set_weights(&mut tile, weights, packed, *layout);
                (tile.output, tile.output_stride) = output.at(span.first, row);
                // SAFETY: the instruction set is the context's; operands have the sizes of the layout and of the activations;
                // rows of this group are written by this piece only.
                unsafe { kernels.direct[span.index](&tile) };
            }
            return Ok(());
        }
        let packed_bytes = if found.is_some() { 0 } else { layout.group_bytes };
        let spare_bytes = if whole { 0 } else { plan.tokens * GROUP_ROWS * 4 };
        let [quant_bytes, scale_bytes] = decompression.as_ref().map_or([0, 0], Decompression::step_bytes);
        PieceBuffers::with([0, 0, packed_bytes, spare_bytes, quant_bytes, scale_bytes], |buffers| {
            if found.is_none() {
                weights.pack(self.context.isa, group, *layout, &mut buffers.packed);
            }
            let packed = found.unwrap_or(&buffers.packed);
            let [quants, scales] = &mut buffers.decompressed;
            let spare = buffers.results.view_mut::<f32>();
            let step = if decompression.is_some() { STEP } else { blocks };
            for block in (0..blocks).step_by(step) {
                let count = step.min(blocks - block);
                if let Some(decompression) = decompression {
                    decompression.run((packed, *layout), (block, count), quants, scales);
                }
                for span in &plan.spans {
                    let mut tile = self.operands(plan, kernels, *span, block);
                    set_weights(&mut tile, weights, packed, *layout);
                    if decompression.is_some() {
                        skip_blocks(&mut tile, *layout, block);
                        tile.compressed = (tile.quants, tile.scales);
                        tile.compressed_bytes = (layout.block_quants, layout.block_scales);
                        if quant_bytes > 0 {
                            tile.quants = quants.as_ptr();
                        }
                        tile.scales = scales.as_ptr();
                    }
                    tile.blocks = count;
                    tile.resume = block > 0;
                    (tile.output, tile.output_stride) = if whole {
                        output.at(span.first, row)
                    } else {
                        (spare[span.first * GROUP_ROWS..].as_mut_ptr(), GROUP_ROWS)
                    };
                    // SAFETY: the instruction set is the context's; operands have the sizes of the layout and of the
                    // activations; rows of this group are written by this piece only.
                    unsafe { kernels.direct[span.index](&tile) };
                }
            }
            if !whole {
                for (token, results) in spare.chunks_exact(GROUP_ROWS).take(plan.tokens).enumerate() {
                    // SAFETY: the rows of this group of one token, which this piece alone writes.
                    let out = unsafe { output.part(token, row, rows - row) };
                    out.copy_from_slice(&results[..rows - row]);
                }
            }
        })
    }

    /// For many tokens: computes up to two groups of rows, expanded into a panel, a part of the columns at a time.
    fn panel_piece(&self, work: &Work, prepared: &Prepared, piece: usize) -> Result<(), Error> {
        let Prepared { layout, kernels, decompression } = prepared;
        let (plan, Product { weights, output, .. }) = (work.plan, work.product);
        let layout = *layout;
        let rows = weights.rows();
        let first_group = piece * PANEL_GROUPS;
        let groups = PANEL_GROUPS.min(weights.groups() - first_group);
        let row = first_group * GROUP_ROWS;
        let whole = row + groups * GROUP_ROWS <= rows;
        let blocks = weights.columns() / 32;
        let panel_blocks = blocks.min(PANEL_BLOCKS);
        let block_scales =
            decompression.as_ref().map_or(kernels.panel_scale_bytes, |decompression| decompression.block_scales);
        let (quant_bytes, scale_bytes) = (512 * panel_blocks, block_scales * panel_blocks);
        let step_bytes = decompression.as_ref().map_or(0, |decompression| decompression.step_bytes()[0]);
        let spare_bytes = if whole { 0 } else { plan.tokens * groups * GROUP_ROWS * 4 };
        let packed_bytes = if weights.packed_group(0, layout).is_some() { 0 } else { groups * layout.group_bytes };
        let sizes = [groups * quant_bytes, groups * scale_bytes, packed_bytes, spare_bytes, step_bytes, 0];
        PieceBuffers::with(sizes, |buffers| {
            let quants = &mut buffers.quants;
            let scales = &mut buffers.scales;
            let decompressed = &mut buffers.decompressed[0];
            let packed = &mut buffers.packed;
            let spare = buffers.results.view_mut::<f32>().as_mut_ptr();
            if packed_bytes > 0 {
                for (group, out) in packed.chunks_exact_mut(layout.group_bytes).take(groups).enumerate() {
                    weights.pack(self.context.isa, first_group + group, layout, out);
                }
            }
            let zero = weights.format().info().packing.map_or(0, |packing| packing.zero);
            let mut unit = Configured::new(kernels.unit);
            // All groups in one slice, so that pointers may move from one to the next.
            let packed = weights.packed_from(first_group, layout).unwrap_or(packed);
            for block in (0..blocks).step_by(PANEL_BLOCKS) {
                let count = PANEL_BLOCKS.min(blocks - block);
                for group in 0..groups {
                    let bytes = &packed[group * layout.group_bytes..];
                    let mut from = self.operands(plan, kernels, plan.spans[0], 0);
                    set_weights(&mut from, weights, bytes, layout);
                    skip_blocks(&mut from, layout, block);
                    let step = if decompression.is_some() { STEP } else { count };
                    for skip in (0..count).step_by(step) {
                        from.blocks = step.min(count - skip);
                        let quants = quants[group * quant_bytes + 512 * skip..].as_mut_ptr();
                        let scales = &mut scales[group * scale_bytes + block_scales * skip..];
                        if let Some(decompression) = decompression {
                            decompression.run((bytes, layout), (block + skip, from.blocks), decompressed, scales);
                            if step_bytes > 0 {
                                from.quants = decompressed.as_ptr();
                            }
                        }
                        // SAFETY: the instruction set is the context's; the panel has room for `panel_blocks` blocks, of
                        // scales too if they are expanded, which lie aligned.
                        unsafe {
                            let scales = scales.as_mut_ptr().cast();
                            (kernels.expand)(&ExpandOperands { from, zero, quants, scales });
                        };
                        from.quants = from.quants.wrapping_add(layout.block_quants * from.blocks);
                    }
                }
                for span in &plan.spans {
                    let token = span.first;
                    unit.set(span.count);
                    let mut tile = self.operands(plan, kernels, *span, block);
                    tile.blocks = count;
                    tile.resume = block > 0;
                    tile.stride = (quant_bytes, if scale_bytes == 0 { layout.group_bytes } else { scale_bytes });
                    let step = if groups == PANEL_GROUPS && !kernels.wide_panel.is_empty() { PANEL_GROUPS } else { 1 };
                    for group in (0..groups).step_by(step) {
                        tile.quants = quants[group * quant_bytes..].as_ptr();
                        tile.scales = if scale_bytes == 0 {
                            let first = group * layout.group_bytes + layout.quant_bytes;
                            packed[first + layout.block_scales * block..].as_ptr()
                        } else {
                            scales[group * scale_bytes..].as_ptr()
                        };
                        (tile.output, tile.output_stride) = if whole {
                            output.at(token, row + group * GROUP_ROWS)
                        } else {
                            (spare.wrapping_add((token * groups + group) * GROUP_ROWS), groups * GROUP_ROWS)
                        };
                        let list = if step == 1 { kernels.panel } else { kernels.wide_panel };
                        // SAFETY: the instruction set is the context's; the panel holds `count` blocks of `step` groups,
                        // the activations as many; rows of this piece are written by this piece only.
                        unsafe { list[span.index](&tile) };
                    }
                }
            }
            if !whole {
                for token in 0..plan.tokens {
                    // SAFETY: rows of this piece are written by this piece only; `spare` holds tokens × groups × 16.
                    unsafe {
                        let out = output.part(token, row, rows - row);
                        out.as_mut_ptr().copy_from_nonoverlapping(spare.add(token * groups * GROUP_ROWS), out.len());
                    }
                }
            }
        })
    }
}

/// Placeholder for weights without a table.
static NO_TABLE: [u8; 16] = [0; 16];

/// Points a tile to a packed group.
fn set_weights(tile: &mut TileOperands, weights: &Matrix, packed: &[u8], layout: Layout) {
    tile.quants = packed.as_ptr();
    tile.scales = packed[layout.quant_bytes..].as_ptr();
    if let Some(table) = weights.format().info().packing.and_then(|packing| packing.table) {
        tile.table = table.as_ptr();
    }
}

/// Advances a tile by `block` blocks: a multiple of 8, so that scales of 256 columns stay whole.
fn skip_blocks(tile: &mut TileOperands, layout: Layout, block: usize) {
    tile.quants = tile.quants.wrapping_add(layout.block_quants * block);
    tile.scales = tile.scales.wrapping_add(layout.block_scales * block);
}
