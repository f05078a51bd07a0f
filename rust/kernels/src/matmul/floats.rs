//! Products of plain weights (F32, F16, BF16) with activations in f32.
//!
//! Column `k` is added to partial sum `k mod 16` by fma, in order; then follow `s[i] + s[i + 8]`, `s[i] + s[i + 4]`,
//! `s[i] + s[i + 2]`, `s[0] + s[1]`. A last piece of fewer than 16 columns is padded with zeros.
//!
//! Few tokens are multiplied straight from the file's rows, with the partial sums in the lanes of a vector (`float_tile`).
//! For many tokens some rows are expanded to f32 with rows in the lanes, and the partial sums are computed one after the
//! other (`panel`). Both use the same 16 sums and the same tree for every product, hence give the same bits.

pub(crate) mod panel;
pub(crate) mod pieces;
pub(crate) mod square;

use std::marker::PhantomData;

use crate::cpu::sets::Entry;
use crate::simd::Simd;
use square::Square;

/// Number of partial sums of a product.
const SUMS: usize = 16;
/// Maximum number of rows of a tile.
pub(crate) const FLOAT_ROWS: usize = 16;
/// Columns processed before moving to the next rows, so that the activations of one or two tokens stay in the first-level cache.
const PART: usize = 4096;
/// Prefetch distance of weights into the second-level cache in bytes, rounded to whole rows; see also `lanes::FAR`.
///
/// Two threads on Zen 4, F16 in a mapped file, GB/s (a plain read: 60). One row after the other, rows of 2048 columns: 58
/// when prefetching 3 to 6 rows ahead, and the same without, since the processor sees one sequential stream; rows of 8192
/// columns: 58 with 3 or 4 rows, 26 without. Two rows side by side: 55 and 44, four rows: 53 and 48. Huge pages give 4 to
/// 8 % more.
const FAR: usize = 16 << 10;
/// Prefetch distance into the first-level cache, from the second, in bytes.
const NEAR: usize = 2 << 10;

/// Operands of one tile of rows × tokens.
#[derive(Clone, Copy)]
pub(crate) struct FloatTileOperands {
    /// First row.
    pub(crate) weights: *const u8,
    /// Number of rows, at most `FLOAT_ROWS`.
    pub(crate) rows: usize,
    /// Activations of the first token.
    pub(crate) input: *const f32,
    /// Floats from one token's activations to the next.
    pub(crate) input_stride: usize,
    /// Length of rows and activations.
    pub(crate) columns: usize,
    /// Results: `[token][row]`.
    pub(crate) output: *mut f32,
    /// Floats from one token's results to the next.
    pub(crate) output_stride: usize,
}

/// A type of plain weights.
///
/// # Safety
/// `load` reads `LANES` × `BYTES` bytes.
pub(crate) unsafe trait Element: 'static {
    /// Bytes of a weight.
    const BYTES: usize;
    /// Loads `LANES` weights.
    ///
    /// # Safety
    /// The processor has the set, and the code is compiled for it; the weights are there, at any alignment.
    unsafe fn load<S: Simd>(at: *const u8) -> S::Floats;
}

/// F32 weights.
pub(crate) struct SingleElement;
/// F16 weights.
pub(crate) struct HalfElement;
/// BF16 weights.
pub(crate) struct BrainElement;

// SAFETY: a vector of floats: 4 bytes a lane.
unsafe impl Element for SingleElement {
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load<S: Simd>(at: *const u8) -> S::Floats {
        // SAFETY: the caller promises the instruction set and the weights; any alignment will do.
        unsafe { S::floats(at.cast()) }
    }
}

// SAFETY: a vector of halves: 2 bytes a lane.
unsafe impl Element for HalfElement {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(at: *const u8) -> S::Floats {
        // SAFETY: the caller promises the instruction set and the weights.
        unsafe { S::halves(at) }
    }
}

// SAFETY: a vector of halves: 2 bytes a lane.
unsafe impl Element for BrainElement {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(at: *const u8) -> S::Floats {
        // SAFETY: the caller promises the instruction set and the weights.
        unsafe { S::brains(at) }
    }
}

/// Partial sums of a tile, by row and token.
type Sums<const C: usize> = [[[f32; SUMS]; C]; FLOAT_ROWS];

/// A tile of `C` tokens, `R` rows side by side; `R` divides `FLOAT_ROWS`.
pub(super) struct FloatTile<S, E, const R: usize, const C: usize>(PhantomData<(S, E)>);

// SAFETY: the tile reads the rows (of which there is at least one) and `C` tokens, and writes the results of both.
unsafe impl<S: Square, E: Element, const R: usize, const C: usize> Entry for FloatTile<S, E, R, C> {
    type Operands = FloatTileOperands;
    type Output = ();

    #[inline(always)]
    unsafe fn run(operands: &FloatTileOperands) {
        // SAFETY: the caller promises the set and the operands.
        unsafe { float_tile::<S, E, R, C>(operands) }
    }
}

