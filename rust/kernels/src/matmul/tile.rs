//! The kernel: a register tile of rows × columns over all of the weights' columns, generic over instruction set, weights
//! and size. The same code serves one token (straight from the packed layout) and prompts (from a panel).
//!
//! Arithmetic, for each row and token, with `I = Σ (value - zero) · activation` over a part of 32 columns, exact, and one
//! rounding for each `float` and `fma`:
//!
//! - Formats with float scales for 32 columns, block after block: `f = fma(float(I) · scale, activation_scale, f)`, then with
//!   minimums `f = fma(-minimum, Σ activation · activation_scale, f)`.
//! - Formats with integer scales below a float for 256 columns, 256 columns after 256: from `g = 0`, block after block,
//!   `g = fma(float(Σ over parts of I · integer_scale), activation_scale, g)`; then `f = fma(scale, g, f)`. With minimums,
//!   the sums of activations are rounded to 16 bits with one scale for 256 columns, far below the error of the
//!   activations themselves, and `f = fma(-minimum, float(Σ over parts of integer_minimum · sum) · sum_scale, f)`.
//!   Multiplications of integers partly run beside the dot products where those of floats take their place.
//!
//! All integers are exact, so nothing can differ between instruction sets, tile sizes or batches.

use super::weights::{ScaleKind, Weights};
use crate::simd::{ROWS, Simd};

/// Bytes that a stream of weights is asked for in advance, into the second-level cache: what memory delivers while one
/// request is under way, with room.
///
/// One request into the first-level cache would be simpler, but it holds one of few buffers (24 on Zen 4, 12 on Skylake)
/// until memory answers, which bounds a core's stream. Measured on Zen 4, one core, Q4_0, GB/s (a plain read: 36): no
/// prefetch 17.5, first level 4 KB ahead 16.6, second level 8 KB ahead 24.1, with the first level 2 KB ahead 26.6. Two
/// cores on a quiet machine (a plain read: 63), 8 and 2 KB, then 24 and 4 KB: Q4_0 40 and 45, Q8_0 42 and 47, Q4_K 37 and
/// 45, Q6_K 43 and 48; 48 KB and more is slower again. From the third-level cache the same kernels take in 51 to 65 on one
/// core, so it is memory that they wait for.
const FAR: usize = 24 << 10;
/// Bytes in advance into the first-level cache, from the second.
const NEAR: usize = 4 << 10;

/// Operands of one tile.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// Quants of the first group of rows.
    pub(crate) quants: *const u8,
    /// Scales of the first group of rows.
    pub(crate) scales: *const u8,
    /// Bytes from one group of rows to the next, of quants and of scales.
    pub(crate) stride: (usize, usize),
    /// Where the weights have been unfolded from, if they have been: quants and scales, and bytes of 32 columns of each.
    pub(crate) folded: (*const u8, *const u8),
    /// See `folded`.
    pub(crate) folded_bytes: (usize, usize),
    /// 16 values chosen by quants, for weights that have a table.
    pub(crate) table: *const u8,
    /// Blocks of 32 columns.
    pub(crate) blocks: usize,
    /// Activations `[block][8][column]`, 4 bytes each.
    pub(crate) activations: *const i32,
    /// `-zero · Σ activation`: `[block][part][column]`.
    pub(crate) starts: *const i32,
    /// `Σ activation` times the activations' scale: `[block][part][column]`.
    pub(crate) sums: *const f32,
    /// The same as pairs of 16 bits, for weights with integer minimums: `[block · parts / 2][column]`.
    pub(crate) pairs: *const i32,
    /// What 1 in `pairs` stands for: `[block / 8][column]`.
    pub(crate) pair_scales: *const f32,
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

/// Where the rows of a tile lie.
#[derive(Clone, Copy)]
struct Rows<const R: usize> {
    quants: [*const u8; R],
    scales: [*const u8; R],
    /// First row of the vector in its group.
    lanes: [usize; R],
}

/// Computes `R` vectors of rows × `C` columns.
///
/// # Safety
/// The instruction set is available; the pointers are good for `blocks` blocks (a multiple of 8 for weights with integer
/// scales) of `R · LANES` rows (a multiple of 16) and `C` columns.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, W: Weights, const R: usize, const C: usize>(tile: &Tile) {
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        // Loops instead of closures: a closure is compiled without the instruction set of the function around it.
        let vectors = ROWS / S::LANES;
        let mut rows = Rows { quants: [tile.quants; R], scales: [tile.scales; R], lanes: [0; R] };
        for r in 0..R {
            rows.lanes[r] = r % vectors * S::LANES;
            rows.quants[r] = tile.quants.add(r / vectors * tile.stride.0 + 4 * rows.lanes[r]);
            rows.scales[r] = tile.scales.add(r / vectors * tile.stride.1);
        }
        if W::Scales::INTEGER {
            of_integer_scales::<S, W, R, C>(tile, &rows);
        } else {
            of_float_scales::<S, W, R, C>(tile, &rows);
        }
    }
}

