//! Left operands of products in bytes: 128 numbers share a scale, and become integers of 8 bits.

use std::ops::Range;

use super::byte_tile::{BLOCK, BYTES, groups, groups_on};
use super::pieces::for_pieces;
use super::view::View;
use crate::Error;
use crate::context::Context;
use crate::cpu::Isa;
use crate::math::{Kernel, LANES, Lanes, MAGIC, dispatch};
use crate::memory;
use crate::shared::Pieces;

/// A left operand of products with weights in bytes. Its buffers are kept for the next operand.
#[derive(Default)]
pub struct PackedBytes {
    /// `[panel][block][group][row]`: four bytes each, lowest column first, or two integers of 16 bits.
    pub(super) factors: Vec<i32>,
    /// `[panel][block][row]`
    pub(super) scales: Vec<f32>,
    /// `[panel][block][row]`: the sums of the bytes.
    pub(super) sums: Vec<i32>,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl PackedBytes {
    /// Rounds another operand, whose rows must be contiguous.
    ///
    /// # Errors
    /// `Error::Memory`; `Error::Cancelled` if the context was interrupted.
    pub fn set(&mut self, context: &Context, view: View) -> Result<(), Error> {
        self.resize(context, view.rows, view.columns)?;
        self.set_rows(context, 0, view)
    }

    /// Makes room for another operand of that size, whose rows are then set a few at a time; until then they are undefined.
    ///
    /// # Errors
    /// `Error::Memory`.
    pub fn resize(&mut self, context: &Context, rows: usize, columns: usize) -> Result<(), Error> {
        let side = BYTES.on(context.isa).rows;
        (self.rows, self.columns) = (rows, columns);
        let scales = rows.div_ceil(side).saturating_mul(columns.div_ceil(BLOCK)).saturating_mul(side);
        memory::grow(&mut self.factors, scales.saturating_mul(groups_on(context.isa)), 0, "activations")?;
        memory::grow(&mut self.scales, scales, 0.0, "activations")?;
        memory::grow(&mut self.sums, scales, 0, "activations")
    }

    /// Rounds the rows from row `first` on, which must be contiguous.
    ///
    /// # Errors
    /// `Error::Shape` if they are not inside the operand; `Error::Cancelled` if the context was interrupted.
    pub fn set_rows(&mut self, context: &Context, first: usize, view: View) -> Result<(), Error> {
        self.for_panels(context, (first, view.rows, view.columns), &|panel| {
            dispatch(context.isa, Round { view, first, panel });
        })
    }

    /// Calls the function with every panel that has some of `rows` rows from row `first` on, and with those rows.
    ///
    /// # Errors
    /// As for `set_rows`.
    pub(super) fn for_panels(
        &mut self,
        context: &Context,
        (first, rows, columns): (usize, usize, usize),
        work: &(dyn Fn(BytePanel) + Sync),
    ) -> Result<(), Error> {
        if columns != self.columns || first.checked_add(rows).is_none_or(|end| end > self.rows) {
            return Err(Error::Shape(format!(
                "{rows} rows of {columns} from row {first} on of an operand of {} × {}; expected rows inside it",
                self.rows, self.columns
            )));
        }
        if rows == 0 {
            return Ok(());
        }
        let (side, blocks) = (BYTES.on(context.isa).rows, columns.div_ceil(BLOCK));
        let factors = Pieces::new(&mut self.factors, blocks * groups_on(context.isa) * side);
        let scales = Pieces::new(&mut self.scales, blocks * side);
        let sums = Pieces::new(&mut self.sums, blocks * side);
        let (start, end) = (first / side, (first + rows).div_ceil(side));
        for_pieces(context, end - start, &|piece, _| {
            let index = start + piece;
            // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds this panel.
            let (factors, scales, sums) = unsafe { (factors.get(index), scales.get(index), sums.get(index)) };
            let rows = first.max(index * side)..(first + rows).min((index + 1) * side);
            work(BytePanel { rows, side, factors, scales, sums });
            Ok(())
        })
    }

    /// The most bytes that operands of that size take.
    pub fn nbytes(isa: Isa, rows: usize, columns: usize) -> usize {
        let blocks = rows.next_multiple_of(BYTES.on(isa).rows).saturating_mul(columns.div_ceil(BLOCK));
        // A scale and a sum for every block.
        blocks.saturating_mul(groups_on(isa) * size_of::<i32>() + size_of::<f32>() + size_of::<i32>())
    }
}

/// Some rows of a panel of an operand.
pub(super) struct BytePanel<'a> {
    /// As counted in the operand.
    pub(super) rows: Range<usize>,
    side: usize,
    factors: &'a mut [i32],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
}

