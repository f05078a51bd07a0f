//! Plain weights for many tokens: rows are in lanes, so that a product needs no sum over the lanes of a vector.
//!
//! The 16 partial sums of a product are independent chains. A panel holds some rows as f32, sorted by chain: first all
//! columns of chain 0, then those of chain 8, and so on in the order in which the tree of additions visits the chains
//! (bit-reversed index), rows side by side. The activations are sorted in the same way, tokens of a tile side by side. A
//! register tile of rows × tokens runs through one chain after the other; a finished chain is added to the sums waiting for
//! it, like carries when counting in binary.

use std::marker::PhantomData;

use super::Element;
use super::square::Square;
use crate::cpu::sets::Entry;
use crate::simd::Simd;

/// Chains of a product.
pub(crate) const CHAINS: usize = super::SUMS;
/// Levels of sums that wait for their counterpart: sums of one, two, four and eight chains.
pub(crate) const WAITING: usize = 4;
/// Floats between the chains of a panel, so that the same column of all chains does not map to one set of a cache.
pub(crate) const GAP: usize = 16;

/// Prefetch distance within a row while it is expanded, in bytes.
const AHEAD: usize = 256;

/// The chain at a place of the order, and equally the place of a chain: the bits of the index reversed.
#[inline(always)]
pub(crate) const fn reversed(place: usize) -> usize {
    (place & 1) << 3 | (place & 2) << 1 | (place & 4) >> 1 | (place & 8) >> 3
}

/// Number of columns of a chain.
pub(crate) const fn steps(columns: usize) -> usize {
    columns.div_ceil(CHAINS)
}

/// Floats from one chain to the next, for `side_by_side` rows of a panel or tokens of a tile.
pub(crate) const fn chain_stride(columns: usize, side_by_side: usize) -> usize {
    steps(columns) * side_by_side + GAP
}

/// Operands of one tile.
#[derive(Clone, Copy)]
pub(crate) struct PanelTileOperands {
    /// Rows: `[place][step][row]`.
    pub(crate) weights: *const f32,
    /// Activations: `[place][step][token]`.
    pub(crate) input: *const f32,
    /// Length of rows and activations.
    pub(crate) columns: usize,
    /// The first chain to do, in the order of places, and how many.
    pub(crate) places: (usize, usize),
    /// Waiting sums: `[WAITING][token][row]`.
    pub(crate) waiting: *mut f32,
    /// Results: `[token][row]`.
    pub(crate) output: *mut f32,
    /// Floats from one token's results to the next.
    pub(crate) output_stride: usize,
    /// Number of rows whose results are stored.
    pub(crate) rows: usize,
}

/// Rows to expand into a panel.
#[derive(Clone, Copy)]
pub(crate) struct PanelSource {
    /// First row.
    pub(crate) weights: *const u8,
    /// Number of rows available; missing rows of the panel repeat the last one.
    pub(crate) rows: usize,
    /// Length of rows.
    pub(crate) columns: usize,
    /// Room for `CHAINS` × `chain_stride` floats.
    pub(crate) panel: *mut f32,
}

/// Tokens to be sorted by chain.
#[derive(Clone, Copy)]
pub(crate) struct ArrangeOperands {
    /// Activations of the tile's first token.
    pub(crate) input: *const f32,
    /// Floats from one token's activations to the next.
    pub(crate) stride: usize,
    /// Number of tokens.
    pub(crate) tokens: usize,
    /// Length of their activations.
    pub(crate) columns: usize,
    /// Room for `CHAINS` × `chain_stride` floats.
    pub(crate) output: *mut f32,
}

/// A tile of `R` vectors of rows × `C` tokens.
pub(crate) struct PanelTile<S, const R: usize, const C: usize>(PhantomData<S>);

// SAFETY: the tile reads and writes what the operands name; `WAITING` × tokens × rows floats wait behind `waiting`, where the chains
// before `places` have been done.
unsafe impl<S: Simd, const R: usize, const C: usize> Entry for PanelTile<S, R, C> {
    type Operands = PanelTileOperands;
    type Output = ();

    #[inline(always)]
    unsafe fn run(operands: &PanelTileOperands) {
        // SAFETY: the caller promises the set and the operands.
        unsafe { panel_tile::<S, R, C>(operands) }
    }
}

/// Expands `R` vectors of rows into a panel.
pub(crate) struct ExpandRows<S, E, const R: usize>(PhantomData<(S, E)>);

// SAFETY: rows are read, and the room for the panel is written.
unsafe impl<S: Square, E: Element, const R: usize> Entry for ExpandRows<S, E, R> {
    type Operands = PanelSource;
    type Output = ();

    #[inline(always)]
    unsafe fn run(operands: &PanelSource) {
        // SAFETY: the caller promises the set and the operands.
        unsafe { expand::<S, E, R>(operands) }
    }
}

/// Sorts the activations of a tile of tokens by chain.
pub(crate) struct Arrange<S>(PhantomData<S>);

// SAFETY: the activations are read, and the room for their sorted copy is written.
unsafe impl<S: Square> Entry for Arrange<S> {
    type Operands = ArrangeOperands;
    type Output = ();

    #[inline(always)]
    unsafe fn run(operands: &ArrangeOperands) {
        let ArrangeOperands { input, stride, tokens, columns, output } = *operands;
        // SAFETY: the caller promises the set and the operands.
        unsafe { arrange::<S>((input, stride), tokens, columns, output) }
    }
}

