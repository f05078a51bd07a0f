//! The register tile of all products here: rows of the left operand × columns of the right one, which are in lanes.

use crate::cpu::Isa;
use crate::math::{Kernel, LANES, Lanes, dispatch, prefetch_soon};
use crate::shared::SharedSlice;

/// Terms of a product that are added up before they are added to the result.
pub(super) const DEPTH: usize = 256;
/// Tiles of floats.
pub(super) const FLOATS: Tile = Tile { large: (12, 2), small: (6, 1) };

/// Rows of a tile of floats, one vector wide, for left operands with few rows, where 32 vectors fit into the registers.
pub(super) const FEW: usize = LANES;

/// Rows, and vectors of columns, of the tiles of a kind of product.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Where 32 vectors fit into the registers.
    pub(super) large: (usize, usize),
    /// Where 8 do.
    pub(super) small: (usize, usize),
}

/// Rows and columns of the tile of an instruction set.
#[derive(Debug, Clone, Copy)]
pub(super) struct TileShape {
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Tile {
    /// The shape on an instruction set.
    pub(super) fn on(self, isa: Isa) -> TileShape {
        dispatch(isa, Shape(self))
    }

    /// The shape for lanes of that kind.
    #[inline(always)]
    pub(super) fn with<L: Lanes>(self) -> TileShape {
        let (rows, vectors) = if L::MANY_REGISTERS { self.large } else { self.small };
        TileShape { rows, columns: vectors * LANES }
    }
}

struct Shape(Tile);

impl Kernel for Shape {
    type Output = TileShape;

    #[inline(always)]
    fn run<L: Lanes>(self, _set: L::Set) -> TileShape {
        self.0.with::<L>()
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
    /// Whether results lie the other way round: `stride` is the distance of columns, and rows are adjacent.
    pub(super) turned: bool,
}

impl Target<'_> {
    /// Prefetches the first `rows` × `columns` results, which are rows apart, where no prefetcher of the processor finds them.
    ///
    /// # Safety
    /// No other thread uses these results.
    #[inline(always)]
    pub(super) unsafe fn prefetch(&self, (rows, columns): (usize, usize)) {
        for row in 0..rows {
            // SAFETY: the caller promises that these results belong to this thread.
            prefetch_soon(unsafe { self.numbers.read(self.start + row * self.stride, columns) });
        }
    }

    /// Stores the sums of a tile times the scale, or adds them if `add`, for the first `rows` × `columns` results.
    ///
    /// # Safety
    /// No other thread uses these results.
    #[inline(always)]
    pub(super) unsafe fn receive<L: Lanes, const R: usize, const V: usize>(
        self,
        set: L::Set,
        sums: &[[L; V]; R],
        (rows, columns): (usize, usize),
        add: bool,
    ) {
        if self.turned {
            // SAFETY: as promised by the caller.
            return unsafe { self.receive_turned(set, sums, (rows, columns), add) };
        }
        let scale = L::splat(set, self.scale);
        for r in 0..R {
            // A loop to `rows` would index the sums by a variable, and keep them out of the registers.
            if r < rows {
                // SAFETY: the caller promises that these results belong to this thread.
                let row = unsafe { self.numbers.part(self.start + r * self.stride, columns) };
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
}

impl Target<'_> {
    /// `receive` for results that lie the other way round.
    ///
    /// # Safety
    /// No other thread uses these results.
    #[inline(always)]
    unsafe fn receive_turned<L: Lanes, const R: usize, const V: usize>(
        self,
        set: L::Set,
        sums: &[[L; V]; R],
        (rows, columns): (usize, usize),
        add: bool,
    ) {
        let scale = L::splat(set, self.scale);
        for v in 0..V {
            let mut square = [L::zero(set); LANES];
            for r in 0..R {
                square[r] = sums[r][v];
            }
            let square = L::transpose(square);
            for column in 0..LANES {
                if v * LANES + column < columns {
                    let start = self.start + (v * LANES + column) * self.stride;
                    // SAFETY: the caller promises that these results belong to this thread.
                    let to = unsafe { self.numbers.part(start, rows) };
                    let before = if add { L::load_part(set, to) } else { L::zero(set) };
                    square[column].fma(scale, before).store_part(to);
                }
            }
        }
    }
}

/// Multiplies a panel of the left operand, `[step][row]` with `side` rows, with a panel of the right one, `[step][column]`, and stores
/// the product times the target's scale, or adds it if `add`, for the first results of that size.
///
/// # Safety
/// No other thread uses these results of the target.
#[inline(always)]
pub(super) unsafe fn multiply_panels<L: Lanes>(
    set: L::Set,
    (left, right): (&[f32], &[f32]),
    side: usize,
    size: (usize, usize),
    target: Target,
    add: bool,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        if L::MANY_REGISTERS {
            let narrow = right.len() / LANES * side == left.len();
            if side == FEW {
                tile::<L, FEW, 1>(set, left, right, size, target, add);
            } else if narrow {
                tile::<L, { FLOATS.large.0 }, 1>(set, left, right, size, target, add);
            } else {
                tile::<L, { FLOATS.large.0 }, { FLOATS.large.1 }>(set, left, right, size, target, add);
            }
        } else {
            tile::<L, { FLOATS.small.0 }, { FLOATS.small.1 }>(set, left, right, size, target, add);
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
    size: (usize, usize),
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
    // SAFETY: the caller promises that these results belong to this thread.
    unsafe { target.receive(set, &sums, size, add) };
}
