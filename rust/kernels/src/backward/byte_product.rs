//! Products of gradients with transposed quantized weights, both rounded to bytes: a few times as fast as in floats.
//!
//! The weights of 128 rows of a column share a scale, as do 128 elements of a row of the left operand: the largest in
//! magnitude becomes 127. Rounding to nearest adds an independent error of about half a percent of each factor's size, or
//! two thirds of a percent if it is normally distributed.

use std::ops::Range;

use super::byte_operand::PackedBytes;
use super::byte_tile::{BLOCK, BYTES, ByteColumns, ByteRows, TERM_BYTES, groups, multiply_bytes_panels};
use super::pieces::{Scratch, for_pieces, sized};
use super::product::Sum;
use super::tile::{Target, TileShape};
use crate::Error;
use crate::context::Context;
use crate::cpu::Isa;
use crate::math::{Kernel, LANES, Lanes, MAGIC, dispatch};
use crate::matmul::Matrix;
use crate::memory;
use crate::shared::SharedSlice;

/// Columns of a product that a piece of work has at most: whole blocks of every format.
const STRIP: usize = 256;
/// Blocks that are added up before they are added to the result.
const BLOCKS: usize = 4;
/// Steps of these blocks.
const DEPTH: usize = BLOCKS * BLOCK;
/// Bytes of weights that are read at a time before the file's pages are released.
const STAGE: usize = 16 << 20;
/// Rows of weights that are prefetched before they are dequantized.
const AHEAD: usize = 16;

/// Computes `output = scale · left · weights`, or adds it, in bytes: rows of `left` × columns of `weights`.
///
/// # Errors
/// `Error::Shape` if sizes do not match; `Error::Memory`; `Error::Cancelled` if the context was interrupted.
pub fn multiply_bytes(
    context: &Context,
    left: &PackedBytes,
    weights: &Matrix,
    sum: Sum,
    output: &mut [f32],
) -> Result<(), Error> {
    let (inner, columns) = (weights.rows(), weights.columns());
    if left.columns != inner || left.rows.checked_mul(columns) != Some(output.len()) {
        return Err(Error::Shape(format!(
            "{} × {} times {inner} × {columns} into room for {}; expected equal inner sizes, and rows × columns",
            left.rows,
            left.columns,
            output.len()
        )));
    }
    if output.is_empty() || inner == 0 {
        return Ok(());
    }
    let panels = left.rows.div_ceil(BYTES.on(context.isa).rows);
    let strips = columns.div_ceil(STRIP);
    let wanted = context.pool.threads() * 2;
    let parts = if strips < wanted { wanted.div_ceil(strips).min(panels) } else { 1 };
    let numbers = SharedSlice::new(output);
    let stage = (STAGE / weights.nbytes().div_ceil(inner)).next_multiple_of(DEPTH).max(DEPTH);
    for start in (0..inner).step_by(stage) {
        let rows = start..inner.min(start + stage);
        for_pieces(context, strips * parts, &|piece, scratch| {
            let (index, part) = (piece / parts, piece % parts);
            let strip = Strip {
                isa: context.isa,
                left,
                panels: (panels * part / parts, panels * (part + 1) / parts),
                weights,
                inner: rows.clone(),
                first: index * STRIP,
                sum,
                output: &numbers,
                scratch,
            };
            dispatch(context.isa, strip)
        })?;
        weights.release_rows(rows)?;
    }
    Ok(())
}

/// Some columns of a product, for some panels of rows.
struct Strip<'a> {
    isa: Isa,
    left: &'a PackedBytes,
    panels: (usize, usize),
    weights: &'a Matrix,
    /// Rows of the weights, from a multiple of [`DEPTH`] on.
    inner: Range<usize>,
    first: usize,
    sum: Sum,
    output: &'a SharedSlice<'a, f32>,
    scratch: &'a mut Scratch,
}