/// Computes `R` vectors of rows × `C` tokens.
///
/// # Safety
/// The processor has the set, and the code is compiled for it; as for `PanelTile`.
#[inline(always)]
unsafe fn panel_tile<S: Simd, const R: usize, const C: usize>(tile: &PanelTileOperands) {
    let width = R * S::LANES;
    let steps = steps(tile.columns);
    // SAFETY: chains of `steps` columns of the panel and of the activations; sums of `C` × `R` vectors wait on `WAITING` levels; results
    // of `rows` rows of `C` tokens.
    unsafe {
        for place in tile.places.0..tile.places.0 + tile.places.1 {
            let mut weights = tile.weights.add(place * chain_stride(tile.columns, width));
            let mut input = tile.input.add(place * chain_stride(tile.columns, C));
            let mut sums = [[S::zero(); R]; C];
            for _ in 0..steps {
                let mut values = [S::zero(); R];
                for r in 0..R {
                    values[r] = S::floats(weights.add(r * S::LANES));
                }
                for c in 0..C {
                    let input = S::splat(*input.add(c));
                    for r in 0..R {
                        sums[c][r] = S::fma(values[r], input, sums[c][r]);
                    }
                }
                weights = weights.add(width);
                input = input.add(C);
            }
            let one = S::splat(1.0);
            let level = place.trailing_ones() as usize;
            for earlier in 0..level {
                for c in 0..C {
                    for r in 0..R {
                        // A plain sum, since multiplying by 1 is exact.
                        sums[c][r] = S::fma(
                            S::floats(tile.waiting.add(((earlier * C + c) * R + r) * S::LANES)),
                            one,
                            sums[c][r],
                        );
                    }
                }
            }
            if level < WAITING {
                for c in 0..C {
                    for r in 0..R {
                        S::store_floats(tile.waiting.add(((level * C + c) * R + r) * S::LANES), sums[c][r]);
                    }
                }
            } else if tile.rows == width {
                for c in 0..C {
                    for r in 0..R {
                        S::store_floats(tile.output.add(c * tile.output_stride + r * S::LANES), sums[c][r]);
                    }
                }
            } else {
                for c in 0..C {
                    for r in 0..R {
                        S::store_floats(tile.waiting.add((c * R + r) * S::LANES), sums[c][r]);
                    }
                    let output = tile.output.add(c * tile.output_stride);
                    output.copy_from_nonoverlapping(tile.waiting.add(c * width), tile.rows);
                }
            }
        }
    }
}

/// Expands `R` vectors of rows into a panel.
///
/// # Safety
/// The processor has the set, and the code is compiled for it; the rows and the room for the panel are there.
#[inline(always)]
unsafe fn expand<S: Square, E: Element, const R: usize>(from: &PanelSource) {
    // SAFETY: the caller promises the rows and the room; the rows that a vector repeats are not behind the last one.
    unsafe {
        for r in 0..R {
            let first = (r * S::LANES).min(from.rows - 1);
            let weights = from.weights.add(first * from.columns * E::BYTES);
            let row_bytes = from.columns * E::BYTES;
            let to = from.panel.add(r * S::LANES);
            sort::<S, E>((weights, row_bytes), from.rows - first, from.columns, R * S::LANES, to);
        }
    }
}

/// Sorts the activations of a tile of tokens by chain.
///
/// # Safety
/// The processor has the set, and the code is compiled for it; `input` points to `tokens` × `columns` floats, tokens `stride`
/// apart, and `out` has room for `CHAINS` × `chain_stride` floats.
#[inline(always)]
unsafe fn arrange<S: Square>((input, stride): (*const f32, usize), tokens: usize, columns: usize, out: *mut f32) {
    // SAFETY: the caller promises the tokens and the room. The vector of the last tokens may reach into the next step, of which
    // those floats are written later, or into the gap behind a chain.
    unsafe {
        for first in (0..tokens).step_by(S::LANES).rev() {
            let from = (input.add(first * stride).cast(), 4 * stride);
            sort::<S, super::SingleElement>(from, tokens - first, columns, tokens, out.add(first));
        }
    }
}

/// Writes the columns of `LANES` rows, `row_bytes` apart, by chain, with `width` floats from one step to the next. If there
/// are fewer rows, the last one is repeated.
#[inline(always)]
unsafe fn sort<S: Square, E: Element>(
    (from, row_bytes): (*const u8, usize),
    rows: usize,
    columns: usize,
    width: usize,
    to: *mut f32,
) {
    let stride = chain_stride(columns, width);
    // SAFETY: rows from 0 to `rows - 1`; `count` columns from `column` on are inside them, and a part of a vector is copied first; `to` has
    // room for `CHAINS` × `stride` floats.
    unsafe {
        for step in 0..steps(columns) {
            let column = step * CHAINS;
            let count = CHAINS.min(columns - column);
            if (column * E::BYTES).is_multiple_of(64) {
                // Prefetch the rows of the next vector and the next columns of these.
                for lane in 0..S::LANES {
                    let at = from.wrapping_add(lane * row_bytes + column * E::BYTES);
                    S::prefetch_far(at.wrapping_add(S::LANES * row_bytes));
                    S::prefetch_near(at.wrapping_add(AHEAD));
                }
            }
            for vector in (0..CHAINS).step_by(S::LANES) {
                let mut square = [S::zero(); 16];
                for lane in 0..S::LANES {
                    let at = from.add(lane.min(rows - 1) * row_bytes + column * E::BYTES);
                    square[lane] = if count == CHAINS {
                        E::load::<S>(at.add(vector * E::BYTES))
                    } else {
                        let mut rest = [0_u8; CHAINS * 4];
                        at.copy_to_nonoverlapping(rest.as_mut_ptr(), count * E::BYTES);
                        E::load::<S>(rest.as_ptr().add(vector * E::BYTES))
                    };
                }
                S::transpose(&mut square);
                for lane in 0..S::LANES {
                    S::store_floats(to.add(reversed(vector + lane) * stride + step * width), square[lane]);
                }
            }
        }
    }
}
