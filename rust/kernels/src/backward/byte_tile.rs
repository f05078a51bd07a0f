//! The register tile of products in bytes: exact integer sums over blocks of 32, each scaled and added in f32.

use super::tile::Target;
use crate::cpu::Isa;
use crate::math::{Kernel, LANES, Lanes, dispatch};

/// Steps of the inner dimension that share a scale.
pub(super) const BLOCK: usize = 32;
/// Groups of four steps in a block.
pub(super) const QUADS: usize = BLOCK / 4;
/// Bytes of a block of one vector of columns.
pub(super) const BLOCK_BYTES: usize = QUADS * 4 * LANES;
/// Rows and vectors of columns of a tile where 32 vectors fit into the registers.
const LARGE: (usize, usize) = (6, 2);
/// The same where 8 do.
const SMALL: (usize, usize) = (3, 1);

/// Rows of the tile of an instruction set.
pub(super) fn byte_rows(isa: Isa) -> usize {
    dispatch(isa, Shape).0
}

/// Rows and columns of the tile for lanes of that kind.
#[inline(always)]
pub(super) fn byte_shape<L: Lanes>() -> (usize, usize) {
    let (rows, vectors) = if L::MANY_REGISTERS { LARGE } else { SMALL };
    (rows, vectors * LANES)
}

struct Shape;

impl Kernel for Shape {
    type Output = (usize, usize);

    #[inline(always)]
    fn run<L: Lanes>(self, _set: L::Set) -> (usize, usize) {
        byte_shape::<L>()
    }
}

/// Some blocks of a panel of rows: see `PackedBytes`.
#[derive(Clone, Copy)]
pub(super) struct ByteRows<'a> {
    pub(super) quads: &'a [i32],
    pub(super) scales: &'a [f32],
    pub(super) sums: &'a [i32],
}

/// The same blocks of a panel of columns.
#[derive(Clone, Copy)]
pub(super) struct ByteColumns<'a> {
    /// `[block][quad][column]`: four bytes each, 128 more than the integers.
    pub(super) bytes: &'a [u8],
    /// `[block][column]`
    pub(super) scales: &'a [f32],
}

/// Multiplies a panel of rows with a panel of columns, and adds the product times the target's scale to the first
/// `rows` × `columns` results, or stores it.
///
/// # Safety
/// No other thread uses these results of the target.
#[inline(always)]
pub(super) unsafe fn multiply_bytes_panels<L: Lanes>(
    set: L::Set,
    (left, right): (ByteRows, ByteColumns),
    size: (usize, usize),
    target: Target,
    add: bool,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        if L::MANY_REGISTERS {
            tile::<L, { LARGE.0 }, { LARGE.1 }>(set, left, right, size, target, add);
        } else {
            tile::<L, { SMALL.0 }, { SMALL.1 }>(set, left, right, size, target, add);
        }
    }
}

/// # Safety
/// As `multiply_bytes_panels`.
#[inline(always)]
unsafe fn tile<L: Lanes, const R: usize, const V: usize>(
    set: L::Set,
    left: ByteRows,
    right: ByteColumns,
    (rows, columns): (usize, usize),
    target: Target,
    add: bool,
) {
    let mut results = [[L::zero(set); V]; R];
    let (quads, _) = left.quads.as_chunks::<R>();
    let (bytes, _) = right.bytes.as_chunks::<{ 4 * LANES }>();
    let rows_of = left.scales.as_chunks::<R>().0.iter().zip(left.sums.as_chunks::<R>().0);
    let columns_of = right.scales.as_chunks::<LANES>().0.chunks_exact(V);
    let blocks = quads.chunks_exact(QUADS).zip(bytes.chunks_exact(QUADS * V));
    for (((scales, sums), other), (quads, bytes)) in rows_of.zip(columns_of).zip(blocks) {
        let mut integers = [[L::integers(set, 0); V]; R];
        for r in 0..R {
            let start = L::integers(set, sums[r]);
            for v in 0..V {
                integers[r][v] = start;
            }
        }
        for (quads, bytes) in quads.iter().zip(bytes.chunks_exact(V)) {
            for r in 0..R {
                for v in 0..V {
                    integers[r][v] = L::dot4(integers[r][v], &bytes[v], quads[r]);
                }
            }
        }
        for v in 0..V {
            let other = L::load(set, &other[v]);
            for r in 0..R {
                let scale = other.mul(L::splat(set, scales[r]));
                results[r][v] = L::from_integers(integers[r][v]).fma(scale, results[r][v]);
            }
        }
    }
    let scale = L::splat(set, target.scale);
    for r in 0..R {
        // A loop to `rows` would index the sums by a variable, and keep them out of the registers.
        if r < rows {
            // SAFETY: the caller promises that these results belong to this thread.
            let row = unsafe { target.numbers.part(target.start + r * target.stride, columns) };
            for v in 0..V {
                let first = v * LANES;
                if first < columns {
                    let to = &mut row[first..columns.min(first + LANES)];
                    let before = if add { L::load_part(set, to) } else { L::zero(set) };
                    results[r][v].fma(scale, before).store_part(to);
                }
            }
        }
    }
}