/// Asks for the weights that will be needed some time after `block`.
#[inline(always)]
pub(super) unsafe fn prefetch<S: Simd, W: Weights>(tile: &Tile, block: usize) {
    if W::FOLDED {
        // SAFETY: addresses need not exist.
        unsafe { prefetch_folded::<S>(tile, block) };
    }
    if W::STREAM {
        // SAFETY: addresses need not exist.
        unsafe {
            let next = tile.quants.wrapping_add(block * W::BYTES);
            for line in 0..W::BYTES / 64 {
                S::prefetch_far(next.wrapping_add(FAR + 64 * line));
                S::prefetch_near(next.wrapping_add(NEAR + 64 * line));
            }
            S::prefetch_far(tile.scales.wrapping_add(block * W::Scales::BYTES + FAR));
        }
    }
}

/// The same for weights that were unfolded before: a burst of requests while that happens would hold all of the buffers for
/// what memory has been asked for, and nothing would be under way afterwards.
#[inline(always)]
pub(super) unsafe fn prefetch_folded<S: Simd>(tile: &Tile, block: usize) {
    let (quants, scales) = tile.folded_bytes;
    let next = tile.folded.0.wrapping_add(block * quants);
    // SAFETY: addresses need not exist.
    unsafe {
        // The most that 32 columns have: 192 bytes.
        for line in 0..3 {
            S::prefetch_far(next.wrapping_add(FAR + 64 * line));
            S::prefetch_near(next.wrapping_add(NEAR + 64 * line));
        }
        S::prefetch_far(tile.folded.1.wrapping_add(block * scales + FAR));
    }
}

/// The dot products of one part of a block, scaled where the instruction set does that on the way.
#[inline(always)]
unsafe fn products<S: Simd, W: Weights, const R: usize, const C: usize>(
    tile: &Tile,
    quants: [*const u8; R],
    (block, part): (usize, usize),
    scale: [S::Scale; R],
) -> [[S::Sums; C]; R] {
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        let table = S::table(tile.table);
        let activations = tile.activations.add(block * 8 * C);
        let mut sums = [[S::empty(); C]; R];
        if !W::Scales::MINIMUM {
            // Weights with minimums have zeros of 0.
            for c in 0..C {
                for r in 0..R {
                    sums[r][c] = S::begin(tile.starts.add((block * W::Scales::DOTS + part) * C + c));
                }
            }
        }
        macro_rules! groups {
            ($($group:literal)*) => { $(
                let mut weights = [table; R];
                for r in 0..R {
                    weights[r] = W::group::<S, $group>(quants[r].add(block * W::BYTES), table);
                }
                for c in 0..C {
                    for r in 0..R {
                        let four = activations.add($group * C + c);
                        let sum = S::add_products(W::MAXIMUM, sums[r][c], weights[r], four);
                        sums[r][c] = S::carry(W::MAXIMUM, $group, sum, scale[r]);
                    }
                }
                for c in 0..C {
                    for r in 0..R {
                        S::hold(&mut sums[r][c]);
                    }
                }
            )* };
        }
        match (W::Scales::DOTS, part) {
            (1, _) => {
                groups!(0 1 2 3 4 5 6 7);
            }
            (_, 0) => {
                groups!(0 1 2 3);
            }
            _ => {
                groups!(4 5 6 7);
            }
        }
        sums
    }
}

/// Results of earlier blocks, or zeros.
#[inline(always)]
unsafe fn before<S: Simd, const R: usize, const C: usize>(tile: &Tile) -> [[S::Floats; C]; R] {
    // SAFETY: the output has room for the tile.
    unsafe {
        let mut results = [[S::zero(); C]; R];
        if tile.resume {
            for r in 0..R {
                for c in 0..C {
                    results[r][c] = S::floats(tile.output.add(c * tile.output_stride + r * S::LANES));
                }
            }
        }
        results
    }
}

/// Stores the results.
#[inline(always)]
unsafe fn store<S: Simd, const R: usize, const C: usize>(tile: &Tile, results: [[S::Floats; C]; R]) {
    // SAFETY: the output has room for the tile.
    unsafe {
        for r in 0..R {
            for c in 0..C {
                S::store_floats(tile.output.add(c * tile.output_stride + r * S::LANES), results[r][c]);
            }
        }
    }
}

