//! The product of `usmmla`, which multiplies two rows of 8 weights by two columns of 8 activations: a vector of sums holds
//! row 0 of both columns, then row 1. The sums are exact integers and the float operations go lane by lane, so the bits
//! match those of every other tile.

use std::arch::aarch64::*;
use std::hint::black_box;

use super::dot::{pairs, prefetch};
use crate::cpu::sets::{Entry, I8mm};
use crate::matmul::operands::TileOperands;
use crate::matmul::product::{Product, Results, RowVectors};
use crate::matmul::weights::{ScaleKind, Weights};
use crate::simd::Simd;
use crate::simd::neon::add_pair_products;

/// Two values, twice; or one, four times.
#[inline(always)]
unsafe fn twice<const SINGLE: bool>(at: *const f32) -> float32x4_t {
    // SAFETY: the caller promises one or two values.
    unsafe {
        if SINGLE { vld1q_dup_f32(at) } else { vreinterpretq_f32_u64(vdupq_n_u64(at.cast::<u64>().read_unaligned())) }
    }
}

/// Products of pairs of rows and pairs of columns, or one column (`SINGLE`).
pub(crate) struct PairProduct<const SINGLE: bool>;

// SAFETY: every offset is inside the block, the rows and the columns of the tile.
unsafe impl<const SINGLE: bool> Product for PairProduct<SINGLE> {
    type Set = I8mm;
    const SPREAD: usize = 2;
    const SINGLE: bool = SINGLE;

    #[inline(always)]
    unsafe fn sums<W: Weights, const R: usize, const C: usize>(
        tile: &TileOperands,
        rows: &RowVectors<R>,
        block: usize,
    ) -> Results<Self, R, C> {
        // SAFETY: the caller promises the set and the block.
        unsafe {
            let mut totals = [[I8mm::integers(); C]; R];
            if W::Scales::INTEGER {
                macro_rules! part {
                    ($part:literal) => {{
                        let sums = products::<W, R, C, SINGLE>(tile, rows, block, $part);
                        for r in 0..R {
                            let scale = W::Scales::integer::<I8mm>(rows.scales[r], rows.lanes[r], block, $part);
                            let scale = Self::spread_pairs(scale, r % 2);
                            for c in 0..C {
                                totals[r][c] = I8mm::add_scaled(totals[r][c], sums[r][c], scale);
                            }
                        }
                    }};
                }
                part!(0);
                if W::Scales::PARTS == 2 {
                    part!(1);
                }
            } else {
                totals = products::<W, R, C, SINGLE>(tile, rows, block, 0);
            }
            let mut floats = [[I8mm::zero(); C]; R];
            for r in 0..R {
                for c in 0..C {
                    floats[r][c] = I8mm::to_floats(totals[r][c]);
                }
            }
            floats
        }
    }

    #[inline(always)]
    unsafe fn half_sums<W: Weights, const R: usize, const C: usize, const PART: usize>(
        tile: &TileOperands,
        rows: &RowVectors<R>,
        block: usize,
    ) -> Results<Self, R, C> {
        // SAFETY: the caller promises the set and the block.
        unsafe {
            let sums = products::<W, R, C, SINGLE>(tile, rows, block, PART);
            let mut floats = [[I8mm::zero(); C]; R];
            for r in 0..R {
                for c in 0..C {
                    floats[r][c] = I8mm::to_floats(sums[r][c]);
                }
            }
            floats
        }
    }

    #[inline(always)]
    unsafe fn spread(values: float32x4_t, part: usize) -> float32x4_t {
        // SAFETY: every aarch64 processor has these instructions.
        unsafe { if part == 0 { vzip1q_f32(values, values) } else { vzip2q_f32(values, values) } }
    }

    #[inline(always)]
    unsafe fn spread_pairs(values: int32x4_t, part: usize) -> int32x4_t {
        // SAFETY: every aarch64 processor has these instructions.
        unsafe { if part == 0 { vzip1q_s32(values, values) } else { vzip2q_s32(values, values) } }
    }

    #[inline(always)]
    unsafe fn columns(at: *const f32) -> float32x4_t {
        // SAFETY: the caller promises the values of the columns.
        unsafe { twice::<SINGLE>(at) }
    }

    #[inline(always)]
    unsafe fn add_pairs(total: int32x4_t, pairs: int32x4_t, at: *const i32) -> int32x4_t {
        // SAFETY: the caller promises the values of the columns.
        unsafe { add_pair_products(total, pairs, vreinterpretq_s32_f32(twice::<SINGLE>(at.cast()))) }
    }

    #[inline(always)]
    unsafe fn prefetch<W: Weights>(tile: &TileOperands, block: usize) {
        // SAFETY: the caller promises the set.
        unsafe { prefetch::<I8mm, W>(tile, block) }
    }

