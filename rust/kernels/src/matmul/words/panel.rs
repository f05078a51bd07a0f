//! Rows of weights as 16-bit integers, side by side in the lanes of vectors.

use super::sizes::{BLOCK, LIMIT, PAIRS, PANEL_BLOCKS, VECTORS};
use crate::math::{Kernel, LANES, Lanes, MAGIC, prefetch};
use crate::words::SMALLEST;

/// `[block][pair][vector of rows]`, two integers for each row.
pub(super) type Panel = [[[[u8; 4 * LANES]; VECTORS]; PAIRS]; PANEL_BLOCKS];
/// `[block][vector of rows]`.
pub(super) type PanelScales = [[[f32; LANES]; VECTORS]; PANEL_BLOCKS];

/// Rows of weights in the file.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) bytes: &'a [u8],
    /// Number of rows, at least one.
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Whether the weights are BF16 rather than F16.
    pub(super) brain: bool,
}

impl Source<'_> {
    /// Prefetches a share of what will be expanded: part `part` of `parts` of the rows, in the panel that begins at `block`.
    #[inline(always)]
    pub(super) fn prefetch(&self, block: usize, (part, parts): (usize, usize)) {
        let columns = self.columns.min(block * BLOCK)..self.columns.min((block + PANEL_BLOCKS) * BLOCK);
        for row in part * self.rows / parts..(part + 1) * self.rows / parts {
            let start = row * self.columns;
            prefetch(self.bytes, 2 * (start + columns.start)..2 * (start + columns.end));
        }
    }
}

/// Expands the blocks of columns from `first` on, as many as there are, up to [`PANEL_BLOCKS`].
pub(super) struct Expand<'a> {
    pub(super) source: Source<'a>,
    pub(super) first: usize,
    /// [`Panel`] as pairs of integers.
    pub(super) panel: &'a mut [i32],
    pub(super) scales: &'a mut PanelScales,
}

impl Kernel for Expand<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { source, first, panel, scales } = self;
        let blocks = panel.as_chunks_mut::<LANES>().0.as_chunks_mut::<VECTORS>().0.as_chunks_mut::<PAIRS>().0;
        for ((block, panel), scales) in (first..source.columns.div_ceil(BLOCK)).zip(blocks).zip(scales) {
            for (vector, scales) in scales.iter_mut().enumerate() {
                expand_rows::<L>(set, source, (vector * LANES, block * BLOCK), (panel, vector), scales);
            }
        }
    }
}

/// Expands a block of `LANES` rows from `row` on. Missing rows repeat the last one, missing columns are zeros.
#[inline(always)]
fn expand_rows<L: Lanes>(
    set: L::Set,
    source: Source,
    (row, column): (usize, usize),
    (panel, vector): (&mut [[[i32; LANES]; VECTORS]; PAIRS], usize),
    scales: &mut [f32; LANES],
) {
    let mut columns = [[0.0; LANES]; BLOCK];
    let (mut largest, mut check) = (L::zero(set), L::zero(set));
    for (number, columns) in columns.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let square = L::transpose(rows_at::<L>(set, source, row, column + number * LANES));
        for (values, column) in square.into_iter().zip(columns) {
            largest = L::zero(set).sub(values).max(values).max(largest);
            // A value minus itself is 0, or NaN if it is not finite.
            check = check.add(values.sub(values));
            values.store(column);
        }
    }
    let (limit, smallest) = (L::splat(set, LIMIT), L::splat(set, SMALLEST));
    let inverse = largest.select_below(smallest, L::zero(set), limit.div(largest));
    largest.select_below(smallest, L::zero(set), largest.div(limit)).add(check).store(scales);
    let magic = L::splat(set, MAGIC);
    let (low, high) = columns.split_at(PAIRS);
    for ((low, high), panel) in low.iter().zip(high).zip(panel) {
        let (low, high) = (L::load(set, low).fma(inverse, magic), L::load(set, high).fma(inverse, magic));
        L::store_pairs(low, high, &mut panel[vector]);
    }
}

/// `LANES` columns of `LANES` rows.
#[inline(always)]
fn rows_at<L: Lanes>(set: L::Set, source: Source, row: usize, column: usize) -> [L; LANES] {
    let mut rows = [L::zero(set); LANES];
    for (lane, values) in rows.iter_mut().enumerate() {
        let row = (row + lane).min(source.rows - 1);
        let start = 2 * (row * source.columns + column.min(source.columns));
        let bytes = &source.bytes[start..2 * (row + 1) * source.columns];
        let mut padded = [0; 2 * LANES];
        let bytes = if let Some(bytes) = bytes.first_chunk() {
            bytes
        } else {
            padded[..bytes.len()].copy_from_slice(bytes);
            &padded
        };
        *values = if source.brain { L::load_brains(set, bytes) } else { L::load_halves(set, bytes) };
    }
    rows
}
