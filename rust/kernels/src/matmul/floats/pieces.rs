//! Partition of a product of plain weights into pieces of work.

use std::ops::Range;

use super::panel::{self, ArrangeOperands, CHAINS, GAP, PanelSource, PanelTileOperands, WAITING, chain_stride};
use super::{FLOAT_ROWS, FloatTileOperands, SUMS};
use crate::Error;
use crate::cpu::Isa;
use crate::math::prefetch;
use crate::matmul::batches::{Batch, Product};
use crate::matmul::buffers::PieceBuffers;
use crate::matmul::dispatch::plain;
use crate::matmul::kernels::{Common, PlainKernels};
use crate::matmul::matrix::Matrix;
use crate::matmul::spans::{Span, even_spans, spans};
use crate::shared::SharedSlice;

/// As many chains as fit into this many columns are processed before the next tile of tokens: with 64 rows these are 1 MB,
/// which fits into the second-level cache.
const PART_COLUMNS: usize = 4096;
/// Longer rows are multiplied straight from the file, so that panels stay small.
const MOST_COLUMNS: usize = CHAINS * PART_COLUMNS;

/// Bytes of the rows of the next piece that are prefetched, at most: they share the second-level cache with a panel.
const MOST_AHEAD: usize = 256 << 10;

/// Tokens of a part of a small matrix, approximately.
const PART_TOKENS: usize = 24;

/// Partition of the products of a batch with plain weights.
pub(crate) struct FloatPlan<'a> {
    common: &'static Common,
    input: &'a [f32],
    /// Floats from one token's activations to the next, of which the first `columns` are used.
    stride: usize,
    columns: usize,
    tokens: usize,
    /// Tiles of tokens straight from the file.
    direct: Vec<Span>,
    /// Tiles of tokens multiplied by panels; empty if no product uses panels.
    panel: Vec<Span>,
    /// Start of the batch's activations among those sorted for panels: see `panel::arrange`.
    first: usize,
}

/// Start of a tile's activations among the arranged ones.
fn arranged_at(columns: usize, tile: usize, span: Span) -> usize {
    CHAINS * (panel::steps(columns) * span.first + tile * GAP)
}

impl<'a> FloatPlan<'a> {
    /// Partitions the products of the batch that have plain weights. `first` is the start of the batch's sorted
    /// activations.
    pub(crate) fn new(common: &'static Common, batch: &Batch<'a>, columns: usize, first: usize) -> Result<Self, Error> {
        let Batch { input, stride, tokens, .. } = *batch;
        let mut plan = Self { common, input, stride, columns, tokens, direct: Vec::new(), panel: Vec::new(), first };
        let plain =
            || batch.products.iter().map(|product| product.weights).filter(|weights| weights.layout().is_none());
        if plain().next().is_some() {
            plan.direct = spans(tokens, common.float_widths)?;
        }
        if plain().any(|weights| plan.by_panel(weights)) {
            let sets = &common.float_panel;
            plan.panel = even_spans(tokens, sets.least, sets.least + sets.tiles.len() - 1)?;
        }
        Ok(plan)
    }

    /// Number of floats of the sorted activations.
    pub(crate) fn arranged_len(&self) -> usize {
        if self.panel.is_empty() {
            return 0;
        }
        CHAINS * (panel::steps(self.columns) * self.tokens + self.panel.len() * GAP)
    }

    /// Number of tiles of sorted activations.
    pub(crate) fn arranged_tiles(&self) -> usize {
        self.panel.len()
    }

    /// Sorts the activations of a tile for panels.
    ///
    /// # Safety
    /// No other thread uses this tile's part of `out` meanwhile.
    pub(crate) unsafe fn arrange(&self, tile: usize, out: &SharedSlice<f32>) {
        let span = self.panel[tile];
        let from = &self.input[span.first * self.stride..][..(span.count - 1) * self.stride + self.columns];
        // SAFETY: the caller promises that the part is this piece's own; the input reaches to the last token's activations, and the
        // part has room for them; the table is that of the context's instruction set.
        unsafe {
            let len = CHAINS * chain_stride(self.columns, span.count);
            let part = out.part(self.first + arranged_at(self.columns, tile, span), len);
            (self.common.float_panel.arrange)(&ArrangeOperands {
                input: from.as_ptr(),
                stride: self.stride,
                tokens: span.count,
                columns: self.columns,
                output: part.as_mut_ptr(),
            });
        }
    }

    /// Whether rows are expanded into panels: only if there are enough tokens and rows for it to pay off.
    fn by_panel(&self, weights: &Matrix) -> bool {
        let sets = &self.common.float_panel;
        self.tokens > sets.direct_tokens && 2 * weights.rows() > sets.rows && self.columns <= MOST_COLUMNS
    }

    /// Number of pieces of a matrix.
    pub(crate) fn pieces(&self, weights: &Matrix) -> usize {
        weights.rows().div_ceil(self.piece_rows(weights))
    }

    /// Number of rows of a piece of a matrix.
    pub(crate) fn piece_rows(&self, weights: &Matrix) -> usize {
        if self.by_panel(weights) { self.common.float_panel.rows } else { FLOAT_ROWS }
    }

    /// Tiles of tokens of a part, at most.
    fn part_spans(&self) -> usize {
        let widest = self.direct.first().map_or(1, |span| span.count);
        PART_TOKENS.div_ceil(widest)
    }

    /// Number of parts of a matrix that has few rows, of `part_rows` rows or fewer and some tokens each.
    pub(crate) fn parts(&self, weights: &Matrix, part_rows: usize) -> usize {
        if self.by_panel(weights) {
            return self.pieces(weights);
        }
        weights.rows().div_ceil(part_rows) * self.direct.len().div_ceil(self.part_spans())
    }