    #[inline(always)]
    unsafe fn load<const R: usize, const C: usize>(from: *const f32, stride: usize) -> Results<Self, R, C> {
        // SAFETY: the caller promises the results of these rows and columns.
        unsafe {
            let mut results = [[I8mm::zero(); C]; R];
            for r in (0..R).step_by(2) {
                for c in 0..C {
                    let from = from.add(2 * c * stride + 2 * r);
                    let even = vld1q_f32(from);
                    let odd = if SINGLE { even } else { vld1q_f32(from.add(stride)) };
                    results[r][c] = vzip1q_f32(even, odd);
                    results[r + 1][c] = vzip2q_f32(even, odd);
                }
            }
            results
        }
    }

    #[inline(always)]
    unsafe fn store<const R: usize, const C: usize>(to: *mut f32, stride: usize, results: Results<Self, R, C>) {
        // SAFETY: the caller promises room for the results of these rows and columns.
        unsafe {
            for r in (0..R).step_by(2) {
                for c in 0..C {
                    let to = to.add(2 * c * stride + 2 * r);
                    vst1q_f32(to, vuzp1q_f32(results[r][c], results[r + 1][c]));
                    if !SINGLE {
                        vst1q_f32(to.add(stride), vuzp2q_f32(results[r][c], results[r + 1][c]));
                    }
                }
            }
        }
    }
}

/// The products of one part of a block.
#[inline(always)]
unsafe fn products<W: Weights, const R: usize, const C: usize, const SINGLE: bool>(
    tile: &TileOperands,
    rows: &RowVectors<R>,
    block: usize,
    part: usize,
) -> [[int32x4_t; C]; R] {
    // SAFETY: the caller promises the set and the block of the rows and columns.
    unsafe {
        let columns = if SINGLE { 1 } else { 2 * C };
        let table = I8mm::table(tile.table);
        let activations = tile.activations.add(block * 8 * columns);
        let mut sums = [[I8mm::empty(); C]; R];
        if !W::Scales::MINIMUM {
            // Weights with minimums have a zero point of 0.
            for c in 0..C {
                let at = (block * W::Scales::PARTS + part) * columns + 2 * c;
                let start = vreinterpretq_s32_f32(twice::<SINGLE>(tile.starts.add(at).cast()));
                for r in 0..R {
                    sums[r][c] = start;
                }
            }
        }
        macro_rules! groups {
            ($($even:literal $odd:literal)*) => { $(
                let mut eights = [vdupq_n_s8(0); C];
                for c in 0..C {
                    let from = activations.add($even * columns + 4 * c);
                    eights[c] = if SINGLE {
                        vreinterpretq_s8_u64(vdupq_n_u64(from.cast::<u64>().read_unaligned()))
                    } else {
                        vld1q_s8(from.cast())
                    };
                }
                for r in (0..R).step_by(2) {
                    let weights = if W::PANEL {
                        // 8 columns of a row are 8 consecutive bytes of such a panel.
                        let from = tile.quants.add(block * W::BYTES + 64 * $even + 8 * rows.lanes[r]);
                        [vld1q_u8(from), vld1q_u8(from.add(16))]
                    } else {
                        let from = rows.quants[r].add(block * W::BYTES);
                        pairs(W::group::<I8mm, $even>(from, table), W::group::<I8mm, $odd>(from, table))
                    };
                    for half in 0..2 {
                        for c in 0..C {
                            sums[r + half][c] = I8mm::multiply(sums[r + half][c], weights[half], eights[c]);
                        }
                    }
                }
            )* };
        }
        match (W::Scales::PARTS, part) {
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

/// Peak measurement, see `matmul::peak`: 8 matrix products per round in each of `C` independent sums.
pub(crate) struct MatrixPeak<const C: usize>;

// SAFETY: only values on the stack are read and written.
unsafe impl<const C: usize> Entry for MatrixPeak<C> {
    type Operands = usize;
    type Output = f32;

    #[inline(always)]
    unsafe fn run(rounds: &usize) -> f32 {
        // SAFETY: the caller promises the set.
        unsafe { products_in_registers::<C>(*rounds) }
    }
}

/// `rounds` × 8 matrix products in each of `C` independent sums.
///
/// # Safety
/// The processor has the set, and the code is compiled for it.
#[inline(always)]
unsafe fn products_in_registers<const C: usize>(rounds: usize) -> f32 {
    let (weights, activations) = (black_box([3_u8; 16]), black_box([1_i8; 16]));
    // SAFETY: pointers are to whole vectors.
    unsafe {
        let (weights, activations) = (vld1q_u8(weights.as_ptr()), vld1q_s8(activations.as_ptr()));
        let mut sums = [I8mm::empty(); C];
        for (c, sum) in sums.iter_mut().enumerate() {
            // Different values, so that the sums are not computed only once.
            *sum = vdupq_n_s32(black_box(c as i32));
        }
        for _ in 0..8 * rounds {
            for c in 0..C {
                sums[c] = I8mm::multiply(sums[c], weights, activations);
            }
        }
        let mut total = I8mm::zero();
        for sum in sums {
            total = vaddq_f32(total, I8mm::to_floats(sum));
        }
        vgetq_lane_f32::<0>(total)
    }
}
