//! Products of plain weights (F32, F16, BF16) with activations in f32.
//!
//! Column `k` goes to partial sum `k mod 16` by fma, in order; then `s[i] + s[i + 8]`, `s[i] + s[i + 4]`, `s[i] + s[i + 2]`,
//! `s[0] + s[1]`. A last piece of fewer than 16 columns is filled with zeros.
//!
//! Few tokens are multiplied straight from the file's rows: the partial sums lie in the lanes of a vector (`float_tile`). For
//! many tokens some rows are expanded to f32 with rows in the lanes, and the partial sums come one after the other (`panel`).
//! Every product has the same 16 sums and the same tree in both, so the same bits.

pub(crate) mod panel;
pub(crate) mod pieces;
pub(crate) mod square;
#[cfg(test)]
mod tests;

use crate::simd::Simd;

/// Partial sums of a product.
const SUMS: usize = 16;

/// Operands of one tile of rows × tokens.
#[derive(Clone, Copy)]
pub(crate) struct FloatTile {
    /// First row.
    pub(crate) weights: *const u8,
    /// Activations of the first token.
    pub(crate) input: *const f32,
    /// Length of rows and activations.
    pub(crate) columns: usize,
    /// Results: `[token][row]`.
    pub(crate) output: *mut f32,
    /// Floats from one token's results to the next.
    pub(crate) output_stride: usize,
}

/// A kernel for a fixed number of rows and tokens.
pub(crate) type FloatKernel = unsafe fn(&FloatTile);

/// A type of plain weights.
pub(crate) trait Element: 'static {
    /// Bytes of a weight.
    const BYTES: usize;
    /// Loads `LANES` weights.
    unsafe fn load<S: Simd>(at: *const u8) -> S::Floats;
}

/// F32 weights.
pub(crate) struct SingleElement;
/// F16 weights.
pub(crate) struct HalfElement;
/// BF16 weights.
pub(crate) struct BrainElement;

impl Element for SingleElement {
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load<S: Simd>(at: *const u8) -> S::Floats {
        // SAFETY: the caller promises the instruction set and the weights; any alignment will do.
        unsafe { S::floats(at.cast()) }
    }
}

impl Element for HalfElement {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(at: *const u8) -> S::Floats {
        // SAFETY: the caller promises the instruction set and the weights.
        unsafe { S::halves(at) }
    }
}

impl Element for BrainElement {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(at: *const u8) -> S::Floats {
        // SAFETY: the caller promises the instruction set and the weights.
        unsafe { S::brains(at) }
    }
}

/// Computes `R` rows × `C` tokens.
///
/// # Safety
/// The instruction set is available; `R` rows and `C` tokens lie at the pointers.
#[inline(always)]
pub(crate) unsafe fn float_tile<S: Simd, E: Element, const R: usize, const C: usize>(tile: &FloatTile) {
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        let row_bytes = tile.columns * E::BYTES;
        let vectors = SUMS / S::LANES;
        // The second half is not used by 16 lanes.
        let mut sums = [[[S::zero(); 2]; C]; R];
        let whole = tile.columns / SUMS * SUMS;
        // A macro instead of a closure, which would be compiled without the instruction set of the function around it.
        macro_rules! step {
            ($weights:expr, $row_bytes:expr, $input:expr, $columns:expr) => {
                for vector in 0..vectors {
                    let mut values = [S::zero(); R];
                    for r in 0..R {
                        values[r] = E::load::<S>($weights.add(r * $row_bytes + vector * S::LANES * E::BYTES));
                    }
                    for c in 0..C {
                        let input = S::floats($input.add(c * $columns + vector * S::LANES));
                        for r in 0..R {
                            sums[r][c][vector] = S::fma(values[r], input, sums[r][c][vector]);
                        }
                    }
                }
            };
        }
        for k in (0..whole).step_by(SUMS) {
            let (weights, input) = (tile.weights.add(k * E::BYTES), tile.input.add(k));
            if C <= 2 {
                // Few tokens read every weight once: ask for the rows of the next tile.
                for r in 0..R {
                    S::prefetch_far(weights.wrapping_add((R + r) * row_bytes));
                }
            }
            step!(weights, row_bytes, input, tile.columns);
        }
        let rest = tile.columns - whole;
        if rest > 0 {
            let mut weights = [[0_u8; SUMS * 4]; R];
            let mut input = [[0.0_f32; SUMS]; C];
            for (r, weights) in weights.iter_mut().enumerate() {
                let from = tile.weights.add(r * row_bytes + whole * E::BYTES);
                from.copy_to_nonoverlapping(weights.as_mut_ptr(), rest * E::BYTES);
            }
            for (c, input) in input.iter_mut().enumerate() {
                let from = tile.input.add(c * tile.columns + whole);
                from.copy_to_nonoverlapping(input.as_mut_ptr(), rest);
            }
            let (weights, input) = (weights.as_ptr().cast::<u8>(), input.as_ptr().cast::<f32>());
            step!(weights, SUMS * 4, input, SUMS);
        }
        for (r, sums) in sums.iter().enumerate() {
            for (c, sums) in sums.iter().enumerate() {
                let mut lanes = [0.0_f32; SUMS];
                for vector in 0..vectors {
                    S::store_floats(lanes.as_mut_ptr().add(vector * S::LANES), sums[vector]);
                }
                *tile.output.add(c * tile.output_stride + r) = add_lanes(lanes);
            }
        }
    }
}

/// The fixed tree of additions.
#[inline(always)]
fn add_lanes(sums: [f32; SUMS]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| sums[i] + sums[i + 8]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}