impl BytePanel<'_> {
    /// Rounds a block of a row.
    #[inline(always)]
    pub(super) fn set<L: Lanes>(&mut self, set: L::Set, (row, block): (usize, usize), values: &[f32; BLOCK]) {
        let (side, row) = (self.side, row % self.side);
        let (scale, bytes) = rounded::<L>(set, values);
        self.scales[block * side + row] = scale;
        self.sums[block * side + row] = bytes.iter().map(|byte| i32::from(byte.cast_signed())).sum();
        let groups = &mut self.factors[block * groups::<L>() * side + row..];
        if L::TERMS == 4 {
            for (group, bytes) in bytes.as_chunks::<4>().0.iter().enumerate() {
                groups[group * side] = i32::from_le_bytes(*bytes);
            }
        } else {
            for (group, bytes) in bytes.as_chunks::<2>().0.iter().enumerate() {
                let [low, high] = bytes.map(|byte| i32::from(byte.cast_signed()));
                groups[group * side] = low & 0xffff | high << 16;
            }
        }
    }

    /// Multiplies the scales of a row by a factor.
    pub(super) fn multiply(&mut self, row: usize, factor: f32) {
        let (side, row) = (self.side, row % self.side);
        self.scales.iter_mut().skip(row).step_by(side).for_each(|scale| *scale *= factor);
    }
}

/// Rounds the rows of a panel; the first row of the view is row `first` of the operand.
struct Round<'a> {
    view: View<'a>,
    first: usize,
    panel: BytePanel<'a>,
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { view, first, mut panel } = self;
        let mut space = [0.0; BLOCK];
        for row in panel.rows.clone() {
            let numbers = &view.numbers[(row - first) * view.row_stride..][..view.columns];
            for (block, values) in numbers.chunks(BLOCK).enumerate() {
                panel.set::<L>(set, (row, block), padded(values, &mut space));
            }
        }
    }
}

/// A block, filled up with zeros in `space` if it is not whole.
#[inline(always)]
pub(super) fn padded<'a>(values: &'a [f32], space: &'a mut [f32; BLOCK]) -> &'a [f32; BLOCK] {
    if let Some(whole) = values.first_chunk() {
        return whole;
    }
    space[..values.len()].copy_from_slice(values);
    space[values.len()..].fill(0.0);
    space
}

/// A scale, and the numbers over it, rounded to -127 to 127. Numbers that are not finite make the scale NaN.
#[inline(always)]
fn rounded<L: Lanes>(set: L::Set, values: &[f32; BLOCK]) -> (f32, [u8; BLOCK]) {
    let (vectors, _) = values.as_chunks::<LANES>();
    // Two of each, so that one need not wait for the other.
    let (mut largest, mut check) = ([L::zero(set); 2], [L::zero(set); 2]);
    for pair in vectors.as_chunks::<2>().0 {
        for half in 0..2 {
            let value = L::load(set, &pair[half]);
            largest[half] = value.max(L::zero(set).sub(value)).max(largest[half]);
            // Stays 0 for finite numbers.
            check[half] = value.mul(L::zero(set)).add(check[half]);
        }
    }
    let (largest, check) = (largest[0].max(largest[1]).largest(), check[0].add(check[1]));
    let mut bytes = [0; BLOCK];
    let inverse = 127.0 / largest;
    if inverse.is_finite() {
        let (inverse, magic) = (L::splat(set, inverse), L::splat(set, MAGIC));
        for (values, bytes) in vectors.iter().zip(bytes.as_chunks_mut::<LANES>().0) {
            L::load(set, values).fma(inverse, magic).store_low_bytes(bytes);
        }
        (largest / 127.0 + check.sum(), bytes)
    } else {
        // Zeros, or numbers too small to matter.
        (check.sum(), bytes)
    }
}