/// Computes `C` tokens, `R` rows side by side.
///
/// # Safety
/// The processor has the set, and the code is compiled for it; the pointers refer to the rows and to `C` tokens.
#[inline(always)]
unsafe fn float_tile<S: Square, E: Element, const R: usize, const C: usize>(tile: &FloatTileOperands) {
    // SAFETY: rows from 0 to `rows - 1`, columns from `first` to `first + count`, which is at most `columns`; results of those rows.
    unsafe {
        let row_bytes = tile.columns * E::BYTES;
        let mut sums: Sums<C> = [[[0.0; SUMS]; C]; FLOAT_ROWS];
        for first in (0..tile.columns).step_by(PART) {
            let count = PART.min(tile.columns - first);
            let input = tile.input.add(first);
            // Distance to the next rows, and to those that are prefetched.
            let next = R * row_bytes;
            let far = (FAR / (R * count * E::BYTES)).max(1) * next;
            for row in (0..tile.rows).step_by(R) {
                let mut weights = [tile.weights; R];
                for r in 0..R {
                    // Missing rows repeat the last row.
                    let row = (row + r).min(tile.rows - 1);
                    weights[r] = tile.weights.add(row * row_bytes + first * E::BYTES);
                }
                add::<S, E, R, C>(&mut sums, row, weights, (next, far), input, tile.input_stride, count);
            }
        }
        for c in 0..C {
            for row in (0..tile.rows).step_by(S::LANES) {
                let results = add_lanes::<S, C>(&sums, row, c);
                let output = tile.output.add(c * tile.output_stride + row);
                if row + S::LANES <= tile.rows {
                    S::store_floats(output, results);
                } else {
                    let mut spare = [0.0_f32; 16];
                    S::store_floats(spare.as_mut_ptr(), results);
                    output.copy_from_nonoverlapping(spare.as_ptr(), tile.rows - row);
                }
            }
        }
    }
}

/// Adds the products of `count` columns of `R` rows.
#[inline(always)]
unsafe fn add<S: Simd, E: Element, const R: usize, const C: usize>(
    sums: &mut Sums<C>,
    row: usize,
    weights: [*const u8; R],
    (next, far): (usize, usize),
    input: *const f32,
    stride: usize,
    count: usize,
) {
    // SAFETY: `count` columns of the rows at `weights` and of `C` tokens, `stride` apart; what does not fill a vector is copied first; a
    // prefetch may have any address.
    unsafe {
        let vectors = SUMS / S::LANES;
        // Sets with 4 lanes use all four.
        let mut some = [[[S::zero(); 4]; C]; R];
        for r in 0..R {
            for c in 0..C {
                for vector in 0..vectors {
                    some[r][c][vector] = S::floats(sums[row + r][c].as_ptr().add(vector * S::LANES));
                }
            }
        }
        // A macro instead of a closure, which would be compiled without the instruction set of the enclosing function.
        macro_rules! step {
            ($weights:expr, $at:expr, $input:expr, $stride:expr) => {
                for vector in 0..vectors {
                    let mut values = [S::zero(); R];
                    for r in 0..R {
                        values[r] = E::load::<S>($weights[r].add(($at + vector * S::LANES) * E::BYTES));
                    }
                    for c in 0..C {
                        let input = S::floats($input.add(c * $stride + $at + vector * S::LANES));
                        for r in 0..R {
                            some[r][c][vector] = S::fma(values[r], input, some[r][c][vector]);
                        }
                    }
                }
            };
        }
        let line = 64 / E::BYTES;
        let (lines, whole) = (count / line * line, count / SUMS * SUMS);
        let bytes = count * E::BYTES;
        for k in (0..lines).step_by(line) {
            let at = k * E::BYTES;
            let near = if at + NEAR < bytes { at + NEAR } else { (at + NEAR).wrapping_sub(bytes).wrapping_add(next) };
            for r in 0..R {
                S::prefetch_far(weights[r].wrapping_add(at).wrapping_add(far));
                S::prefetch_near(weights[r].wrapping_add(near));
            }
            for part in (0..line).step_by(SUMS) {
                step!(weights, k + part, input, stride);
            }
        }
        for k in (lines..whole).step_by(SUMS) {
            step!(weights, k, input, stride);
        }
        let rest = count - whole;
        if rest > 0 {
            let mut last_weights = [[0_u8; SUMS * 4]; R];
            let mut last_input = [[0.0_f32; SUMS]; C];
            let mut pointers = weights;
            for r in 0..R {
                let from = weights[r].add(whole * E::BYTES);
                from.copy_to_nonoverlapping(last_weights[r].as_mut_ptr(), rest * E::BYTES);
                pointers[r] = last_weights[r].as_ptr();
            }
            for c in 0..C {
                input.add(c * stride + whole).copy_to_nonoverlapping(last_input[c].as_mut_ptr(), rest);
            }
            let input = last_input.as_ptr().cast::<f32>();
            step!(pointers, 0, input, SUMS);
        }
        for r in 0..R {
            for c in 0..C {
                for vector in 0..vectors {
                    S::store_floats(sums[row + r][c].as_mut_ptr().add(vector * S::LANES), some[r][c][vector]);
                }
            }
        }
    }
}

/// The fixed tree of additions, for `LANES` rows at once.
#[inline(always)]
unsafe fn add_lanes<S: Square, const C: usize>(sums: &Sums<C>, row: usize, token: usize) -> S::Floats {
    // SAFETY: `LANES` rows from `row` on are inside the sums; the caller promises the instruction set.
    unsafe {
        let mut all = [S::zero(); SUMS];
        for first in (0..SUMS).step_by(S::LANES) {
            let mut square = [S::zero(); 16];
            for lane in 0..S::LANES {
                square[lane] = S::floats(sums[row + lane][token].as_ptr().add(first));
            }
            S::transpose(&mut square);
            all[first..first + S::LANES].copy_from_slice(&square[..S::LANES]);
        }
        let one = S::splat(1.0);
        for distance in [8, 4, 2, 1] {
            for i in 0..distance {
                // A plain sum, since multiplying by 1 is exact.
                all[i] = S::fma(all[i], one, all[i + distance]);
            }
        }
        all[0]
    }
}
