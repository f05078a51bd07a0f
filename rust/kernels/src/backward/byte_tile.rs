//! The register tile of products in bytes: exact integer sums over blocks of 128, each scaled and added in f32.

use super::tile::{Target, Tile};
use crate::cpu::Isa;
use crate::math::{Kernel, LANES, Lanes, dispatch};

/// Steps of the inner dimension that share a scale.
pub(super) const BLOCK: usize = 128;
/// Bytes of the terms of a vector of columns that are added at a time.
pub(super) const TERM_BYTES: usize = 4 * LANES;
/// Tiles of bytes.
pub(super) const BYTES: Tile = Tile { large: (6, 2), small: (3, 1) };

/// Groups of a block's steps whose terms are added at a time.
pub(super) const fn groups<L: Lanes>() -> usize {
    BLOCK / L::TERMS
}

/// The same on an instruction set.
pub(super) fn groups_on(isa: Isa) -> usize {
    dispatch(isa, Groups)
}

struct Groups;

impl Kernel for Groups {
    type Output = usize;

    #[inline(always)]
    fn run<L: Lanes>(self, _set: L::Set) -> usize {
        groups::<L>()
    }
}

/// Some blocks of a panel of rows: see `PackedBytes`.
#[derive(Clone, Copy)]
pub(super) struct ByteRows<'a> {
    pub(super) factors: &'a [i32],
    pub(super) scales: &'a [f32],
    pub(super) sums: &'a [i32],
}

/// The same blocks of a panel of columns.
#[derive(Clone, Copy)]
pub(super) struct ByteColumns<'a> {
    /// `[block][group][column]`: four bytes each, 128 more than the integers, or two integers of 16 bits.
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
            tile::<L, { BYTES.large.0 }, { BYTES.large.1 }>(set, left, right, size, target, add);
        } else {
            tile::<L, { BYTES.small.0 }, { BYTES.small.1 }>(set, left, right, size, target, add);
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
    size: (usize, usize),
    target: Target,
    add: bool,
) {
    // SAFETY: the caller promises that these results belong to this thread.
    unsafe { target.prefetch(size) };
    let mut results = [[L::zero(set); V]; R];
    let (factors, _) = left.factors.as_chunks::<R>();
    let (bytes, _) = right.bytes.as_chunks::<TERM_BYTES>();
    let rows_of = left.scales.as_chunks::<R>().0.iter().zip(left.sums.as_chunks::<R>().0);
    let columns_of = right.scales.as_chunks::<LANES>().0.chunks_exact(V);
    let blocks = factors.chunks_exact(groups::<L>()).zip(bytes.chunks_exact(groups::<L>() * V));
    for (((scales, sums), other), (factors, bytes)) in rows_of.zip(columns_of).zip(blocks) {
        let mut integers = [[L::integers(set, 0); V]; R];
        for r in 0..R {
            // Only bytes have an offset.
            let start = L::integers(set, if L::TERMS == 4 { sums[r] } else { 0 });
            for v in 0..V {
                integers[r][v] = start;
            }
        }
        for (factors, bytes) in factors.iter().zip(bytes.chunks_exact(V)) {
            for r in 0..R {
                for v in 0..V {
                    integers[r][v] = if L::TERMS == 4 {
                        L::dot4(integers[r][v], &bytes[v], factors[r])
                    } else {
                        L::dot2(integers[r][v], &bytes[v], factors[r])
                    };
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
    // SAFETY: the caller promises that these results belong to this thread.
    unsafe { target.receive(set, &results, size, add) };
}
