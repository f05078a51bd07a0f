//! The tile of `usmmla`, which multiplies two rows of 8 weights with two columns of 8 activations: a vector of sums holds row
//! 0 of both columns, then row 1. The sums are exact integers and the float operations go lane by lane, so the bits are
//! those of `tile`.

use std::arch::aarch64::*;

use super::dot::{AHEAD, pairs};
use crate::matmul::activations::{TileParts, quantize_tile};
use crate::matmul::tile::Tile;
use crate::matmul::weights::{ScaleKind, Weights};
use crate::simd::i8mm::I8mm;
use crate::simd::{ROWS, Simd};

/// Quantizes a tile of activations, 8 columns of each token side by side: `[block][4][token][2]`, 4 bytes each.
#[inline(always)]
pub(super) fn quantize(input: &[f32], tokens: usize, parts: &mut TileParts) {
    quantize_tile(input, tokens, parts);
    if tokens == 1 {
        return;
    }
    let mut pair = [0; 2 * MOST_TOKENS];
    for groups in parts.quants.chunks_exact_mut(2 * tokens) {
        let (first, second) = groups.split_at(tokens);
        for ((both, first), second) in pair.as_chunks_mut::<2>().0.iter_mut().zip(first).zip(second) {
            *both = [*first, *second];
        }
        groups.copy_from_slice(&pair[..2 * tokens]);
    }
}

/// The most tokens of a tile.
pub(super) const MOST_TOKENS: usize = 8;

/// Two numbers, twice; or one, four times.
#[inline(always)]
unsafe fn twice<const SINGLE: bool>(at: *const f32) -> float32x4_t {
    // SAFETY: the caller promises one or two numbers.
    unsafe {
        if SINGLE { vld1q_dup_f32(at) } else { vreinterpretq_f32_u64(vdupq_n_u64(at.cast::<u64>().read_unaligned())) }
    }
}

/// Computes 16 rows × `2 · Q` columns (or one, if `SINGLE` and `Q` is 1), `R` vectors of 4 rows at a time.
///
/// # Safety
/// The instruction set is available; the pointers are good for `blocks` blocks of 16 rows and the columns.
#[inline(always)]
pub(super) unsafe fn matrix_tile<W: Weights, const R: usize, const Q: usize, const SINGLE: bool>(tile: &Tile) {
    let columns = if SINGLE { 1 } else { 2 * Q };
    // SAFETY: every offset below is inside what the caller promises.
    unsafe {
        let parts = W::Scales::PARTS;
        let table = I8mm::table(tile.table);
        for first in (0..ROWS).step_by(4 * R) {
            // For 4 rows: rows 0 and 1, rows 2 and 3.
            let mut results = [[[I8mm::zero(); Q]; 2]; R];
            if tile.resume {
                for r in 0..R {
                    for q in 0..Q {
                        let from = tile.output.add(2 * q * tile.output_stride + first + 4 * r);
                        let even = vld1q_f32(from);
                        let odd = if SINGLE { even } else { vld1q_f32(from.add(tile.output_stride)) };
                        results[r][0][q] = vzip1q_f32(even, odd);
                        results[r][1][q] = vzip2q_f32(even, odd);
                    }
                }
            }
            for block in 0..tile.blocks {
                let activations = tile.activations.add(block * 8 * columns);
                let activation_scales = tile.activation_scales.add(block * columns);
                let quants = tile.quants.add(block * W::BYTES + if W::STREAM { 4 * first } else { 8 * first });
                if W::STREAM {
                    for line in 0..W::BYTES / 64 {
                        I8mm::prefetch_far(quants.wrapping_add(AHEAD + 64 * line));
                    }
                }
                macro_rules! part {
                    ($part:literal: $($even:literal $odd:literal)*) => {{
                        let offset = (block * parts + $part) * columns;
                        let mut sums = [[[vdupq_n_s32(0); Q]; 2]; R];
                        for q in 0..Q {
                            let start = twice::<SINGLE>(tile.starts.add(offset + 2 * q).cast());
                            for r in 0..R {
                                sums[r][0][q] = vreinterpretq_s32_f32(start);
                                sums[r][1][q] = vreinterpretq_s32_f32(start);
                            }
                        }
                        $(
                            let mut eights = [vdupq_n_s8(0); Q];
                            for q in 0..Q {
                                let from = activations.add($even * columns + 4 * q);
                                eights[q] = if SINGLE {
                                    vreinterpretq_s8_u64(vdupq_n_u64(from.cast::<u64>().read_unaligned()))
                                } else {
                                    vld1q_s8(from.cast())
                                };
                            }
                            for r in 0..R {
                                let weights = if W::STREAM {
                                    let from = quants.add(16 * r);
                                    pairs(W::group::<I8mm, $even>(from, table), W::group::<I8mm, $odd>(from, table))
                                } else {
                                    let from = quants.add(64 * $even + 32 * r);
                                    [vld1q_u8(from), vld1q_u8(from.add(16))]
                                };
                                for half in 0..2 {
                                    for q in 0..Q {
                                        sums[r][half][q] = I8mm::multiply(sums[r][half][q], weights[half], eights[q]);
                                    }
                                }
                            }
                        )*
                        for r in 0..R {
                            let lane = first + 4 * r;
                            let scale = W::Scales::scale::<I8mm>(tile.scales, lane, block, $part);
                            let minimum = W::Scales::minimum::<I8mm>(tile.scales, lane, block, $part);
                            let scales = [vzip1q_f32(scale, scale), vzip2q_f32(scale, scale)];
                            let minimums = [vzip1q_f32(minimum, minimum), vzip2q_f32(minimum, minimum)];
                            for half in 0..2 {
                                for q in 0..Q {
                                    let mut term = I8mm::mul(vcvtq_f32_s32(sums[r][half][q]), scales[half]);
                                    if W::Scales::MINIMUM {
                                        let sums = twice::<SINGLE>(tile.sums.add(offset + 2 * q));
                                        term = I8mm::fnma(minimums[half], sums, term);
                                    }
                                    let factor = twice::<SINGLE>(activation_scales.add(2 * q));
                                    results[r][half][q] = I8mm::fma(term, factor, results[r][half][q]);
                                }
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
                for q in 0..Q {
                    let to = tile.output.add(2 * q * tile.output_stride + first + 4 * r);
                    vst1q_f32(to, vuzp1q_f32(results[r][0][q], results[r][1][q]));
                    if !SINGLE {
                        vst1q_f32(to.add(tile.output_stride), vuzp2q_f32(results[r][0][q], results[r][1][q]));
                    }
                }
            }
        }
    }
}