/// A tile of weights whose scales are floats for 32 columns.
#[inline(always)]
unsafe fn of_float_scales<S: Simd, W: Weights, const R: usize, const C: usize>(tile: &Tile, rows: &Rows<R>) {
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        let mut results = before::<S, R, C>(tile);
        for block in 0..tile.blocks {
            prefetch::<S, W>(tile, block);
            let activation_scales = tile.activation_scales.add(block * C);
            let at = tile.starts.add(block * C);
            let sums = products::<S, W, R, C>(tile, rows.quants, (block, 0), [S::unscaled(); R]);
            for r in 0..R {
                let scale = W::Scales::scale::<S>(rows.scales[r], rows.lanes[r], block, 0);
                for c in 0..C {
                    let term = S::mul(S::finish(sums[r][c], at.add(c)), scale);
                    results[r][c] = S::fma(term, S::splat(*activation_scales.add(c)), results[r][c]);
                }
                if W::Scales::MINIMUM {
                    let minimum = W::Scales::minimum::<S>(rows.scales[r], rows.lanes[r], block, 0);
                    for c in 0..C {
                        let sum = S::splat(*tile.sums.add(block * C + c));
                        results[r][c] = S::fnma(minimum, sum, results[r][c]);
                    }
                }
            }
        }
        store::<S, R, C>(tile, results);
    }
}

/// A tile of weights whose scales are integers for parts of 32 columns and a float for 256.
///
/// The results of earlier columns, used once for 256, are what does not stay in registers.
#[inline(always)]
unsafe fn of_integer_scales<S: Simd, W: Weights, const R: usize, const C: usize>(tile: &Tile, rows: &Rows<R>) {
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        let parts = W::Scales::PARTS;
        let mut results = before::<S, R, C>(tile);
        for first in (0..tile.blocks).step_by(8) {
            let mut inner = [[S::zero(); C]; R];
            for block in first..first + 8 {
                prefetch::<S, W>(tile, block);
                let mut totals = [[S::integers(); C]; R];
                macro_rules! part {
                    ($part:literal) => {{
                        let mut scale = [S::unscaled(); R];
                        for r in 0..R {
                            scale[r] = W::Scales::integer::<S>(rows.scales[r], rows.lanes[r], block, $part);
                        }
                        let sums = products::<S, W, R, C>(tile, rows.quants, (block, $part), scale);
                        for r in 0..R {
                            for c in 0..C {
                                totals[r][c] = S::add_scaled(totals[r][c], sums[r][c], scale[r]);
                                if !W::Scales::MINIMUM {
                                    let start = tile.starts.add((block * W::Scales::DOTS + $part) * C + c);
                                    totals[r][c] = S::add_start(totals[r][c], start, scale[r]);
                                }
                            }
                        }
                    }};
                }
                part!(0);
                if W::Scales::DOTS == 2 {
                    part!(1);
                }
                for c in 0..C {
                    let activation_scale = S::splat(*tile.activation_scales.add(block * C + c));
                    for r in 0..R {
                        inner[r][c] = S::fma(S::to_floats(totals[r][c]), activation_scale, inner[r][c]);
                    }
                }
            }
            let mut minimums = [[S::integers(); C]; R];
            if W::Scales::MINIMUM {
                for pair in first * parts / 2..(first + 8) * parts / 2 {
                    let mut pairs = [S::unscaled(); R];
                    for r in 0..R {
                        pairs[r] = W::Scales::minimums::<S>(rows.scales[r], rows.lanes[r], pair);
                    }
                    for c in 0..C {
                        for r in 0..R {
                            minimums[r][c] = S::add_pairs(minimums[r][c], pairs[r], tile.pairs.add(pair * C + c));
                        }
                    }
                }
            }
            for r in 0..R {
                let scale = W::Scales::scale::<S>(rows.scales[r], rows.lanes[r], first, 0);
                for c in 0..C {
                    results[r][c] = S::fma(scale, inner[r][c], results[r][c]);
                }
                if W::Scales::MINIMUM {
                    let minimum = W::Scales::minimum::<S>(rows.scales[r], rows.lanes[r], first, 0);
                    for c in 0..C {
                        let sum = S::splat(*tile.pair_scales.add(first / 8 * C + c));
                        let term = S::mul(S::to_floats(minimums[r][c]), sum);
                        results[r][c] = S::fnma(minimum, term, results[r][c]);
                    }
                }
            }
        }
        store::<S, R, C>(tile, results);
    }
}

/// Expands blocks of a group of 16 rows into a panel: bytes at `quants`, float scales (and minimums) at `scales`.
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
                for part in 0..if W::Scales::INTEGER { 0 } else { parts } {
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
