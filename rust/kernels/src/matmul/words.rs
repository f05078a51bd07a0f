//! Products of F16 and BF16 weights with 16-bit integers, for the encoders of pictures: twice as fast as with floats.
//!
//! 64 columns of a row of weights, and of a token, share a scale; their largest magnitude becomes 5792, so that their exact
//! product fits into 32 bits. `f = fma(float(product), scale of the weights · scale of the token, f)` adds one block after
//! the other, then the bias follows. Rounding to these integers loses about as much as rounding to half precision does.

mod panel;
mod rows;
mod sizes;
mod tile;

use std::ops::Range;
use std::sync::OnceLock;

use super::buffers::PieceBuffers;
use super::check;
use super::job::{InputBuffers, Job};
use crate::Error;
use crate::context::Context;
use crate::formats::Format;
use crate::math::{Kernel, Lanes, dispatch};
use crate::memory::room;
use crate::shared::SharedSlice;
use panel::{Expand, Panel, PanelScales, Source};
pub(super) use rows::WordRows;
use sizes::{PANEL_BLOCKS, PANEL_ROWS, TILE};
use tile::{SumRow, multiply};

/// Tiles of a piece of work, at least if there are as many, and at most: enough to amortize expanding the weights, and
/// sums that fit into the second-level cache.
const PIECE_TILES: (usize, usize) = (43, 86);
/// Pieces per thread below which tokens are divided.
const BALANCE: usize = 4;

/// Multiplies as [`matmul`](super::matmul), with integers of 16 bits, and adds the bias of each job, if it has one.
///
/// A token with a NaN or an infinity gets NaN in every output, and so does a row of such weights.
///
/// # Errors
/// As for `matmul`; `Error::Unsupported` for weights that are neither F16 nor BF16.
pub fn word_matmul(
    context: &Context,
    input: &[f32],
    tokens: usize,
    buffers: &mut InputBuffers,
    jobs: &mut [Job],
    biases: &[Option<&[f32]>],
) -> Result<(), Error> {
    check(input, tokens, jobs)?;
    if let Some(job) = jobs.iter().find(|job| !matches!(job.weights.format(), Format::F16 | Format::BF16)) {
        let name = job.weights.format().info().name;
        return Err(Error::Unsupported(format!("a product of 16-bit integers with {name}; expected F16 or BF16")));
    }
    if biases.len() != jobs.len()
        || jobs.iter().zip(biases).any(|(job, bias)| bias.is_some_and(|bias| bias.len() != job.weights.rows()))
    {
        return Err(Error::Shape("biases that do not fit the matrices; expected one element for each row".to_owned()));
    }
    if tokens == 0 || jobs.is_empty() {
        return Ok(());
    }
    let rows = &mut buffers.words;
    rows.set(context, input, tokens)?;
    let outputs: Vec<_> = jobs.iter_mut().map(|job| (job.weights, SharedSlice::new(job.output))).collect();
    let panels = outputs.iter().map(|(weights, _)| weights.rows().div_ceil(PANEL_ROWS)).sum::<usize>();
    let tiles = tokens.div_ceil(TILE);
    let least = tiles.div_ceil(PIECE_TILES.1);
    let parts =
        (BALANCE * context.pool.threads()).div_ceil(panels.max(1)).clamp(least, least.max(tiles / PIECE_TILES.0));
    let mut pieces = room(panels * parts, "products")?;
    for (job, (weights, _)) in outputs.iter().enumerate() {
        for first in (0..weights.rows()).step_by(PANEL_ROWS) {
            let rows = first..weights.rows().min(first + PANEL_ROWS);
            pieces.extend((0..parts).map(|part| {
                let tiles = part * tiles / parts..(part + 1) * tiles / parts;
                Piece { job, rows: rows.clone(), tiles }
            }));
        }
    }
    let failed = OnceLock::new();
    context.for_each(pieces.len(), &|index| {
        let Piece { job, rows: range, tiles } = &pieces[index];
        let (weights, output) = &outputs[*job];
        let first = tiles.start * TILE;
        let count = tokens.min(tiles.end * TILE) - first;
        let sizes = [size_of::<Panel>(), size_of::<PanelScales>(), 0, count * size_of::<SumRow>(), 0, 0];
        let done = PieceBuffers::with(sizes, |buffers| {
            let source = Source {
                bytes: weights.source(range.start, range.len()),
                rows: range.len(),
                columns: weights.columns(),
                brain: weights.format() == Format::BF16,
            };
            let sums = dispatch(context.isa, Multiply { source, rows, tiles: tiles.clone(), count, buffers });
            for (token, sums) in sums.iter().enumerate() {
                // SAFETY: no two pieces share a row of a token.
                let to = unsafe { output.part((first + token) * weights.rows() + range.start, range.len()) };
                to.copy_from_slice(&sums.as_flattened()[..range.len()]);
                weights.multiply(to);
                let bias = biases[*job].map_or(&[][..], |bias| &bias[range.clone()]);
                for (to, bias) in to.iter_mut().zip(bias) {
                    *to += bias;
                }
            }
        });
        if let Err(error) = done {
            // The first error is reported; any others say the same.
            let _ = failed.set(error);
        }
    })?;
    failed.into_inner().map_or(Ok(()), Err)
}

/// Some rows of a matrix and some tiles of tokens.
struct Piece {
    job: usize,
    rows: Range<usize>,
    tiles: Range<usize>,
}

/// Multiplies rows of weights with `count` tokens, those of some tiles, and returns the results of each token.
struct Multiply<'a> {
    source: Source<'a>,
    rows: &'a WordRows,
    tiles: Range<usize>,
    count: usize,
    buffers: &'a mut PieceBuffers,
}

impl<'a> Kernel for Multiply<'a> {
    type Output = &'a [SumRow];

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> &'a [SumRow] {
        let Self { source, rows, tiles, count, buffers } = self;
        let PieceBuffers { quants, scales, results, .. } = buffers;
        let sums = &mut results.view_mut().as_chunks_mut().0.as_chunks_mut().0[..count];
        sums.as_flattened_mut().as_flattened_mut().fill(0.0);
        let Some(scales) = scales.view_mut().as_chunks_mut().0.as_chunks_mut().0.first_chunk_mut() else {
            return sums;
        };
        for first in (0..rows.blocks()).step_by(PANEL_BLOCKS) {
            L::call(set, Expand { source, first, panel: quants.view_mut(), scales });
            for (index, tile) in tiles.clone().enumerate() {
                source.prefetch(first + PANEL_BLOCKS, (index, tiles.len()));
                let sums = &mut sums[index * TILE..count.min((index + 1) * TILE)];
                multiply::<L>(set, (quants, scales), rows.tile(first, tile), sums);
            }
        }
        sums
    }
}