impl Kernel for Strip<'_> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Result<(), Error> {
        let Self { isa, left, panels, weights, inner, first, sum, output, scratch } = self;
        let TileShape { rows: side, columns: width } = BYTES.with::<L>();
        let stride = weights.columns();
        let count = STRIP.min(stride - first);
        let (parts, blocks_of_row) = (count.div_ceil(width), weights.rows().div_ceil(BLOCK));
        for step in inner.clone().step_by(DEPTH) {
            let steps = DEPTH.min(inner.end - step);
            let blocks = steps.div_ceil(BLOCK);
            let floats = sized(&mut scratch.rows, BLOCK * STRIP)?;
            let scales = sized(&mut scratch.right, BLOCKS * STRIP)?;
            let bytes_of_block = groups::<L>() * TERM_BYTES / LANES;
            memory::grow(&mut scratch.bytes, BLOCKS * bytes_of_block * STRIP, 0, "working memory")?;
            let bytes = &mut scratch.bytes[..];
            for block in 0..blocks {
                let rows = BLOCK.min(steps - block * BLOCK);
                let from = (step + block * BLOCK, rows);
                L::call(set, Fill { isa, weights, from, first, count, block, blocks, width, floats, bytes, scales })?;
            }
            let block = step / BLOCK;
            for part in 0..parts {
                // These columns stay in the first-level cache, while the rows pass by.
                let columns = ByteColumns {
                    bytes: &bytes[part * blocks * bytes_of_block * width..][..blocks * bytes_of_block * width],
                    scales: &scales[part * blocks * width..][..blocks * width],
                };
                let column = first + part * width;
                for panel in panels.0..panels.1 {
                    let from = panel * blocks_of_row + block;
                    let rows = ByteRows {
                        factors: &left.factors[from * groups::<L>() * side..][..blocks * groups::<L>() * side],
                        scales: &left.scales[from * side..][..blocks * side],
                        sums: &left.sums[from * side..][..blocks * side],
                    };
                    let row = panel * side;
                    let start = row * stride + column;
                    let target = Target { numbers: output, start, stride, scale: sum.scale, turned: false };
                    let size = (side.min(left.rows - row), width.min(first + count - column));
                    // SAFETY: every piece has its own rows and columns of the output.
                    unsafe { multiply_bytes_panels::<L>(set, (rows, columns), size, target, sum.add || step > 0) };
                }
            }
        }
        Ok(())
    }
}

/// Rounds a block of rows of the weights for all columns of a strip.
struct Fill<'a> {
    isa: Isa,
    weights: &'a Matrix,
    /// First row, and number of rows.
    from: (usize, usize),
    first: usize,
    count: usize,
    block: usize,
    blocks: usize,
    width: usize,
    floats: &'a mut [f32],
    bytes: &'a mut [u8],
    scales: &'a mut [f32],
}

impl Kernel for Fill<'_> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Result<(), Error> {
        let Self { isa, weights, from: (start, rows), first, count, block, blocks, width, floats, bytes, scales } =
            self;
        for row in 0..BLOCK {
            let to = &mut floats[row * STRIP..][..STRIP];
            if row < rows {
                let next = if row == 0 { 0..AHEAD } else { row + AHEAD - 1..row + AHEAD };
                next.for_each(|next| weights.prefetch(start + next, first, count));
                weights.part(isa, start + row, first, &mut to[..count])?;
                to[count..].fill(0.0);
            } else {
                to.fill(0.0);
            }
        }
        let vectors = width / LANES;
        for vector in 0..count.div_ceil(width) * vectors {
            let at = |row: usize| row * STRIP + vector * LANES;
            let mut largest = L::zero(set);
            for row in 0..BLOCK {
                let value = L::load_part(set, &floats[at(row)..][..LANES]);
                largest = value.max(L::zero(set).sub(value)).max(largest);
            }
            // A column of zeros has bytes of 0 at any scale.
            let least = L::splat(set, f32::MIN_POSITIVE);
            let scale = largest.max(least).mul(L::splat(set, 1.0 / 127.0));
            let inverse = L::splat(set, 127.0).div(largest.max(least));
            let (part, within) = (vector / vectors, vector % vectors);
            scale.store_part(&mut scales[(part * blocks + block) * width + within * LANES..][..LANES]);
            let place = ((part * blocks + block) * groups::<L>() * vectors + within) * TERM_BYTES;
            for group in 0..groups::<L>() {
                let mut terms = [0; LANES];
                if L::TERMS == 4 {
                    // The low bytes of four rows become the bytes of a number, all lanes at once.
                    let magic = L::splat(set, MAGIC + 128.0);
                    for row in 0..4 {
                        let value = L::load_part(set, &floats[at(group * 4 + row)..][..LANES]);
                        let bits = value.fma(inverse, magic).to_array().map(f32::to_bits);
                        for lane in 0..LANES {
                            terms[lane] |= ((bits[lane] & 255) << (8 * row)).cast_signed();
                        }
                    }
                } else {
                    let magic = L::splat(set, MAGIC);
                    let first = L::load_part(set, &floats[at(group * 2)..][..LANES]);
                    let second = L::load_part(set, &floats[at(group * 2 + 1)..][..LANES]);
                    L::store_pairs(first.fma(inverse, magic), second.fma(inverse, magic), &mut terms);
                }
                let to = &mut bytes[place + group * vectors * TERM_BYTES..][..TERM_BYTES];
                for (number, to) in terms.iter().zip(to.as_chunks_mut::<4>().0) {
                    *to = number.to_le_bytes();
                }
            }
        }
        Ok(())
    }
}
