//! The kernel: a register tile of rows × columns over all of the weights' columns, generic over instruction set, weights
//! and size. The same code serves one token (straight from the packed layout) and prompts (from a panel).
//!
//! Arithmetic, for each row and token, block of 32 columns after block of 32, part after part where a format has two:
//! `t = float(Σ (value - zero) · activation) · scale`, then with minimums `t = t - minimum · Σ activation` (one rounding),
//! then `f = t · activation_scale + f` (one rounding). The integer sum is exact, so nothing else can differ between
//! instruction sets, tile sizes or batches.

use super::weights::{ScaleKind, Weights};
use crate::simd::{ROWS, Simd};

/// Bytes that a stream of weights is asked for in advance, into the second-level cache: what memory delivers while one
/// request is under way, with room.
///
/// One request into the first-level cache would be simpler, but it holds one of few buffers (24 on Zen 4, 12 on Skylake)
/// until memory answers, which bounds a core's stream. Measured on Zen 4, one core, Q4_0, GB/s (a plain read: 36): no
/// prefetch 17.5, first level 4 KB ahead 16.6, second level 8 KB ahead 24.1, both as here 26.6.
const FAR: usize = 8192;
/// Bytes in advance into the first-level cache, from the second.
const NEAR: usize = 2048;

/// Operands of one tile.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// Quants of the first group of rows.
    pub(crate) quants: *const u8,
    /// Scales of the first group of rows.
    pub(crate) scales: *const u8,
    /// Bytes from one group of rows to the next, of quants and of scales.
    pub(crate) stride: (usize, usize),
    /// 16 values chosen by quants, for weights that have a table.
    pub(crate) table: *const u8,
    /// Blocks of 32 columns.
    pub(crate) blocks: usize,
    /// Activations `[block][8][column]`, 4 bytes each.
    pub(crate) activations: *const i32,
    /// `-zero · Σ activation`: `[block][part][column]`.
    pub(crate) starts: *const i32,
    /// `Σ activation`: `[block][part][column]`.
    pub(crate) sums: *const f32,
    /// Scales of the activations: `[block][column]`.
    pub(crate) activation_scales: *const f32,
    /// Results, row after row.
    pub(crate) output: *mut f32,
    /// Floats from one column's results to the next.
    pub(crate) output_stride: usize,
    /// Whether `output` holds the sums of earlier blocks, to be continued.
    pub(crate) resume: bool,
}

/// A compiled kernel for a fixed number of columns.
pub(crate) type Kernel = unsafe fn(&Tile);

/// Computes `R` vectors of rows × `C` columns.
///
/// # Safety
/// The instruction set is available; the pointers are good for `blocks` blocks of `R · LANES` rows (a multiple of 16) and
/// `C` columns.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, W: Weights, const R: usize, const C: usize>(tile: &Tile) {
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        let vectors = ROWS / S::LANES;
        let parts = W::Scales::PARTS;
        let table = S::table(tile.table);
        // Loops instead of closures: a closure is compiled without the instruction set of the function around it.
        let mut quants = [tile.quants; R];
        let mut scales = [tile.scales; R];
        let mut lanes = [0; R];
        for r in 0..R {
            lanes[r] = r % vectors * S::LANES;
            quants[r] = tile.quants.add(r / vectors * tile.stride.0 + 4 * lanes[r]);
            scales[r] = tile.scales.add(r / vectors * tile.stride.1);
        }
        let mut results = [[S::zero(); C]; R];
        if tile.resume {
            for r in 0..R {
                for c in 0..C {
                    results[r][c] = S::floats(tile.output.add(c * tile.output_stride + r * S::LANES));
                }
            }
        }
        for block in 0..tile.blocks {
            let activations = tile.activations.add(block * 8 * C);
            let activation_scales = tile.activation_scales.add(block * C);
            if W::STREAM {
                let next = tile.quants.wrapping_add(block * W::BYTES);
                for line in 0..W::BYTES / 64 {
                    S::prefetch_far(next.wrapping_add(FAR + 64 * line));
                    S::prefetch_near(next.wrapping_add(NEAR + 64 * line));
                }
                S::prefetch_far(tile.scales.wrapping_add(block * W::Scales::BYTES + FAR));
            }
            macro_rules! part {
                ($part:literal: $($group:literal)*) => {{
                    let offset = (block * parts + $part) * C;
                    let starts = tile.starts.add(offset);
                    let mut sums = [[S::begin(starts); C]; R];
                    for c in 1..C {
                        for r in 0..R {
                            sums[r][c] = S::begin(starts.add(c));
                        }
                    }
                    $(
                        let mut weights = [table; R];
                        for r in 0..R {
                            weights[r] = W::group::<S, $group>(quants[r].add(block * W::BYTES), table);
                        }
                        for c in 0..C {
                            for r in 0..R {
                                let four = activations.add($group * C + c);
                                let sum = S::add_products(W::MAXIMUM, sums[r][c], weights[r], four);
                                sums[r][c] = S::carry(W::MAXIMUM, $group, sum);
                            }
                        }
                    )*
                    for r in 0..R {
                        let scale = W::Scales::scale::<S>(scales[r], lanes[r], block, $part);
                        let minimum = W::Scales::minimum::<S>(scales[r], lanes[r], block, $part);
                        for c in 0..C {
                            let mut term = S::mul(S::finish(sums[r][c], starts.add(c)), scale);
                            if W::Scales::MINIMUM {
                                term = S::fnma(minimum, S::splat(*tile.sums.add(offset + c)), term);
                            }
                            results[r][c] = S::fma(term, S::splat(*activation_scales.add(c)), results[r][c]);
                        }
                    }
                }};
            }
            if parts == 1 {
                part!(0: 0 1 2 3 4 5 6 7);
            } else {
                part!(0: 0 1 2 3);
                part!(1: 4 5 6 7);
            }
        }
        for r in 0..R {
            for c in 0..C {
                S::store_floats(tile.output.add(c * tile.output_stride + r * S::LANES), results[r][c]);
            }
        }
    }
}

/// Expands blocks of a group of 16 rows into a panel: bytes at `quants`, scales (and minimums) at `scales`.
///
/// # Safety
/// The instruction set is available; `tile` points to `blocks` packed blocks; there is room for 512 bytes a block at `quants`,
/// and for the scales that `Single` says.
#[inline(always)]
pub(crate) unsafe fn expand<S: Simd, W: Weights>(tile: &Tile, quants: *mut u8, scales: *mut f32) {
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        let table = S::table(tile.table);
        let parts = W::Scales::PARTS;
        let step = if W::Scales::MINIMUM { 32 } else { 16 };
        for block in 0..tile.blocks {
            for vector in 0..ROWS / S::LANES {
                let lane = vector * S::LANES;
                let from = tile.quants.add(block * W::BYTES + 4 * lane);
                let to = quants.add(512 * block + 4 * lane);
                macro_rules! groups {
                    ($($group:literal)*) => { $( S::store_bytes(to.add(64 * $group), W::group::<S, $group>(from, table)); )* };
                }
                groups!(0 1 2 3 4 5 6 7);
                for part in 0..parts {
                    let to = scales.add((block * parts + part) * step + lane);
                    S::store_floats(to, W::Scales::scale::<S>(tile.scales, lane, block, part));
                    if W::Scales::MINIMUM {
                        S::store_floats(to.add(16), W::Scales::minimum::<S>(tile.scales, lane, block, part));
                    }
                }
            }
        }
    }
}
