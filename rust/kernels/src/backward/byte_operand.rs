//! Left operands of products in bytes: 128 numbers share a scale, and become integers of 8 bits.

use super::byte_tile::{BLOCK, BYTES, QUADS};
use super::pieces::for_pieces;
use super::view::View;
use crate::Error;
use crate::context::Context;
use crate::math::{Kernel, LANES, Lanes, MAGIC, dispatch};
use crate::memory;
use crate::shared::Pieces;

/// A left operand of products with weights in bytes. Its buffers are kept for the next operand.
#[derive(Default)]
pub struct PackedBytes {
    /// `[panel][block][quad][row]`: four bytes each, lowest column first.
    pub(super) quads: Vec<i32>,
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
        let side = BYTES.on(context.isa).rows;
        (self.rows, self.columns) = (view.rows, view.columns);
        let (panels, blocks) = (view.rows.div_ceil(side), view.columns.div_ceil(BLOCK));
        let (quads, scales) = (panels * blocks * QUADS * side, panels * blocks * side);
        memory::grow(&mut self.quads, quads, 0, "activations")?;
        memory::grow(&mut self.scales, scales, 0.0, "activations")?;
        memory::grow(&mut self.sums, scales, 0, "activations")?;
        let quads = Pieces::new(&mut self.quads[..quads], blocks * QUADS * side);
        let sums = Pieces::new(&mut self.sums[..scales], blocks * side);
        let scales = Pieces::new(&mut self.scales[..scales], blocks * side);
        for_pieces(context, panels, &|piece, _| {
            // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds it.
            let (quads, scales, sums) = unsafe { (quads.get(piece), scales.get(piece), sums.get(piece)) };
            dispatch(context.isa, Round { view, first: piece * side, side, quads, scales, sums });
            Ok(())
        })
    }

    /// The most bytes that operands of that size take.
    pub fn nbytes(rows: usize, columns: usize) -> usize {
        // No tile has more rows than 16; a scale and a sum for every block.
        let blocks = rows.next_multiple_of(16).saturating_mul(columns.div_ceil(BLOCK));
        blocks.saturating_mul(BLOCK + size_of::<f32>() + size_of::<i32>())
    }
}

/// Rounds the rows of a panel.
struct Round<'a> {
    view: View<'a>,
    first: usize,
    side: usize,
    quads: &'a mut [i32],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { view, first, side, quads, scales, sums } = self;
        for row in 0..side {
            for block in 0..view.columns.div_ceil(BLOCK) {
                let mut padded = [0.0; BLOCK];
                let mut values = &padded;
                if first + row < view.rows {
                    let start = block * BLOCK;
                    let count = BLOCK.min(view.columns - start);
                    let from = &view.numbers[(first + row) * view.row_stride + start..][..count];
                    values = if let Some(whole) = from.first_chunk() {
                        whole
                    } else {
                        padded[..count].copy_from_slice(from);
                        &padded
                    };
                }
                let (scale, bytes) = rounded::<L>(set, values);
                scales[block * side + row] = scale;
                sums[block * side + row] = bytes.iter().map(|byte| i32::from(byte.cast_signed())).sum();
                for (quad, bytes) in bytes.as_chunks::<4>().0.iter().enumerate() {
                    quads[(block * QUADS + quad) * side + row] = i32::from_le_bytes(*bytes);
                }
            }
        }
    }
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