    /// Computes such a part; returns its rows and its tokens.
    pub(crate) fn run_part(
        &self,
        isa: Isa,
        arranged: &[f32],
        product: &Product,
        (part, part_rows): (usize, usize),
    ) -> Result<(Range<usize>, Range<usize>), Error> {
        let weights = product.weights;
        let rows_of = |part: usize, rows: usize| part * rows..weights.rows().min((part + 1) * rows);
        if self.by_panel(weights) {
            self.run(isa, arranged, product, (part, 1))?;
            return Ok((rows_of(part, self.common.float_panel.rows), 0..self.tokens));
        }
        let across = weights.rows().div_ceil(part_rows);
        let rows = rows_of(part % across, part_rows);
        let spans = &self.direct[part / across * self.part_spans()..];
        let spans = &spans[..spans.len().min(self.part_spans())];
        let Some(kernels) = plain(isa, weights.format()) else { return Ok((rows, 0..0)) };
        self.direct_part(&kernels, product, rows.clone(), spans);
        let tokens = spans.iter().map(|span| span.count).sum::<usize>();
        let first = spans.first().map_or(0, |span| span.first);
        Ok((rows, first..first + tokens))
    }

    /// Computes some rows for all tokens; `arranged` is what `arrange` has sorted for all plans. The piece `ahead` pieces later
    /// will probably be this thread's next one.
    pub(crate) fn run(
        &self,
        isa: Isa,
        arranged: &[f32],
        product: &Product,
        (piece, ahead): (usize, usize),
    ) -> Result<(), Error> {
        let weights = product.weights;
        let Some(kernels) = plain(isa, weights.format()) else { return Ok(()) };
        if self.by_panel(weights) {
            let rows = self.common.float_panel.rows;
            return self.panel_piece(&kernels, arranged, product, (piece * rows, (piece + ahead) * rows));
        }
        let first = piece * FLOAT_ROWS;
        self.direct_part(&kernels, product, first..weights.rows().min(first + FLOAT_ROWS), &self.direct);
        Ok(())
    }

    /// Computes at most [`FLOAT_ROWS`] rows for some tiles of tokens, straight from the file.
    fn direct_part(&self, kernels: &PlainKernels, product: &Product, rows: Range<usize>, spans: &[Span]) {
        let Product { weights, output, .. } = product;
        for span in spans {
            let (output, output_stride) = output.at(span.first, rows.start);
            let tile = FloatTileOperands {
                weights: weights.source(rows.start, rows.len()).as_ptr(),
                rows: rows.len(),
                input: self.input[span.first * self.stride..].as_ptr(),
                input_stride: self.stride,
                columns: self.columns,
                output,
                output_stride,
            };
            // SAFETY: the instruction set is the context's; the rows and the span's tokens lie at the pointers; results of this
            // piece are written by this piece only.
            unsafe { kernels.direct[span.index](&tile) };
        }
    }

    /// Expands rows from `row` on into a panel and multiplies it. The rows from `next` on are prefetched meanwhile: expanding
    /// them would wait for memory, which multiplication does not use.
    fn panel_piece(
        &self,
        kernels: &PlainKernels,
        arranged: &[f32],
        Product { weights, output, .. }: &Product,
        (row, next): (usize, usize),
    ) -> Result<(), Error> {
        let sets = &self.common.float_panel;
        let (rows, columns) = (weights.rows(), self.columns);
        let wanted = sets.rows.min(rows - row);
        let ahead = if next < rows { weights.source(next, sets.rows.min(rows - next)) } else { &[] };
        let ahead = &ahead[..ahead.len().min(MOST_AHEAD)];
        let step = ahead.len().div_ceil(self.panel.len().max(1)).next_multiple_of(64);
        let mut places = SUMS;
        while places > 1 && places * columns > SUMS * PART_COLUMNS {
            places /= 2;
        }
        // If all chains of a tile are processed at once, waiting sums are needed only until then.
        let waiting_tokens = if places == SUMS { sets.least + sets.tiles.len() - 1 } else { self.tokens };
        let panel_bytes = CHAINS * chain_stride(columns, sets.rows) * 4;
        PieceBuffers::with([panel_bytes, 0, 0, WAITING * waiting_tokens * sets.rows * 4, 0, 0], |buffers| {
            let panel = buffers.quants.view_mut::<f32>().as_mut_ptr();
            let waiting = buffers.results.view_mut::<f32>().as_mut_ptr();
            let source = PanelSource { weights: weights.source(row, wanted).as_ptr(), rows: wanted, columns, panel };
            // SAFETY: the instruction set is the context's; the rows are there and the panel has room.
            unsafe { (kernels.expand)(&source) };
            for place in (0..SUMS).step_by(places) {
                for (index, span) in self.panel.iter().enumerate() {
                    if place == 0 {
                        prefetch(ahead, (index * step).min(ahead.len())..((index + 1) * step).min(ahead.len()));
                    }
                    let before = if places == SUMS { 0 } else { span.first };
                    let (output, output_stride) = output.at(span.first, row);
                    let tile = PanelTileOperands {
                        weights: panel,
                        input: arranged[self.first + arranged_at(columns, index, *span)..].as_ptr(),
                        columns,
                        places: (place, places),
                        waiting: waiting.wrapping_add(WAITING * before * sets.rows),
                        output,
                        output_stride,
                        rows: wanted,
                    };
                    // SAFETY: the instruction set is the context's; panel, activations and waiting sums have the sizes of the
                    // tile; rows of this piece are written by this piece only.
                    unsafe { sets.tiles[span.index](&tile) };
                }
            }
        })
    }
}
