//! The register tile of all products here: rows of the left operand × columns of the right one, which are in lanes.

use crate::cpu::Isa;
use crate::math::{Kernel, LANES, Lanes, dispatch};
use crate::shared::SharedSlice;

/// Terms of a product that are added up before they are added to the result.
pub(super) const DEPTH: usize = 256;
/// Rows and vectors of columns of a tile where 32 vectors fit into the registers.
const LARGE: (usize, usize) = (12, 2);
/// The same where 8 do.
const SMALL: (usize, usize) = (6, 1);

/// Rows and columns of the tile of an instruction set.
#[derive(Debug, Clone, Copy)]
pub(super) struct TileShape {
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl TileShape {
    pub(super) fn of(isa: Isa) -> Self {
        dispatch(isa, Shape)
    }

    /// The shape for lanes of that kind.
    #[inline(always)]
    pub(super) fn with<L: Lanes>() -> Self {
        let (rows, vectors) = if L::MANY_REGISTERS { LARGE } else { SMALL };
        Self { rows, columns: vectors * LANES }
    }
}

struct Shape;

impl Kernel for Shape {
    type Output = TileShape;

    #[inline(always)]
    fn run<L: Lanes>(self, _set: L::Set) -> TileShape {
        TileShape::with::<L>()
    }
}

/// Where the results of tiles go.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) numbers: &'a SharedSlice<'a, f32>,
    /// Index of the first result.
    pub(super) start: usize,
    /// Elements from one row to the next.
    pub(super) stride: usize,
    /// Factor of the products.
    pub(super) scale: f32,
}

/// Multiplies a panel of the left operand, `[step][row]`, with a panel of the right one, `[step][column]`, and stores
/// the product times the target's scale, or adds it if `add`, for the first `rows` × `columns` results.
///
/// # Safety
/// No other thread uses these results of the target.
#[inline(always)]
pub(super) unsafe fn multiply_panels<L: Lanes>(
    set: L::Set,
    (left, right): (&[f32], &[f32]),
    (rows, columns): (usize, usize),
    target: Target,
    add: bool,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        if L::MANY_REGISTERS {
            if right.len() / LANES * LARGE.0 == left.len() {
                tile::<L, { LARGE.0 }, 1>(set, left, right, (rows, columns), target, add);
            } else {
                tile::<L, { LARGE.0 }, { LARGE.1 }>(set, left, right, (rows, columns), target, add);
            }
        } else {
            tile::<L, { SMALL.0 }, { SMALL.1 }>(set, left, right, (rows, columns), target, add);
        }
    }
}

/// # Safety
/// As `multiply_panels`.
#[inline(always)]
unsafe fn tile<L: Lanes, const R: usize, const V: usize>(
    set: L::Set,
    left: &[f32],
    right: &[f32],
    (rows, columns): (usize, usize),
    target: Target,
    add: bool,
) {
    let mut sums = [[L::zero(set); V]; R];
    let (left, _) = left.as_chunks::<R>();
    let (right, _) = right.as_chunks::<LANES>();
    for (left, right) in left.iter().zip(right.chunks_exact(V)) {
        let mut values = [L::zero(set); V];
        for v in 0..V {
            values[v] = L::load(set, &right[v]);
        }
        for r in 0..R {
            let factor = L::splat(set, left[r]);
            for v in 0..V {
                sums[r][v] = values[v].fma(factor, sums[r][v]);
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
                    sums[r][v].fma(scale, before).store_part(to);
                }
            }
        }
    }
}
